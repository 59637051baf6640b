//! Arguments that several commands share.

use std::{
    fmt::Display,
    ops::RangeBounds,
    path::{Path, PathBuf},
};

use anyhow::bail;
use burn::tensor::Device;
use checkpoint::Model;
use clap::{Args, builder::RangedU64ValueParser, value_parser};
use device::DeviceError;
use interchange::diffusers::{self, ImportOptions};
use serde::Serialize;
use toml::Value;
use train::{Config, Origin, PRESETS};

use crate::{UsageError, config_layers::Layers, print_result};

/// Where a command computes, and how it reports.
#[derive(Args)]
pub struct CommonArguments {
    /// flex (the CPU), wgpu, vulkan, metal, cuda or rocm; cuda:1 is the second of its kind
    #[arg(long)]
    pub device: Option<String>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

impl CommonArguments {
    /// Opens the device, and returns its name with it.
    pub fn open_device(&self) -> Result<(&str, Device), DeviceError> {
        device::open_or_default(self.device.as_deref())
    }

    /// Writes a result to standard output: as JSON with `--json`, else as text.
    pub fn print(&self, json: impl Serialize, text: impl Display) -> anyhow::Result<()> {
        if self.json { print_result(serde_json::to_string(&json)?) } else { print_result(text) }
    }
}

/// A trained model and the seed of a command.
#[derive(Args)]
pub struct ModelArguments {
    /// A run directory, a model file, a folder that diffusers has written (DDPMPipeline, UNet2DModel), or hf://USER/NAME; digits is a
    /// model in the program
    #[arg(value_name = "RUN|FILE|FOLDER")]
    pub path: PathBuf,
    /// The same seed gives the same result
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub common: CommonArguments,
}

impl ModelArguments {
    /// Opens the device and reads the model onto it.
    pub fn open(&self) -> anyhow::Result<(Model, Device)> {
        let (_, device) = self.common.open_device()?;
        Ok((load_model(&self.path, &device)?, device))
    }
}

/// The models that are in the program, by their names.
const SHIPPED: [(&str, &[u8]); 1] = [("digits", include_bytes!("../../../datasets/models/digits.safetensors"))];

/// The model of the program that `path` names, unless there is a file or folder of this name.
fn shipped(path: &Path) -> Option<&'static (&'static str, &'static [u8])> {
    SHIPPED.iter().find(|(name, _)| path == Path::new(name) && !path.exists())
}

/// Reads the model of a run directory, a model file, a folder of diffusers or the program; of diffusers it says what differs there.
pub fn load_model(path: &Path, device: &Device) -> anyhow::Result<Model> {
    if let Some((name, bytes)) = shipped(path) {
        return Ok(Model::from_bytes(name, bytes, device)?);
    }
    if let Some(repository) = path.to_str().and_then(|path| path.strip_prefix("hf://")) {
        return load_model(&fetch(repository)?, device);
    }
    if diffusers::is_folder(path) {
        let (model, account) = diffusers::import(path, &ImportOptions::default(), device)?;
        for (title, lines) in [("not used", &account.not_used), ("assumed", &account.assumed)] {
            lines.iter().for_each(|line| eprintln!("{title:<10}{line}"));
        }
        return Ok(model);
    }
    Ok(Model::load(&model_file(path)?, device)?)
}

/// Fetches a repository of the Hugging Face Hub, and returns its folder in the cache.
#[cfg(feature = "hf")]
fn fetch(repository: &str) -> anyhow::Result<PathBuf> {
    use anyhow::Context;
    let cache =
        data::Places::from_environment().cache.context("there is no folder for a cache: set HOME or XDG_CACHE_HOME")?;
    let repository = repository.parse().map_err(UsageError)?;
    Ok(interchange::hub::fetch(&repository, &cache.with_file_name("hub"), &mut |line| eprintln!("{line}"))?)
}

#[cfg(not(feature = "hf"))]
fn fetch(repository: &str) -> anyhow::Result<PathBuf> {
    let text = format!(
        "hf://{repository}: this build has no access to the Hugging Face Hub; build it with --features hf, or download the repository \
         and name its folder"
    );
    Err(UsageError(text).into())
}

