//! Group norm (Wu and He 2018, arXiv:1803.08494) with weight and bias per channel, and an optional scale, shift and SiLU
//! fused behind it.
//!
//! Per sample and group, with mean μ and variance v over the N = positions times channels / groups values, slope
//! k = weight (1 + scale) and offset o = bias (1 + scale) + shift:
//!
//! ```text
//! x̂ = (x - μ) r,  r = 1 / √(v + eps)    z = x̂ k + o    y = f(z)
//! ```
//!
//! Each run of positions gives, per channel, its mean and its sum of squares about that mean (Welford 1962); these are joined
//! about the mean of the group (Chan et al. 1979), so a large mean costs the variance no digits. μ and r are saved for the
//! backward pass:
//!
//! ```text
//! ż = ẏ f'(z)    A = Σ ż, B = Σ ż x̂ over positions    ẋ = r (ż k - (Σ_c k A + x̂ Σ_c k B) / N), Σ_c over the group
//! ```
//!
//! The gradients are A of the shift, bias A + weight B of the scale, and over the batch Σ A (1 + scale) of the bias and
//! Σ B (1 + scale) of the weight.
//!
//! Where the variance is not finite (from input that is not, or of a magnitude above 1e19), nothing of the group is.
//!
//! Launches: two forward, the moments of the runs, then y; three backward, A and B of the runs, then ẋ, then the other
//! gradients. A cube has some positions of up to [`MOST_LANES`] adjacent channels of one sample. A unit has one channel, its
//! *lane*; the units of a lane, its *rows*, take the positions in turn. In the second launches each cube joins the runs of
//! the groups of its channels, for which its units are shared among these groups, its *slots*; so a sample has few runs
//! ([`MOST_RUNS`]).

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

/// Units of a cube.
const UNITS: usize = 256;
/// The most channels of a cube.
const MOST_LANES: usize = 32;
/// The most runs of positions of a sample whose sums are joined.
const MOST_RUNS: usize = 32;
/// The fewest positions of a run, if the sample has as many.
const LEAST_RUN: usize = 128;
/// Channels of a cube that adds the gradients of weight, bias, scale and shift.
const SUM_LANES: usize = 16;

/// What the units of a cube do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Layout {
    /// Channels of a cube, a power of two.
    lanes: usize,
    /// Groups that these belong to, or the next power of two.
    slots: usize,
    /// Whether there is a scale and shift.
    with_scale: bool,
    /// Whether SiLU follows.
    with_silu: bool,
}

impl Layout {
    fn new(channels: usize, width: usize, with_scale: bool, with_silu: bool) -> Self {
        let lanes = channels.next_power_of_two().min(MOST_LANES);
        let groups = |first: usize| ((first + lanes).min(channels) - 1) / width - first / width + 1;
        let slots = (0..channels).step_by(lanes).map(groups).max().unwrap_or(1).next_power_of_two();
        Self { lanes, slots, with_scale, with_silu }
    }

    /// The units of one lane.
    fn rows(&self) -> Team {
        Team { stride: self.lanes, count: UNITS / self.lanes }
    }

    /// The units of one slot.
    fn shares(&self) -> Team {
        Team { stride: self.slots, count: UNITS / self.slots }
    }
}

/// The sizes of a group norm, as its kernels need them.
#[derive(CubeLaunch, CubeType)]
struct Sizes {
    /// Positions of a sample.
    positions: usize,
    channels: usize,
    /// Channels of a group.
    width: usize,
    /// Cubes side by side for all channels.
    blocks: usize,
    /// Positions of a run whose sums are apart.
    run: usize,
    /// Such runs of a sample.
    runs: usize,
    /// Positions of a cube, and the cubes for all positions of a sample.
    piece: usize,
    pieces: usize,
    /// Cubes in all.
    cubes: usize,
}

/// The part of the tensor that a cube has.
#[derive(CubeType)]
struct Place {
    sample: usize,
    piece: usize,
    /// Its positions.
    first: usize,
    last: usize,
    /// Its first channel.
    channel: usize,
}

#[cube]
fn place(sizes: &Sizes, #[comptime] layout: Layout) -> Place {
    let index = CUBE_POS / sizes.blocks;
    let piece = index % sizes.pieces;
    let first = piece * sizes.piece;
    Place {
        sample: index / sizes.pieces,
        piece,
        first,
        last: clamp_max(first + sizes.piece, sizes.positions),
        channel: (CUBE_POS % sizes.blocks) * comptime!(layout.lanes),
    }
}

