//! The training state: what a step changes, and what a checkpoint holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use burn::tensor::{FloatDType, Tensor, TensorData};
use checkpoint::{
    CheckpointError,
    file::{self, TensorFile},
};
use kernels::adam::DeviceGradients;
use schedule::Schedule;
use serde::{Deserialize, Serialize};
use unet::Network;

use crate::{
    batch::Sample,
    config::Config,
    difference::difference,
    ema::Ema,
    error::TrainError,
    importance::ImportanceSampler,
    loss_scale::LossScale,
    optimizer::{Adam, AdamConfig},
    parameters::{Gradients, flat_parameters, map_flat, named},
    post_hoc::PowerAverages,
    quartiles::{QuartileLosses, quartile_of},
};

/// Version of the format of training states. Version 2 renamed `optimiser_steps` and `quarters` of the header.
pub(crate) const FORMAT_VERSION: u32 = 2;

/// Entry of the metadata that holds the [`StateHeader`].
pub(crate) const KEY: &str = "diffuse-training-state";

/// Tensors of importance sampling.
const LOSSES: &str = "importance.losses";
const COUNTS: &str = "importance.counts";

/// The state of a training after a step. Positions in data and noise follow from the step, so they are not part of it.
pub(crate) struct TrainState {
    /// Steps done.
    pub(crate) step: u64,
    /// Some except while the optimizer updates it.
    unet: Option<Network>,
    /// The parameters in the format of mixed precision, flat, where the last step has written them.
    pub(crate) lowered: Option<Vec<Tensor<1>>>,
    /// None unless gradients are in half precision.
    pub(crate) loss_scale: Option<LossScale>,
    pub(crate) optimizer: Adam,
    pub(crate) ema: Ema,
    pub(crate) post_hoc: PowerAverages,
    /// None unless `diffusion.importance_sampling` is set.
    pub(crate) importance: Option<ImportanceSampler>,
    /// Steps that are skipped because they led to numbers that are not finite.
    pub(crate) skipped: BTreeSet<u64>,
    /// The step of the least held-out loss so far, and that loss.
    pub(crate) best: Option<(u64, f64)>,
    /// Losses of the samples since the last line of `metrics.jsonl`.
    pub(crate) quartiles: QuartileLosses,
}

impl TrainState {
    /// The state before the first step.
    pub(crate) fn new(config: &Config, schedule: &Schedule, unet: Network) -> Self {
        let importance_sampling = config.diffusion.importance_sampling;
        Self {
            step: 0,
            lowered: None,
            loss_scale: LossScale::new(config.training.mixed_precision),
            optimizer: Adam::new(AdamConfig::from(&config.training), &unet),
            ema: Ema::new(config.training.ema, &unet),
            post_hoc: PowerAverages::new(&config.training.post_hoc_ema, &unet),
            importance: importance_sampling.then(|| ImportanceSampler::new(schedule.timesteps())),
            skipped: BTreeSet::new(),
            best: None,
            quartiles: QuartileLosses::default(),
            unet: Some(unet),
        }
    }

    /// The network in training.
    pub(crate) fn unet(&self) -> &Network {
        match &self.unet {
            Some(unet) => unet,
            None => unreachable!("only `map_unet` takes it, and puts it back"),
        }
    }

    /// Replaces the network; by value, so that parameters that are not shared can be updated in place.
    pub(crate) fn map_unet(&mut self, map: impl FnOnce(&mut Self, Network) -> Network) {
        if let Some(unet) = self.unet.take() {
            self.lowered = None;
            self.unet = Some(map(self, unet));
        }
    }

    /// Replaces the weights before the first step: the averages begin as copies.
    pub(crate) fn set_initial_weights(&mut self, config: &Config, unet: Network) {
        self.ema = Ema::new(config.training.ema, &unet);
        self.post_hoc = PowerAverages::new(&config.training.post_hoc_ema, &unet);
        self.map_unet(|_, _| unet);
    }

    /// Updates weights, moments and averages by a gradient times `clip`. `self.step` already counts this step.
    pub(crate) fn update(&mut self, gradients: Gradients, clip: f64, learning_rate: f64) {
        self.loss_scale.iter_mut().for_each(LossScale::keep);
        self.map_unet(|state, unet| state.optimizer.step(unet, gradients, clip, learning_rate, state.ema.next()));
        if let Some(unet) = &self.unet {
            self.post_hoc.update(self.step, unet);
        }
    }

