//! `bench step`: how long a training step and a forward pass take, for the shapes that matter, and how long lucidrains'
//! PyTorch system takes for them in the same run.
//!
//! The two take turns: a few steps of one, a few of the other, so that whatever else the machine does strikes both. What
//! is printed is the smallest time of each, and their ratio; above 1 we are ahead.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, bail};
use burn::tensor::{Device, Tensor, TensorData};
use clap::Args;
use data::{ImageSet, memory::peak_bytes};
use serde::{Deserialize, Serialize};
use train::{Config, Trainer};
use unet::{Condition, UnetConfig};

#[derive(Args)]
pub struct StepArguments {
    /// Python with `torch` and `denoising-diffusion-pytorch`, to compare with
    #[arg(long, value_name = "PYTHON")]
    against_torch: Option<PathBuf>,
    /// Only the cases whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Turns of each side
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// Measurements in a turn
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Threads of both sides; all cores if not given
    #[arg(long)]
    threads: Option<usize>,
    /// Where the time of one training step goes, by operation and shape, instead of times
    #[arg(long, conflicts_with_all = ["against_torch", "json"])]
    breakdown: bool,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// A network and its input.
#[derive(Clone, Debug, Serialize)]
struct Case {
    name: &'static str,
    dim: usize,
    dim_mults: &'static [usize],
    channels: usize,
    side: usize,
    batch: usize,
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
    let mut peer = arguments.against_torch.as_deref().map(Peer::start).transpose()?;
    let mut report = Report { torch: peer.as_ref().map(|peer| peer.version.clone()), rows: Vec::new() };
    if !arguments.json {
        println(&format!("{:<20} {:<8} {:>9} {:>9} {:>6}", "case", "what", "ms", "torch ms", "ratio"))?;
    }
    for case in wanted(arguments) {
        let mut trainer = trainer(case)?;
        for what in ["train", "forward"] {
            let (mut ours, mut torch) = (f64::INFINITY, f64::INFINITY);
            for turn in 0..arguments.turns {
                // the first of a turn warms the caches
                let repeats = arguments.repeats + 1;
                for repeat in 0..repeats {
                    let start = Instant::now();
                    match what {
                        "train" => drop(trainer.step()?),
                        _ => forward(&trainer, case)?,
                    }
                    if repeat > 0 || (turn > 0 && repeats == 1) {
                        ours = ours.min(start.elapsed().as_secs_f64());
                    }
                }
                if let Some(peer) = &mut peer {
                    torch = torch.min(peer.measure(case, what, threads, repeats)?);
                }
            }
            let row = Row {
                case: case.clone(),
                what,
                threads,
                seconds: ours,
                torch_seconds: peer.is_some().then_some(torch),
                ratio: peer.is_some().then_some(torch / ours),
            };
            if !arguments.json {
                let column = |value: Option<f64>, scale: f64, digits: usize| {
                    value.map_or("-".to_owned(), |value| format!("{:.digits$}", scale * value))
                };
                println(&format!(
                    "{:<20} {:<8} {:>9.1} {:>9} {:>6}",
                    row.case.name,
                    what,
                    1e3 * ours,
                    column(row.torch_seconds, 1e3, 1),
                    column(row.ratio, 1.0, 2)
                ))?;
            }
            report.rows.push(row);
        }
    }
    if arguments.json {
        println(&serde_json::to_string(&report)?)?;
    }
    if let Some(peak) = peak_bytes() {
        eprintln!("peak memory of this process: {} MB", peak / 1_000_000);
    }
    if let Some(peak) = peer.and_then(|peer| peer.peak_bytes) {
        eprintln!("peak memory of the PyTorch process: {} MB", peak / 1_000_000);
    }
    Ok(())
}

/// The cases that `--only` leaves.
fn wanted(arguments: &StepArguments) -> impl Iterator<Item = &'static Case> {
    CASES.iter().filter(|case| arguments.only.as_ref().is_none_or(|part| case.name.contains(part.as_str())))
}