/// Slope and offset of a channel.
#[cube]
fn affine<E: Float>(
    weight: &[E],
    bias: &[E],
    scale_shift: &[E],
    sample: usize,
    channel: usize,
    channels: usize,
    #[comptime] layout: Layout,
) -> (f32, f32) {
    let mut slope = f32::cast_from(weight[channel]);
    let mut offset = f32::cast_from(bias[channel]);
    if comptime!(layout.with_scale) {
        let start = sample * 2 * channels + channel;
        let scale = 1.0f32 + f32::cast_from(scale_shift[start]);
        slope *= scale;
        offset = offset * scale + f32::cast_from(scale_shift[start + channels]);
    }
    (slope, offset)
}

/// Of each run and channel the mean, and the sum of squares about it: `moments[sample][run][mean, squares][channel]`.
#[cube(launch_unchecked)]
fn group_norm_moments<E: Float>(
    x: &[E],
    moments: &mut [f32],
    sizes: Sizes,
    #[comptime] layout: Layout,
    #[define(E)] _dtype: ElemType,
) {
    let mut shared_means = Shared::<[f32]>::new_slice(UNITS);
    let mut shared_squares = Shared::<[f32]>::new_slice(UNITS);
    if CUBE_POS >= sizes.cubes {
        terminate!();
    }
    let (lanes, rows) = comptime!((layout.lanes, UNITS / layout.lanes));
    let place = place(&sizes, layout);
    let lane = UNIT_POS as usize % lanes;
    let row = UNIT_POS as usize / lanes;
    let channel = place.channel + lane;
    let channels = sizes.channels;

    let mut count = 0.0f32;
    let mut mean = 0.0f32;
    let mut squares = 0.0f32;
    if channel < channels {
        let mut position = place.first + row;
        while position < place.last {
            let value = f32::cast_from(x[(place.sample * sizes.positions + position) * channels + channel]);
            let difference = value - mean;
            count += 1.0f32;
            mean += difference / count;
            squares += difference * (value - mean);
            position += rows;
        }
    }
    shared_means[UNIT_POS as usize] = mean;
    shared_squares[UNIT_POS as usize] = squares;
    sync_cube();
    if row == 0 && channel < channels {
        let number = place.last - place.first;
        let mut sum = 0.0f32;
        for row in 0..rows {
            let count = f32::cast_from(((number + rows - 1 - row) / rows) as u32);
            sum += count * shared_means[row * lanes + lane];
        }
        let mean = sum / f32::cast_from(number as u32);
        let mut squares = 0.0f32;
        for row in 0..rows {
            let count = f32::cast_from(((number + rows - 1 - row) / rows) as u32);
            let difference = shared_means[row * lanes + lane] - mean;
            squares += shared_squares[row * lanes + lane] + count * difference * difference;
        }
        let start = (place.sample * sizes.pieces + place.piece) * 2 * channels + channel;
        moments[start] = mean;
        moments[start + channels] = squares;
    }
}

