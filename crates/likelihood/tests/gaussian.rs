//! Both likelihoods in closed form: images with Gaussian pixels, and the ideal denoiser.

use burn::tensor::{DType, Device, Tensor, TensorData};
use core::f64::consts::{LN_2, TAU};
use likelihood::{BoundOptions, FlowOptions, LikelihoodError, flow_bits, mean_and_error, variational_bound};
use noise::{Noise, Purpose};
use sampler::{GaussianMixture, Variance};
use schedule::{BetaSchedule, Schedule};

const MEAN: f64 = 0.1;
const DEVIATION: f64 = 0.25;

fn model() -> GaussianMixture {
    GaussianMixture::new(vec![(1.0, MEAN, DEVIATION)])
}

/// Images of the model; with `whole_values`, rounded to the nearest of 256 values.
fn images(count: u64, side: usize, whole_values: bool, device: &Device) -> Tensor<4> {
    let noise_indices: Vec<u64> = (0..count).collect();
    let noise =
        Noise::new(3).stream(Purpose::Custom(1)).normal_images(&noise_indices, 0, [1, side, side], &Device::flex());
    let value = |z: f64| MEAN + DEVIATION * z;
    let round = |x: f64| if whole_values { ((x + 1.0) * 127.5).round().clamp(0.0, 255.0) / 127.5 - 1.0 } else { x };
    let values: Vec<f64> = noise.into_data().iter::<f64>().map(|z| round(value(z))).collect();
    Tensor::from_data(TensorData::new(values, [count as usize, 1, side, side]), (device, DType::F64))
}

/// Entropy of the Gaussian with steps of 2/255, in bits.
fn entropy() -> f64 {
    0.5 * (TAU * core::f64::consts::E * DEVIATION * DEVIATION).log2() - (2.0f64 / 255.0).log2()
}

/// The mean of each term of the bound: the error of the posterior mean is the spread of x_0 given x_t.
fn expected_terms(schedule: &Schedule) -> Vec<f64> {
    (1..schedule.timesteps())
        .map(|t| {
            let alpha_bar = schedule.alpha_bars()[t];
            let given = DEVIATION.powi(2) * (1.0 - alpha_bar) / (alpha_bar * DEVIATION.powi(2) + 1.0 - alpha_bar);
            0.5 * schedule.posterior_mean_coef1()[t].powi(2) * given / schedule.posterior_variance()[t] / LN_2
        })
        .collect()
}

#[test]
fn the_terms_of_the_bound_are_those_of_the_closed_form() {
    let schedule = Schedule::new(&BetaSchedule::default(), 100).expect("a schedule");
    let images = images(4, 32, true, &Device::flex());
    let options = BoundOptions { clip: None, ..BoundOptions::default() };
    let mut seen = Vec::new();
    let bound = variational_bound(&model(), images, &schedule, options, &Noise::new(1), &mut |t| seen.push(t));
    let bound = bound.expect("a bound");
    assert_eq!(seen, (0..100).rev().collect::<Vec<_>>());
    // each of 4096 pixels is the square of a normal number: a standard error of sqrt(2 / 4096)
    let error = 5.0 * (2.0f64 / 4096.0).sqrt();
    for (t, expected) in (1..).zip(expected_terms(&schedule)) {
        let (found, _) = mean_and_error(&bound.terms[t]);
        assert!((found / expected - 1.0).abs() < error, "t = {t}: {found}, not {expected}");
    }
    let alpha_bar = schedule.alpha_bars()[99];
    let square = MEAN.powi(2) + DEVIATION.powi(2);
    let prior = 0.5 * (-alpha_bar - (1.0 - alpha_bar).ln() + alpha_bar * square) / LN_2;
    assert!((mean_and_error(&bound.prior).0 / prior - 1.0).abs() < error);
    for image in 0..4 {
        let sum = bound.prior[image] + bound.terms.iter().map(|term| term[image]).sum::<f64>();
        assert!((bound.total[image] - sum).abs() < 1e-12);
    }
    // the error of epsilon follows from the spread of x_0 given x_t
    let level = schedule.level(50);
    let given =
        DEVIATION.powi(2) * (1.0 - level.alpha_bar) / (level.alpha_bar * DEVIATION.powi(2) + 1.0 - level.alpha_bar);
    let expected = given * level.snr();
    assert!((mean_and_error(&bound.epsilon_errors[50]).0 / expected - 1.0).abs() < error);
}

