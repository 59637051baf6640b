//! The embeddings of t and of class labels.

use burn::{
    module::{Module, Param},
    nn::Initializer,
    tensor::{DType, Device, FloatDType, Int, Tensor, TensorData},
};

use crate::{
    layers::Linear,
    unet2d::config::{ClassEmbedding, TimeEmbeddingKind, Unet2dConfig},
};

/// The longest period of the sines and cosines.
const LONGEST_PERIOD: f64 = 10_000.0;
/// The deviation of random frequencies.
pub(crate) const FOURIER_DEVIATION: f64 = 16.0;

/// A linear layer, SiLU, and another.
#[derive(Module, Debug)]
pub struct Perceptron {
    linear_1: Linear,
    linear_2: Linear,
}

impl Perceptron {
    pub fn new(features: usize, time_dim: usize, device: &Device) -> Self {
        Self { linear_1: Linear::new(features, time_dim, device), linear_2: Linear::new(time_dim, time_dim, device) }
    }

    /// `[batch, features]` to `[batch, time_dim]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.linear_2.forward(kernels::silu(self.linear_1.forward(x)))
    }

    /// The number format of its weights.
    pub fn dtype(&self) -> DType {
        self.linear_1.weight.val().dtype()
    }
}

/// Vectors that are chosen by number.
#[derive(Module, Debug)]
pub struct Table {
    /// `[rows, features]`
    weight: Param<Tensor<2>>,
}

/// Frequencies of Fourier features.
#[derive(Module, Debug)]
pub struct Frequencies {
    /// `[frequencies]`
    weight: Param<Tensor<1>>,
}

/// Parameters of the features of t.
#[derive(Module, Debug)]
pub enum Projection {
    /// Not trained.
    Fourier(Frequencies),
    /// A row for each timestep.
    Learned(Table),
}

impl Projection {
    pub fn new(config: &Unet2dConfig, device: &Device) -> Option<Self> {
        let normal = |std| Initializer::Normal { mean: 0.0, std };
        match config.time_embedding_type {
            TimeEmbeddingKind::Positional => None,
            TimeEmbeddingKind::Fourier => {
                let weight = normal(FOURIER_DEVIATION).init([config.first()], device).set_require_grad(false);
                Some(Self::Fourier(Frequencies { weight }))
            }
            TimeEmbeddingKind::Learned => {
                let rows = config.num_train_timesteps.unwrap_or(0);
                Some(Self::Learned(Table { weight: normal(1.0).init([rows, config.first()], device) }))
            }
        }
    }
}

/// The features of t, or of labels that enter as t does. Angles are always computed in f32: half precision cannot tell t = 998
/// from 999.
///
/// # Shapes
/// - `t`: `[batch]` in f32; result: `[batch, features]`
pub fn features(config: &Unet2dConfig, projection: Option<&Projection>, t: Tensor<1>) -> Tensor<2> {
    let [batch] = t.dims();
    match projection {
        None => positional(config, t.reshape([batch, 1])),
        Some(Projection::Fourier(Frequencies { weight })) => {
            let frequencies = weight.val().cast(FloatDType::F32).unsqueeze::<2>();
            let angles = t.log().reshape([batch, 1]).matmul(frequencies) * core::f64::consts::TAU;
            Tensor::cat(vec![angles.clone().sin(), angles.cos()], 1)
        }
        Some(Projection::Learned(Table { weight })) => {
            let rows = weight.val();
            let last = rows.dims()[0] - 1;
            // samplers may visit levels between timesteps
            rows.select(0, t.round().clamp(0.0, last as f64).int())
        }
    }
}

/// Sines and cosines of `t / 10000^(i / (features / 2 - freq_shift))`.
fn positional(config: &Unet2dConfig, t: Tensor<2>) -> Tensor<2> {
    let (features, device) = (config.first(), t.device());
    let half = features / 2;
    let exponent = |i: usize| -LONGEST_PERIOD.ln() * i as f64 / (half as f64 - config.freq_shift);
    let frequencies: Vec<f32> = (0..half).map(|i| exponent(i).exp() as f32).collect();
    let angles = t.matmul(Tensor::<2>::from_data(TensorData::new(frequencies, [1, half]), &device));
    let (sines, cosines) = (angles.clone().sin(), angles.cos());
    let mut parts = if config.flip_sin_to_cos { vec![cosines, sines] } else { vec![sines, cosines] };
    if features % 2 == 1 {
        parts.push(Tensor::zeros([parts[0].dims()[0], 1], &device));
    }
    Tensor::cat(parts, 1)
}

/// The embedding of labels.
#[allow(clippy::large_enum_variant, reason = "a network has few of them")]
#[derive(Module, Debug)]
pub enum LabelEmbedding {
    /// A row for each class.
    Rows(Table),
    /// Of the features that t has.
    AsTime(Perceptron),
}

impl LabelEmbedding {
    pub fn new(config: &Unet2dConfig, device: &Device) -> Option<Self> {
        let (classes, time_dim) = (config.classes, config.time_dim());
        match config.class_embed_type {
            _ if classes == 0 => None,
            ClassEmbedding::Table => {
                let weight = Initializer::Normal { mean: 0.0, std: 1.0 }.init([classes, time_dim], device);
                Some(Self::Rows(Table { weight }))
            }
            ClassEmbedding::Timestep => Some(Self::AsTime(Perceptron::new(config.time_features(), time_dim, device))),
            ClassEmbedding::Identity => None,
        }
    }

    /// `labels`: `[batch]`, 0 to `classes`, the null class, whose embedding is 0; result `[batch, time_dim]`.
    pub fn forward(&self, config: &Unet2dConfig, projection: Option<&Projection>, labels: Tensor<1, Int>) -> Tensor<2> {
        match self {
            Self::Rows(Table { weight }) => {
                let rows = weight.val();
                let null = Tensor::zeros([1, rows.dims()[1]], (&rows.device(), rows.dtype()));
                Tensor::cat(vec![rows, null], 0).select(0, labels)
            }
            Self::AsTime(perceptron) => {
                let [batch] = labels.dims();
                let is_class = labels.clone().lower_elem(config.classes as i64).float().cast(FloatDType::F32);
                let features = features(config, projection, labels.float().cast(FloatDType::F32));
                let embedding = perceptron.forward(features.cast(perceptron.dtype()));
                embedding * is_class.cast(perceptron.dtype()).reshape([batch, 1])
            }
        }
    }
}
