//! The schedule: every per-timestep value of a chain, computed and checked once.

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::beta_schedule::{check_timesteps, check_user_betas};
use crate::respace::check_steps;
use crate::{BetaSchedule, NoiseLevel, Posterior, ScheduleError, Spacing};

/// The schedule in a configuration file. Its keys and those of the beta schedule lie in one table: `family = "cosine"`,
/// `timesteps = 1000`, `s = 0.008`. Only `family` is required; unknown keys are errors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
pub struct ScheduleConfig {
    /// Number of diffusion timesteps T, at least 1. Default 1000.
    #[serde(default = "default_timesteps")]
    pub timesteps: usize,
    /// Whether to rescale so that the last timestep is pure noise ([`Schedule::rescale_zero_terminal_snr`]).
    /// Default false.
    #[serde(default)]
    pub zero_terminal_snr: bool,
    /// The beta schedule and its parameters. Default cosine.
    // it refuses unknown keys: serde hands a flattened tagged enum every key that is not named above
    #[serde(flatten)]
    pub family: BetaSchedule,
}

fn default_timesteps() -> usize {
    1000
}

impl Default for ScheduleConfig {
    /// Cosine, 1000 timesteps, not rescaled.
    fn default() -> Self {
        ScheduleConfig { timesteps: default_timesteps(), zero_terminal_snr: false, family: BetaSchedule::default() }
    }
}

impl ScheduleConfig {
    /// Builds the schedule.
    ///
    /// # Errors
    /// Those of [`Schedule::new`] and [`Schedule::rescale_zero_terminal_snr`].
    pub fn build(&self) -> Result<Schedule, ScheduleError> {
        let schedule = Schedule::new(&self.family, self.timesteps)?;
        if self.zero_terminal_snr { schedule.rescale_zero_terminal_snr() } else { Ok(schedule) }
    }
}

/// A chain of T forward steps, t = 0, …, T-1, with every per-timestep value that training and sampling need.
///
/// A value of this type is valid: alpha_bar falls strictly from below 1 and stays above 0, except in a zero-terminal-SNR
/// schedule, whose last alpha_bar is 0 and last beta 1. All per-timestep values are finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    betas: Vec<f64>,
    alpha_bars: Vec<f64>,
    model_timesteps: Vec<usize>,
    posterior_variance: Vec<f64>,
    posterior_log_variance_clipped: Vec<f64>,
    posterior_log_variance_first_replaced: Vec<f64>,
    posterior_mean_coef1: Vec<f64>,
    posterior_mean_coef2: Vec<f64>,
    snr: Vec<f64>,
}

impl Schedule {
    /// The chain of a beta schedule with `timesteps` steps.
    ///
    /// # Errors
    /// Those of [`BetaSchedule::betas`], and [`ScheduleError::AlphaBar`] where alpha_bar does not fall strictly in double
    /// precision or underflows.
    pub fn new(beta_schedule: &BetaSchedule, timesteps: usize) -> Result<Self, ScheduleError> {
        Self::from_valid_betas(beta_schedule.betas(timesteps)?)
    }

    /// The chain of the user's own betas, t = 0 first.
    ///
    /// # Errors
    /// [`ScheduleError::Timesteps`] for none (or more than [`crate::MAX_TIMESTEPS`]), [`ScheduleError::Beta`] for one
    /// outside (0, 1) or NaN, [`ScheduleError::DecreasingBetas`] for one below its predecessor (equal is fine), and
    /// [`ScheduleError::AlphaBar`] where alpha_bar does not fall strictly in double precision or underflows.
    pub fn from_betas(betas: &[f64]) -> Result<Self, ScheduleError> {
        check_user_betas(betas)?;
        Self::from_valid_betas(betas.to_vec())
    }

    /// alpha_bar_t = prod_{s <= t} (1 - beta_s) (Ho et al. 2020, section 2).
    fn from_valid_betas(betas: Vec<f64>) -> Result<Self, ScheduleError> {
        let mut product = 1.0;
        let alpha_bars: Vec<f64> = betas
            .iter()
            .map(|beta| {
                product *= 1.0 - beta;
                product
            })
            .collect();
        // each factor is above 0: a product of 0 is an underflow
        if let Some(timestep) = alpha_bars.iter().position(|&alpha_bar| alpha_bar == 0.0) {
            return Err(alpha_bar_error(&alpha_bars, timestep));
        }
        let model_timesteps = (0..betas.len()).collect();
        Self::from_parts(betas, alpha_bars, model_timesteps)
    }

