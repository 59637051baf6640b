//! The program `bench`: measures what this workspace makes. `cargo xtask bench quality` runs it.

mod ops;
mod quality;
mod samplers;
mod step;

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
    /// Time the hot operations one by one, beside the machine's own matrix product
    Ops(ops::OpsArguments),
    /// Time training steps and forward passes, beside PyTorch's if asked
    Step(step::StepArguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Quality(arguments) => quality::run(&arguments),
        Command::Samplers(arguments) => samplers::run(&arguments),
        Command::Ops(arguments) => ops::run(&arguments),
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
