//! `bench scaling`: the speed of several processes over that of one, measured here, and the expectation for many.

use std::{
    process::Command,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use parallel::{GroupError, ProcessGroup};
use serde::{Deserialize, Serialize};
use train::{Config, Trainer};

use crate::{
    measurement::{print, print_table_head},
    presets::images_like,
};

#[derive(Args)]
pub struct ScalingArguments {
    /// The presets that are measured, with commas between
    #[arg(long, value_delimiter = ',', default_value = "digits,fashion-mnist")]
    presets: Vec<String>,
    /// Steps that are timed in a repetition, after one that is not
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Repetitions of one process and of several, alternately; the quickest steps count
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// How many processes there are at most, with one thread each
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..))]
    ranks: u32,
    /// Further arguments of mpirun, with spaces between, such as `--hostfile FILE` to measure on several machines
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    mpirun: String,
    /// Only print what is expected of many devices
    #[arg(long)]
    plan: bool,
    /// Be one of the processes
    #[arg(long, hide = true)]
    as_rank: bool,
    /// Compute only a part of the batch
    #[arg(long, hide = true, default_value_t = 1)]
    part_of: u32,
}

/// A measurement, which is repeated alternately with the others.
#[derive(Clone, Copy)]
struct Case {
    ranks: u32,
    /// The number of parts of the batch, of which one is computed.
    part_of: u32,
}

/// The times of a step in one process, in seconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Timing {
    /// All of it.
    step: f64,
    /// Waiting until the slowest rank has its gradients.
    waiting: f64,
    /// Summing the gradients of all.
    summing: f64,
}

/// The result of one repetition.
#[derive(Debug, Serialize, Deserialize)]
struct Turn {
    parameters: usize,
    images_in_step: usize,
    timings: Vec<Timing>,
}

pub fn run(arguments: &ScalingArguments) -> anyhow::Result<()> {
    if arguments.as_rank {
        return rank(arguments);
    }
    if !arguments.plan {
        measure(arguments)?;
    }
    expect()
}

/// Starts this program again by `mpirun`, and prints a table in Markdown.
fn measure(arguments: &ScalingArguments) -> anyhow::Result<()> {
    ensure!(
        cfg!(feature = "mpi"),
        "this build has no MPI: run it by `cargo xtask bench scaling`, which adds it, or only `--plan`"
    );
    print_table_head(
        "preset | processes | step, ms | images/s | efficiency | waiting | summing | MB a process sends in a step",
    )?;
    for preset in &arguments.presets {
        // the time of one process for its share of the batch is the best that several can reach
        let ranks = arguments.ranks;
        let cases = [(1, 1), (1, ranks), (ranks, 1)].map(|(ranks, part_of)| Case { ranks, part_of });
        let mut best: [Option<(f64, Turn)>; 3] = Default::default();
        for _ in 0..arguments.turns {
            for (best, case) in best.iter_mut().zip(cases) {
                let turn = turn(arguments, preset, case)?;
                let step = median(&turn.timings, |timing| timing.step);
                if best.as_ref().is_none_or(|(least, _)| step < *least) {
                    *best = Some((step, turn));
                }
            }
        }
        let alone = best[0].as_ref().map_or(f64::NAN, |(step, _)| *step);
        for (Case { ranks, part_of }, best) in cases.into_iter().zip(&best) {
            let Some((step, turn)) = best else { continue };
            let share = |part: fn(&Timing) -> f64| 100.0 * median(&turn.timings, part) / step;
            let part = match (ranks, part_of) {
                (1, 1) => "",
                (1, _) => ", its share of the batch",
                _ => "",
            };
            print(format!(
                "| {preset} | {ranks}{part} | {:.1} | {:.1} | {:.0} % | {:.1} % | {:.1} % | {:.2} |",
                1e3 * step,
                turn.images_in_step as f64 / step,
                100.0 * alone / step / f64::from(ranks * part_of),
                share(|timing| timing.waiting),
                share(|timing| timing.summing),
                ring_bytes(turn.parameters, ranks) / 1e6,
            ))?;
        }
    }
    Ok(())
}

