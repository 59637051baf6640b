//! Images from a model.

use burn::tensor::{Int, Tensor, TensorData};
use checkpoint::{GuidanceKind, Model};
use noise::{Noise, Purpose};
use sampler::{CfgPlusPlus, Classifier, ClassifierGuided, Denoiser, Guided, KindOptions, Observer, SamplerKind};

use crate::{GenerateError, NetworkDenoiser, denoiser::GuidedInOneBatch};

/// The images to draw: a noise index and, where the model has classes, a label for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The noise index of each image: with one seed, an index gives the same image in any batch.
    pub noise_indices: Vec<u64>,
    /// The class of each image; None is the null class for all.
    pub labels: Option<Vec<usize>>,
}

impl Request {
    /// The first `count` images of a seed, without classes.
    pub fn count(count: usize) -> Self {
        Self { noise_indices: (0..count as u64).collect(), labels: None }
    }

    /// The first `count` images of a seed, with classes in runs of equal length (0 0 0 … 1 1 1 …), as in the rows of a grid. With
    /// `classes = 0`, [`count`](Self::count).
    pub fn even(count: usize, classes: usize) -> Self {
        let labels = (classes > 0).then(|| (0..count).map(|index| index * classes / count.max(1)).collect());
        Self { labels, ..Self::count(count) }
    }
}

/// The guide of a model.
#[derive(Clone, Copy, Default)]
pub enum Guide<'a> {
    /// The model itself with the null class (classifier-free guidance); none for a model without classes.
    #[default]
    Itself,
    /// A weaker model of the same images and classes (autoguidance).
    Weaker(&'a Model),
    /// A classifier of noised images, made for the labels of a batch, `[batch]`.
    Classifier(&'a dyn Fn(Tensor<1, Int>) -> Box<dyn Classifier + 'a>),
}

/// Draws images with the sampler and guidance of the header's `sampling`.
///
/// # Shapes
/// The result is `[count, channels, height, width]` in about [-1, 1], cropped to the content where the data was padded. The observer
/// sees the steps of each batch in turn, not cropped.
///
/// # Errors
/// [`GenerateError`] names the option and its possible values.
pub fn generate(
    model: &Model,
    request: &Request,
    noise: &Noise,
    observe: &mut Observer,
) -> Result<Tensor<4>, GenerateError> {
    generate_guided(model, Guide::Itself, request, noise, observe)
}

/// [`generate`] with a guide, whose scale is `sampling.guidance`.
///
/// # Errors
/// As [`generate`]; [`GenerateError::Guide`] if the guide does not go with the model.
pub fn generate_guided(
    model: &Model,
    guide: Guide<'_>,
    request: &Request,
    noise: &Noise,
    observe: &mut Observer,
) -> Result<Tensor<4>, GenerateError> {
    check(model, guide, request)?;
    let (image, options) = (model.header.image, &model.header.sampling);
    let schedule = model.header.schedule.build()?;
    let levels = schedule.levels(options.spacing, options.steps)?;
    let device = model.unet.device();
    let mut labels = request.labels.iter().flatten().map(|label| *label as i64);
    let mut drawn = Vec::new();
    for noise_indices in request.noise_indices.chunks(options.batch_size) {
        let size = noise_indices.len();
        let labels = request.labels.is_some().then(|| {
            let labels: Vec<i64> = labels.by_ref().take(size).collect();
            Tensor::<1, Int>::from_data(TensorData::new(labels, [size]), &device)
        });
        let denoiser = guided_denoiser(model, &guide, labels)?;
        let shape = [image.channels, image.height, image.width];
        let x_t = noise.stream(Purpose::InitialNoise).normal_images(noise_indices, 0, shape, &device);
        let kind = KindOptions {
            eta: options.eta,
            churn: options.churn,
            variance: options.variance,
            // CFG++ clips x_0 itself
            clip: (options.clip && options.guidance_kind != GuidanceKind::CfgPlusPlus).then_some(1.0),
            noise_indices: Some(noise_indices.to_vec()),
        };
        let level_at = |sigma| schedule.level_at_sigma(sigma);
        drawn.push(options.sampler.sample(&*denoiser, x_t, &levels, &level_at, kind, noise, observe)?);
    }
    if drawn.is_empty() {
        return Ok(Tensor::zeros([0, image.channels, image.content_height, image.content_width], &device));
    }
    Ok(image.cropped(Tensor::cat(drawn, 0)))
}

