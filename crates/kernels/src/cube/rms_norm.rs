//! RMS norm over the channels of a pixel (Zhang and Sennrich 2019, arXiv:1910.07467, as lucidrains writes it), with an
//! optional scale, shift and SiLU fused behind it.
//!
//! With n = max(|x|₂, 1e-12) over the C channels of one pixel, slope k = gain (1 + scale) and offset o = shift:
//!
//! ```text
//! x̂ = x √C / n    z = x̂ k + o    y = f(z)
//! ```
//!
//! Backward; everything is recomputed from x:
//!
//! ```text
//! ż = ẏ f'(z)    w = ż k    ẋ = √C / n (w - x̂ Σ_c w x̂ / C)        A = Σ ż, B = Σ ż x̂ over positions
//! ```
//!
//! The gradients are A of the shift, B gain of the scale, and Σ B (1 + scale) over the batch of the gain. Where the clamp
//! holds, n is a constant and the term in x̂ falls away.
//!
//! Launches: one forward; two backward, of which the first writes ẋ with A and B of some pixels, and the second adds those.
//! A row of `lanes` units shares a pixel: each has every `lanes`th channel, four or fewer where there are up to 1024.

use burn::{backend::TensorMetadata, tensor::DType};
use burn_cubecl::{CubeBackend, tensor::CubeTensor};
use cubecl::{ir::ElemType, prelude::*};

use crate::{
    cube::{
        activation::{silu, silu_derivative},
        fold::{Fold, Team, fold_units},
        launch::{all_contiguous, argument, contiguous, cubes, element, empty, empty_like},
    },
    graph::Differentiable,
};

/// Units of a cube: rows of lanes.
const UNITS: usize = 256;
/// Channels of a cube that adds sums.
const COLUMNS: usize = 16;
/// The most runs of pixels that are summed apart, of all samples together.
const MOST_RUNS: usize = 1024;

/// Units that share a pixel: a power of two.
fn lanes(channels: usize) -> usize {
    channels.div_ceil(4).next_power_of_two().clamp(16, UNITS)
}

/// The sum of `value` over the lanes of a row, for each of them.
#[cube]
fn sum_of_row(value: f32, shared: &mut [f32], #[comptime] lanes: usize) -> f32 {
    fold_units(value, shared, comptime!(Team { stride: 1, count: lanes }), Fold::Sum)
}

/// Slope and offset of a channel.
#[cube]
fn affine<E: Float>(
    gain: &[E],
    scale_shift: &[E],
    sample: usize,
    channel: usize,
    channels: usize,
    #[comptime] with_scale: bool,
) -> (f32, f32) {
    let gain = f32::cast_from(gain[channel]);
    let mut slope = gain;
    let mut offset = 0.0f32;
    if comptime!(with_scale) {
        let start = sample * 2 * channels + channel;
        slope = gain * (1.0 + f32::cast_from(scale_shift[start]));
        offset = f32::cast_from(scale_shift[start + channels]);
    }
    (slope, offset)
}

/// √C / n of a pixel; a row of lanes beyond the pixels takes part in the sum.
#[cube]
fn inverse_norm<E: Float>(
    x: &[E],
    start: usize,
    channels: usize,
    inside: bool,
    shared: &mut [f32],
    #[comptime] lanes: usize,
) -> (f32, f32) {
    let mut squares = 0.0f32;
    if inside {
        let mut channel = UNIT_POS as usize % lanes;
        while channel < channels {
            let value = f32::cast_from(x[start + channel]);
            squares += value * value;
            channel += lanes;
        }
    }
    let squares = sum_of_row(squares, shared, lanes);
    let root = f32::cast_from(channels as u32).sqrt();
    // of a norm that is not finite everything becomes NaN
    let norm = squares.sqrt();
    let clamped = norm < 1e-12f32;
    (root / select(clamped, 1e-12f32, norm), select(clamped, 0.0f32, 1.0f32))
}

