//! Guidance in closed form, on a mixture of two Gaussians whose components are the classes.

use std::cell::Cell;

use burn::tensor::{DType, Device, Tensor, TensorData};
use noise::{Noise, Purpose};
use sampler::{
    CfgPlusPlus, Classifier, ClassifierGuided, DdimOptions, Denoiser, GaussianMixture, Guided, KindOptions, NoiseLevel,
    Prediction, SamplerError, SamplerKind, Variance, ddim,
};
use schedule::{BetaSchedule, Schedule, Spacing};

const COMPONENTS: [(f64, f64, f64); 2] = [(0.3, -0.6, 0.2), (0.7, 0.5, 0.3)];
const LEVEL: NoiseLevel = NoiseLevel { timestep: 500.0, alpha_bar: 0.4 };

fn class(index: usize) -> GaussianMixture {
    GaussianMixture::new(vec![(1.0, COMPONENTS[index].1, COMPONENTS[index].2)])
}

fn everything() -> GaussianMixture {
    GaussianMixture::new(COMPONENTS.to_vec())
}

fn images() -> Tensor<4> {
    let values: Vec<f64> = (0..12).map(|index| f64::from(index) * 0.3 - 1.7).collect();
    Tensor::from_data(TensorData::new(values, [2, 1, 2, 3]), (&Device::flex(), DType::F64))
}

fn values(x: &Tensor<4>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

#[track_caller]
fn assert_same(found: &Tensor<4>, expected: &Tensor<4>, tolerance: f64) {
    for (found, expected) in values(found).iter().zip(values(expected)) {
        assert!((found - expected).abs() <= tolerance, "{found}, not {expected}");
    }
}

/// `p(class | x_t)` of the mixture.
struct Posterior(usize);

impl Classifier for Posterior {
    fn log_probability_gradient(&self, x_t: Tensor<4>, level: NoiseLevel) -> Tensor<4> {
        let (signal, noise) = (level.signal_scale(), level.noise_scale());
        let gradient = |x: f64| {
            // ln p(k, x) up to a constant, and its derivative
            let parts = COMPONENTS.map(|(weight, mean, sd)| {
                let variance = (signal * sd).powi(2) + noise * noise;
                let distance = x - signal * mean;
                (weight / variance.sqrt() * (-0.5 * distance * distance / variance).exp(), -distance / variance)
            });
            let total: f64 = parts.iter().map(|part| part.0).sum();
            parts[self.0].1 - parts.iter().map(|(density, slope)| density / total * slope).sum::<f64>()
        };
        let shape = x_t.dims();
        let values: Vec<f64> = values(&x_t).into_iter().map(gradient).collect();
        Tensor::from_data(TensorData::new(values, shape), (&x_t.device(), DType::F64))
    }
}

/// Bayes: the mixture, guided with scale 1 by the probability of a class, is that class.
#[test]
fn an_ideal_classifier_turns_the_mixture_into_the_class() {
    for index in [0, 1] {
        let guided = ClassifierGuided { denoiser: everything(), classifier: Posterior(index), scale: 1.0 };
        let (found, expected) = (guided.denoise(images(), LEVEL, None), class(index).denoise(images(), LEVEL, None));
        assert_same(&found.x_0, &expected.x_0, 1e-12);
        assert_same(&found.epsilon, &expected.epsilon, 1e-12);
    }
}

#[test]
fn classifier_guidance_is_finite_at_pure_noise() {
    let level = NoiseLevel { timestep: 999.0, alpha_bar: 0.0 };
    let guided = ClassifierGuided { denoiser: everything(), classifier: Posterior(0), scale: 3.0 };
    let found = guided.denoise(images(), level, None);
    assert!(values(&found.x_0).iter().chain(&values(&found.epsilon)).all(|value| value.is_finite()));
}

/// Counts the network evaluations.
struct Counting<'a>(GaussianMixture, &'a Cell<usize>);

impl Denoiser for Counting<'_> {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, self_condition: Option<&Tensor<4>>) -> Prediction {
        self.1.set(self.1.get() + 1);
        self.0.denoise(x_t, level, self_condition)
    }
}

#[test]
fn outside_the_interval_only_the_conditional_is_evaluated() {
    let nfe = Cell::new(0);
    let mut guided = Guided::new(class(1), Counting(everything(), &nfe), 3.0);
    let sigma = LEVEL.sigma();
    for (interval, expected) in
        [([0.0, sigma * 0.9], 0), ([sigma * 1.1, 90.0], 0), ([sigma * 0.9, sigma * 1.1], 1), ([0.0, f64::INFINITY], 1)]
    {
        nfe.set(0);
        guided.interval = interval;
        let found = guided.denoise(images(), LEVEL, None).x_0;
        assert_eq!(nfe.get(), expected, "{interval:?}");
        let own = class(1).denoise(images(), LEVEL, None).x_0;
        assert_eq!(values(&found) == values(&own), expected == 0);
    }
}