    /// [`update`](Self::update) with a decision that the device has made.
    pub(crate) fn update_on_device(
        &mut self,
        gradients: (Vec<bool>, DeviceGradients),
        decision: Tensor<1>,
        learning_rate: f64,
        lower: Option<FloatDType>,
    ) {
        let mut lowered = None;
        self.map_unet(|state, unet| {
            let average = state.ema.next();
            let (unet, in_format) =
                state.optimizer.step_on_device(unet, gradients, decision, learning_rate, average, lower);
            lowered = in_format;
            unet
        });
        self.lowered = lowered;
    }

    /// Records the losses of the samples of a step.
    pub(crate) fn observe(&mut self, samples: &[Sample], losses: &[f64], schedule: &Schedule) {
        let losses = || samples.iter().zip(losses.iter().copied());
        if let Some(importance) = &mut self.importance {
            let of_timesteps = losses().map(|(sample, loss)| (sample.level.timestep as usize, loss));
            importance.observe(&of_timesteps.collect::<Vec<_>>());
        }
        for (sample, loss) in losses() {
            self.quartiles.observe(quartile_of(sample.level, schedule), loss);
        }
    }

    /// All tensors of the state, flat, by their names in a file.
    fn tensors(&self) -> Vec<(String, Tensor<1>)> {
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
                let device = self.unet().device().inner();
                tensors.push((name.to_owned(), Tensor::from_floats(values.as_slice(), &device)));
            }
        }
        tensors
    }

    /// Writes the state, with the configuration that led to it, atomically.
    ///
    /// # Errors
    /// [`CheckpointError::File`] names the file; [`CheckpointError::NotFinite`] if a value is not finite: such a state is never
    /// written.
    pub(crate) fn save(&self, config: &Config, path: &Path) -> Result<(), TrainError> {
        let tensors: Vec<_> = self.tensors().into_iter().map(|(name, tensor)| (name, tensor.into_data())).collect();
        let is_finite = |data: &TensorData| data.iter::<f32>().all(f32::is_finite);
        if let Some((name, _)) = tensors.iter().find(|(_, data)| !is_finite(data)) {
            return Err(CheckpointError::NotFinite { path: path.to_owned(), name: name.clone() }.into());
        }
        let broken = |reason: String| CheckpointError::Header { path: path.to_owned(), reason };
        let config = toml::to_string(config).map_err(|error| broken(error.to_string()))?;
        let header = StateHeader {
            format_version: FORMAT_VERSION,
            step: self.step,
            optimizer_steps: self.optimizer.steps,
            ema_step: self.ema.step,
            skipped: self.skipped.clone(),
            best: self.best,
            config: Some(config),
            quartiles: self.quartiles.clone(),
            loss_scale: self.loss_scale,
        };
        let header = serde_json::to_string(&header).map_err(|error| broken(error.to_string()))?;
        Ok(file::write(path, KEY, header, &tensors)?)
    }

    /// Reads a state of the same configuration, and returns the configuration of the step that it was written after, if it has one.
    ///
    /// # Errors
    /// [`CheckpointError`] names the file and what is wrong with it, [`TrainError::OtherConfiguration`] the keys in which the
    /// configuration differs, if that would not continue the same run; then nothing was changed.
    pub(crate) fn load(&mut self, config: &Config, path: &Path) -> Result<Option<Config>, TrainError> {
        let file = TensorFile::read(path, KEY)?;
        let header: StateHeader = file.header_as(FORMAT_VERSION)?;
        // a configuration that this version cannot read is ignored: the tensors may still be good
        let kept = header.config.as_deref().and_then(|config| toml::from_str::<Config>(config).ok());
        if let Some(kept) = &kept {
            let difference = difference(kept, config);
            if !difference.is_empty() {
                return Err(TrainError::OtherConfiguration { path: path.to_owned(), difference });
            }
        }
        let mut tensors = Vec::new();
        for (name, like) in self.tensors() {
            let broken = |reason: String| CheckpointError::Header { path: path.to_owned(), reason };
            let data = file.tensor(&name)?.ok_or_else(|| broken(format!("the tensor `{name}` is missing")))?;
            if data.shape()[..] != like.dims() {
                return Err(broken(format!(
                    "the tensor `{name}` has the shape {:?}, not {:?}: use another checkpoint",
                    data.shape(),
                    like.dims()
                ))
                .into());
            }
            tensors.push(data);
        }
        self.set_tensors(tensors);
        (self.step, self.optimizer.steps, self.ema.step) = (header.step, header.optimizer_steps, header.ema_step);
        (self.skipped, self.best, self.quartiles) = (header.skipped, header.best, header.quartiles);
        self.loss_scale = header.loss_scale.or(LossScale::new(config.training.mixed_precision));
        Ok(kept)
    }

    /// Replaces all tensors by those of another state, in the order of [`tensors`](Self::tensors).
    fn set_tensors(&mut self, tensors: Vec<TensorData>) {
        let device = self.unet().device().inner();
        let mut tensors = tensors.into_iter();
        self.map_unet(|_, unet| {
            map_flat(unet, |_, value| tensors.next().map_or(value, |data| Tensor::from_data(data, &device)))
        });
        let power_averages = self.post_hoc.averages.iter_mut();
        let lists = [&mut self.ema.average, &mut self.optimizer.first, &mut self.optimizer.second];
        for (tensor, data) in lists.into_iter().chain(power_averages).flatten().zip(&mut tensors) {
            *tensor = Tensor::from_data(data, &device);
        }
        let importance = self.importance.iter_mut().flat_map(|one| [&mut one.losses, &mut one.counts]);
        for (values, data) in importance.zip(&mut tensors) {
            *values = data.iter::<f32>().collect();
        }
    }
}

