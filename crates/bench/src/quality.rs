//! `bench quality`: are the samples good, varied, of the class asked for, and no copies?
//!
//! The data is cut into halves. The model learns the first, a classifier the second; so neither knows what the other
//! has seen. Samples and real images go through the same judge, so that each number stands beside that of real images.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, bail, ensure};
use burn::tensor::Device;
use checkpoint::Model;
use clap::Args;
use data::ImageSet;
use metrics::{DigitClassifier, FEATURES, Judgment, frechet_distance, nearest_distance, pixels};
use noise::Noise;
use picture::{LineChart, Pixels, grid, labeled_grid, save_png};
use pipeline::{Guide, Request, generate_guided};
use serde::Serialize;
use train::{Config, Trainer};

use crate::judge::{Halves, halves};

/// The classifier is sure above this probability.
const CONFIDENT: f32 = 0.9;
/// At most so many held-out images are compared with every training image.
const HELD_OUT_DISTANCES: usize = 2500;

#[derive(Args)]
pub struct QualityArguments {
    /// The preset whose data and recipe are measured
    #[arg(long, default_value = train::PRESETS[0])]
    preset: String,
    /// Training steps; the preset's if not given. Several, with commas between, are measured one after the other
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..))]
    steps: Vec<u64>,
    /// Draw quality against seconds of training here, an SVG
    #[arg(long, value_name = "FILE", requires = "steps")]
    plot: Option<PathBuf>,
    /// Everything random follows from it: weights, order and noise of model, samples and classifier
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of samples that are judged, the classes in equal parts
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(2..))]
    count: u32,
    /// Scale of classifier-free guidance; the preset's if not given
    #[arg(long)]
    guidance: Option<f64>,
    /// Number of sampling steps; the preset's if not given
    #[arg(long)]
    sampling_steps: Option<usize>,
    /// Judge this model file (or run directory) instead of training one; it may have seen all of the data
    #[arg(long, value_name = "FILE", conflicts_with = "steps")]
    model: Option<PathBuf>,
    /// Passes over the classifier's half
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    classifier_epochs: u32,
    /// Where to compute
    #[arg(long)]
    device: Option<String>,
    /// The grid of all samples, a PNG
    #[arg(long, value_name = "FILE", default_value = "runs/quality.png")]
    out: PathBuf,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    preset: String,
    seed: u64,
    /// None where a model was given.
    steps: Option<u64>,
    training_seconds: Option<f64>,
    /// The model file, where one was given: it may have seen all of the data.
    model: Option<PathBuf>,
    parameters: usize,
    count: usize,
    sampling_steps: usize,
    guidance: f64,
    sampling_seconds: f64,
    classifier_seconds: f64,
    /// Share of real images of the half that the classifier did not see which it calls rightly.
    classifier_accuracy: f64,
    /// Share of these called with confidence > 0.9.
    confident_real: f64,
    /// Share of samples called with confidence > 0.9.
    confident_samples: f64,
    /// `confident_samples / confident_real`.
    confident_ratio: f64,
    /// None for a model without classes.
    asked: Option<Asked>,
    /// How many samples were called each class.
    histogram: Vec<usize>,
    /// Samples to the training half.
    frechet_samples: f64,
    /// As many real images of the other half to the training half. The classifier has learned these, and is surer of
    /// them than of any others, which adds to the distance.
    frechet_real: f64,
    /// Mean distance of samples to the nearest training image, in units of [-1, 1] pixels.
    nearest_samples: f64,
    /// That of real images of the other half.
    nearest_real: f64,
    /// `nearest_samples / nearest_real`: below 1 would be copying.
    nearest_ratio: f64,
    grid: PathBuf,
}

/// Whether samples show the class that was asked for.
#[derive(Debug, Serialize)]
pub struct Asked {
    /// Share of samples whose called class is the one asked for.
    pub called: f64,
    /// The same among samples called with confidence > 0.9.
    called_among_confident: f64,
    /// Share of samples called as the class asked for with confidence > 0.9.
    confident: f64,
    /// `confident` over the share of real images called (as anything) with confidence > 0.9.
    confident_ratio: f64,
    /// Of the samples asked for each class, the share called as it.
    by_class: Vec<f64>,
}

