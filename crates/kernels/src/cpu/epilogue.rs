//! The operations that are fused into the pass of a normalization: a factor and an offset per channel, the scale and shift
//! of a time embedding, SiLU.
//!
//! With x̂ the normalized input, s the sample and c the channel, every variant is
//!
//! ```text
//! y = f(z)    z = x̂ k + o    k[s,c] = weight[c] (scale[s,c] + 1)    o[s,c] = bias[c] (scale[s,c] + 1) + shift[s,c]
//! ```
//!
//! so a kernel needs only k (`slope`) and o (`offset`). Backward, with ż = ẏ f'(z), the kernel gives per sample and
//! channel `A = Σ ż` and `B = Σ ż x̂` (sums over positions), and
//!
//! ```text
//! shift' = A    scale' = weight B + bias A    weight' = Σ_s (scale + 1) B    bias' = Σ_s (scale + 1) A
//! ```

use std::iter::repeat_n;

use crate::cpu::operation::View;
use crate::cpu::parallel::{BLOCK, check_length};

/// The shape of a channels-last tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Samples.
    pub batch: usize,
    /// Pixels of one sample: height times width.
    pub positions: usize,
    /// Values of one pixel.
    pub channels: usize,
}

impl Shape {
    /// The shape of an image `[batch, height, width, channels]`.
    pub(crate) fn of(image: View) -> Self {
        let [batch, height, width, channels] = image.shape else { unreachable!("an image has four dimensions") };
        Self { batch: *batch, positions: height * width, channels: *channels }
    }

    /// Elements of the whole tensor.
    pub fn elements(&self) -> usize {
        self.batch * self.positions * self.channels
    }

    /// Elements of one sample.
    pub(crate) fn sample(&self) -> usize {
        self.positions * self.channels
    }

    /// Positions that one task covers, the last of a sample perhaps fewer.
    pub(crate) fn block_positions(&self) -> usize {
        (BLOCK / self.channels).clamp(1, self.positions)
    }

    /// Tasks of one sample.
    pub(crate) fn blocks(&self) -> usize {
        self.positions.div_ceil(self.block_positions())
    }

    /// The blocks of all samples, one for each task.
    pub(crate) fn split<'a>(&self, values: &'a [f32]) -> impl Iterator<Item = &'a [f32]> {
        let block = self.block_positions() * self.channels;
        values.chunks_exact(self.sample()).flat_map(move |sample| sample.chunks(block))
    }

    /// [`split`](Self::split) of mutable values.
    pub(crate) fn split_mut<'a>(&self, values: &'a mut [f32]) -> impl Iterator<Item = &'a mut [f32]> {
        let block = self.block_positions() * self.channels;
        values.chunks_exact_mut(self.sample()).flat_map(move |sample| sample.chunks_mut(block))
    }

    /// The values of the sample of each block, from equal parts for all samples.
    pub(crate) fn of_blocks<'a>(&self, values: &'a [f32]) -> impl Iterator<Item = &'a [f32]> {
        let blocks = self.blocks();
        values.chunks_exact(values.len() / self.batch).flat_map(move |sample| repeat_n(sample, blocks))
    }

    /// Panics where a dimension is 0.
    #[track_caller]
    pub(crate) fn check(&self) {
        assert!(self.batch > 0 && self.positions > 0 && self.channels > 0, "no dimension may be 0: {self:?}");
    }
}

/// The operations behind a normalization.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue<'a> {
    /// `y = z`.
    Identity,
    /// `y = silu(z)`.
    Silu,
    /// `y = silu(z (scale + 1) + shift)`, with `[batch, 2, channels]`: of each sample the scale, then the shift.
    ScaleShiftSilu(&'a [f32]),
}

/// The epilogue as one factor and one offset per sample and channel.
pub(crate) struct Affine {
    /// `[batch, channels]`.
    pub slope: Vec<f32>,
    /// `[batch, channels]`.
    pub offset: Vec<f32>,
    /// Whether SiLU follows.
    pub silu: bool,
}

