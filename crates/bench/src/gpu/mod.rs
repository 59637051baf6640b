//! `bench gpu STAGE`: checks and measures a GPU, one stage at a time; `cargo xtask gpu-kit` packs it for another machine.
//!
//! A stage prints JSON lines `{"stage", "name", "result", …}`, each when it is known. `result` is `ok`, `failed` or `skipped`,
//! the latter two with a `message`. What may hang, crash or use up the memory runs in a process of its own with a time limit:
//! this program again, with `--part`.

mod environment;
mod kernels;
mod memory;
mod networks;
mod pointers;
mod profile;
mod resume;
mod same;
mod speed;
mod start;
mod table;
mod torch;
mod worker;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context;
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use crate::measurement::print;
use networks::{FORMATS, Format};

/// The time that a CPU may take over that of a GPU, with small sizes; most of it is compilation.
const SMALL_SLOWNESS: u64 = 10;

#[derive(Args)]
pub struct GpuArguments {
    /// The stage
    stage: Stage,
    /// Where to compute
    #[arg(long)]
    device: Option<String>,
    /// Small sizes, for a CPU that takes the place of a GPU
    #[arg(long)]
    small: bool,
    /// The folder of the kit, which has the reference values
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    kit: PathBuf,
    /// The folder for files that a stage writes
    #[arg(long, value_name = "FOLDER", default_value = "work")]
    work: PathBuf,
    /// Seconds after which nothing more is begun
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Be the process of one part of the stage
    #[arg(long, hide = true)]
    part: Option<String>,
}

/// A stage; all but the last two check or measure the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// GPU, driver, libraries, processor, memory and version
    Environment,
    /// Each operation against its composition in f64, and its time
    Kernels,
    /// Ten training steps and a grid of samples against those of the CPU
    Same,
    /// Seconds to the first training step, without and with compiled kernels
    Start,
    /// Training step, forward pass and memory of networks
    Speed,
    /// The dearest kernels of a training step, and its launches
    Profile,
    /// A batch beyond the memory of the device
    Memory,
    /// Losses of a run that was stopped and resumed
    Resume,
    /// Whether other libraries could work on CubeCL's tensors on CUDA
    Pointers,
    /// PyTorch's training step, forward pass and memory of the same networks
    Torch,
    /// Write the reference values of the stage `same`
    Reference,
    /// Print the results of a kit as tables
    Table,
}

pub fn run(arguments: &GpuArguments) -> anyhow::Result<()> {
    let session = Session::new(arguments)?;
    match arguments.stage {
        Stage::Environment => environment::run(&session),
        Stage::Kernels => kernels::run(&session),
        Stage::Same => same::run(&session),
        Stage::Start => start::run(&session),
        Stage::Speed => speed::run(&session),
        Stage::Profile => profile::run(&session),
        Stage::Memory => memory::run(&session),
        Stage::Resume => resume::run(&session),
        Stage::Pointers => pointers::run(&session),
        Stage::Torch => torch::run(&session),
        Stage::Reference => same::write_reference(&session),
        Stage::Table => table::run(&session),
    }
}

/// A stage that runs.
struct Session {
    stage: Stage,
    device: String,
    small: bool,
    kit: PathBuf,
    work: PathBuf,
    part: Option<String>,
    end: Instant,
}

impl Session {
    fn new(arguments: &GpuArguments) -> anyhow::Result<Self> {
        let work = &arguments.work;
        fs::create_dir_all(work).with_context(|| format!("cannot make the folder {}", work.display()))?;
        let device = match &arguments.device {
            Some(device) => device.clone(),
            None => device::default_name()?.to_owned(),
        };
        Ok(Self {
            stage: arguments.stage,
            device,
            small: arguments.small,
            kit: absolute(&arguments.kit)?,
            work: absolute(work)?,
            part: arguments.part.clone(),
            end: Instant::now() + Duration::from_secs(arguments.seconds),
        })
    }

    fn stage_name(&self) -> String {
        self.stage.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn open(&self) -> anyhow::Result<Device> {
        Ok(device::open(&self.device)?)
    }

    /// The longest time of a part of the stage, within what is left: these seconds on a GPU.
    fn limit(&self, seconds: u64) -> Duration {
        let slowness = if self.small { SMALL_SLOWNESS } else { 1 };
        self.left().min(Duration::from_secs(seconds * slowness))
    }

    /// The number formats that are measured: with small sizes one, since each has its kernels to compile.
    fn formats(&self) -> &'static [Format] {
        if self.small { &FORMATS[FORMATS.len() - 1..] } else { &FORMATS }
    }

    /// The time that is left for the stage.
    fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// This program as the process of one part.
    fn worker(&self, part: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe().context("cannot find out where this program lies")?);
        command.args(["gpu", &self.stage_name(), "--device", &self.device, "--part", part]);
        command.arg("--kit").arg(&self.kit).arg("--work").arg(&self.work);
        command.args(["--seconds", &self.left().as_secs().to_string()]);
        if self.small {
            command.arg("--small");
        }
        Ok(command)
    }

    /// Prints a line of measurements.
    fn ok(&self, name: &str, values: Value) -> anyhow::Result<()> {
        self.line(name, "ok", values)
    }

    /// Prints a line about something that went wrong.
    fn failed(&self, name: &str, message: &str) -> anyhow::Result<()> {
        self.line(name, "failed", serde_json::json!({ "message": message }))
    }

    /// Prints a line about something that was not tried.
    fn skipped(&self, name: &str, message: &str) -> anyhow::Result<()> {
        self.line(name, "skipped", serde_json::json!({ "message": message }))
    }

    /// Prints measurements whose result is judged: `failed` with the message, if there is one.
    fn judged(&self, name: &str, failure: Option<String>, mut values: Value) -> anyhow::Result<()> {
        let Some(message) = failure else { return self.ok(name, values) };
        values["message"] = message.into();
        self.line(name, "failed", values)
    }

    fn line(&self, name: &str, result: &str, values: Value) -> anyhow::Result<()> {
        let mut line = Map::new();
        line.insert("stage".to_owned(), self.stage_name().into());
        line.insert("name".to_owned(), name.into());
        line.insert("result".to_owned(), result.into());
        if let Value::Object(values) = values {
            line.extend(values);
        }
        // the standard output is flushed at each end of a line
        print(Value::Object(line))
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize().with_context(|| format!("cannot find the folder {}", path.display()))
}

/// A number with four digits that count, as JSON.
fn rounded(value: f64) -> Value {
    format!("{value:.3e}").parse::<f64>().map_or(Value::Null, Value::from)
}

/// The median; NaN without values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits_and_the_median_is_in_the_middle() {
        assert_eq!(rounded(1234.567), 1235.0);
        assert_eq!(rounded(0.000_123_456), 0.000_123_5);
        assert_eq!(rounded(f64::NAN), Value::Null);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!(median(Vec::new()).is_nan());
    }
}
