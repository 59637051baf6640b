//! The timesteps of a shorter sampling run.
//!
//! Every function takes the number of timesteps T of the chain and returns timesteps of it in *descending* order, the
//! order of sampling, without repetition. All refuse T = 0 or T above [`crate::MAX_TIMESTEPS`]
//! ([`ScheduleError::Timesteps`]) and, where they take a number of steps, fewer than 1 or more than T
//! ([`ScheduleError::Steps`]).

use std::fmt;
use std::str::FromStr;

use serde::de::{IntoDeserializer, value::Error};
use serde::{Deserialize, Serialize};

use crate::ScheduleError;
use crate::beta_schedule::check_timesteps;

/// The spacing of sampling steps over the timesteps. As text: `lucidrains`, `leading`, `trailing`, `linspace`, `uniform`,
/// `karras`, `exponential`, `flow`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// [`ddim_lucidrains`]: starts at T-1, ends above 0. The default.
    #[default]
    Lucidrains,
    /// [`leading`] without offset: ends at 0, starts below T-1.
    Leading,
    /// [`trailing`]: starts at T-1, ends above 0.
    Trailing,
    /// [`linspace`]: starts at T-1, ends at 0.
    Linspace,
    /// [`uniform`]: starts at T-1, ends above 0; the `linspace` of diffusers' multistep solvers.
    Uniform,
    /// Even in `sigma^(1/7)` (Karras et al. 2022, arXiv:2206.00364, equation 5), also between timesteps: see
    /// [`Schedule::levels`](crate::Schedule::levels).
    Karras,
    /// Even in `ln(sigma)`, and so in the log-SNR, also between timesteps.
    Exponential,
    /// Even in flow matching's time `s = sigma / (1 + sigma)`, also between timesteps; starts at T-1, ends above 0.
    Flow,
}

impl Spacing {
    /// `steps` of the timesteps 0, …, T-1 in descending order.
    ///
    /// # Errors
    /// [`ScheduleError::Timesteps`] and [`ScheduleError::Steps`]; [`ScheduleError::BetweenTimesteps`] for
    /// [`Spacing::Karras`], [`Spacing::Exponential`] and [`Spacing::Flow`].
    pub fn timesteps(self, timesteps: usize, steps: usize) -> Result<Vec<usize>, ScheduleError> {
        match self {
            Spacing::Lucidrains => {
                Ok(ddim_lucidrains(timesteps, steps)?.into_iter().filter_map(|t| usize::try_from(t).ok()).collect())
            }
            Spacing::Leading => leading(timesteps, steps, 0),
            Spacing::Trailing => trailing(timesteps, steps),
            Spacing::Linspace => linspace(timesteps, steps),
            Spacing::Uniform => uniform(timesteps, steps),
            Spacing::Karras | Spacing::Exponential | Spacing::Flow => {
                Err(ScheduleError::BetweenTimesteps { spacing: self })
            }
        }
    }
}

impl fmt::Display for Spacing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // serde writes the name of a unit variant
        self.serialize(formatter)
    }
}

impl FromStr for Spacing {
    type Err = ScheduleError;

    fn from_str(name: &str) -> Result<Self, ScheduleError> {
        Self::deserialize(name.into_deserializer()).map_err(|_: Error| ScheduleError::Unknown {
            kind: "spacing",
            given: name.to_owned(),
            valid: "one of lucidrains, leading, trailing, linspace, uniform, karras, exponential, flow".to_owned(),
        })
    }
}

/// lucidrains' DDIM times: `steps + 1` values from T-1 down to -1 (clean data), evenly spaced and cut to whole numbers.
/// A step goes from each to the next.
///
/// The spacing is computed in single precision, as PyTorch does for lucidrains: where an exact value is whole, rounding
/// decides between two timesteps. Where that would repeat a timestep (T in the thousands, `steps` almost T), integer
/// arithmetic is used instead.
///
/// # Errors
/// [`ScheduleError::Timesteps`] and [`ScheduleError::Steps`].
pub fn ddim_lucidrains(timesteps: usize, steps: usize) -> Result<Vec<i64>, ScheduleError> {
    check_steps(timesteps, steps)?;
    let step = timesteps as f32 / steps as f32;
    let single = |i: usize| {
        if i < steps.div_ceil(2) { -1.0 + step * i as f32 } else { (timesteps - 1) as f32 - step * (steps - i) as f32 }
    };
    let times: Vec<i64> = (0..=steps).rev().map(|i| single(i) as i64).collect();
    if times.windows(2).all(|pair| pair[0] > pair[1]) {
        Ok(times)
    } else {
        Ok((0..=steps).rev().map(|i| (i * timesteps / steps) as i64 - 1).collect())
    }
}

/// diffusers' `leading`: the multiples 0, r, 2r, … of r = T / `steps` rounded down, plus `offset`.
///
/// # Errors
/// [`ScheduleError::Timesteps`], [`ScheduleError::Steps`], and [`ScheduleError::Offset`] where the first timestep would lie
/// beyond the last of the chain.
pub fn leading(timesteps: usize, steps: usize, offset: usize) -> Result<Vec<usize>, ScheduleError> {
    check_steps(timesteps, steps)?;
    let stride = timesteps / steps;
    let first = ((steps - 1) * stride).saturating_add(offset);
    if first >= timesteps {
        return Err(ScheduleError::Offset { steps, offset, first, timesteps });
    }
    Ok((0..steps).rev().map(|i| i * stride + offset).collect())
}