#[test]
fn rescaled_guidance_has_the_deviation_of_the_conditional() {
    let velocity = |prediction: &Prediction| {
        values(&(prediction.epsilon.clone() * LEVEL.signal_scale() - prediction.x_0.clone() * LEVEL.noise_scale()))
    };
    let deviation = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    };
    let own = velocity(&class(1).denoise(images(), LEVEL, None));
    let mut guided = Guided::new(class(1), everything(), 4.0);
    let plain = velocity(&guided.denoise(images(), LEVEL, None));
    guided.rescale = 1.0;
    let whole = velocity(&guided.denoise(images(), LEVEL, None));
    guided.rescale = 0.7;
    let most = velocity(&guided.denoise(images(), LEVEL, None));
    for image in [0..6, 6..12] {
        assert!((deviation(&plain[image.clone()]) / deviation(&own[image.clone()]) - 1.0).abs() > 0.01);
        assert!((deviation(&whole[image.clone()]) / deviation(&own[image.clone()]) - 1.0).abs() < 1e-10);
        for index in image {
            // a weighted mean of the two
            assert!((most[index] - (0.7 * whole[index] + 0.3 * plain[index])).abs() < 1e-12);
        }
    }
    // x_0 and epsilon still make x_t
    let prediction = guided.denoise(images(), LEVEL, None);
    let x_t = prediction.x_0 * LEVEL.signal_scale() + prediction.epsilon * LEVEL.noise_scale();
    assert_same(&x_t, &images(), 1e-12);
}

#[test]
fn impossible_guidance_is_refused() {
    let guided = || Guided::new(class(0), everything(), 2.0);
    for (guided, name) in [
        (Guided { scale: f64::NAN, ..guided() }, "guidance"),
        (Guided { rescale: 1.5, ..guided() }, "guidance_rescale"),
        (Guided { interval: [-1.0, 2.0], ..guided() }, "guidance_interval"),
        (Guided { interval: [2.0, 1.0], ..guided() }, "guidance_interval"),
    ] {
        assert!(matches!(guided.check(), Err(SamplerError::OutOfRange { name: found, .. }) if found == name), "{name}");
    }
    assert_eq!(guided().check(), Ok(()));
}

/// One step of the paper's algorithm 2, by hand.
#[test]
fn cfg_plus_plus_renoises_with_the_unconditional_epsilon() {
    let next = NoiseLevel { timestep: 250.0, alpha_bar: 0.8 };
    let guided = CfgPlusPlus { conditional: class(0), unconditional: everything(), scale: 0.6, clip: None };
    let options = DdimOptions { clip: None, ..DdimOptions::default() };
    let found = ddim(&guided, images(), &[LEVEL, next], options, &Noise::new(0), &mut |_| ()).expect("a step");
    let (own, free) = (class(0).denoise(images(), LEVEL, None), everything().denoise(images(), LEVEL, None));
    let expected =
        (free.x_0.clone() + (own.x_0 - free.x_0) * 0.6) * next.signal_scale() + free.epsilon * next.noise_scale();
    assert_same(&found, &expected, 1e-12);
}

/// Every sampler reaches the mixture's mean and variance with enough steps, and its NFE is the stated one.
#[test]
fn every_kind_of_sampler_samples_the_mixture() {
    let schedule = Schedule::new(&BetaSchedule::default(), 1000).expect("a schedule");
    let (noise, count) = (Noise::new(11), 4000);
    let x_t = noise.stream(Purpose::InitialNoise).normal_images(&[0, 1], 0, [1, 1, count / 2], &Device::flex());
    for kind in SamplerKind::ALL {
        assert_eq!(kind.to_string().parse(), Ok(kind));
        assert_eq!(serde_name(kind), kind.to_string());
        // solvers of higher order for the ODE need few steps, the others many
        let quick = matches!(
            kind,
            SamplerKind::Heun
                | SamplerKind::Edm
                | SamplerKind::Dpmpp2m
                | SamplerKind::Dpmpp3m
                | SamplerKind::Unipc
                | SamplerKind::Deis
                | SamplerKind::Pndm
        );
        let steps = if quick { 60 } else { 600 };
        let spacing = if kind == SamplerKind::Pndm { Spacing::Uniform } else { Spacing::Karras };
        let levels = schedule.levels(spacing, steps).expect("levels");
        let nfe = Cell::new(0);
        let options =
            KindOptions { eta: 0.0, churn: 10.0, variance: Variance::Posterior, clip: None, noise_indices: None };
        let level_at = |sigma| schedule.level_at_sigma(sigma);
        let denoiser = Counting(everything(), &nfe);
        let drawn = kind.sample(&denoiser, x_t.clone(), &levels, &level_at, options, &noise, &mut |_| ());
        let drawn = values(&drawn.expect("a chain"));
        assert_eq!(nfe.get(), kind.nfe(steps), "{kind}");
        let mean = drawn.iter().sum::<f64>() / count as f64;
        let variance = drawn.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count as f64;
        let mixture = everything();
        // four standard errors, and an allowance for the discretization
        assert!(
            (mean - mixture.mean()).abs() < 4.0 * (mixture.variance() / count as f64).sqrt() + 0.01,
            "{kind}: {mean}"
        );
        assert!((variance / mixture.variance() - 1.0).abs() < 0.08, "{kind}: {variance} of {}", mixture.variance());
    }
}

fn serde_name(kind: SamplerKind) -> String {
    toml::Value::try_from(kind).expect("a name").as_str().expect("a name").to_owned()
}
