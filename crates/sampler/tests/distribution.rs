//! DDPM and DDIM on data of a known distribution: moments, determinism, and the arguments of denoiser and observer.
//!
//! All seeds are fixed: the tests are deterministic.

use std::cell::RefCell;

use burn::tensor::{Device, Tensor, TensorData, Tolerance};
use noise::{Noise, Purpose};
use sampler::{
    DdimOptions, DdpmOptions, Denoiser, GaussianMixture, Guided, NoiseLevel, Observer, Prediction, Variance, ddim, ddpm,
};
use schedule::{BetaSchedule, Schedule, Spacing};

/// Timesteps of the cosine schedule that all tests use.
const TIMESTEPS: usize = 200;
/// Images and their shape: 40 960 pixels.
const IMAGES: u64 = 40;
const IMAGE: [usize; 3] = [1, 32, 32];

fn schedule() -> Schedule {
    Schedule::new(&BetaSchedule::default(), TIMESTEPS).expect("a schedule")
}

fn levels(steps: usize) -> Vec<NoiseLevel> {
    schedule().levels(Spacing::Lucidrains, steps).expect("at most all steps")
}

fn start(images: &[u64], image: [usize; 3]) -> Tensor<4> {
    Noise::new(11).stream(Purpose::InitialNoise).normal_images(images, 0, image, &Device::flex())
}

fn big_start() -> Tensor<4> {
    start(&(0..IMAGES).collect::<Vec<_>>(), IMAGE)
}

fn values(x: &Tensor<4>) -> Vec<f32> {
    x.to_data().try_to_vec().expect("f32")
}

fn two_components() -> GaussianMixture {
    GaussianMixture::new(vec![(0.3, -0.6, 0.1), (0.7, 0.4, 0.2)])
}

/// A sampler and its amount of noise.
#[derive(Clone, Copy, Debug)]
enum Sampler {
    Ddpm(Variance),
    Ddim { eta: f64 },
}

impl Sampler {
    fn run(
        self,
        denoiser: &dyn Denoiser,
        x_t: Tensor<4>,
        levels: &[NoiseLevel],
        (clip, noise_indices): (Option<f64>, Option<Vec<u64>>),
        observe: &mut Observer,
    ) -> Tensor<4> {
        let noise = Noise::new(11);
        match self {
            Self::Ddpm(variance) => {
                ddpm(denoiser, x_t, levels, DdpmOptions { variance, clip, noise_indices }, &noise, observe)
            }
            Self::Ddim { eta } => {
                ddim(denoiser, x_t, levels, DdimOptions { eta, clip, noise_indices }, &noise, observe)
            }
        }
        .expect("good arguments")
    }
}

struct Moments {
    mean: f64,
    variance: f64,
    /// Standard errors of the two.
    mean_error: f64,
    variance_error: f64,
}

fn moments(x: &Tensor<4>) -> Moments {
    let values = values(x);
    let count = values.len() as f64;
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    let central = |power| values.iter().map(|value| (f64::from(*value) - mean).powi(power)).sum::<f64>() / count;
    let variance = central(2);
    Moments {
        mean,
        variance,
        mean_error: (variance / count).sqrt(),
        variance_error: ((central(4) - variance * variance).max(0.0) / count).sqrt(),
    }
}

/// Within four standard errors plus an allowance, and 1e-6 for rounding where the result is deterministic.
fn assert_moments(x: &Tensor<4>, mean: f64, variance: f64, allowance: (f64, f64), what: &str) {
    let found = moments(x);
    let error = (found.mean - mean).abs();
    assert!(error <= 4.0 * found.mean_error + allowance.0 + 1e-6, "{what}: mean {} is not {mean}", found.mean);
    let error = (found.variance - variance).abs();
    let limit = 4.0 * found.variance_error + allowance.1 + 1e-6;
    assert!(error <= limit, "{what}: variance {} is not {variance}", found.variance);
}

