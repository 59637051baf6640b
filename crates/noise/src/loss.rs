//! Losses, one value for each sample, so that each can be weighted by its noise level.

use burn::tensor::{Tensor, TensorData, assert_shape};
use kernels::{Loss, loss};
use serde::{Deserialize, Serialize};

/// The loss of one element of a prediction (lucidrains' `loss_type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossType {
    /// `|difference|`.
    L1,
    /// `difference^2`, the loss of Ho et al. 2020.
    #[default]
    L2,
    /// Huber's with threshold 1 (PyTorch's `smooth_l1`): quadratic within 1, linear beyond.
    Huber,
}

impl core::fmt::Display for LossType {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // serde writes the name of a unit variant
        self.serialize(formatter)
    }
}

impl LossType {
    /// Returns the mean over channels and pixels, one for each sample.
    ///
    /// # Shapes
    /// - `prediction`, `target`: `[batch, channels, height, width]`
    /// - result: `[batch]`
    pub fn per_sample(self, prediction: Tensor<4>, target: Tensor<4>) -> Tensor<1> {
        let ones = vec![1.0; prediction.dims()[0]];
        self.weighted_per_sample(prediction, target, &ones)
    }

    /// Returns the weighted mean over the batch: `sum_i weight_i loss_i / batch` (lucidrains' `p_losses`).
    ///
    /// # Shapes
    /// - `prediction`, `target`: `[batch, channels, height, width]`; `weights`: one for each sample
    /// - result: `[1]`
    ///
    /// # Panics
    /// If there is not one weight for each sample.
    pub fn weighted(self, prediction: Tensor<4>, target: Tensor<4>, weights: &[f64]) -> Tensor<1> {
        self.weighted_per_sample(prediction, target, weights).mean()
    }

    /// Returns the mean over channels and pixels times the weight of the sample, one for each sample.
    ///
    /// # Shapes
    /// - `prediction`, `target`: `[batch, channels, height, width]`; `weights`: one for each sample
    /// - result: `[batch]`
    ///
    /// # Panics
    /// If there is not one weight for each sample.
    pub fn weighted_per_sample(self, prediction: Tensor<4>, target: Tensor<4>, weights: &[f64]) -> Tensor<1> {
        let [batch, channels, height, width] = prediction.dims();
        assert_shape!(target, [batch, channels, height, width]);
        assert_eq!(weights.len(), batch, "one weight for each sample");
        let options = (&prediction.device(), prediction.dtype());
        let weights = Tensor::from_data(TensorData::new(weights.to_vec(), [batch]), options);
        let kind = match self {
            Self::L1 => Loss::Absolute,
            Self::L2 => Loss::Squared,
            Self::Huber => Loss::Huber(1.0),
        };
        loss(kind, prediction, target, weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn one(loss: LossType, difference: f32) -> f32 {
        let device = Device::flex();
        let target = Tensor::<4>::zeros([1, 1, 1, 2], &device);
        loss.per_sample(target.clone() + difference, target).into_scalar()
    }

    #[test]
    fn losses_have_their_closed_forms() {
        assert_eq!(one(LossType::L1, -2.0), 2.0);
        assert_eq!(one(LossType::L2, -2.0), 4.0);
        assert_eq!(one(LossType::Huber, 0.5), 0.125);
        assert_eq!(one(LossType::Huber, -3.0), 2.5);
        assert_eq!(one(LossType::Huber, 1.0), 0.5);
    }

    #[test]
    fn weights_scale_their_own_sample() {
        let device = Device::flex();
        let prediction = Tensor::<4>::from_data([[[[1.0f32]]], [[[3.0]]]], &device);
        let target = Tensor::<4>::zeros([2, 1, 1, 1], &device);
        let loss: f32 = LossType::L2.weighted(prediction, target, &[2.0, 1.0]).into_scalar();
        assert_eq!(loss, (2.0 + 9.0) / 2.0);
    }
}