    /// beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}.
    fn from_alpha_bars(alpha_bars: Vec<f64>, model_timesteps: Vec<usize>) -> Result<Self, ScheduleError> {
        let betas = previous(&alpha_bars).zip(&alpha_bars).map(|(before, after)| 1.0 - after / before).collect();
        Self::from_parts(betas, alpha_bars, model_timesteps)
    }

    /// Checks alpha_bar and computes the rest: every `Schedule` is made here.
    fn from_parts(betas: Vec<f64>, alpha_bars: Vec<f64>, model_timesteps: Vec<usize>) -> Result<Self, ScheduleError> {
        check_timesteps(alpha_bars.len())?;
        let falls = |(before, &after): (f64, &f64)| after < before && after >= 0.0;
        if let Some(timestep) = previous(&alpha_bars).zip(&alpha_bars).position(|pair| !falls(pair)) {
            return Err(alpha_bar_error(&alpha_bars, timestep));
        }
        let steps = betas.iter().zip(&alpha_bars).zip(previous(&alpha_bars));
        let posteriors: Vec<Posterior> =
            steps.map(|((&beta, &alpha_bar), before)| Posterior::new(1.0 - beta, beta, alpha_bar, before)).collect();
        let each = |value: fn(&Posterior) -> f64| posteriors.iter().map(value).collect::<Vec<f64>>();
        let clipped = each(|posterior| posterior.clipped_variance().ln());
        let mut first_replaced = clipped.clone();
        if let [first, second, ..] = first_replaced.as_mut_slice() {
            *first = *second;
        }
        Ok(Schedule {
            posterior_variance: each(|posterior| posterior.variance),
            posterior_log_variance_clipped: clipped,
            posterior_log_variance_first_replaced: first_replaced,
            posterior_mean_coef1: each(|posterior| posterior.of_x_0),
            posterior_mean_coef2: each(|posterior| posterior.of_x_t),
            snr: alpha_bars.iter().map(|alpha_bar| alpha_bar / (1.0 - alpha_bar)).collect(),
            betas,
            alpha_bars,
            model_timesteps,
        })
    }

    /// The number of steps T, at least 1.
    pub fn timesteps(&self) -> usize {
        self.betas.len()
    }

    /// Variance of the noise that each step adds, in (0, 1); the last is 1 in a zero-terminal-SNR schedule.
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// Share of the variance that is signal after each step, falling strictly, in (0, 1); the last is 0 in a
    /// zero-terminal-SNR schedule.
    pub fn alpha_bars(&self) -> &[f64] {
        &self.alpha_bars
    }

    /// The network's timestep at each step: 0, …, T-1, or those of them that [`Schedule::respaced`] kept.
    pub fn model_timesteps(&self) -> &[usize] {
        &self.model_timesteps
    }

    /// alpha_bar after step `t`: 1, clean data, for -1 and below; beyond the end of the chain that of the last step.
    pub fn alpha_bar(&self, t: i64) -> f64 {
        usize::try_from(t).map_or(1.0, |t| self.alpha_bars[self.clamp(t)])
    }

    /// beta of step `t`; beyond the end of the chain that of the last step.
    pub fn beta(&self, t: usize) -> f64 {
        self.betas[self.clamp(t)]
    }

    /// The noise level after step `t`; beyond the end of the chain that of the last step. In a respaced schedule its
    /// `timestep` is that of the original chain, which the network was trained on.
    pub fn level(&self, t: usize) -> NoiseLevel {
        let t = self.clamp(t);
        NoiseLevel { timestep: self.model_timesteps[t] as f64, alpha_bar: self.alpha_bars[t] }
    }

    /// The level at a time between timesteps, where sigma is interpolated linearly (as in diffusers' Euler and Heun);
    /// -1 is clean data. Beyond the ends of the chain it is that of the end.
    pub fn level_at(&self, t: f64) -> NoiseLevel {
        let t = t.clamp(-1.0, (self.timesteps() - 1) as f64);
        let (below, share) = (t.floor() as i64, t - t.floor());
        let at = |t: i64| usize::try_from(t).map_or(NoiseLevel::CLEAN, |t| self.level(t));
        if share == 0.0 {
            return at(below);
        }
        let (lower, upper) = (at(below), at(below + 1));
        let mix = |a: f64, b: f64| a + (b - a) * share;
        let sigma = mix(lower.sigma(), upper.sigma());
        NoiseLevel { timestep: mix(lower.timestep, upper.timestep), alpha_bar: 1.0 / (1.0 + sigma * sigma) }
    }