/// Prints the operations of one step of each case, the longest first, and what is left for everything else.
fn breakdown(arguments: &StepArguments) -> anyhow::Result<()> {
    for case in wanted(arguments) {
        let mut trainer = trainer(case)?;
        trainer.step()?;
        let start = Instant::now();
        let (result, entries) = kernels::profile::record(|| trainer.step());
        result?;
        let total = start.elapsed();
        println(&format!("{}: {:.1} ms", case.name, 1e3 * total.as_secs_f64()))?;
        for entry in &entries {
            let milliseconds = 1e3 * entry.time.as_secs_f64();
            println(&format!("{milliseconds:>9.2} ms  {:>4} x  {}", entry.calls, entry.name))?;
        }
        let native: f64 = entries.iter().map(|entry| entry.time.as_secs_f64()).sum();
        println(&format!("{:>9.2} ms          everything else", 1e3 * (total.as_secs_f64() - native)))?;
    }
    Ok(())
}

/// As lucidrains' trainer: Adam, clipping at 1, an average every 10 steps. The images are noise; time does not care.
fn trainer(case: &Case) -> anyhow::Result<Trainer> {
    let mut config = Config::default();
    config.unet =
        UnetConfig { dim: case.dim, dim_mults: case.dim_mults.to_vec(), channels: case.channels, ..config.unet };
    config.training.batch_size = case.batch;
    let shape = [case.batch, case.side, case.side, case.channels];
    let pixels = (0..shape.iter().product::<usize>()).map(|index| ((index * 2_654_435_761) >> 7) as u8).collect();
    let images = ImageSet::new("noise", pixels, shape, None, None)?;
    Ok(Trainer::new(config, images, &Device::flex())?)
}

/// One prediction without gradients, up to its last number.
fn forward(trainer: &Trainer, case: &Case) -> anyhow::Result<()> {
    let device = Device::flex();
    let shape = [case.batch, case.channels, case.side, case.side];
    let t = Tensor::from_data(TensorData::new(vec![500f32; case.batch], [case.batch]), &device);
    let output = trainer.model().unet.forward(Tensor::ones(shape, &device), t, Condition::default());
    output.try_into_data().context("cannot read the prediction")?;
    Ok(())
}

/// A Python process that measures on request.
struct Peer {
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

impl Peer {
    fn start(python: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(python)
            .args(["-c", include_str!("../python/peer.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", python.display()))?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the pipes to {} are missing", python.display());
        };
        let mut peer =
            Self { child, requests, answers: BufReader::new(answers), version: String::new(), peak_bytes: None };
        let hello: serde_json::Value = peer.line().with_context(|| {
            format!(
                "{} did not come up: `{0} -m pip install torch denoising-diffusion-pytorch` gives it what it needs",
                python.display()
            )
        })?;
        peer.version = hello["torch"].as_str().unwrap_or("unknown").to_owned();
        Ok(peer)
    }

    fn line<T: for<'a> Deserialize<'a>>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line).context("cannot read what Python says")?;
        serde_json::from_str(&line).with_context(|| format!("Python ended, or said `{}`", line.trim_end()))
    }

    /// The smallest of some measurements, the first left out.
    fn measure(&mut self, case: &Case, what: &str, threads: usize, repeats: u32) -> anyhow::Result<f64> {
        let request = serde_json::json!({
            "dim": case.dim, "dim_mults": case.dim_mults, "channels": case.channels, "side": case.side,
            "batch": case.batch, "what": what, "threads": threads, "repeats": repeats,
        });
        writeln!(self.requests, "{request}").context("cannot ask Python")?;
        let answer: Answer = self.line()?;
        self.peak_bytes = Some(answer.peak_bytes);
        let first = usize::from(answer.seconds.len() > 1);
        Ok(answer.seconds[first..].iter().copied().fold(f64::INFINITY, f64::min))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // an empty line ends it; if it has ended already, there is nothing left to do
        let _ = writeln!(self.requests);
        let _ = self.child.wait();
    }
}

fn println(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot print")
}
