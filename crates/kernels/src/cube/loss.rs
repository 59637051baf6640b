//! Errors of a prediction, one loss per sample, each with a weight.
//!
//! With d = prediction - target over the E elements of a sample:
//!
//! ```text
//! mean = Σ e(d) / E    loss = weight mean    prediction' = -target' = upstream weight / E e'(d)    weight' = upstream mean
//!
//! squared    e = d²                                    e' = 2 d
//! absolute   e = |d|                                   e' = sign d, 0 at 0
//! huber      e = d²/2, beyond δ: δ (|d| - δ/2)         e' = d held to -δ ..= δ      (Huber 1964)
//! ```
//!
//! NaN in an element gives NaN in both; an infinite one an infinite loss, and the gradient that is the limit of e'.
//!
//! Launches: one forward, and where a sample is split into runs of [`RUN`] elements, one that adds their sums; one backward,
//! for all gradients. The means are saved for the gradient of the weights.

use burn::{backend::TensorMetadata, tensor::DType};
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::{ir::ElemType, prelude::*};

use crate::{
    Loss,
    cube::{
        fold::{Fold, Team, fold_units},
        launch::{all_contiguous, argument, contiguous, cubes, element, empty, empty_like},
    },
    graph::Differentiable,
};

/// Units of a cube.
const UNITS: usize = 256;
/// All of them.
const ALL: Team = Team { stride: 1, count: UNITS };
/// Elements of a sample that a cube sums.
const RUN: usize = 16 * UNITS;

/// A [`Loss`] without its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Squared,
    Absolute,
    Huber,
}

/// The difference held to -limit ..= limit; NaN stays NaN.
#[cube]
fn held(difference: f32, limit: f32) -> f32 {
    select(difference > limit, limit, select(difference < -limit, -limit, difference))
}

/// The error of an element.
#[cube]
fn error(difference: f32, limit: f32, #[comptime] kind: Kind) -> f32 {
    if comptime!(kind == Kind::Squared) {
        difference * difference
    } else if comptime!(kind == Kind::Absolute) {
        difference.abs()
    } else {
        // d²/2 within, δ (|d| - δ/2) beyond
        let held = held(difference, limit);
        held * (difference - 0.5f32 * held)
    }
}

/// The derivative of [`error`].
#[cube]
fn error_derivative(difference: f32, limit: f32, #[comptime] kind: Kind) -> f32 {
    if comptime!(kind == Kind::Squared) {
        2.0f32 * difference
    } else if comptime!(kind == Kind::Absolute) {
        select(difference > 0.0f32, 1.0f32, select(difference < 0.0f32, -1.0f32, difference))
    } else {
        held(difference, limit)
    }
}

/// The sum of the errors of each run of a sample; where it `is_whole`, the mean and the loss.
#[cube(launch_unchecked)]
fn loss_of_runs<E: Float>(
    prediction: &[E],
    target: &[E],
    weights: &[E],
    sums: &mut [f32],
    losses: &mut [E],
    elements: usize,
    runs_of_sample: usize,
    runs: usize,
    limit: f32,
    #[comptime] kind: Kind,
    #[comptime] is_whole: bool,
    #[define(E)] _dtype: ElemType,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let run = CUBE_POS;
    if run >= runs {
        terminate!();
    }
    let sample = run / runs_of_sample;
    let first = (run % runs_of_sample) * RUN;
    let last = clamp_max(first + RUN, elements);
    let start = sample * elements;
    let mut sum = 0.0f32;
    let mut index = first + UNIT_POS as usize;
    while index < last {
        let difference = f32::cast_from(prediction[start + index]) - f32::cast_from(target[start + index]);
        sum += error(difference, limit, kind);
        index += UNITS;
    }
    let sum = fold_units(sum, &mut shared, ALL, Fold::Sum);
    if UNIT_POS == 0 {
        if comptime!(is_whole) {
            let mean = sum / f32::cast_from(elements as u32);
            sums[run] = mean;
            losses[run] = E::cast_from(mean * f32::cast_from(weights[run]));
        } else {
            sums[run] = sum;
        }
    }
}

/// Adds the sums of the runs of each sample.
#[cube(launch_unchecked)]
fn loss_of_samples<E: Float>(
    sums: &[f32],
    weights: &[E],
    means: &mut [f32],
    losses: &mut [E],
    elements: usize,
    runs_of_sample: usize,
    batch: usize,
    #[define(E)] _dtype: ElemType,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let sample = CUBE_POS;
    if sample >= batch {
        terminate!();
    }
    let mut sum = 0.0f32;
    let mut run = UNIT_POS as usize;
    while run < runs_of_sample {
        sum += sums[sample * runs_of_sample + run];
        run += UNITS;
    }
    let sum = fold_units(sum, &mut shared, ALL, Fold::Sum);
    if UNIT_POS == 0 {
        let mean = sum / f32::cast_from(elements as u32);
        means[sample] = mean;
        losses[sample] = E::cast_from(mean * f32::cast_from(weights[sample]));
    }
}