    /// The level of a noise-to-signal ratio `sigma` (at least 0); its timestep lies between those of the chain, where
    /// ln(sigma) is interpolated linearly (k-diffusion, diffusers), and is that of the end beyond them. 0 is clean data.
    pub fn level_at_sigma(&self, sigma: f64) -> NoiseLevel {
        if sigma == 0.0 {
            return NoiseLevel::CLEAN;
        }
        let alpha_bar = 1.0 / (1.0 + sigma * sigma);
        let above = self.alpha_bars.partition_point(|&other| other > alpha_bar);
        let timestep = match above {
            0 => self.level(0).timestep,
            above if above == self.timesteps() => self.level(above - 1).timestep,
            above => {
                let (lower, upper) = (self.level(above - 1), self.level(above));
                let share = (sigma.ln() - lower.sigma().ln()) / (upper.sigma().ln() - lower.sigma().ln());
                lower.timestep + (upper.timestep - lower.timestep) * share
            }
        };
        NoiseLevel { timestep, alpha_bar }
    }

    /// The levels that a sampler of `steps` steps visits, the noisiest first: `steps` levels of this schedule, then
    /// [`NoiseLevel::CLEAN`]. [`Spacing::Karras`] and [`Spacing::Exponential`] go from the sigma of the last timestep to
    /// that of the first, [`Spacing::Flow`] from the last towards clean data.
    ///
    /// # Errors
    /// [`ScheduleError::Steps`] unless 1 <= `steps` <= T; [`ScheduleError::InfiniteSigma`] for `Karras` and `Exponential`
    /// if the last timestep is pure noise.
    pub fn levels(&self, spacing: Spacing, steps: usize) -> Result<Vec<NoiseLevel>, ScheduleError> {
        /// The exponent rho that the paper recommends for images.
        const RHO: f64 = 7.0;
        check_steps(self.timesteps(), steps)?;
        let mut levels = match spacing {
            Spacing::Karras => {
                self.even_levels(spacing, steps, |sigma| sigma.powf(1.0 / RHO), |root| root.powf(RHO))?
            }
            Spacing::Exponential => self.even_levels(spacing, steps, f64::ln, f64::exp)?,
            Spacing::Flow => {
                let first = self.level(self.timesteps() - 1);
                let start = first.noise_scale() / (first.signal_scale() + first.noise_scale());
                let time = |index: usize| start * (1.0 - index as f64 / steps as f64);
                let between = (1..steps).map(time).map(|time| self.level_at_sigma(time / (1.0 - time)));
                std::iter::once(first).chain(between).collect()
            }
            _ => spacing.timesteps(self.timesteps(), steps)?.into_iter().map(|t| self.level(t)).collect(),
        };
        levels.push(NoiseLevel::CLEAN);
        Ok(levels)
    }

    /// `steps` levels, evenly spaced in a function of sigma of which `inverse` is the inverse; both ends are exact.
    fn even_levels(
        &self,
        spacing: Spacing,
        steps: usize,
        function: impl Fn(f64) -> f64,
        inverse: impl Fn(f64) -> f64,
    ) -> Result<Vec<NoiseLevel>, ScheduleError> {
        let (first, last) = (self.level(self.timesteps() - 1), self.level(0));
        if first.sigma().is_infinite() {
            return Err(ScheduleError::InfiniteSigma { spacing });
        }
        let (start, end) = (function(first.sigma()), function(last.sigma()));
        let level = |index: usize| match index {
            0 => first,
            index if index + 1 == steps => last,
            index => self.level_at_sigma(inverse(start + (end - start) * index as f64 / (steps - 1) as f64)),
        };
        Ok((0..steps).map(level).collect())
    }

    /// Variance of q(x_{t-1} | x_t, x_0) ([`Posterior`]), in [0, beta]; the first is 0.
    pub fn posterior_variance(&self) -> &[f64] {
        &self.posterior_variance
    }

    /// Natural logarithm of the posterior variance, which is first raised to at least 1e-20 (lucidrains): finite, and
    /// about -46 at t = 0.
    pub fn posterior_log_variance_clipped(&self) -> &[f64] {
        &self.posterior_log_variance_clipped
    }

