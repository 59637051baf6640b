//! The configuration of a scheduler: beta schedule, objective, sampler.

use checkpoint::{Header, SamplerKind, SamplingConfig};
use sampler::Variance;
use schedule::{BetaSchedule, Objective, ScheduleConfig, Spacing};
use unet::Unet2dConfig;

use super::keys::Keys;
use crate::{Account, InterchangeError};

/// Steps of a `DDPMPipeline` that is not told a number.
const DDPM_STEPS: usize = 1000;
/// Steps of the other pipelines.
const STEPS: usize = 50;
/// Pixels of a batch: as many as 64 images of 32x32.
const BATCH_PIXELS: usize = 64 * 32 * 32;

/// Everything about the chain that a header says.
#[derive(Debug)]
pub struct Chain {
    schedule: ScheduleConfig,
    objective: Objective,
    sampling: SamplingConfig,
}

/// What the classes of diffusers differ in.
struct Class {
    sampler: SamplerKind,
    /// Whether `linspace` leaves out the last of one timestep more.
    is_multistep: bool,
    /// Whether x_0 is clipped by default.
    clips: bool,
    spacing: &'static str,
    betas: [f64; 2],
}

impl Class {
    fn of(name: &str) -> Option<Self> {
        let class = |sampler, is_multistep, clips, spacing| Self {
            sampler,
            is_multistep,
            clips,
            spacing,
            betas: [0.0001, 0.02],
        };
        Some(match name {
            "DDPMScheduler" => class(SamplerKind::Ddpm, false, true, "leading"),
            "DDIMScheduler" => class(SamplerKind::Ddim, false, true, "leading"),
            "PNDMScheduler" => class(SamplerKind::Pndm, false, false, "leading"),
            "DPMSolverMultistepScheduler" => class(SamplerKind::Dpmpp2m, true, false, "linspace"),
            "UniPCMultistepScheduler" => class(SamplerKind::Unipc, true, false, "linspace"),
            "DEISMultistepScheduler" => class(SamplerKind::Deis, true, false, "linspace"),
            "EulerDiscreteScheduler" => class(SamplerKind::Euler, false, false, "linspace"),
            "EulerAncestralDiscreteScheduler" => class(SamplerKind::EulerAncestral, false, false, "linspace"),
            "HeunDiscreteScheduler" => {
                Self { betas: [0.00085, 0.012], ..class(SamplerKind::Heun, false, false, "linspace") }
            }
            _ => return None,
        })
    }
}

impl Chain {
    /// The chain of Ho et al. 2020, for a network without a scheduler.
    pub fn assumed(config: &Unet2dConfig, account: &mut Account) -> Self {
        account.assumed.push(
            "the schedule of Ho et al. 2020 (linear betas from 0.0001 to 0.02, 1000 timesteps), a network that predicts epsilon, and \
             DDIM with 50 steps: there is no scheduler_config.json"
                .to_owned(),
        );
        let variance = if config.learned_variance { Variance::Learned } else { Variance::Posterior };
        Self {
            schedule: ScheduleConfig {
                family: BetaSchedule::LinearUnscaled { beta_start: 0.0001, beta_end: 0.02 },
                ..ScheduleConfig::default()
            },
            objective: Objective::Epsilon,
            sampling: SamplingConfig { spacing: Spacing::Leading, variance, ..SamplingConfig::default() },
        }
    }

