//! The embeddings of t (sines and cosines of many frequencies, then a small perceptron) and of class labels.

use burn::{
    module::{Module, Param},
    nn::Initializer,
    tensor::{Device, FloatDType, Tensor, TensorData},
};

use crate::{config::UnetConfig, layers::Linear};

/// Embedding of the timestep: `[batch]` to `[batch, 4 dim]`.
#[derive(Module, Debug)]
pub struct TimeEmbedding {
    /// Frequencies `[features / 2]` of learned or random Fourier features; none for the sinusoidal embedding.
    fourier: Option<Param<Tensor<1>>>,
    linear_1: Linear,
    linear_2: Linear,
    #[module(skip)]
    dim: usize,
    #[module(skip)]
    theta: f64,
}

impl TimeEmbedding {
    pub fn new(config: &UnetConfig, device: &Device) -> Self {
        let time_dim = 4 * config.dim;
        let fourier = config.has_fourier_features().then(|| {
            let frequencies =
                Initializer::Normal { mean: 0.0, std: 1.0 }.init([config.learned_sinusoidal_dim / 2], device);
            // random features are not trained
            frequencies.set_require_grad(!config.random_fourier_features)
        });
        let features = if fourier.is_some() { config.learned_sinusoidal_dim + 1 } else { config.dim };
        Self {
            fourier,
            linear_1: Linear::new(features, time_dim, device),
            linear_2: Linear::new(time_dim, time_dim, device),
            dim: config.dim,
            theta: config.sinusoidal_pos_emb_theta,
        }
    }

    /// `t`: `[batch]` in f32, 0 to T - 1, not necessarily whole; result `[batch, 4 dim]` in the number format of the
    /// weights. The angles are always computed in f32: half precision cannot tell t = 998 from 999.
    pub fn forward(&self, t: Tensor<1>) -> Tensor<2> {
        let [batch] = t.dims();
        let t = t.reshape([batch, 1]);
        let features = match &self.fourier {
            Some(frequencies) => {
                let angles =
                    t.clone().matmul(frequencies.val().cast(FloatDType::F32).unsqueeze::<2>()) * core::f64::consts::TAU;
                Tensor::cat(vec![t, angles.clone().sin(), angles.cos()], 1)
            }
            None => sinusoidal(t, self.dim, self.theta),
        };
        let features = features.cast(self.linear_1.weight.val().dtype());
        self.linear_2.forward(kernels::gelu(self.linear_1.forward(features)))
    }
}

/// The positional embedding of Vaswani et al. 2017 (arXiv:1706.03762): all sines, then all cosines, of `t / theta^(i /
/// (dim / 2 - 1))`.
///
/// # Shapes
/// - `t`: `[batch, 1]`; result: `[batch, dim]`
fn sinusoidal(t: Tensor<2>, dim: usize, theta: f64) -> Tensor<2> {
    let half = dim / 2;
    let frequencies: Vec<f32> = (0..half).map(|i| (-theta.ln() * i as f64 / (half - 1) as f64).exp() as f32).collect();
    let frequencies = Tensor::<2>::from_data(TensorData::new(frequencies, [1, half]), &t.device());
    let angles = t.matmul(frequencies);
    Tensor::cat(vec![angles.clone().sin(), angles.cos()], 1)
}

/// Embedding of class labels; the last row is the null class.
#[derive(Module, Debug)]
pub struct LabelEmbedding {
    /// `[classes + 1, 4 dim]`
    weight: Param<Tensor<2>>,
}

impl LabelEmbedding {
    pub fn new(classes: usize, time_dim: usize, device: &Device) -> Self {
        Self { weight: Initializer::Normal { mean: 0.0, std: 1.0 }.init([classes + 1, time_dim], device) }
    }

    /// `labels`: `[batch]`, 0 to `classes` (the null class); result `[batch, 4 dim]`.
    pub fn forward(&self, labels: Tensor<1, burn::tensor::Int>) -> Tensor<2> {
        self.weight.val().select(0, labels)
    }

    /// The null class for each of `batch` samples.
    pub fn null(&self, batch: usize) -> Tensor<2> {
        let weight = self.weight.val();
        let [rows, time_dim] = weight.dims();
        weight.narrow(0, rows - 1, 1).expand([batch, time_dim])
    }
}