/// Measures and prints; several numbers of steps one after the other.
pub fn run(arguments: &QualityArguments) -> anyhow::Result<()> {
    let (_, device) = device::open_or_default(arguments.device.as_deref())?;
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
        let (report, first) = measure(arguments, steps, &device)?;
        let text = if arguments.json { serde_json::to_string(&report)? } else { lines(&report, first) };
        writeln!(std::io::stdout(), "{text}").context("cannot write to the standard output")?;
        reports.push(report);
    }
    if reports.len() > 1 && !arguments.json {
        writeln!(std::io::stdout(), "{}", table(&reports)).context("cannot write to the standard output")?;
    }
    if let Some(path) = &arguments.plot {
        draw_curve(&reports).save_svg(path)?;
    }
    Ok(())
}

/// A row for each report, in Markdown.
fn table(reports: &[Report]) -> String {
    let mut text = "| steps | seconds of training | confidence ratio | class asked for | with confidence > 0.9 | Fréchet | nearest \
                    ratio |\n| --- | --- | --- | --- | --- | --- | --- |"
        .to_owned();
    for report in reports {
        let share = |of: fn(&Asked) -> f64| {
            report.asked.as_ref().map_or("-".to_owned(), |asked| format!("{:.1} %", 100.0 * of(asked)))
        };
        text.push_str(&format!(
            "\n| {} | {:.0} | {:.3} | {} | {} | {:.2} | {:.3} |",
            report.steps.unwrap_or_default(),
            report.training_seconds.unwrap_or_default(),
            report.confident_ratio,
            share(|asked| asked.called),
            share(|asked| asked.confident),
            report.frechet_samples,
            report.nearest_ratio,
        ));
    }
    text
}

/// Shares against seconds of training.
fn draw_curve(reports: &[Report]) -> LineChart {
    let points = |value: &dyn Fn(&Report) -> Option<f64>| -> Vec<(f64, f64)> {
        reports.iter().filter_map(|report| Some((report.training_seconds?, value(report)?))).collect()
    };
    let mut chart = LineChart::new("Quality against training time", "seconds of training", "share of the samples")
        .with_series("confident, over real images", points(&|report| Some(report.confident_ratio)));
    let asked = points(&|report| report.asked.as_ref().map(|asked| asked.called));
    if !asked.is_empty() {
        let confident = points(&|report| report.asked.as_ref().map(|asked| asked.confident));
        chart = chart
            .with_series("called as the class asked for", asked)
            .with_series("the same, with confidence > 0.9", confident);
    }
    chart
}