/// The configuration and the number of steps of a training state, and its raw weights, flat, by the names of their parameters.
///
/// # Errors
/// [`CheckpointError`] names the file and what is wrong with it.
pub(crate) fn read_weights(path: &Path) -> Result<(Config, u64, BTreeMap<String, TensorData>), CheckpointError> {
    let file = TensorFile::read(path, KEY)?;
    let header: StateHeader = file.header_as(FORMAT_VERSION)?;
    let broken = |reason: String| CheckpointError::Header { path: path.to_owned(), reason };
    let config = header.config.ok_or_else(|| {
        broken(
            "it is of an earlier version, and does not say which network its weights are of: use a model file"
                .to_owned(),
        )
    })?;
    let config: Config = toml::from_str(&config).map_err(|error| broken(error.to_string()))?;
    file.check_network(&config.unet)?;
    let mut weights = BTreeMap::new();
    for name in file.names() {
        if let (Some(parameter), Some(data)) = (name.strip_prefix("weights."), file.tensor(&name)?) {
            weights.insert(parameter.to_owned(), data);
        }
    }
    Ok((config, header.step, weights))
}

/// The prefix of average `index` of `training.post_hoc_ema.relative_widths`.
fn power_average(index: usize) -> String {
    format!("power_average.{index}")
}

/// The part of a training state that is not tensors.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StateHeader {
    pub(crate) format_version: u32,
    pub(crate) step: u64,
    #[serde(alias = "optimiser_steps")]
    pub(crate) optimizer_steps: u64,
    pub(crate) ema_step: u64,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) skipped: BTreeSet<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) best: Option<(u64, f64)>,
    /// The configuration of the steps so far, in TOML, independent of later edits of the run's `config.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<String>,
    #[serde(default, alias = "quarters", skip_serializing_if = "QuartileLosses::is_empty")]
    pub(crate) quartiles: QuartileLosses,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) loss_scale: Option<LossScale>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_format_1_is_read() {
        let text = r#"{"format_version":1,"step":6,"optimiser_steps":5,"ema_step":6,"skipped":[3],
            "quarters":[{"count":1,"mean":0.5,"squares":0.0},{"count":0,"mean":0.0,"squares":0.0},
            {"count":0,"mean":0.0,"squares":0.0},{"count":0,"mean":0.0,"squares":0.0}]}"#;
        let header: StateHeader = serde_json::from_str(text).expect("a header");
        assert_eq!((header.step, header.optimizer_steps, header.ema_step), (6, 5, 6));
        assert_eq!(header.quartiles.means()[0].expect("a loss").mean.mean, 0.5);
        let written = serde_json::to_string(&header).expect("JSON");
        assert!(written.contains("optimizer_steps") && written.contains("quartiles"), "{written}");
    }
}
