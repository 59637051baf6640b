//! The exponential moving average (EMA) of the weights, which samples are drawn from.

use burn::{module::Module, tensor::Tensor};
use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use unet::Network;

use crate::{
    error::TrainError,
    parameters::{flat_parameters, map_flat},
};

/// The decay of the EMA. The defaults are those of lucidrains' trainer (ema-pytorch).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct EmaConfig {
    /// Largest decay, at least 0 and below 1; 0 is a copy of the weights. The article's `ema_decay`.
    pub decay: f64,
    /// The number of steps between two updates.
    pub update_every: u64,
    /// Whether the decay rises as `1 - (1 + n)^-power`, n being the number of steps after `update_after_step`, before which the
    /// average is a copy; otherwise it is `decay` from the first step.
    pub warmup: bool,
    /// The number of steps for which the average is a copy, with `warmup`.
    pub update_after_step: u64,
    /// The exponent of the warm-up, above 0: larger values rise faster.
    pub power: f64,
}

impl Default for EmaConfig {
    fn default() -> Self {
        Self { decay: 0.995, update_every: 10, warmup: true, update_after_step: 100, power: 2.0 / 3.0 }
    }
}

impl EmaConfig {
    pub(crate) fn validate(&self) -> Result<(), TrainError> {
        let out_of_range = |key, value, range| Err(TrainError::OutOfRange { key, value, range });
        if !(0.0..1.0).contains(&self.decay) {
            return out_of_range("training.ema.decay", self.decay, "at least 0 and below 1");
        }
        if self.update_every == 0 {
            return out_of_range("training.ema.update_every", 0.0, "at least 1");
        }
        if !(self.power > 0.0 && self.power.is_finite()) {
            return out_of_range("training.ema.power", self.power, "above 0");
        }
        Ok(())
    }

    /// The decay after `step` earlier steps, where 0 is a copy; None at steps without an update.
    pub fn decay_at(&self, step: u64) -> Option<f64> {
        if step == 0 {
            return Some(0.0);
        }
        if !step.is_multiple_of(self.update_every) {
            return None;
        }
        if !self.warmup {
            return Some(self.decay);
        }
        if step <= self.update_after_step {
            return Some(0.0);
        }
        // ema-pytorch counts this step already when it asks for the decay
        let beyond = (step + 1).saturating_sub(self.update_after_step + 1) as f64;
        Some((1.0 - (1.0 + beyond).powf(-self.power)).clamp(0.0, self.decay))
    }
}

/// The averaged weights: `average = decay average + (1 - decay) weights`.
#[derive(Clone, Debug)]
pub struct Ema {
    config: EmaConfig,
    /// Steps so far.
    pub(crate) step: u64,
    /// The average of each parameter, flat.
    pub(crate) average: Vec<Tensor<1>>,
}

impl Ema {
    /// Starts as a copy.
    pub fn new(config: EmaConfig, unet: &Network) -> Self {
        Self { config, step: 0, average: flat_parameters(unet) }
    }

    /// The averaged network, for inference; `unet` is the network in training.
    pub fn unet(&self, unet: &Network) -> Network {
        map_flat(unet.valid(), |index, _| self.average[index].clone())
    }

    /// Counts a step and returns the averages to update with their decay; None if there is no update at this step.
    pub(crate) fn next(&mut self) -> Option<(&mut [Tensor<1>], f64)> {
        let decay = self.config.decay_at(self.step);
        self.step += 1;
        decay.map(|decay| (self.average.as_mut_slice(), decay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decay_warms_up_as_ema_pytorch_s() {
        let config = EmaConfig::default();
        assert_eq!(config.decay_at(0), Some(0.0));
        assert_eq!(config.decay_at(5), None);
        assert_eq!(config.decay_at(100), Some(0.0));
        // ema-pytorch: step 111 after the count, minus 100, minus 1
        let expected = 1.0 - 11f64.powf(-2.0 / 3.0);
        assert!((config.decay_at(110).expect("an update") - expected).abs() < 1e-12);
        assert_eq!(config.decay_at(1_000_000), Some(0.995));
        let plain = EmaConfig { warmup: false, update_every: 1, ..config };
        assert_eq!(plain.decay_at(1), Some(0.995));
    }
}