/// Trains and judges; also says how many images the model learned from.
fn measure(arguments: &QualityArguments, steps: Option<u64>, device: &Device) -> anyhow::Result<(Report, usize)> {
    let config = configuration(arguments, steps)?;
    let count = arguments.count as usize;

    let Halves { images, padded, first, second } = halves(&config, count)?;

    let (mut model, training_seconds) = match &arguments.model {
        Some(path) => (load(path, device)?, None),
        None => {
            let (model, seconds) = train(&config, padded, device)?;
            (model, Some(seconds))
        }
    };
    let image = model.header.image;
    let (found, expected) = (
        [image.channels, image.content_height, image.content_width],
        [images.channels(), images.height(), images.width()],
    );
    ensure!(
        found == expected,
        "the model draws images of {found:?} (channels, height, width), but those of `{}` are {expected:?}; choose the \
         preset that it was trained with by --preset",
        config.data.path
    );
    let classes = model.header.unet.classes;
    ensure!(
        classes == 0 || classes == images.classes(),
        "the model knows {classes} classes, but `{}` has {}; choose the preset that it was trained with by --preset",
        config.data.path,
        images.classes()
    );
    let sampling = &mut model.header.sampling;
    sampling.guidance = arguments.guidance.unwrap_or(sampling.guidance);
    sampling.steps = arguments.sampling_steps.unwrap_or(sampling.steps);
    let (guidance, sampling_steps) = (sampling.guidance, sampling.steps);

    let started = Instant::now();
    eprintln!("drawing {count} samples in {sampling_steps} steps with guidance {guidance}");
    let request = Request::even(count, classes);
    let samples = draw(&model, &request, arguments.seed)?;
    let sampling_seconds = started.elapsed().as_secs_f64();
    save_grid(&samples, &images, &request, &arguments.out)?;

    let started = Instant::now();
    let epochs = arguments.classifier_epochs as usize;
    eprintln!("training the classifier on the other {} images, {epochs} epochs", second.len());
    let classifier = DigitClassifier::train(&second, arguments.seed, epochs, device)?;
    let classifier_seconds = started.elapsed().as_secs_f64();

    eprintln!("judging");
    let (first_pixels, second_pixels) = (pixels(&first), pixels(&second));
    let real = classifier.classify(&first_pixels)?;
    let drawn = classifier.classify(&samples)?;
    let confident_real = confident(&real);
    ensure!(confident_real > 0.0, "the classifier is sure of no real image; give it more --classifier-epochs");
    let confident_samples = confident(&drawn);

    let some_real = classifier.classify(&pixels(&spread(&second, count)))?;
    let frechet = |judgment: &Judgment| frechet_distance(&judgment.features, &real.features, FEATURES);
    let length = images.image_len();
    let held_out = match second.len() {
        0..=HELD_OUT_DISTANCES => second_pixels,
        _ => pixels(&spread(&second, HELD_OUT_DISTANCES)),
    };
    let nearest_samples = mean(&nearest_distance(&samples, &first_pixels, length)?);
    let nearest_real = mean(&nearest_distance(&held_out, &first_pixels, length)?);

    let report = Report {
        preset: arguments.preset.clone(),
        seed: arguments.seed,
        steps: arguments.model.is_none().then_some(config.training.steps),
        training_seconds,
        model: arguments.model.clone(),
        parameters: burn::module::Module::num_params(&model.unet),
        count,
        sampling_steps,
        guidance,
        sampling_seconds,
        classifier_seconds,
        classifier_accuracy: accuracy(&real, &first),
        confident_real,
        confident_samples,
        confident_ratio: confident_samples / confident_real,
        asked: request.labels.as_ref().map(|labels| asked(&drawn, labels, confident_real)),
        histogram: histogram(&drawn),
        frechet_samples: frechet(&drawn)?,
        frechet_real: frechet(&some_real)?,
        nearest_samples,
        nearest_real,
        nearest_ratio: nearest_samples / nearest_real,
        grid: arguments.out.clone(),
    };
    Ok((report, first.len()))
}

/// The preset with what the arguments change.
fn configuration(arguments: &QualityArguments, steps: Option<u64>) -> anyhow::Result<Config> {
    let mut config = Config::preset(&arguments.preset)?;
    config.training.seed = arguments.seed;
    config.training.steps = steps.unwrap_or(config.training.steps);
    config.sampling.guidance = arguments.guidance.unwrap_or(config.sampling.guidance);
    config.sampling.steps = arguments.sampling_steps.unwrap_or(config.sampling.steps);
    config.validate()?;
    Ok(config)
}

/// Trains on `images`, and says how long it took, in seconds.
pub fn train(config: &Config, images: ImageSet, device: &Device) -> anyhow::Result<(Model, f64)> {
    let (steps, count) = (config.training.steps, images.len());
    let mut trainer = Trainer::new(config.clone(), images, device)?;
    eprintln!("training on {count} images, {steps} steps");
    let started = Instant::now();
    let mut loss = 0.0;
    for step in 1..=steps {
        loss += trainer.step()?.loss;
        if step % 100 == 0 {
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("step {step}/{steps}  loss {:.4}  {seconds:.0} s", loss / 100.0);
            loss = 0.0;
        }
    }
    Ok((trainer.model(), started.elapsed().as_secs_f64()))
}

/// The model in a file, or in the run directory `path`.
pub fn load(path: &Path, device: &Device) -> anyhow::Result<Model> {
    let file = if path.is_dir() { path.join("model.safetensors") } else { path.to_owned() };
    Ok(Model::load(&file, device)?)
}

