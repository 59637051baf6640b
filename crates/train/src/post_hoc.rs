//! Post-hoc EMA: averages of the weights whose length is chosen after the training (Karras et al. 2023, arXiv:2312.02696, section 3).
//!
//! A power-function average of exponent gamma weighs the weights of step tau, at step t, by
//! `p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1)`. Its relative width `sigma_rel`, the standard deviation of p over t,
//! does not change during training. Two such averages are kept, and snapshots of them are written at intervals; after the
//! training an average of any width is a combination of the snapshots, by least squares of its p.

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor};
use checkpoint::Model;
use documented::DocumentedFields;
use files::{Action, FileError};
use nalgebra::{DMatrix, DVector};
use serde::{Deserialize, Serialize};
use unet::Network;

use crate::{
    error::TrainError,
    parameters::{flat_parameters, map_flat},
};

/// The possible relative widths; that of a flat average over all steps is 0.2887.
pub const WIDTHS: core::ops::RangeInclusive<f64> = 0.005..=0.28;
const WIDTHS_TEXT: &str = "0.005 to 0.28";

/// The averages of post-hoc EMA: the table `[training.post_hoc_ema]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct PostHocEmaConfig {
    /// The number of steps between two snapshots, also written at the end; 0 for no post-hoc EMA.
    pub snapshot_every: u64,
    /// The relative widths of the averages, 0.005 to 0.28. The paper's are 0.05 and 0.1.
    pub relative_widths: Vec<f64>,
}

impl Default for PostHocEmaConfig {
    fn default() -> Self {
        Self { snapshot_every: 0, relative_widths: vec![0.05, 0.1] }
    }
}

impl PostHocEmaConfig {
    pub(crate) fn validate(&self) -> Result<(), TrainError> {
        self.relative_widths
            .iter()
            .try_for_each(|width| check_width("training.post_hoc_ema.relative_widths", *width))?;
        if self.relative_widths.is_empty() && self.snapshot_every > 0 {
            let (key, range) = ("training.post_hoc_ema.snapshot_every", "0, as there are no relative_widths");
            return Err(TrainError::OutOfRange { key, value: self.snapshot_every as f64, range });
        }
        Ok(())
    }
}

fn check_width(key: &'static str, value: f64) -> Result<(), TrainError> {
    if WIDTHS.contains(&value) { Ok(()) } else { Err(TrainError::OutOfRange { key, value, range: WIDTHS_TEXT }) }
}