    pub fn read(
        mut keys: Keys,
        pipeline: Option<&str>,
        config: &Unet2dConfig,
        account: &mut Account,
    ) -> Result<Self, InterchangeError> {
        let name: String = keys.get("_class_name", "DDPMScheduler".to_owned())?;
        let Some(class) = Class::of(&name) else {
            let reason = format!(
                "the scheduler {name} has no twin here; DDPM, DDIM, PNDM, DPMSolverMultistep, UniPCMultistep, DEISMultistep, \
                 EulerDiscrete, EulerAncestralDiscrete and HeunDiscrete have: save the pipeline with one of them"
            );
            return Err(keys.error("_class_name", reason));
        };
        let schedule = read_schedule(&mut keys, class.betas)?;
        let objective = read_objective(&mut keys, &schedule)?;
        let mut sampling = SamplingConfig {
            steps: if pipeline == Some("DDPMPipeline") { DDPM_STEPS } else { STEPS }.min(schedule.timesteps),
            sampler: read_sampler(&mut keys, &class, account)?,
            spacing: read_spacing(&mut keys, &class, account)?,
            variance: read_variance(&mut keys, config)?,
            clip: keys.get("clip_sample", class.clips)?,
            ..SamplingConfig::default()
        };
        let range: f64 = keys.get("clip_sample_range", 1.0)?;
        if sampling.clip && range != 1.0 {
            account.not_used.push(format!("clip_sample_range = {range}: x_0 is clipped to [-1, 1]"));
        }
        if sampling.clip && sampling.sampler == SamplerKind::Ddim {
            account.not_used.push(
                "DDIM with clip_sample: epsilon follows the clipped x_0 here, as with use_clipped_model_output = True"
                    .to_owned(),
            );
        }
        if keys.get("thresholding", false)? {
            account.not_used.push("thresholding: x_0 is not thresholded".to_owned());
        }
        sampling.steps = sampling.steps.max(1);
        let steps = sampling.steps;
        account.used.push(format!(
            "scheduler_config.json: a {name} with {} timesteps of {} betas, a network that predicts {objective}, as {} with {steps} \
             steps",
            schedule.timesteps,
            schedule.family.name(),
            sampling.sampler,
        ));
        let built = schedule.build().map_err(|error| keys.error("num_train_timesteps", error.to_string()))?;
        built.levels(sampling.spacing, steps).map_err(|error| keys.error("timestep_spacing", error.to_string()))?;
        for without_effect in WITHOUT_EFFECT {
            keys.optional::<serde_json::Value>(without_effect)?;
        }
        keys.account_for_rest(account);
        Ok(Self { schedule, objective, sampling })
    }

    /// Writes the chain into a header.
    pub fn describe(self, header: &mut Header) {
        let pixels = header.image.height * header.image.width;
        header.sampling = self.sampling;
        header.sampling.batch_size = (BATCH_PIXELS / pixels.max(1)).clamp(1, header.sampling.batch_size);
        header.schedule = self.schedule;
        header.objective = self.objective;
    }
}

/// Keys of options that are off, or of what a call of diffusers decides.
const WITHOUT_EFFECT: [&str; 9] = [
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "flow_shift",
    "lambda_min_clipped",
    "time_shift_type",
    "interpolation_type",
    "tensor_format",
    "timestep_values",
    "disable_corrector",
];

/// The beta schedule.
fn read_schedule(keys: &mut Keys, [start, end]: [f64; 2]) -> Result<ScheduleConfig, InterchangeError> {
    let timesteps: usize = keys.get("num_train_timesteps", 1000)?;
    if !(1..=schedule::MAX_TIMESTEPS).contains(&timesteps) {
        let reason = format!("{timesteps} timesteps are not possible: 1 to {} are", schedule::MAX_TIMESTEPS);
        return Err(keys.error("num_train_timesteps", reason));
    }
    let (beta_start, beta_end) = (keys.get("beta_start", start)?, keys.get("beta_end", end)?);
    let trained: Option<Vec<f64>> = keys.optional("trained_betas")?;
    let name: String = keys.get("beta_schedule", "linear".to_owned())?;
    let family = match (trained, name.as_str()) {
        (Some(betas), _) => BetaSchedule::Custom { betas },
        (None, "linear") => BetaSchedule::LinearUnscaled { beta_start, beta_end },
        (None, "scaled_linear") => BetaSchedule::ScaledLinear { beta_start, beta_end },
        (None, "squaredcos_cap_v2") => BetaSchedule::Cosine { s: 0.008 },
        (None, "sigmoid") => BetaSchedule::Custom { betas: sigmoid_betas(timesteps, beta_start, beta_end) },
        (None, other) => {
            let reason = format!("{other} has no twin here; linear, scaled_linear, squaredcos_cap_v2 and sigmoid have");
            return Err(keys.error("beta_schedule", reason));
        }
    };
    let config = ScheduleConfig { timesteps, zero_terminal_snr: keys.get("rescale_betas_zero_snr", false)?, family };
    match config.build() {
        Ok(_) => Ok(config),
        Err(error) => Err(keys.error("beta_schedule", error.to_string())),
    }
}