/// With more steps the bound approaches the bits of the images from above, if the variance is right: beta, where the data is
/// wide compared with the noise. The rest is that of the decoder, whose variance is that of the second step.
#[test]
fn the_bound_approaches_the_bits_of_the_images() {
    let mut above = Vec::new();
    for timesteps in [50, 200, 800] {
        let schedule = Schedule::new(&BetaSchedule::default(), timesteps).expect("a schedule");
        let images = images(2, 32, true, &Device::flex());
        // the bits of these images: the density of each value times the step
        let bits = |x: f64| {
            0.5 * ((TAU * DEVIATION.powi(2)).ln() + ((x - MEAN) / DEVIATION).powi(2)) / LN_2 - (2.0f64 / 255.0).log2()
        };
        let own = images.to_data().iter::<f64>().map(bits).sum::<f64>() / 2048.0;
        let options = BoundOptions { variance: Variance::Beta, clip: None, ..BoundOptions::default() };
        let bound = variational_bound(&model(), images, &schedule, options, &Noise::new(1), &mut |_| ());
        above.push(mean_and_error(&bound.expect("a bound").total).0 - own);
    }
    assert!(above[0] > above[1] && above[1] > above[2], "{above:?}");
    assert!((0.0..0.15).contains(&above[2]), "{above:?}");
}

#[test]
fn a_learned_variance_without_one_is_refused() {
    let schedule = Schedule::new(&BetaSchedule::default(), 50).expect("a schedule");
    let options = BoundOptions { variance: Variance::Learned, ..BoundOptions::default() };
    let images = images(1, 4, true, &Device::flex());
    let bound = variational_bound(&model(), images, &schedule, options, &Noise::new(1), &mut |_| ());
    assert_eq!(bound, Err(LikelihoodError::NoLearnedVariance));
}

/// The posterior variance is that of a step with a known x_0: it is too small for the first steps, and costs bits.
#[test]
fn the_wrong_variance_costs_bits() {
    let schedule = Schedule::new(&BetaSchedule::default(), 100).expect("a schedule");
    let total = |variance| {
        let options = BoundOptions { variance, clip: None, ..BoundOptions::default() };
        let images = images(2, 16, true, &Device::flex());
        let bound = variational_bound(&model(), images, &schedule, options, &Noise::new(1), &mut |_| ());
        mean_and_error(&bound.expect("a bound").total).0
    };
    assert!(total(Variance::Posterior) > total(Variance::Beta) + 0.1);
}

/// The density of each image, exactly: pixels are independent, and the trace of a diagonal matrix is exact with signs.
#[test]
fn the_flow_gives_the_density() {
    let schedule = Schedule::new(&BetaSchedule::default(), 1000).expect("a schedule");
    let device = Device::flex().autodiff();
    let images = images(3, 8, false, &device);
    let first = schedule.level(0);
    let options = FlowOptions { tolerance: 1e-7, dequantize: false, ..FlowOptions::default() };
    let mut sigmas = Vec::new();
    let found =
        flow_bits(&model(), images.clone(), &schedule, options, &Noise::new(2), &mut |sigma| sigmas.push(sigma));
    let found = found.expect("a likelihood");
    let last = schedule.level(999).sigma();
    assert!(sigmas.windows(2).all(|pair| pair[0] < pair[1]) && (sigmas[sigmas.len() - 1] / last - 1.0).abs() < 1e-12);
    // the density of x at the first timestep, the start of the path
    let variance = first.alpha_bar * DEVIATION.powi(2) + 1.0 - first.alpha_bar;
    // at the last timestep x is not quite standard normal
    let values: Vec<f64> = images.into_data().iter::<f64>().collect();
    for (image, bits) in values.chunks(64).zip(&found.bits) {
        let density = |x: &f64| {
            let distance = x - first.signal_scale() * MEAN;
            0.5 * (TAU * variance).ln() + 0.5 * distance * distance / variance
        };
        let expected = image.iter().map(density).sum::<f64>() / 64.0 / LN_2 - (2.0f64 / 255.0).log2();
        assert!((bits - expected).abs() < 2e-4, "{bits}, not {expected}");
    }
}

