//! The classifier: training, and the gradient for guidance.

use burn::{
    module::Module,
    optim::{AdamConfig, GradientsParams},
    tensor::{Device, Int, Tensor, TensorData, activation::log_softmax},
};
use checkpoint::ImageFormat;
use data::{ImageSet, order::Order};
use noise::{Noise, NoiseLevel, Purpose, forward::q_sample};
use sampler::Classifier;
use schedule::ScheduleConfig;

use crate::{error::ClassifierError, network::Network};

/// Initial weights, which differ from those of a diffusion model with the same seed.
const WEIGHTS: Purpose = Purpose::Custom(0x6e6f_6973);

/// Options of [`NoisedClassifier::train`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingOptions {
    /// Optimizer steps, at least 1.
    pub steps: usize,
    /// Images per step, at least 1.
    pub batch_size: usize,
    /// Learning rate of Adam at the start, above 0; it falls to 0 as half a cosine.
    pub learning_rate: f64,
    /// Seed of the initial weights, timesteps and noise.
    pub seed: u64,
}

impl Default for TrainingOptions {
    fn default() -> Self {
        Self { steps: 1500, batch_size: 64, learning_rate: 2e-3, seed: 0 }
    }
}

/// A classifier of images at any noise level of a schedule.
#[derive(Clone, Debug)]
pub struct NoisedClassifier {
    pub(crate) network: Network,
    pub(crate) image: ImageFormat,
    pub(crate) classes: usize,
    pub(crate) schedule: ScheduleConfig,
}

impl NoisedClassifier {
    /// Trains on `images`, each noised to a uniform timestep of `schedule`. The same images, options and device give the same
    /// classifier. `observe` is called with the number of each step, from 1, and its loss.
    ///
    /// # Errors
    /// [`ClassifierError`] if the images have no labels of at least two classes or are smaller than 4x4, if an option is out
    /// of range, or if the loss is not finite.
    pub fn train(
        images: &ImageSet,
        schedule: &ScheduleConfig,
        options: TrainingOptions,
        device: &Device,
        observe: &mut dyn FnMut(usize, f64),
    ) -> Result<Self, ClassifierError> {
        let TrainingOptions { steps, batch_size, learning_rate, seed } = options;
        for (option, value) in [("steps", steps), ("batch_size", batch_size)] {
            if value == 0 {
                return Err(ClassifierError::OutOfRange { option, value: 0.0, range: "at least 1" });
            }
        }
        if !(learning_rate.is_finite() && learning_rate > 0.0) {
            let (option, range) = ("learning_rate", "above 0");
            return Err(ClassifierError::OutOfRange { option, value: learning_rate, range });
        }
        let (channels, height, width) = (images.channels(), images.height(), images.width());
        let classes = images.classes();
        if classes < 2 || images.is_empty() {
            return Err(ClassifierError::NoLabels { name: images.name().to_owned() });
        }
        if height.min(width) < 4 {
            return Err(ClassifierError::TooSmall { height, width });
        }
        let chain = schedule.build()?;
        let noise = Noise::new(seed);
        let autodiff = device.clone().autodiff();
        let mut network = Network::new([channels, height, width], classes, noise.stream(WEIGHTS), &autodiff);
        let mut optimizer = AdamConfig::new().with_epsilon(1e-8).init();
        let mut order = Order::new(images.len(), seed);
        for step in 0..steps {
            let positions: Vec<u64> = (0..batch_size as u64).map(|index| (step * batch_size) as u64 + index).collect();
            let indices: Vec<usize> = positions.iter().map(|position| order.at(*position)).collect();
            let pixels = images.batch(indices.iter().map(|index| (*index, false)));
            let mut labels = vec![0f32; batch_size * classes];
            for (index, label) in indices.iter().zip(labels.chunks_exact_mut(classes)) {
                if let Some(class) = images.label(*index) {
                    label[class as usize] = 1.0;
                }
            }
            let timestep = |position: &u64| {
                noise.stream(Purpose::Timesteps).below(*position, 0, chain.timesteps() as u64) as usize
            };
            let levels: Vec<NoiseLevel> = positions.iter().map(|position| chain.level(timestep(position))).collect();
            let x_0 = Tensor::from_data(TensorData::new(pixels, [batch_size, channels, height, width]), &autodiff);
            let labels = Tensor::<2>::from_data(TensorData::new(labels, [batch_size, classes]), &autodiff);
            let epsilon =
                noise.stream(Purpose::Epsilon).normal_images(&positions, 0, [channels, height, width], &autodiff);
            let logits = network.forward(q_sample(x_0, epsilon, &levels), &levels);
            let loss = -(log_softmax(logits, 1) * labels).sum() / batch_size as f64;
            let value = f64::from(loss.clone().inner().into_scalar::<f32>());
            if !value.is_finite() {
                return Err(ClassifierError::Diverged { step: step + 1, learning_rate });
            }
            let gradients = GradientsParams::from_grads(loss.backward(), &network);
            let done = step as f64 / steps as f64;
            let rate = learning_rate * 0.5 * (1.0 + (core::f64::consts::PI * done).cos());
            network = optimizer.step(rate, network, gradients);
            observe(step + 1, value);
        }
        let (content_height, content_width) = images.content_size();
        Ok(Self {
            network: network.valid(),
            image: ImageFormat {
                content_height,
                content_width,
                bits: if images.sixteen_bits() { 16 } else { 8 },
                ..ImageFormat::new(channels, height, width)
            },
            classes,
            schedule: schedule.clone(),
        })
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The format of the images of the training.
    pub fn image(&self) -> ImageFormat {
        self.image
    }

    /// The schedule of the training.
    pub fn schedule(&self) -> &ScheduleConfig {
        &self.schedule
    }

    /// Returns `ln p(class | x_t)` of every class.
    ///
    /// # Shapes
    /// - `x_t`: `[batch, channels, height, width]`; `levels`: one for each image
    /// - result: `[batch, classes]`
    pub fn log_probabilities(&self, x_t: Tensor<4>, levels: &[NoiseLevel]) -> Tensor<2> {
        log_softmax(self.network.forward(x_t, levels), 1)
    }

    /// The guide of a batch towards the classes `labels`, `[batch]`.
    pub fn towards(&self, labels: Tensor<1, Int>) -> LabeledClassifier<'_> {
        LabeledClassifier { classifier: self, labels }
    }
}

/// A classifier and the classes towards which it guides a batch.
#[derive(Clone, Debug)]
pub struct LabeledClassifier<'a> {
    classifier: &'a NoisedClassifier,
    /// `[batch]`
    labels: Tensor<1, Int>,
}

impl Classifier for LabeledClassifier<'_> {
    fn log_probability_gradient(&self, x_t: Tensor<4>, level: NoiseLevel) -> Tensor<4> {
        let (batch, format) = (x_t.dims()[0], x_t.dtype());
        // the network is f32, the state of a sampler may be f64
        let x_t = Tensor::<4>::from_data(x_t.to_data().convert::<f32>(), &x_t.device().autodiff()).require_grad();
        let probabilities = self.classifier.log_probabilities(x_t.clone(), &vec![level; batch]);
        let labels = Tensor::<1, Int>::from_data(self.labels.to_data(), &x_t.device());
        let chosen = probabilities.gather(1, labels.unsqueeze_dim::<2>(1));
        let gradient = x_t.grad(&chosen.sum().backward()).unwrap_or_else(|| x_t.clone().inner().zeros_like());
        Tensor::from_data(gradient.into_data(), (&x_t.device().inner(), format))
    }
}
