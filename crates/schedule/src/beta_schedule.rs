//! The beta schedules of papers and peers.

use std::f64::consts::FRAC_PI_2;
use std::fmt;
use std::str::FromStr;

use serde::de::value::{Error, MapDeserializer};
use serde::{Deserialize, Serialize};

use crate::{MAX_TIMESTEPS, ScheduleError};

/// The largest beta of the schedules that are defined by alpha-bar (Nichol & Dhariwal 2021, section 3.2).
const MAX_BETA: f64 = 0.999;

/// A beta schedule: betas over any number of timesteps, with its parameters.
///
/// In a configuration file it is a table tagged by `family`; missing parameters take their defaults and unknown ones are
/// errors: `family = "sigmoid"`, `tau = 0.9`. [`FromStr`] and [`fmt::Display`] use the plain names.
///
/// `t` counts 0, …, T-1, and u = (t + 1) / T is the fraction of the chain after step `t`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "snake_case", deny_unknown_fields)]
pub enum BetaSchedule {
    /// Betas rise linearly between the two values *times 1000/T*, so that the end of the chain is equally noisy at any T
    /// (OpenAI improved-diffusion and lucidrains; at T = 1000 that of Ho et al. 2020).
    ///
    /// With the default values a beta reaches 1 at T = 20 and below, which is an error.
    Linear {
        /// First beta at T = 1000, in (0, 1). Default 0.0001.
        #[serde(default = "default::beta_start")]
        beta_start: f64,
        /// Last beta at T = 1000, in (0, 1), at least `beta_start`. Default 0.02.
        #[serde(default = "default::beta_end")]
        beta_end: f64,
    },
    /// Betas rise linearly between the two values at any T (diffusers' `linear`).
    LinearUnscaled {
        /// First beta, in (0, 1). Default 0.0001.
        #[serde(default = "default::beta_start")]
        beta_start: f64,
        /// Last beta, in (0, 1), at least `beta_start`. Default 0.02.
        #[serde(default = "default::beta_end")]
        beta_end: f64,
    },
    /// Square roots of the betas rise linearly (diffusers' `scaled_linear`), with latent diffusion's defaults.
    ScaledLinear {
        /// First beta, in (0, 1). Default 0.00085.
        #[serde(default = "default::latent_beta_start")]
        beta_start: f64,
        /// Last beta, in (0, 1), at least `beta_start`. Default 0.012.
        #[serde(default = "default::latent_beta_end")]
        beta_end: f64,
    },
    /// Square roots of the betas rise linearly, under the name and with the defaults of Ho et al. (their `quad`):
    /// [`BetaSchedule::ScaledLinear`] with other defaults.
    Quadratic {
        /// First beta, in (0, 1). Default 0.0001.
        #[serde(default = "default::beta_start")]
        beta_start: f64,
        /// Last beta, in (0, 1), at least `beta_start`. Default 0.02.
        #[serde(default = "default::beta_end")]
        beta_end: f64,
    },
    /// The same beta at every step (Ho et al.'s `const`).
    Constant {
        /// The beta, in (0, 1). Default 0.02.
        #[serde(default = "default::beta_end")]
        beta: f64,
    },
    /// alpha_bar(u) = cos²((u + s) / (1 + s) · π/2), normalized to 1 at u = 0, betas at most 0.999
    /// (Nichol & Dhariwal 2021, equation 17).
    Cosine {
        /// Offset that keeps the first betas from vanishing, a fraction of the chain, at least 0. Default 0.008.
        #[serde(default = "default::s")]
        s: f64,
    },
    /// alpha_bar(u) falls like a sigmoid from `start` to `end` at temperature `tau`, normalized to 1 at u = 0, betas
    /// at most 0.999 (Jabri et al. 2022, figure 8; lucidrains' definition).
    ///
    /// The sigmoid at `end` is taken in single precision, as in lucidrains, whose models were trained with the last
    /// alpha-bars that this shifts by up to 1e-5 of their value. Not diffusers' `sigmoid`, which shapes the betas.
    Sigmoid {
        /// Argument of the sigmoid at u = 0, before division by `tau`. Default -3.
        #[serde(default = "default::start")]
        start: f64,
        /// Argument of the sigmoid at u = 1, before division by `tau`, above `start`. Default 3.
        #[serde(default = "default::end")]
        end: f64,
        /// Temperature, above 0. Default 1.
        #[serde(default = "default::tau")]
        tau: f64,
    },
    /// The sigmas of EDM's sampler: `sigma^(1/rho)` rises linearly from `sigma_min` to `sigma_max` (Karras et al. 2022,
    /// arXiv:2206.00364, equation 5). Goes with [`Objective::Edm`](crate::Objective::Edm), and with any other.
    Edm {
        /// Sigma after the first step, above 0. Default 0.002.
        #[serde(default = "default::sigma_min")]
        sigma_min: f64,
        /// Sigma at the end of the chain, above `sigma_min`. Default 80.
        #[serde(default = "default::sigma_max")]
        sigma_max: f64,
        /// Exponent rho, above 0: the larger, the more timesteps at small sigmas. Default 7.
        #[serde(default = "default::rho")]
        rho: f64,
    },
    /// The user's own betas: one for each timestep, in (0, 1), none below its predecessor.
    Custom {
        /// The beta of each timestep, t = 0 first.
        betas: Vec<f64>,
    },
}

