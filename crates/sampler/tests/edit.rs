//! Interpolation, inversion and inpainting in closed form.

use burn::tensor::{DType, Device, Tensor, TensorData};
use noise::{Noise, Prediction, Purpose};
use sampler::{
    DdimOptions, Denoiser, GaussianMixture, NoiseLevel, RepaintOptions, SamplerError, ddim, ddim_inversion,
    levels_for_strength, noised, repaint, slerp,
};
use schedule::{BetaSchedule, Schedule, Spacing};

fn values(x: &Tensor<4>) -> Vec<f64> {
    x.to_data().iter::<f64>().collect()
}

fn tensor(values: Vec<f64>, shape: [usize; 4]) -> Tensor<4> {
    Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), DType::F64))
}

#[test]
fn slerp_keeps_the_length_of_noise() {
    let noise = Noise::new(4).stream(Purpose::Custom(2));
    let draw = |index: u64| noise.normal_images(&[index, index + 10], 0, [1, 32, 32], &Device::flex());
    let (first, second) = (draw(0), draw(1));
    let same = |a: &Tensor<4>, b: &Tensor<4>| values(a).iter().zip(values(b)).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(same(&slerp(first.clone(), second.clone(), 0.0), &first));
    assert!(same(&slerp(first.clone(), second.clone(), 1.0), &second));
    for share in [0.2, 0.5, 0.9] {
        let between = values(&slerp(first.clone(), second.clone(), share));
        for image in between.chunks(1024) {
            let variance = image.iter().map(|value| value * value).sum::<f64>() / 1024.0;
            assert!((variance - 1.0).abs() < 0.15, "{variance} at {share}");
        }
    }
    // half-way on a right angle
    let (right, up) = (tensor(vec![1.0, 0.0], [1, 1, 1, 2]), tensor(vec![0.0, 1.0], [1, 1, 1, 2]));
    let middle = values(&slerp(right.clone(), up, 0.5));
    assert!(middle.iter().all(|value| (value - 0.5f64.sqrt()).abs() < 1e-12), "{middle:?}");
    assert_eq!(values(&slerp(right.clone(), right.clone() * 3.0, 0.5)), [2.0, 0.0]);
}

#[test]
fn strength_selects_the_end_of_the_chain() {
    let schedule = Schedule::new(&BetaSchedule::default(), 100).expect("a schedule");
    let levels = schedule.levels(Spacing::Uniform, 20).expect("levels");
    let steps = |strength| levels_for_strength(&levels, strength).expect("levels").len() - 1;
    assert_eq!([1.0, 0.5, 0.01].map(steps), [20, 10, 1]);
    assert!(levels_for_strength(&levels, 0.5).expect("levels").ends_with(&[NoiseLevel::CLEAN]));
    for strength in [0.0, -1.0, 1.1, f64::NAN] {
        assert!(matches!(
            levels_for_strength(&levels, strength),
            Err(SamplerError::OutOfRange { name: "strength", .. })
        ));
    }
    let image = tensor(vec![0.5; 4], [1, 1, 2, 2]);
    let level = levels[10];
    let mean = values(&noised(image, level, &[3], &Noise::new(1))).iter().sum::<f64>() / 4.0;
    assert!((mean - 0.5 * level.signal_scale()).abs() < 3.0 * level.noise_scale());
}

