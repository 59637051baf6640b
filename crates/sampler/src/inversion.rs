//! DDIM inversion: from an image to the noise that DDIM would start from (Song, Meng and Ermon 2020, arXiv:2010.02502,
//! section 4.3; Dhariwal and Nichol 2021, arXiv:2105.05233, appendix F).

use burn::tensor::Tensor;
use schedule::NoiseLevel;

use crate::{
    denoiser::{Denoiser, Observer, Step},
    error::{SamplerError, check_levels_with_signal},
    step::move_along,
};

/// Inverts DDIM, from the image `x_0` at the *last* of `levels` to x_t at `levels[0]`, the noisiest: [`ddim`](crate::ddim) over
/// the same levels, without clipping and noise, leads from x_t to about `x_0`.
///
/// Each step solves `x' = sqrt(a') x_0(x', t') + sqrt(1 - a') epsilon(x', t')` for x' by `refinements` fixed-point iterations;
/// 0 uses the prediction for x in place of x', which is the usual DDIM inversion. With refinements a round trip is exact up to
/// the convergence of the iteration.
///
/// # Shapes
/// - `x_0` and the result: `[batch, channels, height, width]`
///
/// # Errors
/// [`SamplerError`] if the levels do not get cleaner or the first has no signal at all.
pub fn ddim_inversion(
    denoiser: &dyn Denoiser,
    x_0: Tensor<4>,
    levels: &[NoiseLevel],
    refinements: usize,
    observe: &mut Observer,
) -> Result<Tensor<4>, SamplerError> {
    check_levels_with_signal(levels)?;
    let count = levels.len() - 1;
    let mut x = x_0;
    for (index, pair) in levels.windows(2).rev().enumerate() {
        let (noisier, level) = (pair[0], pair[1]);
        // epsilon is that of the noisier end
        let mut prediction = denoiser.denoise(x.clone(), noisier, None);
        for _ in 0..refinements {
            prediction = denoiser.denoise(move_along(&x, prediction.epsilon, level, noisier), noisier, None);
        }
        x = move_along(&x, prediction.epsilon, level, noisier);
        observe(Step { index, count, level: noisier, x_t: &x, x_0: &prediction.x_0 });
    }
    Ok(x)
}
