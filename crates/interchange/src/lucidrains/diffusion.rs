//! The buffers of a `GaussianDiffusion`: schedule and objective from them, and them from schedule and objective.

use burn::tensor::TensorData;
use schedule::{BetaSchedule, LossWeight, Objective, Schedule, ScheduleConfig};

use super::ImportOptions;
use crate::{Account, InterchangeError, source::Source};

/// Largest relative difference of betas that are the same but for rounding to f32.
const ROUNDING: f64 = 1e-6;

/// Largest relative difference of values that follow from betas of f32.
const FOLLOWS: f64 = 1e-3;

/// The schedule, the objective, and the weight of the loss.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Diffusion {
    pub(super) schedule: ScheduleConfig,
    pub(super) objective: Objective,
    pub(super) loss_weight: LossWeight,
}

/// Reads the buffers whose names begin with `prefix`; None is a network without any. What they do not say is taken from the options.
pub(super) fn read(
    source: &Source,
    prefix: Option<&str>,
    options: &ImportOptions,
    account: &mut Account,
) -> Result<Diffusion, InterchangeError> {
    let Some(prefix) = prefix else {
        let family = options.beta_schedule.clone().unwrap_or(BetaSchedule::Sigmoid { start: -3.0, end: 3.0, tau: 1.0 });
        let schedule =
            ScheduleConfig { timesteps: options.timesteps.unwrap_or(1000), zero_terminal_snr: false, family };
        schedule.build().map_err(|error| source.file_error(error.to_string()))?;
        let objective = options.objective.unwrap_or(Objective::V);
        account.assumed.push(format!(
            "schedule {} of {} timesteps, as the file has no buffers of GaussianDiffusion (--beta-schedule, --timesteps)",
            schedule.family, schedule.timesteps
        ));
        account.assumed.push(format!("objective {objective} (--objective)"));
        return Ok(Diffusion { schedule, objective, loss_weight: LossWeight::Snr });
    };
    let key = |name: &str| format!("{prefix}{name}");
    let values = |name: &str| -> Result<Option<Vec<f64>>, InterchangeError> {
        Ok(source.tensor(&key(name))?.map(|data| data.iter::<f64>().collect()))
    };
    let betas = values("betas")?.ok_or_else(|| source.key_error(key("betas"), "it is missing"))?;
    let family = family_of(&betas);
    let name = family.as_ref().map_or("no known family: kept as its betas", BetaSchedule::name);
    account.used.push(format!("schedule from `{}`: {} timesteps, {name}", key("betas"), betas.len()));
    let family = family.unwrap_or_else(|| BetaSchedule::Custom { betas: betas.clone() });
    let config = ScheduleConfig { timesteps: betas.len(), zero_terminal_snr: false, family };
    let schedule = config.build().map_err(|error| source.key_error(key("betas"), error.to_string()))?;
    if let Some(alpha_bars) = values("alphas_cumprod")?
        && !near(&alpha_bars, schedule.alpha_bars(), FOLLOWS)
    {
        let reason = "it does not follow from `betas`: the file was changed, or is of another program";
        return Err(source.key_error(key("alphas_cumprod"), reason));
    }
    let weights = values("loss_weight")?;
    let found = weights.as_ref().and_then(|weights| objective_of(weights, &schedule));
    let (objective, loss_weight) = match (found, options.objective) {
        (Some((objective, loss_weight)), None) => {
            account
                .used
                .push(format!("objective from `{}`: {objective}, loss weight {loss_weight}", key("loss_weight")));
            (objective, loss_weight)
        }
        (found, Some(objective)) => {
            account.used.push(format!("objective {objective}, as given"));
            let of_this = found.filter(|(found, _)| *found == objective);
            if let Some((found, _)) = found.filter(|(found, _)| *found != objective) {
                account.not_used.push(format!("`{}`, which is that of the objective {found}", key("loss_weight")));
            }
            (objective, of_this.map_or(LossWeight::Snr, |(_, weight)| weight))
        }
        (None, None) if weights.is_some() => {
            let reason = "it is the weight of no objective of lucidrains; name the objective with --objective";
            return Err(source.key_error(key("loss_weight"), reason));
        }
        (None, None) => {
            account.assumed.push("objective v, as the file has no `loss_weight` (--objective)".to_owned());
            (Objective::V, LossWeight::Snr)
        }
    };
    Ok(Diffusion { schedule: config, objective, loss_weight })
}

/// The family of lucidrains that has these betas with its default parameters.
fn family_of(betas: &[f64]) -> Option<BetaSchedule> {
    let families = [
        BetaSchedule::Linear { beta_start: 0.0001, beta_end: 0.02 },
        BetaSchedule::Cosine { s: 0.008 },
        BetaSchedule::Sigmoid { start: -3.0, end: 3.0, tau: 1.0 },
    ];
    families.into_iter().find(|family| family.betas(betas.len()).is_ok_and(|other| near(betas, &other, ROUNDING)))
}

