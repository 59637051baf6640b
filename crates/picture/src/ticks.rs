//! Where the marks of an axis stand, and what they say.

/// An axis: its range in the values' own unit, and whether it is logarithmic.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    /// Lower end; on a logarithmic axis above 0.
    pub low: f64,
    /// Upper end, above `low`.
    pub high: f64,
    /// Whether equal ratios, rather than equal differences, have equal lengths.
    pub logarithmic: bool,
}

/// A mark of an axis.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tick {
    /// Where, in the values' unit.
    pub value: f64,
    /// What it says; empty for a minor mark.
    pub label: String,
}

impl Axis {
    /// The axis that shows values from `low` to `high` (both finite), with some air around them if `padded`.
    pub(crate) fn around(low: f64, high: f64, logarithmic: bool, padded: bool) -> Self {
        if logarithmic {
            let (low, high) = widened(low.log10(), high.log10());
            let air = if padded { (high - low) * 0.04 } else { 0.0 };
            return Self { low: 10f64.powf(low - air), high: 10f64.powf(high + air), logarithmic };
        }
        // An axis of amounts starts at zero where that costs little.
        let low_end = if padded && low >= 0.0 && low <= 0.3 * high { 0.0 } else { low };
        let (low_end, high) = widened(low_end, high);
        let air = if padded { (high - low_end) * 0.04 } else { 0.0 };
        Self { low: if low_end == 0.0 { 0.0 } else { low_end - air }, high: high + air, logarithmic }
    }