/// Dequantized pixel values have at least the bits of the entropy.
#[test]
fn the_flow_of_whole_values_gives_the_entropy() {
    let schedule = Schedule::new(&BetaSchedule::default(), 1000).expect("a schedule");
    let images = images(2, 32, true, &Device::flex().autodiff());
    let found = flow_bits(&model(), images, &schedule, FlowOptions::default(), &Noise::new(2), &mut |_| ());
    let found = found.expect("a likelihood");
    let (mean, _) = mean_and_error(&found.bits);
    // 2048 pixels: a standard error of the mean of -log2 p of sqrt(1/2) / ln 2 / sqrt(2048)
    assert!((mean - entropy()).abs() < 5.0 * 0.0225 + 1e-3, "{mean}, not {}", entropy());
    assert!(found.nfe < 400, "{}", found.nfe);
}

/// Every probe is exact where pixels are independent, and costs as many evaluations again.
#[test]
fn more_probes_give_the_same_trace_of_a_diagonal() {
    let schedule = Schedule::new(&BetaSchedule::default(), 100).expect("a schedule");
    let run = |probes| {
        let options = FlowOptions { probes, ..FlowOptions::default() };
        let images = images(2, 4, true, &Device::flex().autodiff());
        flow_bits(&model(), images, &schedule, options, &Noise::new(2), &mut |_| ()).expect("a likelihood")
    };
    let (one, three) = (run(1), run(3));
    assert_eq!(three.nfe, 3 * one.nfe);
    for (one, three) in one.bits.iter().zip(&three.bits) {
        assert!((one - three).abs() < 1e-6, "{three} is not {one}");
    }
}

#[test]
fn impossible_flows_are_refused() {
    let schedule = Schedule::new(&BetaSchedule::default(), 100).expect("a schedule");
    let no_signal = schedule.rescale_zero_terminal_snr().expect("a schedule");
    let images = || images(1, 4, true, &Device::flex().autodiff());
    let run =
        |schedule: &Schedule, options| flow_bits(&model(), images(), schedule, options, &Noise::new(0), &mut |_| ());
    assert_eq!(run(&no_signal, FlowOptions::default()), Err(LikelihoodError::NoSignal));
    let refused = run(&schedule, FlowOptions { tolerance: 0.0, ..FlowOptions::default() });
    assert!(matches!(refused, Err(LikelihoodError::OutOfRange { name: "tolerance", .. })));
    let refused = run(&schedule, FlowOptions { max_steps: 2, ..FlowOptions::default() });
    assert!(matches!(refused, Err(LikelihoodError::TooManySteps { steps: 2, .. })));
}

/// A denoiser with a learned variance.
struct WithVariance(GaussianMixture);

impl sampler::Denoiser for WithVariance {
    fn denoise(&self, x_t: Tensor<4>, level: schedule::NoiseLevel, estimate: Option<&Tensor<4>>) -> noise::Prediction {
        let variance = Some((x_t.clone() * 3.0).sin());
        noise::Prediction { variance, ..self.0.denoise(x_t, level, estimate) }
    }
}

#[test]
fn the_loss_of_a_learned_variance_is_made_of_the_terms_of_the_bound() {
    use noise::{forward::q_sample, variational::variational_terms};
    use sampler::Denoiser;
    let schedule = Schedule::new(&BetaSchedule::default(), 20).expect("a schedule");
    let device = Device::flex();
    let x_0 = images(3, 8, true, &device);
    let noise = Noise::new(1);
    let options = BoundOptions { clip: None, variance: Variance::Learned, noise_indices: None };
    let denoiser = WithVariance(model());
    let bound = variational_bound(&denoiser, x_0.clone(), &schedule, options, &noise, &mut |_| ()).expect("a bound");
    for t in [0usize, 1, 7, 19] {
        let epsilon = noise.stream(Purpose::Evaluation).normal_images(&[0, 1, 2], t as u64, [1, 8, 8], &device);
        let epsilon = Tensor::<4>::from_data(epsilon.into_data(), (&device, DType::F64));
        let x_t = q_sample(x_0.clone(), epsilon, &[schedule.level(t); 3]);
        let prediction = denoiser.denoise(x_t.clone(), schedule.level(t), None);
        let variance = prediction.variance.expect("a variance");
        let terms = variational_terms(&schedule, &[t; 3], x_0.clone(), x_t, prediction.x_0, variance);
        for (term, expected) in terms.into_data().iter::<f64>().zip(&bound.terms[t]) {
            assert!((term - expected).abs() < 1e-9 * (1.0 + expected.abs()), "t = {t}: {term}, not {expected}");
        }
    }
}
