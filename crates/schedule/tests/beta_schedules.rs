//! Closed forms, end points and errors of the beta schedules and of the user's own betas.
#![allow(clippy::unwrap_used)]

use std::f64::consts::FRAC_PI_2;

use schedule::{BetaSchedule, LossWeight, MAX_TIMESTEPS, NoiseLevel, Objective, Schedule, ScheduleError};

fn named(name: &str) -> BetaSchedule {
    name.parse().unwrap()
}

fn assert_close(our: f64, expected: f64, tolerance: f64) {
    assert!((our - expected).abs() <= tolerance * expected.abs(), "{our:e} is not {expected:e}");
}

/// First, middle (t = 500 of 1001, exactly half-way) and last beta.
fn ends_and_middle(beta_schedule: &BetaSchedule) -> [f64; 3] {
    let betas = beta_schedule.betas(1001).unwrap();
    [betas[0], betas[500], betas[1000]]
}

#[test]
fn linear_is_scaled_by_a_thousand_over_t() {
    let [first, middle, last] = ends_and_middle(&named("linear"));
    assert_close(first, 0.1 / 1001.0, 1e-14);
    assert_close(middle, 10.05 / 1001.0, 1e-14);
    assert_close(last, 20.0 / 1001.0, 1e-14);
    assert_eq!(named("linear").betas(1000).unwrap(), named("linear_unscaled").betas(1000).unwrap());
    assert_close(named("linear").betas(1).unwrap()[0], 0.1, 1e-14);
}

#[test]
fn linear_unscaled_keeps_its_ends_at_any_t() {
    assert_eq!(named("linear_unscaled").betas(2).unwrap(), [0.0001, 0.02]);
    assert_close(ends_and_middle(&named("linear_unscaled"))[1], 0.01005, 1e-14);
    let own = BetaSchedule::LinearUnscaled { beta_start: 0.1, beta_end: 0.3 };
    for (beta, expected) in own.betas(3).unwrap().into_iter().zip([0.1, 0.2, 0.3]) {
        assert_close(beta, expected, 1e-15);
    }
}

#[test]
fn square_roots_of_scaled_linear_and_quadratic_rise_linearly() {
    for (name, start, end) in [("scaled_linear", 0.00085_f64, 0.012_f64), ("quadratic", 0.0001, 0.02)] {
        let [first, middle, last] = ends_and_middle(&named(name));
        assert_close(first, start, 1e-14);
        assert_close(middle, ((start.sqrt() + end.sqrt()) / 2.0).powi(2), 1e-14);
        assert_close(last, end, 1e-14);
    }
}

#[test]
fn constant_alpha_bar_is_a_power() {
    let schedule = Schedule::new(&BetaSchedule::Constant { beta: 0.25 }, 5).unwrap();
    assert_eq!(schedule.betas(), [0.25; 5]);
    assert_close(schedule.alpha_bar(4), 0.75_f64.powi(5), 1e-15);
}

#[test]
fn cosine_alpha_bar_is_the_squared_cosine() {
    for s in [0.0, 0.008, 0.5] {
        let schedule = Schedule::new(&BetaSchedule::Cosine { s }, 100).unwrap();
        let square = |u: f64| ((u + s) / (1.0 + s) * FRAC_PI_2).cos().powi(2);
        for t in 0..99 {
            let expected = square((t + 1) as f64 / 100.0) / square(0.0);
            assert_close(schedule.alpha_bar(t), expected, 1e-12);
        }
        assert_eq!(schedule.beta(99), 0.999, "the last beta is clipped");
        assert_close(schedule.alpha_bar(99), 0.001 * schedule.alpha_bar(98), 1e-12);
    }
}

#[test]
fn sigmoid_alpha_bar_is_the_sigmoid() {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    for (start, end, tau) in [(-3.0, 3.0, 1.0), (-3.0, 3.0, 0.7), (0.0, 3.0, 0.5), (-2.5, 1.5, 1.3)] {
        let schedule = Schedule::new(&BetaSchedule::Sigmoid { start, end, tau }, 100).unwrap();
        let left = |u: f64| sigmoid(end / tau) - sigmoid((start + u * (end - start)) / tau);
        for t in 0..99 {
            let expected = left((t + 1) as f64 / 100.0) / left(0.0);
            // the sigmoid at `end` is rounded to single precision: half a unit of its last place over the rest
            let slack = 1e-12 + 6e-8 / left((t + 1) as f64 / 100.0);
            assert_close(schedule.alpha_bar(t), expected, slack);
        }
        assert_eq!(schedule.beta(99), 0.999, "the last beta is clipped");
    }
}

