//! `bench presets`: how long a training step and an image take with each preset; `bench run`: where the time of a whole run
//! goes.

use std::{io::Write, time::Instant};

use anyhow::{Context, ensure};
use checkpoint::Model;
use clap::Args;
use data::ImageSet;
use noise::{Noise, Purpose};
use picture::{Pixels, grid, save_png};
use pipeline::{Request, generate};
use train::{Config, Trainer};

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
    print("| preset | batch | step, ms | images/s | sampling steps | an image, ms |")?;
    print("| --- | --- | --- | --- | --- | --- |")?;
    for preset in &arguments.presets {
        let config = Config::preset(preset)?;
        let training = config.training.clone();
        let images_in_step = training.batch_size * training.gradient_accumulate_every;
        let mut trainer = Trainer::new(config.clone(), images_like(&config)?, &device)?;
        trainer.step()?;
        let mut step = f64::INFINITY;
        for _ in 0..arguments.steps {
            let started = Instant::now();
            trainer.step()?;
            step = step.min(started.elapsed().as_secs_f64());
        }
        let mut model = trainer.model();
        let count = arguments.count as usize;
        model.header.sampling.batch_size = count.min(model.header.sampling.batch_size);
        let started = Instant::now();
        draw(&model, count)?;
        let drawing = started.elapsed().as_secs_f64() / count as f64;
        print(&format!(
            "| {preset} | {images_in_step} | {:.1} | {:.1} | {} | {:.1} |",
            1e3 * step,
            images_in_step as f64 / step,
            config.sampling.steps,
            1e3 * drawing,
        ))?;
    }
    Ok(())
}

/// Trains, draws and saves as `diffuse train` does, with a clock around each part, and prints a table in Markdown.
pub fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    let mut config = Config::preset(&arguments.preset)?;
    config.training.steps = arguments.steps.unwrap_or(config.training.steps);
    let started = Instant::now();
    let mut parts: Vec<(String, f64)> = Vec::new();
    let mut clock = Instant::now();
    let mut part = |name: &str, parts: &mut Vec<(String, f64)>| {
        parts.push((name.to_owned(), clock.elapsed().as_secs_f64()));
        clock = Instant::now();
    };
    let (_, device) = device::open_or_default(arguments.device.as_deref())?;
    part("start: the device", &mut parts);
    let images = data::open(&config.data.path, &config.load_options())?.images;
    part("data: read and decoded", &mut parts);
    let mut trainer = Trainer::new(config.clone(), images.clone(), &device)?;
    part("network and optimizer made", &mut parts);
    for _ in 0..config.training.steps {
        trainer.step()?;
    }
    part(&format!("{} training steps", config.training.steps), &mut parts);
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let model = trainer.model();
    model.save(&folder.path().join("model.safetensors"))?;
    trainer.save_state(&folder.path().join("state.safetensors"))?;
    part("model and training state saved", &mut parts);
    let drawn = draw(&model, config.sampling.count)?;
    part(&format!("{} images drawn in {} steps", config.sampling.count, config.sampling.steps), &mut parts);
    let image = model.header.image;
    let pictures = Pixels::from_nchw(image.content_height, image.content_width, image.channels, &drawn)?;
    let columns = (config.sampling.count as f64).sqrt().ceil() as usize;
    save_png(&grid(&pictures, columns, 2, pictures[0].display_scale())?, folder.path().join("grid.png"))?;
    part("grid put together and saved", &mut parts);
    let total = started.elapsed().as_secs_f64();

    // what lies within a training step, measured alone for as many
    let (steps, training) = (config.training.steps, &config.training);
    let positions = steps * (training.batch_size * training.gradient_accumulate_every) as u64;
    let batch = 32u64.min(positions);
    let noise = Noise::new(0).stream(Purpose::Epsilon);
    let mut order = data::order::Order::new(images.len(), 0);
    let mut pixels = vec![0f32; images.image_len()];
    let clock = Instant::now();
    for start in (0..positions).step_by(batch as usize) {
        let samples: Vec<u64> = (start..start + batch).collect();
        let shape = [images.channels(), images.height(), images.width()];
        std::hint::black_box(noise.normal_images(&samples, 0, shape, &device));
    }
    let making_noise = clock.elapsed().as_secs_f64();
    let clock = Instant::now();
    for position in 0..positions {
        images.write_chw_f32(order.at(position), false, &mut pixels);
        std::hint::black_box(&pixels);
    }
    let reading = clock.elapsed().as_secs_f64();

    print(&format!("| part of `diffuse train --preset {}` | seconds | share |", arguments.preset))?;
    print("| --- | --- | --- |")?;
    let row =
        |name: &str, seconds: f64| print(&format!("| {name} | {seconds:.3} | {:.1} % |", 100.0 * seconds / total));
    for (name, seconds) in &parts {
        row(name, *seconds)?;
        if name.ends_with("training steps") {
            row("- of it: noise, measured alone", making_noise)?;
            row("- of it: images in their order, measured alone", reading)?;
        }
    }
    row("all", total)
}

/// Noise in the shape of a preset's images, enough for a batch.
pub fn images_like(config: &Config) -> anyhow::Result<ImageSet> {
    let (height, width) = match (config.data.pad_to, config.data.image_size) {
        (Some(side), _) => (side, side),
        (None, Some(size)) => size.sides(),
        // CIFAR-10's own
        (None, None) => (32, 32),
    };
    let classes = if config.training.class_labels { 10 } else { 0 };
    let count = config.training.batch_size.max(10);
    let shape = [count, height, width, config.data.channels.unwrap_or(config.unet.channels)];
    let pixels = (0..shape.iter().product::<usize>()).map(|index| ((index * 2_654_435_761) >> 7) as u8).collect();
    let labels = (classes > 0).then(|| (0..count as u32).map(|index| index % classes).collect());
    Ok(ImageSet::new("noise", pixels, shape, labels, None)?)
}

/// `[count, channels, height, width]`, the classes in equal parts.
fn draw(model: &Model, count: usize) -> anyhow::Result<Vec<f32>> {
    let request = Request::even(count, model.header.unet.classes);
    let drawn: Vec<f32> = generate(model, &request, &Noise::new(0), &mut |_| ())?.into_data().iter::<f32>().collect();
    ensure!(drawn.iter().all(|value| value.is_finite()), "the model draws values that are not finite");
    Ok(drawn)
}

fn print(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("cannot write to the standard output")
}
