//! A training that starts from the weights of a model (`training.from`).
//!
//! Every tensor of the model that fits is taken. The others, whose shapes follow from channels and classes, keep the initial values
//! that they have in a training from nothing.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, TensorData};
use checkpoint::{CheckpointError, ImageFormat, Model, SamplingConfig};
use data::ImageSet;
use schedule::{Objective, ScheduleConfig};
use unet::{Network, NetworkConfig, Unet2dConfig, UnetConfig};

use crate::{
    config::Config,
    difference::differences,
    doctor::{Finding, Severity},
    error::TrainError,
    freeze::Part,
    run_files::RunFiles,
    state::read_weights,
    trainer::Trainer,
};

/// A model to start from, as its file describes it.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// Its network.
    pub unet: NetworkConfig,
    /// Its noise schedule.
    pub schedule: ScheduleConfig,
    /// The objective that it was trained for.
    pub objective: Objective,
    /// Its default options of sampling.
    pub sampling: SamplingConfig,
    /// Its images; None of a training state, which does not have them.
    pub image: Option<ImageFormat>,
    /// The names of its classes, if the file has them.
    pub classes: Vec<String>,
    /// The step of a training state, whose raw weights are taken; None of a model file.
    pub step: Option<u64>,
}

impl Origin {
    /// Reads the description of a model file, of the `model.safetensors` of a run directory, or of a training state.
    ///
    /// # Errors
    /// [`TrainError`] names the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let run = RunFiles { directory: path.to_owned() };
        let file = if path.is_dir() { run.model() } else { path.to_owned() };
        if path.is_dir() && !file.exists() {
            return Err(TrainError::NoModel { path: path.to_owned() });
        }
        match Model::read_header(&file) {
            Ok(header) => Ok(Self {
                file,
                unet: header.unet,
                schedule: header.schedule,
                objective: header.objective,
                sampling: header.sampling,
                image: Some(header.image),
                classes: header.classes,
                step: None,
            }),
            Err(no_model @ CheckpointError::NoHeader { .. }) => match read_weights(&file) {
                Ok((config, step, _)) => Ok(Self {
                    file,
                    unet: config.unet,
                    schedule: config.diffusion.schedule,
                    objective: config.diffusion.objective,
                    sampling: config.sampling,
                    image: None,
                    classes: Vec::new(),
                    step: Some(step),
                }),
                Err(CheckpointError::NoHeader { .. }) => Err(TrainError::NotAModel { source: no_model }),
                Err(error) => Err(error.into()),
            },
            Err(source @ CheckpointError::NotSafetensors { .. }) => Err(TrainError::NotAModel { source }),
            Err(error) => Err(error.into()),
        }
    }

    /// The weights by the names of their parameters: with their shapes, or flat those of a training state.
    fn weights(&self, device: &Device) -> Result<BTreeMap<String, TensorData>, CheckpointError> {
        match self.step {
            None => Ok(Model::load(&self.file, device)?.unet.state_dict().into_iter().collect()),
            Some(_) => read_weights(&self.file).map(|(_, _, weights)| weights),
        }
    }

    /// The network with the weights of this model where they fit, and an account of them.
    ///
    /// # Errors
    /// [`TrainError::OtherArchitecture`] names the keys in which the networks differ; [`TrainError::Checkpoint`] the file and what is
    /// wrong with it.
    fn start(self, unet: Network, config: &NetworkConfig) -> Result<(Network, Start), TrainError> {
        let difference = differences(&inner(&self.unet), &inner(config), ["in the model", "here"]);
        if !difference.is_empty() {
            return Err(TrainError::OtherArchitecture { path: self.file, difference });
        }
        let mut weights = self.weights(&unet.device().inner())?;
        let (mut values, mut taken, mut fresh) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (name, initial) in unet.state_dict() {
            let shape = initial.shape().to_vec();
            let found = weights.remove(&name);
            let there = found.as_ref().map(|data| data.shape().to_vec());
            let data = match found.filter(|data| fits(data.shape(), &shape)) {
                Some(data) => {
                    taken.push((Part::of(&name), data.num_elements()));
                    TensorData::new(data.iter::<f32>().collect::<Vec<f32>>(), shape)
                }
                None => {
                    fresh.push(Fresh { name: name.clone(), shape, there });
                    initial
                }
            };
            values.insert(name, data);
        }
        let broken = |reason: String| CheckpointError::Header { path: self.file.clone(), reason };
        let is_outer = |fresh: &&Fresh| matches!(Part::of(&fresh.name), Part::Stem | Part::Labels | Part::Head);
        if let Some(Fresh { name, shape, there }) = fresh.iter().find(|fresh| !is_outer(fresh)) {
            let found = there.as_ref().map_or("is missing".to_owned(), |there| format!("has the shape {there:?}"));
            return Err(broken(format!("the parameter `{name}` {found}, but its network needs {shape:?}")).into());
        }
        let is_finite = |data: &TensorData| data.iter::<f32>().all(f32::is_finite);
        if let Some((name, _)) = values.iter().find(|entry| !is_finite(entry.1)) {
            return Err(CheckpointError::NotFinite { path: self.file, name: name.clone() }.into());
        }
        let unet = unet
            .load_state_dict(|name| values.remove(name))
            .map_err(|source| CheckpointError::Weights { path: self.file.clone(), source })?;
        Ok((unet, Start { origin: self, taken, fresh, left_out: weights.into_keys().collect() }))
    }
}

