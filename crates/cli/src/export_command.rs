//! `diffuse export`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use checkpoint::Model;
use clap::{Args, ValueEnum};
use interchange::{Account, lucidrains};
use serde_json::json;
use train::{Config, Run, RunFiles, SavedState};

use crate::arguments::{CommonArguments, load_model};

/// The formats of other systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// model-N.pt of denoising-diffusion-pytorch, for Trainer.load and load_state_dict
    Lucidrains,
}

#[derive(Args)]
pub struct ExportArguments {
    /// A run directory or a model file
    #[arg(value_name = "RUN|FILE")]
    path: PathBuf,
    /// The format
    #[arg(long)]
    to: Format,
    /// Where it goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    common: CommonArguments,
}

pub fn run(arguments: ExportArguments) -> anyhow::Result<()> {
    let ExportArguments { path, to, out, common } = &arguments;
    files::check_writable(out)?;
    let (_, device) = common.open_device()?;
    let model = load_model(path, &device)?;
    let account = match to {
        Format::Lucidrains => to_lucidrains(path, &model, out)?,
    };
    let lines = format!("{account}file      {}", out.display());
    common.print(json!({ "account": account, "file": out }), lines)
}

/// With the newest training state of a run, where it has one.
fn to_lucidrains(path: &Path, model: &Model, out: &Path) -> anyhow::Result<Account> {
    let training = newest_state(path, model)?;
    let training = training.as_ref().map(|(state, config)| (state, config));
    Ok(lucidrains::export(model, training, out)?)
}

/// The newest training state of a run directory, with its configuration; None of a model file, or a run without any.
fn newest_state(path: &Path, model: &Model) -> anyhow::Result<Option<(SavedState, Config)>> {
    let files = RunFiles { directory: path.to_owned() };
    let Some((_, newest)) = files.all_checkpoints().into_iter().next() else { return Ok(None) };
    let advice = "name the run's model.safetensors to export the model alone";
    let (state, config) = SavedState::read(&newest, &model.unet.state_dict()).context(advice)?;
    let config = match config {
        Some(config) => config,
        None => Run::config_of(path)?,
    };
    Ok(Some((state, config)))
}