/// The sigmoid from -6 to 6, between two betas (Xu et al. 2022, arXiv:2203.02923).
fn sigmoid_betas(timesteps: usize, start: f64, end: f64) -> Vec<f64> {
    let place = |index: usize| -6.0 + 12.0 * index as f64 / (timesteps.max(2) - 1) as f64;
    (0..timesteps).map(|index| (end - start) / (1.0 + (-place(index)).exp()) + start).collect()
}

fn read_objective(keys: &mut Keys, schedule: &ScheduleConfig) -> Result<Objective, InterchangeError> {
    let name: String = keys.get("prediction_type", "epsilon".to_owned())?;
    match name.as_str() {
        "epsilon" if schedule.zero_terminal_snr => {
            let reason = "epsilon with rescale_betas_zero_snr = true: a chain that begins with pure noise, of which epsilon says \
                          nothing; such networks predict v";
            Err(keys.error("prediction_type", reason))
        }
        "epsilon" => Ok(Objective::Epsilon),
        "sample" => Ok(Objective::X0),
        "v_prediction" => Ok(Objective::V),
        other => {
            let reason = format!("{other} has no twin here; epsilon, sample and v_prediction have");
            Err(keys.error("prediction_type", reason))
        }
    }
}

fn read_variance(keys: &mut Keys, config: &Unet2dConfig) -> Result<Variance, InterchangeError> {
    let name: Option<String> = keys.optional("variance_type")?;
    match name.as_deref() {
        None | Some("fixed_small" | "fixed_small_log") => Ok(Variance::Posterior),
        Some("fixed_large") => Ok(Variance::Beta),
        Some("learned_range") if config.learned_variance => Ok(Variance::Learned),
        Some("learned_range") => {
            Err(keys.error("variance_type", "learned_range needs out_channels twice in_channels in unet/config.json"))
        }
        Some(other) => {
            let reason =
                format!("{other} has no twin here; fixed_small, fixed_small_log, fixed_large and learned_range have");
            Err(keys.error("variance_type", reason))
        }
    }
}