#[cube(launch_unchecked)]
fn loss_backward<E: Float>(
    prediction: &[E],
    target: &[E],
    weights: &[E],
    means: &[f32],
    upstream: &[E],
    prediction_gradient: &mut [E],
    target_gradient: &mut [E],
    weights_gradient: &mut [E],
    elements: usize,
    batch: usize,
    limit: f32,
    #[comptime] kind: Kind,
    #[comptime] of_target: bool,
    #[comptime] of_weights: bool,
    #[define(E)] _dtype: ElemType,
) {
    let index = CUBE_POS * UNITS + UNIT_POS as usize;
    if index < elements * batch {
        let sample = index / elements;
        let factor = f32::cast_from(weights[sample]) * f32::cast_from(upstream[sample]);
        let difference = f32::cast_from(prediction[index]) - f32::cast_from(target[index]);
        let gradient = factor / f32::cast_from(elements as u32) * error_derivative(difference, limit, kind);
        prediction_gradient[index] = E::cast_from(gradient);
        if comptime!(of_target) {
            target_gradient[index] = E::cast_from(-gradient);
        }
    }
    if comptime!(of_weights) && index < batch {
        weights_gradient[index] = E::cast_from(f32::cast_from(upstream[index]) * means[index]);
    }
}

/// The burn operation: prediction and target `[batch, …]`, weights `[batch]`, to the losses `[batch]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WeightedLoss(pub Loss);

impl WeightedLoss {
    /// The kind, and the limit of Huber.
    fn kind(&self) -> (Kind, f32) {
        match self.0 {
            Loss::Squared => (Kind::Squared, 0.0),
            Loss::Absolute => (Kind::Absolute, 0.0),
            Loss::Huber(limit) => (Kind::Huber, limit),
        }
    }
}

/// Samples, and elements of one.
fn sizes(prediction: &CubeTensor, weights: &CubeTensor) -> [usize; 2] {
    let batch = weights.shape().num_elements();
    [batch, prediction.shape().num_elements() / batch.max(1)]
}

impl Differentiable<CubeBackend> for WeightedLoss {
    /// Saves the means.
    fn forward(&self, inputs: Vec<CubeTensor>) -> (CubeTensor, Vec<CubeTensor>) {
        let inputs = all_contiguous(inputs);
        let [prediction, target, weights] = [0, 1, 2].map(|index: usize| &inputs[index]);
        let ([batch, elements], (kind, limit)) = (sizes(prediction, weights), self.kind());
        let runs_of_sample = elements.div_ceil(RUN).max(1);
        let runs = batch * runs_of_sample;
        let is_whole = runs_of_sample == 1;
        let (losses, means) = (empty_like(weights), empty(prediction, [batch], DType::F32));
        let split = (!is_whole).then(|| [empty(prediction, [runs], DType::F32), empty(prediction, [1], weights.dtype)]);
        let [sums, no_losses] = split.as_ref().map_or([&means, &losses], |split| split.each_ref());
        unsafe {
            loss_of_runs::launch_unchecked(
                &prediction.client,
                cubes(runs),
                CubeDim::new_1d(UNITS as u32),
                argument(prediction),
                argument(target),
                argument(weights),
                argument(sums),
                argument(no_losses),
                elements,
                runs_of_sample,
                runs,
                limit,
                kind,
                is_whole,
                element(prediction.dtype),
            );
            if !is_whole {
                loss_of_samples::launch_unchecked(
                    &prediction.client,
                    cubes(batch),
                    CubeDim::new_1d(UNITS as u32),
                    argument(sums),
                    argument(weights),
                    argument(&means),
                    argument(&losses),
                    elements,
                    runs_of_sample,
                    batch,
                    element(prediction.dtype),
                );
            }
        }
        (losses, vec![means])
    }

    fn backward(
        &self,
        inputs: Vec<CubeTensor>,
        saved: Vec<CubeTensor>,
        upstream: CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let (inputs, upstream) = (all_contiguous(inputs), contiguous(upstream));
        let [prediction, target, weights] = [0, 1, 2].map(|index: usize| &inputs[index]);
        let ([batch, elements], (kind, limit)) = (sizes(prediction, weights), self.kind());
        let gradient = |index: usize| {
            if wanted[index] { empty_like(&inputs[index]) } else { empty(prediction, [1], prediction.dtype) }
        };
        let (prediction_gradient, target_gradient, weights_gradient) =
            (empty_like(prediction), gradient(1), gradient(2));
        unsafe {
            loss_backward::launch_unchecked(
                &prediction.client,
                cubes((batch * elements).div_ceil(UNITS)),
                CubeDim::new_1d(UNITS as u32),
                argument(prediction),
                argument(target),
                argument(weights),
                argument(&saved[0]),
                argument(&upstream),
                argument(&prediction_gradient),
                argument(&target_gradient),
                argument(&weights_gradient),
                elements,
                batch,
                limit,
                kind,
                wanted[1],
                wanted[2],
                element(prediction.dtype),
            );
        }
        let gradients = [prediction_gradient, target_gradient, weights_gradient];
        gradients.into_iter().zip(wanted).map(|(gradient, wanted)| wanted.then_some(gradient)).collect()
    }
}