/// y, and from the first piece of each sample the `statistics[sample][group][μ, r]`.
#[cube(launch_unchecked)]
fn group_norm_forward<E: Float>(
    x: &[E],
    weight: &[E],
    bias: &[E],
    scale_shift: &[E],
    moments: &[f32],
    y: &mut [E],
    statistics: &mut [f32],
    sizes: Sizes,
    epsilon: f32,
    #[comptime] layout: Layout,
    #[define(E)] _dtype: ElemType,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut of_slots = Shared::<[f32]>::new_slice(comptime!(2 * layout.slots));
    if CUBE_POS >= sizes.cubes {
        terminate!();
    }
    let (lanes, slots, shares) = comptime!((layout.lanes, layout.slots, layout.shares()));
    let place = place(&sizes, layout);
    let (channels, width) = (sizes.channels, sizes.width);
    let unit = UNIT_POS as usize;
    let slot = unit % slots;
    let first_group = place.channel / width;
    let first_channel = (first_group + slot) * width;
    // the means and squares of a group: as many as it has channels times runs
    let mut terms = 0usize;
    if first_channel < channels {
        terms = width * sizes.runs;
    }

    let mut sum = 0.0f32;
    let mut term = unit / slots;
    while term < terms {
        let run = term / width;
        let start = (place.sample * sizes.runs + run) * 2 * channels + first_channel + term % width;
        let count = f32::cast_from(clamp_max(sizes.run, sizes.positions - run * sizes.run) as u32);
        sum += count * moments[start];
        term += comptime!(shares.count);
    }
    let number = f32::cast_from((sizes.positions * width) as u32);
    let mean = fold_units(sum, &mut shared, shares, Fold::Sum) / number;
    let mut squares = 0.0f32;
    let mut term = unit / slots;
    while term < terms {
        let run = term / width;
        let start = (place.sample * sizes.runs + run) * 2 * channels + first_channel + term % width;
        let count = f32::cast_from(clamp_max(sizes.run, sizes.positions - run * sizes.run) as u32);
        let difference = moments[start] - mean;
        squares += moments[start + channels] + count * difference * difference;
        term += comptime!(shares.count);
    }
    let squares = fold_units(squares, &mut shared, shares, Fold::Sum);
    let inverse = 1.0f32 / (squares / number + epsilon).sqrt();
    let inverse = select(squares <= 3.4e38f32, inverse, squares);
    if unit < slots {
        of_slots[2 * slot] = mean;
        of_slots[2 * slot + 1] = inverse;
        // a group that begins in the block before is written there
        if place.piece == 0 && first_channel < channels && first_channel >= place.channel {
            let start = 2 * (place.sample * (channels / width) + first_group + slot);
            statistics[start] = mean;
            statistics[start + 1] = inverse;
        }
    }
    sync_cube();

    let channel = place.channel + unit % lanes;
    if channel < channels {
        let slot = channel / width - first_group;
        let mean = of_slots[2 * slot];
        let inverse = of_slots[2 * slot + 1];
        let (slope, offset) = affine::<E>(weight, bias, scale_shift, place.sample, channel, channels, layout);
        let mut position = place.first + unit / lanes;
        while position < place.last {
            let index = (place.sample * sizes.positions + position) * channels + channel;
            let mut z = (f32::cast_from(x[index]) - mean) * inverse * slope + offset;
            if comptime!(layout.with_silu) {
                z = silu(z);
            }
            y[index] = E::cast_from(z);
            position += comptime!(UNITS / lanes);
        }
    }
}

/// A and B of each run: `sums[sample][run][A, B][channel]`.
#[cube(launch_unchecked)]
fn group_norm_sums<E: Float>(
    x: &[E],
    weight: &[E],
    bias: &[E],
    scale_shift: &[E],
    statistics: &[f32],
    y_gradient: &[E],
    sums: &mut [f32],
    sizes: Sizes,
    #[comptime] layout: Layout,
    #[define(E)] _dtype: ElemType,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    if CUBE_POS >= sizes.cubes {
        terminate!();
    }
    let lanes = comptime!(layout.lanes);
    let place = place(&sizes, layout);
    let channels = sizes.channels;
    let row = UNIT_POS as usize / lanes;
    let channel = place.channel + UNIT_POS as usize % lanes;

    let mut sum = 0.0f32;
    let mut sum_normed = 0.0f32;
    if channel < channels {
        let start = 2 * (place.sample * (channels / sizes.width) + channel / sizes.width);
        let mean = statistics[start];
        let inverse = statistics[start + 1];
        let (slope, offset) = affine::<E>(weight, bias, scale_shift, place.sample, channel, channels, layout);
        let mut position = place.first + row;
        while position < place.last {
            let index = (place.sample * sizes.positions + position) * channels + channel;
            let normed = (f32::cast_from(x[index]) - mean) * inverse;
            let mut gradient = f32::cast_from(y_gradient[index]);
            if comptime!(layout.with_silu) {
                gradient *= silu_derivative(normed * slope + offset);
            }
            sum += gradient;
            sum_normed += gradient * normed;
            position += comptime!(UNITS / lanes);
        }
    }
    let sum = fold_units(sum, &mut shared, comptime!(layout.rows()), Fold::Sum);
    let sum_normed = fold_units(sum_normed, &mut shared, comptime!(layout.rows()), Fold::Sum);
    if row == 0 && channel < channels {
        let start = (place.sample * sizes.pieces + place.piece) * 2 * channels + channel;
        sums[start] = sum;
        sums[start + channels] = sum_normed;
    }
}

