//! The network: convolutions, with channels shifted by the noise level, and a perceptron.

use burn::{
    module::{Module, ModuleMapper, Param},
    nn::{
        Linear, LinearConfig, PaddingConfig2d,
        conv::{Conv2d, Conv2dConfig},
    },
    tensor::{Device, Tensor, TensorData, activation::silu},
};
use noise::{NoiseLevel, NoiseStream};

/// Channels of the three convolutions; the first and the last halve the sides.
const CHANNELS: [usize; 3] = [32, 64, 64];
/// Number of sines, and of cosines, that encode the noise level.
const FREQUENCIES: usize = 8;
const LEVEL_FEATURES: usize = 64;
const FEATURES: usize = 128;

/// The names of the parameters in a file, in the order of the fields below.
pub(crate) const PARAMETERS: [&str; 18] = [
    "level.weight",
    "level.bias",
    "shift_1.weight",
    "shift_1.bias",
    "shift_2.weight",
    "shift_2.bias",
    "shift_3.weight",
    "shift_3.bias",
    "convolution_1.weight",
    "convolution_1.bias",
    "convolution_2.weight",
    "convolution_2.bias",
    "convolution_3.weight",
    "convolution_3.bias",
    "features.weight",
    "features.bias",
    "classes.weight",
    "classes.bias",
];

#[derive(Module, Debug)]
pub(crate) struct Network {
    level: Linear,
    shift_1: Linear,
    shift_2: Linear,
    shift_3: Linear,
    convolution_1: Conv2d,
    convolution_2: Conv2d,
    convolution_3: Conv2d,
    features: Linear,
    classes: Linear,
}

impl Network {
    /// A network for images `[channels, height, width]`; weights are uniform in ±1/sqrt(fan_in), from `noise`, biases 0.
    pub(crate) fn new(image: [usize; 3], classes: usize, noise: NoiseStream, device: &Device) -> Self {
        let [channels, height, width] = image;
        let convolution = |from, to, stride| {
            Conv2dConfig::new([from, to], [3, 3])
                .with_stride([stride, stride])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(device)
        };
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        let quarter = |side: usize| side.div_ceil(2).div_ceil(2);
        let network = Self {
            level: linear(2 * FREQUENCIES, LEVEL_FEATURES),
            shift_1: linear(LEVEL_FEATURES, CHANNELS[0]),
            shift_2: linear(LEVEL_FEATURES, CHANNELS[1]),
            shift_3: linear(LEVEL_FEATURES, CHANNELS[2]),
            convolution_1: convolution(channels, CHANNELS[0], 2),
            convolution_2: convolution(CHANNELS[0], CHANNELS[1], 1),
            convolution_3: convolution(CHANNELS[1], CHANNELS[2], 2),
            features: linear(CHANNELS[2] * quarter(height) * quarter(width), FEATURES),
            classes: linear(FEATURES, classes),
        };
        let mut index = 0;
        network.map_parameters(|values, shape| {
            // convolutions are [out, in, 3, 3], linear maps [in, out]
            let fan_in = if shape.len() == 4 { shape[1..].iter().product() } else { shape[0] };
            let bound = if shape.len() == 1 { 0.0 } else { 1.0 / (fan_in as f32).sqrt() };
            noise.uniform(index, 0, values);
            values.iter_mut().for_each(|value| *value = (*value * 2.0 - 1.0) * bound);
            index += 1;
        })
    }

    /// Writes new values into each parameter, in the order of [`PARAMETERS`].
    pub(crate) fn map_parameters(self, each: impl FnMut(&mut [f32], &[usize])) -> Self {
        struct Mapper<F>(F);
        impl<F: FnMut(&mut [f32], &[usize])> ModuleMapper for Mapper<F> {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|old| {
                    let (shape, trains) = (old.dims(), old.is_require_grad());
                    let mut values: Vec<f32> = old.to_data().iter::<f32>().collect();
                    (self.0)(&mut values, &shape);
                    Tensor::<D>::from_data(TensorData::new(values, shape), &old.device()).set_require_grad(trains)
                })
            }
        }
        self.map(&mut Mapper(each))
    }

    /// Maps images `[batch, channels, height, width]` to logits `[batch, classes]`; `levels`: one for each image.
    pub(crate) fn forward(&self, x_t: Tensor<4>, levels: &[NoiseLevel]) -> Tensor<2> {
        let level = silu(self.level.forward(level_features(levels, &x_t.device())));
        let shifted = |x: Tensor<4>, convolution: &Conv2d, shift: &Linear| {
            silu(convolution.forward(x) + shift.forward(level.clone()).unsqueeze_dims::<4>(&[2, 3]))
        };
        let x = shifted(x_t, &self.convolution_1, &self.shift_1);
        let x = shifted(x, &self.convolution_2, &self.shift_2);
        let x = shifted(x, &self.convolution_3, &self.shift_3);
        self.classes.forward(silu(self.features.forward(x.flatten(1, 3))))
    }
}

/// Sines and cosines of multiples of the angle whose cosine is the signal scale and whose sine is the noise scale: 0 for
/// clean data, a right angle for pure noise. `[batch, 2 FREQUENCIES]`
fn level_features(levels: &[NoiseLevel], device: &Device) -> Tensor<2> {
    let features = |level: &NoiseLevel| {
        let angle = level.noise_scale().atan2(level.signal_scale());
        let multiple = move |of: fn(f64) -> f64| (1..=FREQUENCIES).map(move |k| of(k as f64 * angle) as f32);
        multiple(f64::sin).chain(multiple(f64::cos))
    };
    let values: Vec<f32> = levels.iter().flat_map(features).collect();
    Tensor::from_data(TensorData::new(values, [levels.len(), 2 * FREQUENCIES]), device)
}
