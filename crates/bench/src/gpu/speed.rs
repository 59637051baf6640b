//! The stage `speed`: training step, forward pass and memory of each network in each number format.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context;
use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{DType, Tensor},
};
use serde_json::{Value, json};
use unet::Network;

use super::{
    Session, median,
    networks::{self, networks},
    rounded, worker,
};
use crate::{measurement::timed, step};

/// Steps before the measured ones.
const WARM_UP: usize = 3;
/// The most steps that are measured, and the least.
const STEPS: (usize, usize) = (20, 3);
/// The time after which no further step is measured.
const MEASURED: Duration = Duration::from_secs(3);
/// The longest time of one network in one format.
const LONGEST: u64 = 40;

pub fn run(session: &Session) -> anyhow::Result<()> {
    if let Some(part) = &session.part {
        return measure(session, part);
    }
    for case in networks(session) {
        for format in session.formats() {
            let name = format!("{}/{}", case.name, format.name);
            if session.left() < Duration::from_secs(2) {
                session.skipped(&name, "no time was left")?;
                continue;
            }
            let ended = worker::run(&mut session.worker(&name)?, session.limit(LONGEST), true)?;
            if let Some(failure) = ended.failure() {
                session.failed(&name, &failure)?;
            }
        }
    }
    Ok(())
}

/// Measures one network in one format.
fn measure(session: &Session, part: &str) -> anyhow::Result<()> {
    let (case, format) = networks::of_part(session, part)?;
    let device = session.open()?;
    if !format.is_supported(&device) {
        return session.skipped(part, "the device does not compute in it");
    }
    let wait = || device.sync().context("cannot wait for the device");
    let (trainer, first) = timed(|| -> anyhow::Result<_> {
        let mut trainer = step::trainer(case, format.precision, format.tf32, &device)?;
        trainer.step()?;
        wait()?;
        Ok(trainer)
    });
    let mut trainer = trainer?;
    let step = series(|| {
        trainer.step()?;
        wait()
    })?;
    // as a run does it: the host prepares the next step while the device computes
    let count = STEPS.1.max((MEASURED.as_secs_f64() / step) as usize).min(STEPS.0);
    let (result, ahead) = timed(|| -> anyhow::Result<()> {
        for _ in 0..count {
            trainer.advance(false)?;
        }
        trainer.wait()?;
        wait()
    });
    result?;
    let memory = device.memory_pool_usage().map(|usage| usage.bytes_reserved);
    let unet = cast(trainer.model().unet, format.dtype);
    let forward = series(|| step::forward(&unet, case))?;
    session.ok(
        part,
        json!({
            "train_ms": rounded(1e3 * step),
            "train_ahead_ms": rounded(1e3 * ahead / count as f64),
            "forward_ms": rounded(1e3 * forward),
            "memory_mib": memory.map(|bytes| bytes >> 20),
            "gpu_memory_mib": used_memory(),
            "first_step_s": rounded(first),
            "batch": case.batch,
        }),
    )
}

/// The median of the seconds of some repetitions, after a few that are not measured.
fn series(mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    for _ in 0..WARM_UP {
        work()?;
    }
    let (began, mut seconds) = (Instant::now(), Vec::new());
    while seconds.len() < STEPS.1 || (seconds.len() < STEPS.0 && began.elapsed() < MEASURED) {
        let (result, time) = timed(&mut work);
        result?;
        seconds.push(time);
    }
    Ok(median(seconds))
}

/// The network with its parameters in a number format.
fn cast(unet: Network, dtype: DType) -> Network {
    struct Cast(DType);
    impl ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(self.0))
        }
    }
    unet.map(&mut Cast(dtype))
}

/// The memory of the GPU that is in use, by NVIDIA's tool; it counts all processes and the driver.
fn used_memory() -> Value {
    let query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits"];
    let output = Command::new("nvidia-smi").args(query).output().ok();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().and_then(|line| line.trim().parse::<u64>().ok()).map_or(Value::Null, Value::from)
}