/// ẋ
#[cube(launch_unchecked)]
fn group_norm_backward<E: Float>(
    x: &[E],
    weight: &[E],
    bias: &[E],
    scale_shift: &[E],
    statistics: &[f32],
    y_gradient: &[E],
    sums: &[f32],
    x_gradient: &mut [E],
    sizes: Sizes,
    #[comptime] layout: Layout,
    #[define(E)] _dtype: ElemType,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut of_slots = Shared::<[f32]>::new_slice(comptime!(2 * layout.slots));
    if CUBE_POS >= sizes.cubes {
        terminate!();
    }
    let (lanes, slots, shares) = comptime!((layout.lanes, layout.slots, layout.shares()));
    let place = place(&sizes, layout);
    let (channels, width) = (sizes.channels, sizes.width);
    let unit = UNIT_POS as usize;
    let slot = unit % slots;
    let first_group = place.channel / width;
    let first_channel = (first_group + slot) * width;
    let mut terms = 0usize;
    if first_channel < channels {
        terms = width * sizes.runs;
    }

    let mut sum = 0.0f32;
    let mut sum_normed = 0.0f32;
    let mut term = unit / slots;
    while term < terms {
        let channel = first_channel + term % width;
        let (slope, _) = affine::<E>(weight, bias, scale_shift, place.sample, channel, channels, layout);
        let start = (place.sample * sizes.runs + term / width) * 2 * channels + channel;
        sum += slope * sums[start];
        sum_normed += slope * sums[start + channels];
        term += comptime!(shares.count);
    }
    let number = f32::cast_from((sizes.positions * width) as u32);
    let sum = fold_units(sum, &mut shared, shares, Fold::Sum);
    let sum_normed = fold_units(sum_normed, &mut shared, shares, Fold::Sum);
    if unit < slots {
        of_slots[2 * slot] = sum / number;
        of_slots[2 * slot + 1] = sum_normed / number;
    }
    sync_cube();

    let channel = place.channel + unit % lanes;
    if channel < channels {
        let slot = channel / width - first_group;
        let constant = of_slots[2 * slot];
        let pull = of_slots[2 * slot + 1];
        let start = 2 * (place.sample * (channels / width) + channel / width);
        let mean = statistics[start];
        let inverse = statistics[start + 1];
        let (slope, offset) = affine::<E>(weight, bias, scale_shift, place.sample, channel, channels, layout);
        let mut position = place.first + unit / lanes;
        while position < place.last {
            let index = (place.sample * sizes.positions + position) * channels + channel;
            let normed = (f32::cast_from(x[index]) - mean) * inverse;
            let mut gradient = f32::cast_from(y_gradient[index]);
            if comptime!(layout.with_silu) {
                gradient *= silu_derivative(normed * slope + offset);
            }
            x_gradient[index] = E::cast_from(inverse * (gradient * slope - (constant + normed * pull)));
            position += comptime!(UNITS / lanes);
        }
    }
}

/// The gradients of weight, bias, scale and shift: rows of units share the samples of a channel.
#[cube(launch_unchecked)]
fn group_norm_affine<E: Float>(
    weight: &[E],
    bias: &[E],
    scale_shift: &[E],
    sums: &[f32],
    weight_gradient: &mut [E],
    bias_gradient: &mut [E],
    scale_shift_gradient: &mut [E],
    batch: usize,
    channels: usize,
    runs: usize,
    #[comptime] with_scale: bool,
    #[define(E)] _dtype: ElemType,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let row = UNIT_POS as usize / SUM_LANES;
    let channel = CUBE_POS * SUM_LANES + UNIT_POS as usize % SUM_LANES;
    let mut bias_sum = 0.0f32;
    let mut weight_sum = 0.0f32;
    if channel < channels {
        let mut sample = row;
        while sample < batch {
            let mut sum = 0.0f32;
            let mut sum_normed = 0.0f32;
            for run in 0..runs {
                let start = (sample * runs + run) * 2 * channels + channel;
                sum += sums[start];
                sum_normed += sums[start + channels];
            }
            if comptime!(with_scale) {
                let start = sample * 2 * channels + channel;
                let scale = 1.0f32 + f32::cast_from(scale_shift[start]);
                let of_scale = f32::cast_from(bias[channel]) * sum + f32::cast_from(weight[channel]) * sum_normed;
                scale_shift_gradient[start] = E::cast_from(of_scale);
                scale_shift_gradient[start + channels] = E::cast_from(sum);
                bias_sum += sum * scale;
                weight_sum += sum_normed * scale;
            } else {
                bias_sum += sum;
                weight_sum += sum_normed;
            }
            sample += comptime!(UNITS / SUM_LANES);
        }
    }
    let rows = comptime!(Team { stride: SUM_LANES, count: UNITS / SUM_LANES });
    let bias_sum = fold_units(bias_sum, &mut shared, rows, Fold::Sum);
    let weight_sum = fold_units(weight_sum, &mut shared, rows, Fold::Sum);
    if row == 0 && channel < channels {
        bias_gradient[channel] = E::cast_from(bias_sum);
        weight_gradient[channel] = E::cast_from(weight_sum);
    }
}

