//! Images from images: interpolation, variation and inpainting.

use burn::tensor::{Tensor, assert_shape};
use noise::{Noise, Purpose, forward::q_sample};
use schedule::{NoiseLevel, Posterior};

use crate::{
    denoiser::{Denoiser, Observer, Step},
    error::{SamplerError, check_clip, check_levels, check_range},
    step::{StepNoise, predict},
};

/// Interpolates noise spherically (Shoemake 1985), image by image: between two Gaussian images every mixture has their length,
/// where the linear one would be too short. Images of the same or opposite directions are mixed linearly.
///
/// # Shapes
/// - `first`, `second` and the result: `[batch, channels, height, width]`; `share`: 0 is the first, 1 the second
pub fn slerp(first: Tensor<4>, second: Tensor<4>, share: f64) -> Tensor<4> {
    let [batch, channels, height, width] = first.dims();
    assert_shape!(second, [batch, channels, height, width]);
    let product = |a: &Tensor<4>, b: &Tensor<4>| -> Vec<f64> {
        let sums = (a.clone() * b.clone()).reshape([batch, channels * height * width]).sum_dim(1);
        sums.into_data().iter::<f64>().collect()
    };
    let (squares, others, crossed) = (product(&first, &first), product(&second, &second), product(&first, &second));
    let weights = |image: usize| {
        let cosine = crossed[image] / (squares[image] * others[image]).sqrt();
        let angle = cosine.clamp(-1.0, 1.0).acos();
        match angle.sin() {
            sine if sine > 1e-4 => [((1.0 - share) * angle).sin() / sine, (share * angle).sin() / sine],
            _ => [1.0 - share, share],
        }
    };
    let [of_first, of_second] =
        [0, 1].map(|which| noise::forward::coefficients((0..batch).map(|image| weights(image)[which]), &first));
    first * of_first + second * of_second
}

/// The end of `levels` that a sampler visits when it changes an image by `strength`: all of them at 1, the last step alone near
/// 0. The image is noised to the first of them with [`noised`].
///
/// # Errors
/// [`SamplerError`] if the levels are too few or `strength` is not in (0, 1].
pub fn levels_for_strength(levels: &[NoiseLevel], strength: f64) -> Result<&[NoiseLevel], SamplerError> {
    if levels.len() < 2 {
        return Err(SamplerError::TooFewLevels { found: levels.len() });
    }
    check_range("strength", strength, strength > 0.0 && strength <= 1.0, "above 0, at most 1")?;
    let steps = levels.len() - 1;
    let visited = ((steps as f64 * strength).round() as usize).clamp(1, steps);
    Ok(&levels[steps - visited..])
}

/// Noises images to a level with the initial noise of these noise indices. Sampling from there is image to image (SDEdit, Meng
/// et al. 2021, arXiv:2108.01073).
///
/// # Shapes
/// - `x_0` and the result: `[batch, channels, height, width]`; `noise_indices`: one for each image
pub fn noised(x_0: Tensor<4>, level: NoiseLevel, noise_indices: &[u64], noise: &Noise) -> Tensor<4> {
    let levels = vec![level; x_0.dims()[0]];
    let epsilon = noise.stream(Purpose::InitialNoise).normal_like(noise_indices, 0, &x_0);
    q_sample(x_0, epsilon, &levels)
}

/// Options of [`repaint`], with the paper's names in brackets.
#[derive(Clone, Debug, PartialEq)]
pub struct RepaintOptions {
    /// Number of forward steps of a jump back (j), at least 1.
    pub jump_length: usize,
    /// Number of times that each stretch is sampled (r), at least 1: 1 is no resampling.
    pub resamplings: usize,
    /// x_0 is clipped to ± this; None leaves it unclipped.
    pub clip: Option<f64>,
    /// Noise index of each image; None numbers them from 0.
    pub noise_indices: Option<Vec<u64>>,
}

impl Default for RepaintOptions {
    fn default() -> Self {
        Self { jump_length: 10, resamplings: 10, clip: Some(1.0), noise_indices: None }
    }
}