#[cube(launch_unchecked)]
fn rms_norm_forward<E: Float>(
    x: &[E],
    gain: &[E],
    scale_shift: &[E],
    residual: &[E],
    y: &mut [E],
    pixels: usize,
    pixels_of_sample: usize,
    channels: usize,
    #[comptime] lanes: usize,
    #[comptime] with_scale: bool,
    #[comptime] with_silu: bool,
    #[comptime] with_residual: bool,
    #[define(E)] _dtype: ElemType,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let pixel = CUBE_POS * comptime!(UNITS / lanes) + UNIT_POS as usize / lanes;
    let inside = pixel < pixels;
    let start = pixel * channels;
    let (inverse, _) = inverse_norm::<E>(x, start, channels, inside, &mut shared, lanes);
    if inside {
        let sample = pixel / pixels_of_sample;
        let mut channel = UNIT_POS as usize % lanes;
        while channel < channels {
            let (slope, offset) = affine::<E>(gain, scale_shift, sample, channel, channels, with_scale);
            let z = f32::cast_from(x[start + channel]) * inverse * slope + offset;
            let mut result = z;
            if comptime!(with_silu) {
                result = silu(z);
            }
            if comptime!(with_residual) {
                result += f32::cast_from(residual[start + channel]);
            }
            y[start + channel] = E::cast_from(result);
            channel += lanes;
        }
    }
}

/// A cube does `run` pixels of one sample: their ẋ, and A and B over them as `sums[run of pixels][A, B][channel]`.
#[cube(launch_unchecked)]
fn rms_norm_backward<E: Float>(
    x: &[E],
    gain: &[E],
    scale_shift: &[E],
    y_gradient: &[E],
    x_gradient: &mut [E],
    sums: &mut [f32],
    pixels_of_sample: usize,
    channels: usize,
    run: usize,
    runs_of_sample: usize,
    runs: usize,
    #[comptime] lanes: usize,
    #[comptime] channels_of_lane: usize,
    #[comptime] with_scale: bool,
    #[comptime] with_silu: bool,
    #[define(E)] _dtype: ElemType,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut shared_normed = Shared::<[f32]>::new_slice(UNITS);
    let rows = comptime!(UNITS / lanes);
    let index = CUBE_POS;
    if index >= runs {
        terminate!();
    }
    let sample = index / runs_of_sample;
    let first = (index % runs_of_sample) * run;
    let last = clamp_max(first + run, pixels_of_sample);
    let lane = UNIT_POS as usize % lanes;

    let mut sum = Array::<f32>::new(channels_of_lane);
    let mut sum_normed = Array::<f32>::new(channels_of_lane);
    #[unroll]
    for part in 0..channels_of_lane {
        sum[part] = 0.0f32;
        sum_normed[part] = 0.0f32;
    }
    let mut row = first;
    while row < last {
        let pixel = row + UNIT_POS as usize / lanes;
        let inside = pixel < last;
        let start = (sample * pixels_of_sample + pixel) * channels;
        let (inverse, unclamped) = inverse_norm::<E>(x, start, channels, inside, &mut shared, lanes);
        let mut dot = 0.0f32;
        #[unroll]
        for part in 0..channels_of_lane {
            let channel = lane + part * lanes;
            if inside && channel < channels {
                let (slope, offset) = affine::<E>(gain, scale_shift, sample, channel, channels, with_scale);
                let normed = f32::cast_from(x[start + channel]) * inverse;
                let mut gradient = f32::cast_from(y_gradient[start + channel]);
                if comptime!(with_silu) {
                    gradient *= silu_derivative(normed * slope + offset);
                }
                sum[part] += gradient;
                sum_normed[part] += gradient * normed;
                dot += gradient * slope * normed;
            }
        }
        let mean = sum_of_row(dot, &mut shared, lanes) * unclamped / f32::cast_from(channels as u32);
        #[unroll]
        for part in 0..channels_of_lane {
            let channel = lane + part * lanes;
            if inside && channel < channels {
                let (slope, offset) = affine::<E>(gain, scale_shift, sample, channel, channels, with_scale);
                let normed = f32::cast_from(x[start + channel]) * inverse;
                let mut gradient = f32::cast_from(y_gradient[start + channel]);
                if comptime!(with_silu) {
                    gradient *= silu_derivative(normed * slope + offset);
                }
                x_gradient[start + channel] = E::cast_from(inverse * (gradient * slope - normed * mean));
            }
        }
        row += rows;
    }

    // over the rows of the cube
    #[unroll]
    for part in 0..channels_of_lane {
        shared[UNIT_POS as usize] = sum[part];
        shared_normed[UNIT_POS as usize] = sum_normed[part];
        sync_cube();
        let channel = lane + part * lanes;
        if UNIT_POS as usize / lanes == 0 && channel < channels {
            let mut total = 0.0f32;
            let mut total_normed = 0.0f32;
            for row in 0..rows {
                total += shared[row * lanes + lane];
                total_normed += shared_normed[row * lanes + lane];
            }
            sums[index * 2 * channels + channel] = total;
            sums[index * 2 * channels + channels + channel] = total_normed;
        }
        sync_cube();
    }
}

