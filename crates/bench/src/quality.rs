//! `bench quality`: are the samples good, varied, of the class asked for, and no copies?
//!
//! The model learns one half of the data, a classifier the other; see [`judge`](crate::judge). Each value stands beside that
//! of real images.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use burn::{module::Module, tensor::Device};
use checkpoint::Model;
use clap::Args;
use data::ImageSet;
use metrics::{FEATURES, frechet_distance, nearest_distance, pixels};
use picture::{Pixels, grid, labeled_grid, save_png};
use pipeline::{Guide, Request, grid_columns};
use train::Config;

use crate::{
    judge::{EPOCHS, Halves, Judge, accuracy, histogram, spread},
    measurement::{Recipe, draw, load, print, timed, train},
    report::{Report, curve, table},
};

/// The most held-out images that are compared with every training image.
const HELD_OUT_DISTANCES: usize = 2500;

#[derive(Args)]
pub struct QualityArguments {
    #[command(flatten)]
    recipe: Recipe,
    /// Training steps; the preset's if not given. Several, with commas between, are measured one after the other
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..))]
    steps: Vec<u64>,
    /// Draw quality against seconds of training here, an SVG
    #[arg(long, value_name = "FILE", requires = "steps")]
    plot: Option<PathBuf>,
    /// Number of samples that are judged, the classes in equal parts
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(2..))]
    count: u32,
    /// Scale of classifier-free guidance; the preset's if not given. Several, with commas between, are measured on one model
    #[arg(long, value_delimiter = ',')]
    guidance: Vec<f64>,
    /// Number of sampling steps; the preset's if not given
    #[arg(long)]
    sampling_steps: Option<usize>,
    /// Judge this model file (or run directory) instead of training one; it may have seen all of the data. Several, with commas between
    #[arg(long, value_name = "FILE", value_delimiter = ',', conflicts_with = "steps")]
    model: Vec<PathBuf>,
    /// Passes over the classifier's half
    #[arg(long, default_value_t = EPOCHS, value_parser = clap::value_parser!(u32).range(1..))]
    classifier_epochs: u32,
    /// The grid of all samples, a PNG
    #[arg(long, value_name = "FILE", default_value = "runs/quality.png")]
    out: PathBuf,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// Measures and prints; several numbers of steps one after the other.
pub fn run(arguments: &QualityArguments) -> anyhow::Result<()> {
    let device = arguments.recipe.device()?;
    prepare_output(&arguments.out)?;
    if let Some(plot) = &arguments.plot {
        prepare_output(plot)?;
    }
    let all: Vec<Option<u64>> = match arguments.steps.as_slice() {
        [] => vec![None],
        steps => steps.iter().copied().map(Some).collect(),
    };
    let mut reports = Vec::new();
    for steps in all {
        measure(arguments, steps, &device, &mut |report| {
            print(if arguments.json { serde_json::to_string(&report)? } else { report.lines() })?;
            reports.push(report);
            Ok(())
        })?;
    }
    if reports.len() > 1 && !arguments.json {
        table(&reports)?;
    }
    if let Some(path) = &arguments.plot {
        curve(&reports).save_svg(path)?;
    }
    Ok(())
}

/// Trains or loads a model; draws samples and judges them with each guidance.
fn measure(
    arguments: &QualityArguments,
    steps: Option<u64>,
    device: &Device,
    report: &mut impl FnMut(Report) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let config = configuration(arguments, steps)?;
    let count = arguments.count as usize;
    let halves = Halves::read(&config, count)?;
    let (mut models, training_seconds) = if arguments.model.is_empty() {
        let (trainer, seconds) = train(&config, &halves.padded, device, |_, _| Ok(()))?;
        (vec![trainer.model()], Some(seconds))
    } else {
        (arguments.model.iter().map(|path| load(path, device)).collect::<Result<_, _>>()?, None)
    };
    models.iter().try_for_each(|model| check_model(model, &halves.first, &config.data.path))?;
    let judge = Judge::train(halves, arguments.recipe.seed, arguments.classifier_epochs, device)?;
    for (index, model) in models.iter_mut().enumerate() {
        let sampling = &mut model.header.sampling;
        sampling.steps = arguments.sampling_steps.unwrap_or(sampling.steps);
        let scales = if arguments.guidance.is_empty() { vec![sampling.guidance] } else { arguments.guidance.clone() };
        for scale in scales {
            model.header.sampling.guidance = scale;
            report(Report {
                model: arguments.model.get(index).cloned(),
                steps: training_seconds.map(|_| config.training.steps),
                training_seconds,
                ..judged(arguments, model, &judge)?
            })?;
        }
    }
    Ok(())
}