/// diffusers' `trailing`: T, T - r, T - 2r, … with r = T / `steps`, each rounded (ties to even), less 1.
///
/// Always `steps` of them: where T / r rounds up, diffusers' list has one more entry, -1.
///
/// # Errors
/// [`ScheduleError::Timesteps`] and [`ScheduleError::Steps`].
pub fn trailing(timesteps: usize, steps: usize) -> Result<Vec<usize>, ScheduleError> {
    check_steps(timesteps, steps)?;
    let start = timesteps as f64;
    // NumPy's arange steps by the rounded difference of its first two values
    let step = start - (start - start / steps as f64);
    Ok((0..steps).map(|i| ((start - step * i as f64).round_ties_even() as usize).saturating_sub(1)).collect())
}

/// diffusers' `linspace`: `steps` evenly spaced values from T-1 to 0, both included, each rounded (ties to even).
/// A single step visits timestep 0 only.
///
/// # Errors
/// [`ScheduleError::Timesteps`] and [`ScheduleError::Steps`].
pub fn linspace(timesteps: usize, steps: usize) -> Result<Vec<usize>, ScheduleError> {
    check_steps(timesteps, steps)?;
    let step = (timesteps - 1) as f64 / (steps - 1).max(1) as f64;
    Ok((0..steps).rev().map(|i| (step * i as f64).round_ties_even() as usize).collect())
}

/// `steps + 1` evenly spaced values from T-1 to 0, each rounded (ties to even), without the 0, so that all steps, the last
/// one to clean data included, are about equally long. diffusers' multistep solvers (DPM-Solver++, UniPC, DEIS) call this
/// `linspace`. As many steps as timesteps visit all of them.
///
/// # Errors
/// [`ScheduleError::Timesteps`] and [`ScheduleError::Steps`].
pub fn uniform(timesteps: usize, steps: usize) -> Result<Vec<usize>, ScheduleError> {
    check_steps(timesteps, steps)?;
    if steps == timesteps {
        return Ok((0..timesteps).rev().collect());
    }
    let mut all = linspace(timesteps, steps + 1)?;
    all.pop();
    Ok(all)
}

/// OpenAI's sections (`respace.py` of improved-diffusion): the chain is cut into as many equal sections as there are
/// counts, the section of small timesteps first, and each gives that many evenly spaced timesteps. A count may be 0.
///
/// # Errors
/// [`ScheduleError::Timesteps`], [`ScheduleError::Section`] where a section has fewer timesteps than its count, and
/// [`ScheduleError::NothingKept`] where the counts add up to 0.
pub fn openai_sections(timesteps: usize, counts: &[usize]) -> Result<Vec<usize>, ScheduleError> {
    check_timesteps(timesteps)?;
    if counts.iter().all(|&count| count == 0) {
        return Err(ScheduleError::NothingKept { timesteps });
    }
    let mut kept = Vec::new();
    let mut start = 0;
    for (section, &steps) in counts.iter().enumerate() {
        let size = timesteps / counts.len() + usize::from(section < timesteps % counts.len());
        if steps > size {
            return Err(ScheduleError::Section { section, size, steps });
        }
        let stride = if steps > 1 { (size - 1) as f64 / (steps - 1) as f64 } else { 1.0 };
        // summed up, as OpenAI does: the rounding decides ties
        let mut position = 0.0_f64;
        for _ in 0..steps {
            kept.push(start + position.round_ties_even() as usize);
            position += stride;
        }
        start += size;
    }
    kept.reverse();
    Ok(kept)
}

/// OpenAI's `ddimN` (`respace.py` of improved-diffusion): 0, r, 2r, … below T with the smallest whole r, from 1 to T-1,
/// that gives exactly `steps` timesteps.
///
/// # Errors
/// [`ScheduleError::Timesteps`], [`ScheduleError::Steps`], and [`ScheduleError::NoStride`] where there is no such r.
pub fn openai_ddim(timesteps: usize, steps: usize) -> Result<Vec<usize>, ScheduleError> {
    check_steps(timesteps, steps)?;
    let counts = || (1..timesteps).map(|stride| timesteps.div_ceil(stride)); // from T down to 2
    match counts().position(|count| count == steps) {
        Some(index) => Ok((0..timesteps).step_by(index + 1).rev().collect()),
        None => Err(ScheduleError::NoStride {
            steps,
            timesteps,
            fewer: counts().find(|&count| count < steps).unwrap_or(2),
            more: counts().take_while(|&count| count > steps).last().unwrap_or(timesteps),
        }),
    }
}

/// Reads OpenAI's `timestep_respacing`: `ddim50` is [`openai_ddim`], and `10,15,20` is [`openai_sections`].
///
/// # Errors
/// [`ScheduleError::Unknown`] for any other text, and those of the two functions.
pub fn parse_openai(timesteps: usize, text: &str) -> Result<Vec<usize>, ScheduleError> {
    let unknown = |_| ScheduleError::Unknown {
        kind: "respacing",
        given: text.to_owned(),
        valid: "ddimN, like ddim50, or counts per section, like 10,15,20".to_owned(),
    };
    match text.strip_prefix("ddim") {
        Some(steps) => openai_ddim(timesteps, steps.trim().parse().map_err(unknown)?),
        None => {
            let counts: Result<Vec<usize>, _> = text.split(',').map(|count| count.trim().parse()).collect();
            openai_sections(timesteps, &counts.map_err(unknown)?)
        }
    }
}

/// Refuses an impossible T, and steps outside 1..=T.
pub(crate) fn check_steps(timesteps: usize, steps: usize) -> Result<(), ScheduleError> {
    check_timesteps(timesteps)?;
    if (1..=timesteps).contains(&steps) { Ok(()) } else { Err(ScheduleError::Steps { steps, timesteps }) }
}