/// Adds the sums of the runs: a cube has [`COLUMNS`] channels, each of which has a column of units that share the samples.
#[cube(launch_unchecked)]
fn rms_norm_sums<E: Float>(
    gain: &[E],
    scale_shift: &[E],
    sums: &[f32],
    gain_gradient: &mut [E],
    scale_shift_gradient: &mut [E],
    batch: usize,
    channels: usize,
    runs_of_sample: usize,
    #[comptime] with_scale: bool,
    #[define(E)] _dtype: ElemType,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let channel = CUBE_POS * COLUMNS + UNIT_POS as usize % COLUMNS;
    let mut gain_sum = 0.0f32;
    if channel < channels {
        let mut sample = UNIT_POS as usize / COLUMNS;
        while sample < batch {
            let mut sum = 0.0f32;
            let mut sum_normed = 0.0f32;
            for run in 0..runs_of_sample {
                let start = (sample * runs_of_sample + run) * 2 * channels + channel;
                sum += sums[start];
                sum_normed += sums[start + channels];
            }
            if comptime!(with_scale) {
                let start = sample * 2 * channels + channel;
                gain_sum += sum_normed * (1.0 + f32::cast_from(scale_shift[start]));
                scale_shift_gradient[start] = E::cast_from(sum_normed * f32::cast_from(gain[channel]));
                scale_shift_gradient[start + channels] = E::cast_from(sum);
            } else {
                gain_sum += sum_normed;
            }
            sample += comptime!(UNITS / COLUMNS);
        }
    }
    shared[UNIT_POS as usize] = gain_sum;
    sync_cube();
    if (UNIT_POS as usize) < COLUMNS && channel < channels {
        let mut total = 0.0f32;
        for row in 0..comptime!(UNITS / COLUMNS) {
            total += shared[row * COLUMNS + UNIT_POS as usize];
        }
        gain_gradient[channel] = E::cast_from(total);
    }
}

/// The burn operation: x `[batch, height, width, channels]`, gain `[channels]`, and scale and shift `[batch, 2 channels]`
/// where there are three inputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RmsNorm {
    /// Whether SiLU follows.
    pub silu: bool,
}

/// The runs of pixels that are summed apart.
struct Runs {
    /// Samples with an own scale and shift; 1 where there is none, and all pixels are those of one sample.
    batch: usize,
    /// Pixels of a sample.
    pixels: usize,
    /// Pixels of a run.
    length: usize,
    /// Runs of a sample.
    count: usize,
}

impl Runs {
    fn new(x: &CubeTensor, with_scale: bool, rows: usize) -> Self {
        let [batch, height, width, _] = x.shape().dims();
        let (batch, pixels) = if with_scale { (batch, height * width) } else { (1, batch * height * width) };
        let length = pixels.div_ceil((MOST_RUNS / batch).max(1)).next_multiple_of(rows);
        Self { batch, pixels, length, count: pixels.div_ceil(length) }
    }
}

/// [`RmsNorm`] without scale and shift, plus an image: x and the image `[batch, height, width, channels]`, gain `[channels]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RmsNormAdd {
    /// Whether SiLU follows the norm.
    pub silu: bool,
}

