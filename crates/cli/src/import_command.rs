//! `diffuse import`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use interchange::{
    diffusers,
    lucidrains::{ImportOptions, import},
};
use schedule::{BetaSchedule, Objective};
use serde_json::json;

use crate::{
    UsageError,
    arguments::{CommonArguments, count},
    train_command::absolute_data,
};

/// lucidrains' longest period of the sinusoidal embedding.
const THETA: f64 = 10_000.0;

#[derive(Args)]
pub struct ImportArguments {
    /// A file of denoising-diffusion-pytorch: model-N.pt of its Trainer, or a state dict of GaussianDiffusion or Unet (.pt,
    /// .safetensors); or a folder that diffusers has written (DDPMPipeline, UNet2DModel)
    #[arg(value_name = "FILE|FOLDER")]
    path: PathBuf,
    /// Where the model goes; with --optimizer, the run directory
    #[arg(long, value_name = "FILE|DIR")]
    out: PathBuf,
    /// Size of the images, which no file has; 32 if not given
    #[arg(long, value_name = "SIDE|HEIGHTxWIDTH", value_parser = image_size)]
    image_size: Option<(usize, usize)>,
    /// Take the weights in training instead of their average (EMA)
    #[arg(long, conflicts_with = "optimizer")]
    raw: bool,
    /// Also take the state of the training, and write a run that diffuse train --resume goes on with
    #[arg(long, requires = "data")]
    optimizer: bool,
    /// With --optimizer: the images to go on with, a dataset's name, a file or a folder
    #[arg(long, value_name = "NAME|PATH", requires = "optimizer")]
    data: Option<String>,
    /// Channels of the images, where the network takes or gives others
    #[arg(long, value_parser = count(1..=1 << 16))]
    channels: Option<usize>,
    /// epsilon, x0 or v (also pred_noise, pred_x0, pred_v); from the buffers if not given, v where there are none
    #[arg(long)]
    objective: Option<Objective>,
    /// Beta schedule of a file without buffers: linear, cosine, sigmoid, …; sigmoid if not given
    #[arg(long, value_name = "NAME")]
    beta_schedule: Option<BetaSchedule>,
    /// Timesteps of a file without buffers; 1000 if not given
    #[arg(long, value_parser = count(1..=1 << 20))]
    timesteps: Option<usize>,
    /// Steps of sampling: fewer than the timesteps are DDIM; all of them, by DDPM, if not given
    #[arg(long, value_parser = count(1..=1 << 20))]
    steps: Option<usize>,
    /// Longest period of the sinusoidal embedding (sinusoidal_pos_emb_theta)
    #[arg(long, default_value_t = THETA)]
    theta: f64,
    /// The Fourier features of t are random, not learned (random_fourier_features)
    #[arg(long)]
    random_fourier: bool,
    #[command(flatten)]
    common: CommonArguments,
}

/// Parses a side, or a height and a width.
fn image_size(text: &str) -> Result<(usize, usize), String> {
    let (height, width) = text.split_once('x').unwrap_or((text, text));
    let sides = height.parse().ok().zip(width.parse().ok());
    sides
        .filter(|(height, width)| (1..=1 << 14).contains(height) && (1..=1 << 14).contains(width))
        .ok_or_else(|| "write it as SIDE or HEIGHTxWIDTH, as in 64 or 64x48, each from 1 to 16384".to_owned())
}

pub fn run(arguments: ImportArguments) -> anyhow::Result<()> {
    let ImportArguments { path, out, common, .. } = &arguments;
    check_out(out, arguments.optimizer)?;
    if path.is_dir() {
        return import_folder(&arguments);
    }
    let options = ImportOptions {
        image_size: arguments.image_size,
        raw: arguments.raw,
        channels: arguments.channels,
        objective: arguments.objective,
        beta_schedule: arguments.beta_schedule.clone(),
        timesteps: arguments.timesteps,
        sampling_timesteps: arguments.steps,
        sinusoidal_pos_emb_theta: arguments.theta,
        random_fourier_features: arguments.random_fourier,
        training: arguments.optimizer,
    };
    let (_, device) = common.open_device()?;
    let imported = import(path, &options, &device)?;
    let mut lines = imported.account.to_string();
    let mut json = json!({ "account": imported.account });
    match (&imported.training, &arguments.data) {
        (Some(training), Some(data)) => {
            let files = training.begin_run(&imported.model, &absolute_data(data, None), out)?;
            json["run"] = json!(out);
            json["model"] = json!(files.model());
            lines +=
                &format!("run       {}\ngo on with: diffuse train --resume --run {}", out.display(), out.display());
        }
        _ => {
            imported.model.save(out)?;
            json["model"] = json!(out);
            lines += &format!("model     {}", out.display());
        }
    }
    common.print(json, lines)
}

/// Makes a model of a folder of diffusers.
fn import_folder(arguments: &ImportArguments) -> anyhow::Result<()> {
    let ImportArguments { path, out, common, image_size, .. } = arguments;
    if !diffusers::is_folder(path) {
        bail!(
            "{} is a folder, and not one of diffusers (it has no model_index.json and no config.json): name the file with the weights",
            path.display()
        );
    }
    let of_files = [
        ("--raw", arguments.raw),
        ("--optimizer", arguments.optimizer),
        ("--channels", arguments.channels.is_some()),
        ("--objective", arguments.objective.is_some()),
        ("--beta-schedule", arguments.beta_schedule.is_some()),
        ("--timesteps", arguments.timesteps.is_some()),
        ("--steps", arguments.steps.is_some()),
        ("--theta", arguments.theta != THETA),
        ("--random-fourier", arguments.random_fourier),
    ];
    if let Some((flag, _)) = of_files.into_iter().find(|(_, is_given)| *is_given) {
        let text = format!(
            "{flag} is of files of denoising-diffusion-pytorch: a folder of diffusers says it itself; leave it out"
        );
        return Err(UsageError(text).into());
    }
    let (_, device) = common.open_device()?;
    let (model, account) = diffusers::import(path, &diffusers::ImportOptions { image_size: *image_size }, &device)?;
    model.save(out)?;
    common.print(json!({ "account": account, "model": out }), format!("{account}model     {}", out.display()))
}

/// Refuses a place for the result before anything is read.
fn check_out(out: &Path, is_run: bool) -> anyhow::Result<()> {
    if is_run {
        files::check_writable(&out.join("config.toml"))?;
        return Ok(());
    }
    if out.is_dir() {
        bail!("{} is a folder; name the model file, as in {}", out.display(), out.join("model.safetensors").display());
    }
    Ok(files::check_writable(out)?)
}
