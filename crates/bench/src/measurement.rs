//! Arguments, a clock, the training of a model and results on the standard output, for all measurements.

use std::{
    fmt::Display,
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, ensure};
use burn::tensor::Device;
use checkpoint::Model;
use clap::Args;
use data::ImageSet;
use noise::Noise;
use pipeline::{Guide, Request, generate_guided};
use train::{Config, Trainer};

/// The arguments of a measurement that trains a preset.
#[derive(Args)]
pub struct Recipe {
    /// The preset whose data and recipe are measured
    #[arg(long, default_value = train::PRESETS[0])]
    pub preset: String,
    /// A whole configuration in place of a preset, such as the `config.toml` of a run
    #[arg(long, value_name = "FILE", conflicts_with = "preset")]
    pub config: Option<PathBuf>,
    /// The seed of everything random: weights, order and noise of models, samples and classifier
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Where to compute
    #[arg(long)]
    pub device: Option<String>,
}

impl Recipe {
    /// The configuration of the preset or file, with another number of training steps if given.
    pub fn config(&self, steps: Option<u64>) -> anyhow::Result<Config> {
        let mut config = match &self.config {
            None => Config::preset(&self.preset)?,
            Some(path) => {
                let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                toml::from_str(&text).with_context(|| format!("{} is no configuration", path.display()))?
            }
        };
        config.training.seed = self.seed;
        config.training.steps = steps.unwrap_or(config.training.steps);
        Ok(config)
    }

    /// What is measured, in words.
    pub fn name(&self) -> String {
        self.config.as_ref().map_or_else(|| format!("preset {}", self.preset), |path| path.display().to_string())
    }

    /// The device, or the default one.
    pub fn device(&self) -> anyhow::Result<Device> {
        Ok(device::open_or_default(self.device.as_deref())?.1)
    }
}

/// The result of `function`, and its time in seconds.
pub fn timed<R>(function: impl FnOnce() -> R) -> (R, f64) {
    let started = Instant::now();
    let result = function();
    (result, started.elapsed().as_secs_f64())
}

/// Trains on `images` and calls `after_step` after each step; returns the trainer, and the time in seconds.
pub fn train(
    config: &Config,
    images: &ImageSet,
    device: &Device,
    mut after_step: impl FnMut(u64, &Trainer) -> anyhow::Result<()>,
) -> anyhow::Result<(Trainer, f64)> {
    let steps = config.training.steps;
    let mut trainer = Trainer::new(config.clone(), images.clone(), device)?;
    eprintln!("training on {} images, {steps} steps", images.len());
    let started = Instant::now();
    let mut loss = 0.0;
    for step in 1..=steps {
        loss += trainer.step()?.loss;
        after_step(step, &trainer)?;
        if step % 100 == 0 {
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("step {step}/{steps}  loss {:.4}  {seconds:.0} s", loss / 100.0);
            loss = 0.0;
        }
    }
    Ok((trainer, started.elapsed().as_secs_f64()))
}

/// The model in a file, or in the run directory `path`.
pub fn load(path: &Path, device: &Device) -> anyhow::Result<Model> {
    let file = if path.is_dir() { path.join("model.safetensors") } else { path.to_owned() };
    Ok(Model::load(&file, device)?)
}

/// Samples rounded to bytes, as real images are: `[count, channels, height, width]` in [-1, 1].
pub fn draw(model: &Model, guide: Guide<'_>, request: &Request, seed: u64) -> anyhow::Result<Vec<f32>> {
    let drawn = generate_guided(model, guide, request, &Noise::new(seed), &mut |_| ())?;
    let mut samples = drawn.into_data().iter::<f32>().collect::<Vec<_>>();
    ensure!(
        samples.iter().all(|value| value.is_finite()),
        "the model draws values that are not finite; train it again with a lower learning rate"
    );
    samples.iter_mut().for_each(|value| *value = data::to_unit_range(data::to_u8(*value)));
    Ok(samples)
}

/// Images of noise, `[count, height, width, channels]`, with labels of `classes` classes; none if it is 0.
pub fn noise_images(shape: [usize; 4], classes: u32) -> anyhow::Result<ImageSet> {
    let pixels = (0..shape.iter().product::<usize>()).map(|index| ((index * 2_654_435_761) >> 7) as u8).collect();
    let labels = (classes > 0).then(|| (0..shape[0] as u32).map(|index| index % classes).collect());
    Ok(ImageSet::new("noise", pixels, shape, labels, None)?)
}

/// Writes a line of the result to the standard output.
pub fn print(line: impl Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write to the standard output")
}

/// Writes the head of a Markdown table to the standard output, from its columns with ` | ` between.
pub fn print_table_head(columns: &str) -> anyhow::Result<()> {
    print(format!("| {columns} |\n|{}", " --- |".repeat(columns.split(" | ").count())))
}