/// Samples as one sees them: rounded to bytes, as the real images are. `[count, channels, height, width]` in [-1, 1].
pub fn draw(model: &Model, request: &Request, seed: u64) -> anyhow::Result<Vec<f32>> {
    draw_guided(model, Guide::Itself, request, seed)
}

/// [`draw`] with a guide.
pub fn draw_guided(model: &Model, guide: Guide<'_>, request: &Request, seed: u64) -> anyhow::Result<Vec<f32>> {
    let drawn = generate_guided(model, guide, request, &Noise::new(seed), &mut |_| ())?;
    let mut samples = drawn.into_data().iter::<f32>().collect::<Vec<_>>();
    if samples.iter().any(|value| !value.is_finite()) {
        bail!("the model draws values that are not finite; train it again with a lower learning rate");
    }
    samples.iter_mut().for_each(|value| *value = data::to_unit_range(data::to_u8(*value)));
    Ok(samples)
}

/// Writes all samples as one PNG: each class in rows of its own where they come in equal parts.
fn save_grid(samples: &[f32], images: &ImageSet, request: &Request, out: &Path) -> anyhow::Result<()> {
    let pictures = Pixels::from_nchw(images.height(), images.width(), images.channels(), samples)?;
    let classes = images.classes();
    let picture = match &request.labels {
        Some(_) if pictures.len() % classes == 0 && pictures.len() / classes <= 50 => {
            let numbers: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
            let names = images.class_names().filter(|names| names.len() == classes).unwrap_or(&numbers);
            labeled_grid(&pictures, pictures.len() / classes, 2, 1, names)?
        }
        _ => grid(&pictures, (pictures.len() as f64).sqrt().ceil() as usize, 2, 1)?,
    };
    Ok(save_png(&picture, out)?)
}

/// Makes the folder of the picture, so that what is wrong with it shows before minutes of training.
fn prepare_output(out: &Path) -> anyhow::Result<()> {
    ensure!(!out.is_dir(), "--out {} is a folder; name a PNG file in it", out.display());
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    Ok(())
}