#[test]
fn the_chain_continues_with_clean_data_and_with_its_last_level() {
    let schedule = Schedule::new(&named("cosine"), 10).unwrap();
    assert_eq!(schedule.timesteps(), 10);
    assert_eq!([schedule.alpha_bar(-1), schedule.alpha_bar(i64::MIN)], [1.0, 1.0]);
    assert_eq!(schedule.alpha_bar(0), schedule.alpha_bars()[0]);
    assert_eq!([schedule.alpha_bar(10), schedule.alpha_bar(i64::MAX)], [schedule.alpha_bars()[9]; 2]);
    assert_eq!([schedule.beta(3), schedule.beta(usize::MAX)], [schedule.betas()[3], schedule.betas()[9]]);
    assert_eq!(schedule.level(3), NoiseLevel { timestep: 3.0, alpha_bar: schedule.alpha_bars()[3] });
    assert_eq!(schedule.level(usize::MAX), schedule.level(9));
}

#[test]
fn posterior_of_two_steps_by_hand() {
    // alpha_bar = 0.5, 0.2
    let schedule = Schedule::from_betas(&[0.5, 0.6]).unwrap();
    let expect = |ours: &[f64], expected: [f64; 2]| {
        for (&our, expected) in ours.iter().zip(expected) {
            assert!((our - expected).abs() < 1e-15, "{our} is not {expected}");
        }
    };
    expect(schedule.alpha_bars(), [0.5, 0.2]);
    expect(schedule.posterior_variance(), [0.0, 0.6 * 0.5 / 0.8]);
    expect(schedule.posterior_mean_coef1(), [1.0, 0.6 * 0.5_f64.sqrt() / 0.8]);
    expect(schedule.posterior_mean_coef2(), [0.0, 0.5 * 0.4_f64.sqrt() / 0.8]);
    expect(schedule.snr(), [1.0, 0.25]);
    expect(schedule.posterior_log_variance_clipped(), [1e-20_f64.ln(), 0.375_f64.ln()]);
    expect(schedule.posterior_log_variance_first_replaced(), [0.375_f64.ln(), 0.375_f64.ln()]);
}

#[test]
fn a_chain_of_one_step_is_possible() {
    let schedule = Schedule::from_betas(&[0.3]).unwrap();
    assert_eq!(schedule.alpha_bars(), [0.7]);
    assert_eq!(schedule.posterior_variance(), [0.0]);
    assert_eq!(schedule.posterior_log_variance_first_replaced(), [1e-20_f64.ln()]);
}

#[test]
fn a_level_has_its_scales_by_hand() {
    let level = NoiseLevel { timestep: 7.0, alpha_bar: 0.2 };
    assert_close(level.signal_scale(), 0.2_f64.sqrt(), 1e-15);
    assert_close(level.noise_scale(), 0.8_f64.sqrt(), 1e-15);
    assert_close(level.sigma(), 2.0, 1e-15);
    assert_close(level.snr(), 0.25, 1e-15);
    assert_close(level.log_snr(), 0.25_f64.ln(), 1e-15);
    let clean = NoiseLevel::CLEAN;
    assert_eq!((clean.timestep, clean.signal_scale(), clean.noise_scale(), clean.sigma()), (-1.0, 1.0, 0.0, 0.0));
    assert_eq!((clean.snr(), clean.log_snr()), (f64::INFINITY, f64::INFINITY));
}

