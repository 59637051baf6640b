//! Properties of any beta schedule, any T and any number of steps.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use schedule::respace::{ddim_lucidrains, leading, openai_ddim, openai_sections};
use schedule::{BetaSchedule, LossWeight, NoiseLevel, Objective, Schedule, Spacing};

/// Beta schedules whose default or nearby parameters are possible from T = 30 to T = 2000.
fn beta_schedules() -> impl Strategy<Value = BetaSchedule> {
    let ends = (1e-5..1e-3_f64, 1.0..20.0_f64).prop_map(|(start, ratio)| (start, start * ratio));
    prop_oneof![
        ends.clone().prop_map(|(beta_start, beta_end)| BetaSchedule::Linear { beta_start, beta_end }),
        ends.clone().prop_map(|(beta_start, beta_end)| BetaSchedule::LinearUnscaled { beta_start, beta_end }),
        ends.clone().prop_map(|(beta_start, beta_end)| BetaSchedule::ScaledLinear { beta_start, beta_end }),
        ends.prop_map(|(beta_start, beta_end)| BetaSchedule::Quadratic { beta_start, beta_end }),
        (1e-5..0.1_f64).prop_map(|beta| BetaSchedule::Constant { beta }),
        (0.0..0.1_f64).prop_map(|s| BetaSchedule::Cosine { s }),
        (-4.0..0.0_f64, 1.0..4.0_f64, 0.7..1.5_f64).prop_map(|(start, end, tau)| BetaSchedule::Sigmoid {
            start,
            end,
            tau
        }),
    ]
}

fn schedules() -> impl Strategy<Value = Schedule> {
    let plain =
        (beta_schedules(), 30..2000_usize).prop_map(|(betas, timesteps)| Schedule::new(&betas, timesteps).unwrap());
    (plain, any::<bool>())
        .prop_map(|(plain, rescale)| if rescale { plain.rescale_zero_terminal_snr().unwrap() } else { plain })
}

fn spacings() -> impl Strategy<Value = Spacing> {
    prop::sample::select(vec![
        Spacing::Lucidrains,
        Spacing::Leading,
        Spacing::Trailing,
        Spacing::Linspace,
        Spacing::Uniform,
    ])
}

/// T and a number of steps that fits it.
fn timesteps_and_steps() -> impl Strategy<Value = (usize, usize)> {
    (1..3000_usize).prop_flat_map(|timesteps| (Just(timesteps), 1..=timesteps))
}

fn strictly_descending_below(timesteps: usize, chosen: &[usize]) -> bool {
    chosen.windows(2).all(|pair| pair[0] > pair[1]) && chosen.iter().all(|&t| t < timesteps)
}