/// The burn operation: x `[batch, height, width, channels]`, weight and bias `[channels]`, and scale and shift
/// `[batch, 2 channels]` where there are four inputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupNorm {
    /// Number of groups; it divides the channels.
    groups: usize,
    /// Added to the variance.
    epsilon: f64,
    /// Whether SiLU follows.
    silu: bool,
}

/// How a group norm is split.
struct Runs {
    batch: usize,
    positions: usize,
    channels: usize,
    /// Channels of a group.
    width: usize,
    /// Cubes side by side for all channels.
    blocks: usize,
    /// Positions of a run whose sums are apart, and such runs of a sample.
    run: usize,
    runs: usize,
    layout: Layout,
}

impl Runs {
    fn new(x: &CubeTensor, groups: usize, with_scale: bool, with_silu: bool) -> Self {
        let [batch, rows, columns, channels] = x.shape().dims();
        let (positions, width) = (rows * columns, channels / groups);
        let layout = Layout::new(channels, width, with_scale, with_silu);
        let run = positions.div_ceil(MOST_RUNS).max(LEAST_RUN);
        let (runs, blocks) = (positions.div_ceil(run), channels.div_ceil(layout.lanes));
        Self { batch, positions, channels, width, blocks, run, runs, layout }
    }

    /// A tensor of two numbers for each run and channel.
    fn sums(&self, like: &CubeTensor) -> CubeTensor {
        empty(like, [self.batch, self.runs, 2, self.channels], DType::F32)
    }

    /// The launch in which each cube has a run.
    fn of_runs(&self) -> (usize, SizesLaunch) {
        self.pieces(self.run)
    }

    /// The launch in which each cube joins the runs of its groups: of each channel it reads two sums a run, and writes at
    /// least 8 positions a run, or all of a small image.
    fn of_joined(&self) -> (usize, SizesLaunch) {
        self.pieces((8 * self.runs).max(LEAST_RUN))
    }

    fn pieces(&self, piece: usize) -> (usize, SizesLaunch) {
        let Self { batch, positions, channels, width, blocks, run, runs, .. } = *self;
        let pieces = positions.div_ceil(piece);
        let cubes = batch * pieces * blocks;
        (cubes, SizesLaunch::new(positions, channels, width, blocks, run, runs, piece, pieces, cubes))
    }
}

impl GroupNorm {
    pub fn new(groups: usize, epsilon: f64, silu: bool) -> Self {
        Self { groups, epsilon, silu }
    }
}

impl Differentiable<CubeBackend> for GroupNorm {
    /// Saves μ and r of each group.
    fn forward(&self, inputs: Vec<CubeTensor>) -> (CubeTensor, Vec<CubeTensor>) {
        let inputs = all_contiguous(inputs);
        let [x, weight, bias] = [0, 1, 2].map(|index: usize| &inputs[index]);
        let runs = Runs::new(x, self.groups, inputs.len() > 3, self.silu);
        let (y, moments) = (empty_like(x), runs.sums(x));
        let statistics = empty(x, [runs.batch, self.groups, 2], DType::F32);
        let dim = CubeDim::new_1d(UNITS as u32);
        let ((of_runs, run_sizes), (of_joined, joined_sizes)) = (runs.of_runs(), runs.of_joined());
        unsafe {
            group_norm_moments::launch_unchecked(
                &x.client,
                cubes(of_runs),
                dim,
                argument(x),
                argument(&moments),
                run_sizes,
                runs.layout,
                element(x.dtype),
            );
            group_norm_forward::launch_unchecked(
                &x.client,
                cubes(of_joined),
                dim,
                argument(x),
                argument(weight),
                argument(bias),
                argument(inputs.get(3).unwrap_or(weight)),
                argument(&moments),
                argument(&y),
                argument(&statistics),
                joined_sizes,
                self.epsilon as f32,
                runs.layout,
                element(x.dtype),
            );
        }
        (y, vec![statistics])
    }

