//! The posterior of the forward process: a reverse step, given x_0.

use crate::NoiseLevel;

/// The least variance whose logarithm is taken (Ho et al.'s code and its successors).
const MIN_VARIANCE: f64 = 1e-20;

/// The Gaussian q(x_{t-1} | x_t, x_0) of a step between two noise levels (Ho et al. 2020, arXiv:2006.11239, equations 6
/// and 7), with `beta = 1 - alpha_bar_t / alpha_bar_{t-1}`.
///
/// The levels need not be neighbors in a schedule: any two are those of a chain that visits them alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Posterior {
    /// Factor of x_0 in the mean: `sqrt(alpha_bar_{t-1}) beta / (1 - alpha_bar_t)`.
    pub of_x_0: f64,
    /// Factor of x_t in the mean: `sqrt(1 - beta) (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)`.
    pub of_x_t: f64,
    /// The variance: `beta (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)`, in [0, beta].
    pub variance: f64,
    /// The variance of the forward step q(x_t | x_{t-1}).
    pub beta: f64,
}

impl Posterior {
    /// Of the step from `level` to `next`, the cleaner one.
    pub fn between(level: NoiseLevel, next: NoiseLevel) -> Self {
        let alpha = level.alpha_bar / next.alpha_bar;
        Self::new(alpha, 1.0 - alpha, level.alpha_bar, next.alpha_bar)
    }

    /// From alpha and beta of a step, and alpha_bar after it and `before` it in the forward process.
    pub(crate) fn new(alpha: f64, beta: f64, alpha_bar: f64, before: f64) -> Self {
        Self {
            of_x_0: before.sqrt() * beta / (1.0 - alpha_bar),
            of_x_t: alpha.sqrt() * (1.0 - before) / (1.0 - alpha_bar),
            variance: beta * (1.0 - before) / (1.0 - alpha_bar),
            beta,
        }
    }

    /// The variance, raised to at least 1e-20 so that its logarithm is finite.
    pub fn clipped_variance(self) -> f64 {
        self.variance.max(MIN_VARIANCE)
    }
}