    /// Where `value` stands on the axis: 0 at the lower end, 1 at the upper.
    pub(crate) fn place(&self, value: f64) -> f64 {
        if self.logarithmic {
            (value.log10() - self.low.log10()) / (self.high.log10() - self.low.log10())
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// About `wanted` labeled marks, in ascending order; on a logarithmic axis also minor ones.
    pub(crate) fn ticks(&self, wanted: usize) -> Vec<Tick> {
        if !self.logarithmic {
            return self.linear(wanted);
        }
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let decades = self.high.log10() - self.low.log10();
        let stride = ((decades / wanted.max(1) as f64).ceil() as i32).max(1);
        let labeled: &[i32] = match decades {
            _ if decades > 2.5 => &[1],
            _ if decades > 1.2 => &[1, 3],
            _ => &[1, 2, 5],
        };
        let mut ticks = vec![];
        for exponent in first..=last {
            for digit in 1..10 {
                let value = f64::from(digit) * 10f64.powi(exponent);
                if value < self.low * (1.0 - 1e-9) || value > self.high * (1.0 + 1e-9) || (stride > 1 && digit > 1) {
                    continue;
                }
                let named = labeled.contains(&digit) && exponent.rem_euclid(stride) == 0;
                let label = if named { power_label(digit, exponent) } else { String::new() };
                ticks.push(Tick { value, label });
            }
        }
        // Less than about half a decade: the marks of a linear axis say more.
        if ticks.iter().filter(|tick| !tick.label.is_empty()).count() < 3 { self.linear(wanted) } else { ticks }
    }

    fn linear(&self, wanted: usize) -> Vec<Tick> {
        let rough = (self.high - self.low) / wanted.max(1) as f64;
        let power = 10f64.powf(rough.log10().floor());
        let (digit, power) = match rough / power {
            ratio if ratio < 1.5 => (1.0, power),
            ratio if ratio < 3.5 => (2.0, power),
            ratio if ratio < 7.5 => (5.0, power),
            _ => (1.0, power * 10.0),
        };
        let step = digit * power;
        let largest = self.low.abs().max(self.high.abs());
        let first = (self.low / step - 1e-9).ceil();
        (0..=2 * wanted.max(1))
            .map(|index| (first + index as f64) * step)
            .take_while(|value| *value <= self.high + 1e-9 * step)
            .map(|value| Tick { value, label: linear_label(value, step, largest) })
            .collect()
    }
}

/// The range, or a wider one around it where its ends (nearly) coincide.
fn widened(low: f64, high: f64) -> (f64, f64) {
    let size = low.abs().max(high.abs());
    if high - low > 1e-9 * size && high - low > 1e-250 {
        return (low, high);
    }
    let air = if size < 1e-250 { 1.0 } else { size * 0.1 };
    (low - air, high + air)
}

/// `value` with as many digits as `step` asks for.
fn linear_label(value: f64, step: f64, largest: f64) -> String {
    let step_exponent = exponent(step);
    let text = if value.abs() < step / 2.0 {
        "0".to_owned()
    } else if largest >= 1e6 || step < 0.999e-4 {
        let digits = exponent(value);
        let decimals = (digits - step_exponent).clamp(0, 12) as usize;
        let mantissa = value / 10f64.powi(digits);
        format!("{mantissa:.decimals$}×10{}", superscript(digits))
    } else {
        let decimals = (-step_exponent).max(0) as usize;
        format!("{value:.decimals$}")
    };
    text.replace('-', "−")
}

/// The power of ten of the first digit; a step of 0.0999… counts as 0.1.
fn exponent(value: f64) -> i32 {
    (value.abs().log10() + 1e-9).floor() as i32
}

/// `digit * 10^power`, written out where that is short.
fn power_label(digit: i32, power: i32) -> String {
    match power {
        0..=3 => format!("{}", digit * 10i32.pow(power.unsigned_abs())),
        -3..=-1 => format!("{:.*}", power.unsigned_abs() as usize, f64::from(digit) * 10f64.powi(power)),
        _ if digit == 1 => format!("10{}", superscript(power)),
        _ => format!("{digit}×10{}", superscript(power)),
    }
}

fn superscript(number: i32) -> String {
    number
        .to_string()
        .chars()
        .map(|letter| match letter {
            '-' => '⁻',
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            digit => digit.to_digit(10).and_then(|digit| char::from_u32(0x2070 + digit)).unwrap_or(digit),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(low: f64, high: f64, logarithmic: bool) -> Vec<String> {
        let ticks = Axis { low, high, logarithmic }.ticks(6);
        ticks.into_iter().map(|tick| tick.label).filter(|label| !label.is_empty()).collect()
    }

    #[test]
    fn linear_marks_are_round_numbers() {
        assert_eq!(
            labels(0.0, 1.0, false),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"].map(|label| if label == "0.0" { "0" } else { label })
        );
        assert_eq!(labels(0.0, 1000.0, false), ["0", "200", "400", "600", "800", "1000"]);
        assert_eq!(labels(-3.0, 3.0, false), ["−3", "−2", "−1", "0", "1", "2", "3"]);
        assert_eq!(labels(0.0, 0.3, false), ["0", "0.05", "0.10", "0.15", "0.20", "0.25", "0.30"]);
        assert_eq!(labels(0.0, 3e6, false)[1..3], ["5×10⁵", "1.0×10⁶"]);
        assert_eq!(labels(0.0, 1e-4, false)[1..3], ["2×10⁻⁵", "4×10⁻⁵"]);
    }

    #[test]
    fn logarithmic_marks_are_powers_and_their_parts() {
        assert_eq!(labels(1e-5, 1.0, true), ["10⁻⁵", "10⁻⁴", "0.001", "0.01", "0.1", "1"]);
        assert_eq!(labels(0.02, 0.3, true), ["0.02", "0.05", "0.1", "0.2"]);
        assert_eq!(labels(0.5, 20.0, true), ["1", "3", "10"]);
        // less than half a decade
        assert_eq!(labels(0.05, 0.08, true), ["0.050", "0.055", "0.060", "0.065", "0.070", "0.075", "0.080"]);
        assert_eq!(labels(1e-30, 1.0, true), ["10⁻³⁰", "10⁻²⁵", "10⁻²⁰", "10⁻¹⁵", "10⁻¹⁰", "10⁻⁵", "1"]);
    }

    #[test]
    fn ranges_start_at_zero_or_have_air() {
        assert_eq!(Axis::around(0.1, 10.0, false, true), Axis { low: 0.0, high: 10.4, logarithmic: false });
        let far = Axis::around(90.0, 100.0, false, true);
        assert!((far.low - 89.6).abs() < 1e-9 && (far.high - 100.4).abs() < 1e-9);
        assert_eq!(Axis::around(3.0, 7.0, false, false), Axis { low: 3.0, high: 7.0, logarithmic: false });
        let one = Axis::around(5.0, 5.0, false, false);
        assert!(one.low < 5.0 && one.high > 5.0);
        let zero = Axis::around(0.0, 0.0, false, true);
        assert!(zero.low < 0.0 && zero.high > 0.0);
    }

    proptest! {
        /// Any range has a sensible number of marks, all of them on the axis and in order.
        #[test]
        fn marks_stand_on_the_axis(
            start in prop_oneof![-1e300..1e300f64, -10.0..10.0f64, Just(0.0)],
            length in prop_oneof![0.0..1e300f64, 0.0..1e-12f64, Just(0.0)],
            padded: bool,
        ) {
            let axis = Axis::around(start, start + length, false, padded);
            prop_assert!(axis.low <= start && axis.high >= start + length && axis.low < axis.high, "{axis:?}");
            let ticks = axis.ticks(6);
            prop_assert!((2..=13).contains(&ticks.len()), "{axis:?}: {ticks:?}");
            for pair in ticks.windows(2) {
                prop_assert!(pair[0].value < pair[1].value);
                prop_assert!(pair[0].label != pair[1].label, "{axis:?}: {ticks:?}");
            }
            for tick in &ticks {
                prop_assert!((-1e-6..=1.0 + 1e-6).contains(&axis.place(tick.value)), "{axis:?}: {tick:?}");
            }
        }

        #[test]
        fn logarithmic_marks_stand_on_the_axis(low in -290.0..290.0f64, decades in prop_oneof![0.0..0.5f64, 0.0..8.0f64]) {
            let axis = Axis::around(10f64.powf(low), 10f64.powf(low + decades), true, true);
            let ticks = axis.ticks(6);
            prop_assert!(ticks.iter().filter(|tick| !tick.label.is_empty()).count() >= 2, "{axis:?}: {ticks:?}");
            prop_assert!(ticks.len() < 80);
            for tick in &ticks {
                prop_assert!((-1e-6..=1.0 + 1e-6).contains(&axis.place(tick.value)), "{axis:?}: {tick:?}");
            }
        }
    }
}
