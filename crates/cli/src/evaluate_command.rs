//! `diffuse evaluate`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use burn::tensor::{Device, TensorData};
use checkpoint::Model;
use clap::Args;
use data::{ImageSet, LoadOptions, Padding};
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
    arguments::{ModelArguments, count},
    evaluation_cache::{Cache, sha256},
    model_images::load_options,
    read_data::{ColumnArguments, open_data},
};

#[derive(Args)]
pub struct EvaluateArguments {
    /// The reference: images like those that the model was trained on
    #[arg(long, value_name = "NAME|PATH")]
    data: String,
    #[command(flatten)]
    columns: ColumnArguments,
    /// Compare in the features of Inception v3 instead of a classifier's: pytorch-fid's weights pt_inception-2015-12-05, saved
    /// as safetensors
    #[arg(long, value_name = "FILE")]
    inception: Option<PathBuf>,
    /// Compute everything anew, and keep nothing for the next time
    #[arg(long)]
    no_cache: bool,
    /// Number of samples, the classes in equal parts
    #[arg(long, default_value_t = 400, value_parser = count(4..))]
    count: usize,
    /// Number of reference images at most, spread evenly over the data
    #[arg(long, default_value_t = 5000, value_parser = count(4..))]
    references: usize,
    /// Epochs of the classifier whose features are compared, which learns the classes of the reference or, without labels, the
    /// rotations of its images; 12, or 3 of rotations (more of few images), if not given
    #[arg(long)]
    classifier_epochs: Option<usize>,
    /// Nearest neighbors that span a neighborhood, for precision and recall
    #[arg(long, alias = "neighbours", default_value_t = 3, value_parser = count(1..))]
    neighbors: usize,
    #[command(flatten)]
    model: ModelArguments,
}

/// Quantile of the distances among the reference images below which a sample counts as a copy.
const NEAR_COPY_QUANTILE: f64 = 0.01;

/// The figures, and how they were made.
#[derive(Debug, Serialize)]
struct Report {
    extractor: String,
    /// Reasons to trust the figures less.
    warnings: Vec<String>,
    count: usize,
    reference: String,
    references: usize,
    frechet_distance: f64,
    /// Fréchet distance of as many reference images, spread evenly, to all: that of perfect samples. None where there are no more
    /// reference images than samples.
    frechet_distance_of_references: Option<f64>,
    kernel_distance: f64,
    /// Half the width of its 95 % confidence interval.
    kernel_distance_confidence: f64,
    /// This and the next three are against as many reference images as there are samples.
    precision: f64,
    recall: f64,
    density: f64,
    coverage: f64,
    /// None for data without labels.
    #[serde(flatten)]
    classes: Option<Classes>,
    /// Mean distance to the nearest reference image, in units of [-1, 1] pixels.
    nearest_distance: f64,
    /// The same among the reference images.
    nearest_distance_of_references: f64,
    /// Share of samples nearer to a reference image than the [`NEAR_COPY_QUANTILE`] of the distances among these. None where there
    /// are too few reference images for that quantile.
    near_copies: Option<f64>,
}

/// Classes of the samples, according to a classifier of the reference.
#[derive(Debug, Serialize)]
struct Classes {
    /// Classes with at least one sample.
    classes_covered: usize,
    classes: usize,
    /// Entropy of the classes, in bits; at most log2 of their number.
    class_entropy: f64,
    /// Share of samples in the class that was asked for; None for a model without classes.
    called_as_asked: Option<f64>,
}

/// Labels of a model as those of the reference: by name where both have names, since other data may number them otherwise. A class
/// that the reference lacks is none of its labels.
fn in_reference(labels: &[usize], model: &Model, images: &ImageSet) -> Vec<usize> {
    let names = &model.header.classes;
    let Some(known) = images.class_names().filter(|_| !names.is_empty()) else { return labels.to_vec() };
    let by_name = |label: &usize| known.iter().position(|name| *name == names[*label]).unwrap_or(usize::MAX);
    labels.iter().map(by_name).collect()
}

