//! The distribution of the noise levels of a training step.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{NoiseLevel, Objective, Schedule, ScheduleError};

/// The distribution of the noise levels of training samples.
///
/// As text: `own`, `uniform`, `log_normal` (EDM's -1.2 and 1.2) or `log_normal:MEAN:DEVIATION`, `flow`, `logit_normal`
/// (0 and 1) or `logit_normal:MEAN:DEVIATION`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LevelDistribution {
    /// The one of the objective's paper: `log_normal` for EDM, `flow` for flow matching, `uniform` for the others. The
    /// default.
    #[default]
    Own,
    /// Uniform over the timesteps of the schedule (Ho et al. 2020, algorithm 1).
    Uniform,
    /// ln(sigma) is normal (Karras et al. 2022, arXiv:2206.00364, table 1).
    LogNormal {
        /// Mean of ln(sigma).
        mean: f64,
        /// Its standard deviation, above 0.
        deviation: f64,
    },
    /// Flow matching's time `s = sigma / (1 + sigma)` is uniform in (0, 1) (Liu et al. 2022, arXiv:2209.03003).
    Flow,
    /// The logit of that s, which is ln(sigma), is normal, so that middle levels are drawn more often (Esser et al. 2024,
    /// arXiv:2403.03206, section 3.1). The distributions of `log_normal`, with other defaults.
    LogitNormal {
        /// Mean of the logit.
        mean: f64,
        /// Its standard deviation, above 0.
        deviation: f64,
    },
}

impl LevelDistribution {
    /// Resolves [`LevelDistribution::Own`] for an objective.
    pub fn of(self, objective: Objective) -> Self {
        match (self, objective) {
            (LevelDistribution::Own, Objective::Edm { .. }) => {
                LevelDistribution::LogNormal { mean: -1.2, deviation: 1.2 }
            }
            (LevelDistribution::Own, Objective::Flow) => LevelDistribution::Flow,
            (LevelDistribution::Own, _) => LevelDistribution::Uniform,
            (other, _) => other,
        }
    }

    /// The level of one draw: each distribution uses either `uniform`, in (0, 1), or `normal`, from the standard normal
    /// distribution. Levels outside the range of the schedule have the timestep of the nearest end
    /// ([`Schedule::level_at_sigma`]). `Own` counts as `Uniform`: see [`LevelDistribution::of`].
    pub fn level(self, schedule: &Schedule, uniform: f64, normal: f64) -> NoiseLevel {
        match self {
            LevelDistribution::Own | LevelDistribution::Uniform => {
                schedule.level((uniform * schedule.timesteps() as f64) as usize)
            }
            LevelDistribution::Flow => schedule.level_at_sigma(uniform / (1.0 - uniform)),
            LevelDistribution::LogNormal { mean, deviation } | LevelDistribution::LogitNormal { mean, deviation } => {
                schedule.level_at_sigma((mean + deviation * normal).exp())
            }
        }
    }
}

impl fmt::Display for LevelDistribution {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LevelDistribution::Own => formatter.pad("own"),
            LevelDistribution::Uniform => formatter.pad("uniform"),
            LevelDistribution::LogNormal { mean, deviation } => {
                formatter.pad(&format!("log_normal:{mean}:{deviation}"))
            }
            LevelDistribution::Flow => formatter.pad("flow"),
            LevelDistribution::LogitNormal { mean, deviation } => {
                formatter.pad(&format!("logit_normal:{mean}:{deviation}"))
            }
        }
    }
}

impl FromStr for LevelDistribution {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let numbers = |name: &str| -> Option<(f64, f64)> {
            let (mean, deviation) = text.strip_prefix(name)?.strip_prefix(':')?.split_once(':')?;
            let (mean, deviation): (f64, f64) = (mean.parse().ok()?, deviation.parse().ok()?);
            (mean.is_finite() && deviation > 0.0 && deviation.is_finite()).then_some((mean, deviation))
        };
        match text {
            "own" => Ok(LevelDistribution::Own),
            "uniform" => Ok(LevelDistribution::Uniform),
            "log_normal" => Ok(LevelDistribution::LogNormal { mean: -1.2, deviation: 1.2 }),
            "flow" => Ok(LevelDistribution::Flow),
            "logit_normal" => Ok(LevelDistribution::LogitNormal { mean: 0.0, deviation: 1.0 }),
            _ => match (numbers("log_normal"), numbers("logit_normal")) {
                (Some((mean, deviation)), _) => Ok(LevelDistribution::LogNormal { mean, deviation }),
                (_, Some((mean, deviation))) => Ok(LevelDistribution::LogitNormal { mean, deviation }),
                _ => Err(ScheduleError::Unknown {
                    kind: "distribution of noise levels",
                    given: text.to_owned(),
                    valid: "one of own, uniform, flow, log_normal, log_normal:MEAN:DEVIATION, logit_normal, \
                            logit_normal:MEAN:DEVIATION, the deviation above 0"
                        .to_owned(),
                }),
            },
        }
    }
}