/// Any f64, including NaN and infinities, and often one in (0, 1).
fn numbers() -> impl Strategy<Value = f64> {
    prop_oneof![prop::num::f64::ANY, 0.0..1.0_f64]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn alpha_bar_falls_strictly_within_zero_and_one(schedule in schedules()) {
        let timesteps = schedule.timesteps() as i64;
        for t in 0..timesteps {
            prop_assert!(schedule.alpha_bar(t) < schedule.alpha_bar(t - 1));
            prop_assert!(schedule.alpha_bar(t) > 0.0 || t == timesteps - 1);
            let product = schedule.alpha_bar(t - 1) * (1.0 - schedule.beta(t as usize));
            prop_assert!((product - schedule.alpha_bar(t)).abs() <= 1e-15);
        }
        prop_assert!(schedule.snr().windows(2).all(|pair| pair[0] > pair[1]));
    }

    /// On the noise-free path x_t = sqrt(alpha_bar_t) x_0 the posterior mean stays on it; and the posterior, averaged
    /// over x_t given x_0, has the variance of q(x_{t-1} | x_0).
    #[test]
    fn the_posterior_undoes_one_step(schedule in schedules()) {
        for t in 0..schedule.timesteps() {
            let (before, after) = (schedule.alpha_bar(t as i64 - 1), schedule.alpha_bar(t as i64));
            let (coef1, coef2) = (schedule.posterior_mean_coef1()[t], schedule.posterior_mean_coef2()[t]);
            // 1 - alpha_bar of the first steps has few digits
            let slack = 1e-15 / (1.0 - after) + 1e-12;
            prop_assert!((coef1 + coef2 * after.sqrt() - before.sqrt()).abs() <= slack);
            let variance = schedule.posterior_variance()[t] + coef2.powi(2) * (1.0 - after);
            prop_assert!((variance - (1.0 - before)).abs() <= slack);
            prop_assert!(schedule.posterior_variance()[t] <= schedule.beta(t));
            prop_assert!(schedule.posterior_variance()[t] > 0.0 || t == 0);
        }
    }

    #[test]
    fn log_variances_are_finite_and_differ_at_the_first_step_only(schedule in schedules()) {
        let (clipped, replaced) =
            (schedule.posterior_log_variance_clipped(), schedule.posterior_log_variance_first_replaced());
        prop_assert_eq!(&clipped[1..], &replaced[1..]);
        prop_assert_eq!(clipped[0], 1e-20_f64.ln());
        prop_assert_eq!(replaced[0], schedule.posterior_variance()[1].ln());
        prop_assert!(clipped.iter().all(|value| value.is_finite()));
    }

    #[test]
    fn weights_are_finite_and_clipped(schedule in schedules(), gamma in 0.1..20.0_f64) {
        for objective in [Objective::Epsilon, Objective::X0, Objective::V] {
            let plain = LossWeight::Snr.weights(&schedule, objective);
            let clipped = LossWeight::MinSnr { gamma }.weights(&schedule, objective);
            prop_assert_eq!(plain.len(), schedule.timesteps());
            for ((&plain, &clipped), &snr) in plain.iter().zip(&clipped).zip(schedule.snr()) {
                prop_assert!(plain.is_finite() && clipped.is_finite() && clipped >= 0.0);
                let expected = if snr <= gamma { clipped == plain } else { clipped < plain };
                prop_assert!(expected, "SNR {}: {} became {}", snr, plain, clipped);
            }
        }
    }

    #[test]
    fn levels_agree_with_the_schedule(schedule in schedules(), t in 0..30_usize) {
        let level = schedule.level(t);
        prop_assert_eq!(level.timestep, t as f64);
        prop_assert_eq!(level.alpha_bar, schedule.alpha_bars()[t]);
        prop_assert!((level.signal_scale().powi(2) + level.noise_scale().powi(2) - 1.0).abs() < 1e-15);
        prop_assert!((1.0 / (1.0 + level.sigma().powi(2)) - level.alpha_bar).abs() < 1e-12);
        prop_assert_eq!(level.snr(), schedule.snr()[t]);
        prop_assert!((level.log_snr() - level.snr().ln()).abs() < 1e-9);
    }

    #[test]
    fn spacings_descend_strictly_and_have_their_ends(
        (timesteps, steps) in timesteps_and_steps(),
        spacing in spacings(),
    ) {
        let chosen = spacing.timesteps(timesteps, steps).unwrap();
        prop_assert_eq!(chosen.len(), steps);
        prop_assert!(strictly_descending_below(timesteps, &chosen));
        match spacing {
            Spacing::Lucidrains | Spacing::Trailing | Spacing::Uniform => prop_assert_eq!(chosen[0], timesteps - 1),
            Spacing::Leading => prop_assert_eq!(chosen[steps - 1], 0),
            Spacing::Linspace => {
                prop_assert_eq!(chosen[steps - 1], 0);
                prop_assert!(steps == 1 || chosen[0] == timesteps - 1);
            }
            Spacing::Karras | Spacing::Exponential | Spacing::Flow => unreachable!("not among `spacings`"),
        }
    }

    #[test]
    fn spacings_between_timesteps_are_even_in_sigma(
        beta_schedule in beta_schedules(),
        timesteps in 30..2000_usize,
        steps in 2..30_usize,
    ) {
        let schedule = Schedule::new(&beta_schedule, timesteps).unwrap();
        let (first, last) = (schedule.level(timesteps - 1), schedule.level(0));
        for (spacing, power) in [(Spacing::Karras, 1.0 / 7.0), (Spacing::Exponential, 0.0)] {
            let levels = schedule.levels(spacing, steps).unwrap();
            prop_assert_eq!(levels.len(), steps + 1);
            prop_assert_eq!((levels[0], levels[steps - 1], levels[steps]), (first, last, NoiseLevel::CLEAN));
            prop_assert!(levels.windows(2).all(|pair| pair[1].alpha_bar > pair[0].alpha_bar));
            prop_assert!(levels.windows(2).all(|pair| pair[1].timestep < pair[0].timestep));
            let even = |level: NoiseLevel| match power {
                0.0 => level.sigma().ln(),
                power => level.sigma().powf(power),
            };
            let step = (even(last) - even(first)) / (steps - 1) as f64;
            for pair in levels[..steps].windows(2) {
                prop_assert!((even(pair[1]) - even(pair[0]) - step).abs() < 1e-6 * (1.0 + step.abs()));
            }
        }
    }

    #[test]
    fn levels_between_timesteps_meet_those_at_them(schedule in schedules(), share in 0.0..1.0_f64) {
        let last = schedule.timesteps() - 1;
        let t = (share * last as f64) as usize;
        prop_assert_eq!(schedule.level_at(t as f64), schedule.level(t));
        prop_assert_eq!(schedule.level_at(-1.0), NoiseLevel::CLEAN);
        prop_assert_eq!(schedule.level_at(last as f64 + 7.5), schedule.level(last));
        let level = schedule.level(t);
        let found = schedule.level_at_sigma(level.sigma());
        prop_assert!((found.timestep - level.timestep).abs() < 1e-4, "{:?} for {:?}", found, level);
        if t < last {
            let (middle, next) = (schedule.level_at(t as f64 + 0.5), schedule.level(t + 1));
            prop_assert_eq!(middle.timestep, t as f64 + 0.5);
            prop_assert!(middle.alpha_bar < level.alpha_bar && middle.alpha_bar >= next.alpha_bar);
        }
    }

    #[test]
    fn all_steps_are_all_timesteps(timesteps in 1..3000_usize, spacing in spacings()) {
        let all: Vec<usize> = (0..timesteps).rev().collect();
        prop_assert_eq!(&spacing.timesteps(timesteps, timesteps).unwrap(), &all);
        prop_assert_eq!(&openai_sections(timesteps, &[timesteps]).unwrap(), &all);
    }

    #[test]
    fn lucidrains_spacing_is_exact_within_one((timesteps, steps) in timesteps_and_steps()) {
        let times = ddim_lucidrains(timesteps, steps).unwrap();
        prop_assert_eq!(times.len(), steps + 1);
        for (i, &time) in times.iter().rev().enumerate() {
            let exact = i as f64 * timesteps as f64 / steps as f64 - 1.0;
            prop_assert!(time as f64 <= exact + 1e-2 && time as f64 > exact - 1.01);
        }
    }

    #[test]
    fn an_offset_shifts_a_leading_spacing((timesteps, steps) in timesteps_and_steps(), offset in 0..5_usize) {
        let plain = leading(timesteps, steps, 0).unwrap();
        match leading(timesteps, steps, offset) {
            Ok(shifted) => prop_assert!(shifted.iter().zip(&plain).all(|(shifted, plain)| *shifted == plain + offset)),
            Err(_) => prop_assert!(plain[0] + offset >= timesteps),
        }
    }

    #[test]
    fn openai_sections_give_each_section_its_count(
        timesteps in 1..2000_usize,
        counts in prop::collection::vec(0..50_usize, 1..6),
    ) {
        match openai_sections(timesteps, &counts) {
            Ok(chosen) => {
                prop_assert!(strictly_descending_below(timesteps, &chosen));
                prop_assert_eq!(chosen.len(), counts.iter().sum::<usize>());
            }
            Err(_) => prop_assert!(counts.iter().all(|&count| count == 0)
                || counts.iter().any(|&count| count > timesteps / counts.len())),
        }
    }

    #[test]
    fn openai_ddim_has_one_stride((timesteps, steps) in timesteps_and_steps()) {
        let strides = || (1..timesteps).filter(|stride| timesteps.div_ceil(*stride) == steps);
        match openai_ddim(timesteps, steps) {
            Ok(chosen) => {
                prop_assert!(strictly_descending_below(timesteps, &chosen));
                prop_assert_eq!((chosen.len(), chosen[steps - 1]), (steps, 0));
                prop_assert_eq!(Some(chosen[steps - 2]), strides().next());
            }
            Err(_) => prop_assert_eq!(strides().next(), None),
        }
    }

    #[test]
    fn respacing_to_every_timestep_changes_nothing(schedule in schedules()) {
        let all: Vec<usize> = (0..schedule.timesteps()).rev().collect();
        let same = schedule.respaced(&all).unwrap();
        prop_assert_eq!(same.alpha_bars(), schedule.alpha_bars());
        prop_assert_eq!(same.model_timesteps(), schedule.model_timesteps());
        for (ours, theirs) in same.betas().iter().zip(schedule.betas()) {
            prop_assert!((ours - theirs).abs() <= 1e-15);
        }
        prop_assert_eq!(&same.respaced(&all).unwrap(), &same);
    }

    #[test]
    fn a_respaced_chain_has_the_levels_of_the_long_one(
        schedule in schedules(),
        spacing in spacings(),
        share in 0.0..1.0_f64,
    ) {
        let timesteps = schedule.timesteps();
        let steps = 1 + (share * (timesteps - 1) as f64) as usize;
        let kept = spacing.timesteps(timesteps, steps).unwrap();
        let short = schedule.respaced(&kept).unwrap();
        prop_assert_eq!(short.levels(Spacing::Lucidrains, steps).unwrap(), schedule.levels(spacing, steps).unwrap());
        let mut product = 1.0;
        for (beta, alpha_bar) in short.betas().iter().zip(short.alpha_bars()) {
            product *= 1.0 - beta;
            prop_assert!((product - alpha_bar).abs() <= 1e-12);
        }
    }

    /// Any input gives a value or an error.
    #[test]
    fn nothing_panics(
        betas in prop::collection::vec(numbers(), 0..5),
        numbers in prop::array::uniform3(numbers()),
        timesteps in 0..40_usize,
    ) {
        let [first, second, third] = numbers;
        let beta_schedules = [
            BetaSchedule::Linear { beta_start: first, beta_end: second },
            BetaSchedule::Quadratic { beta_start: first, beta_end: second },
            BetaSchedule::Constant { beta: first },
            BetaSchedule::Cosine { s: first },
            BetaSchedule::Sigmoid { start: first, end: second, tau: third },
            BetaSchedule::Custom { betas: betas.clone() },
        ];
        for beta_schedule in beta_schedules {
            if let Ok(schedule) = Schedule::new(&beta_schedule, timesteps) {
                prop_assert!(schedule.betas().iter().all(|&beta| beta > 0.0 && beta < 1.0));
            }
        }
        let valid = !betas.is_empty() && betas.iter().all(|&beta| beta > 0.0 && beta < 1.0);
        prop_assert!(valid || Schedule::from_betas(&betas).is_err());
    }
}
