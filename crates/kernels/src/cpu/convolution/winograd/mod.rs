//! Winograd's minimal filtering for 3x3 convolutions of stride 1 and padding 1.
//!
//! # Mathematics
//! The output is cut into tiles of `M` by `M` pixels. One tile depends on `T` by `T` input pixels, `T = M + 2`, and is
//! `y = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ x B)] A` with `⊙` the product of elements (Lavin and Gray 2015, arXiv:1509.09308). Summed
//! over input channels, the `⊙` becomes `T²` independent matrix products `[tiles, in] [in, out]`, with `T² / 9M²` of
//! the direct algorithm's multiplications: 1/4 for F(4x4, 3x3) and 4/9 for F(2x2, 3x3). `T - 1` of the `T`
//! interpolation points are 0, 1, -1 (and 2, -2 for `M = 4`), the last is infinity. F(4x4) loses about one decimal
//! digit to these larger numbers.
//!
//! # Gradients
//! The input gradient is the same convolution of the output gradient with the weights turned by 180 degrees and the
//! roles of the channels exchanged. The weight gradient is the adjoint in `w`: `Gᵀ [Σ (A dy Aᵀ) ⊙ (Bᵀ x B)] G`, summed
//! over tiles, hence `T²` products `[in, tiles] [tiles, out]`. At the point (1, 1) the factor `A dy Aᵀ` is the sum
//! of the tile's output gradient, so the bias gradient costs nothing more.
//!
//! # Upsampling
//! Nearest-neighbor upsampling by 2 is the polynomial `x(z²)(1 + z)`, which vanishes at `z = -1`: every transformed
//! input with that point as row or column is zero and is left out, 25 products instead of 36 (F(4x4)) or 9 instead of
//! 16. The same holds for the input gradient, where the output transform folds each 2x2 square into one low-resolution
//! pixel: the rows of `Aᵀ` summed in pairs are zero at -1.
//!
//! # Blocks
//! Channels are cut into blocks of at most 64 and tiles into groups, so that one block of transformed weights and a
//! group's transformed pixels and products lie in the second-level cache. With many tiles the weights are transformed
//! once, ahead of all groups. With few tiles, where the weights are most of the data, every task owns a block of output
//! channels and transforms its weights just before it uses them.

#![expect(clippy::needless_range_loop, reason = "indices as in the formulas, and the same for several arrays")]

mod filter;
mod pass;
mod tiles;
mod weight_gradient;

pub(crate) use filter::{F2, F4};
pub(crate) use pass::Pass;
pub(crate) use weight_gradient::WeightGradient;
