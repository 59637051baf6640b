//! The learning rate of each step.

use crate::config::{RateSchedule, TrainingConfig};

/// The learning rate of step `step`, counted from 0: linear warm-up over `warmup_steps`, then `rate_schedule`, which ends at 0 with
/// the last step unless it is constant.
pub fn learning_rate(config: &TrainingConfig, step: u64) -> f64 {
    if step < config.warmup_steps {
        return config.learning_rate * (step + 1) as f64 / config.warmup_steps as f64;
    }
    let length = config.steps.saturating_sub(config.warmup_steps).max(1);
    let done = ((step - config.warmup_steps) as f64 / length as f64).min(1.0);
    config.learning_rate
        * match config.rate_schedule {
            RateSchedule::Constant => 1.0,
            RateSchedule::Cosine => 0.5 * (1.0 + (core::f64::consts::PI * done).cos()),
            RateSchedule::Linear => 1.0 - done,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_then_down_to_nothing() {
        let config = |rate_schedule| TrainingConfig {
            steps: 110,
            warmup_steps: 10,
            learning_rate: 2.0,
            rate_schedule,
            ..TrainingConfig::default()
        };
        for kind in [RateSchedule::Constant, RateSchedule::Cosine, RateSchedule::Linear] {
            assert_eq!(learning_rate(&config(kind), 0), 0.2);
            assert_eq!(learning_rate(&config(kind), 9), 2.0);
            assert_eq!(learning_rate(&config(kind), 10), 2.0);
        }
        assert_eq!(learning_rate(&config(RateSchedule::Constant), 109), 2.0);
        assert!((learning_rate(&config(RateSchedule::Cosine), 60) - 1.0).abs() < 1e-12);
        assert!((learning_rate(&config(RateSchedule::Linear), 35) - 1.5).abs() < 1e-12);
        assert!(learning_rate(&config(RateSchedule::Cosine), 110) < 1e-12);
        assert_eq!(learning_rate(&config(RateSchedule::Linear), 500), 0.0);
    }
}
