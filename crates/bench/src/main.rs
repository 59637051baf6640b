//! The program `bench`, run by `cargo xtask bench`: measures the quality of samples and the time of training.

mod gpu;
mod guidance;
mod judge;
mod measurement;
mod operations;
mod ops;
mod presets;
mod quality;
mod report;
mod samplers;
mod scaling;
mod step;
mod targets;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use device::memory::{OutOfMemory, guarded};

/// Measure the quality of samples and the time of training
#[derive(Parser)]
#[command(name = "bench", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train on one half of the data, and let a classifier of the other half judge the samples
    Quality(quality::QualityArguments),
    /// Quality against steps, sampler by sampler, of one model and from the same noise
    Samplers(samplers::SamplersArguments),
    /// Objectives and variants of training, compared at equal steps
    Targets(targets::TargetsArguments),
    /// How well each kind of guidance reaches the class asked for, and its cost in variety
    Guidance(guidance::GuidanceArguments),
    /// Time the operations one by one, beside a matrix product
    Ops(ops::OpsArguments),
    /// Time a training step and an image of each preset
    Presets(presets::PresetsArguments),
    /// Time each part of a run, from start-up to the saved grid
    Run(presets::RunArguments),
    /// The speed of several processes over that of one, and the expectation for many
    Scaling(scaling::ScalingArguments),
    /// Time training steps and forward passes, beside PyTorch's if asked
    Step(step::StepArguments),
    /// Check and measure a GPU, one stage at a time (`cargo xtask gpu-kit` packs all for another machine)
    Gpu(gpu::GpuArguments),
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let in_words = |error| OutOfMemory::in_message(&describe(&error)).map_or(error, anyhow::Error::from);
    match guarded(|| run(command).map_err(in_words)).map_err(anyhow::Error::from).flatten() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Quality(arguments) => quality::run(&arguments),
        Command::Samplers(arguments) => samplers::run(&arguments),
        Command::Targets(arguments) => targets::run(&arguments),
        Command::Guidance(arguments) => guidance::run(&arguments),
        Command::Ops(arguments) => ops::run(&arguments),
        Command::Presets(arguments) => presets::presets(&arguments),
        Command::Run(arguments) => presets::run(&arguments),
        Command::Scaling(arguments) => scaling::run(&arguments),
        Command::Step(arguments) => step::run(&arguments),
        Command::Gpu(arguments) => gpu::run(&arguments),
    }
}

/// The error and its causes, without those that a message already quotes.
fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&cause);
        }
    }
    text
}