#[test]
fn zero_terminal_snr_ends_in_pure_noise_and_stays_finite() {
    for name in BetaSchedule::NAMES {
        let plain = Schedule::new(&named(name), 1000).unwrap();
        let schedule = plain.rescale_zero_terminal_snr().unwrap();
        assert_close(schedule.alpha_bar(0), plain.alpha_bar(0), 1e-14);
        // algorithm 1 in closed form, in the middle
        let root = |t| plain.alpha_bar(t).sqrt();
        let middle = ((root(500) - root(999)) * root(0) / (root(0) - root(999))).powi(2);
        assert_close(schedule.alpha_bar(500), middle, 1e-12);

        assert_eq!((schedule.alpha_bar(999), schedule.beta(999), schedule.snr()[999]), (0.0, 1.0, 0.0));
        let last = schedule.level(999);
        assert_eq!((last.signal_scale(), last.noise_scale()), (0.0, 1.0));
        assert_eq!((last.sigma(), last.log_snr()), (f64::INFINITY, f64::NEG_INFINITY));
        // x_T is independent of x_0, so that the posterior is q(x_{T-1} | x_0)
        assert_eq!(schedule.posterior_mean_coef1()[999], schedule.alpha_bar(998).sqrt());
        assert_eq!(schedule.posterior_mean_coef2()[999], 0.0);
        assert_eq!(schedule.posterior_variance()[999], 1.0 - schedule.alpha_bar(998));
        for values in [
            schedule.betas(),
            schedule.posterior_variance(),
            schedule.posterior_log_variance_clipped(),
            schedule.posterior_log_variance_first_replaced(),
            schedule.posterior_mean_coef1(),
            schedule.posterior_mean_coef2(),
            schedule.snr(),
        ] {
            assert!(values.iter().all(|value| value.is_finite()), "{name}");
        }
        let last_weight = |weight: LossWeight, objective| weight.weights(&schedule, objective)[999];
        for weight in [LossWeight::Snr, LossWeight::MinSnr { gamma: 5.0 }] {
            assert_eq!(last_weight(weight, Objective::Epsilon), 1.0);
            assert_eq!(last_weight(weight, Objective::X0), 0.0);
            assert_eq!(last_weight(weight, Objective::V), 0.0);
        }
        assert_eq!(last_weight(LossWeight::Uniform, Objective::V), 1.0);

        let again = schedule.rescale_zero_terminal_snr().unwrap();
        assert_close(again.alpha_bar(500), middle, 1e-12);
    }
    let one = Schedule::from_betas(&[0.3]).unwrap().rescale_zero_terminal_snr();
    assert_eq!(one, Err(ScheduleError::RescaleTooShort { timesteps: 1 }));
}

#[test]
fn weights_by_hand() {
    // SNR = 9, 1/9
    let schedule = Schedule::from_betas(&[0.1, 8.0 / 9.0]).unwrap();
    let expect = |weight: LossWeight, objective, expected: [f64; 2]| {
        for (our, expected) in weight.weights(&schedule, objective).into_iter().zip(expected) {
            assert_close(our, expected, 1e-14);
        }
    };
    let min_snr = LossWeight::min_snr(3.0).unwrap();
    expect(LossWeight::Uniform, Objective::X0, [1.0, 1.0]);
    expect(LossWeight::Snr, Objective::Epsilon, [1.0, 1.0]);
    expect(LossWeight::Snr, Objective::X0, [9.0, 1.0 / 9.0]);
    expect(LossWeight::Snr, Objective::V, [0.9, 0.1]);
    expect(min_snr, Objective::Epsilon, [1.0 / 3.0, 1.0]);
    expect(min_snr, Objective::X0, [3.0, 1.0 / 9.0]);
    expect(min_snr, Objective::V, [0.3, 0.1]);
    expect(LossWeight::MinSnr { gamma: f64::NAN }, Objective::Epsilon, [0.0, 0.0]);
}

/// The message of the error contains all of these.
fn assert_says<T: std::fmt::Debug>(result: Result<T, ScheduleError>, parts: &[&str]) {
    let text = result.unwrap_err().to_string();
    for part in parts {
        assert!(text.contains(part), "`{text}` does not say `{part}`");
    }
}

#[test]
fn too_few_and_too_many_timesteps_are_refused() {
    for name in BetaSchedule::NAMES {
        for timesteps in [0, MAX_TIMESTEPS + 1, usize::MAX] {
            assert_says(Schedule::new(&named(name), timesteps), &[&format!("schedule of {timesteps} timesteps")]);
        }
    }
    assert_says(
        Schedule::new(&named("linear"), 20),
        &["linear", "20 timesteps", "beta = 1 at t = 19", "more timesteps"],
    );
    assert_says(Schedule::new(&named("linear"), 10), &["beta = 1.11555", "at t = 5"]);
    assert!(Schedule::new(&named("linear"), 21).is_ok());
}

