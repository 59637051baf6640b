//! The stage `profile`: the dearest kernels of one training step, and its launches, from the log of CubeCL.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use burn::tensor::Device;
use serde_json::json;

use super::{
    Session,
    networks::{self, networks},
    rounded, worker,
};
use crate::step;

/// The step that is profiled; those before it compile.
const STEP: usize = 4;
/// Kernels in the table.
const DEAREST: usize = 25;
/// The time without a new line after which the log is complete.
const QUIET: Duration = Duration::from_millis(500);
/// The longest wait for that.
const LONGEST: Duration = Duration::from_secs(20);

pub fn run(session: &Session) -> anyhow::Result<()> {
    if let Some(part) = &session.part {
        return profile(session, part);
    }
    let network = networks(session)[0].name;
    for format in session.formats() {
        let part = format!("{network}/{}", format.name);
        let log = log(session, &part);
        fs::write(&log, "").with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = session.worker(&part)?;
        // the log also has the sources of kernels that are not in the cache
        command.env("CUBECL_DEBUG_OPTION", "profile-medium").env("CUBECL_DEBUG_LOG", &log);
        let ended = worker::run(&mut command, session.left(), true)?;
        if let Some(failure) = ended.failure() {
            session.failed(&part, &failure)?;
        }
    }
    Ok(())
}

/// The file in which CubeCL logs the kernels of a part.
fn log(session: &Session, part: &str) -> PathBuf {
    session.work.join(format!("kernels-{}.log", part.replace('/', "-")))
}

/// Trains a few steps, and reports the kernels of the last.
fn profile(session: &Session, part: &str) -> anyhow::Result<()> {
    let (case, format) = networks::of_part(session, part)?;
    let device = session.open()?;
    if !format.is_supported(&device) {
        return session.skipped(part, "the device does not compute in it");
    }
    let log = log(session, part);
    let mut trainer = step::trainer(case, format.precision, format.tf32, &device)?;
    for _ in 1..STEP {
        trainer.step()?;
    }
    let before = complete(&log, &device)?.len();
    trainer.step()?;
    let text = complete(&log, &device)?;
    let kernels = aggregate(&text[before..]);
    ensure!(!kernels.is_empty(), "{} names no kernel; does CubeCL log them elsewhere?", log.display());
    let launches: usize = kernels.iter().map(|kernel| kernel.launches).sum();
    let total: Duration = kernels.iter().map(|kernel| kernel.time).sum();
    let milliseconds = |time: Duration| rounded(1e3 * time.as_secs_f64());
    session.ok(&format!("{part}: all"), json!({ "ms": milliseconds(total), "launches": launches, "share": 1.0 }))?;
    for kernel in kernels.iter().take(DEAREST) {
        let share = kernel.time.as_secs_f64() / total.as_secs_f64();
        session.ok(
            &format!("{part}: {}", kernel.name),
            json!({ "ms": milliseconds(kernel.time), "launches": kernel.launches, "share": rounded(share) }),
        )?;
    }
    Ok(())
}

/// The log, when the device has done its work and the thread that writes the log has caught up.
fn complete(log: &Path, device: &Device) -> anyhow::Result<String> {
    device.sync().context("cannot wait for the device")?;
    let length = || fs::metadata(log).map(|file| file.len()).with_context(|| format!("cannot read {}", log.display()));
    let (mut last, mut changed, began) = (length()?, Instant::now(), Instant::now());
    while changed.elapsed() < QUIET && began.elapsed() < LONGEST {
        sleep(QUIET / 10);
        if length()? != last {
            (last, changed) = (length()?, Instant::now());
        }
    }
    fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))
}

/// All launches of a kernel.
#[derive(Debug, PartialEq)]
struct Kernel {
    name: String,
    time: Duration,
    launches: usize,
}

/// The kernels of a log with lines `| 12.5µs     | Name`, the dearest first; other lines are passed over. A launch that was
/// not measured counts without a time.
fn aggregate(log: &str) -> Vec<Kernel> {
    let mut kernels: HashMap<String, Kernel> = HashMap::new();
    for line in log.lines() {
        let Some((time, name)) = line.strip_prefix("| ").and_then(|line| line.split_once(" | ")) else { continue };
        let time = match time.trim() {
            "not measured" => Some(Duration::ZERO),
            time => duration(time),
        };
        // the summary, which is a table, has further columns
        let Some(time) = time.filter(|_| !name.contains(" | ")) else { continue };
        let name = short_name(name.trim());
        let kernel = kernels.entry(name.clone()).or_insert(Kernel { name, time: Duration::ZERO, launches: 0 });
        kernel.time += time;
        kernel.launches += 1;
    }
    let mut kernels: Vec<Kernel> = kernels.into_values().collect();
    kernels.sort_unstable_by(|one, two| two.time.cmp(&one.time).then_with(|| one.name.cmp(&two.name)));
    kernels
}

/// A duration as Rust's `Debug` writes it.
fn duration(text: &str) -> Option<Duration> {
    let unit_start = text.find(|character: char| !character.is_ascii_digit() && character != '.')?;
    let (number, unit) = text.split_at(unit_start);
    let unit = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}

/// The name without the digits of its hash at the end, so that a kernel is one for all of its shapes.
fn short_name(name: &str) -> String {
    match name.rsplit_once('_') {
        Some((start, hash)) if hash.len() >= 8 && hash.chars().all(|digit| digit.is_ascii_hexdigit()) => {
            start.to_owned()
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_added_up_by_kernel_the_dearest_first() {
        let log = "\
            | 1.5ms      | MatmulEntry<f32>\n\
            | 10.25µs    | KernelBinop_0123456789abcdef\n\
            something else\n\
            | 20µs       | KernelBinop_fedcba9876543210\n\
            | not measured | Copy\n\
            | Name       | Duration | Num Computed | Ratio |\n\
            | Total      | 3ms      | 3            | 100 % |\n\
            | 3 ms       | a line of another form\n";
        let kernel = |name: &str, nanoseconds, launches| Kernel {
            name: name.to_owned(),
            time: Duration::from_nanos(nanoseconds),
            launches,
        };
        let expected =
            [kernel("MatmulEntry<f32>", 1_500_000, 1), kernel("KernelBinop", 30_250, 2), kernel("Copy", 0, 1)];
        assert_eq!(aggregate(log), expected);
        assert!(aggregate("").is_empty());
    }

    #[test]
    fn durations_are_read_as_they_are_written() {
        for time in
            [Duration::from_nanos(17), Duration::from_micros(1250), Duration::from_millis(2), Duration::from_secs(3)]
        {
            assert_eq!(duration(&format!("{time:?}")), Some(time));
        }
        for wrong in ["", "3", "ms", "1.2.3s", "3 s", "-1s"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