/// Draws samples of a model, and judges them.
fn judged(arguments: &QualityArguments, model: &Model, judge: &Judge) -> anyhow::Result<Report> {
    let (count, seed) = (arguments.count as usize, arguments.recipe.seed);
    let (guidance, sampling_steps) = (model.header.sampling.guidance, model.header.sampling.steps);
    eprintln!("drawing {count} samples in {sampling_steps} steps with guidance {guidance}");
    let request = Request::even(count, model.header.unet.classes());
    let (samples, sampling_seconds) = timed(|| draw(model, Guide::Itself, &request, seed));
    let samples = samples?;
    let Halves { first, second, .. } = &judge.halves;
    save_grid(&samples, first, &request, &arguments.out)?;

    eprintln!("judging");
    let verdict = judge.judge(&samples, &request)?;
    let manifold = judge.manifold(&verdict.drawn)?;
    let held_out = |count: usize| pixels(&second.subset(spread(count, second.len())));
    let some_real = judge.classifier.classify(&held_out(count))?;
    let nearest = |images: &[f32]| -> anyhow::Result<f64> {
        let distances = nearest_distance(images, &pixels(first), first.image_len())?;
        Ok(distances.iter().sum::<f64>() / distances.len() as f64)
    };
    let nearest_samples = nearest(&samples)?;
    let nearest_real = nearest(&held_out(second.len().min(HELD_OUT_DISTANCES)))?;

    Ok(Report {
        recipe: arguments.recipe.name(),
        seed,
        steps: None,
        training_images: first.len(),
        training_seconds: None,
        model: None,
        parameters: model.unet.num_params(),
        count,
        sampling_steps,
        guidance,
        sampling_seconds,
        classifier_seconds: judge.seconds,
        classifier_accuracy: accuracy(&judge.real, first),
        confident_real: judge.confident_real,
        confident_samples: verdict.confident,
        confident_ratio: verdict.confident_ratio,
        asked: verdict.asked,
        histogram: histogram(&verdict.drawn),
        frechet_samples: verdict.frechet,
        frechet_real: frechet_distance(&some_real.features, &judge.real.features, FEATURES)?,
        precision: manifold.precision,
        recall: manifold.recall,
        nearest_samples,
        nearest_real,
        nearest_ratio: nearest_samples / nearest_real,
        grid: arguments.out.clone(),
    })
}

/// The preset with the changes of the arguments.
fn configuration(arguments: &QualityArguments, steps: Option<u64>) -> anyhow::Result<Config> {
    let mut config = arguments.recipe.config(steps)?;
    config.sampling.guidance = arguments.guidance.first().copied().unwrap_or(config.sampling.guidance);
    config.sampling.steps = arguments.sampling_steps.unwrap_or(config.sampling.steps);
    config.validate()?;
    Ok(config)
}

/// Refuses a model of other images or classes than those of the data at `path`.
fn check_model(model: &Model, images: &ImageSet, path: &str) -> anyhow::Result<()> {
    let image = model.header.image;
    let found = [image.channels, image.content_height, image.content_width];
    let expected = [images.channels(), images.height(), images.width()];
    ensure!(
        found == expected,
        "the model draws images of {found:?} (channels, height, width), but those of `{path}` are {expected:?}; choose the \
         preset that it was trained with by --preset"
    );
    let (classes, expected) = (model.header.unet.classes(), images.classes());
    ensure!(
        classes == 0 || classes == expected,
        "the model knows {classes} classes, but `{path}` has {expected}; choose the preset that it was trained with by \
         --preset"
    );
    Ok(())
}

/// Writes all samples as one PNG: each class in its own rows if the classes have equal parts.
fn save_grid(samples: &[f32], images: &ImageSet, request: &Request, out: &Path) -> anyhow::Result<()> {
    let pictures = Pixels::from_nchw(images.height(), images.width(), images.channels(), samples)?;
    let classes = images.classes();
    let picture = match &request.labels {
        Some(_) if pictures.len() % classes == 0 && pictures.len() / classes <= 50 => {
            let numbers: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
            let names = images.class_names().filter(|names| names.len() == classes).unwrap_or(&numbers);
            labeled_grid(&pictures, pictures.len() / classes, 2, 1, names)?
        }
        _ => grid(&pictures, grid_columns(pictures.len(), 0), 2, 1)?,
    };
    Ok(save_png(&picture, out)?)
}

/// Makes the folder of an output, so that its errors show before minutes of training.
fn prepare_output(out: &Path) -> anyhow::Result<()> {
    ensure!(!out.is_dir(), "{} is a folder; name a file in it", out.display());
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    Ok(())
}
