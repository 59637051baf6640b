//! The errors of impossible arguments.

use burn::tensor::{Device, Tensor};
use noise::Noise;
use sampler::{DdimOptions, DdpmOptions, GaussianMixture, NoiseLevel, SamplerError, Variance, ddim, ddpm};

const IMAGES: usize = 2;

fn levels(alpha_bars: &[f64]) -> Vec<NoiseLevel> {
    alpha_bars.iter().map(|&alpha_bar| NoiseLevel { timestep: 0.0, alpha_bar }).collect()
}

fn start() -> Tensor<4> {
    Tensor::zeros([IMAGES, 1, 2, 2], &Device::flex())
}

fn mixture() -> GaussianMixture {
    GaussianMixture::new(vec![(1.0, 0.0, 0.5)])
}

fn try_ddim(alpha_bars: &[f64], options: DdimOptions) -> Result<(), SamplerError> {
    ddim(&mixture(), start(), &levels(alpha_bars), options, &Noise::new(1), &mut |_| ()).map(drop)
}

fn try_ddpm(alpha_bars: &[f64], options: DdpmOptions) -> Result<(), SamplerError> {
    ddpm(&mixture(), start(), &levels(alpha_bars), options, &Noise::new(1), &mut |_| ()).map(drop)
}

/// The results of both samplers for these levels.
fn both(alpha_bars: &[f64]) -> [Result<(), SamplerError>; 2] {
    [try_ddim(alpha_bars, DdimOptions::default()), try_ddpm(alpha_bars, DdpmOptions::default())]
}

#[test]
fn possible_arguments_are_accepted() {
    for alpha_bars in [&[0.1, 1.0][..], &[0.0, 0.5, 1.0], &[0.1, 0.2, 0.3]] {
        assert_eq!(both(alpha_bars), [Ok(()), Ok(())], "{alpha_bars:?}");
    }
}

#[test]
fn too_few_levels_are_refused() {
    for alpha_bars in [&[][..], &[0.5]] {
        let error = Err(SamplerError::TooFewLevels { found: alpha_bars.len() });
        assert_eq!(both(alpha_bars), [error.clone(), error]);
    }
}

#[test]
fn levels_that_do_not_get_cleaner_are_refused() {
    let cases: [(&[f64], usize); 6] = [
        (&[1.0, 0.5, 0.1], 1),
        (&[0.1, 0.5, 0.4, 1.0], 2),
        (&[0.1, 0.5, 0.5], 2),
        (&[0.1, 0.5, 1.5], 2),
        (&[-0.1, 0.5, 1.0], 1),
        (&[0.1, 1.0, 1.0], 2),
    ];
    for (alpha_bars, index) in cases {
        let (alpha_bar, previous) = (alpha_bars[index], alpha_bars[index - 1]);
        let error = Err(SamplerError::NotCleaner { index, alpha_bar, previous });
        assert_eq!(both(alpha_bars), [error.clone(), error], "{alpha_bars:?}");
    }
}

#[test]
fn a_level_that_is_nan_is_refused() {
    for (alpha_bars, expected) in [([f64::NAN, 0.5, 1.0], 1), ([0.1, f64::NAN, 1.0], 1), ([0.1, 0.5, f64::NAN], 2)] {
        for result in both(&alpha_bars) {
            let matches = matches!(result, Err(SamplerError::NotCleaner { index, .. }) if index == expected);
            assert!(matches, "{alpha_bars:?}: {result:?}");
        }
    }
}

#[test]
fn eta_that_is_negative_or_not_finite_is_refused() {
    for eta in [-1e-9, -1.0, f64::NAN, f64::INFINITY] {
        let result = try_ddim(&[0.1, 0.5, 1.0], DdimOptions { eta, ..DdimOptions::default() });
        assert!(matches!(result, Err(SamplerError::OutOfRange { name: "eta", .. })), "{eta}: {result:?}");
    }
    // more than 1 is noisier than DDPM, but possible
    assert_eq!(try_ddim(&[0.1, 0.5, 1.0], DdimOptions { eta: 1.5, ..DdimOptions::default() }), Ok(()));
}

#[test]
fn a_clip_that_is_not_positive_is_refused() {
    for limit in [0.0, -1.0, f64::NAN] {
        let clip = Some(limit);
        for result in [
            try_ddim(&[0.1, 0.5, 1.0], DdimOptions { clip, ..DdimOptions::default() }),
            try_ddpm(&[0.1, 0.5, 1.0], DdpmOptions { clip, ..DdpmOptions::default() }),
        ] {
            assert!(matches!(result, Err(SamplerError::OutOfRange { name: "clip", .. })), "{limit}: {result:?}");
        }
    }
}

#[test]
fn another_number_of_noise_indices_than_images_is_refused() {
    for indices in [0, 1, 3] {
        let noise_indices = Some((0..indices as u64).collect::<Vec<_>>());
        let error = Err(SamplerError::NoiseIndices { images: IMAGES, indices });
        assert_eq!(
            try_ddim(&[0.1, 1.0], DdimOptions { noise_indices: noise_indices.clone(), ..DdimOptions::default() }),
            error.clone()
        );
        assert_eq!(try_ddpm(&[0.1, 1.0], DdpmOptions { noise_indices, ..DdpmOptions::default() }), error);
    }
    let noise_indices = Some(vec![7, 3]);
    assert_eq!(try_ddpm(&[0.1, 1.0], DdpmOptions { noise_indices, ..DdpmOptions::default() }), Ok(()));
}

#[test]
fn a_learned_variance_that_the_denoiser_does_not_predict_is_refused() {
    // also in a chain of one step, which adds no noise: the error must not depend on the number of steps
    for alpha_bars in [&[0.1, 1.0][..], &[0.1, 0.5, 1.0]] {
        let options = DdpmOptions { variance: Variance::Learned, ..DdpmOptions::default() };
        assert_eq!(try_ddpm(alpha_bars, options), Err(SamplerError::NoLearnedVariance), "{alpha_bars:?}");
    }
}

#[test]
fn errors_name_the_value_and_the_range() {
    let error = try_ddim(&[0.1, 0.5, 1.0], DdimOptions { eta: -2.0, ..DdimOptions::default() }).expect_err("eta");
    assert_eq!(error.to_string(), "eta = -2 is not possible: it must be 0 or more");
    let [error, _] = both(&[0.5, 0.25]);
    let text = error.expect_err("noisier").to_string();
    assert!(text.contains("number 1") && text.contains("0.25 after 0.5"), "{text}");
}
