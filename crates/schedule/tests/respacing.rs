//! The timesteps of shorter runs, compared with those that NumPy and OpenAI's `respace.py` printed.
#![allow(clippy::unwrap_used)]

use schedule::respace::{
    ddim_lucidrains, leading, linspace, openai_ddim, openai_sections, parse_openai, trailing, uniform,
};
use schedule::{BetaSchedule, MAX_TIMESTEPS, NoiseLevel, Schedule, ScheduleError, Spacing};

#[test]
fn lucidrains_ends_with_clean_data() {
    assert_eq!(ddim_lucidrains(1000, 4).unwrap(), [999, 749, 499, 249, -1]);
    assert_eq!(ddim_lucidrains(3, 3).unwrap(), [2, 1, 0, -1]);
    assert_eq!(ddim_lucidrains(1000, 1).unwrap(), [999, -1]);
    assert_eq!(ddim_lucidrains(1000, 7).unwrap(), [999, 856, 713, 570, 427, 284, 141, -1]);
}

#[test]
fn lucidrains_rounds_in_single_precision() {
    // time 13 of 26 is exactly 13 · 250 / 26 - 1 = 124, and rounds to just below
    let times = ddim_lucidrains(250, 26).unwrap();
    let exact: Vec<i64> = (0..=26).rev().map(|i| i * 250 / 26 - 1).collect();
    let different: Vec<(i64, i64)> = times.into_iter().zip(exact).filter(|(ours, exact)| ours != exact).collect();
    assert_eq!(different, [(123, 124)]);
}

#[test]
fn lucidrains_repeats_no_timestep_where_single_precision_would() {
    for (timesteps, steps) in [(8_000, 7_998), (50_000, 49_998), (MAX_TIMESTEPS, 985_856)] {
        let times = ddim_lucidrains(timesteps, steps).unwrap();
        assert!(times.windows(2).all(|pair| pair[0] > pair[1]), "{steps} of {timesteps}");
        assert_eq!((times[0], times[steps]), (timesteps as i64 - 1, -1));
    }
}

#[test]
fn spacings_equal_those_of_diffusers() {
    assert_eq!(leading(1000, 7, 0).unwrap(), [852, 710, 568, 426, 284, 142, 0]);
    assert_eq!(leading(1000, 4, 1).unwrap(), [751, 501, 251, 1]);
    assert_eq!(trailing(1000, 7).unwrap(), [999, 856, 713, 570, 428, 285, 142]);
    assert_eq!(linspace(1000, 7).unwrap(), [999, 832, 666, 500, 333, 166, 0]);
    assert_eq!(linspace(1000, 1).unwrap(), [0]);
    // a tie goes to the even neighbor: the fourth is 42.5, which rounds to 42, less 1
    assert_eq!(trailing(50, 20).unwrap()[..8], [49, 47, 44, 41, 39, 37, 34, 31]);
    assert_eq!(linspace(50, 20).unwrap()[..8], [49, 46, 44, 41, 39, 36, 34, 31]);
    // the third is 832.5
    assert_eq!(linspace(1000, 13).unwrap()[2], 832);
}

#[test]
fn respacings_equal_those_of_openai() {
    assert_eq!(openai_sections(10, &[3, 2, 2]).unwrap(), [9, 7, 6, 4, 3, 2, 0]);
    assert_eq!(openai_sections(10, &[0, 1]).unwrap(), [5]);
    assert_eq!(openai_sections(6, &[3]).unwrap(), [5, 2, 0], "2.5 goes to the even 2");
    let three = parse_openai(300, "10,15, 20").unwrap();
    assert_eq!(three.len(), 45);
    assert_eq!(
        three[20..],
        [
            199, 192, 185, 178, 171, 164, 157, 149, 142, 135, 128, 121, 114, 107, 100, 99, 88, 77, 66, 55, 44, 33, 22,
            11, 0
        ]
    );
    assert_eq!(openai_ddim(10, 4).unwrap(), [9, 6, 3, 0]);
    assert_eq!(parse_openai(1000, "ddim50").unwrap(), leading(1000, 50, 0).unwrap());
    assert_eq!(parse_openai(1000, "250").unwrap(), openai_sections(1000, &[250]).unwrap());
}

#[test]
fn a_sampler_walks_from_noise_to_clean_data() {
    let schedule = Schedule::new(&BetaSchedule::default(), 1000).unwrap();
    let levels = schedule.levels(Spacing::Lucidrains, 4).unwrap();
    let expected = [schedule.level(999), schedule.level(749), schedule.level(499), schedule.level(249)];
    assert_eq!(levels[..4], expected);
    assert_eq!(levels[4..], [NoiseLevel::CLEAN]);
    assert_eq!(schedule.levels(Spacing::Leading, 2).unwrap()[0], schedule.level(500));
}

