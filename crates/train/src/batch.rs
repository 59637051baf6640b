//! Batches and samples of a training.

use std::sync::Mutex;

use burn::tensor::{Device, Int, Tensor, TensorData};
use data::ImageSet;
use noise::NoiseLevel;

/// The input of a loss.
pub(crate) struct Batch {
    /// Images, `[batch, channels, height, width]` in [-1, 1].
    pub(crate) x_0: Tensor<4>,
    /// Gaussian noise, shape of `x_0`.
    pub(crate) epsilon: Tensor<4>,
    /// The noise level of each sample.
    pub(crate) levels: Vec<NoiseLevel>,
    /// The class of each sample, `[batch]`; None for a network without classes.
    pub(crate) labels: Option<Tensor<1, Int>>,
    /// The dropout masks that were prepared, by layer, each taken once.
    pub(crate) masks: Mutex<Vec<Option<TensorData>>>,
}

/// What a batch is made of in main memory.
pub(crate) struct HostBatch {
    /// The position of its first sample.
    pub(crate) first: u64,
    /// Images, `[batch, channels, height, width]` in [-1, 1].
    pub(crate) x_0: TensorData,
    /// Gaussian noise, shape of `x_0`.
    pub(crate) epsilon: TensorData,
    /// Dropout masks, by layer; none of layers whose shape is not known yet.
    pub(crate) masks: Vec<Option<TensorData>>,
}

/// A sample of a training step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Its position in the run.
    pub(crate) position: u64,
    /// The first position of its micro-batch.
    pub(crate) micro_batch: u64,
    /// Index of its image in the data.
    pub(crate) image: usize,
    /// The position whose noise it has: its own, except for immiscible noise.
    pub(crate) noise_position: u64,
    pub(crate) level: NoiseLevel,
    /// The weight of its loss where some timesteps are drawn more often than others; 1 otherwise.
    pub(crate) importance: f64,
}

/// Images without augmentation, `[indices.len(), channels, height, width]`.
pub(crate) fn image_tensor(images: &ImageSet, indices: &[usize], device: &Device) -> Tensor<4> {
    let pixels = images.batch(indices.iter().map(|index| (*index, false)));
    let shape = [indices.len(), images.channels(), images.height(), images.width()];
    Tensor::from_data(TensorData::new(pixels, shape), device)
}

/// Labels as a tensor, `[batch]`, with the null class `classes` for none; None for a network without classes.
pub(crate) fn label_tensor(
    labels: impl Iterator<Item = Option<u32>>,
    classes: usize,
    device: &Device,
) -> Option<Tensor<1, Int>> {
    let labels: Vec<i64> = labels.map(|label| label.map_or(classes as i64, i64::from)).collect();
    let shape = [labels.len()];
    (classes > 0).then(|| Tensor::from_data(TensorData::new(labels, shape), device))
}
