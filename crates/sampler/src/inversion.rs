//! DDIM inversion: from an image to the noise that DDIM would make it of (Song, Meng and Ermon 2020, section 4.3;
//! Dhariwal and Nichol 2021, arXiv:2105.05233, appendix F).

use burn::tensor::Tensor;
use schedule::NoiseLevel;

use crate::{
    denoiser::{Denoiser, Observer, Step},
    error::{SamplerError, check, check_finite_sigma},
};

/// Walks from the image `x_0` at the *last* of `levels` back to `levels[0]`, the noisiest, and returns x_t there:
/// [`ddim`](crate::ddim) over the same levels, without clipping and noise, leads from it to about `x_0` again.
///
/// Each step solves `x' = sqrt(a') x_0(x', t') + sqrt(1 - a') epsilon(x', t')` for x' by `refinements` rounds of
/// fixed-point iteration; 0 takes the prediction made with x in place of x', as DDIM inversion is usually done. Refined,
/// a round trip is exact up to the convergence of the iteration.
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
    check(levels, &x_0, None)?;
    check_finite_sigma(levels)?;
    let count = levels.len() - 1;
    let mut x = x_0;
    for (index, pair) in levels.windows(2).rev().enumerate() {
        let (noisier, level) = (pair[0], pair[1]);
        // x / alpha + (sigma' - sigma) epsilon, where epsilon belongs to the noisier end
        let moved = |epsilon: Tensor<4>| {
            (x.clone() / level.signal_scale() + epsilon * (noisier.sigma() - level.sigma())) * noisier.signal_scale()
        };
        let mut prediction = denoiser.denoise(x.clone(), noisier, None);
        for _ in 0..refinements {
            prediction = denoiser.denoise(moved(prediction.epsilon), noisier, None);
        }
        x = moved(prediction.epsilon);
        observe(Step { index, count, level: noisier, x_t: &x, x_0: &prediction.x_0 });
    }
    Ok(x)
}
