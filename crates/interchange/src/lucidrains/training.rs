//! The state of a training: to go on where `Trainer` was.

use std::path::Path;

use burn::tensor::TensorData;
use checkpoint::Model;
use pytorch_reader::PickleValue;
use schedule::LossWeight;
use train::{Config, DataConfig, DiffusionConfig, ImageSize, RunFiles, SavedState, TrainError, TrainingConfig};
use unet::Unet;

use super::{
    Parameters,
    import::{Prefixes, parameters},
    network::{Tensors, parameter_order},
};
use crate::{Account, InterchangeError, source::Source, torch_file::TorchFile};

/// The step of `train_num_steps`, lucidrains' default.
const USUAL_STEPS: u64 = 100_000;

/// The state of lucidrains' `Trainer`.
#[derive(Clone, Debug)]
pub struct Training {
    /// Weights, their average, Adam's moments, and steps.
    pub state: SavedState,
    /// The learning rate.
    pub learning_rate: f64,
    /// Adam's decays.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub epsilon: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// The weight of the loss.
    pub loss_weight: LossWeight,
}

/// Reads the state of the training.
pub(super) fn read(
    source: &Source,
    prefixes: &Prefixes,
    unet: &Unet,
    loss_weight: LossWeight,
    account: &mut Account,
) -> Result<Training, InterchangeError> {
    let no_state = || {
        source.key_error(
            "opt",
            "the file has no state of the optimizer, which Trainer.save writes; leave out --optimizer to take the weights alone",
        )
    };
    let Source::Torch(file) = source else { return Err(no_state()) };
    let (Some(online), Some(average), Some(PickleValue::Dict(_))) =
        (&prefixes.online, &prefixes.average, file.value(&["opt", "state"]))
    else {
        return Err(no_state());
    };
    let names = source.names();
    let of = |prefix: &str| parameters(Tensors { source, prefix }, unet, &names);
    let (weights, average) = (of(online)?, of(average)?);
    let group = |key: &'static str| {
        let number = file.number(&["opt", "param_groups", "0", key]);
        number.ok_or_else(|| source.key_error(format!("opt.param_groups.0.{key}"), "it is missing or no number"))
    };
    let (first_moment, second_moment, optimizer_steps) = moments(source, file, &weights)?;
    let step = count(source, file, &["step"])?;
    let training = Training {
        state: SavedState {
            step,
            optimizer_steps,
            ema_step: count(source, file, &["ema", "step"])?,
            weights,
            average,
            first_moment,
            second_moment,
        },
        learning_rate: group("lr")?,
        betas: beta_pair(file)
            .ok_or_else(|| source.key_error("opt.param_groups.0.betas", "it is no pair of numbers"))?,
        epsilon: group("eps")?,
        weight_decay: group("weight_decay")?,
        loss_weight,
    };
    account.used.push(format!(
        "the training after step {step}: weights, average, moments of Adam, learning rate {}",
        training.learning_rate
    ));
    account.assumed.push(
        "for the training: Trainer's defaults (batches of 16, EMA of decay 0.995 every 10 steps, horizontal flips, 100000 steps), \
         dropout 0; edit config.toml of the run before it goes on if yours were others"
            .to_owned(),
    );
    Ok(training)
}

/// A number of steps.
fn count(source: &Source, file: &TorchFile, keys: &[&str]) -> Result<u64, InterchangeError> {
    let number = file.number(keys).filter(|number| (0.0..1e15).contains(number));
    number
        .map(|number| number as u64)
        .ok_or_else(|| source.key_error(keys.join("."), "it is missing or no number of steps"))
}

fn beta_pair(file: &TorchFile) -> Option<[f64; 2]> {
    let beta = |place| file.number(&["opt", "param_groups", "0", "betas", place]);
    Some([beta("0")?, beta("1")?])
}

/// Both moments of each parameter, in the order of `weights`, and the steps of the optimizer.
fn moments(
    source: &Source,
    file: &TorchFile,
    weights: &Parameters,
) -> Result<(Parameters, Parameters, u64), InterchangeError> {
    let order = parameter_order(weights.iter().map(|(name, _)| name.clone()).collect());
    let listed = match file.value(&["opt", "param_groups", "0", "params"]) {
        Some(PickleValue::List(listed)) => listed.len(),
        _ => 0,
    };
    if listed != order.len() || file.value(&["opt", "param_groups", "1"]).is_some() {
        return Err(source.key_error(
            "opt.param_groups",
            format!(
                "its first group has {listed} parameters and the network {}: the optimizer is not that of Trainer; leave out \
                 --optimizer to take the weights alone",
                order.len()
            ),
        ));
    }
    let mut steps = 0;
    let mut read = |name: &str, like: &TensorData| -> Result<[TensorData; 2], InterchangeError> {
        let number = order.iter().position(|other| other == name).unwrap_or_default().to_string();
        let of = |moment: &str| {
            let key = format!("opt.state.{number}.{moment}");
            match source.tensor(&key)? {
                Some(data) if data.shape() == like.shape() => Ok(data),
                Some(data) => {
                    let (found, expected) = (data.shape().to_vec(), like.shape().to_vec());
                    let reason = format!("it has the shape {found:?}, and `{name}` has {expected:?}");
                    Err(source.key_error(key, reason))
                }
                None => Err(source.key_error(key, format!("it is missing, the moment of `{name}`"))),
            }
        };
        // PyTorch's optimizers before 1.12 kept plain numbers
        steps = steps.max(count(source, file, &["opt", "state", &number, "step"])?);
        Ok([of("exp_avg")?, of("exp_avg_sq")?])
    };
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (name, like) in weights {
        let [mean, square] = read(name, like)?;
        first.push((name.clone(), mean));
        second.push((name.clone(), square));
    }
    Ok((first, second, steps))
}

impl Training {
    /// Writes a run directory that `diffuse train --resume` goes on with, on the images at `data`, with the settings of the file and,
    /// where it says nothing, lucidrains' defaults.
    ///
    /// # Errors
    /// [`TrainError`] names the setting that is not possible, or the directory, if it is not empty.
    pub fn begin_run(&self, model: &Model, data: &str, directory: &Path) -> Result<RunFiles, TrainError> {
        self.state.begin_run(&self.config(model, data), model, directory)
    }

    /// The configuration of the run.
    fn config(&self, model: &Model, data: &str) -> Config {
        let header = &model.header;
        let step = self.state.step;
        Config {
            data: DataConfig {
                path: data.to_owned(),
                image_size: Some(ImageSize::Sides([header.image.height, header.image.width])),
                channels: matches!(header.image.channels, 1 | 3 | 4).then_some(header.image.channels),
                // all images were trained on
                held_out: 0,
                horizontal_flip: true,
                ..DataConfig::default()
            },
            unet: header.unet.clone(),
            diffusion: DiffusionConfig {
                schedule: header.schedule.clone(),
                objective: header.objective,
                loss_weight: self.loss_weight,
                ..DiffusionConfig::default()
            },
            training: TrainingConfig {
                steps: if step < USUAL_STEPS { USUAL_STEPS } else { step + USUAL_STEPS },
                learning_rate: self.learning_rate,
                betas: self.betas,
                epsilon: self.epsilon,
                weight_decay: self.weight_decay,
                ..TrainingConfig::default()
            },
            sampling: header.sampling.clone(),
        }
    }
}
