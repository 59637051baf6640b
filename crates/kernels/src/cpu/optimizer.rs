//! Adam (Kingma and Ba 2014, arXiv:1412.6980) and AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101) as PyTorch
//! computes them, with gradient clipping and the EMA of the weights, in one pass.
//!
//! With g the gradient times the clip factor (plus `weight_decay p` for Adam), t the step from 1 on:
//!
//! ```text
//! p = p (1 - rate weight_decay)                     AdamW alone
//! m = m + (1 - β₁) (g - m)    v = β₂ v + (1 - β₂) g²
//! p = p - rate / (1 - β₁ᵗ) m / (√v / √(1 - β₂ᵗ) + eps)
//! ema = decay ema + (1 - decay) p
//! ```
//!
//! The constants are computed in f64 and rounded once. Each element is read and written once, 36 bytes with an
//! average.

use crate::adam::{AdamParameter, AdamStep, WeightDecay};
use crate::cpu::operation::{flex, unflex, values, values_mut};
use crate::cpu::parallel::{BLOCK, check_lengths, run};
use crate::cpu::simd::map;
use crate::profile;
use burn::tensor::Tensor;
use pulp::{Simd, WithSimd};
use std::iter::repeat_with;

/// One parameter with its state; slices of one length.
#[derive(Debug)]
pub struct Parameter<'a> {
    /// The weights.
    pub value: &'a mut [f32],
    /// Their gradient.
    pub gradient: &'a [f32],
    /// First moment.
    pub mean: &'a mut [f32],
    /// Second moment.
    pub square: &'a mut [f32],
    /// EMA of the weights; empty for none.
    pub average: &'a mut [f32],
}

/// The sum of the squares of all gradients, in f64; its root is their global norm.
pub fn squared_norm(gradients: &[&[f32]]) -> f64 {
    let length = gradients.iter().map(|gradient| gradient.len()).sum();
    let blocks: Vec<_> = gradients.iter().flat_map(|gradient| gradient.chunks(BLOCK)).collect();
    let mut partial = vec![0.0; blocks.len()];
    let tasks = partial.iter_mut().zip(blocks).map(|(sum, block)| move || *sum = sum_of_squares(block));
    run(tasks.collect(), length);
    partial.iter().sum()
}

/// In sixteen partial sums, which the compiler makes vectors of.
#[inline(always)]
fn sum_of_squares(values: &[f32]) -> f64 {
    let mut lanes = [0.0; 16];
    let (chunks, tail) = values.as_chunks::<16>();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(sum, &value)| *sum += f64::from(value) * f64::from(value));
    }
    lanes.iter_mut().zip(tail).for_each(|(sum, &value)| *sum += f64::from(value) * f64::from(value));
    lanes.iter().sum()
}

/// One step of all parameters.
pub fn update(step: AdamStep, parameters: Vec<Parameter<'_>>) {
    let length = parameters.iter().map(|parameter| parameter.value.len()).sum::<usize>();
    let constants = Constants::new(step);
    let mut tasks = Vec::new();
    for Parameter { value, gradient, mean, square, average } in parameters {
        check_lengths!(gradient: value.len(), mean: value.len(), square: value.len());
        if !average.is_empty() {
            check_lengths!(average: value.len());
        }
        let averages = average.chunks_mut(BLOCK).chain(repeat_with(Default::default));
        let state = value.chunks_mut(BLOCK).zip(mean.chunks_mut(BLOCK)).zip(square.chunks_mut(BLOCK));
        let blocks = state.zip(gradient.chunks(BLOCK)).zip(averages);
        tasks.extend(blocks.map(|((((value, mean), square), gradient), average)| Block {
            constants,
            parameter: Parameter { value, gradient, mean, square, average },
        }));
    }
    run(tasks, 3 * length);
}

