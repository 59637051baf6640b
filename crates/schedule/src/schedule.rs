//! The schedule itself: every per-timestep number of a chain, computed once and checked once.

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::beta_schedule::{check_timesteps, check_user_betas};
use crate::respace::check_steps;
use crate::{BetaSchedule, NoiseLevel, ScheduleError, Spacing};

/// The smallest posterior variance whose logarithm is taken (Ho et al.'s code, and every peer since).
const SMALLEST_VARIANCE: f64 = 1e-20;

/// What a configuration file says of a schedule. Its keys and those of the family lie in one table:
/// `family = "cosine"`, `timesteps = 1000`, `s = 0.008`. Only `family` has to be named; unknown keys are errors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
pub struct ScheduleConfig {
    /// Number of diffusion timesteps T, at least 1. Default 1000.
    #[serde(default = "default_timesteps")]
    pub timesteps: usize,
    /// Whether to rescale so that the last timestep is pure noise ([`Schedule::rescale_zero_terminal_snr`]).
    /// Default false.
    #[serde(default)]
    pub zero_terminal_snr: bool,
    /// The family and its parameters. Default cosine.
    // The family refuses unknown keys: serde hands a flattened tagged enum every key that is not named above.
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

/// A chain of T noising steps, t = 0, …, T-1, with every number that training and sampling need.
///
/// A value of this type is valid: alpha_bar falls strictly from below 1 and stays above 0, but for a
/// zero-terminal-SNR schedule, whose last alpha_bar is 0 and last beta 1. All per-timestep values are finite.
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
    /// The schedule of a family with `timesteps` steps.
    ///
    /// # Errors
    /// Those of [`BetaSchedule::betas`], and [`ScheduleError::AlphaBar`] where alpha_bar does not fall strictly in double
    /// precision or underflows.
    pub fn new(family: &BetaSchedule, timesteps: usize) -> Result<Self, ScheduleError> {
        Self::from_valid_betas(family.betas(timesteps)?)
    }