/// Checks everything that can be wrong before the first network evaluation.
fn check(model: &Model, guide: Guide<'_>, request: &Request) -> Result<(), GenerateError> {
    let (header, options) = (&model.header, &model.header.sampling);
    let classes = header.unet.classes();
    let out_of_range = |key, value, range| Err(GenerateError::OutOfRange { key, value, range });
    if !options.guidance.is_finite() {
        return out_of_range("guidance", options.guidance, "a finite number");
    }
    for (key, value) in [("batch_size", options.batch_size), ("parallel_parts", options.parallel_parts)] {
        if value == 0 {
            return out_of_range(key, 0.0, "at least 1");
        }
    }
    // the labels of a classifier are its own: the model need not have them
    let labels = request.labels.as_ref().filter(|_| !matches!(guide, Guide::Classifier(_)));
    if let Some(&class) = labels.into_iter().flatten().find(|class| **class >= classes) {
        return Err(GenerateError::Class { class, classes });
    }
    let refuse = |reason: &str| Err(GenerateError::Guide { reason: reason.to_owned() });
    if options.guidance_kind == GuidanceKind::CfgPlusPlus
        && !(options.sampler == SamplerKind::Ddim && options.eta == 0.0)
    {
        return refuse("guidance_kind = cfg_plus_plus needs the sampler ddim and eta = 0");
    }
    if let Guide::Weaker(Model { header: weaker, .. }) = guide
        && (weaker.image != header.image || weaker.unet.classes() != classes || weaker.schedule != header.schedule)
    {
        return refuse("the weaker model was trained on images of another size, other classes or another schedule");
    }
    if matches!(guide, Guide::Classifier(_)) && request.labels.is_none() {
        return refuse("a classifier needs a class to guide to: ask for one");
    }
    Ok(header.unet.check_image_size(header.image.height, header.image.width)?)
}

/// The model with its guide as one denoiser; `labels` are those of the batch, `[batch]`.
fn guided_denoiser<'a>(
    model: &'a Model,
    guide: &'a Guide<'_>,
    labels: Option<Tensor<1, Int>>,
) -> Result<Box<dyn Denoiser + 'a>, GenerateError> {
    let options = &model.header.sampling;
    let scale = options.guidance;
    let unconditional = || NetworkDenoiser::new(model, None);
    let conditional = NetworkDenoiser::new(model, labels.clone());
    Ok(match (guide, labels) {
        (Guide::Classifier(classifier), Some(labels)) => {
            Box::new(ClassifierGuided { denoiser: unconditional(), classifier: classifier(labels), scale })
        }
        (Guide::Itself | Guide::Classifier(_), None) => Box::new(conditional),
        (Guide::Itself, Some(_)) if options.guidance_kind == GuidanceKind::CfgPlusPlus => {
            let clip = options.clip.then_some(1.0);
            Box::new(CfgPlusPlus { conditional, unconditional: unconditional(), scale, clip })
        }
        (Guide::Itself | Guide::Weaker(_), labels) => {
            let in_one_batch = matches!(guide, Guide::Itself) && model.unet.is_on_gpu();
            let other = match guide {
                Guide::Weaker(weaker) => NetworkDenoiser::new(weaker, labels),
                _ => unconditional(),
            };
            let mut guided = Guided::new(conditional, other, scale);
            guided.interval = options.guidance_interval.unwrap_or(guided.interval);
            guided.rescale = options.guidance_rescale;
            guided.check()?;
            if in_one_batch { Box::new(GuidedInOneBatch(guided)) } else { Box::new(guided) }
        }
    })
}
