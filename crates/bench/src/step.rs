//! `bench step`: the time of a training step and of a forward pass at common shapes, beside that of lucidrains' PyTorch
//! system in the same run.
//!
//! The two alternate, a few steps of one, a few of the other, so that other load of the machine affects both. The smallest
//! time of each is printed, and PyTorch's over ours.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, bail};
use burn::tensor::{Device, Tensor, TensorData};
use clap::Args;
use data::memory::peak_bytes;
use serde::{Deserialize, Serialize};
use train::{Config, MixedPrecision, Trainer};
use unet::{Condition, Network, UnetConfig};

use crate::measurement::{noise_images, print, timed};

#[derive(Args)]
pub struct StepArguments {
    /// Python with `torch` and `denoising-diffusion-pytorch`, to compare with
    #[arg(long, value_name = "PYTHON")]
    against_torch: Option<PathBuf>,
    /// Only the cases whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Repetitions of each side, alternately
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// Measurements in a repetition
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Threads of both sides; all cores if not given
    #[arg(long)]
    threads: Option<usize>,
    /// Print the time of each operation and shape within one training step instead
    #[arg(long, conflicts_with_all = ["against_torch", "json"])]
    breakdown: bool,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// A network and its input.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// Its name on the command line and in tables.
    pub name: &'static str,
    /// Channels of the first level.
    pub dim: usize,
    /// Channels of each level over `dim`.
    pub dim_mults: &'static [usize],
    /// Channels of an image.
    pub channels: usize,
    /// Height and width of an image.
    pub side: usize,
    /// Images in a batch.
    pub batch: usize,
}

const CASES: [Case; 5] = [
    Case { name: "unet64-3x32x32-b8", dim: 64, dim_mults: &[1, 2, 4, 8], channels: 3, side: 32, batch: 8 },
    Case { name: "unet32-1x32x32-b32", dim: 32, dim_mults: &[1, 2, 4], channels: 1, side: 32, batch: 32 },
    Case { name: "unet64-3x64x64-b4", dim: 64, dim_mults: &[1, 2, 4, 8], channels: 3, side: 64, batch: 4 },
    Case { name: "unet32-1x28x28-b1", dim: 32, dim_mults: &[1, 2, 4], channels: 1, side: 28, batch: 1 },
    Case { name: "unet32-1x28x28-b64", dim: 32, dim_mults: &[1, 2, 4], channels: 1, side: 28, batch: 64 },
];

/// The smallest time of each side.
#[derive(Debug, Serialize)]
struct Row {
    case: Case,
    what: &'static str,
    threads: usize,
    seconds: f64,
    torch_seconds: Option<f64>,
    /// torch's time over ours.
    ratio: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Report {
    torch: Option<String>,
    rows: Vec<Row>,
}

pub fn run(arguments: &StepArguments) -> anyhow::Result<()> {
    let threads = match arguments.threads {
        Some(threads) => threads,
        None => std::thread::available_parallelism().context("cannot find out how many cores there are")?.get(),
    };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("cannot start the threads")?;
    if arguments.breakdown {
        return breakdown(arguments);
    }
    let mut torch = arguments.against_torch.as_deref().map(Torch::start).transpose()?;
    let mut report = Report { torch: torch.as_ref().map(|torch| torch.version.clone()), rows: Vec::new() };
    if !arguments.json {
        print(format!("{:<20} {:<8} {:>9} {:>9} {:>6}", "case", "what", "ms", "torch ms", "ratio"))?;
    }
    for case in wanted(arguments) {
        let mut trainer = trainer(case, MixedPrecision::No, true, &Device::flex())?;
        for what in ["train", "forward"] {
            let row = measure(arguments, case, what, threads, &mut trainer, torch.as_mut())?;
            if !arguments.json {
                let column = |value: Option<f64>, digits: usize| {
                    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
                };
                print(format!(
                    "{:<20} {what:<8} {:>9.1} {:>9} {:>6}",
                    case.name,
                    1e3 * row.seconds,
                    column(row.torch_seconds.map(|seconds| 1e3 * seconds), 1),
                    column(row.ratio, 2)
                ))?;
            }
            report.rows.push(row);
        }
    }
    if arguments.json {
        print(serde_json::to_string(&report)?)?;
    }
    if let Some(peak) = peak_bytes() {
        eprintln!("peak memory of this process: {} MB", peak / 1_000_000);
    }
    if let Some(peak) = torch.and_then(|torch| torch.peak_bytes) {
        eprintln!("peak memory of the PyTorch process: {} MB", peak / 1_000_000);
    }
    Ok(())
}

/// Times both sides, alternately.
fn measure(
    arguments: &StepArguments,
    case: &Case,
    what: &'static str,
    threads: usize,
    trainer: &mut Trainer,
    mut torch: Option<&mut Torch>,
) -> anyhow::Result<Row> {
    // the first of a repetition warms the caches
    let repeats = arguments.repeats + 1;
    let (mut seconds, mut torch_seconds) = (f64::INFINITY, None);
    for _ in 0..arguments.turns {
        for repeat in 0..repeats {
            let (result, time) = timed(|| match what {
                "train" => trainer.step().map(drop).map_err(anyhow::Error::from),
                _ => forward(&trainer.model().unet, case),
            });
            result?;
            if repeat > 0 {
                seconds = seconds.min(time);
            }
        }
        if let Some(torch) = &mut torch {
            let time = torch.measure(case, what, threads, repeats)?;
            torch_seconds = Some(torch_seconds.map_or(time, |least: f64| least.min(time)));
        }
    }
    let ratio = torch_seconds.map(|torch_seconds| torch_seconds / seconds);
    Ok(Row { case: case.clone(), what, threads, seconds, torch_seconds, ratio })
}

/// The cases that `--only` leaves.
fn wanted(arguments: &StepArguments) -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(|case| arguments.only.as_ref().is_none_or(|part| case.name.contains(part.as_str())))
}