/// The objective and the weight of the loss that have this `loss_weight`.
fn objective_of(weights: &[f64], schedule: &Schedule) -> Option<(Objective, LossWeight)> {
    let [first, ..] = weights else { return None };
    let snr = schedule.snr().first()?;
    // with min-SNR, the gamma that the first weight would follow from
    let candidates = [(Objective::Epsilon, first * snr), (Objective::V, first * (snr + 1.0)), (Objective::X0, *first)];
    let matches = |weight: LossWeight, objective| near(weights, &weight.weights(schedule, objective), FOLLOWS);
    let plain = candidates.iter().find(|(objective, _)| matches(LossWeight::Snr, *objective));
    if let Some((objective, _)) = plain {
        return Some((*objective, LossWeight::Snr));
    }
    candidates.into_iter().find_map(|(objective, gamma)| {
        // to the digits of an f32
        let gamma = format!("{gamma:.5e}").parse::<f64>().ok()?;
        let weight = LossWeight::min_snr(gamma).ok()?;
        matches(weight, objective).then_some((objective, weight))
    })
}

fn near(values: &[f64], others: &[f64], tolerance: f64) -> bool {
    let is_near = |(value, other): (&f64, &f64)| (value - other).abs() <= tolerance * other.abs() + 1e-12;
    values.len() == others.len() && values.iter().zip(others).all(is_near)
}

/// The buffers of `GaussianDiffusion`, in its order, rounded to f32 as there.
pub(super) fn buffers(
    schedule: &Schedule,
    objective: Objective,
    loss_weight: LossWeight,
) -> Vec<(&'static str, TensorData)> {
    let alpha_bars = schedule.alpha_bars();
    let of = |function: fn(f64) -> f64| alpha_bars.iter().copied().map(function).collect::<Vec<f64>>();
    let before = std::iter::once(1.0).chain(alpha_bars.iter().copied()).take(alpha_bars.len()).collect();
    let buffers = [
        ("betas", schedule.betas().to_vec()),
        ("alphas_cumprod", alpha_bars.to_vec()),
        ("alphas_cumprod_prev", before),
        ("sqrt_alphas_cumprod", of(f64::sqrt)),
        ("sqrt_one_minus_alphas_cumprod", of(|alpha_bar| (1.0 - alpha_bar).sqrt())),
        ("log_one_minus_alphas_cumprod", of(|alpha_bar| (1.0 - alpha_bar).ln())),
        ("sqrt_recip_alphas_cumprod", of(|alpha_bar| (1.0 / alpha_bar).sqrt())),
        ("sqrt_recipm1_alphas_cumprod", of(|alpha_bar| (1.0 / alpha_bar - 1.0).sqrt())),
        ("posterior_variance", schedule.posterior_variance().to_vec()),
        ("posterior_log_variance_clipped", schedule.posterior_log_variance_clipped().to_vec()),
        ("posterior_mean_coef1", schedule.posterior_mean_coef1().to_vec()),
        ("posterior_mean_coef2", schedule.posterior_mean_coef2().to_vec()),
        ("loss_weight", loss_weight.weights(schedule, objective)),
    ];
    let data = |values: Vec<f64>| {
        let length = values.len();
        TensorData::new(values.into_iter().map(|value| value as f32).collect::<Vec<f32>>(), [length])
    };
    buffers.map(|(name, values)| (name, data(values))).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_objective_and_weight_is_recognized_from_f32() {
        for family in ["linear", "cosine", "sigmoid"] {
            for timesteps in [50, 1000] {
                let family: BetaSchedule = family.parse().expect("a family");
                let schedule = Schedule::new(&family, timesteps).expect("a schedule");
                for objective in [Objective::Epsilon, Objective::X0, Objective::V] {
                    for weight in
                        [LossWeight::Snr, LossWeight::MinSnr { gamma: 5.0 }, LossWeight::MinSnr { gamma: 0.7 }]
                    {
                        let buffers = buffers(&schedule, objective, weight);
                        let values = |name| {
                            let buffer = buffers.iter().find(|buffer| buffer.0 == name).expect("a buffer");
                            buffer.1.iter::<f64>().collect::<Vec<_>>()
                        };
                        assert_eq!(family_of(&values("betas")).as_ref(), Some(&family), "{timesteps}");
                        // also where only the rounded betas are known
                        let rounded = Schedule::from_betas(&values("betas")).expect("a schedule");
                        for schedule in [&schedule, &rounded] {
                            let found = objective_of(&values("loss_weight"), schedule);
                            assert_eq!(found, Some((objective, weight)), "{family} {timesteps}");
                        }
                    }
                }
            }
        }
        assert_eq!(family_of(&BetaSchedule::Cosine { s: 0.01 }.betas(100).expect("betas")), None);
    }
}