    /// The schedule of the user's own betas, t = 0 first.
    ///
    /// # Errors
    /// [`ScheduleError::Timesteps`] for none (or more than [`crate::MAX_TIMESTEPS`]), [`ScheduleError::Beta`] for one
    /// outside (0, 1) or NaN, [`ScheduleError::DecreasingBetas`] for one below its predecessor (equal is fine), and
    /// [`ScheduleError::AlphaBar`] where double precision does not carry them.
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
        let model_timesteps = (0..betas.len()).collect();
        match alpha_bars.last() {
            Some(&0.0) => Err(underflow(&alpha_bars)),
            _ => Self::from_parts(betas, alpha_bars, model_timesteps),
        }
    }

    /// beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}.
    fn from_alpha_bars(alpha_bars: Vec<f64>, model_timesteps: Vec<usize>) -> Result<Self, ScheduleError> {
        let betas = previous(&alpha_bars).zip(&alpha_bars).map(|(before, after)| 1.0 - after / before).collect();
        Self::from_parts(betas, alpha_bars, model_timesteps)
    }

    /// Checks alpha_bar and computes the rest: the one place where a `Schedule` comes into being.
    fn from_parts(betas: Vec<f64>, alpha_bars: Vec<f64>, model_timesteps: Vec<usize>) -> Result<Self, ScheduleError> {
        check_timesteps(alpha_bars.len())?;
        let flat =
            previous(&alpha_bars).zip(&alpha_bars).position(|(before, &after)| !(after < before && after >= 0.0));
        if let Some(timestep) = flat {
            return Err(ScheduleError::AlphaBar {
                timestep,
                previous: timestep.checked_sub(1).map_or(1.0, |before| alpha_bars[before]),
                alpha_bar: alpha_bars[timestep],
            });
        }

        // The posterior q(x_{t-1} | x_t, x_0) (Ho et al. 2020, equations 6 and 7).
        let mut posterior_variance = Vec::with_capacity(betas.len());
        let mut posterior_mean_coef1 = Vec::with_capacity(betas.len());
        let mut posterior_mean_coef2 = Vec::with_capacity(betas.len());
        for ((&beta, &alpha_bar), before) in betas.iter().zip(&alpha_bars).zip(previous(&alpha_bars)) {
            posterior_variance.push(beta * (1.0 - before) / (1.0 - alpha_bar));
            posterior_mean_coef1.push(beta * before.sqrt() / (1.0 - alpha_bar));
            posterior_mean_coef2.push((1.0 - before) * (1.0 - beta).sqrt() / (1.0 - alpha_bar));
        }
        let posterior_log_variance_clipped: Vec<f64> =
            posterior_variance.iter().map(|variance| variance.max(SMALLEST_VARIANCE).ln()).collect();
        let mut posterior_log_variance_first_replaced = posterior_log_variance_clipped.clone();
        if let [first, second, ..] = posterior_log_variance_first_replaced.as_mut_slice() {
            *first = *second;
        }
        let snr = alpha_bars.iter().map(|alpha_bar| alpha_bar / (1.0 - alpha_bar)).collect();

        Ok(Schedule {
            betas,
            alpha_bars,
            model_timesteps,
            posterior_variance,
            posterior_log_variance_clipped,
            posterior_log_variance_first_replaced,
            posterior_mean_coef1,
            posterior_mean_coef2,
            snr,
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

    /// Share of the variance that is still signal after each step, falling strictly, in (0, 1); the last is 0 in a
    /// zero-terminal-SNR schedule.
    pub fn alpha_bars(&self) -> &[f64] {
        &self.alpha_bars
    }

    /// The timestep that the network is told at each step: 0, …, T-1, or what [`Schedule::respaced`] kept of them.
    pub fn model_timesteps(&self) -> &[usize] {
        &self.model_timesteps
    }

    /// alpha_bar after step `t`; alpha_bar(-1) = 1 is clean data. Before the chain it is 1, beyond its end that of the
    /// last step.
    pub fn alpha_bar(&self, t: i64) -> f64 {
        match usize::try_from(t) {
            Ok(t) => self.alpha_bars[self.clamp(t)],
            Err(_) => 1.0,
        }
    }

    /// beta of step `t`; beyond the end of the chain that of the last step.
    pub fn beta(&self, t: usize) -> f64 {
        self.betas[self.clamp(t)]
    }

    /// The noise level after step `t`; beyond the end of the chain that of the last step. In a respaced schedule its
    /// `timestep` is the one of the original chain, which the network knows.
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

    /// The levels that a sampler of `steps` steps walks over, from the noisiest on: `steps` levels of this schedule,
    /// then [`NoiseLevel::CLEAN`]. [`Spacing::Karras`] and [`Spacing::Exponential`] go from the sigma of the last
    /// timestep to that of the first, [`Spacing::Flow`] from the last towards clean data.
    ///
    /// # Errors
    /// [`ScheduleError::Steps`] unless 1 <= `steps` <= T; [`ScheduleError::InfiniteSigma`] for the first two of these, if the last
    /// timestep is pure noise.
    pub fn levels(&self, spacing: Spacing, steps: usize) -> Result<Vec<NoiseLevel>, ScheduleError> {
        /// The exponent rho that the paper recommends for images.
        const RHO: f64 = 7.0;
        let even = |of: &dyn Fn(f64) -> f64, back: &dyn Fn(f64) -> f64| {
            check_steps(self.timesteps(), steps)?;
            let (first, last) = (self.level(self.timesteps() - 1), self.level(0));
            if first.sigma().is_infinite() {
                return Err(ScheduleError::InfiniteSigma { spacing });
            }
            let (start, end) = (of(first.sigma()), of(last.sigma()));
            let between = |index: usize| match index {
                0 => first,
                index if index + 1 == steps => last,
                index => self.level_at_sigma(back(start + (end - start) * index as f64 / (steps - 1) as f64)),
            };
            Ok((0..steps).map(between).collect::<Vec<_>>())
        };
        let mut levels = match spacing {
            Spacing::Flow => {
                check_steps(self.timesteps(), steps)?;
                let first = self.level(self.timesteps() - 1);
                let start = first.noise_scale() / (first.signal_scale() + first.noise_scale());
                let time = |index: usize| start * (1.0 - index as f64 / steps as f64);
                let between = (1..steps).map(time).map(|time| self.level_at_sigma(time / (1.0 - time)));
                std::iter::once(first).chain(between).collect()
            }
            Spacing::Karras => even(&|sigma| sigma.powf(1.0 / RHO), &|root| root.powf(RHO))?,
            Spacing::Exponential => even(&f64::ln, &f64::exp)?,
            _ => spacing.timesteps(self.timesteps(), steps)?.into_iter().map(|t| self.level(t)).collect(),
        };
        levels.push(NoiseLevel::CLEAN);
        Ok(levels)
    }

    /// Variance of q(x_{t-1} | x_t, x_0): beta · (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) (Ho et al. 2020,
    /// equation 7). In [0, beta]; the first is 0.
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

    /// Factor of x_0 in the mean of q(x_{t-1} | x_t, x_0): beta · sqrt(alpha_bar_{t-1}) / (1 - alpha_bar_t)
    /// (Ho et al. 2020, equation 7).
    pub fn posterior_mean_coef1(&self) -> &[f64] {
        &self.posterior_mean_coef1
    }

    /// Factor of x_t in the mean of q(x_{t-1} | x_t, x_0): (1 - alpha_bar_{t-1}) · sqrt(1 - beta) / (1 - alpha_bar_t)
    /// (Ho et al. 2020, equation 7). 0 at t = 0.
    pub fn posterior_mean_coef2(&self) -> &[f64] {
        &self.posterior_mean_coef2
    }

    /// Signal-to-noise ratio alpha_bar / (1 - alpha_bar) of each timestep: finite, falling, 0 at the end of a
    /// zero-terminal-SNR schedule.
    pub fn snr(&self) -> &[f64] {
        &self.snr
    }

    /// This schedule shifted and scaled so that its last timestep is pure noise and its first stays as it was
    /// (Lin et al. 2023, arXiv 2305.08891, algorithm 1). The last alpha_bar is exactly 0 and the last beta exactly 1.
    ///
    /// There the SNR is 0, sigma infinite, and a network that predicts epsilon says nothing about x_0: train it to
    /// predict v.
    ///
    /// # Errors
    /// [`ScheduleError::RescaleTooShort`] if T = 1; [`ScheduleError::AlphaBar`] where so little signal is left before
    /// the end that it underflows.
    pub fn rescale_zero_terminal_snr(&self) -> Result<Schedule, ScheduleError> {
        let roots: Vec<f64> = self.alpha_bars.iter().map(|alpha_bar| alpha_bar.sqrt()).collect();
        let [first, .., last] = roots[..] else {
            return Err(ScheduleError::RescaleTooShort { timesteps: self.timesteps() });
        };
        let scale = first / (first - last);
        let alpha_bars = roots.iter().map(|root| ((root - last) * scale).powi(2)).collect();
        Self::from_alpha_bars(alpha_bars, self.model_timesteps.clone())
    }

    /// The shorter chain that visits only the given timesteps of this one, in any order: their alpha_bars stay, and
    /// the betas between them are derived anew (OpenAI's `SpacedDiffusion`). Such betas may fall.
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

/// Where alpha_bar first reached 0 although every beta is below 1.
fn underflow(alpha_bars: &[f64]) -> ScheduleError {
    let timestep = alpha_bars.iter().take_while(|&&alpha_bar| alpha_bar > 0.0).count();
    let previous = timestep.checked_sub(1).map_or(1.0, |before| alpha_bars[before]);
    ScheduleError::AlphaBar { timestep, previous, alpha_bar: 0.0 }
}