/// Counts the classes of the samples and compares them with those that were asked for.
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

/// Inception v3.
struct Extractor {
    network: Inception,
    /// The network and its weights, for the report.
    name: String,
    /// SHA-256 of the weights file, in hexadecimal.
    hash: String,
}

impl Extractor {
    fn read(path: &Path, device: &Device) -> anyhow::Result<Self> {
        let network = Inception::load(path, device)?;
        let bytes = std::fs::read(path).map_err(|source| FileError::new(Action::Read, path, source))?;
        let hash = sha256(&bytes);
        let weights = format!("weights {} (sha256 {}…)", path.display(), &hash[..12]);
        Ok(Self { network, name: format!("Inception v3, {INCEPTION_FEATURES} features, {weights}"), hash })
    }

    /// The features of the reference, computed once.
    fn cached(&self, images: &ImageSet, pixels: &[f32], cache: &Cache) -> anyhow::Result<Vec<f32>> {
        let key = format!("inception features 1; weights {}; images {}", self.hash, images.content_hash());
        let features = cache.get_or(&key, &["features"], || {
            let features = self.network.features(pixels, shape(images))?;
            Ok(vec![TensorData::new(features, [images.len(), INCEPTION_FEATURES])])
        })?;
        Ok(features.iter().flat_map(|data| data.iter::<f32>().collect::<Vec<_>>()).collect())
    }
}

/// Images, with repetitions, of which a classifier of rotations sees each rotation.
const ROTATED_IMAGES: usize = 5000;

/// The task that a classifier of the reference learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// The classes.
    Classes,
    /// The rotations of images without labels.
    Rotations,
}

impl Task {
    /// The task for these images: a classifier needs at least two classes.
    fn of(images: &ImageSet) -> Self {
        if images.labels().is_some() && images.classes() > 1 { Self::Classes } else { Self::Rotations }
    }

    /// The epochs for this number of images.
    fn epochs(self, arguments: &EvaluateArguments, images: usize) -> usize {
        let of_few = ROTATED_IMAGES / images;
        arguments.classifier_epochs.unwrap_or(if self == Self::Classes { 12 } else { of_few.clamp(3, 50) })
    }

    /// The classifier of the reference, trained once.
    fn trained(
        self,
        arguments: &EvaluateArguments,
        images: &ImageSet,
        cache: &Cache,
        device: &Device,
    ) -> anyhow::Result<DigitClassifier> {
        let (seed, epochs) = (arguments.model.seed, self.epochs(arguments, images.len()));
        let (name, what, train): (_, _, fn(&ImageSet, u64, usize, &Device) -> _) = match self {
            Self::Classes => ("classifier", "", DigitClassifier::train),
            Self::Rotations => ("rotations", " to tell rotations", DigitClassifier::train_on_rotations),
        };
        let key = format!("{name} 1; seed {seed}; epochs {epochs}; images {}", images.content_hash());
        let state = cache.get_or(&key, &DigitClassifier::PARAMETERS, || {
            eprintln!("training the classifier{what} on {} images of {}", images.len(), images.name());
            Ok(train(images, seed, epochs, device)?.state())
        })?;
        match DigitClassifier::from_state(shape(images), state, device) {
            Some(classifier) => Ok(classifier),
            None => Ok(train(images, seed, epochs, device)?),
        }
    }

    /// The extractor of a report.
    fn extractor(self, arguments: &EvaluateArguments, images: usize) -> String {
        let (epochs, seed) = (self.epochs(arguments, images), arguments.model.seed);
        match self {
            Self::Classes => {
                format!("classifier of {FEATURES} features, trained for {epochs} epochs on the reference, seed {seed}")
            }
            Self::Rotations => format!(
                "classifier of rotations (RotNet) of {FEATURES} features, trained for {epochs} epochs on the reference, which has no \
                 classes, seed {seed}; not comparable with distances in other features"
            ),
        }
    }
}

