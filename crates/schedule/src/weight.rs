//! The weight of each timestep's loss.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{NoiseLevel, Objective, Schedule, ScheduleError};

/// The gamma of Hang et al. 2023, the default of `min_snr`.
const DEFAULT_GAMMA: f64 = 5.0;

/// The weight of the loss at each timestep.
///
/// `Snr` and `MinSnr` start from a weight on the squared error of x_0 and express it for the prediction: the squared error
/// of epsilon is SNR times, and that of v is SNR + 1 times that of x_0 (lucidrains' `loss_weight`):
///
/// | objective | `uniform` | `snr` | `min_snr` |
/// | --- | --- | --- | --- |
/// | epsilon | 1 | 1 | min(SNR, gamma) / SNR |
/// | x0 | 1 | SNR | min(SNR, gamma) |
/// | v | 1 | SNR / (SNR + 1) | min(SNR, gamma) / (SNR + 1) |
/// | edm, flow | 1 | 1 | min(SNR, gamma) times the square of F's factor in x_0 |
///
/// For EDM and flow matching, `uniform` and `snr` are both the weight of the paper.
///
/// As text: `uniform`, `snr`, `min_snr` (gamma 5) or, with another gamma, `min_snr:3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LossWeight {
    /// Equal weights: Ho et al. 2020's simple loss, for any objective.
    Uniform,
    /// The weight on x_0 is the SNR: lucidrains without min-SNR. The default.
    #[default]
    Snr,
    /// The weight on x_0 is the SNR, at most gamma (Hang et al. 2023, arXiv:2303.09556, section 3.4).
    MinSnr {
        /// Largest weight on x_0, above 0. The paper takes 5.
        gamma: f64,
    },
}

impl LossWeight {
    /// Min-SNR weights with a checked gamma.
    ///
    /// # Errors
    /// [`ScheduleError::Unknown`] unless gamma is a number above 0.
    pub fn min_snr(gamma: f64) -> Result<Self, ScheduleError> {
        if gamma > 0.0 && gamma.is_finite() {
            Ok(LossWeight::MinSnr { gamma })
        } else {
            Err(unknown(&format!("min_snr:{gamma}")))
        }
    }

    /// The weight of each timestep, t = 0 first: finite, and at least 0.
    ///
    /// Where the SNR is 0, at the end of a zero-terminal-SNR schedule, the weights are their limits: 1 for epsilon, 0
    /// for x_0 and v. (With `Uniform`, v learns from that timestep too.) A gamma set in the variant directly counts as 0
    /// where it is not a number above 0, and an infinite one clips nothing; [`LossWeight::min_snr`] refuses both.
    pub fn weights(self, schedule: &Schedule, objective: Objective) -> Vec<f64> {
        (0..schedule.timesteps()).map(|t| self.weight(schedule.level(t), objective)).collect()
    }

    /// The weight of one noise level, as [`LossWeight::weights`].
    pub fn weight(self, level: NoiseLevel, objective: Objective) -> f64 {
        let snr = level.snr();
        let largest = match (self, objective) {
            (LossWeight::Uniform, _) | (LossWeight::Snr, Objective::Edm { .. } | Objective::Flow) => return 1.0,
            (LossWeight::Snr, _) => f64::INFINITY,
            (LossWeight::MinSnr { gamma }, _) => gamma.max(0.0),
        };
        match objective {
            Objective::Epsilon if snr <= largest => 1.0,
            Objective::Epsilon => largest / snr,
            Objective::X0 => snr.min(largest),
            Objective::V => snr.min(largest) / (snr + 1.0),
            Objective::Edm { .. } | Objective::Flow => {
                let [_, output] = objective.preconditioning(level).x_0;
                snr.min(largest) * output * output
            }
        }
    }
}

impl fmt::Display for LossWeight {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LossWeight::Uniform => formatter.pad("uniform"),
            LossWeight::Snr => formatter.pad("snr"),
            LossWeight::MinSnr { gamma } => formatter.pad(&format!("min_snr:{gamma}")),
        }
    }
}

impl FromStr for LossWeight {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        match (text, text.strip_prefix("min_snr:").map(str::parse)) {
            ("uniform", _) => Ok(LossWeight::Uniform),
            ("snr", _) => Ok(LossWeight::Snr),
            ("min_snr", _) => Ok(LossWeight::MinSnr { gamma: DEFAULT_GAMMA }),
            (_, Some(Ok(gamma))) => LossWeight::min_snr(gamma),
            _ => Err(unknown(text)),
        }
    }
}

fn unknown(text: &str) -> ScheduleError {
    ScheduleError::Unknown {
        kind: "loss weight",
        given: text.to_owned(),
        valid: "uniform, snr, min_snr, or min_snr:GAMMA with a GAMMA above 0".to_owned(),
    }
}