/// The allowances for mean and variance are the discretization errors: the same chains over a million pixels in NumPy, in
/// f64, were off by at most 0.0012 and 0.0050 with all 200 steps and by 0.0039 and 0.0159 with 50.
fn check_mixture(sampler: Sampler) {
    let mixture = two_components();
    assert!((mixture.mean() - 0.1).abs() < 1e-12 && (mixture.variance() - 0.241).abs() < 1e-12);
    for (steps, allowance) in [(TIMESTEPS, (0.0015, 0.006)), (50, (0.0045, 0.0175))] {
        let x = sampler.run(&mixture, big_start(), &levels(steps), (None, None), &mut |_| ());
        let what = format!("{sampler:?}, {steps} steps");
        assert_moments(&x, mixture.mean(), mixture.variance(), allowance, &what);
        // beyond two moments, the share of the left component: 0.3009 of the data is below -0.2
        let left = x.lower_elem(-0.2).float().mean().into_scalar::<f32>();
        assert!((left - 0.3009).abs() < 0.0092 + 0.01, "{what}: {left} is left of -0.2");
    }
}

#[test]
fn ddpm_with_the_posterior_variance_samples_the_mixture() {
    check_mixture(Sampler::Ddpm(Variance::Posterior));
}

#[test]
fn ddpm_with_the_variance_beta_samples_the_mixture() {
    check_mixture(Sampler::Ddpm(Variance::Beta));
}

#[test]
fn ddim_without_noise_samples_the_mixture() {
    check_mixture(Sampler::Ddim { eta: 0.0 });
}

#[test]
fn ddim_with_noise_samples_the_mixture() {
    check_mixture(Sampler::Ddim { eta: 1.0 });
}

/// If all data is one point, the denoiser returns x_0, and every step must end on q(x_t | x_0) exactly, with any number and
/// spacing of steps: theorem 1 of the DDIM paper for any eta, and the case for which the posterior variance is exact.
#[test]
fn marginals_are_exact_where_the_data_is_one_point() {
    let point = GaussianMixture::new(vec![(1.0, 0.5, 0.0)]);
    let rescaled = schedule().rescale_zero_terminal_snr().expect("more than one step");
    assert_eq!(rescaled.level(TIMESTEPS - 1).alpha_bar, 0.0);
    for schedule in [schedule(), rescaled] {
        let levels = schedule.levels(Spacing::Lucidrains, 7).expect("7 of 200");
        for sampler in [
            Sampler::Ddpm(Variance::Posterior),
            Sampler::Ddim { eta: 0.0 },
            Sampler::Ddim { eta: 0.5 },
            Sampler::Ddim { eta: 1.0 },
            // limited to the noise of the next level
            Sampler::Ddim { eta: 10.0 },
        ] {
            let x_t = big_start() * levels[0].noise_scale() + levels[0].signal_scale() * 0.5;
            let mut seen = 0;
            sampler.run(&point, x_t, &levels, (None, None), &mut |step| {
                let (mean, variance) = (step.level.signal_scale() * 0.5, 1.0 - step.level.alpha_bar);
                assert_moments(step.x_t, mean, variance, (0.0, 0.0), &format!("{sampler:?} at {:?}", step.level));
                seen += 1;
            });
            assert_eq!(seen, 7);
        }
    }
}

/// If the data is standard normal, so is every x_t, and beta is the exact variance with any number of steps (Ho et al.,
/// section 3.2). The last step adds no noise: the estimate of x_0 has the variance alpha_bar of the previous level.
#[test]
fn marginals_of_beta_are_exact_where_the_data_is_standard_normal() {
    let normal = GaussianMixture::new(vec![(1.0, 0.0, 1.0)]);
    let levels = levels(7);
    Sampler::Ddpm(Variance::Beta).run(&normal, big_start(), &levels, (None, None), &mut |step| {
        let variance = if step.index + 1 == step.count { levels[step.index].alpha_bar } else { 1.0 };
        assert_moments(step.x_t, 0.0, variance, (0.0, 0.0), &format!("step {}", step.index));
    });
    // the posterior variance is too small here, by far more than the error
    let x = Sampler::Ddpm(Variance::Posterior).run(&normal, big_start(), &levels, (None, None), &mut |_| ());
    assert!(moments(&x).variance < 0.9 * levels[6].alpha_bar);
}

