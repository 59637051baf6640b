//! Images from a model.

use burn::tensor::{DType, Int, Tensor, TensorData};
use noise::{Noise, Prediction, Purpose, network_input, network_times};
use sampler::{
    CfgPlusPlus, Classifier, ClassifierGuided, Denoiser, Guided, KindOptions, NoiseLevel, Observer, SamplerError,
    SamplerKind,
};
use schedule::{Objective, ScheduleError};
use unet::{Condition, Unet, UnetError};

use crate::{header::GuidanceKind, model::Model};

/// A trained network with its objective, as a [`Denoiser`].
#[derive(Clone, Debug)]
pub struct NetworkDenoiser<'a> {
    /// The network.
    pub unet: &'a Unet,
    /// What it predicts.
    pub objective: Objective,
    /// Class of each image of the batch, `[batch]`; None is the null class.
    pub labels: Option<Tensor<1, Int>>,
    /// Parts that a batch is cut into, computed at the same time on as many threads; 1 for none.
    pub parallel_parts: usize,
}

impl<'a> NetworkDenoiser<'a> {
    /// The network of a model, with the parts of its `sampling`.
    pub fn new(model: &'a Model, labels: Option<Tensor<1, Int>>) -> Self {
        let parallel_parts = model.header.sampling.parallel_parts;
        Self { unet: &model.unet, objective: model.header.objective, labels, parallel_parts }
    }

    /// The raw output for a batch, part by part.
    fn output(&self, x_t: &Tensor<4>, level: NoiseLevel, estimate: Option<&Tensor<4>>) -> Tensor<4> {
        let batch = x_t.dims()[0];
        let part = |start: usize, length: usize| {
            let levels = vec![level; length];
            let t = network_times(self.objective, &levels, &x_t.device());
            let condition = Condition {
                labels: self.labels.clone().map(|labels| labels.narrow(0, start, length)),
                self_condition: estimate.map(|estimate| estimate.clone().narrow(0, start, length)),
                ..Condition::default()
            };
            let x_t = x_t.clone().narrow(0, start, length);
            self.unet.forward(network_input(self.objective, x_t, &levels), t, condition)
        };
        let size = batch.div_ceil(self.parallel_parts.max(1)).max(1);
        if size >= batch {
            return part(0, batch);
        }
        std::thread::scope(|scope| {
            let part = &part;
            let starts = (size..batch).step_by(size);
            let others: Vec<_> =
                starts.map(|start| scope.spawn(move || part(start, size.min(batch - start)))).collect();
            let first = part(0, size);
            let others = others.into_iter().map(|thread| match thread.join() {
                Ok(output) => output,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            Tensor::cat(std::iter::once(first).chain(others).collect(), 0)
        })
    }
}

impl Denoiser for NetworkDenoiser<'_> {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, estimate: Option<&Tensor<4>>) -> Prediction {
        let [batch, channels, _, _] = x_t.dims();
        // a sampler may keep its state in f64: the network computes in the format of its weights
        let (state, format) = (x_t.dtype(), self.unet.dtype());
        let output = match state == format {
            true => self.output(&x_t, level, estimate),
            false => {
                let estimate = estimate.map(|estimate| convert(estimate, format));
                convert(&self.output(&convert(&x_t, format), level, estimate.as_ref()), state)
            }
        };
        // the second half of the channels, where there is one, says where the variance lies
        let variance = (output.dims()[1] == 2 * channels).then(|| output.clone().narrow(1, channels, channels));
        let output = output.narrow(1, 0, channels);
        Prediction { variance, ..Prediction::from_output(self.objective, output, x_t, &vec![level; batch]) }
    }
}

/// The same numbers in another format.
fn convert(x: &Tensor<4>, format: DType) -> Tensor<4> {
    Tensor::from_data(x.to_data(), (&x.device(), format))
}

/// Which images to draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Number of the image within the seed, for each image: the same number gives the same image in any batch.
    pub samples: Vec<u64>,
    /// Class of each image; None leaves the class open.
    pub labels: Option<Vec<usize>>,
}

impl Request {
    /// The first `count` images of a seed, of no class.
    pub fn count(count: usize) -> Self {
        Self { samples: (0..count as u64).collect(), labels: None }
    }

    /// The first `count` images of a seed, the classes in equal runs: 0 0 0 … 1 1 1 …, as rows of a grid. Without
    /// classes, like [`count`](Self::count).
    pub fn even(count: usize, classes: usize) -> Self {
        let labels = (classes > 0).then(|| (0..count).map(|index| index * classes / count.max(1)).collect());
        Self { labels, ..Self::count(count) }
    }
}

/// Images that cannot be drawn as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// Steps or spacing do not fit the schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// An option of the sampler is out of range.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The images do not fit the network.
    #[error(transparent)]
    Network(#[from] UnetError),
    /// A class that the model does not have.
    #[error("the class {class} does not exist: {}", match classes {
        0 => "this model was trained without classes".to_owned(),
        classes => format!("this model has the classes 0 to {}", classes - 1),
    })]
    Class {
        /// What was asked for.
        class: usize,
        /// How many there are.
        classes: usize,
    },
    /// A guide that does not fit.
    #[error("guidance is not possible like this: {reason}")]
    Guide {
        /// Why not, and what to do.
        reason: String,
    },
    /// A number out of range.
    #[error("sampling.{key} = {value} is not possible: it must be {range}")]
    OutOfRange {
        /// The key.
        key: &'static str,
        /// Its value.
        value: f64,
        /// What it must be.
        range: &'static str,
    },
}

