//! PNDM, pseudo numerical methods for diffusion models on manifolds (Liu, Ren, Lin and Zhao 2022, arXiv:2202.09778).

use std::collections::VecDeque;

use burn::tensor::Tensor;
use schedule::NoiseLevel;

use crate::{
    denoiser::{Denoiser, Observer, Step},
    error::{SamplerError, check_clip, check_levels},
    step::predict,
};

/// Options of [`pndm`].
#[derive(Clone, Debug, PartialEq)]
pub struct PndmOptions {
    /// Levels half-way through each of the first three steps, which are then of the pseudo Runge-Kutta method (four network
    /// evaluations each), as in the paper. None begins with a repeated Euler step and lower orders (PLMS, diffusers'
    /// `skip_prk_steps`).
    pub midpoints: Option<[NoiseLevel; 3]>,
    /// x_0 is clipped to ± this and epsilon derived from it; None leaves both unchanged.
    pub clip: Option<f64>,
}

impl Default for PndmOptions {
    fn default() -> Self {
        Self { midpoints: None, clip: Some(1.0) }
    }
}

/// Samples by PNDM, from `x_t` at `levels[0]` to the last of `levels`: a linear multistep method of fourth order for epsilon,
/// and DDIM's transfer between levels (equations 11 and 12; the first steps 13). There is no self-conditioning.
///
/// # Shapes
/// - `x_t` and the result: `[batch, channels, height, width]`
///
/// # Errors
/// [`SamplerError`] if the levels do not get cleaner, there are midpoints and fewer than four steps, or an option is out
/// of range.
pub fn pndm(
    denoiser: &dyn Denoiser,
    x_t: Tensor<4>,
    levels: &[NoiseLevel],
    options: PndmOptions,
    observe: &mut Observer,
) -> Result<Tensor<4>, SamplerError> {
    check_levels(levels)?;
    check_clip(options.clip)?;
    for (pair, middle) in levels.windows(2).zip(options.midpoints.into_iter().flatten()) {
        check_levels(&[pair[0], middle, pair[1]])?;
    }
    let count = levels.len() - 1;
    let mut x = x_t;
    // epsilon, the newest first
    let mut history = VecDeque::<Tensor<4>>::new();

    for (index, pair) in levels.windows(2).enumerate() {
        let (level, next) = (pair[0], pair[1]);
        let evaluate = |x: &Tensor<4>, level: NoiseLevel| predict(denoiser, x, level, options.clip, None);
        let prediction = evaluate(&x, level);
        history.push_front(prediction.epsilon.clone());
        history.truncate(4);
        let e = |age: usize| history[age].clone();

        let midpoint = options.midpoints.and_then(|midpoints| midpoints.get(index).copied());
        let slope = match (midpoint, history.len()) {
            (Some(middle), _) => {
                // pseudo Runge-Kutta
                let e_1 = e(0);
                let e_2 = evaluate(&transfer(&x, &e_1, level, middle), middle).epsilon;
                let e_3 = evaluate(&transfer(&x, &e_2, level, middle), middle).epsilon;
                let e_4 = evaluate(&transfer(&x, &e_3, level, next), next).epsilon;
                (e_1 + e_2 * 2.0 + e_3 * 2.0 + e_4) / 6.0
            }
            (None, 1) if next.alpha_bar < 1.0 => {
                // Euler's step, repeated with the mean slope of both ends
                let e_1 = e(0);
                let end = evaluate(&transfer(&x, &e_1, level, next), next).epsilon;
                (e_1 + end) / 2.0
            }
            (None, 1) => e(0),
            (None, 2) => (e(0) * 3.0 - e(1)) / 2.0,
            (None, 3) => (e(0) * 23.0 - e(1) * 16.0 + e(2) * 5.0) / 12.0,
            (None, _) => (e(0) * 55.0 - e(1) * 59.0 + e(2) * 37.0 - e(3) * 9.0) / 24.0,
        };
        x = transfer(&x, &slope, level, next);
        observe(Step { index, count, level: next, x_t: &x, x_0: &prediction.x_0 });
    }
    Ok(x)
}

/// The transfer part (equation 11): DDIM's step with this epsilon.
fn transfer(x: &Tensor<4>, epsilon: &Tensor<4>, level: NoiseLevel, next: NoiseLevel) -> Tensor<4> {
    let x_0 = (x.clone() - epsilon.clone() * level.noise_scale()) / level.signal_scale();
    x_0 * next.signal_scale() + epsilon.clone() * next.noise_scale()
}