/// Reasons to trust the distances less: a covariance of fewer images than features is singular.
fn warnings(dim: usize, samples: usize, references: usize) -> Vec<String> {
    let few = |what: &str, count: usize, flag: &str| {
        let text = format!(
            "{count} {what} are not more than the {dim} features: their covariance is singular, and the Fréchet distance is biased; compare \
             it with equal numbers only, look at the kernel distance, which is not biased, or raise {flag}"
        );
        (count <= dim).then_some(text)
    };
    [few("samples", samples, "--count"), few("reference images", references, "the data and --references")]
        .into_iter()
        .flatten()
        .collect()
}

/// Channels, height and width.
fn shape(images: &ImageSet) -> [usize; 3] {
    [images.channels(), images.height(), images.width()]
}

/// Draws samples and rounds them to bytes, `[count, channels, height, width]` in [-1, 1].
fn draw(model: &Model, request: &Request, seed: u64) -> anyhow::Result<Vec<f32>> {
    eprintln!("drawing {} samples", request.noise_indices.len());
    let images = generate(model, request, &Noise::new(seed), &mut |_| ())?;
    Ok(images.into_data().iter::<f32>().map(|value| data::to_unit_range(data::to_u8(value))).collect())
}

/// Features of samples and reference, `[count, dim]` each.
struct Features {
    /// The network that computes them.
    extractor: String,
    dim: usize,
    samples: Vec<f32>,
    references: Vec<f32>,
}

pub fn run(arguments: EvaluateArguments) -> anyhow::Result<()> {
    let (model, device) = arguments.model.open()?;
    let options = LoadOptions {
        padding: Padding::None,
        // bytes are compared
        sixteen_bits: false,
        limit: Some(arguments.references),
        ..load_options(model.header.image, &arguments.columns)
    };
    let images = open_data(&arguments.data, &options)?.images;
    let cache = Cache::new(!arguments.no_cache);
    let inception = arguments.inception.as_ref().map(|path| Extractor::read(path, &device)).transpose()?;
    let task = Task::of(&images);
    // with Inception, a classifier is needed for the classes alone
    let classifier = if task == Task::Classes || inception.is_none() {
        Some(task.trained(&arguments, &images, &cache, &device)?)
    } else {
        if arguments.classifier_epochs.is_some() {
            let text = "--classifier-epochs changes nothing with --inception and data without classes: leave it out";
            return Err(UsageError(text.to_owned()).into());
        }
        None
    };

    let references = pixels(&images);
    let request = Request::even(arguments.count, model.header.unet.classes());
    let samples = draw(&model, &request, arguments.model.seed)?;
    let judged = classifier.as_ref().map(|classifier| classifier.classify(&samples)).transpose()?;
    let asked = request.labels.as_ref().map(|labels| in_reference(labels, &model, &images));
    let judged_classes = judged.as_ref().filter(|_| task == Task::Classes);
    let classes = judged_classes.map(|judged| classes_of(judged, asked.as_deref()));
    let features = match (&inception, classifier.zip(judged)) {
        (Some(extractor), _) => {
            eprintln!("looking at {} images with Inception", images.len() + arguments.count);
            Features {
                extractor: extractor.name.clone(),
                dim: INCEPTION_FEATURES,
                samples: extractor.network.features(&samples, shape(&images))?,
                references: extractor.cached(&images, &references, &cache)?,
            }
        }
        (None, Some((classifier, judged))) => Features {
            extractor: task.extractor(&arguments, images.len()),
            dim: FEATURES,
            samples: judged.features,
            references: classifier.classify(&references)?.features,
        },
        (None, None) => bail!("there is neither a classifier nor Inception to compare with"),
    };
    for warning in warnings(features.dim, arguments.count, images.len()) {
        eprintln!("warning: {warning}");
    }
    eprintln!("comparing");
    let report = compare(&arguments, &images, features, classes, (&samples, &references))?;
    arguments.model.common.print(&report, lines(&report))
}