#[test]
fn parameters_out_of_range_are_refused() {
    let refuse = |betas: BetaSchedule, parts: &[&str]| assert_says(Schedule::new(&betas, 100), parts);
    for (beta_start, beta_end, parts) in [
        (0.0, 0.02, ["beta_start = 0", "(0, 1)"]),
        (f64::NAN, 0.02, ["beta_start = NaN", "(0, 1)"]),
        (0.1, 1.0, ["beta_end = 1", "(0, 1)"]),
        (0.1, 0.01, ["beta_end = 0.01", "below beta_start"]),
    ] {
        refuse(BetaSchedule::Linear { beta_start, beta_end }, &parts);
        refuse(BetaSchedule::LinearUnscaled { beta_start, beta_end }, &parts);
        refuse(BetaSchedule::ScaledLinear { beta_start, beta_end }, &parts);
        refuse(BetaSchedule::Quadratic { beta_start, beta_end }, &parts);
    }
    refuse(BetaSchedule::Constant { beta: -0.5 }, &["constant", "beta = -0.5"]);
    refuse(BetaSchedule::Constant { beta: f64::INFINITY }, &["beta = inf"]);
    refuse(BetaSchedule::Cosine { s: -0.1 }, &["cosine", "s = -0.1", "at least 0"]);
    refuse(BetaSchedule::Cosine { s: f64::INFINITY }, &["s = inf"]);
    refuse(BetaSchedule::Sigmoid { start: -3.0, end: 3.0, tau: 0.0 }, &["sigmoid", "tau = 0", "above 0"]);
    refuse(BetaSchedule::Sigmoid { start: 3.0, end: 3.0, tau: 1.0 }, &["end = 3", "above start"]);
    refuse(BetaSchedule::Sigmoid { start: f64::NEG_INFINITY, end: 3.0, tau: 1.0 }, &["start = -inf"]);
    // both ends are 1 in single precision, so that alpha_bar does not fall
    refuse(
        BetaSchedule::Sigmoid { start: 40.0, end: 50.0, tau: 1.0 },
        &["sigmoid", "beta = NaN at t = 0", "closer to 0"],
    );
}

#[test]
fn betas_that_double_precision_cannot_carry_are_refused() {
    assert_says(
        Schedule::new(&BetaSchedule::Constant { beta: 0.999 }, 1000),
        &["from", "to 0 at t = 107", "fewer timesteps"],
    );
    assert_says(Schedule::new(&BetaSchedule::Constant { beta: 1e-17 }, 10), &["from 1 to 1 at t = 0"]);
    assert_says(Schedule::from_betas(&[1.0 - 1e-15; 30]), &["to 0 at t = 21"]);
}

#[test]
fn impossible_user_betas_are_refused() {
    assert_says(Schedule::from_betas(&[]), &["0 timesteps"]);
    assert_says(Schedule::from_betas(&[0.1, f64::NAN]), &["beta = NaN at t = 1", "(0, 1)"]);
    assert_says(Schedule::from_betas(&[0.0, 0.1]), &["beta = 0 at t = 0"]);
    assert_says(Schedule::from_betas(&[0.1, 1.0]), &["beta = 1 at t = 1"]);
    assert_says(Schedule::from_betas(&[-0.1]), &["beta = -0.1 at t = 0"]);
    assert_says(Schedule::from_betas(&[0.1, 0.3, 0.2]), &["fall from 0.3 at t = 1 to 0.2 at t = 2"]);
    let custom = BetaSchedule::Custom { betas: vec![0.1, 0.2, 0.2] };
    assert_eq!(Schedule::new(&custom, 3), Schedule::from_betas(&[0.1, 0.2, 0.2]));
    assert_says(Schedule::new(&custom, 1000), &["3 betas", "1000 timesteps", "timesteps = 3"]);
    assert_says(Schedule::new(&BetaSchedule::Custom { betas: vec![0.1, f64::NAN] }, 2), &["beta = NaN at t = 1"]);
}
