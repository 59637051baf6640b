//! Sampling from a small network: shapes, batches, guides, and requests that are refused.

use burn::tensor::{DType, Device, Int, Tensor};
use checkpoint::{Header, ImageFormat, Model, SamplingConfig};
use noise::Noise;
use pipeline::{GenerateError, Guide, NetworkDenoiser, Request, generate, generate_guided};
use sampler::Denoiser;
use unet::UnetConfig;

fn model() -> Model {
    let config = UnetConfig { dim: 8, dim_mults: vec![1], channels: 1, classes: 3, ..UnetConfig::default() };
    let unet = config.init(&Device::flex()).expect("a possible network");
    let mut header = Header::new(config, ImageFormat { content_height: 6, ..ImageFormat::new(1, 8, 8) });
    (header.sampling.steps, header.sampling.guidance) = (3, 2.0);
    Model { unet: unet.into(), header }
}

#[test]
fn images_are_cropped_and_the_same_alone_or_in_a_batch() {
    let mut model = model();
    model.header.sampling.batch_size = 2;
    let noise = Noise::new(3);
    let all = generate(&model, &Request::even(5, 3), &noise, &mut |_| ()).expect("drawn");
    assert_eq!(all.dims(), [5, 1, 6, 8]);
    let request = Request { noise_indices: vec![4], labels: Some(vec![2]) };
    let one = generate(&model, &request, &noise, &mut |_| ()).expect("drawn");
    let difference: f32 = (one - all.narrow(0, 4, 1)).abs().max().into_scalar();
    assert!(difference < 1e-5, "{difference}");
}

#[test]
fn impossible_requests_are_refused() {
    let mut model = model();
    let noise = Noise::new(3);
    let request = Request { noise_indices: vec![0], labels: Some(vec![3]) };
    let error = generate(&model, &request, &noise, &mut |_| ()).expect_err("no class 3");
    assert!(matches!(error, GenerateError::Class { class: 3, classes: 3 }));
    model.header.sampling.steps = 1001;
    assert!(matches!(
        generate(&model, &Request::count(1), &noise, &mut |_| ()).expect_err("too many steps"),
        GenerateError::Schedule(_)
    ));
    assert_eq!(Request::even(10, 5).labels.expect("labels"), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
}

/// A classifier without a gradient.
struct Silent;

impl sampler::Classifier for Silent {
    fn log_probability_gradient(&self, x_t: Tensor<4>, _level: sampler::NoiseLevel) -> Tensor<4> {
        x_t.zeros_like()
    }
}

#[test]
fn guides_are_applied_or_refused() {
    let (model, noise) = (model(), Noise::new(3));
    let draw = |guide: Guide<'_>, request: &Request| generate_guided(&model, guide, request, &noise, &mut |_| ());
    let same = |a: Result<Tensor<4>, GenerateError>, b: Result<Tensor<4>, GenerateError>| {
        a.expect("images").into_data() == b.expect("images").into_data()
    };
    let asked = Request { labels: Some(vec![1, 1]), ..Request::count(2) };
    // a classifier without a gradient leaves the unconditional model
    let silent: &dyn Fn(Tensor<1, Int>) -> Box<dyn sampler::Classifier> = &|_| Box::new(Silent);
    assert!(same(draw(Guide::Classifier(silent), &asked), draw(Guide::Itself, &Request::count(2))));
    assert!(!same(draw(Guide::Itself, &asked), draw(Guide::Itself, &Request::count(2))));
    // a model that guides itself is unguided
    let unguided = Model {
        header: Header {
            sampling: SamplingConfig { guidance: 1.0, ..model.header.sampling.clone() },
            ..model.header.clone()
        },
        ..model.clone()
    };
    let own = generate(&unguided, &asked, &noise, &mut |_| ()).expect("images");
    let led = draw(Guide::Weaker(&model), &asked).expect("images");
    led.into_data().assert_approx_eq(&own.into_data(), burn::tensor::Tolerance::<f32>::absolute(1e-5));

    let refused = |guide: Guide<'_>, request: &Request| draw(guide, request).expect_err("refused").to_string();
    assert!(refused(Guide::Classifier(silent), &Request::count(2)).contains("needs a class"));
    let mut other = model.clone();
    other.header.schedule.timesteps = 500;
    assert!(refused(Guide::Weaker(&other), &asked).contains("another schedule"));
}

#[test]
fn a_state_in_f64_stays_in_f64() {
    let model = model();
    let denoiser = NetworkDenoiser::new(&model, None);
    let x_t = Noise::new(1).stream(noise::Purpose::InitialNoise).normal_images(&[0], 0, [1, 8, 8], &Device::flex());
    let level = model.header.schedule.build().expect("a schedule").level(400);
    let wide = Tensor::<4>::from_data(x_t.to_data(), (&Device::flex(), DType::F64));
    let (found, expected) = (denoiser.denoise(wide, level, None), denoiser.denoise(x_t, level, None));
    assert_eq!((found.x_0.dtype(), found.epsilon.dtype()), (DType::F64, DType::F64));
    for (found, expected) in found.x_0.into_data().iter::<f64>().zip(expected.x_0.into_data().iter::<f64>()) {
        assert!((found - expected).abs() < 1e-5, "{found}, not {expected}");
    }
}
