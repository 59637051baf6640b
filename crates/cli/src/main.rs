//! The program `diffuse`: arguments, configuration and output. A command is a thin function over the crates.

mod arguments;
mod average_command;
mod class_names;
mod classifier_command;
mod completions_command;
mod config_command;
mod config_layers;
mod data_command;
mod doctor_command;
mod edit_command;
mod evaluate_command;
mod evaluation_cache;
mod export_command;
mod import_command;
mod man_command;
mod memory;
mod model_images;
mod nll_command;
mod plan_command;
mod read_data;
mod sample_command;
mod schedule_command;
mod train_command;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Train, sample and judge denoising diffusion models.
#[derive(Parser)]
#[command(name = "diffuse", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a model; without arguments: handwritten digits, in minutes, on the CPU
    Train(train_command::TrainArguments),
    /// Find problems of a training, and estimate its time and memory, before it begins
    Doctor(doctor_command::DoctorArguments),
    /// Draw images from a trained model
    #[command(alias = "generate")]
    Sample(sample_command::SampleArguments),
    /// Make images out of images: interpolate, vary, inpaint
    #[command(subcommand)]
    Edit(edit_command::EditCommand),
    /// Measure the quality, the variety and the novelty of a model's images
    Evaluate(evaluate_command::EvaluateArguments),
    /// Measure the likelihood of images under a model, in bits per dimension
    Nll(nll_command::NllArguments),
    /// Find the sampler that comes nearest to the exact chain in a given time, and store it in the model
    Plan(plan_command::PlanArguments),
    /// Train a classifier of noised images, to guide a model with (diffuse sample --classifier)
    Classifier(classifier_command::ClassifierArguments),
    /// Make a model of a longer or shorter average of the weights, after the training
    Average(average_command::AverageArguments),
    /// Make a model of a file or folder of another system
    Import(import_command::ImportArguments),
    /// Write a model in a format of another system
    Export(export_command::ExportArguments),
    /// Show the origin of each value of a configuration, or begin a configuration file
    #[command(subcommand)]
    Config(config_command::ConfigCommand),
    /// Print the completions of a shell
    ///
    /// As in: diffuse completions bash > ~/.local/share/bash-completion/completions/diffuse
    Completions(completions_command::CompletionsArguments),
    /// Write a manual page for each command
    ///
    /// As in: diffuse man ~/.local/share/man/man1
    Man(man_command::ManArguments),
    /// Fetch a known dataset, or look at one
    #[command(subcommand)]
    Data(data_command::DataCommand),
    /// Print or draw a noise schedule
    Schedule(schedule_command::ScheduleArguments),
}

/// An error in the arguments or the configuration: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

/// Exit code of a training that went to its end and diverged: its model is of no use.
const DIVERGED: u8 = 3;

/// Exit code of a command that was stopped by Ctrl-C and saved its work.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let advice = match command {
        Command::Train(_) | Command::Doctor(_) => memory::TRAINING,
        _ => memory::SAMPLING,
    };
    match memory::guarded(advice, || run(command)) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", describe(&error));
            ExitCode::from(if error.downcast_ref::<UsageError>().is_some() { 2 } else { 1 })
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Train(arguments) => return train_command::run(arguments),
        Command::Doctor(arguments) => doctor_command::run(arguments),
        Command::Sample(arguments) => sample_command::run(arguments),
        Command::Edit(command) => edit_command::run(command),
        Command::Evaluate(arguments) => evaluate_command::run(arguments),
        Command::Nll(arguments) => nll_command::run(arguments),
        Command::Plan(arguments) => plan_command::run(arguments),
        Command::Classifier(arguments) => classifier_command::run(arguments),
        Command::Average(arguments) => average_command::run(arguments),
        Command::Import(arguments) => import_command::run(arguments),
        Command::Export(arguments) => export_command::run(arguments),
        Command::Config(command) => config_command::run(command),
        Command::Completions(arguments) => completions_command::run(arguments),
        Command::Man(arguments) => man_command::run(arguments),
        Command::Data(command) => data_command::run(command),
        Command::Schedule(arguments) => schedule_command::run(arguments),
    }?;
    Ok(ExitCode::SUCCESS)
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

/// Whether the reader of the output, such as `head`, has closed it.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Writes a result to standard output.
fn print_result(text: impl std::fmt::Display) -> anyhow::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{text}").context("cannot write to the standard output")
}