/// Prints the operations of one step of each case, the longest first, and the rest of its time.
fn breakdown(arguments: &StepArguments) -> anyhow::Result<()> {
    for case in wanted(arguments) {
        let mut trainer = trainer(case, MixedPrecision::No, true, &Device::flex())?;
        trainer.step()?;
        let ((result, entries), total) = timed(|| kernels::profile::record(|| trainer.step()));
        result?;
        print(format!("{}: {:.1} ms", case.name, 1e3 * total))?;
        for entry in &entries {
            print(format!("{:>9.2} ms  {:>4} x  {}", 1e3 * entry.time.as_secs_f64(), entry.calls, entry.name))?;
        }
        let native: f64 = entries.iter().map(|entry| entry.time.as_secs_f64()).sum();
        print(format!("{:>9.2} ms          everything else", 1e3 * (total - native)))?;
    }
    Ok(())
}

/// A trainer as lucidrains': Adam, clipping at 1, an EMA update every 10 steps. The images are noise.
pub fn trainer(case: &Case, precision: MixedPrecision, tf32: bool, device: &Device) -> anyhow::Result<Trainer> {
    let mut config = Config::default();
    let (dim, dim_mults, channels) = (case.dim, case.dim_mults.to_vec(), case.channels);
    config.unet = UnetConfig { dim, dim_mults, channels, ..UnetConfig::default() }.into();
    config.training.batch_size = case.batch;
    (config.training.mixed_precision, config.training.tf32) = (precision, tf32);
    let images = noise_images([case.batch, case.side, case.side, case.channels], 0)?;
    Ok(Trainer::new(config, images, device)?)
}

/// One prediction without gradients, in the number format of the weights, until its values can be read.
pub fn forward(unet: &Network, case: &Case) -> anyhow::Result<()> {
    let device = unet.device();
    let shape = [case.batch, case.channels, case.side, case.side];
    let t = Tensor::from_data(TensorData::new(vec![500f32; case.batch], [case.batch]), &device);
    let output = unet.forward(Tensor::ones(shape, (&device, unet.dtype())), t, Condition::default());
    output.try_into_data().context("cannot read the prediction")?;
    Ok(())
}

/// A Python process that measures on request.
struct Torch {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    version: String,
    peak_bytes: Option<u64>,
}

#[derive(Deserialize)]
struct Answer {
    seconds: Vec<f64>,
    peak_bytes: u64,
}

impl Torch {
    fn start(python: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(python)
            .args(["-c", include_str!("../python/lucidrains.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the pipes to {} are missing", python.display());
        };
        let mut torch =
            Self { child, requests, answers: BufReader::new(answers), version: String::new(), peak_bytes: None };
        let hello: serde_json::Value = torch.line().with_context(|| {
            format!(
                "{} does not start; install its packages: `{0} -m pip install torch denoising-diffusion-pytorch`",
                python.display()
            )
        })?;
        torch.version = hello["torch"].as_str().unwrap_or("unknown").to_owned();
        Ok(torch)
    }

    fn line<T: for<'a> Deserialize<'a>>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("cannot read the answer of Python")?;
        serde_json::from_str(&line).with_context(|| format!("Python ended, or answered `{}`", line.trim_end()))
    }

    /// The smallest of `repeats` measurements without the first.
    fn measure(&mut self, case: &Case, what: &str, threads: usize, repeats: u32) -> anyhow::Result<f64> {
        let request = serde_json::json!({
            "dim": case.dim, "dim_mults": case.dim_mults, "channels": case.channels, "side": case.side,
            "batch": case.batch, "what": what, "threads": threads, "repeats": repeats,
        });
        writeln!(self.requests, "{request}").context("cannot write to Python")?;
        let answer: Answer = self.line()?;
        self.peak_bytes = Some(answer.peak_bytes);
        let first = usize::from(answer.seconds.len() > 1);
        Ok(answer.seconds[first..].iter().copied().fold(f64::INFINITY, f64::min))
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        // an empty line ends it; an error means that it has ended already
        let _ = writeln!(self.requests);
        let _ = self.child.wait();
    }
}
