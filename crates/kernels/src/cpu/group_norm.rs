//! Group norm (Wu and He 2018, arXiv:1803.08494) with weight and bias per channel, and an optional scale, shift and
//! SiLU fused behind it.
//!
//! Per sample and group, with mean μ and variance v over the N = positions times channels / groups values, and slope k
//! and offset o as in `epilogue`:
//!
//! ```text
//! x̂ = (x - μ) r,  r = 1 / √(v + eps)    z = x̂ k + o    y = f(z)
//! ```
//!
//! The forward goes over the input twice. First each block of positions gives, per channel, its mean and its sum of
//! squares about that mean; these are joined in f64 (Chan et al. 1979), so a large mean costs the variance no digits.
//! Then `y = f(x (r k) + (o - μ r k))`. μ and r are saved for the backward, also two passes:
//!
//! ```text
//! ż = ẏ f'(z)    A = Σ ż, B = Σ ż x̂ over positions    ẋ = r (ż k - (Σ_c k A + x̂ Σ_c k B) / N), Σ_c over the group
//! ```
//!
//! Where the variance is not finite (from input that is not, or of a magnitude above 1e19), the group becomes NaN.

use crate::cpu::activation::{silu, silu_derivative};
use crate::cpu::epilogue::{Affine, Epilogue, Gradients, Shape};
use crate::cpu::operation::{Operation, View, all};
use crate::cpu::parallel::{check_lengths, run};
use crate::cpu::simd::{fold_rows, map};
use pulp::{Simd, WithSimd};

/// The number of groups, and the epsilon of the variance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Groups {
    /// Number of groups; it divides the channels.
    pub count: usize,
    /// Added to the variance.
    pub epsilon: f64,
}

/// `output = f(x̂ weight + bias)`; `statistics` takes `[batch, groups, 2]`, of each group the mean and r.
#[expect(clippy::too_many_arguments, reason = "the inputs of the operation and two outputs")]
pub fn forward(
    shape: Shape,
    groups: Groups,
    input: &[f32],
    weight: &[f32],
    bias: &[f32],
    epilogue: Epilogue<'_>,
    output: &mut [f32],
    statistics: &mut [f32],
) {
    check_inputs(shape, groups, input, weight, bias, statistics);
    check_lengths!(output: shape.elements());
    let Shape { batch, channels, .. } = shape;
    let mut moments = vec![0.0; batch * shape.blocks() * 2 * channels];
    let blocks = shape.split(input).zip(moments.chunks_exact_mut(2 * channels));
    let tasks = blocks.map(|(input, moments)| Moments { input, moments });
    run(tasks.collect(), shape.elements());
    let samples = moments.chunks_exact(shape.blocks() * 2 * channels);
    for (moments, statistics) in samples.zip(statistics.chunks_exact_mut(2 * groups.count)) {
        for (group, statistics) in statistics.as_chunks_mut().0.iter_mut().enumerate() {
            *statistics = group_statistics(shape, groups, group, moments);
        }
    }

    let Affine { mut slope, mut offset, silu } = epilogue.affine(shape, weight, bias);
    let width = channels / groups.count;
    let coefficients = slope.chunks_exact_mut(width).zip(offset.chunks_exact_mut(width));
    for ((slope, offset), &[mean, scale]) in coefficients.zip(statistics.as_chunks().0) {
        for (slope, offset) in slope.iter_mut().zip(offset) {
            let product = f64::from(*slope) * f64::from(scale);
            *offset = (f64::from(*offset) - f64::from(mean) * product) as f32;
            *slope = product as f32;
        }
    }
    let coefficients = shape.of_blocks(&slope).zip(shape.of_blocks(&offset));
    let blocks = shape.split(input).zip(shape.split_mut(output)).zip(coefficients);
    let tasks = blocks.map(|((input, output), (slope, offset))| Forward { input, slope, offset, silu, output });
    run(tasks.collect(), 2 * shape.elements());
}