    /// Natural logarithm of the posterior variance, the first entry replaced by the second (Ho et al.'s and OpenAI's
    /// code; the learned range of variances interpolates from it). With T = 1 there is no second: then as clipped.
    pub fn posterior_log_variance_first_replaced(&self) -> &[f64] {
        &self.posterior_log_variance_first_replaced
    }

    /// Factor of x_0 in the mean of q(x_{t-1} | x_t, x_0) ([`Posterior`]).
    pub fn posterior_mean_coef1(&self) -> &[f64] {
        &self.posterior_mean_coef1
    }

    /// Factor of x_t in the mean of q(x_{t-1} | x_t, x_0) ([`Posterior`]). 0 at t = 0.
    pub fn posterior_mean_coef2(&self) -> &[f64] {
        &self.posterior_mean_coef2
    }

    /// Signal-to-noise ratio alpha_bar / (1 - alpha_bar) of each timestep: finite, falling, 0 at the end of a
    /// zero-terminal-SNR schedule.
    pub fn snr(&self) -> &[f64] {
        &self.snr
    }

    /// This schedule shifted and scaled so that its last timestep is pure noise and its first is unchanged (Lin et al. 2023,
    /// arXiv:2305.08891, algorithm 1). The last alpha_bar is exactly 0 and the last beta exactly 1.
    ///
    /// There the SNR is 0, sigma is infinite, and epsilon determines nothing of x_0: train such a network to predict v.
    ///
    /// # Errors
    /// [`ScheduleError::RescaleTooShort`] if T = 1; [`ScheduleError::AlphaBar`] where an alpha_bar before the end
    /// underflows.
    pub fn rescale_zero_terminal_snr(&self) -> Result<Schedule, ScheduleError> {
        let roots: Vec<f64> = self.alpha_bars.iter().map(|alpha_bar| alpha_bar.sqrt()).collect();
        let [first, .., last] = roots[..] else {
            return Err(ScheduleError::RescaleTooShort { timesteps: self.timesteps() });
        };
        let scale = first / (first - last);
        let alpha_bars = roots.iter().map(|root| ((root - last) * scale).powi(2)).collect();
        Self::from_alpha_bars(alpha_bars, self.model_timesteps.clone())
    }

    /// The shorter chain that visits only the given timesteps of this one, in any order: their alpha_bars are unchanged, and
    /// the betas between them are derived from those (OpenAI's `SpacedDiffusion`). Such betas may fall.
    ///
    /// # Errors
    /// [`ScheduleError::NothingKept`], [`ScheduleError::TimestepOutOfRange`] or [`ScheduleError::RepeatedTimestep`].
    pub fn respaced(&self, timesteps: &[usize]) -> Result<Schedule, ScheduleError> {
        let mut kept = timesteps.to_vec();
        kept.sort_unstable();
        match kept.last() {
            None => return Err(ScheduleError::NothingKept { timesteps: self.timesteps() }),
            Some(&timestep) if timestep >= self.timesteps() => {
                return Err(ScheduleError::TimestepOutOfRange { timestep, timesteps: self.timesteps() });
            }
            Some(_) => {}
        }
        if let Some(pair) = kept.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ScheduleError::RepeatedTimestep { timestep: pair[0] });
        }
        let alpha_bars = kept.iter().map(|&t| self.alpha_bars[t]).collect();
        let model_timesteps = kept.iter().map(|&t| self.model_timesteps[t]).collect();
        Self::from_alpha_bars(alpha_bars, model_timesteps)
    }

    /// The nearest timestep of the chain.
    fn clamp(&self, t: usize) -> usize {
        t.min(self.timesteps() - 1)
    }
}

/// alpha_bar_{t-1} for each t: 1, then all but the last.
fn previous(alpha_bars: &[f64]) -> impl Iterator<Item = f64> {
    std::iter::once(1.0).chain(alpha_bars.iter().copied()).take(alpha_bars.len())
}

/// The error of an alpha_bar that does not fall strictly, or underflows, at `timestep`.
fn alpha_bar_error(alpha_bars: &[f64], timestep: usize) -> ScheduleError {
    let previous = timestep.checked_sub(1).map_or(1.0, |before| alpha_bars[before]);
    ScheduleError::AlphaBar { timestep, previous, alpha_bar: alpha_bars[timestep] }
}
