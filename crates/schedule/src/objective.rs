//! What a network predicts, and how it is fed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{NoiseLevel, ScheduleError};

/// The sigma_data that Karras et al. 2022 take, and `edm` without one.
const DEFAULT_SIGMA_DATA: f64 = 0.5;

/// Timesteps that the times of [`Objective::Edm`] and [`Objective::Flow`] are stretched to: what the sinusoidal embedding
/// of a network was made to tell apart.
const TIME_SCALE: f64 = 1000.0;

/// What a network predicts from x_t.
///
/// As text: `epsilon`, `x0`, `v`, `flow`, and `edm` (sigma_data 0.5) or, with another, `edm:0.3`; lucidrains'
/// `pred_noise`, `pred_x0` and `pred_v` are read as well.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Objective {
    /// The noise epsilon (Ho et al. 2020).
    Epsilon,
    /// The clean data x_0.
    X0,
    /// v = sqrt(alpha_bar) · epsilon - sqrt(1 - alpha_bar) · x_0 (Salimans & Ho 2022, appendix D).
    V,
    /// The preconditioned network F of Karras et al. 2022 (arXiv:2206.00364, table 1): with
    /// `x = x_0 + sigma epsilon`, `x_0 = c_skip x + c_out F(c_in x, ln(sigma) / 4)`, so that input and target have
    /// variance 1 at every sigma.
    Edm {
        /// Root mean square of the data (its standard deviation, where its mean is 0), above 0.
        sigma_data: f64,
    },
    /// The velocity `epsilon - x_0` of the straight path `(1 - s) x_0 + s epsilon`, s in [0, 1] (flow matching: Lipman et
    /// al. 2022, arXiv:2210.02747; rectified flow: Liu et al. 2022, arXiv:2209.03003).
    Flow,
}

/// How a network of some objective is fed at a noise level, and what follows from its output F.
///
/// All are factors for x_t as [`NoiseLevel`] defines it: a network that was trained on another scale of the same image
/// (EDM's `x_0 + sigma epsilon`, flow matching's `(1 - s) x_0 + s epsilon`) is fed a multiple of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preconditioning {
    /// Factor of x_t in the network's input.
    pub input: f64,
    /// The time that the network is told.
    pub time: f64,
    /// Factors of x_0 and epsilon in what the network should say.
    pub target: [f64; 2],
    /// Factors of x_t and F in x_0.
    pub x_0: [f64; 2],
    /// Factors of x_t and F in epsilon.
    pub epsilon: [f64; 2],
}

impl Objective {
    /// How the network is fed at `level`. With `a = sqrt(alpha_bar)`, `n = sqrt(1 - alpha_bar)`:
    ///
    /// | objective | input | time | target | x_0 | epsilon |
    /// | --- | --- | --- | --- | --- | --- |
    /// | epsilon | x_t | t | epsilon | x_t / a - F n / a | F |
    /// | x0 | x_t | t | x_0 | F | x_t / n - F a / n |
    /// | v | x_t | t | a epsilon - n x_0 | a x_t - n F | n x_t + a F |
    /// | edm, `q² = n² + a² sigma_data²` | x_t / q | 250 ln(n / a) | n / (q sigma_data) x_0 - a sigma_data / q epsilon | a sigma_data² / q² x_t + n sigma_data / q F | n / q² x_t - a sigma_data / q F |
    /// | flow, `s = n / (a + n)` | x_t / (a + n) | 1000 s | epsilon - x_0 | x_t / (a + n) - s F | x_t / (a + n) + (1 - s) F |
    ///
    /// The times of `edm` and `flow` are those of the papers, ln(sigma) / 4 and s, times 1000. Some factors are infinite
    /// at an end of the chain: epsilon's where nothing of x_0 is left, x0's for clean data, and edm's time at both.
    pub fn preconditioning(self, level: NoiseLevel) -> Preconditioning {
        let (signal, noise, time) = (level.signal_scale(), level.noise_scale(), level.timestep);
        match self {
            Objective::Epsilon => Preconditioning {
                input: 1.0,
                time,
                target: [0.0, 1.0],
                x_0: [1.0 / signal, -noise / signal],
                epsilon: [0.0, 1.0],
            },
            Objective::X0 => Preconditioning {
                input: 1.0,
                time,
                target: [1.0, 0.0],
                x_0: [0.0, 1.0],
                epsilon: [1.0 / noise, -signal / noise],
            },
            Objective::V => Preconditioning {
                input: 1.0,
                time,
                target: [-noise, signal],
                x_0: [signal, -noise],
                epsilon: [noise, signal],
            },
            Objective::Edm { sigma_data } => {
                let total = (noise * noise + (signal * sigma_data).powi(2)).sqrt();
                Preconditioning {
                    input: 1.0 / total,
                    time: TIME_SCALE * level.sigma().ln() / 4.0,
                    target: [noise / (total * sigma_data), -signal * sigma_data / total],
                    x_0: [signal * sigma_data * sigma_data / (total * total), noise * sigma_data / total],
                    epsilon: [noise / (total * total), -signal * sigma_data / total],
                }
            }
            Objective::Flow => {
                let total = signal + noise;
                Preconditioning {
                    input: 1.0 / total,
                    time: TIME_SCALE * noise / total,
                    target: [-1.0, 1.0],
                    x_0: [1.0 / total, -noise / total],
                    epsilon: [1.0 / total, signal / total],
                }
            }
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Objective::Epsilon => formatter.pad("epsilon"),
            Objective::X0 => formatter.pad("x0"),
            Objective::V => formatter.pad("v"),
            Objective::Edm { sigma_data } => formatter.pad(&format!("edm:{sigma_data}")),
            Objective::Flow => formatter.pad("flow"),
        }
    }
}

impl FromStr for Objective {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        match (text, text.strip_prefix("edm:").map(str::parse::<f64>)) {
            ("epsilon" | "pred_noise", _) => Ok(Objective::Epsilon),
            ("x0" | "pred_x0", _) => Ok(Objective::X0),
            ("v" | "pred_v", _) => Ok(Objective::V),
            ("flow", _) => Ok(Objective::Flow),
            ("edm", _) => Ok(Objective::Edm { sigma_data: DEFAULT_SIGMA_DATA }),
            (_, Some(Ok(sigma_data))) if sigma_data > 0.0 && sigma_data.is_finite() => {
                Ok(Objective::Edm { sigma_data })
            }
            _ => Err(ScheduleError::Unknown {
                what: "objective",
                given: text.to_owned(),
                valid: "one of epsilon, x0, v, flow, edm, or edm:SIGMA_DATA with a SIGMA_DATA above 0".to_owned(),
            }),
        }
    }
}

impl TryFrom<String> for Objective {
    type Error = ScheduleError;

    fn try_from(text: String) -> Result<Self, ScheduleError> {
        text.parse()
    }
}

impl From<Objective> for String {
    fn from(objective: Objective) -> String {
        objective.to_string()
    }
}
