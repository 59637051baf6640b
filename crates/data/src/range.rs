//! Ranges of values: which number is black and which is white.

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::options::LoadOptions;
use crate::transform::Value;

/// Fewer values than this say nothing about the range of others.
const FEW: u64 = 256;

/// The numbers that become black and white; `low < high`, both finite.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Range {
    pub low: f64,
    pub high: f64,
}

impl Range {
    /// The range of bytes, ...
    pub const BYTES: Self = Self { low: 0.0, high: 255.0 };
    /// ... and of 16 bits.
    pub const WORDS: Self = Self { low: 0.0, high: 65535.0 };

    /// `data.range`, where it is set.
    pub fn given(options: &LoadOptions) -> Option<Self> {
        options.range.map(|[low, high]| Self { low, high })
    }

    /// `(number - low) / (high - low)` as a value of 8 or 16 bits: clamped, and halves rounded away from zero.
    pub fn value<V: Value>(self, number: f64) -> V {
        let share = ((number - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        V::from_number((share * V::MOST as f64).round() as u64)
    }

    /// The range of numbers that run as `found` says, if it is a usual one: 0 to 1, -1 to 1, 0 to 255 or, for integers, 0 to
    /// 65535. The latter two are taken only where a quarter of them is used: a greatest value of 5 may be anything.
    pub fn usual(found: Extremes, is_integer: bool) -> Option<Self> {
        // a rounding error beyond the end, below a quarter of a gray level
        let within = |low: f64, high: f64| {
            let slack = (high - low) / 1024.0;
            found.least >= low - slack && found.greatest <= high + slack
        };
        let unit = [(0.0, 1.0), (-1.0, 1.0)].into_iter().map(|(low, high)| Self { low, high });
        let whole = [Some(Self::BYTES), is_integer.then_some(Self::WORDS)].into_iter().flatten();
        let whole = whole.filter(|range| found.greatest >= range.high / 4.0);
        unit.chain(whole).find(|range| within(range.low, range.high))
    }

    /// As [`usual`](Self::usual), or the error that asks for `data.range`; `title` names the pictures.
    ///
    /// # Errors
    /// [`DataError::BadOption`] where the range is none of the usual ones.
    pub fn usual_or_ask(found: Extremes, is_integer: bool, title: &str) -> Result<Self, DataError> {
        Self::usual(found, is_integer).ok_or_else(|| Self::ask(found, is_integer, title))
    }

    /// The error that asks for the range.
    pub fn ask(found: Extremes, is_integer: bool, title: &str) -> DataError {
        let usual = if is_integer { "0 to 255 or 0 to 65535" } else { "0 to 1, -1 to 1 or 0 to 255" };
        let Extremes { least, greatest, .. } = found;
        let problem = format!(
            "{title}: values run from {least} to {greatest}, which is not {usual}; set the values that are black and white, \
             such as `data.range = [{least}, {greatest}]`"
        );
        DataError::bad_option("range", problem)
    }
}

/// The least and the greatest of several numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Extremes {
    pub least: f64,
    pub greatest: f64,
    /// How many numbers there are.
    pub count: u64,
}

impl Extremes {
    /// Those of `numbers` that are finite; `None` where none is.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let none = Self { least: f64::INFINITY, greatest: f64::NEG_INFINITY, count: 0 };
        let add = |all: Self, number: f64| Self {
            least: all.least.min(number),
            greatest: all.greatest.max(number),
            count: all.count + 1,
        };
        let all = numbers.into_iter().filter(|number| number.is_finite()).fold(none, add);
        (all.count > 0).then_some(all)
    }

    /// Those of both.
    pub fn and(self, other: Self) -> Self {
        Self {
            least: self.least.min(other.least),
            greatest: self.greatest.max(other.greatest),
            count: self.count + other.count,
        }
    }

    /// The range to stretch these values of pictures in `range` from: of those of more than 8 bits the least number of bits that
    /// holds them, else the extremes themselves.
    pub fn proposal(self, range: Range) -> [f64; 2] {
        let low = if self.greatest < range.low + (range.high - range.low) / 4.0 { range.low } else { self.least };
        let bits = (self.greatest + 1.0).log2().ceil();
        let high = if range == Range::WORDS && low == range.low { bits.exp2() - 1.0 } else { self.greatest };
        [low, high]
    }

    /// Whether less than a quarter of `range` is used, by enough values that differ.
    pub fn hardly_use(self, range: Range) -> bool {
        let used = self.greatest - self.least;
        self.count >= FEW && used > 0.0 && used < (range.high - range.low) / 4.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extremes(least: f64, greatest: f64) -> Extremes {
        Extremes { least, greatest, count: 1000 }
    }

    #[test]
    fn numbers_become_values_of_both_depths() {
        let range = Range { low: -1.0, high: 1.0 };
        assert_eq!([-2.0, -1.0, 0.0, 1.0, 9.0].map(|number| range.value::<u8>(number)), [0, 0, 128, 255, 255]);
        assert_eq!([-1.0, 0.0, 1.0].map(|number| range.value::<u16>(number)), [0, 32768, 65535]);
        assert!((0..=255).all(|byte| Range::BYTES.value::<u8>(f64::from(byte)) == byte));
        let unit = Range { low: 0.0, high: 1.0 };
        assert!((0..=255u8).all(|byte| unit.value::<u8>(f64::from(f32::from(byte) / 255.0)) == byte));
    }

    #[test]
    fn usual_ranges_are_found_and_others_asked_for() {
        let usual = |least, greatest, is_integer| {
            Range::usual(extremes(least, greatest), is_integer).map(|range| [range.low, range.high])
        };
        assert_eq!(usual(0.0, 1.0000001, false), Some([0.0, 1.0]));
        assert_eq!(usual(-0.9, 0.8, false), Some([-1.0, 1.0]));
        assert_eq!(usual(0.0, 200.5, false), Some([0.0, 255.0]));
        assert_eq!(usual(0.0, 60000.0, true), Some([0.0, 65535.0]));
        for (least, greatest, is_integer) in [(0.0, 5.0, false), (-100.0, 100.0, true), (0.0, 4095.0, true)] {
            assert_eq!(usual(least, greatest, is_integer), None);
        }
        let error = Range::usual_or_ask(extremes(-1024.0, 3071.0), true, "ct.npy").unwrap_err().to_string();
        assert!(error.contains("ct.npy") && error.contains("`data.range = [-1024, 3071]`"), "{error}");
    }

    #[test]
    fn a_range_that_is_hardly_used_is_noticed() {
        assert!(extremes(0.0, 4095.0).hardly_use(Range::WORDS));
        assert!(extremes(60000.0, 65535.0).hardly_use(Range::WORDS));
        assert!(extremes(0.0, 9.0).hardly_use(Range::BYTES));
        assert!(!extremes(0.0, 64.0).hardly_use(Range::BYTES));
        // a single shade, or a few values, say nothing
        assert!(!extremes(7.0, 7.0).hardly_use(Range::BYTES));
        assert!(!Extremes { count: 9, ..extremes(0.0, 9.0) }.hardly_use(Range::BYTES));
    }

    #[test]
    fn extremes_are_of_finite_numbers() {
        let both = Extremes::of([3.0, f64::NAN, -1.0]).unwrap().and(Extremes::of([f64::INFINITY, 7.0]).unwrap());
        assert_eq!(both, Extremes { least: -1.0, greatest: 7.0, count: 3 });
        assert_eq!(Extremes::of([f64::NAN]), None);
    }
}