/// The gradients of the factors and offsets of an epilogue.
pub(crate) struct Gradients<'a> {
    pub weight: &'a mut [f32],
    /// Empty where there is no bias.
    pub bias: &'a mut [f32],
    /// `[batch, 2, channels]`; empty where there is no scale and shift.
    pub scale_shift: &'a mut [f32],
}

impl<'a> Epilogue<'a> {
    /// The epilogue of a burn operation: scale and shift, if any, come before SiLU.
    pub(crate) fn of(silu: bool, scale_shift: Option<&View<'a>>) -> Self {
        match scale_shift {
            Some(scale_shift) => Self::ScaleShiftSilu(scale_shift.values),
            None if silu => Self::Silu,
            None => Self::Identity,
        }
    }
}

impl Epilogue<'_> {
    /// Scale and shift of one sample.
    fn scale_shift(&self, sample: usize, channels: usize) -> Option<(&[f32], &[f32])> {
        match self {
            Self::ScaleShiftSilu(values) => Some(values[2 * sample * channels..][..2 * channels].split_at(channels)),
            _ => None,
        }
    }

    /// Slope and offset of every sample. An empty `bias` is one of zeros.
    pub(crate) fn affine(&self, shape: Shape, weight: &[f32], bias: &[f32]) -> Affine {
        let Shape { batch, channels, .. } = shape;
        if let Self::ScaleShiftSilu(values) = self {
            check_length("scale_shift", values.len(), 2 * batch * channels);
        }
        let (mut slope, mut offset) = (Vec::with_capacity(batch * channels), Vec::with_capacity(batch * channels));
        for sample in 0..batch {
            let scale_shift = self.scale_shift(sample, channels);
            for channel in 0..channels {
                let (scale, shift) = scale_shift.map_or((1.0, 0.0), |(a, b)| (a[channel] + 1.0, b[channel]));
                slope.push(weight[channel] * scale);
                offset.push(bias.get(channel).map_or(shift, |bias| bias * scale + shift));
            }
        }
        Affine { slope, offset, silu: !matches!(self, Self::Identity) }
    }

    /// The gradients from the sums of all tasks: `[batch, blocks, 2, channels]`, of each task A, then B.
    ///
    /// Returns the sums per sample, `[batch, 2, channels]`.
    pub(crate) fn gradients(
        &self,
        shape: Shape,
        weight: &[f32],
        bias: &[f32],
        sums: &[f32],
        gradients: Gradients<'_>,
    ) -> Vec<f32> {
        let Shape { batch, channels, .. } = shape;
        let mut totals = vec![0.0; 2 * batch * channels];
        let blocks = sums.chunks_exact(2 * channels * shape.blocks());
        for (total, blocks) in totals.chunks_exact_mut(2 * channels).zip(blocks) {
            for block in blocks.chunks_exact(2 * channels) {
                total.iter_mut().zip(block).for_each(|(total, value)| *total += value);
            }
        }
        gradients.weight.fill(0.0);
        gradients.bias.fill(0.0);
        for sample in 0..batch {
            let (a, b) = totals[2 * sample * channels..][..2 * channels].split_at(channels);
            let scale_shift = self.scale_shift(sample, channels);
            for channel in 0..channels {
                let scale = scale_shift.map_or(1.0, |(scale, _)| scale[channel] + 1.0);
                gradients.weight[channel] += scale * b[channel];
                if let Some(bias_gradient) = gradients.bias.get_mut(channel) {
                    *bias_gradient += scale * a[channel];
                }
                if scale_shift.is_some() {
                    let bias = bias.get(channel).map_or(0.0, |bias| bias * a[channel]);
                    gradients.scale_shift[2 * sample * channels..][channel] = weight[channel] * b[channel] + bias;
                    gradients.scale_shift[2 * sample * channels..][channels + channel] = a[channel];
                }
            }
        }
        totals
    }

    /// Panics unless the gradient of scale and shift is as long as they are.
    #[track_caller]
    pub(crate) fn check_gradient(&self, shape: Shape, gradient: &[f32]) {
        let expected = if matches!(self, Self::ScaleShiftSilu(_)) { 2 * shape.batch * shape.channels } else { 0 };
        check_length("scale_shift_gradient", gradient.len(), expected);
    }
}
