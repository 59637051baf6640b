//! The program `diffuse`: it parses, layers the configuration, and calls the crates; each command is a thin function.

mod average_command;
mod classifier_command;
mod config_command;
mod config_layers;
mod data_command;
mod doctor_command;
mod edit_command;
mod evaluate_command;
mod evaluation_cache;
mod generate_command;
mod memory;
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
    /// Look for what will go wrong in a training, and estimate its time and memory, before it begins
    Doctor(doctor_command::DoctorArguments),
    /// Draw images from a trained model
    Sample(sample_command::SampleArguments),
    /// Make images out of images: interpolate, vary, inpaint
    #[command(subcommand)]
    Edit(edit_command::EditCommand),
    /// How good, how varied and how new a model's images are
    Evaluate(evaluate_command::EvaluateArguments),
    /// How likely images are under a model, in bits per dimension
    Nll(nll_command::NllArguments),
    /// Find the sampler that comes nearest to the exact chain in a given time, and store it in the model
    Plan(plan_command::PlanArguments),
    /// Train a classifier of noised images, to guide a model with (sample --classifier)
    Classifier(classifier_command::ClassifierArguments),
    /// Make the model of a longer or shorter average of the weights, after the training
    Average(average_command::AverageArguments),
    /// Show where each value of a configuration comes from, or begin a file of one's own
    #[command(subcommand)]
    Config(config_command::ConfigCommand),
    /// Print a script of completions for a shell, or manual pages into a folder
    #[command(subcommand)]
    Generate(generate_command::GenerateCommand),
    /// Fetch a known dataset, or look at one
    #[command(subcommand)]
    Data(data_command::DataCommand),
    /// Print or draw a noise schedule
    Schedule(schedule_command::ScheduleArguments),
}

/// What the user got wrong on the command line, as opposed to what went wrong: exit code 2.
#[derive(Debug)]
struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// What a command that ran to its end reports.
enum Ended {
    /// Done.
    Done,
    /// The user stopped it; everything is saved.
    Interrupted,
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let advice = match command {
        Command::Train(_) | Command::Doctor(_) => memory::TRAINING,
        _ => memory::SAMPLING,
    };
    let result = memory::guarded(advice, || match command {
        Command::Train(arguments) => train_command::run(arguments),
        Command::Doctor(arguments) => doctor_command::run(arguments).map(|()| Ended::Done),
        Command::Sample(arguments) => sample_command::run(arguments).map(|()| Ended::Done),
        Command::Edit(command) => edit_command::run(command).map(|()| Ended::Done),
        Command::Evaluate(arguments) => evaluate_command::run(arguments).map(|()| Ended::Done),
        Command::Nll(arguments) => nll_command::run(arguments).map(|()| Ended::Done),
        Command::Plan(arguments) => plan_command::run(arguments).map(|()| Ended::Done),
        Command::Classifier(arguments) => classifier_command::run(arguments).map(|()| Ended::Done),
        Command::Average(arguments) => average_command::run(arguments).map(|()| Ended::Done),
        Command::Config(command) => config_command::run(command).map(|()| Ended::Done),
        Command::Generate(command) => generate_command::run(command).map(|()| Ended::Done),
        Command::Data(command) => data_command::run(command).map(|()| Ended::Done),
        Command::Schedule(arguments) => schedule_command::run(arguments).map(|()| Ended::Done),
    });
    match result {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Interrupted) => ExitCode::from(130),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", describe(&error));
            ExitCode::from(if error.downcast_ref::<UsageError>().is_some() { 2 } else { 1 })
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

/// Whether the reader of our output, such as `head`, has had enough.
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