/// The keys of the network that are the same in a model and in a network that starts from it: without those that stem, labels and
/// head alone follow from.
fn inner(unet: &NetworkConfig) -> BTreeMap<&'static str, NetworkConfig> {
    let inner = match unet {
        NetworkConfig::Unet(unet) => UnetConfig {
            channels: 0,
            out_dim: None,
            classes: 0,
            self_condition: false,
            learned_variance: false,
            dropout: 0.0,
            // defaults and the same values written out
            init_dim: Some(unet.init_dim()),
            attention: (0..unet.dim_mults.len()).map(|level| unet.attention_of(level)).collect(),
            ..unet.clone()
        }
        .into(),
        NetworkConfig::Unet2d(unet) => {
            Unet2dConfig { channels: 0, classes: 0, learned_variance: false, dropout: 0.0, ..unet.clone() }.into()
        }
    };
    BTreeMap::from([("unet", inner)])
}

/// Whether a tensor of the shape `found`, or a flat one, has the values of one of `expected`. Only one side of a parameter follows
/// from channels or classes, so that the number of values tells flat ones apart.
fn fits(found: &[usize], expected: &[usize]) -> bool {
    found == expected || found == [expected.iter().product::<usize>()]
}

/// A tensor of the network that does not come from the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Fresh {
    /// The parameter.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The shape that it has in the model; None if it has none of this name.
    pub there: Option<Vec<usize>>,
}

/// The tensors that a training started with.
#[derive(Clone, Debug)]
pub struct Start {
    /// The model.
    pub origin: Origin,
    /// Part and number of values of each tensor that was taken.
    taken: Vec<(Part, usize)>,
    /// The tensors that begin as in a training from nothing.
    pub fresh: Vec<Fresh>,
    /// The tensors of the model that the network has not.
    pub left_out: Vec<String>,
}