#[test]
fn a_respaced_chain_keeps_alpha_bars_and_the_network_s_timesteps() {
    let schedule = Schedule::new(&BetaSchedule::default(), 1000).unwrap();
    let short = schedule.respaced(&[249, 999, 499, 749]).unwrap();
    assert_eq!(short.timesteps(), 4);
    assert_eq!(short.model_timesteps(), [249, 499, 749, 999]);
    assert_eq!(short.level(1), schedule.level(499));
    let beta = 1.0 - schedule.alpha_bar(499) / schedule.alpha_bar(249);
    assert!((short.beta(1) - beta).abs() < 1e-15);
    let product: f64 = short.betas().iter().map(|beta| 1.0 - beta).product();
    assert!((product / schedule.alpha_bar(999) - 1.0).abs() < 1e-9);

    let shorter = short.respaced(&[0, 3]).unwrap();
    assert_eq!(shorter, schedule.respaced(&[249, 999]).unwrap());

    let terminal = schedule.rescale_zero_terminal_snr().unwrap().respaced(&[0, 999]).unwrap();
    assert_eq!((terminal.alpha_bar(1), terminal.beta(1)), (0.0, 1.0));
}

fn assert_says<T: std::fmt::Debug>(result: Result<T, ScheduleError>, parts: &[&str]) {
    let text = result.unwrap_err().to_string();
    for part in parts {
        assert!(text.contains(part), "`{text}` does not say `{part}`");
    }
}

#[test]
fn impossible_steps_are_refused() {
    for spacing in [Spacing::Lucidrains, Spacing::Leading, Spacing::Trailing, Spacing::Linspace, Spacing::Uniform] {
        assert_says(spacing.timesteps(10, 0), &["0 sampling steps", "between 1 and 10"]);
        assert_says(spacing.timesteps(10, 11), &["11 sampling steps", "10 timesteps"]);
        assert_says(spacing.timesteps(0, 1), &["0 timesteps"]);
        assert_says(spacing.timesteps(usize::MAX, usize::MAX), &[&usize::MAX.to_string()]);
        assert!(spacing.timesteps(MAX_TIMESTEPS, 3).is_ok());
    }
    assert_says(leading(1000, 1000, 1), &["offset 1", "timestep 1000", "is 999"]);
    assert_says(leading(1000, 2, usize::MAX), &["offset"]);
    assert_says(openai_sections(10, &[3, 6]), &["section 1 has 5", "give 6"]);
    assert_says(openai_sections(2, &[1, 1, 1]), &["section 2 has 0"]);
    assert_says(openai_sections(10, &[]), &["keeps none"]);
    assert_says(openai_sections(10, &[0, 0]), &["keeps none"]);
    assert_says(openai_ddim(10, 6), &["exactly 6 of 10", "nearest counts are 5 and 10"]);
    assert_says(openai_ddim(10, 1), &["exactly 1 of 10"]);
    assert_says(openai_ddim(10, 11), &["11 sampling steps"]);
    for text in ["", "ddim", "ddim-3", "ddimx", "10,,20", "1.5", "10;20"] {
        assert_says(parse_openai(300, text), &[&format!("`{text}`"), "ddim50", "10,15,20"]);
    }
    let schedule = Schedule::new(&BetaSchedule::default(), 10).unwrap();
    assert_says(schedule.respaced(&[]), &["none", "10"]);
    assert_says(schedule.respaced(&[3, 10]), &["timestep 10", "from 0 to 9"]);
    assert_says(schedule.respaced(&[3, 4, 3]), &["timestep 3 is kept twice"]);
    assert_says(schedule.levels(Spacing::Trailing, 11), &["11 sampling steps"]);
    assert_says(schedule.levels(Spacing::Karras, 11), &["11 sampling steps"]);
    assert_says(Spacing::Karras.timesteps(10, 3), &["`karras` lies between"]);
    let no_signal = schedule.rescale_zero_terminal_snr().unwrap();
    assert_says(no_signal.levels(Spacing::Exponential, 3), &["`exponential`", "finite sigma", "trailing"]);
}

/// `np.linspace(0, 999, steps + 1).round()[::-1][:-1]`, as in diffusers' multistep solvers.
#[test]
fn uniform_is_linspace_without_the_first_timestep() {
    assert_eq!(uniform(1000, 10).unwrap(), [999, 899, 799, 699, 599, 500, 400, 300, 200, 100]);
    assert_eq!(uniform(1000, 1).unwrap(), [999]);
    assert_eq!(uniform(1, 1).unwrap(), [0]);
}