/// The gradients of [`forward`], from its statistics: of the input, of weight and bias (`[channels]`) and of the scale
/// and shift (`[batch, 2, channels]`, or empty where the epilogue has none).
#[expect(clippy::too_many_arguments, reason = "the inputs of the operation and a gradient for each")]
pub fn backward(
    shape: Shape,
    groups: Groups,
    input: &[f32],
    weight: &[f32],
    bias: &[f32],
    epilogue: Epilogue<'_>,
    statistics: &[f32],
    output_gradient: &[f32],
    input_gradient: &mut [f32],
    weight_gradient: &mut [f32],
    bias_gradient: &mut [f32],
    scale_shift_gradient: &mut [f32],
) {
    check_inputs(shape, groups, input, weight, bias, statistics);
    check_lengths!(
        output_gradient: shape.elements(), input_gradient: shape.elements(), weight_gradient: shape.channels,
        bias_gradient: shape.channels,
    );
    epilogue.check_gradient(shape, scale_shift_gradient);
    let Shape { batch, positions, channels } = shape;
    let width = channels / groups.count;
    let Affine { slope, offset, silu } = epilogue.affine(shape, weight, bias);

    // x̂ = x r - μ r, with r and μ r spread over the channels: [batch, 2, channels]
    let mut normal = Vec::with_capacity(2 * batch * channels);
    for statistics in statistics.chunks_exact(2 * groups.count) {
        let groups = statistics.as_chunks().0.iter();
        normal.extend(groups.clone().flat_map(|&[_, scale]| std::iter::repeat_n(scale, width)));
        normal.extend(groups.flat_map(|&[mean, scale]| std::iter::repeat_n(-mean * scale, width)));
    }
    let mut sums = vec![0.0; batch * shape.blocks() * 2 * channels];
    let coefficients = shape.of_blocks(&slope).zip(shape.of_blocks(&offset)).zip(shape.of_blocks(&normal));
    let gradients = shape.split(output_gradient).zip(shape.split_mut(input_gradient));
    let blocks = shape.split(input).zip(gradients).zip(sums.chunks_exact_mut(2 * channels)).zip(coefficients);
    let tasks = blocks.map(|(((input, (output_gradient, z_gradient)), sums), ((slope, offset), normal))| Sums {
        input,
        normal,
        slope,
        offset,
        silu,
        output_gradient,
        z_gradient,
        sums,
    });
    run(tasks.collect(), 3 * shape.elements());
    let gradients = Gradients { weight: weight_gradient, bias: bias_gradient, scale_shift: scale_shift_gradient };
    let totals = epilogue.gradients(shape, weight, bias, &sums, gradients);

    // ẋ = ż factors[0] + x factors[1] + factors[2]: [batch, 3, channels]
    let mut factors = vec![0.0; 3 * batch * channels];
    let number = (positions * width) as f64;
    for (index, &[mean, scale]) in statistics.as_chunks().0.iter().enumerate() {
        let (sample, first) = (index / groups.count, index % groups.count * width);
        let slope = &slope[sample * channels + first..][..width];
        let total = |part: usize| {
            let sums = &totals[(2 * sample + part) * channels + first..][..width];
            slope.iter().zip(sums).map(|(&slope, &sum)| f64::from(slope) * f64::from(sum)).sum::<f64>()
        };
        let (mean, scale) = (f64::from(mean), f64::from(scale));
        let pull = scale * scale * total(1) / number;
        let constant = mean * pull - scale * total(0) / number;
        let factors = &mut factors[3 * sample * channels + first..];
        for (channel, &slope) in slope.iter().enumerate() {
            factors[channel] = (scale * f64::from(slope)) as f32;
            factors[channels + channel] = -pull as f32;
            factors[2 * channels + channel] = constant as f32;
        }
    }
    let blocks = shape.split(input).zip(shape.split_mut(input_gradient)).zip(shape.of_blocks(&factors));
    let tasks = blocks.map(|((input, gradient), factors)| Backward { input, factors, gradient });
    run(tasks.collect(), 2 * shape.elements());
}

#[track_caller]
fn check_inputs(shape: Shape, groups: Groups, input: &[f32], weight: &[f32], bias: &[f32], statistics: &[f32]) {
    shape.check();
    let whole = groups.count > 0 && shape.channels.is_multiple_of(groups.count);
    assert!(whole, "{} channels do not make {} groups", shape.channels, groups.count);
    check_lengths!(
        input: shape.elements(), weight: shape.channels, bias: shape.channels,
        statistics: 2 * shape.batch * groups.count,
    );
}

/// Mean and r of one group from the moments of every block of its sample.
fn group_statistics(shape: Shape, groups: Groups, group: usize, moments: &[f32]) -> [f32; 2] {
    let Shape { positions, channels, .. } = shape;
    let width = channels / groups.count;
    let number = (positions * width) as f64;
    let blocks = || {
        moments.chunks_exact(2 * channels).enumerate().map(|(index, moments)| {
            let count = shape.block_positions().min(positions - index * shape.block_positions()) as f64;
            let (means, squares) = moments.split_at(channels);
            (count, &means[group * width..][..width], &squares[group * width..][..width])
        })
    };
    let sum: f64 = blocks().flat_map(|(count, means, _)| means.iter().map(move |&mean| count * f64::from(mean))).sum();
    let mean = sum / number;
    let mut squares = 0.0;
    for (count, means, block_squares) in blocks() {
        for (&block_mean, &square) in means.iter().zip(block_squares) {
            squares += f64::from(square) + count * (f64::from(block_mean) - mean).powi(2);
        }
    }
    let scale = if squares.is_finite() { (squares / number + groups.epsilon).sqrt().recip() } else { f64::NAN };
    [mean as f32, scale as f32]
}

/// Some positions of one sample; `moments` takes of each channel the mean, then of each the sum of squares about it.
struct Moments<'a> {
    input: &'a [f32],
    moments: &'a mut [f32],
}