/// Default parameters, as the functions that serde asks for.
mod default {
    macro_rules! defaults {
        ($($name:ident = $value:expr;)+) => { $(pub(super) fn $name() -> f64 { $value })+ };
    }
    defaults! {
        beta_start = 0.0001;
        beta_end = 0.02;
        latent_beta_start = 0.00085;
        latent_beta_end = 0.012;
        s = 0.008;
        start = -3.0;
        end = 3.0;
        tau = 1.0;
        sigma_min = 0.002;
        sigma_max = 80.0;
        rho = 7.0;
    }
}

impl BetaSchedule {
    /// The plain names that [`FromStr`] reads. (`custom` is not one: it needs its betas.)
    pub const NAMES: [&'static str; 8] =
        ["linear", "linear_unscaled", "scaled_linear", "quadratic", "constant", "cosine", "sigmoid", "edm"];

    /// The plain name, as in a configuration file.
    pub fn name(&self) -> &'static str {
        match self {
            BetaSchedule::Linear { .. } => "linear",
            BetaSchedule::LinearUnscaled { .. } => "linear_unscaled",
            BetaSchedule::ScaledLinear { .. } => "scaled_linear",
            BetaSchedule::Quadratic { .. } => "quadratic",
            BetaSchedule::Constant { .. } => "constant",
            BetaSchedule::Cosine { .. } => "cosine",
            BetaSchedule::Sigmoid { .. } => "sigmoid",
            BetaSchedule::Edm { .. } => "edm",
            BetaSchedule::Custom { .. } => "custom",
        }
    }

    /// The betas of a chain of `timesteps` steps, each in (0, 1), t = 0 first.
    ///
    /// # Errors
    /// [`ScheduleError::Timesteps`] for 0 or more than [`MAX_TIMESTEPS`]; [`ScheduleError::Parameter`] for a parameter
    /// out of range; [`ScheduleError::ImpossibleBeta`] where a beta leaves (0, 1), as when T is too small; for custom
    /// betas [`ScheduleError::BetaCount`], [`ScheduleError::Beta`] and [`ScheduleError::DecreasingBetas`].
    pub fn betas(&self, timesteps: usize) -> Result<Vec<f64>, ScheduleError> {
        check_timesteps(timesteps)?;
        self.check_parameters()?;
        let betas = match *self {
            BetaSchedule::Linear { beta_start, beta_end } => {
                let scale = 1000.0 / timesteps as f64;
                linspace(scale * beta_start, scale * beta_end, timesteps)
            }
            BetaSchedule::LinearUnscaled { beta_start, beta_end } => linspace(beta_start, beta_end, timesteps),
            BetaSchedule::ScaledLinear { beta_start, beta_end } | BetaSchedule::Quadratic { beta_start, beta_end } => {
                linspace(beta_start.sqrt(), beta_end.sqrt(), timesteps).into_iter().map(|root| root * root).collect()
            }
            BetaSchedule::Constant { beta } => vec![beta; timesteps],
            BetaSchedule::Cosine { s } => betas_of(timesteps, |u| ((u + s) / (1.0 + s) * FRAC_PI_2).cos().powi(2)),
            BetaSchedule::Sigmoid { start, end, tau } => {
                let (at_start, at_end) = (sigmoid_f32(start / tau), sigmoid_f32(end / tau));
                let fall = f64::from(at_end - at_start);
                betas_of(timesteps, |u| (f64::from(at_end) - sigmoid((u * (end - start) + start) / tau)) / fall)
            }
            BetaSchedule::Edm { sigma_min, sigma_max, rho } => {
                let roots = linspace(sigma_min.powf(1.0 / rho), sigma_max.powf(1.0 / rho), timesteps);
                let variances: Vec<f64> = roots.into_iter().map(|root| root.powf(2.0 * rho)).collect();
                // 1 - beta is the ratio of alpha_bar = 1 / (1 + sigma^2) to that before
                let before = std::iter::once(0.0).chain(variances.iter().copied());
                variances.iter().zip(before).map(|(after, before)| (after - before) / (1.0 + after)).collect()
            }
            BetaSchedule::Custom { ref betas } if betas.len() != timesteps => {
                return Err(ScheduleError::BetaCount { betas: betas.len(), timesteps });
            }
            BetaSchedule::Custom { ref betas } => {
                check_user_betas(betas)?;
                betas.clone()
            }
        };
        match betas.iter().position(|&beta| !(beta > 0.0 && beta < 1.0)) {
            None => Ok(betas),
            Some(timestep) => Err(ScheduleError::ImpossibleBeta {
                name: self.name(),
                timesteps,
                timestep,
                beta: betas[timestep],
                advice: self.advice(),
            }),
        }
    }