/// The timings of processes with one thread each.
fn turn(arguments: &ScalingArguments, preset: &str, case: Case) -> anyhow::Result<Turn> {
    let program = std::env::current_exe().context("cannot find out where this program lies")?;
    let Case { ranks, part_of } = case;
    let output = Command::new("mpirun")
        .args(["--allow-run-as-root", "--oversubscribe", "-x", "RAYON_NUM_THREADS=1", "-n", &ranks.to_string()])
        .args(arguments.mpirun.split_whitespace())
        .arg(program)
        .args(["scaling", "--as-rank", "--presets", preset, "--steps", &arguments.steps.to_string()])
        .args(["--part-of", &part_of.to_string()])
        .output()
        .context("cannot start mpirun; is it installed (Debian: openmpi-bin)?")?;
    if !output.status.success() {
        bail!("mpirun of {ranks} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("the processes printed something else than their timings")
}

/// The median of a part of all timings.
fn median(timings: &[Timing], part: fn(&Timing) -> f64) -> f64 {
    let mut values: Vec<f64> = timings.iter().map(part).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Trains as one of the processes; rank 0 prints its timings.
fn rank(arguments: &ScalingArguments) -> anyhow::Result<()> {
    let group = parallel::start(&Arc::new(AtomicBool::new(false)))?;
    let group = Arc::new(Timed { group, spent: Mutex::default() });
    let mut config = Config::preset(arguments.presets.first().context("no preset")?)?;
    config.training.parallel_parts = 1;
    config.training.batch_size = (config.training.batch_size / arguments.part_of.max(1) as usize).max(1);
    let training = config.training.clone();
    let images = images_like(&config)?;
    let (_, device) = device::open_or_default(None)?;
    let mut trainer = Trainer::new(config, images, &device)?.distributed(Arc::clone(&group) as Arc<dyn ProcessGroup>)?;
    trainer.step()?;
    let mut timings = Vec::new();
    for _ in 0..arguments.steps {
        *group.spent.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
        let began = Instant::now();
        trainer.step()?;
        let step = began.elapsed().as_secs_f64();
        let [waiting, summing] = *group.spent.lock().unwrap_or_else(PoisonError::into_inner);
        timings.push(Timing { step, waiting: waiting.as_secs_f64(), summing: summing.as_secs_f64() });
    }
    group.finalize()?;
    if group.is_main() {
        let parameters = trainer.config().unet.parameters() as usize;
        let images_in_step = training.batch_size * training.gradient_accumulate_every;
        print(serde_json::to_string(&Turn { parameters, images_in_step, timings })?)?;
    }
    Ok(())
}

/// A group that measures the time of its sums: waiting until all ranks are there, and summing.
#[derive(Debug)]
struct Timed {
    group: Arc<dyn ProcessGroup>,
    spent: Mutex<[Duration; 2]>,
}

impl ProcessGroup for Timed {
    fn rank(&self) -> usize {
        self.group.rank()
    }
    fn world_size(&self) -> usize {
        self.group.world_size()
    }
    fn all_reduce(&self, values: Vec<f32>) -> Result<Vec<f32>, GroupError> {
        let began = Instant::now();
        self.group.barrier()?;
        let all_there = Instant::now();
        let sums = self.group.all_reduce(values)?;
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        *spent = [spent[0] + (all_there - began), spent[1] + all_there.elapsed()];
        Ok(sums)
    }
    fn all_gather(&self, value: Vec<u8>) -> Result<Vec<Vec<u8>>, GroupError> {
        self.group.all_gather(value)
    }
    fn broadcast(&self, value: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        self.group.broadcast(value)
    }
    fn finalize(&self) -> Result<(), GroupError> {
        self.group.finalize()
    }
}

/// The bytes that each of `ranks` processes sends in a step whose f32 gradients are summed around a ring.
fn ring_bytes(parameters: usize, ranks: u32) -> f64 {
    let ranks = f64::from(ranks);
    4.0 * parameters as f64 * 2.0 * (ranks - 1.0) / ranks
}

/// A network between devices; its speed is that of each device while all send.
struct Link {
    name: &'static str,
    bytes_per_second: f64,
    /// Of one message.
    latency: f64,
}

const LINKS: [Link; 3] = [
    Link { name: "10 Gbit/s Ethernet", bytes_per_second: 1.25e9, latency: 30e-6 },
    Link { name: "100 Gbit/s InfiniBand", bytes_per_second: 12.5e9, latency: 3e-6 },
    Link { name: "400 Gbit/s InfiniBand", bytes_per_second: 50e9, latency: 3e-6 },
];

/// The share of its time in which each of `ranks` devices computes, if it computes for `computing` seconds per step and then
/// waits for a sum around a ring: `2 (n - 1)` messages, each of an n-th of the gradients.
fn efficiency(parameters: usize, ranks: u32, computing: f64, link: &Link) -> f64 {
    let messages = 2.0 * (f64::from(ranks) - 1.0);
    let sum = ring_bytes(parameters, ranks) / link.bytes_per_second + messages * link.latency;
    computing / (computing + sum)
}

/// Prints the expectation for many devices, a table in Markdown for each preset.
fn expect() -> anyhow::Result<()> {
    const RANKS: [u32; 3] = [8, 64, 512];
    for preset in ["digits", "cifar10"] {
        let config = Config::preset(preset)?;
        let parameters = config.unet.parameters() as usize;
        print(format!(
            "\n{preset}: {:.2} M parameters, {:.1} MB of gradients; each device sends {} MB a step",
            parameters as f64 / 1e6,
            4.0 * parameters as f64 / 1e6,
            RANKS.map(|ranks| format!("{:.1} of {ranks}", ring_bytes(parameters, ranks) / 1e6)).join(", "),
        ))?;
        print("")?;
        print_table_head("network | a device computes for | 8 devices | 64 | 512")?;
        for link in &LINKS {
            for computing in [0.01, 0.1, 1.0] {
                let cells =
                    RANKS.map(|ranks| format!("{:.0} %", 100.0 * efficiency(parameters, ranks, computing, link)));
                print(format!("| {} | {:.0} ms a step | {} |", link.name, 1e3 * computing, cells.join(" | ")))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_devices_and_slower_links_cost_more() {
        // two exchange all of it once, very many twice
        assert_eq!(ring_bytes(1000, 1), 0.0);
        assert_eq!(ring_bytes(1000, 2), 4000.0);
        assert!((ring_bytes(1000, 1_000_000) - 8000.0).abs() < 0.1);
        let of = |ranks, computing, link: usize| efficiency(35_700_000, ranks, computing, &LINKS[link]);
        assert_eq!(of(1, 0.1, 0), 1.0);
        assert!(of(8, 0.1, 0) > of(64, 0.1, 0) && of(8, 0.1, 1) > of(8, 0.1, 0) && of(8, 1.0, 0) > of(8, 0.1, 0));
        // by hand: 35.7e6 * 4 * 2 * 7/8 bytes at 1.25e9 a second, and 14 messages of 30 us
        let sum = 249.9e6 / 1.25e9 + 14.0 * 30e-6;
        assert!((of(8, 0.1, 0) - 0.1 / (0.1 + sum)).abs() < 1e-9);
    }
}
