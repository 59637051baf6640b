//! `diffuse evaluate`.

use std::path::PathBuf;

use checkpoint::{Model, Request, generate};
use clap::Args;
use data::Split;
use metrics::{
    DigitClassifier, FEATURES, KernelOptions, frechet_distance, kernel_distance, manifold, nearest_distance,
    nearest_other_distance, pixels,
};
use noise::Noise;
use serde::Serialize;

use crate::{UsageError, nll_command::options, print_result, sample_command::model_file};

#[derive(Args)]
pub struct EvaluateArguments {
    /// A run directory or a model file
    #[arg(value_name = "RUN|FILE")]
    model: PathBuf,
    /// Labelled images like those that the model was trained on: the reference
    #[arg(long, value_name = "NAME|PATH")]
    data: String,
    /// Number of samples, the classes in equal parts
    #[arg(long, default_value_t = 400)]
    count: usize,
    /// At most so many reference images, spread evenly over the data
    #[arg(long, default_value_t = 5000)]
    references: usize,
    /// Passes of the classifier, whose features are compared, over the reference
    #[arg(long, default_value_t = 12)]
    classifier_epochs: usize,
    /// Neighbours that make a neighbourhood, for precision and recall
    #[arg(long, default_value_t = 3)]
    neighbours: usize,
    /// Everything random follows from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// flex (the CPU), wgpu, vulkan, metal, cuda, rocm
    #[arg(long)]
    device: Option<String>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Samples nearer to a training image than this share of training images to each other count as copies.
const NEAR_COPY_QUANTILE: f64 = 0.01;

/// Every figure, and what it was made with.
#[derive(Debug, Serialize)]
struct Report {
    extractor: String,
    count: usize,
    reference: String,
    references: usize,
    frechet_distance: f64,
    /// The Fréchet distance of as many reference images, spread evenly, to all: what perfect samples would have.
    frechet_distance_of_references: f64,
    kernel_distance: f64,
    /// Half the width of its 95 % confidence interval.
    kernel_distance_confidence: f64,
    /// This and the next three against as many reference images as there are samples.
    precision: f64,
    recall: f64,
    density: f64,
    coverage: f64,
    /// Classes that at least one sample was called, of all.
    classes_covered: usize,
    classes: usize,
    /// Entropy of the called classes, in bits; at most log2 of their number.
    class_entropy: f64,
    /// Share of samples called as the class asked for; None for a model without classes.
    called_as_asked: Option<f64>,
    /// Mean distance to the nearest reference image, in units of [-1, 1] pixels.
    nearest_distance: f64,
    /// The same of reference images to each other.
    nearest_distance_of_references: f64,
    /// Share of samples nearer to a reference image than the nearest hundredth of reference images to each other.
    near_copies: f64,
}

pub fn run(arguments: EvaluateArguments) -> anyhow::Result<()> {
    for (name, value, least) in [
        ("count", arguments.count, 4),
        ("references", arguments.references, 4),
        ("neighbours", arguments.neighbours, 1),
    ] {
        if value < least {
            return Err(UsageError(format!("--{name} {value} is not possible: it must be at least {least}")).into());
        }
    }
    let (_, device) = device::open_or_default(arguments.device.as_deref())?;
    let model = Model::load(&model_file(&arguments.model)?, &device)?;
    let mut read = options(&model, Split::Train, arguments.references);
    read.padding = data::Padding::None;
    let images = data::open(&arguments.data, &read)?.images;

    eprintln!("training the classifier on {} images of {}", images.len(), images.name());
    let classifier = DigitClassifier::train(&images, arguments.seed, arguments.classifier_epochs, &device)?;
    let real_pixels = pixels(&images);
    let real = classifier.classify(&real_pixels)?;

    eprintln!("drawing {} samples", arguments.count);
    let request = Request::even(arguments.count, model.header.unet.classes);
    let drawn = generate(&model, &request, &Noise::new(arguments.seed), &mut |_| ())?;
    // as files have them: 256 values
    let samples: Vec<f32> =
        drawn.into_data().iter::<f32>().map(|value| data::to_unit_range(data::to_u8(value))).collect();
    let judged = classifier.classify(&samples)?;

    eprintln!("comparing");
    let some: Vec<f32> = (0..arguments.count.min(images.len()))
        .map(|index| index * images.len() / arguments.count.min(images.len()))
        .flat_map(|index| real.features[index * FEATURES..(index + 1) * FEATURES].iter().copied())
        .collect();
    let kernel = kernel_distance(
        &judged.features,
        &real.features,
        FEATURES,
        KernelOptions { seed: arguments.seed, ..KernelOptions::default() },
    )?;
    // sets of one size: coverage falls with the number of references
    let manifold = manifold(&judged.features, &some, FEATURES, arguments.neighbours)?;
    let called = judged.called();
    let mut histogram = vec![0usize; classifier.classes()];
    called.iter().for_each(|(class, _)| histogram[*class] += 1);
    let shares = histogram.iter().filter(|count| **count > 0).map(|count| *count as f64 / called.len() as f64);
    let nearest = nearest_distance(&samples, &real_pixels, images.image_len())?;
    let mut null = nearest_other_distance(&real_pixels, images.image_len())?;
    null.sort_by(f64::total_cmp);
    let threshold = null[((null.len() as f64 * NEAR_COPY_QUANTILE) as usize).min(null.len() - 1)];
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;

    let report = Report {
        extractor: format!(
            "classifier of {FEATURES} features, trained for {} epochs on the reference, seed {}",
            arguments.classifier_epochs, arguments.seed
        ),
        count: arguments.count,
        reference: format!("{} (the part that models are trained on)", images.name()),
        references: images.len(),
        frechet_distance: frechet_distance(&judged.features, &real.features, FEATURES)?,
        frechet_distance_of_references: frechet_distance(&some, &real.features, FEATURES)?,
        kernel_distance: kernel.mean,
        kernel_distance_confidence: kernel.confidence,
        precision: manifold.precision,
        recall: manifold.recall,
        density: manifold.density,
        coverage: manifold.coverage,
        classes_covered: histogram.iter().filter(|count| **count > 0).count(),
        classes: histogram.len(),
        class_entropy: shares.map(|share| -share * share.log2()).sum(),
        called_as_asked: request.labels.as_ref().map(|labels| {
            let right = called.iter().zip(labels).filter(|((class, _), label)| class == *label).count();
            right as f64 / called.len() as f64
        }),
        nearest_distance: mean(&nearest),
        nearest_distance_of_references: mean(&null),
        near_copies: nearest.iter().filter(|distance| **distance < threshold).count() as f64 / nearest.len() as f64,
    };
    if arguments.json {
        return print_result(serde_json::to_string(&report)?);
    }
    print_result(lines(&report))
}

fn lines(report: &Report) -> String {
    let Report { count, references, .. } = report;
    let asked = match report.called_as_asked {
        Some(share) => format!("{:.1} % called as the class asked for", 100.0 * share),
        None => "the model has no classes to ask for".to_owned(),
    };
    [
        format!("extractor    {}", report.extractor),
        format!("samples      {count}, against {references} images of {}", report.reference),
        format!(
            "Fréchet      {:.2} ({:.2} of as many reference images)",
            report.frechet_distance, report.frechet_distance_of_references
        ),
        format!(
            "kernel       {:.4} +- {:.4} (95 % confidence)",
            report.kernel_distance, report.kernel_distance_confidence
        ),
        format!("precision    {:.3}, density {:.3}", report.precision, report.density),
        format!("recall       {:.3}, coverage {:.3}", report.recall, report.coverage),
        format!(
            "classes      {} of {} drawn, entropy {:.2} of {:.2} bits; {asked}",
            report.classes_covered,
            report.classes,
            report.class_entropy,
            (report.classes as f64).log2()
        ),
        format!(
            "nearest      {:.2} to the nearest reference image, {:.2} among these; {:.1} % near-copies (of reference images: 1 %)",
            report.nearest_distance,
            report.nearest_distance_of_references,
            100.0 * report.near_copies
        ),
    ]
    .join("\n")
}