    fn backward(
        &self,
        inputs: Vec<CubeTensor>,
        saved: Vec<CubeTensor>,
        y_gradient: CubeTensor,
        wanted: &[bool],
    ) -> Vec<Option<CubeTensor>> {
        let (inputs, y_gradient) = (all_contiguous(inputs), contiguous(y_gradient));
        let runs = Runs::new(&inputs[0], self.groups, inputs.len() > 3, self.silu);
        let sums = sums_of_runs(&runs, &inputs, &saved[0], &y_gradient);
        let x_gradient = wanted[0].then(|| x_gradient(&runs, &inputs, &saved[0], &y_gradient, &sums));
        let others = if wanted[1..].contains(&true) { affine_gradients(&runs, &inputs, &sums) } else { Vec::new() };
        let others = others.into_iter().map(Some).chain([const { None }; 3]);
        core::iter::once(x_gradient).chain(others).take(inputs.len()).collect()
    }
}

/// A and B of each run.
fn sums_of_runs(runs: &Runs, inputs: &[CubeTensor], statistics: &CubeTensor, y_gradient: &CubeTensor) -> CubeTensor {
    let [x, weight, bias] = [0, 1, 2].map(|index: usize| &inputs[index]);
    let (sums, (count, sizes)) = (runs.sums(x), runs.of_runs());
    unsafe {
        group_norm_sums::launch_unchecked(
            &x.client,
            cubes(count),
            CubeDim::new_1d(UNITS as u32),
            argument(x),
            argument(weight),
            argument(bias),
            argument(inputs.get(3).unwrap_or(weight)),
            argument(statistics),
            argument(y_gradient),
            argument(&sums),
            sizes,
            runs.layout,
            element(x.dtype),
        );
    }
    sums
}

/// ẋ from A and B of each run.
fn x_gradient(
    runs: &Runs,
    inputs: &[CubeTensor],
    statistics: &CubeTensor,
    y_gradient: &CubeTensor,
    sums: &CubeTensor,
) -> CubeTensor {
    let [x, weight, bias] = [0, 1, 2].map(|index: usize| &inputs[index]);
    let (x_gradient, (count, sizes)) = (empty_like(x), runs.of_joined());
    unsafe {
        group_norm_backward::launch_unchecked(
            &x.client,
            cubes(count),
            CubeDim::new_1d(UNITS as u32),
            argument(x),
            argument(weight),
            argument(bias),
            argument(inputs.get(3).unwrap_or(weight)),
            argument(statistics),
            argument(y_gradient),
            argument(sums),
            argument(&x_gradient),
            sizes,
            runs.layout,
            element(x.dtype),
        );
    }
    x_gradient
}

/// The gradients of weight, bias and, if there are some, scale and shift, from A and B of each run.
fn affine_gradients(runs: &Runs, inputs: &[CubeTensor], sums: &CubeTensor) -> Vec<CubeTensor> {
    let (weight, bias, scale_shift) = (&inputs[1], &inputs[2], inputs.get(3));
    let [weight_gradient, bias_gradient] = [weight, bias].map(empty_like);
    let scale_shift_gradient = scale_shift.map_or_else(|| empty(weight, [1], weight.dtype), empty_like);
    unsafe {
        group_norm_affine::launch_unchecked(
            &weight.client,
            cubes(runs.channels.div_ceil(SUM_LANES)),
            CubeDim::new_1d(UNITS as u32),
            argument(weight),
            argument(bias),
            argument(scale_shift.unwrap_or(weight)),
            argument(sums),
            argument(&weight_gradient),
            argument(&bias_gradient),
            argument(&scale_shift_gradient),
            runs.batch,
            runs.channels,
            runs.runs,
            runs.layout.with_scale,
            element(weight.dtype),
        );
    }
    [weight_gradient, bias_gradient].into_iter().chain(scale_shift.map(|_| scale_shift_gradient)).collect()
}