#[test]
fn an_image_is_the_same_alone_or_in_a_batch() {
    let mixture = two_components();
    let (levels, image) = (levels(12), [2, 5, 7]);
    for sampler in [Sampler::Ddpm(Variance::Posterior), Sampler::Ddpm(Variance::Beta), Sampler::Ddim { eta: 1.0 }] {
        let run = |x_t, noise_indices| sampler.run(&mixture, x_t, &levels, (Some(1.0), noise_indices), &mut |_| ());
        let batch = run(start(&(0..8).collect::<Vec<_>>(), image), None);
        let alone = run(start(&[5], image), Some(vec![5]));
        assert_eq!(values(&alone), values(&batch)[5 * 70..6 * 70], "{sampler:?}");
        let other = run(start(&[5], image), Some(vec![6]));
        assert_ne!(values(&alone), values(&other), "{sampler:?} depends on the noise index");
        let numbered = run(start(&(0..8).collect::<Vec<_>>(), image), Some((0..8).collect()));
        assert_eq!(values(&batch), values(&numbered), "{sampler:?} numbers images from 0");
    }
}

#[test]
fn the_noise_follows_from_the_seed() {
    let mixture = two_components();
    let draw = |seed| {
        let options = DdpmOptions::default();
        let x = ddpm(&mixture, start(&[0], IMAGE), &levels(5), options, &Noise::new(seed), &mut |_| ());
        values(&x.expect("good arguments"))
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

/// One step of both samplers from the same x_t, with the same noise, at every pair of levels.
#[test]
fn a_ddim_step_with_eta_1_is_a_ddpm_step() {
    let mixture = two_components();
    let levels = levels(20);
    for clip in [None, Some(0.5)] {
        for pair in levels[..20].windows(2) {
            let chain = [pair[0], pair[1], NoiseLevel::CLEAN];
            let first_step = |sampler: Sampler| {
                let mut after = None;
                sampler.run(&mixture, start(&[0, 1], IMAGE), &chain, (clip, None), &mut |step| {
                    after.get_or_insert_with(|| step.x_t.to_data());
                });
                after.expect("an observed step")
            };
            let ancestral = first_step(Sampler::Ddpm(Variance::Posterior));
            let implicit = first_step(Sampler::Ddim { eta: 1.0 });
            implicit.assert_approx_eq::<f32>(&ancestral, Tolerance::absolute(2e-5));
            let straight = first_step(Sampler::Ddim { eta: 0.0 });
            let difference =
                Tensor::<4>::from_data(straight, &Device::flex()) - Tensor::<4>::from_data(ancestral, &Device::flex());
            assert!(difference.abs().max().into_scalar::<f32>() > 1e-2, "without noise the step differs");
        }
    }
}

#[test]
fn guidance_is_linear_in_the_scale() {
    let conditional = GaussianMixture::new(vec![(1.0, 0.4, 0.2)]);
    let unconditional = two_components();
    let (level, x_t) = (schedule().level(120), start(&[0], IMAGE));
    let predict = |denoiser: &dyn Denoiser| denoiser.denoise(x_t.clone(), level, None);
    let guided = |scale| predict(&Guided::new(&conditional, &unconditional, scale));
    let (c, u) = (predict(&conditional), predict(&unconditional));
    assert!((c.x_0.clone() - u.x_0.clone()).abs().max().into_scalar::<f32>() > 0.1, "they differ");

    assert_eq!(guided(1.0).x_0.into_data(), c.x_0.to_data());
    assert_eq!(guided(1.0).epsilon.into_data(), c.epsilon.to_data());
    assert_eq!(guided(0.0).x_0.into_data(), u.x_0.to_data());
    assert_eq!(guided(0.0).epsilon.into_data(), u.epsilon.to_data());
    for scale in [2.0, 0.5] {
        let mixed = |c: &Tensor<4>, u: &Tensor<4>| (c.clone() * scale + u.clone() * (1.0 - scale)).into_data();
        let tolerance = Tolerance::<f32>::absolute(1e-5);
        guided(scale).x_0.into_data().assert_approx_eq(&mixed(&c.x_0, &u.x_0), tolerance);
        guided(scale).epsilon.into_data().assert_approx_eq(&mixed(&c.epsilon, &u.epsilon), tolerance);
    }
}

/// A denoiser with a learned variance that is constant over pixels.
struct WithVariance {
    mixture: GaussianMixture,
    /// The place of its logarithm between those of the posterior variance (-1) and of beta (1).
    place: f64,
}

impl Denoiser for WithVariance {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, self_condition: Option<&Tensor<4>>) -> Prediction {
        let variance = x_t.ones_like() * self.place;
        Prediction { variance: Some(variance), ..self.mixture.denoise(x_t, level, self_condition) }
    }
}

#[test]
fn a_learned_variance_interpolates_between_posterior_and_beta() {
    let (levels, x_t) = (levels(12), start(&[0, 1], IMAGE));
    let run = |variance, place| {
        let denoiser = WithVariance { mixture: two_components(), place };
        let mut after = Vec::new();
        Sampler::Ddpm(variance).run(&denoiser, x_t.clone(), &levels, (Some(1.0), None), &mut |step| {
            after.push(step.x_t.to_data());
        });
        after
    };
    let compare = |learned: Vec<TensorData>, fixed: Vec<TensorData>| {
        assert_eq!(learned.len(), 12);
        for (learned, fixed) in learned.iter().zip(&fixed) {
            learned.assert_approx_eq::<f32>(fixed, Tolerance::absolute(2e-5));
        }
    };
    let (posterior, beta) = (run(Variance::Posterior, 0.0), run(Variance::Beta, 0.0));
    assert_ne!(posterior, beta);
    compare(run(Variance::Learned, -1.0), posterior.clone());
    compare(run(Variance::Learned, 1.0), beta.clone());

    // half-way in the logarithm: the noise of the first step is the geometric mean of the two
    let (half, mean) = (run(Variance::Learned, 0.0), first_mean(&x_t, levels[0], levels[1]));
    let noise = |after: &[TensorData]| (Tensor::<4>::from_data(after[0].clone(), &Device::flex()) - mean.clone()).abs();
    let geometric = (noise(&posterior) * noise(&beta)).sqrt();
    noise(&half).into_data().assert_approx_eq::<f32>(&geometric.into_data(), Tolerance::absolute(2e-5));
    assert_ne!(half[0], posterior[0]);
    assert_ne!(half[0], beta[0]);
}

/// Mean of q(x_next | x_t, x_0) with the denoiser's x_0, clipped to ±1: the product of the two Gaussians
/// q(x_next | x_0) and q(x_t | x_next), by their precisions.
fn first_mean(x_t: &Tensor<4>, level: NoiseLevel, next: NoiseLevel) -> Tensor<4> {
    let x_0 = two_components().denoise(x_t.clone(), level, None).x_0.clamp(-1.0, 1.0);
    let alpha = level.alpha_bar / next.alpha_bar;
    let (before, after) = (1.0 / (1.0 - next.alpha_bar), alpha / (1.0 - alpha));
    (x_0 * (next.alpha_bar.sqrt() * before) + x_t.clone() * (after / alpha.sqrt())) / (before + after)
}

#[test]
fn the_observer_sees_every_step_in_order() {
    let (mixture, levels) = (two_components(), levels(9));
    for sampler in [Sampler::Ddpm(Variance::Posterior), Sampler::Ddim { eta: 0.0 }, Sampler::Ddim { eta: 1.0 }] {
        let mut seen = Vec::new();
        let mut last = None;
        let x = sampler.run(&mixture, start(&[0], IMAGE), &levels, (Some(0.3), None), &mut |step| {
            assert_eq!(step.count, 9);
            assert_eq!(step.x_t.dims(), [1, 1, 32, 32]);
            let largest = step.x_0.clone().abs().max().into_scalar::<f32>();
            assert!(largest <= 0.3, "x_0 is clipped, not {largest}");
            assert!(step.index < 8 || largest == 0.3, "in the end it reaches the limit, not {largest}");
            seen.push((step.index, step.level));
            last = Some(step.x_t.to_data());
        });
        let expected: Vec<_> = levels[1..].iter().copied().enumerate().collect();
        assert_eq!(seen, expected, "{sampler:?}");
        assert_eq!(seen[8].1, NoiseLevel::CLEAN);
        assert_eq!(last.expect("a last step"), x.into_data(), "the image of the last step is the result");
    }
}

/// Records its arguments.
struct Recording {
    mixture: GaussianMixture,
    calls: RefCell<Vec<(NoiseLevel, TensorData, Option<TensorData>)>>,
}

impl Denoiser for Recording {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, self_condition: Option<&Tensor<4>>) -> Prediction {
        self.calls.borrow_mut().push((level, x_t.to_data(), self_condition.map(|x_0| x_0.to_data())));
        self.mixture.denoise(x_t, level, self_condition)
    }
}