impl WithSimd for Moments<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let channels = self.moments.len() / 2;
        let (mean, squares) = self.moments.split_at_mut(channels);
        let rows = self.input.len() / channels;
        let share = simd.splat_f32s(1.0 / rows as f32);
        mean.fill(0.0);
        squares.fill(0.0);
        let row = |index: usize| &self.input[index * channels..][..channels];
        fold_rows!(simd, rows, row, [&mut *mean], |x, [sum]| [simd.add_f32s(sum, x)]);
        map!(simd, [], [&mut *mean], |[], [sum]| [simd.mul_f32s(sum, share)]);
        fold_rows!(simd, rows, row, [&mut *mean, &mut *squares], |x, [mean, sum]| {
            let difference = simd.sub_f32s(x, mean);
            [mean, simd.mul_add_e_f32s(difference, difference, sum)]
        });
    }
}

/// Some positions of one sample; slope and offset with the normalization in them.
struct Forward<'a> {
    input: &'a [f32],
    slope: &'a [f32],
    offset: &'a [f32],
    silu: bool,
    output: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { input, slope, offset, silu: with_silu, output } = self;
        let channels = slope.len();
        for (input, output) in input.chunks_exact(channels).zip(output.chunks_exact_mut(channels)) {
            map!(simd, [input, slope, offset], [output], |[x, slope, offset], _| {
                let z = simd.mul_add_e_f32s(x, slope, offset);
                [if with_silu { silu(simd, z) } else { z }]
            });
        }
    }
}

/// The first pass backward over some positions of one sample: ż, and in `sums` A, then B.
struct Sums<'a> {
    input: &'a [f32],
    normal: &'a [f32],
    slope: &'a [f32],
    offset: &'a [f32],
    silu: bool,
    output_gradient: &'a [f32],
    z_gradient: &'a mut [f32],
    sums: &'a mut [f32],
}

impl WithSimd for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { input, normal, slope, offset, silu: with_silu, output_gradient, z_gradient, sums } = self;
        let channels = slope.len();
        let (scale, start) = normal.split_at(channels);
        let (sum, sum_normed) = sums.split_at_mut(channels);
        let rows = input.chunks_exact(channels).zip(output_gradient.chunks_exact(channels));
        for ((input, output_gradient), z_gradient) in rows.zip(z_gradient.chunks_exact_mut(channels)) {
            let inputs = [input, output_gradient, scale, start, slope, offset];
            let outputs = [z_gradient, &mut *sum, &mut *sum_normed];
            map!(simd, inputs, outputs, |[x, gradient, scale, start, slope, offset], [_, sum, normed_sum]| {
                let normed = simd.mul_add_e_f32s(x, scale, start);
                let z = simd.mul_add_e_f32s(normed, slope, offset);
                let gradient = if with_silu { simd.mul_f32s(gradient, silu_derivative(simd, z)) } else { gradient };
                [gradient, simd.add_f32s(sum, gradient), simd.mul_add_e_f32s(gradient, normed, normed_sum)]
            });
        }
    }
}

/// The second pass backward over some positions of one sample; `gradient` holds ż.
struct Backward<'a> {
    input: &'a [f32],
    factors: &'a [f32],
    gradient: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let channels = self.factors.len() / 3;
        let (scale, rest) = self.factors.split_at(channels);
        let (pull, constant) = rest.split_at(channels);
        for (input, gradient) in self.input.chunks_exact(channels).zip(self.gradient.chunks_exact_mut(channels)) {
            map!(simd, [input, scale, pull, constant], [gradient], |[x, scale, pull, constant], [z]| {
                [simd.mul_add_e_f32s(z, scale, simd.mul_add_e_f32s(x, pull, constant))]
            });
        }
    }
}

/// The burn operation: x `[batch, height, width, channels]`, weight and bias `[channels]`, and scale and shift
/// `[batch, 2 channels]` where there are four inputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupNorm {
    /// The groups.
    pub groups: Groups,
    /// Whether SiLU follows.
    pub silu: bool,
}

impl GroupNorm {
    pub fn new(count: usize, epsilon: f64, silu: bool) -> Self {
        Self { groups: Groups { count, epsilon }, silu }
    }
}

impl Operation for GroupNorm {
    /// Saves mean and inverse deviation of each group.
    fn forward(&self, inputs: &[View], output: &mut [f32]) -> Vec<f32> {
        let (shape, epilogue) = (Shape::of(inputs[0]), Epilogue::of(self.silu, inputs.get(3)));
        let mut statistics = vec![0.0; 2 * shape.batch * self.groups.count];
        let [x, weight, bias] = [0, 1, 2].map(|index: usize| inputs[index].values);
        forward(shape, self.groups, x, weight, bias, epilogue, output, &mut statistics);
        statistics
    }

    fn backward(&self, inputs: &[View], saved: &[f32], output_gradient: &[f32], gradients: &mut [Option<&mut [f32]>]) {
        let (shape, epilogue) = (Shape::of(inputs[0]), Epilogue::of(self.silu, inputs.get(3)));
        let mut unwanted = [const { Vec::new() }; 4];
        let [dx, dweight, dbias, dscale_shift] = all(inputs, gradients, &mut unwanted);
        let [x, weight, bias] = [0, 1, 2].map(|index: usize| inputs[index].values);
        backward(
            shape,
            self.groups,
            x,
            weight,
            bias,
            epilogue,
            saved,
            output_gradient,
            dx,
            dweight,
            dbias,
            dscale_shift,
        );
    }
}
