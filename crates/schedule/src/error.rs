//! Errors of schedules, respacings and names.

use thiserror::Error;

use crate::MAX_TIMESTEPS;

/// A schedule, a respacing or a name that is not possible. The message holds the values and what to do next.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// A spacing in sigma where sigma is infinite.
    #[error(
        "the spacing `{spacing}` needs a finite sigma, and the last timestep of this schedule is pure noise \
         (alpha_bar = 0): use `trailing`"
    )]
    InfiniteSigma {
        /// The spacing.
        spacing: crate::Spacing,
    },
    /// A spacing that has no whole timesteps.
    #[error("the spacing `{spacing}` lies between the timesteps: it needs a schedule's sigmas, use `Schedule::levels`")]
    BetweenTimesteps {
        /// The spacing.
        spacing: crate::Spacing,
    },
    /// The number of diffusion timesteps T is 0 or above [`MAX_TIMESTEPS`].
    #[error(
        "a schedule of {timesteps} timesteps is impossible: choose between 1 and {MAX_TIMESTEPS} (papers use 1000)"
    )]
    Timesteps {
        /// The requested T.
        timesteps: usize,
    },

    /// A parameter of a beta schedule lies outside its range.
    #[error("beta schedule `{name}`: {parameter} = {value} is out of range: {expected}")]
    Parameter {
        /// Plain name of the beta schedule.
        name: &'static str,
        /// Name of the parameter, as in a configuration file.
        parameter: &'static str,
        /// Its value.
        value: f64,
        /// The range, in words.
        expected: &'static str,
    },

    /// A beta schedule has a beta outside (0, 1) at this number of timesteps; usually T is too small.
    #[error(
        "beta schedule `{name}` with {timesteps} timesteps has beta = {beta} at t = {timestep}, outside (0, 1): {advice}"
    )]
    ImpossibleBeta {
        /// Plain name of the beta schedule.
        name: &'static str,
        /// The requested T.
        timesteps: usize,
        /// The timestep of the beta, 0-based.
        timestep: usize,
        /// Its value.
        beta: f64,
        /// The next step for the user.
        advice: &'static str,
    },

    /// A beta given by the user lies outside (0, 1) or is NaN.
    #[error("beta = {beta} at t = {timestep} is outside (0, 1): correct that entry of the betas")]
    Beta {
        /// Its timestep, 0-based.
        timestep: usize,
        /// Its value.
        beta: f64,
    },

    /// Betas given by the user fall somewhere.
    #[error(
        "betas must not decrease, but fall from {previous} at t = {before} to {beta} at t = {timestep}: \
         sort or correct them",
        before = timestep.saturating_sub(1)
    )]
    DecreasingBetas {
        /// Timestep of the smaller beta, 0-based.
        timestep: usize,
        /// The beta just before it.
        previous: f64,
        /// The smaller beta.
        beta: f64,
    },

    /// The number of betas given by the user is not the number of timesteps.
    #[error("{betas} betas were given for {timesteps} timesteps: set timesteps = {betas} or give {timesteps} betas")]
    BetaCount {
        /// Number of betas.
        betas: usize,
        /// The requested T.
        timesteps: usize,
    },

    /// Alpha-bar stops falling in double precision: betas below 1e-16, or so much noise that it underflows.
    #[error(
        "alpha_bar must fall strictly and stay above 0, but goes from {previous} to {alpha_bar} at t = {timestep}: the \
         betas are too small or too many for double precision, use other parameters or fewer timesteps"
    )]
    AlphaBar {
        /// The timestep, 0-based.
        timestep: usize,
        /// Alpha-bar one step before.
        previous: f64,
        /// Alpha-bar at the timestep.
        alpha_bar: f64,
    },

    /// A schedule of one timestep cannot be rescaled: its first and its last timestep are the same.
    #[error("a zero-terminal-SNR schedule needs at least 2 timesteps, this one has {timesteps}: use more timesteps")]
    RescaleTooShort {
        /// The T of the schedule.
        timesteps: usize,
    },

    /// The number of sampling steps is 0 or larger than the number of timesteps.
    #[error("{steps} sampling steps out of {timesteps} timesteps are impossible: choose between 1 and {timesteps}")]
    Steps {
        /// The requested number of sampling steps.
        steps: usize,
        /// The T of the schedule.
        timesteps: usize,
    },

    /// A timestep lies beyond the end of the schedule.
    #[error(
        "timestep {timestep} is not one of the schedule's {timesteps}: choose from 0 to {last}",
        last = timesteps.saturating_sub(1)
    )]
    TimestepOutOfRange {
        /// The requested timestep, 0-based.
        timestep: usize,
        /// The T of the schedule.
        timesteps: usize,
    },

    /// A respacing names a timestep twice.
    #[error("timestep {timestep} is kept twice: name every kept timestep once")]
    RepeatedTimestep {
        /// The timestep.
        timestep: usize,
    },

    /// A respacing keeps nothing.
    #[error("a respacing must keep at least 1 of the {timesteps} timesteps, this one keeps none: name some")]
    NothingKept {
        /// The T of the schedule.
        timesteps: usize,
    },

    /// The offset of a leading spacing moves its first timestep beyond the end.
    #[error(
        "leading spacing of {steps} steps with offset {offset} starts at timestep {first}, but the last of {timesteps} \
         is {last}: use a smaller offset or other steps",
        last = timesteps.saturating_sub(1)
    )]
    Offset {
        /// The requested number of sampling steps.
        steps: usize,
        /// The requested offset.
        offset: usize,
        /// The first timestep that would follow.
        first: usize,
        /// The T of the schedule.
        timesteps: usize,
    },

    /// A section of the chain has fewer timesteps than its count.
    #[error("section {section} has {size} timesteps and cannot give {steps}: ask at most {size} of it")]
    Section {
        /// Index of the section, 0-based.
        section: usize,
        /// Its number of timesteps.
        size: usize,
        /// The requested number.
        steps: usize,
    },

    /// No whole-number stride visits exactly this many timesteps.
    #[error(
        "no whole-number stride takes exactly {steps} of {timesteps} timesteps: \
         the nearest counts are {fewer} and {more}"
    )]
    NoStride {
        /// The requested number of sampling steps.
        steps: usize,
        /// The T of the schedule.
        timesteps: usize,
        /// The largest possible count below.
        fewer: usize,
        /// The smallest possible count above.
        more: usize,
    },

    /// A text is not the name of a value.
    #[error("unknown {kind} `{given}`: use {valid}")]
    Unknown {
        /// The kind of value: `objective`, `spacing`, ….
        kind: &'static str,
        /// The text.
        given: String,
        /// The valid texts.
        valid: String,
    },
}
