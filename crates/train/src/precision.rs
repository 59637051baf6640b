//! Mixed precision: forward and backward pass in bfloat16 or half precision, everything else in f32.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{DType, Device, FloatDType, Tensor},
};
use unet::{Condition, Network};

use crate::{config::MixedPrecision, error::TrainError, loss_scale::LossScale, parameters::Gradients};

/// The number format of the forward and backward pass; weights, loss and optimizer stay in f32.
#[derive(Clone, Copy)]
pub(crate) struct Precision {
    /// None for f32.
    dtype: Option<FloatDType>,
    loss_scale: f64,
}

impl Precision {
    pub(crate) fn new(mixed: MixedPrecision, scale: Option<LossScale>) -> Self {
        let dtype = match mixed {
            MixedPrecision::No => None,
            MixedPrecision::Bf16 => Some(FloatDType::BF16),
            MixedPrecision::F16 => Some(FloatDType::F16),
        };
        Self { dtype, loss_scale: scale.map_or(1.0, |scale| scale.factor) }
    }

    /// The format; None for f32.
    pub(crate) fn dtype(self) -> Option<FloatDType> {
        self.dtype
    }

    /// # Errors
    /// [`TrainError::Precision`] if the device does not compute in the format.
    pub(crate) fn check(mixed: MixedPrecision, device: &Device) -> Result<(), TrainError> {
        let (precision, dtype) = match mixed {
            MixedPrecision::No => return Ok(()),
            MixedPrecision::Bf16 => ("bf16", DType::BF16),
            MixedPrecision::F16 => ("f16", DType::F16),
        };
        if device.supports_dtype(dtype) {
            return Ok(());
        }
        Err(TrainError::Precision { precision, reason: format!("it does not compute in {dtype:?}") })
    }

    /// The factor of the loss and of its gradients.
    pub(crate) fn loss_scale(self) -> f64 {
        self.loss_scale
    }

    /// The loss to take the gradients of, large enough for them to be represented.
    pub(crate) fn scaled(self, loss: Tensor<1>) -> Tensor<1> {
        if self.loss_scale == 1.0 { loss } else { loss * self.loss_scale }
    }

    /// The gradients of a loss, from those of the [scaled](Self::scaled) one.
    pub(crate) fn unscaled(self, gradients: Gradients) -> Gradients {
        if self.loss_scale == 1.0 {
            return gradients;
        }
        gradients.into_iter().map(|gradient| gradient.map(|gradient| gradient / self.loss_scale)).collect()
    }

    /// The tensor in the lower format.
    pub(crate) fn lower<const D: usize>(self, tensor: Tensor<D>) -> Tensor<D> {
        match self.dtype {
            Some(dtype) => tensor.cast(dtype),
            None => tensor,
        }
    }

    /// The network in the lower format, whose parameters stay part of the graph of the f32 ones, unless they have the format
    /// already; the output is f32 again.
    pub(crate) fn forward(self, unet: &Network, input: Tensor<4>, t: Tensor<1>, condition: Condition) -> Tensor<4> {
        struct Lower(Precision);
        impl ModuleMapper for Lower {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|tensor| self.0.lower(tensor))
            }
        }
        match self.dtype {
            None => unet.forward(input, t, condition),
            Some(dtype) if unet.dtype() == dtype.into() => {
                unet.forward(self.lower(input), t, condition).cast(FloatDType::F32)
            }
            Some(_) => {
                let lowered = unet.clone().map(&mut Lower(self));
                lowered.forward(self.lower(input), t, condition).cast(FloatDType::F32)
            }
        }
    }
}
