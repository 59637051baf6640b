//! Importance sampling of timesteps: more of those whose loss is large (Nichol and Dhariwal 2021, arXiv:2102.09672, section
//! 3.3; improved-diffusion's `LossSecondMomentResampler`).

/// The number of losses that are kept for each timestep.
const HISTORY: usize = 10;
/// The share of uniform draws, so that every timestep is drawn.
const UNIFORM: f64 = 0.001;

/// Draws timesteps with a probability in proportion to `sqrt(E[loss^2])` over the last losses of each; all equally often
/// until every timestep has ten.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ImportanceSampler {
    /// `[timesteps, HISTORY]`, the oldest first; only the first `counts[t]` of a row are losses.
    pub(crate) losses: Vec<f32>,
    /// The number of losses of each timestep, at most [`HISTORY`].
    pub(crate) counts: Vec<f32>,
}

impl ImportanceSampler {
    pub(crate) fn new(timesteps: usize) -> Self {
        Self { losses: vec![0.0; timesteps * HISTORY], counts: vec![0.0; timesteps] }
    }

    /// The probability of each timestep.
    fn probabilities(&self) -> Vec<f64> {
        let timesteps = self.counts.len() as f64;
        if self.counts.iter().any(|count| (*count as usize) < HISTORY) {
            return vec![1.0 / timesteps; self.counts.len()];
        }
        let root = |row: &[f32]| (row.iter().map(|loss| f64::from(*loss).powi(2)).sum::<f64>() / HISTORY as f64).sqrt();
        let roots: Vec<f64> = self.losses.chunks_exact(HISTORY).map(root).collect();
        let total: f64 = roots.iter().sum();
        if !(total > 0.0 && total.is_finite()) {
            return vec![1.0 / timesteps; self.counts.len()];
        }
        roots.iter().map(|root| (1.0 - UNIFORM) * root / total + UNIFORM / timesteps).collect()
    }

    /// The timestep for a `uniform` number in (0, 1), and the weight `1 / (T p_t)` with which the expected loss is that of uniform
    /// timesteps.
    pub(crate) fn draw(&self, uniform: f64) -> (usize, f64) {
        let probabilities = self.probabilities();
        let mut below = 0.0;
        let inside = |probability: &f64| {
            below += probability;
            uniform < below
        };
        let timestep = probabilities.iter().position(inside).unwrap_or(probabilities.len() - 1);
        (timestep, 1.0 / (probabilities.len() as f64 * probabilities[timestep]))
    }

    /// Records the losses of a step, without the weights of [`ImportanceSampler::draw`].
    pub(crate) fn observe(&mut self, losses: &[(usize, f64)]) {
        for &(timestep, loss) in losses {
            let row = &mut self.losses[timestep * HISTORY..(timestep + 1) * HISTORY];
            let count = self.counts[timestep] as usize;
            if count < HISTORY {
                row[count] = loss as f32;
                self.counts[timestep] += 1.0;
            } else {
                row.rotate_left(1);
                row[HISTORY - 1] = loss as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_losses_are_drawn_in_proportion_once_all_are_known() {
        let mut sampler = ImportanceSampler::new(3);
        for round in 0..HISTORY {
            assert_eq!(sampler.draw(0.5), (1, 1.0), "uniform in round {round}");
            sampler.observe(&[(0, 9.0), (1, 9.0), (2, 9.0)]);
        }
        // the old ones are forgotten
        for _ in 0..HISTORY {
            sampler.observe(&[(0, 1.0), (1, 1.0), (2, 2.0)]);
        }
        let share = UNIFORM / 3.0;
        let expected = [0.25, 0.25, 0.5].map(|root| (1.0 - UNIFORM) * root + share);
        for (found, expected) in sampler.probabilities().into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
        }
        for (uniform, timestep) in [(0.01, 0), (0.24, 0), (0.26, 1), (0.49, 1), (0.51, 2), (0.999_999, 2)] {
            let (found, weight) = sampler.draw(uniform);
            assert_eq!(found, timestep, "{uniform}");
            assert!((weight * 3.0 * expected[timestep] - 1.0).abs() < 1e-9, "{weight}");
        }
        // the second moment, not the mean
        sampler.observe(&[(0, 10.0)]);
        let root = (109.0f64 / 10.0).sqrt();
        assert!((sampler.probabilities()[0] - ((1.0 - UNIFORM) * root / (root + 3.0) + share)).abs() < 1e-6);
    }

    #[test]
    fn losses_of_zero_leave_it_uniform() {
        let mut sampler = ImportanceSampler::new(2);
        (0..HISTORY).for_each(|_| sampler.observe(&[(0, 0.0), (1, 0.0)]));
        assert_eq!(sampler.draw(0.7), (1, 1.0));
    }
}