impl Start {
    /// The account, a line each with its label.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let Origin { file, unet, step, image, .. } = &self.origin;
        let weights = step.map_or("averaged weights".to_owned(), |step| format!("raw weights of step {step}"));
        let size = image.map_or(String::new(), |image| format!(", {}x{}", image.content_height, image.content_width));
        let about = format!("{weights}{size}, {} channel(s), {} classes", unet.channels(), unet.classes());
        let values: usize = self.taken.iter().map(|(_, values)| values).sum();
        let mut parts: BTreeMap<Part, usize> = BTreeMap::new();
        self.taken.iter().for_each(|(part, _)| *parts.entry(*part).or_default() += 1);
        let parts: Vec<String> = parts.iter().map(|(part, count)| format!("{} {count}", part.name())).collect();
        let taken = format!("{} tensors, {values} parameters: {}", self.taken.len(), parts.join(", "));
        let fresh = |Fresh { name, shape, there }: &Fresh| match there {
            Some(there) => format!("{name} {shape:?}, there {there:?}"),
            None => format!("{name} {shape:?}, not there"),
        };
        let fresh = match self.fresh.as_slice() {
            [] => "nothing".to_owned(),
            all => {
                let values: usize = all.iter().map(|fresh| fresh.shape.iter().product::<usize>()).sum();
                let all: Vec<String> = all.iter().map(fresh).collect();
                format!("{} tensors, {values} parameters: {}", all.len(), all.join("; "))
            }
        };
        let mut lines = vec![("start", format!("{}: {about}", file.display())), ("taken", taken), ("fresh", fresh)];
        if !self.left_out.is_empty() {
            lines.push(("not taken", self.left_out.join(", ")));
        }
        lines
    }
}

impl Trainer {
    /// Replaces the initial weights by those of `training.from`, where they fit.
    pub(crate) fn start_from_model(&mut self) -> Result<(), TrainError> {
        let Some(path) = &self.config.training.from else { return Ok(()) };
        let (unet, start) = Origin::read(Path::new(path))?.start(self.unet().clone(), &self.config.unet)?;
        self.state.set_initial_weights(&self.config, unet);
        self.start = Some(start);
        Ok(())
    }
}

/// The differences between a model and the training that starts from it which cost quality, and frozen parts that were not trained.
pub fn check_start(config: &Config, images: &ImageSet, start: Option<&Start>) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut warn = |text: String| found.push(Finding::new(Severity::Warning, text));
    let parts = |parts: &[Part]| parts.iter().map(|part| part.name()).collect::<Vec<_>>().join(", ");
    let Some(Start { origin, fresh, .. }) = start else {
        if config.training.from.is_none() && !config.training.freeze.is_empty() {
            let frozen = parts(&config.training.freeze);
            warn(format!("the frozen parts ({frozen}) keep random weights; name a trained model with training.from"));
        }
        return found;
    };
    let (objective, before) = (config.diffusion.objective, origin.objective);
    if objective != before {
        warn(format!(
            "the objective is {objective}, but that of the model {before}: its output means something else and is learned anew; leave \
             diffusion.objective out to take that of the model"
        ));
    }
    let difference = differences(&origin.schedule, &config.diffusion.schedule, ["in the model", "here"]);
    if !difference.is_empty() {
        let difference: Vec<&str> = difference.lines().map(str::trim).collect();
        warn(format!(
            "another noise schedule than that of the model ({}): timesteps mean other noise levels; leave its keys out to take that of \
             the model",
            difference.join("; ")
        ));
    }
    let size = images.content_size();
    if let Some((height, width)) = origin.image.map(|image| (image.content_height, image.content_width))
        && (height, width) != size
    {
        let side = if height == width { height.to_string() } else { format!("[{height}, {width}]") };
        warn(format!(
            "images of {}x{}, but {height}x{width} in the model; data.image_size = {side} resizes them",
            size.0, size.1
        ));
    }
    let takes_labels = config.unet.classes() > 0 && fresh.iter().all(|fresh| Part::of(&fresh.name) != Part::Labels);
    let names = images.class_names().unwrap_or_default();
    if takes_labels && origin.step.is_none() && origin.classes != names {
        let first = |names: &[String]| names.first().map_or("no names".to_owned(), |name| format!("`{name}`, …"));
        warn(format!(
            "the classes ({}) are named otherwise in the model ({}), and begin with its label embedding, by their numbers",
            first(names),
            first(&origin.classes)
        ));
    }
    let is_frozen = |fresh: &&Fresh| config.training.freeze.contains(&Part::of(&fresh.name));
    let untrained: Vec<&str> = fresh.iter().filter(is_frozen).map(|fresh| fresh.name.as_str()).collect();
    if !untrained.is_empty() {
        warn(format!(
            "fresh tensors of frozen parts keep random weights: {}; leave their parts out of training.freeze",
            untrained.join(", ")
        ));
    }
    found
}