/// What guides a network, besides the class that it is told.
#[derive(Clone, Copy, Default)]
pub enum Guide<'a> {
    /// The network itself without the class (classifier-free guidance); nothing for a network without classes.
    #[default]
    Itself,
    /// A weaker model of the same images, told the same class (autoguidance).
    Weaker(&'a Model),
    /// A classifier of noised images.
    Classifier(&'a dyn Fn(Tensor<1, Int>) -> Box<dyn Classifier + 'a>),
}

/// Draws images as the header's `sampling` says: `[count, channels, height, width]` in about [-1, 1], cropped to the
/// content where the data was padded. The observer sees each batch's steps (not cropped).
///
/// # Errors
/// [`GenerateError`] names the option and what is possible.
pub fn generate(
    model: &Model,
    request: &Request,
    noise: &Noise,
    observe: &mut Observer,
) -> Result<Tensor<4>, GenerateError> {
    generate_guided(model, Guide::Itself, request, noise, observe)
}

/// [`generate`] with a guide; `sampling.guidance` is its scale.
///
/// # Errors
/// Those of [`generate`], and [`GenerateError::Guide`] if the guide does not fit the model.
pub fn generate_guided(
    model: &Model,
    guide: Guide<'_>,
    request: &Request,
    noise: &Noise,
    observe: &mut Observer,
) -> Result<Tensor<4>, GenerateError> {
    let (header, options) = (&model.header, &model.header.sampling);
    let (image, classes) = (header.image, header.unet.classes);
    let out_of_range = |key, value, range| Err(GenerateError::OutOfRange { key, value, range });
    if !options.guidance.is_finite() {
        return out_of_range("guidance", options.guidance, "a finite number");
    }
    for (key, value) in [("batch_size", options.batch_size), ("parallel_parts", options.parallel_parts)] {
        if value == 0 {
            return out_of_range(key, 0.0, "at least 1");
        }
    }
    // the classes of a classifier are its own
    let told = request.labels.as_ref().filter(|_| !matches!(guide, Guide::Classifier(_)));
    if let Some(&class) = told.into_iter().flatten().find(|class| **class >= classes) {
        return Err(GenerateError::Class { class, classes });
    }
    let plus_plus = options.guidance_kind == GuidanceKind::CfgPlusPlus;
    if plus_plus && !(options.sampler == SamplerKind::Ddim && options.eta == 0.0) {
        let reason = "guidance_kind = cfg_plus_plus needs the sampler ddim and eta = 0".to_owned();
        return Err(GenerateError::Guide { reason });
    }
    if let Guide::Weaker(weaker) = guide
        && (weaker.header.image != image
            || weaker.header.unet.classes != classes
            || weaker.header.schedule != header.schedule)
    {
        let reason =
            "the weaker model was trained on images of another size, other classes or another schedule".to_owned();
        return Err(GenerateError::Guide { reason });
    }
    header.unet.check_image_size(image.height, image.width)?;
    let schedule = header.schedule.build()?;
    let levels = schedule.levels(options.spacing, options.steps)?;
    let clip = options.clip.then_some(1.0);
    let device = model.unet.device();
    let shape = [image.channels, image.height, image.width];

    let mut drawn = Vec::new();
    for (batch, samples) in request.samples.chunks(options.batch_size).enumerate() {
        let labels = request.labels.as_ref().map(|labels| {
            let start = batch * options.batch_size;
            let labels: Vec<i64> = labels[start..start + samples.len()].iter().map(|label| *label as i64).collect();
            Tensor::<1, Int>::from_data(TensorData::new(labels, [samples.len()]), &device)
        });
        let conditional = NetworkDenoiser::new(model, labels.clone());
        let denoiser: Box<dyn Denoiser + '_> = match (guide, labels) {
            (Guide::Itself, None) => Box::new(conditional),
            (Guide::Classifier(_), None) => {
                let reason = "a classifier needs to be told the class: ask for one".to_owned();
                return Err(GenerateError::Guide { reason });
            }
            (Guide::Classifier(classifier), Some(labels)) => {
                // the network is not told the class: the classifier is what knows it
                let denoiser = NetworkDenoiser::new(model, None);
                Box::new(ClassifierGuided { denoiser, classifier: classifier(labels), scale: options.guidance })
            }
            (Guide::Itself, Some(_)) if plus_plus => Box::new(CfgPlusPlus {
                conditional,
                unconditional: NetworkDenoiser::new(model, None),
                scale: options.guidance,
                clip,
            }),
            (Guide::Itself | Guide::Weaker(_), labels) => {
                let other = match guide {
                    Guide::Weaker(weaker) => NetworkDenoiser::new(weaker, labels),
                    _ => NetworkDenoiser::new(model, None),
                };
                let mut guided = Guided::new(conditional, other, options.guidance);
                guided.interval = options.guidance_interval.unwrap_or(guided.interval);
                guided.rescale = options.guidance_rescale;
                guided.check()?;
                Box::new(guided)
            }
        };
        let x_t = noise.stream(Purpose::InitialNoise).normal_images(samples, 0, shape, &device);
        let kind = KindOptions {
            eta: options.eta,
            churn: options.churn,
            variance: options.variance,
            // CFG++ clips x_0 itself
            clip: clip.filter(|_| !plus_plus),
            noise_indices: Some(samples.to_vec()),
        };
        let level_at = |sigma| schedule.level_at_sigma(sigma);
        drawn.push(options.sampler.sample(&*denoiser, x_t, &levels, &level_at, kind, noise, observe)?);
    }
    if drawn.is_empty() {
        return Ok(Tensor::zeros([0, image.channels, image.content_height, image.content_width], &device));
    }
    let (top, left) = ((image.height - image.content_height) / 2, (image.width - image.content_width) / 2);
    Ok(Tensor::cat(drawn, 0).narrow(2, top, image.content_height).narrow(3, left, image.content_width))
}
