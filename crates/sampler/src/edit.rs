//! Making images out of images: interpolation, variation, and filling in.

use burn::tensor::{Tensor, assert_shape};
use noise::{Noise, Purpose, forward::q_sample};
use schedule::NoiseLevel;

use crate::{
    denoiser::{Denoiser, Observer, Step},
    error::{SamplerError, check, check_clip, check_range},
    step::{Posterior, fresh_noise, numbered},
};

/// Spherical interpolation of noise (Shoemake 1985), image by image: between two Gaussian images every share has their length
/// again, where the straight line would be too short. Images in one direction, or opposite ones, are mixed linearly.
///
/// # Shapes
/// - `first`, `second`: `[batch, channels, height, width]`; `share`: 0 is the first, 1 the second
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

/// The part of `levels` that is walked when an image is changed by `strength`: 1 is all of them, near 0 the last step alone. The
/// image is to be noised to the first of them ([`noised`]).
///
/// # Errors
/// [`SamplerError`] if the levels are too few or `strength` is not in (0, 1].
pub fn levels_for_strength(levels: &[NoiseLevel], strength: f64) -> Result<&[NoiseLevel], SamplerError> {
    if levels.len() < 2 {
        return Err(SamplerError::TooFewLevels { found: levels.len() });
    }
    check_range("strength", strength, strength > 0.0 && strength <= 1.0, "above 0, at most 1")?;
    let steps = levels.len() - 1;
    let walked = ((steps as f64 * strength).round() as usize).clamp(1, steps);
    Ok(&levels[steps - walked..])
}

/// Images at a noise level, with the noise that a chain of these samples starts with (SDEdit, Meng et al. 2021,
/// arXiv:2108.01073: image to image is sampling from there).
pub fn noised(x_0: Tensor<4>, level: NoiseLevel, noise_indices: &[u64], noise: &Noise) -> Tensor<4> {
    let [batch, channels, height, width] = x_0.dims();
    let epsilon =
        noise.stream(Purpose::InitialNoise).normal_images(noise_indices, 0, [channels, height, width], &x_0.device());
    let epsilon = Tensor::from_data(epsilon.into_data(), (&x_0.device(), x_0.dtype()));
    q_sample(x_0, epsilon, &vec![level; batch])
}

/// How [`repaint`] walks. The names in brackets are the paper's.
#[derive(Clone, Debug, PartialEq)]
pub struct RepaintOptions {
    /// How many steps are taken back at a time (j), at least 1.
    pub jump_length: usize,
    /// How often each stretch is walked (r), at least 1: 1 is no resampling.
    pub resamplings: usize,
    /// x_0 is clipped to ± this; None leaves it as it is.
    pub clip: Option<f64>,
    /// Which image of the seed each one in the batch is; None numbers them from 0.
    pub noise_indices: Option<Vec<u64>>,
}

impl Default for RepaintOptions {
    fn default() -> Self {
        Self { jump_length: 10, resamplings: 10, clip: Some(1.0), noise_indices: None }
    }
}

/// RePaint (Lugmayr, Danelljan, Romero, Yu, Timofte and Van Gool 2022, arXiv:2201.09865, algorithm 1): fills in what is not known of
/// an image. In each ancestral step what is known comes from the image itself, noised to the level; and stretches are noised
/// again and walked anew, so that both parts come to agree.
///
/// # Shapes
/// - `known`: `[batch, channels, height, width]` in [-1, 1]; `mask`: the same, 1 where the image is known and 0 where not
/// - `x_t`: the start at `levels[0]`, the same
///
/// # Errors
/// [`SamplerError`] if the levels do not get cleaner or an option is out of range.
#[expect(clippy::too_many_arguments, reason = "image, mask and start, and what every sampler takes")]
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
    check(levels, &x_t, options.noise_indices.as_deref())?;
    check_clip(options.clip)?;
    for (name, value) in [("jump_length", options.jump_length), ("resamplings", options.resamplings)] {
        check_range(name, value as f64, value > 0, "at least 1")?;
    }
    let noise_indices = numbered(options.noise_indices, &x_t);
    let walk = walk(levels.len() - 1, options.jump_length, options.resamplings);
    let count = walk.len() - 1;
    let (mut x, mut estimate) = (x_t, None::<Tensor<4>>);
    for (index, pair) in walk.windows(2).enumerate() {
        let (level, next) = (levels[pair[0]], levels[pair[1]]);
        // three draws of noise a step: for what is known, for what is not, for the way back
        let draw = |which: usize| fresh_noise(noise, &noise_indices, 3 * index + which, &x);
        if pair[1] < pair[0] {
            // back: one Markov step of q between the two levels
            let keep = next.alpha_bar / level.alpha_bar;
            x = x.clone() * keep.sqrt() + draw(2) * (1.0 - keep).sqrt();
            continue;
        }
        let mut prediction = denoiser.denoise(x.clone(), level, estimate.as_ref());
        if let Some(limit) = options.clip {
            prediction.x_0 = prediction.x_0.clamp(-limit, limit);
        }
        let Posterior { of_x_0, of_x_t, variance, .. } = Posterior::new(level, next);
        let free = prediction.x_0.clone() * of_x_0 + x.clone() * of_x_t + draw(1) * variance.sqrt();
        let kept = known.clone() * next.signal_scale() + draw(0) * next.noise_scale();
        x = free.clone() + (kept - free) * mask.clone();
        observe(Step { index, count, level: next, x_t: &x, x_0: &prediction.x_0 });
        estimate = Some(prediction.x_0);
    }
    Ok(x)
}

/// The indices of the levels that are visited, 0 the noisiest: each stretch of `jump` steps, counted from the last level that is
/// not clean, is walked `times` times (the authors' `get_schedule_jump`).
fn walk(steps: usize, jump: usize, times: usize) -> Vec<usize> {
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
    use super::walk;

    #[test]
    fn without_resampling_the_walk_is_straight() {
        assert_eq!(walk(4, 10, 1), [0, 1, 2, 3, 4]);
        assert_eq!(walk(4, 2, 1), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn stretches_are_walked_again() {
        // from t = 3 and from t = 1, once more each
        assert_eq!(walk(5, 2, 2), [0, 1, 2, 1, 0, 1, 2, 3, 4, 3, 2, 3, 4, 5]);
        let long = walk(50, 10, 10);
        assert_eq!((long[0], long[long.len() - 1]), (0, 50));
        assert!(long.windows(2).all(|pair| pair[0].abs_diff(pair[1]) == 1));
        // from t = 1, 11, 21 and 31, each walked nine times more, there and back
        assert_eq!(long.len() - 1, 50 + 4 * 9 * 2 * 10);
    }
}
