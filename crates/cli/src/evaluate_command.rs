//! `diffuse evaluate`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use burn::tensor::{Device, TensorData};
use checkpoint::Model;
use clap::Args;
use data::{ImageSet, Split};
use files::{Action, FileError};
use metrics::{
    DigitClassifier, FEATURES, INCEPTION_FEATURES, Inception, Judgment, KernelOptions, frechet_distance,
    kernel_distance, manifold, nearest_distance, nearest_other_distance, pixels,
};
use noise::Noise;
use pipeline::{Request, generate};
use serde::Serialize;

use crate::{
    UsageError,
    evaluation_cache::{Cache, sha256},
    nll_command::options,
    print_result,
    read_data::{ColumnArguments, open_data},
    sample_command::model_file,
};

#[derive(Args)]
pub struct EvaluateArguments {
    /// A run directory or a model file
    #[arg(value_name = "RUN|FILE")]
    model: PathBuf,
    /// Images like those that the model was trained on: the reference; labeled, or else with --inception
    #[arg(long, value_name = "NAME|PATH")]
    data: String,
    #[command(flatten)]
    columns: ColumnArguments,
    /// Compare in the features of Inception v3 instead of the classifier's: pytorch-fid's weights pt_inception-2015-12-05, saved as
    /// safetensors
    #[arg(long, value_name = "FILE")]
    inception: Option<PathBuf>,
    /// Compute everything anew, and keep nothing for the next time
    #[arg(long)]
    no_cache: bool,
    /// Number of samples, the classes in equal parts
    #[arg(long, default_value_t = 400)]
    count: usize,
    /// At most so many reference images, spread evenly over the data
    #[arg(long, default_value_t = 5000)]
    references: usize,
    /// Passes of the classifier, whose features are compared, over the reference
    #[arg(long, default_value_t = 12)]
    classifier_epochs: usize,
    /// Neighbors that make a neighborhood, for precision and recall
    #[arg(long, default_value_t = 3)]
    neighbors: usize,
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
    /// None for data without labels.
    #[serde(flatten)]
    classes: Option<Classes>,
    /// Mean distance to the nearest reference image, in units of [-1, 1] pixels.
    nearest_distance: f64,
    /// The same of reference images to each other.
    nearest_distance_of_references: f64,
    /// Share of samples nearer to a reference image than the nearest hundredth of reference images to each other.
    near_copies: f64,
}

/// What a classifier of the reference says of the samples.
#[derive(Debug, Serialize)]
struct Classes {
    /// Classes that at least one sample was called, of all.
    classes_covered: usize,
    classes: usize,
    /// Entropy of the called classes, in bits; at most log2 of their number.
    class_entropy: f64,
    /// Share of samples called as the class asked for; None for a model without classes.
    called_as_asked: Option<f64>,
}

/// Does the model collapse to some classes, and does it draw what is asked for?
fn classes_of(judged: &Judgment, asked: Option<&[usize]>) -> Classes {
    let called = judged.called();
    let mut histogram = vec![0usize; judged.classes];
    called.iter().for_each(|(class, _)| histogram[*class] += 1);
    let shares = histogram.iter().filter(|count| **count > 0).map(|count| *count as f64 / called.len() as f64);
    Classes {
        classes_covered: histogram.iter().filter(|count| **count > 0).count(),
        classes: histogram.len(),
        class_entropy: shares.map(|share| share * (1.0 / share).log2()).sum(),
        called_as_asked: asked.map(|labels| {
            let right = called.iter().zip(labels).filter(|((class, _), label)| class == *label).count();
            right as f64 / called.len() as f64
        }),
    }
}

/// Inception, and which one.
struct Extractor {
    network: Inception,
    /// SHA-256 of the file of weights, in hexadecimal.
    hash: String,
}

impl Extractor {
    fn read(path: &Path, device: &Device) -> anyhow::Result<Self> {
        let network = Inception::load(path, device)?;
        let bytes = std::fs::read(path).map_err(|source| FileError::new(Action::Read, path, source))?;
        Ok(Self { network, hash: sha256(&bytes) })
    }

    /// The features of the reference, computed once.
    fn cached(&self, images: &ImageSet, pixels: &[f32], cache: &Cache) -> anyhow::Result<Vec<f32>> {
        let key = format!("inception features 1; weights {}; images {}", self.hash, images.content_hash());
        let features = cache.get_or(&key, &["features"], || {
            let image = [images.channels(), images.height(), images.width()];
            let features = self.network.features(pixels, image)?;
            let shape = [images.len(), INCEPTION_FEATURES];
            Ok(vec![TensorData::new(features, shape)])
        })?;
        Ok(features.iter().flat_map(|data| data.iter::<f32>().collect::<Vec<_>>()).collect())
    }
}

/// The classifier of the reference, trained once.
fn trained(
    arguments: &EvaluateArguments,
    images: &ImageSet,
    cache: &Cache,
    device: &Device,
) -> anyhow::Result<DigitClassifier> {
    let (seed, epochs) = (arguments.seed, arguments.classifier_epochs);
    let key = format!("classifier 1; seed {seed}; epochs {epochs}; images {}", images.content_hash());
    let state = cache.get_or(&key, &DigitClassifier::PARAMETERS, || {
        eprintln!("training the classifier on {} images of {}", images.len(), images.name());
        Ok(DigitClassifier::train(images, seed, epochs, device)?.state())
    })?;
    let image = [images.channels(), images.height(), images.width()];
    match DigitClassifier::from_state(image, state, device) {
        Some(classifier) => Ok(classifier),
        None => Ok(DigitClassifier::train(images, seed, epochs, device)?),
    }
}