/// Inpaints by RePaint (Lugmayr, Danelljan, Romero, Yu, Timofte and Van Gool 2022, arXiv:2201.09865, algorithm 1), from `x_t`
/// at `levels[0]` to the last of `levels`. In each ancestral step the known pixels come from the image itself, noised to the
/// level; stretches of the chain are noised and sampled again, so that known and unknown pixels come to agree.
///
/// # Shapes
/// - `known`: `[batch, channels, height, width]` in [-1, 1]
/// - `mask`: the same shape, 1 where a pixel is known and 0 where it is not
/// - `x_t` and the result: the same shape
///
/// # Errors
/// [`SamplerError`] if the levels do not get cleaner or an option is out of range.
#[expect(clippy::too_many_arguments, reason = "image, mask and start, and the arguments of every sampler")]
pub fn repaint(
    denoiser: &dyn Denoiser,
    known: Tensor<4>,
    mask: Tensor<4>,
    x_t: Tensor<4>,
    levels: &[NoiseLevel],
    options: RepaintOptions,
    noise: &Noise,
    observe: &mut Observer,
) -> Result<Tensor<4>, SamplerError> {
    let [batch, channels, height, width] = x_t.dims();
    assert_shape!(known, [batch, channels, height, width]);
    assert_shape!(mask, [batch, channels, height, width]);
    check_levels(levels)?;
    check_clip(options.clip)?;
    for (name, value) in [("jump_length", options.jump_length), ("resamplings", options.resamplings)] {
        check_range(name, value as f64, value > 0, "at least 1")?;
    }
    let step_noise = StepNoise::new(noise, options.noise_indices, &x_t)?;
    let visits = visits(levels.len() - 1, options.jump_length, options.resamplings);
    let count = visits.len() - 1;
    let (mut x, mut self_condition) = (x_t, None::<Tensor<4>>);
    for (index, pair) in visits.windows(2).enumerate() {
        let (level, next) = (levels[pair[0]], levels[pair[1]]);
        // three draws of noise per step: for known pixels, for unknown ones, and for a forward step
        let draw = |which: usize| step_noise.draw(3 * index + which, &x);
        if pair[1] < pair[0] {
            // one Markov step of q between the two levels
            let keep = next.alpha_bar / level.alpha_bar;
            x = x.clone() * keep.sqrt() + draw(2) * (1.0 - keep).sqrt();
            continue;
        }
        let x_0 = predict(denoiser, &x, level, options.clip, self_condition.as_ref()).x_0;
        let Posterior { of_x_0, of_x_t, variance, .. } = Posterior::between(level, next);
        let x_unknown = x_0.clone() * of_x_0 + x.clone() * of_x_t + draw(1) * variance.sqrt();
        let x_known = known.clone() * next.signal_scale() + draw(0) * next.noise_scale();
        x = x_unknown.clone() + (x_known - x_unknown) * mask.clone();
        observe(Step { index, count, level: next, x_t: &x, x_0: &x_0 });
        self_condition = Some(x_0);
    }
    Ok(x)
}

/// The indices of the levels in the order of visits, 0 the noisiest: each stretch of `jump` steps, counted from the last level
/// that is not clean, is sampled `times` times (the authors' `get_schedule_jump`).
fn visits(steps: usize, jump: usize, times: usize) -> Vec<usize> {
    // counted from the clean end, which is 0
    let again = |t: usize| if t > 0 && (t - 1).is_multiple_of(jump) && t + jump <= steps { times - 1 } else { 0 };
    let mut left: Vec<usize> = (0..steps).map(again).collect();
    let mut t = steps;
    let mut visited = vec![t];
    while t > 0 {
        t -= 1;
        visited.push(t);
        if left[t] > 0 {
            left[t] -= 1;
            for _ in 0..jump {
                t += 1;
                visited.push(t);
            }
        }
    }
    visited.into_iter().map(|t| steps - t).collect()
}

#[cfg(test)]
mod tests {
    use super::visits;

    #[test]
    fn without_resampling_each_level_is_visited_once() {
        assert_eq!(visits(4, 10, 1), [0, 1, 2, 3, 4]);
        assert_eq!(visits(4, 2, 1), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn stretches_are_sampled_again() {
        // from t = 3 and from t = 1, once more each
        assert_eq!(visits(5, 2, 2), [0, 1, 2, 1, 0, 1, 2, 3, 4, 3, 2, 3, 4, 5]);
        let long = visits(50, 10, 10);
        assert_eq!((long[0], long[long.len() - 1]), (0, 50));
        assert!(long.windows(2).all(|pair| pair[0].abs_diff(pair[1]) == 1));
        // nine times more from t = 1, 11, 21 and 31, there and back
        assert_eq!(long.len() - 1, 50 + 4 * 9 * 2 * 10);
    }
}