/// Compares samples and reference, in features and in pixels.
fn compare(
    arguments: &EvaluateArguments,
    images: &ImageSet,
    features: Features,
    classes: Option<Classes>,
    (samples, references): (&[f32], &[f32]),
) -> anyhow::Result<Report> {
    let dim = features.dim;
    // sets of one size: coverage falls with the number of references
    let count = arguments.count.min(images.len());
    let some: Vec<f32> = (0..count)
        .map(|index| index * images.len() / count)
        .flat_map(|index| features.references[index * dim..(index + 1) * dim].iter().copied())
        .collect();
    let options = KernelOptions { seed: arguments.model.seed, ..KernelOptions::default() };
    let kernel = kernel_distance(&features.samples, &features.references, dim, options)?;
    let manifold = manifold(&features.samples, &some, dim, arguments.neighbors)?;
    let nearest = nearest_distance(samples, references, images.image_len())?;
    let mut null = nearest_other_distance(references, images.image_len())?;
    null.sort_by(f64::total_cmp);
    let threshold = null[((null.len() as f64 * NEAR_COPY_QUANTILE) as usize).min(null.len() - 1)];
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    Ok(Report {
        extractor: features.extractor,
        warnings: warnings(dim, arguments.count, images.len()),
        count: arguments.count,
        reference: format!("{} (the part that models are trained on)", images.name()),
        references: images.len(),
        frechet_distance: frechet_distance(&features.samples, &features.references, dim)?,
        frechet_distance_of_references: if count < images.len() {
            Some(frechet_distance(&some, &features.references, dim)?)
        } else {
            None
        },
        kernel_distance: kernel.mean,
        kernel_distance_confidence: kernel.confidence,
        precision: manifold.precision,
        recall: manifold.recall,
        density: manifold.density,
        coverage: manifold.coverage,
        classes,
        nearest_distance: mean(&nearest),
        nearest_distance_of_references: mean(&null),
        near_copies: (null.len() as f64 * NEAR_COPY_QUANTILE >= 1.0)
            .then(|| nearest.iter().filter(|distance| **distance < threshold).count() as f64 / nearest.len() as f64),
    })
}

fn lines(report: &Report) -> String {
    let Report { count, references, .. } = report;
    let floor = report.frechet_distance_of_references.map(|floor| format!(" ({floor:.2} of as many reference images)"));
    let near_copies = match report.near_copies {
        Some(share) => format!("{:.1} % near-copies (of reference images: 1 %)", 100.0 * share),
        None => format!("near-copies not told: {references} reference images are too few"),
    };
    let classes = match &report.classes {
        Some(Classes { classes_covered, classes, class_entropy, called_as_asked }) => {
            let asked = match called_as_asked {
                Some(share) => format!("{:.1} % called as the class asked for", 100.0 * share),
                None => "the model has no classes to ask for".to_owned(),
            };
            let most = (*classes as f64).log2();
            format!("{classes_covered} of {classes} drawn, entropy {class_entropy:.2} of {most:.2} bits; {asked}")
        }
        None => "not known: the reference has no labels of at least two classes".to_owned(),
    };
    [
        format!("extractor    {}", report.extractor),
        format!("samples      {count}, against {references} images of {}", report.reference),
        format!("Fréchet      {:.2}{}", report.frechet_distance, floor.unwrap_or_default()),
        format!(
            "kernel       {:.4} +- {:.4} (95 % confidence)",
            report.kernel_distance, report.kernel_distance_confidence
        ),
        format!("precision    {:.3}, density {:.3}", report.precision, report.density),
        format!("recall       {:.3}, coverage {:.3}", report.recall, report.coverage),
        format!("classes      {classes}"),
        format!(
            "nearest      {:.2} to the nearest reference image, {:.2} among these; {near_copies}",
            report.nearest_distance, report.nearest_distance_of_references
        ),
    ]
    .join("\n")
}
