//! Errors of a prediction, one loss per sample, each with a weight.
//!
//! With d = prediction - target over the E elements of a sample:
//!
//! ```text
//! loss = weight / E Σ e(d)    prediction' = upstream weight / E e'(d)
//!
//! squared    e = d²                                    e' = 2 d
//! absolute   e = |d|                                   e' = sign d, 0 at 0
//! huber      e = d²/2, beyond δ: δ (|d| - δ/2)         e' = d held to -δ ..= δ      (Huber 1964)
//! ```
//!
//! The sums run in f32 within a block of 4096 elements, in f64 across blocks. NaN in an element gives NaN in both; an
//! infinite one an infinite loss, and the gradient that is the limit of e'.

use pulp::{Simd, WithSimd};

use crate::{
    Loss,
    cpu::{
        operation::{Operation, View},
        parallel::{check_lengths, run},
        simd::{clamp, map, sum},
    },
};

/// Elements that are summed in f32.
const BLOCK: usize = 4096;

/// The mean error of each sample times its weight; the batch is the length of `weights`.
pub fn forward(loss: Loss, prediction: &[f32], target: &[f32], weights: &[f32], losses: &mut [f32]) {
    let elements = check_all(prediction, target, weights);
    check_lengths!(losses: weights.len());
    let blocks = elements.div_ceil(BLOCK);
    let mut partial = vec![0.0; weights.len() * blocks];
    let samples = prediction.chunks_exact(elements).zip(target.chunks_exact(elements));
    let pairs = samples.flat_map(|(prediction, target)| prediction.chunks(BLOCK).zip(target.chunks(BLOCK)));
    let tasks = pairs.zip(&mut partial).map(|((prediction, target), sum)| Forward { loss, prediction, target, sum });
    run(tasks.collect(), prediction.len());
    for ((value, weight), sums) in losses.iter_mut().zip(weights).zip(partial.chunks_exact(blocks)) {
        let sum: f64 = sums.iter().map(|&sum| f64::from(sum)).sum();
        *value = (f64::from(*weight) * sum / elements as f64) as f32;
    }
}

/// The gradient of the prediction; `upstream` is that of each sample's loss.
pub fn backward(
    loss: Loss,
    prediction: &[f32],
    target: &[f32],
    weights: &[f32],
    upstream: &[f32],
    prediction_gradient: &mut [f32],
) {
    let elements = check_all(prediction, target, weights);
    check_lengths!(upstream: weights.len(), prediction_gradient: prediction.len());
    let samples = prediction.chunks_exact(elements).zip(target.chunks_exact(elements));
    let factors = weights.iter().zip(upstream).map(|(weight, upstream)| weight * upstream / elements as f32);
    let samples = samples.zip(prediction_gradient.chunks_exact_mut(elements)).zip(factors);
    let tasks = samples.flat_map(|(((prediction, target), gradient), factor)| {
        let blocks = prediction.chunks(BLOCK).zip(target.chunks(BLOCK)).zip(gradient.chunks_mut(BLOCK));
        blocks.map(move |((prediction, target), gradient)| Backward { loss, prediction, target, factor, gradient })
    });
    run(tasks.collect(), prediction.len());
}

/// The elements of one sample.
#[track_caller]
fn check_all(prediction: &[f32], target: &[f32], weights: &[f32]) -> usize {
    assert!(!weights.is_empty() && !prediction.is_empty(), "there must be a sample and an element");
    let elements = prediction.len() / weights.len();
    check_lengths!(prediction: elements * weights.len(), target: prediction.len());
    elements
}

struct Forward<'a> {
    loss: Loss,
    prediction: &'a [f32],
    target: &'a [f32],
    sum: &'a mut f32,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let inputs = [self.prediction, self.target];
        *self.sum = match self.loss {
            Loss::Squared => sum!(simd, inputs, |[prediction, target]| {
                let difference = simd.sub_f32s(prediction, target);
                simd.mul_f32s(difference, difference)
            }),
            Loss::Absolute => {
                sum!(simd, inputs, |[prediction, target]| simd.abs_f32s(simd.sub_f32s(prediction, target)))
            }
            Loss::Huber(limit) => sum!(simd, inputs, |[prediction, target]| {
                let difference = simd.sub_f32s(prediction, target);
                let held = clamp(simd, difference, limit);
                // held (d - held / 2) is d²/2 within, δ (|d| - δ/2) beyond
                let half = simd.splat_f32s(-0.5);
                simd.mul_f32s(held, simd.mul_add_e_f32s(held, half, difference))
            }),
        };
    }
}

struct Backward<'a> {
    loss: Loss,
    prediction: &'a [f32],
    target: &'a [f32],
    factor: f32,
    gradient: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { loss, prediction, target, factor, gradient } = self;
        let (inputs, outputs) = ([prediction, target], [gradient]);
        let [zero, one] = [0.0, 1.0].map(|value| simd.splat_f32s(value));
        match loss {
            Loss::Squared => map!(simd, inputs, outputs, |[prediction, target], _| {
                [simd.mul_f32s(simd.sub_f32s(prediction, target), simd.splat_f32s(2.0 * factor))]
            }),
            Loss::Absolute => map!(simd, inputs, outputs, |[prediction, target], _| {
                let difference = simd.sub_f32s(prediction, target);
                let sign = simd.select_f32s(simd.greater_than_f32s(difference, zero), one, difference);
                let sign = simd.select_f32s(simd.less_than_f32s(difference, zero), simd.neg_f32s(one), sign);
                [simd.mul_f32s(sign, simd.splat_f32s(factor))]
            }),
            Loss::Huber(limit) => map!(simd, inputs, outputs, |[prediction, target], _| {
                [simd.mul_f32s(clamp(simd, simd.sub_f32s(prediction, target), limit), simd.splat_f32s(factor))]
            }),
        }
    }
}

/// The burn operation: prediction and target `[batch, …]`, weights `[batch]`, to the losses `[batch]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WeightedLoss(pub Loss);

impl Operation for WeightedLoss {
    fn output_shape(&self, inputs: &[&[usize]]) -> Vec<usize> {
        inputs[2].to_vec()
    }

    fn forward(&self, inputs: &[View], output: &mut [f32]) -> Vec<f32> {
        forward(self.0, inputs[0].values, inputs[1].values, inputs[2].values, output);
        Vec::new()
    }

    fn backward(&self, inputs: &[View], _: &[f32], output_gradient: &[f32], gradients: &mut [Option<&mut [f32]>]) {
        let [prediction, target, weights] = [0, 1, 2].map(|input| inputs[input].values);
        if let Some(gradient) = &mut gradients[0] {
            backward(self.0, prediction, target, weights, output_gradient, gradient);
        }
        // the errors are even functions of the difference
        if let Some(gradient) = &mut gradients[1] {
            backward(self.0, target, prediction, weights, output_gradient, gradient);
        }
        if let Some(gradient) = &mut gradients[2] {
            forward(self.0, prediction, target, output_gradient, gradient);
        }
    }
}
