//! Losses by quartile of the timesteps.

use schedule::{NoiseLevel, Schedule};
use serde::{Deserialize, Serialize};

/// The number of quartiles of the timesteps.
pub const QUARTILES: usize = 4;

/// A mean with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Its standard error, by the spread of the values; 0 of fewer than two.
    pub error: f64,
}

impl Mean {
    pub(crate) fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count.max(1.0);
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let error = if values.len() < 2 { 0.0 } else { (squares / (count - 1.0) / count).sqrt() };
        Self { mean, error }
    }
}

/// The quartile of a level's timestep, from 0, the least noise first. A level between two timesteps has one too.
pub(crate) fn quartile_of(level: NoiseLevel, schedule: &Schedule) -> usize {
    let start = |quartile: usize| (quartile * schedule.timesteps() / QUARTILES) as f64;
    (1..QUARTILES).rev().find(|quartile| start(*quartile) <= level.timestep).unwrap_or(0)
}

/// Running count, mean and sum of squared deviations (Welford 1962).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
}

/// The training losses of each quartile, accumulated between two lines of `metrics.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct QuartileLosses([Moments; QUARTILES]);

/// The mean loss of a quartile, in a line of `metrics.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct QuartileMean {
    #[serde(flatten)]
    pub(crate) mean: Mean,
    /// The number of samples.
    pub(crate) count: u64,
}

impl QuartileLosses {
    pub(crate) fn observe(&mut self, quartile: usize, loss: f64) {
        let Moments { count, mean, squares } = &mut self.0[quartile];
        let before = loss - *mean;
        *count += 1;
        *mean += before / *count as f64;
        *squares += before * (loss - *mean);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|moments| moments.count == 0)
    }

    /// Mean and standard error of each quartile; None without samples.
    pub(crate) fn means(&self) -> [Option<QuartileMean>; QUARTILES] {
        self.0.map(|Moments { count, mean, squares }| {
            let samples = count as f64;
            let error = if count < 2 { 0.0 } else { (squares / (samples - 1.0) / samples).sqrt() };
            (count > 0).then_some(QuartileMean { mean: Mean { mean, error }, count })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schedule::ScheduleConfig;

    #[test]
    fn mean_and_error_are_those_of_the_whole_list() {
        let mut losses = QuartileLosses::default();
        assert!(losses.is_empty());
        for loss in [1.0, 2.0, 3.0, 6.0] {
            losses.observe(2, loss);
        }
        losses.observe(0, 5.0);
        assert!(!losses.is_empty());
        let [first, second, third, fourth] = losses.means();
        assert_eq!(first, Some(QuartileMean { mean: Mean { mean: 5.0, error: 0.0 }, count: 1 }));
        assert_eq!((second, fourth), (None, None));
        let third = third.expect("four samples");
        assert_eq!((third.mean.mean, third.count), (3.0, 4));
        assert!((third.mean.error - (14.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        let line = serde_json::to_string(&losses.means()).unwrap();
        assert!(line.starts_with(r#"[{"mean":5.0,"error":0.0,"count":1},null,{"mean":3.0,"#), "{line}");
    }

    #[test]
    fn a_serialized_state_has_the_same_bits() {
        let mut losses = QuartileLosses::default();
        for index in 0..1000 {
            losses.observe(index % 3, (index as f64 * 0.731).sin().abs() / 7.0);
        }
        let text = serde_json::to_string(&losses).unwrap();
        assert_eq!(serde_json::from_str::<QuartileLosses>(&text).unwrap(), losses);
    }

    #[test]
    fn quartiles_are_those_of_the_evaluation_also_between_timesteps() {
        let schedule = ScheduleConfig { timesteps: 10, ..ScheduleConfig::default() }.build().unwrap();
        let quartiles: Vec<usize> = (0..10).map(|t| quartile_of(schedule.level(t), &schedule)).collect();
        assert_eq!(quartiles, [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]);
        let at = |sigma: f64| quartile_of(schedule.level_at_sigma(sigma), &schedule);
        let sigma = |t: usize| schedule.level(t).sigma();
        assert_eq!((at(1e-9), at(sigma(2) * 0.999), at(sigma(2) * 1.001), at(1e9)), (0, 0, 1, 3));
    }

    #[test]
    fn a_mean_has_its_standard_error() {
        let Mean { mean, error } = Mean::of(&[1.0, 2.0, 3.0, 6.0]);
        assert_eq!(mean, 3.0);
        assert!((error - (14.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        assert_eq!(Mean::of(&[2.0]), Mean { mean: 2.0, error: 0.0 });
    }
}
