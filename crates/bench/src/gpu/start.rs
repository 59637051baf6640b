//! The stage `start`: seconds to the first training step, without compiled kernels in the cache and with those of the first
//! process. It comes before other stages, which find the kernels compiled.

use std::{fs, io::ErrorKind, time::Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::{
    Session,
    networks::{self, networks},
    rounded, worker,
};
use crate::{measurement::print, step};

pub fn run(session: &Session) -> anyhow::Result<()> {
    if let Some(part) = &session.part {
        return first_step(session, part);
    }
    // that of run.sh
    let cache = session.work.join("cache");
    match fs::remove_dir_all(&cache) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", cache.display()));
        }
        _ => {}
    }
    let network = networks(session)[0].name;
    for format in session.formats() {
        for state in ["cold", "warm"] {
            let part = format!("{network}/{}", format.name);
            let name = format!("{part}, {state}");
            let mut command = session.worker(&part)?;
            // ours and Mesa's; the driver's
            command.env("XDG_CACHE_HOME", &cache).env("CUDA_CACHE_PATH", cache.join("nvidia"));
            let ended = worker::run(&mut command, session.left(), false)?;
            match (ended.failure(), ended.lines.first()) {
                (Some(failure), _) => session.failed(&name, &failure)?,
                (None, Some((_, line))) if line == UNSUPPORTED => session.skipped(&name, UNSUPPORTED)?,
                (None, Some((seconds, line))) => {
                    let mut values: Value = serde_json::from_str(line).context("a worker printed no JSON")?;
                    values["first_step_s"] = rounded(*seconds);
                    session.ok(&name, values)?;
                }
                (None, None) => bail!("a worker printed nothing"),
            }
        }
    }
    Ok(())
}

const UNSUPPORTED: &str = "the device does not compute in it";

/// Trains one step, and prints the seconds of each part since the start of this process.
fn first_step(session: &Session, part: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    let (case, format) = networks::of_part(session, part)?;
    let device = session.open()?;
    if !format.is_supported(&device) {
        return print(UNSUPPORTED);
    }
    let opened = began.elapsed().as_secs_f64();
    let mut trainer = step::trainer(case, format.precision, format.tf32, &device)?;
    device.sync().context("cannot wait for the device")?;
    let made = began.elapsed().as_secs_f64();
    trainer.step()?;
    device.sync().context("cannot wait for the device")?;
    print(json!({ "device_s": rounded(opened), "network_s": rounded(made) }))
}