/// The model file of a run directory; any other path is a model file.
pub fn model_file(path: &Path) -> anyhow::Result<PathBuf> {
    if shipped(path).is_some() {
        bail!(
            "the model {} is in the program, where nothing can be stored: name a model file or a run",
            path.display()
        );
    }
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let file = path.join("model.safetensors");
    if !file.exists() && diffusers::is_folder(path) {
        bail!(
            "{} is a folder of diffusers, which is not changed here: make a model of it with diffuse import",
            path.display()
        );
    }
    if !file.exists() {
        bail!("the run {} has no model.safetensors yet: let its training end, or stop it with Ctrl-C", path.display());
    }
    Ok(file)
}

/// Parses a count that lies in `range`.
pub fn count(range: impl RangeBounds<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::from(range)
}

/// The layers of a configuration.
#[derive(Args)]
pub struct ConfigArguments {
    /// The preset: digits, mnist, fashion-mnist, cifar10 or article; digits if not given
    #[arg(long)]
    preset: Option<String>,
    /// A TOML file over the preset
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One value over both, as in training.learning_rate=1e-3
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A dataset's name, a file or a folder (data.path)
    #[arg(long, value_name = "NAME|PATH")]
    data: Option<String>,
    /// Start from the weights of a model, and train its network (training.from)
    #[arg(long, value_name = "RUN|FILE")]
    from: Option<String>,
    /// Do not train these parts, of stem, time, labels, down, mid, up and head (training.freeze)
    #[arg(long, value_name = "PART,…", value_delimiter = ',')]
    freeze: Option<Vec<String>>,
    /// training.steps
    #[arg(long, value_parser = value_parser!(i64).range(0..))]
    steps: Option<i64>,
    /// training.batch_size
    #[arg(long, value_parser = value_parser!(i64).range(0..))]
    batch_size: Option<i64>,
    /// training.seed
    #[arg(long, value_parser = value_parser!(i64).range(0..))]
    seed: Option<i64>,
}

impl ConfigArguments {
    /// The name of the preset.
    pub fn preset(&self) -> &str {
        self.preset.as_deref().unwrap_or(PRESETS[0])
    }

    /// The preset, the model to start from, and the layers over them.
    pub fn layers(&self) -> anyhow::Result<Layers> {
        let layers = self.lay_over(Layers::preset(self.preset())?)?;
        let Some((from, source)) = layers.model_to_start_from() else { return Ok(layers) };
        let origin = Origin::read(Path::new(from)).map_err(|error| UsageError(format!("{source}: {error}")))?;
        let mut layers = Layers::preset(self.preset())?;
        layers.model(&origin, from)?;
        self.lay_over(layers)
    }

    /// The layers over the configuration of a run.
    pub fn layers_over_run(&self, run: &Config) -> anyhow::Result<Layers> {
        if let Some(preset) = &self.preset {
            let text =
                format!("--preset {preset} is of a new run: --resume takes the configuration of the run; leave it out");
            return Err(UsageError(text).into());
        }
        self.lay_over(Layers::of(run, "the run")?)
    }

    fn lay_over(&self, mut layers: Layers) -> anyhow::Result<Layers> {
        if let Some(path) = &self.config {
            layers.file(path)?;
        }
        for assignment in &self.set {
            layers.set(assignment)?;
        }
        let flags = [
            ("data.path", "--data", self.data.clone().map(Value::from)),
            ("training.from", "--from", self.from.clone().map(Value::from)),
            ("training.freeze", "--freeze", self.freeze.clone().map(Value::from)),
            ("training.steps", "--steps", self.steps.map(Value::from)),
            ("training.batch_size", "--batch-size", self.batch_size.map(Value::from)),
            ("training.seed", "--seed", self.seed.map(Value::from)),
        ];
        for (key, flag, value) in flags {
            if let Some(value) = value {
                layers.value(key, value, flag)?;
            }
        }
        Ok(layers)
    }
}