/// [`update`] of one burn parameter, in place where a tensor is not shared.
pub(crate) fn adam(step: &AdamStep, parameter: AdamParameter) -> AdamParameter {
    let AdamParameter { value, gradient, mean, square, average } = parameter;
    let [mut value, mut mean, mut square] = [value, mean, square].map(flex);
    let (gradient, mut average) = (flex(gradient), average.map(flex));
    let parts = Parameter {
        value: values_mut(&mut value),
        gradient: values(&gradient),
        mean: values_mut(&mut mean),
        square: values_mut(&mut square),
        average: average.as_mut().map_or(&mut [], values_mut),
    };
    profile::time(|| "Adam".to_owned(), || update(*step, vec![parts]));
    let [value, gradient, mean, square] = [value, gradient, mean, square].map(unflex);
    AdamParameter { value, gradient, mean, square, average: average.map(unflex) }
}

/// The norm of all gradients, of burn tensors.
pub(crate) fn global_norm(gradients: &[&Tensor<1>]) -> f64 {
    let gradients: Vec<_> = gradients.iter().map(|gradient| flex((*gradient).clone())).collect();
    squared_norm(&gradients.iter().map(values).collect::<Vec<_>>()).sqrt()
}

/// The constants of a step, rounded.
#[derive(Clone, Copy)]
struct Constants {
    /// Factor of the old weight: 1 - rate weight_decay for AdamW.
    keep: f32,
    clip: f32,
    /// Weight decay in the gradient.
    decay: f32,
    /// 1 - β₁, β₂, 1 - β₂.
    mean: f32,
    square: [f32; 2],
    /// rate / (1 - β₁ᵗ), 1 / √(1 - β₂ᵗ), eps.
    rate: f32,
    correction: f32,
    epsilon: f32,
    average: [f32; 2],
}

impl Constants {
    fn new(step: AdamStep) -> Self {
        let [first, second] = step.betas;
        let power = |beta: f64| 1.0 - beta.powf(step.number as f64);
        let (keep, decay) = match step.weight_decay {
            WeightDecay::Coupled(decay) => (1.0, decay),
            WeightDecay::Decoupled(decay) => (1.0 - step.learning_rate * decay, 0.0),
        };
        Self {
            keep: keep as f32,
            clip: step.clip as f32,
            decay: decay as f32,
            mean: (1.0 - first) as f32,
            square: [second as f32, (1.0 - second) as f32],
            rate: (step.learning_rate / power(first)) as f32,
            correction: power(second).sqrt().recip() as f32,
            epsilon: step.epsilon as f32,
            average: [step.average_decay as f32, (1.0 - step.average_decay) as f32],
        }
    }

    /// The new weight, mean and square from the gradient and the old.
    #[inline(always)]
    fn step<S: Simd>(self, simd: S, gradient: S::f32s, [value, mean, square]: [S::f32s; 3]) -> [S::f32s; 3] {
        let splat = |constant| simd.splat_f32s(constant);
        let decay = simd.mul_f32s(splat(self.decay), value);
        let gradient = simd.mul_add_e_f32s(gradient, splat(self.clip), decay);
        let mean = simd.mul_add_e_f32s(splat(self.mean), simd.sub_f32s(gradient, mean), mean);
        let new = simd.mul_f32s(simd.mul_f32s(gradient, gradient), splat(self.square[1]));
        let square = simd.mul_add_e_f32s(square, splat(self.square[0]), new);
        let root = simd.mul_add_e_f32s(simd.sqrt_f32s(square), splat(self.correction), splat(self.epsilon));
        let change = simd.div_f32s(simd.mul_f32s(mean, splat(-self.rate)), root);
        [simd.mul_add_e_f32s(value, splat(self.keep), change), mean, square]
    }
}

struct Block<'a> {
    constants: Constants,
    parameter: Parameter<'a>,
}

impl WithSimd for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { constants, parameter: Parameter { value, gradient, mean, square, average } } = self;
        if average.is_empty() {
            map!(simd, [gradient], [value, mean, square], |[gradient], old| constants.step(simd, gradient, old));
            return;
        }
        let outputs = [value, mean, square, average];
        map!(simd, [gradient], outputs, |[gradient], [value, mean, square, average]| {
            let [value, mean, square] = constants.step(simd, gradient, [value, mean, square]);
            let [decay, rest] = constants.average.map(|constant| simd.splat_f32s(constant));
            [value, mean, square, simd.mul_add_e_f32s(average, decay, simd.mul_f32s(value, rest))]
        });
    }
}