    /// The next step for the user when a beta leaves (0, 1).
    fn advice(&self) -> &'static str {
        match self {
            BetaSchedule::Linear { .. } => "use more timesteps, a smaller beta_end, or family = \"linear_unscaled\"",
            BetaSchedule::Sigmoid { .. } => "use fewer timesteps, or start and end closer to 0 in units of tau",
            BetaSchedule::Cosine { .. } => "use fewer timesteps or a larger s",
            _ => "correct the parameters",
        }
    }

    fn check_parameters(&self) -> Result<(), ScheduleError> {
        let check = |parameter, value: f64, is_in_range, expected| {
            if is_in_range && value.is_finite() {
                Ok(())
            } else {
                Err(ScheduleError::Parameter { name: self.name(), parameter, value, expected })
            }
        };
        match *self {
            BetaSchedule::Linear { beta_start, beta_end }
            | BetaSchedule::LinearUnscaled { beta_start, beta_end }
            | BetaSchedule::ScaledLinear { beta_start, beta_end }
            | BetaSchedule::Quadratic { beta_start, beta_end } => {
                check("beta_start", beta_start, beta_start > 0.0 && beta_start < 1.0, "it must lie in (0, 1)")?;
                check("beta_end", beta_end, beta_end > 0.0 && beta_end < 1.0, "it must lie in (0, 1)")?;
                check("beta_end", beta_end, beta_end >= beta_start, "it must not lie below beta_start")
            }
            BetaSchedule::Constant { beta } => check("beta", beta, beta > 0.0 && beta < 1.0, "it must lie in (0, 1)"),
            BetaSchedule::Cosine { s } => check("s", s, s >= 0.0, "it must be a number of at least 0"),
            BetaSchedule::Sigmoid { start, end, tau } => {
                check("tau", tau, tau > 0.0, "it must be a number above 0")?;
                check("start", start, true, "it must be a number")?;
                check("end", end, end > start, "it must be a number above start")
            }
            BetaSchedule::Edm { sigma_min, sigma_max, rho } => {
                check("sigma_min", sigma_min, sigma_min > 0.0, "it must be a number above 0")?;
                check("sigma_max", sigma_max, sigma_max > sigma_min, "it must be a number above sigma_min")?;
                check("rho", rho, rho > 0.0, "it must be a number above 0")
            }
            BetaSchedule::Custom { .. } => Ok(()),
        }
    }
}

impl Default for BetaSchedule {
    /// Cosine with s = 0.008.
    fn default() -> Self {
        BetaSchedule::Cosine { s: default::s() }
    }
}

impl fmt::Display for BetaSchedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for BetaSchedule {
    type Err = ScheduleError;

    /// The beta schedule of a plain name, with its default parameters.
    fn from_str(name: &str) -> Result<Self, ScheduleError> {
        // the defaults are those of a table without parameters
        let table = MapDeserializer::new([("family", name)].into_iter());
        Self::deserialize(table).map_err(|_: Error| ScheduleError::Unknown {
            kind: "beta schedule",
            given: name.to_owned(),
            valid: format!("one of {} (custom betas need a configuration file)", Self::NAMES.join(", ")),
        })
    }
}

/// Refuses 0 timesteps and more than [`MAX_TIMESTEPS`].
pub(crate) fn check_timesteps(timesteps: usize) -> Result<(), ScheduleError> {
    if (1..=MAX_TIMESTEPS).contains(&timesteps) { Ok(()) } else { Err(ScheduleError::Timesteps { timesteps }) }
}

/// Refuses betas outside (0, 1), NaN, and betas that fall.
pub(crate) fn check_user_betas(betas: &[f64]) -> Result<(), ScheduleError> {
    check_timesteps(betas.len())?;
    if let Some(timestep) = betas.iter().position(|&beta| !(beta > 0.0 && beta < 1.0)) {
        return Err(ScheduleError::Beta { timestep, beta: betas[timestep] });
    }
    match betas.windows(2).position(|pair| pair[1] < pair[0]) {
        None => Ok(()),
        Some(before) => Err(ScheduleError::DecreasingBetas {
            timestep: before + 1,
            previous: betas[before],
            beta: betas[before + 1],
        }),
    }
}

/// `count` evenly spaced values, both ends exact; the start alone where `count` is 1.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let step = (end - start) / count.saturating_sub(1).max(1) as f64;
    let value = |i: usize| {
        if i < count.div_ceil(2) { start + step * i as f64 } else { end - step * (count - 1 - i) as f64 }
    };
    (0..count).map(value).collect()
}

/// beta_t = 1 - alpha_bar(u_t) / alpha_bar(u_{t-1}), at most [`MAX_BETA`], for alpha_bar over the fraction u in [0, 1].
fn betas_of(timesteps: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f64> {
    let at = |t: usize| alpha_bar(t as f64 / timesteps as f64) / alpha_bar(0.0);
    let beta = |t: usize| 1.0 - at(t + 1) / at(t);
    // not `min`, which would turn NaN into a number
    (0..timesteps).map(beta).map(|beta| if beta > MAX_BETA { MAX_BETA } else { beta }).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The sigmoid in single precision. The exponential is rounded from f64, to be the same on every platform.
fn sigmoid_f32(x: f64) -> f32 {
    1.0 / (1.0 + (-f64::from(x as f32)).exp() as f32)
}