/// `count` images, spread evenly over the set.
fn spread(images: &ImageSet, count: usize) -> ImageSet {
    images.subset((0..count).map(|index| index * images.len() / count))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The share for which `holds`; 0 of nothing.
fn share<T>(items: impl IntoIterator<Item = T>, holds: impl Fn(T) -> bool) -> f64 {
    let (mut all, mut held) = (0u32, 0u32);
    for item in items {
        all += 1;
        held += u32::from(holds(item));
    }
    f64::from(held) / f64::from(all.max(1))
}

/// The share called with confidence > 0.9.
pub fn confident(judgment: &Judgment) -> f64 {
    share(judgment.called(), |(_, confidence)| confidence > CONFIDENT)
}

/// The share called as labeled.
fn accuracy(judgment: &Judgment, images: &ImageSet) -> f64 {
    let labels = images.labels().unwrap_or_default();
    share(judgment.called().iter().zip(labels), |(called, label)| called.0 == *label as usize)
}

/// How many were called each class.
fn histogram(judgment: &Judgment) -> Vec<usize> {
    let mut counts = vec![0; judgment.classes];
    judgment.called().iter().for_each(|(class, _)| counts[*class] += 1);
    counts
}

pub fn asked(judgment: &Judgment, labels: &[usize], confident_real: f64) -> Asked {
    let called: Vec<((usize, f32), usize)> = judgment.called().into_iter().zip(labels.iter().copied()).collect();
    let right = |((class, _), label): &((usize, f32), usize)| class == label;
    let sure = |((_, confidence), _): &((usize, f32), usize)| *confidence > CONFIDENT;
    let confident = share(&called, |sample| right(sample) && sure(sample));
    Asked {
        called: share(&called, right),
        called_among_confident: share(called.iter().filter(|sample| sure(sample)), right),
        confident,
        confident_ratio: confident / confident_real,
        by_class: (0..judgment.classes)
            .map(|class| share(called.iter().filter(|sample| sample.1 == class), right))
            .collect(),
    }
}

/// The report as one reads it; `train` is the number of images of the training half.
fn lines(report: &Report, train: usize) -> String {
    let Report { count, .. } = report;
    let mut lines = Vec::new();
    lines.push(match (&report.model, report.steps, report.training_seconds) {
        (Some(path), ..) => {
            format!("model           {}: it may have seen all of the data, the classifier's half too", path.display())
        }
        (None, steps, seconds) => format!(
            "training        {} steps in {:.0} s on {train} images, preset {}, seed {}",
            steps.unwrap_or_default(),
            seconds.unwrap_or_default(),
            report.preset,
            report.seed
        ),
    });
    lines.push(format!(
        "samples         {count} by {} parameters, {} steps, guidance {}, in {:.0} s",
        report.parameters, report.sampling_steps, report.guidance, report.sampling_seconds
    ));
    lines.push(format!(
        "classifier      {:.1} % right of {train} real images that it did not see, trained in {:.0} s",
        report.classifier_accuracy * 100.0,
        report.classifier_seconds
    ));
    lines.push(format!(
        "confidence      > 0.9 for {:.1} % of samples, {:.1} % of real images: ratio {:.3}",
        report.confident_samples * 100.0,
        report.confident_real * 100.0,
        report.confident_ratio
    ));
    match &report.asked {
        Some(asked) => {
            lines.push(format!(
                "class asked for called for {:.1} % of samples, {:.1} % of the confident ones",
                asked.called * 100.0,
                asked.called_among_confident * 100.0
            ));
            lines.push(format!(
                "                called with confidence > 0.9 for {:.1} % of samples: {:.3} of real images' share",
                asked.confident * 100.0,
                asked.confident_ratio
            ));
            let shares: Vec<String> = asked.by_class.iter().map(|share| format!("{:.0}", share * 100.0)).collect();
            lines.push(format!("                by class, in %: {}", shares.join(" ")));
        }
        None => lines.push("class asked for none: the model has no classes".to_owned()),
    }
    let counts: Vec<String> = report.histogram.iter().map(ToString::to_string).collect();
    lines.push(format!("called classes  {}", counts.join(" ")));
    lines.push(format!(
        "Fréchet         {:.2} from samples to the training half; {:.2} from {count} held-out real images to it",
        report.frechet_samples, report.frechet_real
    ));
    lines.push(format!(
        "nearest         {:.2} from samples to the training half; {:.2} from held-out real images: ratio {:.3}",
        report.nearest_samples, report.nearest_real, report.nearest_ratio
    ));
    lines.push(format!("grid            {}", report.grid.display()));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four samples: sure 0, unsure 0, sure 1, sure 1.
    fn judgment() -> Judgment {
        let probabilities = vec![0.95, 0.05, 0.6, 0.4, 0.01, 0.99, 0.02, 0.98];
        Judgment { features: vec![], probabilities, classes: 2 }
    }

    #[test]
    fn shares_are_those_of_the_judgment() {
        assert_eq!(confident(&judgment()), 0.75);
        assert_eq!(histogram(&judgment()), [2, 2]);
        let images = ImageSet::new("four", vec![0; 4], [4, 1, 1, 1], Some(vec![0, 1, 1, 1]), None).unwrap();
        assert_eq!(accuracy(&judgment(), &images), 0.75);
        let asked = asked(&judgment(), &[0, 0, 0, 1], 0.8);
        assert_eq!(asked.called, 0.75);
        assert_eq!(asked.called_among_confident, 2.0 / 3.0);
        assert_eq!(asked.confident, 0.5);
        assert_eq!(asked.confident_ratio, 0.5 / 0.8);
        assert_eq!(asked.by_class, [2.0 / 3.0, 1.0]);
    }

    #[test]
    fn a_spread_goes_over_the_whole_set() {
        let images = ImageSet::new("ten", (0..10).collect(), [10, 1, 1, 1], None, None).unwrap();
        let some = spread(&images, 4);
        let values: Vec<u8> = (0..4).map(|index| some.image(index)[0]).collect();
        assert_eq!(values, [0, 2, 5, 7]);
    }
}
