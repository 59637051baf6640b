//! Everything that must survive a restart, and nothing else: steps, weights, moments and average.

use std::{collections::BTreeSet, path::Path};

use burn::tensor::{Tensor, TensorData};
use checkpoint::{CheckpointError, file};
use serde::{Deserialize, Serialize};

use crate::{
    config::Config,
    error::TrainError,
    parameters::{flat_parameters, map_flat, named},
    quartiles::QuartileLosses,
    run::difference,
    trainer::Trainer,
};

/// Entry of the metadata that holds the [`StateHeader`].
const KEY: &str = "diffuse-training-state";

/// What importance sampling remembers.
const LOSSES: &str = "importance.losses";
const COUNTS: &str = "importance.counts";

/// The prefix of the average number `index` of `training.post_hoc_ema.relative_widths`.
fn power_average(index: usize) -> String {
    format!("power_average.{index}")
}

/// Positions in data and noise follow from the step, so they are not here.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateHeader {
    format_version: u32,
    step: u64,
    #[serde(alias = "optimiser_steps")]
    optimizer_steps: u64,
    ema_step: u64,
    /// Steps that are not taken.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    skipped: BTreeSet<u64>,
    /// The least held-out loss so far, and its step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    best: Option<(u64, f64)>,
    /// The configuration of the steps so far, in TOML, whatever becomes of the run's `config.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config: Option<String>,
    /// Losses since the last line of `metrics.jsonl`, so that the next line is that of a run without a stop.
    #[serde(default, alias = "quarters", skip_serializing_if = "QuartileLosses::is_empty")]
    quartiles: QuartileLosses,
}

impl Trainer {
    /// Writes the training state, atomically.
    ///
    /// # Errors
    /// [`CheckpointError::File`] names the file; [`CheckpointError::NotFinite`] if a number is not finite: such a state is never
    /// written.
    pub fn save_state(&self, path: &Path) -> Result<(), TrainError> {
        let names = self.unet().parameter_names();
        let mut tensors = named("weights", &names, &flat_parameters(self.unet()));
        tensors.extend(named("average", &names, &self.ema.average));
        tensors.extend(named("first_moment", &names, &self.optimizer.first));
        tensors.extend(named("second_moment", &names, &self.optimizer.second));
        for (index, average) in self.post_hoc.averages.iter().enumerate() {
            tensors.extend(named(&power_average(index), &names, average));
        }
        if let Some(importance) = &self.importance {
            for (name, values) in [(LOSSES, &importance.losses), (COUNTS, &importance.counts)] {
                tensors.push((name.to_owned(), TensorData::new(values.clone(), [values.len()])));
            }
        }
        let broken = |(_, data): &&(String, TensorData)| !data.iter::<f32>().all(f32::is_finite);
        if let Some((name, _)) = tensors.iter().find(broken) {
            return Err(CheckpointError::NotFinite { path: path.to_owned(), name: name.clone() }.into());
        }
        let broken = |reason: String| CheckpointError::Header { path: path.to_owned(), reason };
        let config = toml::to_string(&self.config).map_err(|error| broken(error.to_string()))?;
        let header = StateHeader {
            format_version: checkpoint::FORMAT_VERSION,
            step: self.step,
            optimizer_steps: self.optimizer.steps,
            ema_step: self.ema.step,
            skipped: self.skipped.clone(),
            best: self.best,
            quartiles: self.quartiles.clone(),
            config: Some(config),
        };
        let header = serde_json::to_string(&header).map_err(|error| broken(error.to_string()))?;
        Ok(file::write(path, KEY, header, &tensors)?)
    }

    /// Goes on from a training state of the same configuration.
    ///
    /// # Errors
    /// [`CheckpointError`] names the file and what is wrong with it, [`TrainError::OtherConfiguration`] in what the configuration
    /// differs, if that would not mean the same run; then nothing was changed.
    pub fn load_state(&mut self, path: &Path) -> Result<(), TrainError> {
        let file = file::TensorFile::read(path, KEY)?;
        let broken = |reason: String| CheckpointError::Header { path: path.to_owned(), reason };
        let header: StateHeader = file.header_as()?;
        // one that this version cannot read says nothing: the numbers may still be good
        if let Some(kept) = header.config.as_deref().and_then(|config| toml::from_str::<Config>(config).ok()) {
            let difference = difference(&kept, &self.config);
            if !difference.is_empty() {
                return Err(TrainError::OtherConfiguration { path: path.to_owned(), difference });
            }
        }
        let names = self.unet().parameter_names();
        let current = flat_parameters(self.unet());
        let read = |prefix: &str| -> Result<Vec<TensorData>, CheckpointError> {
            let mut list = Vec::with_capacity(names.len());
            for (name, like) in names.iter().zip(&current) {
                let key = format!("{prefix}.{name}");
                let data = file.tensor(&key)?.ok_or_else(|| broken(format!("the tensor `{key}` is missing")))?;
                if data.shape()[..] != like.shape()[..] {
                    return Err(broken(format!("`{key}` has {:?} numbers, not {:?}", data.shape(), like.shape())));
                }
                list.push(data);
            }
            Ok(list)
        };
        let (weights, average) = (read("weights")?, read("average")?);
        let (first, second) = (read("first_moment")?, read("second_moment")?);
        let power_averages: Vec<Vec<TensorData>> =
            (0..self.post_hoc.averages.len()).map(|index| read(&power_average(index))).collect::<Result<_, _>>()?;
        let mut importance = self.importance.clone();
        if let Some(importance) = &mut importance {
            for (name, values) in [(LOSSES, &mut importance.losses), (COUNTS, &mut importance.counts)] {
                let data = file.tensor(name)?.ok_or_else(|| broken(format!("the tensor `{name}` is missing")))?;
                let found: Vec<f32> = data.iter::<f32>().collect();
                if found.len() != values.len() {
                    return Err(broken(format!("`{name}` has {} numbers, not {}", found.len(), values.len())).into());
                }
                *values = found;
            }
        }
        let device = self.unet().device().inner();
        let upload = |list: &[TensorData], index: usize| Tensor::<1>::from_data(list[index].clone(), &device);
        self.unet = self.unet.take().map(|unet| map_flat(unet, |index, _| upload(&weights, index)));
        self.ema.average = (0..names.len()).map(|index| upload(&average, index)).collect();
        self.optimizer.first = (0..names.len()).map(|index| upload(&first, index)).collect();
        self.optimizer.second = (0..names.len()).map(|index| upload(&second, index)).collect();
        for (average, read) in self.post_hoc.averages.iter_mut().zip(&power_averages) {
            *average = (0..names.len()).map(|index| upload(read, index)).collect();
        }
        self.importance = importance;
        (self.step, self.optimizer.steps, self.ema.step) = (header.step, header.optimizer_steps, header.ema_step);
        self.skipped = header.skipped;
        self.best = header.best;
        self.quartiles = header.quartiles;
        Ok(())
    }
}
