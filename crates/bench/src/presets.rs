//! `bench presets`: the time of a training step and of an image with each preset; `bench run`: the time of each part of a run.

use std::time::Instant;

use anyhow::Context;
use burn::tensor::Device;
use checkpoint::Model;
use clap::Args;
use data::ImageSet;
use noise::{Noise, Purpose};
use picture::{Pixels, save_png};
use pipeline::{Guide, Request, grid_columns, sample_grid};
use train::{Config, Trainer};

use crate::measurement::{draw, noise_images, print, print_table_head, timed};

#[derive(Args)]
pub struct PresetsArguments {
    /// The presets, with commas between
    #[arg(long, value_delimiter = ',', default_value = "digits,fashion-mnist,cifar10")]
    presets: Vec<String>,
    /// Steps of each that are timed, after one that is not
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Images of each that are drawn
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Where to compute
    #[arg(long)]
    device: Option<String>,
}

#[derive(Args)]
pub struct RunArguments {
    /// The preset that is trained and drawn from
    #[arg(long, default_value = train::PRESETS[0])]
    preset: String,
    /// Training steps; the preset's if not given
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Where to compute
    #[arg(long)]
    device: Option<String>,
}

/// Times each preset on noise of its shape, and prints a table in Markdown.
pub fn presets(arguments: &PresetsArguments) -> anyhow::Result<()> {
    let (_, device) = device::open_or_default(arguments.device.as_deref())?;
    print_table_head("preset | batch | step, ms | images/s | sampling steps | an image, ms")?;
    for preset in &arguments.presets {
        let config = Config::preset(preset)?;
        let images_in_step = config.training.batch_size * config.training.gradient_accumulate_every;
        let mut trainer = Trainer::new(config.clone(), images_like(&config)?, &device)?;
        trainer.step()?;
        let mut step = f64::INFINITY;
        for _ in 0..arguments.steps {
            let (result, seconds) = timed(|| trainer.step());
            result?;
            step = step.min(seconds);
        }
        let mut model = trainer.model();
        let count = arguments.count as usize;
        model.header.sampling.batch_size = count.min(model.header.sampling.batch_size);
        let (drawn, seconds) = timed(|| draw_classes(&model, count));
        drawn?;
        print(format!(
            "| {preset} | {images_in_step} | {:.1} | {:.1} | {} | {:.1} |",
            1e3 * step,
            images_in_step as f64 / step,
            config.sampling.steps,
            1e3 * seconds / count as f64,
        ))?;
    }
    Ok(())
}

/// Trains, draws and saves as `diffuse train` does, and prints the seconds of each part as a table in Markdown.
pub fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    let mut config = Config::preset(&arguments.preset)?;
    config.training.steps = arguments.steps.unwrap_or(config.training.steps);
    let (steps, count) = (config.training.steps, config.sampling.count);
    let started = Instant::now();
    let mut parts: Vec<(String, f64)> = Vec::new();
    let mut part = |name: &str| {
        let before: f64 = parts.iter().map(|(_, seconds)| seconds).sum();
        parts.push((name.to_owned(), started.elapsed().as_secs_f64() - before));
    };
    let (_, device) = device::open_or_default(arguments.device.as_deref())?;
    part("start: the device");
    let images = data::open(&config.data.path, &config.load_options())?.images;
    part("data: read and decoded");
    let mut trainer = Trainer::new(config.clone(), images.clone(), &device)?;
    part("network and optimizer made");
    for _ in 0..steps {
        trainer.step()?;
    }
    part(&format!("{steps} training steps"));
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let model = trainer.model();
    model.save(&folder.path().join("model.safetensors"))?;
    trainer.save_state(&folder.path().join("state.safetensors"))?;
    part("model and training state saved");
    let drawn = draw_classes(&model, count)?;
    part(&format!("{count} images drawn in {} steps", config.sampling.steps));
    let image = model.header.image;
    let pictures = Pixels::from_nchw(image.content_height, image.content_width, image.channels, &drawn)?;
    save_png(&sample_grid(&pictures, grid_columns(count, 0))?, folder.path().join("grid.png"))?;
    part("grid put together and saved");
    let total = started.elapsed().as_secs_f64();

    let [making_noise, reading] = parts_of_steps(&config, &images, &device);
    print_table_head(&format!("part of `diffuse train --preset {}` | seconds | share", arguments.preset))?;
    let row = |name: &str, seconds: f64| print(format!("| {name} | {seconds:.3} | {:.1} % |", 100.0 * seconds / total));
    for (name, seconds) in &parts {
        row(name, *seconds)?;
        if name.ends_with("training steps") {
            row("- of it: noise, measured alone", making_noise)?;
            row("- of it: images in their order, measured alone", reading)?;
        }
    }
    row("all", total)
}

/// The seconds of the noise and of the reading of images in all training steps, measured alone.
fn parts_of_steps(config: &Config, images: &ImageSet, device: &Device) -> [f64; 2] {
    let training = &config.training;
    let positions = training.steps * (training.batch_size * training.gradient_accumulate_every) as u64;
    let batch = 32u64.min(positions);
    let noise = Noise::new(0).stream(Purpose::Epsilon);
    let shape = [images.channels(), images.height(), images.width()];
    let ((), making_noise) = timed(|| {
        for start in (0..positions).step_by(batch as usize) {
            let samples: Vec<u64> = (start..start + batch).collect();
            std::hint::black_box(noise.normal_images(&samples, 0, shape, device));
        }
    });
    let mut order = data::order::Order::new(images.len(), 0);
    let mut pixels = vec![0f32; images.image_len()];
    let ((), reading) = timed(|| {
        for position in 0..positions {
            images.write_chw_f32(order.at(position), false, &mut pixels);
            std::hint::black_box(&pixels);
        }
    });
    [making_noise, reading]
}

/// Images of noise in the shape of a preset's, enough for a batch.
pub fn images_like(config: &Config) -> anyhow::Result<ImageSet> {
    let (height, width) = match (config.data.pad_to, config.data.image_size) {
        (Some(side), _) => (side, side),
        (None, Some(size)) => size.sides(),
        // CIFAR-10's
        (None, None) => (32, 32),
    };
    let channels = config.data.channels.unwrap_or(config.unet.channels());
    let classes = if config.training.class_labels { 10 } else { 0 };
    noise_images([config.training.batch_size.max(10), height, width, channels], classes)
}

/// Samples of the classes in equal parts, `[count, channels, height, width]`.
fn draw_classes(model: &Model, count: usize) -> anyhow::Result<Vec<f32>> {
    draw(model, Guide::Itself, &Request::even(count, model.header.unet.classes()), 0)
}