/// The exponent gamma of a relative width: `width^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))`, found by
/// bisection (the width falls as gamma rises).
pub(crate) fn exponent(width: f64) -> f64 {
    let width_of = |gamma: f64| ((gamma + 1.0) / ((gamma + 2.0).powi(2) * (gamma + 3.0))).sqrt();
    let (mut low, mut high) = (0.0, 1.0 / width + 1.0);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if width_of(middle) > width { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// The averages of a training.
#[derive(Clone, Debug)]
pub(crate) struct PowerAverages {
    pub(crate) widths: Vec<f64>,
    /// The average of each width of each parameter, flat.
    pub(crate) averages: Vec<Vec<Tensor<1>>>,
}

impl PowerAverages {
    pub(crate) fn new(config: &PostHocEmaConfig, unet: &Network) -> Self {
        let widths = if config.snapshot_every > 0 { config.relative_widths.clone() } else { Vec::new() };
        let averages = widths.iter().map(|_| flat_parameters(unet)).collect();
        Self { widths, averages }
    }

    /// Updates the averages after step `step`, counted from 1: `average = decay average + (1 - decay) weights` with
    /// `decay = (1 - 1/step)^(gamma + 1)`.
    pub(crate) fn update(&mut self, step: u64, unet: &Network) {
        for (width, average) in self.widths.iter().zip(&mut self.averages) {
            let decay = (1.0 - 1.0 / step as f64).powf(exponent(*width) + 1.0);
            for (average, weights) in average.iter_mut().zip(flat_parameters(unet)) {
                *average = average.clone() * decay + weights * (1.0 - decay);
            }
        }
    }
}

/// The step and width of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Snapshot {
    /// The step, from 1.
    pub step: u64,
    /// Its relative width.
    pub width: f64,
}

impl Snapshot {
    /// The name of its file in the folder `averages` of a run.
    pub fn file_name(&self) -> String {
        format!("step-{:07}-width-{}.safetensors", self.step, self.width)
    }

    /// Parses such a name; None for any other.
    pub fn of_file_name(name: &str) -> Option<Self> {
        let (step, width) = name.strip_prefix("step-")?.strip_suffix(".safetensors")?.split_once("-width-")?;
        Some(Self { step: step.parse().ok()?, width: width.parse().ok().filter(|width| WIDTHS.contains(width))? })
    }
}

/// The model of relative width `width` after `step` steps (by default those of the last snapshot), from the snapshots in `folder`.
///
/// # Errors
/// Those of [`snapshot_weights`]; [`TrainError::File`] and [`TrainError::Checkpoint`] for a file that cannot be read.
pub fn average(folder: &Path, step: Option<u64>, width: f64, device: &Device) -> Result<Model, TrainError> {
    let mut found: Vec<(Snapshot, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| FileError::new(Action::List, folder, source))? {
        let path = entry.map_err(|source| FileError::new(Action::List, folder, source))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(snapshot) = Snapshot::of_file_name(&name) {
            found.push((snapshot, path));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.step.cmp(&b.step).then(a.width.total_cmp(&b.width)));
    let snapshots: Vec<Snapshot> = found.iter().map(|(snapshot, _)| *snapshot).collect();
    let step = step.or(snapshots.last().map(|last| last.step)).unwrap_or(1);
    let weights = snapshot_weights(&snapshots, step, width)?;

    let (mut first, mut sums) = (None::<Model>, Vec::new());
    for ((_, path), weight) in found.iter().zip(weights) {
        let model = Model::load(path, device)?;
        let first = first.get_or_insert_with(|| model.clone());
        if first.header.unet != model.header.unet {
            let reason = format!("{} is of another network than the others", path.display());
            return Err(TrainError::Snapshots { reason });
        }
        let parameters = flat_parameters(&model.unet);
        sums.resize_with(parameters.len(), Vec::new);
        for (sum, parameter) in sums.iter_mut().zip(parameters) {
            sum.resize(parameter.dims()[0], 0.0);
            sum.iter_mut().zip(parameter.into_data().iter::<f64>()).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    let none = || TrainError::Snapshots { reason: "there is none".to_owned() };
    let Model { unet, header } = first.ok_or_else(none)?;
    let unet = map_flat(unet, |index, _| {
        let values: Vec<f32> = sums[index].iter().map(|value| *value as f32).collect();
        Tensor::from_floats(values.as_slice(), device)
    });
    Ok(Model { unet, header })
}

/// The weight of each snapshot in the average of relative width `width` after `step` steps: the least-squares solution
/// of the paper's section 3.2. The weights add up to about 1; some are negative.
///
/// # Errors
/// [`TrainError::OutOfRange`] if the width is not 0.005 to 0.28, and [`TrainError::Snapshots`] if there is no snapshot at or before
/// `step`, or the equations have no solution.
pub fn snapshot_weights(snapshots: &[Snapshot], step: u64, width: f64) -> Result<Vec<f64>, TrainError> {
    check_width("--relative-width", width)?;
    let refuse = |reason: String| Err(TrainError::Snapshots { reason });
    if !snapshots.iter().any(|snapshot| snapshot.step >= 1 && snapshot.step <= step) {
        return refuse(format!("none is from step {step} or before"));
    }
    let all: Vec<(f64, f64)> =
        snapshots.iter().map(|snapshot| (snapshot.step as f64, exponent(snapshot.width))).collect();
    let wanted = (step as f64, exponent(width));
    // times the step, to be of order 1
    let gram = DMatrix::from_fn(all.len(), all.len(), |row, column| wanted.0 * product(all[row], all[column]));
    let towards = DVector::from_iterator(all.len(), all.iter().map(|one| wanted.0 * product(*one, wanted)));
    // similar snapshots make it nearly singular: the smallest singular values are rounding errors
    let weights = gram.svd(true, true).solve(&towards, 1e-12);
    match weights {
        Ok(weights) if weights.iter().all(|weight| weight.is_finite()) => Ok(weights.iter().copied().collect()),
        _ => refuse("the equations of their widths have no solution".to_owned()),
    }
}

/// The integral of the product of two p, each given by (t, gamma).
fn product((t_a, gamma_a): (f64, f64), (t_b, gamma_b): (f64, f64)) -> f64 {
    let (shorter, longer, exponent) = if t_a <= t_b { (t_a, t_b, gamma_b) } else { (t_b, t_a, gamma_a) };
    (gamma_a + 1.0) * (gamma_b + 1.0) / (gamma_a + gamma_b + 1.0) * (shorter / longer).powf(exponent) / longer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_those_of_the_paper() {
        // sigma_rel 0.05 and 0.10 are gamma 16.97 and 6.94 (section 3.1)
        assert!((exponent(0.05) - 16.97).abs() < 5e-3, "{}", exponent(0.05));
        assert!((exponent(0.10) - 6.94).abs() < 5e-3, "{}", exponent(0.10));
        for width in [0.005, 0.28] {
            let gamma = exponent(width);
            let found = ((gamma + 1.0) / ((gamma + 2.0).powi(2) * (gamma + 3.0))).sqrt();
            assert!((found - width).abs() < 1e-9, "{found}");
        }
    }

    /// The average of a curve with this width after `steps` steps, as the training keeps it.
    fn average(width: f64, steps: u64, curve: impl Fn(u64) -> f64) -> f64 {
        (1..=steps).fold(0.0, |average, step| {
            let decay = (1.0 - 1.0 / step as f64).powf(exponent(width) + 1.0);
            decay * average + (1.0 - decay) * curve(step)
        })
    }

    #[test]
    fn an_average_is_put_together_from_snapshots_of_others() {
        let curve = |step: u64| (step as f64 / 170.0).sin() + (step as f64 / 1000.0).sqrt();
        let snapshots: Vec<Snapshot> =
            (1..=40).flat_map(|number| [0.05, 0.1].map(|width| Snapshot { step: 50 * number, width })).collect();
        let kept: Vec<f64> = snapshots.iter().map(|one| average(one.width, one.step, curve)).collect();
        for (step, width) in [(2000, 0.03), (2000, 0.07), (2000, 0.15), (2000, 0.25), (1500, 0.1), (1730, 0.12)] {
            let weights = snapshot_weights(&snapshots, step, width).unwrap();
            let made: f64 = weights.iter().zip(&kept).map(|(weight, value)| weight * value).sum();
            let direct = average(width, step, curve);
            let total: f64 = weights.iter().sum();
            assert!((made - direct).abs() < 5e-3, "width {width} at {step}: {made} is not {direct}");
            assert!((total - 1.0).abs() < 5e-3, "width {width} at {step}: the weights add up to {total}");
        }
    }

    #[test]
    fn a_snapshot_is_itself() {
        let snapshots =
            [(100, 0.05), (100, 0.1), (200, 0.05), (200, 0.1)].map(|(step, width)| Snapshot { step, width });
        let weights = snapshot_weights(&snapshots, 200, 0.1).unwrap();
        for (weight, expected) in weights.iter().zip([0.0, 0.0, 0.0, 1.0]) {
            assert!((weight - expected).abs() < 1e-6, "{weights:?}");
        }
    }

    #[test]
    fn names_of_files_say_what_they_hold() {
        let snapshot = Snapshot { step: 1500, width: 0.05 };
        assert_eq!(snapshot.file_name(), "step-0001500-width-0.05.safetensors");
        assert_eq!(Snapshot::of_file_name(&snapshot.file_name()), Some(snapshot));
        for name in ["model.safetensors", "step-1.safetensors", "step-1-width-9.safetensors", "step-1-width-0.05.tmp"] {
            assert_eq!(Snapshot::of_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn the_impossible_is_refused() {
        let snapshots = [Snapshot { step: 100, width: 0.05 }];
        for width in [0.0, 0.3, f64::NAN] {
            assert!(snapshot_weights(&snapshots, 100, width).unwrap_err().to_string().contains("--relative-width"));
        }
        assert!(snapshot_weights(&snapshots, 50, 0.1).unwrap_err().to_string().contains("step 50"));
        assert!(snapshot_weights(&[], 50, 0.1).is_err());
    }
}