/// A round trip is exact with refinements, and nearly exact without.
#[test]
fn ddim_inversion_finds_the_noise() {
    let mixture = GaussianMixture::new(vec![(0.5, -0.5, 0.2), (0.5, 0.6, 0.3)]);
    // not cosine, whose first step leads from sigma 20000 to 30, where the iteration hardly moves
    let schedule = Schedule::new(&"linear".parse().expect("a name"), 1000).expect("a schedule");
    let levels = schedule.levels(Spacing::Uniform, 50).expect("levels");
    let start = tensor((0..16).map(|index| f64::from(index) / 4.0 - 1.9).collect(), [1, 1, 4, 4]);
    let options = || DdimOptions { clip: None, ..DdimOptions::default() };
    let noise = Noise::new(0);
    let image = ddim(&mixture, start.clone(), &levels, options(), &noise, &mut |_| ()).expect("a chain");
    let distance = |refinements: usize| {
        let found = ddim_inversion(&mixture, image.clone(), &levels, refinements, &mut |_| ()).expect("a chain");
        values(&found).iter().zip(values(&start)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    let (plain, refined) = (distance(0), distance(60));
    assert!(refined < 1e-6 && refined < plain, "{refined:e}, without refinement {plain:e}");
}

/// The ideal denoiser of images whose pixels in a row are equal, +-0.6 with a little spread.
struct EqualRows;

/// Pixels in a row.
const ROW: usize = 5;

impl Denoiser for EqualRows {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, _self_condition: Option<&Tensor<4>>) -> Prediction {
        let (signal, variance) = (level.signal_scale(), 1.0 - level.alpha_bar);
        let (mean, spread) = (0.6, 0.01);
        let clean: Vec<f64> = values(&x_t)
            .chunks_exact(ROW)
            .flat_map(|row| {
                // their common value is normal around +-mean; the sum is a sufficient statistic
                let (sum, count) = (row.iter().sum::<f64>(), ROW as f64);
                let total = count * variance + (count * signal).powi(2) * spread;
                let posterior = |sign: f64| {
                    let off = sum - count * signal * sign * mean;
                    (-0.5 * off * off / total, sign * mean + count * signal * spread / total * off)
                };
                let (up, down) = (posterior(1.0), posterior(-1.0));
                let share = 1.0 / (1.0 + (down.0 - up.0).exp());
                let value = share * up.1 + (1.0 - share) * down.1;
                [value; ROW]
            })
            .collect();
        let shape = x_t.dims();
        let batch = shape[0];
        Prediction::from_x_0(tensor(clean, shape), x_t, &vec![level; batch])
    }
}

/// Unknown pixels agree with known ones, more often with resampling.
#[test]
fn inpainted_pixels_agree_with_known_ones() {
    let schedule = Schedule::new(&BetaSchedule::default(), 1000).expect("a schedule");
    let levels = schedule.levels(Spacing::Uniform, 40).expect("levels");
    let (images, noise) = (200, Noise::new(9));
    let truth: Vec<f64> = (0..images).map(|image| if image % 2 == 0 { 0.6 } else { -0.6 }).collect();
    // the first of each row is known
    let first = |value: f64| core::array::from_fn::<f64, ROW, _>(|column| if column == 0 { value } else { 0.0 });
    let known = tensor(truth.iter().flat_map(|value| first(*value)).collect(), [images, 1, 1, ROW]);
    let mask = tensor(first(1.0).repeat(images), [images, 1, 1, ROW]);
    let noise_indices: Vec<u64> = (0..images as u64).collect();
    let start = noise.stream(Purpose::InitialNoise).normal_images(&noise_indices, 0, [1, 1, ROW], &Device::flex());
    let start = Tensor::from_data(start.into_data(), (&Device::flex(), DType::F64));
    let wrong = |resamplings: usize| {
        let options = RepaintOptions { jump_length: 5, resamplings, ..RepaintOptions::default() };
        let filled =
            repaint(&EqualRows, known.clone(), mask.clone(), start.clone(), &levels, options, &noise, &mut |_| ());
        let filled = values(&filled.expect("a chain"));
        for (row, truth) in filled.chunks(ROW).zip(&truth) {
            assert!((row[0] - truth).abs() < 1e-12, "known pixels are unchanged: {row:?}");
        }
        filled.chunks(ROW).filter(|row| (row[ROW - 1] - row[0]).abs() > 0.5).count()
    };
    let (once, often) = (wrong(1), wrong(10));
    assert!(often * 4 < once, "{often} disagree after 10 resamplings, {once} after none");
}

#[test]
fn impossible_repaint_options_are_refused() {
    let schedule = Schedule::new(&BetaSchedule::default(), 100).expect("a schedule");
    let levels = schedule.levels(Spacing::Uniform, 4).expect("levels");
    let image = tensor(vec![0.0; ROW], [1, 1, 1, ROW]);
    for (options, name) in [
        (RepaintOptions { jump_length: 0, ..RepaintOptions::default() }, "jump_length"),
        (RepaintOptions { resamplings: 0, ..RepaintOptions::default() }, "resamplings"),
    ] {
        let found = repaint(
            &EqualRows,
            image.clone(),
            image.clone(),
            image.clone(),
            &levels,
            options,
            &Noise::new(0),
            &mut |_| (),
        );
        assert!(matches!(found, Err(SamplerError::OutOfRange { name: found, .. }) if found == name), "{name}");
    }
}
