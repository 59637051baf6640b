//! `diffuse export`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use checkpoint::Model;
use clap::{Args, ValueEnum};
use interchange::{Account, diffusers, lucidrains, onnx, page};
use serde_json::json;
use train::{Config, Run, RunFiles, SavedState};

use crate::{
    UsageError,
    arguments::{CommonArguments, count, load_model},
};

/// The formats of other systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// model-N.pt of denoising-diffusion-pytorch, for Trainer.load and load_state_dict
    Lucidrains,
    /// A folder for DDPMPipeline.from_pretrained; of lucidrains' network with the code of its own pipeline
    Diffusers,
    /// The network (or, with --chain, the whole DDIM chain) for onnxruntime and others
    Onnx,
    /// A folder of static files that draw in a browser
    Page,
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
    #[arg(long, value_name = "FILE|FOLDER")]
    out: PathBuf,
    /// Of onnx: the whole DDIM chain of this many steps, from noise to images
    #[arg(long, value_name = "STEPS", value_parser = count(1..))]
    chain: Option<usize>,
    /// Of page: the npm package onnxruntime-web, whose files go beside it, as `npm install onnxruntime-web` unpacks it
    #[arg(long, value_name = "FOLDER")]
    onnxruntime_web: Option<PathBuf>,
    #[command(flatten)]
    common: CommonArguments,
}

pub fn run(arguments: ExportArguments) -> anyhow::Result<()> {
    let ExportArguments { path, to, out, common, chain, onnxruntime_web } = &arguments;
    let of_other =
        [("--chain", chain.is_some(), Format::Onnx), ("--onnxruntime-web", onnxruntime_web.is_some(), Format::Page)];
    if let Some((flag, ..)) = of_other.into_iter().find(|(_, is_given, format)| *is_given && to != format) {
        return Err(UsageError(format!("{flag} is of another format than this one: leave it out")).into());
    }
    if matches!(to, Format::Lucidrains | Format::Onnx) {
        files::check_writable(out)?;
    }
    let (_, device) = common.open_device()?;
    let model = load_model(path, &device)?;
    let account = match to {
        Format::Lucidrains => to_lucidrains(path, &model, out)?,
        Format::Diffusers => diffusers::export(&model, out)?,
        Format::Onnx => onnx::export(&model, onnx::Options { chain: *chain }, out)?,
        Format::Page => page::export(&model, out, onnxruntime_web.as_deref())?,
    };
    let lines = format!("{account}written   {}", out.display());
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
