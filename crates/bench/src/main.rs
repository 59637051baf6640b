//! The program `bench`: measures what this workspace makes. `cargo xtask bench quality` runs it.

mod guidance;
mod judge;
mod ops;
mod presets;
mod quality;
mod samplers;
mod scaling;
mod step;
mod targets;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measure what the workspace makes.
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
    /// What a network is trained for, and how, compared at equal steps
    Targets(targets::TargetsArguments),
    /// How well each kind of guidance reaches the class asked for, and what it costs in variety
    Guidance(guidance::GuidanceArguments),
    /// Time the hot operations one by one, beside the machine's own matrix product
    Ops(ops::OpsArguments),
    /// Time a training step and an image of each preset
    Presets(presets::PresetsArguments),
    /// Where the time of a whole run goes, from start-up to the saved grid
    Run(presets::RunArguments),
    /// How much quicker several processes train than one, and what to expect of many
    Scaling(scaling::ScalingArguments),
    /// Time training steps and forward passes, beside PyTorch's if asked
    Step(step::StepArguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Quality(arguments) => quality::run(&arguments),
        Command::Samplers(arguments) => samplers::run(&arguments),
        Command::Targets(arguments) => targets::run(&arguments),
        Command::Guidance(arguments) => guidance::run(&arguments),
        Command::Ops(arguments) => ops::run(&arguments),
        Command::Presets(arguments) => presets::presets(&arguments),
        Command::Run(arguments) => presets::run(&arguments),
        Command::Scaling(arguments) => scaling::run(&arguments),
        Command::Step(arguments) => step::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes; those that a message already quotes are not said twice.
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
