//! Dynamic loss scaling for half precision, as PyTorch's `GradScaler`: the loss is multiplied by a factor that keeps small
//! gradients above the smallest half-precision number, as large as the largest gradients permit.

use serde::{Deserialize, Serialize};

use crate::config::MixedPrecision;

/// The factor at the start, and those with which it changes, as PyTorch's.
const FIRST: f64 = 65_536.0;
const GROWTH: f64 = 2.0;
const BACKOFF: f64 = 0.5;
/// Steps without an overflow before it grows.
const GROWTH_INTERVAL: u64 = 2000;

/// The factor of the loss, and the steps since it changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LossScale {
    pub(crate) factor: f64,
    steps: u64,
}

impl LossScale {
    /// None unless gradients are in half precision.
    pub(crate) fn new(mixed: MixedPrecision) -> Option<Self> {
        (mixed == MixedPrecision::F16).then_some(Self { factor: FIRST, steps: 0 })
    }

    /// Counts a step without an overflow.
    pub(crate) fn keep(&mut self) {
        self.steps += 1;
        if self.steps == GROWTH_INTERVAL {
            *self = Self { factor: self.factor * GROWTH, steps: 0 };
        }
    }

    /// Whether a step overflowed whose loss was multiplied by `factor`: its gradients are not finite, its loss is, and a
    /// smaller factor is possible, to which the scale then falls.
    pub(crate) fn overflows(&mut self, factor: f64, loss: f64) -> bool {
        if !loss.is_finite() || factor <= 1.0 {
            return false;
        }
        // a step that was queued before an earlier overflow was known does not lower it twice
        if factor <= self.factor {
            *self = Self { factor: (factor * BACKOFF).max(1.0), steps: 0 };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_falls_on_an_overflow_and_grows_after_many_steps_without_one() {
        assert_eq!(LossScale::new(MixedPrecision::Bf16), None);
        let mut scale = LossScale::new(MixedPrecision::F16).expect("half precision");
        assert!(scale.overflows(65_536.0, 0.5));
        assert_eq!(scale.factor, 32_768.0);
        // one queued before the first was known
        assert!(scale.overflows(65_536.0, 0.5));
        assert_eq!(scale.factor, 32_768.0);
        (0..1999).for_each(|_| scale.keep());
        assert_eq!(scale.factor, 32_768.0);
        scale.keep();
        assert_eq!(scale, LossScale { factor: 65_536.0, steps: 0 });
        // a loss that is not finite itself, or a scale that cannot fall, is another problem
        assert!(!scale.overflows(65_536.0, f64::NAN));
        assert!(!LossScale { factor: 1.0, steps: 0 }.overflows(1.0, 0.5));
    }
}
