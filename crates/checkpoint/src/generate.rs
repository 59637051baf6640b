//! Images from a model.

use burn::tensor::{Int, Tensor, TensorData};
use noise::{Noise, Prediction, Stream};
use sampler::{DdimOptions, DdpmOptions, Denoiser, Guided, NoiseLevel, Observer, SamplerError, ddim, ddpm};
use schedule::{Objective, ScheduleError};
use unet::{Condition, Unet, UnetError};

use crate::{header::SamplerKind, model::Model};

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

impl NetworkDenoiser<'_> {
    /// The raw output for a batch, part by part.
    fn output(&self, x_t: &Tensor<4>, level: NoiseLevel, estimate: Option<&Tensor<4>>) -> Tensor<4> {
        let batch = x_t.dims()[0];
        let part = |start: usize, length: usize| {
            let t =
                Tensor::<1>::from_data(TensorData::new(vec![level.timestep as f32; length], [length]), &x_t.device());
            let condition = Condition {
                labels: self.labels.clone().map(|labels| labels.narrow(0, start, length)),
                self_condition: estimate.map(|estimate| estimate.clone().narrow(0, start, length)),
                ..Condition::default()
            };
            self.unet.forward(x_t.clone().narrow(0, start, length), t, condition)
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
        let output = self.output(&x_t, level, estimate);
        // the second half of the channels, where there is one, says where the variance lies
        let variance = (output.dims()[1] == 2 * channels).then(|| output.clone().narrow(1, channels, channels));
        let output = output.narrow(1, 0, channels);
        Prediction { variance, ..Prediction::from_output(self.objective, output, x_t, &vec![level; batch]) }
    }
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
    if let Some(&class) = request.labels.iter().flatten().find(|class| **class >= classes) {
        return Err(GenerateError::Class { class, classes });
    }
    header.unet.check_image_size(image.height, image.width)?;
    let levels = header.schedule.build()?.levels(options.spacing, options.steps)?;
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
        let unconditional = NetworkDenoiser {
            unet: &model.unet,
            objective: header.objective,
            labels: None,
            parallel_parts: options.parallel_parts,
        };
        let scale = if labels.is_some() { options.guidance } else { 1.0 };
        let denoiser =
            Guided { conditional: NetworkDenoiser { labels, ..unconditional.clone() }, unconditional, scale };
        let x_t = noise.stream(Stream::Start).normal_images(samples, 0, shape, &device);
        let samples = Some(samples.to_vec());
        drawn.push(match options.sampler {
            SamplerKind::Ddim => {
                ddim(&denoiser, x_t, &levels, DdimOptions { eta: options.eta, clip, samples }, noise, observe)?
            }
            SamplerKind::Ddpm => {
                let options = DdpmOptions { variance: options.variance, clip, samples };
                ddpm(&denoiser, x_t, &levels, options, noise, observe)?
            }
        });
    }
    if drawn.is_empty() {
        return Ok(Tensor::zeros([0, image.channels, image.content_height, image.content_width], &device));
    }
    let (top, left) = ((image.height - image.content_height) / 2, (image.width - image.content_width) / 2);
    Ok(Tensor::cat(drawn, 0).narrow(2, top, image.content_height).narrow(3, left, image.content_width))
}
