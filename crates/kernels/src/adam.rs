//! Adam and AdamW as PyTorch defines them, with gradient clipping and the EMA of the weights: natively in one pass over the
//! parameters, elsewhere composed of burn's operations.

use burn::tensor::{FloatDType, Tensor};

/// The kind and strength of weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WeightDecay {
    /// Adam: the weight times this is added to the gradient (L2).
    Coupled(f64),
    /// AdamW: the weight times this and the learning rate is subtracted from the weight.
    Decoupled(f64),
}

/// The settings of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// The number of this step, from 1, for the bias correction.
    pub number: u64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Decays of the first and second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Weight decay.
    pub weight_decay: WeightDecay,
    /// Factor of every gradient.
    pub clip: f64,
    /// Decay of the EMA of the weights.
    pub average_decay: f64,
}

/// A parameter with its gradient, moments and EMA: flat, of one length, without gradient tracking.
#[derive(Clone, Debug)]
pub struct AdamParameter {
    /// The weights.
    pub value: Tensor<1>,
    /// Their gradient.
    pub gradient: Tensor<1>,
    /// First moment.
    pub mean: Tensor<1>,
    /// Second moment.
    pub square: Tensor<1>,
    /// EMA of the weights; None if this step does not update it.
    pub average: Option<Tensor<1>>,
}

/// One step of Adam (Kingma and Ba 2014, arXiv:1412.6980, algorithm 1) or AdamW (Loshchilov and Hutter 2017,
/// arXiv:1711.05101). Native tensors that are not shared are changed in place.
pub fn adam(step: &AdamStep, parameter: AdamParameter) -> AdamParameter {
    #[cfg(feature = "flex")]
    if crate::cpu::operation::is_native(&parameter.value) {
        return crate::cpu::optimizer::adam(step, parameter);
    }
    composed(step, parameter)
}

/// [`adam`] as a composition of burn's operations.
pub fn composed(step: &AdamStep, parameter: AdamParameter) -> AdamParameter {
    let AdamParameter { value, gradient, mean, square, average } = parameter;
    let AdamStep { learning_rate, betas: [beta_1, beta_2], epsilon, clip, average_decay, .. } = *step;
    let [correction_1, correction_2] = step.betas.map(|beta| 1.0 - beta.powf(step.number as f64));
    let gradient = if clip == 1.0 { gradient } else { gradient * clip };
    let (value, gradient) = match step.weight_decay {
        WeightDecay::Coupled(0.0) | WeightDecay::Decoupled(0.0) => (value, gradient),
        WeightDecay::Coupled(decay) => (value.clone(), gradient + value * decay),
        WeightDecay::Decoupled(decay) => (value * (1.0 - learning_rate * decay), gradient),
    };
    let mean = mean * beta_1 + gradient.clone() * (1.0 - beta_1);
    let square = square * beta_2 + gradient.clone() * gradient.clone() * (1.0 - beta_2);
    let denominator = square.clone().sqrt() / correction_2.sqrt() + epsilon;
    let value = value - mean.clone() / denominator * (learning_rate / correction_1);
    let average = average.map(|average| match average_decay {
        0.0 => value.clone(),
        decay => average.clone() + (value.clone() - average) * (1.0 - decay),
    });
    AdamParameter { value, gradient, mean, square, average }
}

/// The gradients of a step where the device clips and steps by itself, so that the host waits for nothing.
#[cfg(feature = "cube")]
pub struct DeviceGradients(crate::cube::adam::Gradients);

/// A build without GPUs has none.
#[cfg(not(feature = "cube"))]
pub enum DeviceGradients {}

impl DeviceGradients {
    /// Takes the gradients of all parameters; gives them back where the device has no such operations.
    ///
    /// # Errors
    /// The gradients, unless all are on a GPU.
    pub fn new(gradients: Vec<Tensor<1>>) -> Result<Self, Vec<Tensor<1>>> {
        #[cfg(feature = "cube")]
        if !gradients.is_empty() && gradients.iter().all(crate::cube::operation::is_on_gpu) {
            return Ok(Self(crate::cube::adam::Gradients::pack(gradients)));
        }
        Err(gradients)
    }

    /// The decision of a step whose gradients are too large by a factor of `loss_scale`: `[norm, clip factor, is finite]`, in
    /// which the factor makes the norm at most `largest` (0: whatever it is) and undoes the scale, and the last is 1 if norm
    /// and `loss` (`[1]`) are finite, 0 if not.
    pub fn decide(&self, loss: Tensor<1>, loss_scale: f64, largest: f64) -> Tensor<1> {
        #[cfg(feature = "cube")]
        return self.0.decide(loss, 1.0 / loss_scale, largest);
        #[cfg(not(feature = "cube"))]
        {
            let _ = (loss, loss_scale, largest);
            match *self {}
        }
    }

    /// [`adam`] for all parameters, whose own gradients are ignored, with the factor of the decision in the place of
    /// `step.clip`; nothing changes if the step is not finite. With `lower`, the new weights in that format too, otherwise
    /// none.
    pub fn adam(
        self,
        step: &AdamStep,
        parameters: Vec<AdamParameter>,
        decision: Tensor<1>,
        lower: Option<FloatDType>,
    ) -> (Vec<AdamParameter>, Vec<Tensor<1>>) {
        #[cfg(feature = "cube")]
        return crate::cube::adam::step(step, parameters, self.0, decision, lower.map(Into::into));
        #[cfg(not(feature = "cube"))]
        {
            let _ = (step, parameters, decision, lower);
            match self {}
        }
    }
}

/// The Euclidean norm of all gradients together; 0 of none.
pub fn global_norm<'a>(gradients: impl IntoIterator<Item = &'a Tensor<1>>) -> f64 {
    let gradients: Vec<&Tensor<1>> = gradients.into_iter().collect();
    #[cfg(feature = "flex")]
    if gradients.iter().all(|gradient| crate::cpu::operation::is_native(gradient)) {
        return crate::cpu::optimizer::global_norm(&gradients);
    }
    let squares = gradients.into_iter().map(|gradient| (gradient.clone() * gradient.clone()).sum());
    squares.reduce(|sum, square| sum + square).map_or(0.0, |sum| f64::from(sum.into_scalar::<f32>()).sqrt())
}
