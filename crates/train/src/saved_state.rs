//! Training states as named tensors: to begin a run with the state of another program, and to hand one over.

use std::path::Path;

use burn::tensor::TensorData;
use checkpoint::{
    CheckpointError, Model,
    file::{self, TensorFile},
};
use files::create_folder;

use crate::{
    config::Config,
    error::TrainError,
    run::Run,
    run_files::RunFiles,
    state::{FORMAT_VERSION, KEY, StateHeader},
};

/// Parameters, or values of the same shapes, by the names of the parameters, in the order of the network.
pub type NamedTensors = Vec<(String, TensorData)>;

/// The training state of a run, without what it needs besides (loss scale, importance sampling, averages for post-hoc EMA).
#[derive(Clone, Debug)]
pub struct SavedState {
    /// Steps done.
    pub step: u64,
    /// Steps of the optimizer, fewer where some were skipped.
    pub optimizer_steps: u64,
    /// Steps that the average has seen.
    pub ema_step: u64,
    /// The weights in training.
    pub weights: NamedTensors,
    /// Their average.
    pub average: NamedTensors,
    /// The running mean of each gradient.
    pub first_moment: NamedTensors,
    /// The running mean of its square.
    pub second_moment: NamedTensors,
}

impl SavedState {
    /// The prefixes of the tensors in a file, with the tensors.
    fn lists(&self) -> [(&'static str, &NamedTensors); 4] {
        [
            ("weights", &self.weights),
            ("average", &self.average),
            ("first_moment", &self.first_moment),
            ("second_moment", &self.second_moment),
        ]
    }

    /// Reads the training state in a file; `names` and shapes are those of `like`, such as the state dict of the run's model. The
    /// configuration that led to it comes with it, where the file has one.
    ///
    /// # Errors
    /// [`CheckpointError`] names the file and what is wrong with it.
    pub fn read(path: &Path, like: &NamedTensors) -> Result<(Self, Option<Config>), TrainError> {
        let file = TensorFile::read(path, KEY)?;
        let header: StateHeader = file.header_as(FORMAT_VERSION)?;
        let broken = |reason: String| CheckpointError::Header { path: path.to_owned(), reason };
        let list = |prefix: &str| -> Result<NamedTensors, TrainError> {
            let read = |(name, like): &(String, TensorData)| {
                let full_name = format!("{prefix}.{name}");
                let data = file.tensor(&full_name)?;
                let data = data.ok_or_else(|| broken(format!("the tensor `{full_name}` is missing")))?;
                if data.num_elements() != like.num_elements() {
                    let (found, expected) = (data.num_elements(), like.num_elements());
                    return Err(broken(format!("the tensor `{full_name}` has {found} values, not {expected}")).into());
                }
                let values = data.try_into_vec::<f32>().map_err(|error| broken(format!("`{full_name}`: {error:?}")))?;
                Ok((name.clone(), TensorData::new(values, like.shape().clone())))
            };
            like.iter().map(read).collect()
        };
        let state = Self {
            step: header.step,
            optimizer_steps: header.optimizer_steps,
            ema_step: header.ema_step,
            weights: list("weights")?,
            average: list("average")?,
            first_moment: list("first_moment")?,
            second_moment: list("second_moment")?,
        };
        let config = header.config.map(|config| toml::from_str(&config)).transpose();
        Ok((state, config.map_err(|error: toml::de::Error| broken(error.to_string()))?))
    }

    /// Writes a run directory that [`Run::resume`] goes on with: the configuration, this state, and `model`, to sample from. The images
    /// that `config.data` names are looked at when it goes on.
    ///
    /// # Errors
    /// [`TrainError`] names the key of the configuration that is not possible; [`TrainError::RunDirectory`] if the directory is not
    /// empty.
    pub fn begin_run(&self, config: &Config, model: &Model, directory: &Path) -> Result<RunFiles, TrainError> {
        config.validate()?;
        Run::check_is_new(directory)?;
        let files = RunFiles { directory: directory.to_owned() };
        create_folder(&files.checkpoints())?;
        create_folder(&directory.join("samples"))?;
        self.write(&files.checkpoint_at(self.step))?;
        model.save(&files.model())?;
        // last: without it there is no run
        files.write_config(config)?;
        Ok(files)
    }

    fn write(&self, path: &Path) -> Result<(), TrainError> {
        let mut tensors = Vec::new();
        for (prefix, list) in self.lists() {
            for (name, data) in list {
                let name = format!("{prefix}.{name}");
                if !data.iter::<f32>().all(f32::is_finite) {
                    return Err(CheckpointError::NotFinite { path: path.to_owned(), name }.into());
                }
                let values = data.iter::<f32>().collect::<Vec<f32>>();
                let length = values.len();
                tensors.push((name, TensorData::new(values, [length])));
            }
        }
        let header = StateHeader {
            format_version: FORMAT_VERSION,
            step: self.step,
            optimizer_steps: self.optimizer_steps,
            ema_step: self.ema_step,
            ..StateHeader::default()
        };
        let header = serde_json::to_string(&header)
            .map_err(|error| CheckpointError::Header { path: path.to_owned(), reason: error.to_string() })?;
        Ok(file::write(path, KEY, header, &tensors)?)
    }
}
