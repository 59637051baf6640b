//! The objective of a network, and the factors of its input and output.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{NoiseLevel, ScheduleError};

/// The sigma_data of Karras et al. 2022, the default of `edm`.
const DEFAULT_SIGMA_DATA: f64 = 0.5;

/// Factor of the times of [`Objective::Edm`] and [`Objective::Flow`], which brings them to the range of timesteps that a
/// sinusoidal embedding resolves.
const TIME_SCALE: f64 = 1000.0;

/// The quantity that a network predicts from x_t.
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

/// The factors by which a network of an objective is fed at a noise level and its output F is read (Karras et al. 2022,
/// arXiv:2206.00364, call this preconditioning).
///
/// All are factors for x_t as [`NoiseLevel`] defines it: a network that was trained on another scale of the same image
/// (EDM's `x_0 + sigma epsilon`, flow matching's `(1 - s) x_0 + s epsilon`) is fed a multiple of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preconditioning {
    /// Factor of x_t in the network's input.
    pub input: f64,
    /// The network's time input.
    pub time: f64,
    /// Factors of x_0 and epsilon in the target.
    pub target: [f64; 2],
    /// Factors of x_t and F in x_0.
    pub x_0: [f64; 2],
    /// Factors of x_t and F in epsilon.
    pub epsilon: [f64; 2],
}

impl Objective {
    /// The factors at `level`. With `a = sqrt(alpha_bar)`, `n = sqrt(1 - alpha_bar)`:
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
    /// at an end of the chain: those of x_0 for `epsilon` where alpha_bar is 0, and edm's time at both ends. For clean
    /// data, whose noise is undetermined, `x0` gives epsilon = 0.
    pub fn preconditioning(self, level: NoiseLevel) -> Preconditioning {
        let (a, n, t) = (level.signal_scale(), level.noise_scale(), level.timestep);
        let (input, time, target, x_0, epsilon) = match self {
            Objective::Epsilon => (1.0, t, [0.0, 1.0], [1.0 / a, -level.sigma()], [0.0, 1.0]),
            Objective::X0 => {
                let inverse = if n > 0.0 { 1.0 / n } else { 0.0 };
                (1.0, t, [1.0, 0.0], [0.0, 1.0], [inverse, -a * inverse])
            }
            Objective::V => (1.0, t, [-n, a], [a, -n], [n, a]),
            Objective::Edm { sigma_data } => {
                let q = (n * n + (a * sigma_data).powi(2)).sqrt();
                let time = TIME_SCALE * level.sigma().ln() / 4.0;
                let target = [n / (q * sigma_data), -a * sigma_data / q];
                let x_0 = [a * sigma_data * sigma_data / (q * q), n * sigma_data / q];
                (1.0 / q, time, target, x_0, [n / (q * q), -a * sigma_data / q])
            }
            Objective::Flow => {
                let sum = a + n;
                let (input, time) = (1.0 / sum, TIME_SCALE * n / sum);
                (input, time, [-1.0, 1.0], [input, -n / sum], [input, a / sum])
            }
        };
        Preconditioning { input, time, target, x_0, epsilon }
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
                kind: "objective",
                given: text.to_owned(),
                valid: "one of epsilon, x0, v, flow, edm, or edm:SIGMA_DATA with a SIGMA_DATA above 0".to_owned(),
            }),
        }
    }
}