/// The sampler of the class with its options.
fn read_sampler(keys: &mut Keys, class: &Class, account: &mut Account) -> Result<SamplerKind, InterchangeError> {
    let order: usize = keys.get("solver_order", 2)?;
    let algorithm: Option<String> = keys.optional("algorithm_type")?;
    let solver: Option<String> = keys.optional("solver_type")?;
    let sampler = match (class.sampler, order, algorithm.as_deref()) {
        (SamplerKind::Dpmpp2m, 1, None | Some("dpmsolver++")) => SamplerKind::Ddim,
        (SamplerKind::Dpmpp2m, 2, None | Some("dpmsolver++")) => SamplerKind::Dpmpp2m,
        (SamplerKind::Dpmpp2m, 3, None | Some("dpmsolver++")) => {
            account
                .not_used
                .push("solver_order = 3: the third derivative is exact here, and estimated there".to_owned());
            SamplerKind::Dpmpp3m
        }
        (SamplerKind::Dpmpp2m, 2, Some("sde-dpmsolver++")) => SamplerKind::Dpmpp2mSde,
        (SamplerKind::Dpmpp2m, _, algorithm) => {
            let reason = format!(
                "{} of order {order} has no twin here; dpmsolver++ of order 1 to 3 and sde-dpmsolver++ of order 2 have",
                algorithm.unwrap_or("dpmsolver++")
            );
            return Err(keys.error("algorithm_type", reason));
        }
        (kind @ (SamplerKind::Unipc | SamplerKind::Deis), order, _) => {
            if order != 2 {
                account.not_used.push(format!("solver_order = {order}: {kind} is of second order here"));
            }
            kind
        }
        (kind, ..) => kind,
    };
    if let Some(solver) = solver.filter(|solver| !["midpoint", "bh2", "logrho"].contains(&solver.as_str())) {
        account.not_used.push(format!("solver_type = {solver}: the variant here is that of {}", class_variant(class)));
    }
    for (key, usual) in
        [("predict_x0", true), ("lower_order_final", true), ("euler_at_final", false), ("use_lu_lambdas", false)]
    {
        let value = keys.get(key, usual)?;
        if value != usual {
            account.not_used.push(format!("{key} = {value}: it is {usual} here"));
        }
    }
    if sampler == SamplerKind::Pndm && !keys.get("skip_prk_steps", false)? {
        account.not_used.push("skip_prk_steps = false: the chain begins without Runge-Kutta steps".to_owned());
    }
    let ends_clean = match class.sampler {
        SamplerKind::Ddim => keys.get("set_alpha_to_one", true)?,
        SamplerKind::Pndm => keys.get("set_alpha_to_one", false)?,
        _ => keys.get("final_sigmas_type", "zero".to_owned())? == "zero",
    };
    if !ends_clean {
        account.not_used.push("the last step ends at the first timestep there, and at clean images here".to_owned());
    }
    Ok(sampler)
}

fn class_variant(class: &Class) -> &'static str {
    match class.sampler {
        SamplerKind::Unipc => "bh2",
        SamplerKind::Deis => "logrho",
        _ => "midpoint",
    }
}

/// The timesteps that are visited.
fn read_spacing(keys: &mut Keys, class: &Class, account: &mut Account) -> Result<Spacing, InterchangeError> {
    let name: String = keys.get("timestep_spacing", class.spacing.to_owned())?;
    let offset: i64 = keys.get("steps_offset", 0)?;
    for (key, spacing) in [("use_karras_sigmas", Spacing::Karras), ("use_exponential_sigmas", Spacing::Exponential)] {
        if keys.optional::<bool>(key)? == Some(true) {
            return Ok(spacing);
        }
    }
    for key in ["use_beta_sigmas", "use_flow_sigmas", "use_dynamic_shifting"] {
        if keys.optional::<bool>(key)? == Some(true) {
            return Err(keys.error(key, "it has no twin here; use_karras_sigmas and use_exponential_sigmas have"));
        }
    }
    let spacing = match (name.as_str(), class.is_multistep) {
        ("leading", is_multistep) => {
            if is_multistep {
                account.not_used.push(
                    "timestep_spacing = leading: the multistep schedulers of diffusers space one step more, and drop it".to_owned(),
                );
            }
            Spacing::Leading
        }
        ("trailing", _) => Spacing::Trailing,
        ("linspace", true) => Spacing::Uniform,
        ("linspace", false) => {
            if matches!(class.sampler, SamplerKind::Ddpm | SamplerKind::Ddim) {
                let text = "timestep_spacing = linspace: a step ends at the next timestep here, and a fixed stride below in diffusers";
                account.not_used.push(text.to_owned());
            }
            Spacing::Linspace
        }
        (other, _) => {
            let reason = format!("{other} has no twin here; leading, trailing and linspace have");
            return Err(keys.error("timestep_spacing", reason));
        }
    };
    if spacing == Spacing::Leading && offset != 0 {
        account.not_used.push(format!("steps_offset = {offset}: the timesteps end at 0"));
    }
    Ok(spacing)
}