#[test]
fn the_denoiser_receives_the_image_its_level_and_the_previous_x_0() {
    let levels = levels(6);
    for sampler in [Sampler::Ddpm(Variance::Posterior), Sampler::Ddim { eta: 0.5 }] {
        let recording = Recording { mixture: two_components(), calls: RefCell::default() };
        let x_t = start(&[0], IMAGE);
        let (mut images, mut self_conditions) = (vec![x_t.to_data()], vec![None]);
        sampler.run(&recording, x_t, &levels, (Some(0.5), None), &mut |step| {
            images.push(step.x_t.to_data());
            self_conditions.push(Some(step.x_0.to_data()));
        });
        let expected: Vec<_> = levels.iter().copied().zip(images).zip(self_conditions).take(6).collect();
        let calls = recording.calls.into_inner();
        assert_eq!(calls.len(), 6, "one call per step");
        for (call, ((level, image), self_condition)) in calls.into_iter().zip(expected) {
            assert_eq!(call, (level, image, self_condition), "{sampler:?}");
        }
    }
}

#[test]
fn guidance_passes_the_self_condition_to_both_denoisers() {
    let record = || Recording { mixture: two_components(), calls: RefCell::default() };
    let (conditional, unconditional) = (record(), record());
    let guided = Guided::new(&conditional, &unconditional, 3.0);
    let x_t = start(&[0], [1, 2, 2]);
    guided.denoise(x_t.clone(), schedule().level(50), Some(&(x_t.clone() * 0.1)));
    let expected = (schedule().level(50), x_t.to_data(), Some((x_t * 0.1).to_data()));
    assert_eq!(conditional.calls.into_inner(), vec![expected.clone()]);
    assert_eq!(unconditional.calls.into_inner(), vec![expected]);
}

#[test]
fn guidance_evaluates_only_the_denoisers_that_it_needs() {
    for (scale, calls) in [(0.0, [0, 1]), (1.0, [1, 0]), (2.0, [1, 1])] {
        let record = || Recording { mixture: two_components(), calls: RefCell::default() };
        let guided = Guided::new(record(), record(), scale);
        guided.denoise(start(&[0], [1, 2, 2]), schedule().level(50), None);
        let found = [guided.conditional, guided.unconditional].map(|denoiser| denoiser.calls.into_inner().len());
        assert_eq!(found, calls, "scale {scale}");
    }
}

#[test]
fn guidance_keeps_the_variance_of_the_conditional() {
    let learned = |place| WithVariance { mixture: two_components(), place };
    for (scale, expected) in [(0.0, -0.5), (1.0, 0.25), (2.0, 0.25)] {
        let guided = Guided::new(learned(0.25), learned(-0.5), scale);
        let variance = guided.denoise(start(&[0], [1, 2, 2]), schedule().level(50), None).variance;
        assert_eq!(values(&variance.expect("a variance")), [expected; 4], "scale {scale}");
    }
}