impl RmsNorm {
    fn apply(
        self,
        x: &CubeTensor,
        gain: &CubeTensor,
        scale_shift: Option<&CubeTensor>,
        residual: Option<&CubeTensor>,
    ) -> CubeTensor {
        let [batch, height, width, channels] = x.shape().dims();
        let (y, lanes) = (empty_like(x), lanes(channels));
        unsafe {
            rms_norm_forward::launch_unchecked(
                &x.client,
                cubes((batch * height * width).div_ceil(UNITS / lanes)),
                CubeDim::new_1d(UNITS as u32),
                argument(x),
                argument(gain),
                argument(scale_shift.unwrap_or(gain)),
                argument(residual.unwrap_or(gain)),
                argument(&y),
                batch * height * width,
                height * width,
                channels,
                lanes,
                scale_shift.is_some(),
                self.silu,
                residual.is_some(),
                element(x.dtype),
            );
        }
        y
    }
}

impl Differentiable<CubeBackend> for RmsNormAdd {
    fn forward(&self, inputs: Vec<CubeTensor>) -> (CubeTensor, Vec<CubeTensor>) {
        let inputs = all_contiguous(inputs);
        (RmsNorm { silu: self.silu }.apply(&inputs[0], &inputs[1], None, Some(&inputs[2])), Vec::new())
    }

    fn backward(
        &self,
        inputs: Vec<CubeTensor>,
        saved: Vec<CubeTensor>,
        y_gradient: CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let inputs = inputs.into_iter().take(2).collect();
        let mut gradients = RmsNorm { silu: self.silu }.backward(inputs, saved, y_gradient.clone(), &wanted[..2]);
        gradients.truncate(2);
        gradients.push(wanted[2].then_some(y_gradient));
        gradients
    }
}

impl Differentiable<CubeBackend> for RmsNorm {
    fn forward(&self, inputs: Vec<CubeTensor>) -> (CubeTensor, Vec<CubeTensor>) {
        let inputs = all_contiguous(inputs);
        (self.apply(&inputs[0], &inputs[1], inputs.get(2), None), Vec::new())
    }

    fn backward(
        &self,
        inputs: Vec<CubeTensor>,
        _: Vec<CubeTensor>,
        y_gradient: CubeTensor,
        _: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let (inputs, y_gradient) = (all_contiguous(inputs), contiguous(y_gradient));
        let (x, gain) = (&inputs[0], &inputs[1]);
        let (with_scale, [.., channels]) = (inputs.len() > 2, x.shape().dims::<4>());
        let scale_shift = inputs.get(2).unwrap_or(gain);
        let lanes = lanes(channels);
        let runs = Runs::new(x, with_scale, UNITS / lanes);
        let all_runs = runs.batch * runs.count;
        let sums = empty(x, [all_runs, 2, channels], DType::F32);
        let (x_gradient, gain_gradient) = (empty_like(x), empty_like(gain));
        let scale_shift_gradient = empty_like(scale_shift);
        let dim = CubeDim::new_1d(UNITS as u32);
        unsafe {
            rms_norm_backward::launch_unchecked(
                &x.client,
                cubes(all_runs),
                dim,
                argument(x),
                argument(gain),
                argument(scale_shift),
                argument(&y_gradient),
                argument(&x_gradient),
                argument(&sums),
                runs.pixels,
                channels,
                runs.length,
                runs.count,
                all_runs,
                lanes,
                channels.div_ceil(lanes),
                with_scale,
                self.silu,
                element(x.dtype),
            );
            rms_norm_sums::launch_unchecked(
                &x.client,
                cubes(channels.div_ceil(COLUMNS)),
                dim,
                argument(gain),
                argument(scale_shift),
                argument(&sums),
                argument(&gain_gradient),
                argument(&scale_shift_gradient),
                runs.batch,
                channels,
                runs.count,
                with_scale,
                element(x.dtype),
            );
        }
        vec![Some(x_gradient), Some(gain_gradient), with_scale.then_some(scale_shift_gradient)]
    }
}
