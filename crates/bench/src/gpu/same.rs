//! The stage `same`: training steps and a grid of samples against those that `flex` computed when the kit was packed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use burn::tensor::Device;
use noise::Noise;
use picture::{Pixels, save_png};
use pipeline::{Request, generate, grid_columns, pictures, sample_grid};
use serde::{Deserialize, Serialize};
use serde_json::json;
use train::{Config, Trainer};
use unet::AttentionKind;

use super::{Session, rounded};

/// Training steps.
const STEPS: usize = 10;
/// The largest relative difference of a loss that passes.
const LOSS: f64 = 1e-4;
/// The largest mean difference of pixels, of 255, that passes.
const PIXELS: f64 = 1.0;

/// The values that are compared, besides the grid.
#[derive(Debug, Serialize, Deserialize)]
struct Values {
    losses: Vec<f64>,
}

/// The folder of the reference values, which depend on the size.
fn folder(session: &Session) -> PathBuf {
    session.kit.join("reference").join(if session.small { "small" } else { "full" })
}

/// Computes the values on the device of the session and writes them into the kit.
pub fn write_reference(session: &Session) -> anyhow::Result<()> {
    let folder = folder(session);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let (values, grid) = compute(session, &session.open()?)?;
    let file = folder.join("values.json");
    fs::write(&file, serde_json::to_string_pretty(&values)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    save_png(&grid, folder.join("grid.png"))?;
    Ok(())
}

pub fn run(session: &Session) -> anyhow::Result<()> {
    let folder = folder(session);
    let file = folder.join("values.json");
    let text = fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}; pack the kit again with `cargo xtask gpu-kit`", file.display()))?;
    let expected: Values = serde_json::from_str(&text).with_context(|| format!("{} has no losses", file.display()))?;
    let (found, grid) = compute(session, &session.open()?)?;
    let difference = largest_difference(&found.losses, &expected.losses)?;
    session.judged(
        "losses",
        (difference > LOSS).then(|| format!("the losses are {:?}, not {:?}", found.losses, expected.losses)),
        json!({ "largest_difference": rounded(difference), "first": rounded(found.losses[0]) }),
    )?;
    save_png(&grid, session.work.join("grid.png"))?;
    let [mean, largest] = pixel_differences(&grid, &folder.join("grid.png"))?;
    session.judged(
        "grid",
        (mean > PIXELS).then(|| "compare the file grid.png with the one in the folder `reference`".to_owned()),
        json!({ "mean_difference": rounded(mean), "largest_difference": largest }),
    )
}

/// The preset `digits`, or a smaller network.
pub fn configuration(session: &Session) -> anyhow::Result<Config> {
    let mut config = Config::preset("digits")?;
    // the same sums on every device, and no TF32
    config.training.tf32 = false;
    (config.training.parallel_parts, config.sampling.parallel_parts) = (1, 1);
    if session.small {
        if let Some(unet) = config.unet.as_unet_mut() {
            (unet.dim_mults, unet.attention) = (vec![1, 2], vec![AttentionKind::Off, AttentionKind::Full]);
        }
        (config.training.batch_size, config.sampling.steps, config.sampling.count) = (4, 3, 10);
    }
    Ok(config)
}

/// The losses of a training, and a grid of its samples.
fn compute(session: &Session, device: &Device) -> anyhow::Result<(Values, Pixels)> {
    let config = configuration(session)?;
    let images = data::open(&config.data.path, &config.load_options())?.images;
    let mut trainer = Trainer::new(config.clone(), images, device)?;
    let mut losses = Vec::new();
    for _ in 0..STEPS {
        losses.push(trainer.step()?.loss);
    }
    let model = trainer.model();
    let (count, classes) = (config.sampling.count, model.header.unet.classes());
    let drawn = generate(&model, &Request::even(count, classes), &Noise::new(config.training.seed), &mut |_| ())?;
    let grid = sample_grid(&pictures(drawn)?, grid_columns(count, classes))?;
    Ok((Values { losses }, grid))
}

/// The largest difference of two lists, each relative to the second.
pub fn largest_difference(found: &[f64], expected: &[f64]) -> anyhow::Result<f64> {
    let (count, wanted) = (found.len(), expected.len());
    ensure!(count == wanted && count > 0, "there are {count} losses to compare with {wanted}");
    let difference = |(found, expected): (&f64, &f64)| ((found - expected) / expected).abs();
    // NaN counts as the largest
    let differences = found.iter().zip(expected).map(difference);
    Ok(differences.map(|value| if value.is_nan() { f64::INFINITY } else { value }).fold(0.0, f64::max))
}

/// The mean and the largest difference of the values of a picture and a file.
fn pixel_differences(picture: &Pixels, file: &Path) -> anyhow::Result<[f64; 2]> {
    let expected = image::open(file).with_context(|| format!("cannot read {}", file.display()))?.to_rgb8();
    let found = picture.to_rgb();
    let size = [found.width(), found.height()];
    let expected_size = [expected.width() as usize, expected.height() as usize];
    ensure!(size == expected_size, "the grid has {size:?} pixels, and {} {expected_size:?}", file.display());
    let pairs = found.data().iter().zip(expected.as_raw());
    let differences: Vec<f64> = pairs.map(|(one, two)| f64::from(one.abs_diff(*two))).collect();
    let mean = differences.iter().sum::<f64>() / differences.len() as f64;
    Ok([mean, differences.into_iter().fold(0.0, f64::max)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_and_nan_is_the_largest() {
        assert_eq!(largest_difference(&[1.0, 2.2], &[1.0, 2.0]).expect("two").mul_add(100.0, 0.5).floor(), 10.0);
        assert_eq!(largest_difference(&[f64::NAN, 2.0], &[1.0, 2.0]).expect("two"), f64::INFINITY);
        assert!(largest_difference(&[], &[]).is_err() && largest_difference(&[1.0], &[1.0, 2.0]).is_err());
    }

    #[test]
    fn a_grid_is_compared_with_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("grid.png");
        save_png(&Pixels::new(1, 2, 1, vec![10, 20]).expect("a picture"), &file).expect("a file");
        let other = Pixels::new(1, 2, 1, vec![10, 26]).expect("a picture");
        assert_eq!(pixel_differences(&other, &file).expect("the same size"), [3.0, 6.0]);
        let larger = Pixels::new(1, 3, 1, vec![0; 3]).expect("a picture");
        assert!(pixel_differences(&larger, &file).is_err());
    }
}