pub fn run(arguments: EvaluateArguments) -> anyhow::Result<()> {
    for (name, value, least) in
        [("count", arguments.count, 4), ("references", arguments.references, 4), ("neighbors", arguments.neighbors, 1)]
    {
        if value < least {
            return Err(UsageError(format!("--{name} {value} is not possible: it must be at least {least}")).into());
        }
    }
    let (_, device) = device::open_or_default(arguments.device.as_deref())?;
    let model = Model::load(&model_file(&arguments.model)?, &device)?;
    let mut read = options(&model, &arguments.columns, Split::Train, arguments.references);
    read.padding = data::Padding::None;
    // what is compared are bytes
    read.sixteen_bits = false;
    let images = open_data(&arguments.data, &read)?.images;

    let cache = Cache::new(!arguments.no_cache);
    let image = [images.channels(), images.height(), images.width()];
    let inception = match &arguments.inception {
        Some(path) => Some(Extractor::read(path, &device)?),
        None => None,
    };
    let classifier = match images.labels() {
        Some(_) => Some(trained(&arguments, &images, &cache, &device)?),
        None if inception.is_some() => None,
        None => bail!(
            "the data `{}` has no labels, so that no classifier can learn them: give --inception FILE to compare without",
            images.name()
        ),
    };
    let real_pixels = pixels(&images);

    eprintln!("drawing {} samples", arguments.count);
    let request = Request::even(arguments.count, model.header.unet.classes);
    let drawn = generate(&model, &request, &Noise::new(arguments.seed), &mut |_| ())?;
    // as files have them: 256 values
    let samples: Vec<f32> =
        drawn.into_data().iter::<f32>().map(|value| data::to_unit_range(data::to_u8(value))).collect();
    let judged = match &classifier {
        Some(classifier) => Some(classifier.classify(&samples)?),
        None => None,
    };
    let (dim, sample_features, real_features) = match (&inception, &classifier, &judged) {
        (Some(extractor), _, _) => {
            eprintln!("looking at {} images with Inception", images.len() + arguments.count);
            let real = extractor.cached(&images, &real_pixels, &cache)?;
            (INCEPTION_FEATURES, extractor.network.features(&samples, image)?, real)
        }
        (None, Some(classifier), Some(judged)) => {
            (FEATURES, judged.features.clone(), classifier.classify(&real_pixels)?.features)
        }
        _ => bail!("there is neither a classifier nor Inception to compare with"),
    };

    eprintln!("comparing");
    let some: Vec<f32> = (0..arguments.count.min(images.len()))
        .map(|index| index * images.len() / arguments.count.min(images.len()))
        .flat_map(|index| real_features[index * dim..(index + 1) * dim].iter().copied())
        .collect();
    let kernel = kernel_distance(
        &sample_features,
        &real_features,
        dim,
        KernelOptions { seed: arguments.seed, ..KernelOptions::default() },
    )?;
    // sets of one size: coverage falls with the number of references
    let manifold = manifold(&sample_features, &some, dim, arguments.neighbors)?;
    let classes = judged.as_ref().map(|judged| classes_of(judged, request.labels.as_deref()));
    let nearest = nearest_distance(&samples, &real_pixels, images.image_len())?;
    let mut null = nearest_other_distance(&real_pixels, images.image_len())?;
    null.sort_by(f64::total_cmp);
    let threshold = null[((null.len() as f64 * NEAR_COPY_QUANTILE) as usize).min(null.len() - 1)];
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;

    let report = Report {
        extractor: match (&inception, &arguments.inception) {
            (Some(extractor), Some(path)) => {
                let hash = &extractor.hash[..12];
                format!("Inception v3, {dim} features, weights {} (sha256 {hash}…)", path.display())
            }
            _ => format!(
                "classifier of {dim} features, trained for {} epochs on the reference, seed {}",
                arguments.classifier_epochs, arguments.seed
            ),
        },
        count: arguments.count,
        reference: format!("{} (the part that models are trained on)", images.name()),
        references: images.len(),
        frechet_distance: frechet_distance(&sample_features, &real_features, dim)?,
        frechet_distance_of_references: frechet_distance(&some, &real_features, dim)?,
        kernel_distance: kernel.mean,
        kernel_distance_confidence: kernel.confidence,
        precision: manifold.precision,
        recall: manifold.recall,
        density: manifold.density,
        coverage: manifold.coverage,
        classes,
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
    let classes = match &report.classes {
        Some(Classes { classes_covered, classes, class_entropy, called_as_asked }) => {
            let asked = match called_as_asked {
                Some(share) => format!("{:.1} % called as the class asked for", 100.0 * share),
                None => "the model has no classes to ask for".to_owned(),
            };
            let most = (*classes as f64).log2();
            format!("{classes_covered} of {classes} drawn, entropy {class_entropy:.2} of {most:.2} bits; {asked}")
        }
        None => "not known: the reference has no labels".to_owned(),
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
        format!("classes      {classes}"),
        format!(
            "nearest      {:.2} to the nearest reference image, {:.2} among these; {:.1} % near-copies (of reference images: 1 %)",
            report.nearest_distance,
            report.nearest_distance_of_references,
            100.0 * report.near_copies
        ),
    ]
    .join("\n")
}
