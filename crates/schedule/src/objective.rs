//! What a network predicts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ScheduleError;

/// What a network predicts from x_t.
///
/// Written `epsilon`, `x0` and `v`; lucidrains' `pred_noise`, `pred_x0` and `pred_v` are read as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The noise epsilon (Ho et al. 2020).
    #[serde(alias = "pred_noise")]
    Epsilon,
    /// The clean data x_0.
    #[serde(alias = "pred_x0")]
    X0,
    /// v = sqrt(alpha_bar) · epsilon - sqrt(1 - alpha_bar) · x_0 (Salimans & Ho 2022, appendix D).
    #[serde(alias = "pred_v")]
    V,
}

impl fmt::Display for Objective {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Objective::Epsilon => "epsilon",
            Objective::X0 => "x0",
            Objective::V => "v",
        })
    }
}

impl FromStr for Objective {
    type Err = ScheduleError;

    fn from_str(name: &str) -> Result<Self, ScheduleError> {
        match name {
            "epsilon" | "pred_noise" => Ok(Objective::Epsilon),
            "x0" | "pred_x0" => Ok(Objective::X0),
            "v" | "pred_v" => Ok(Objective::V),
            _ => Err(ScheduleError::Unknown {
                what: "objective",
                given: name.to_owned(),
                valid: "one of epsilon, x0, v".to_owned(),
            }),
        }
    }
}
