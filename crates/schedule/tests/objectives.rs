//! The factors of objectives, and the distributions of noise levels.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use schedule::{BetaSchedule, LevelDistribution, LossWeight, NoiseLevel, Objective, Schedule, Spacing};

const OBJECTIVES: [Objective; 6] = [
    Objective::Epsilon,
    Objective::X0,
    Objective::V,
    Objective::Flow,
    Objective::Edm { sigma_data: 0.5 },
    Objective::Edm { sigma_data: 1.3 },
];

fn level(sigma: f64) -> NoiseLevel {
    NoiseLevel { timestep: 3.0, alpha_bar: 1.0 / (1.0 + sigma * sigma) }
}

proptest! {
    /// From x_t and the target follow the x_0 and epsilon of which x_t was made.
    #[test]
    fn the_target_gives_back_x_0_and_epsilon(x_0 in -1.0..1.0_f64, epsilon in -3.0..3.0_f64, log_sigma in -4.0..4.0_f64) {
        let level = level(log_sigma.exp());
        let x_t = level.signal_scale() * x_0 + level.noise_scale() * epsilon;
        for objective in OBJECTIVES {
            let fed = objective.preconditioning(level);
            let output = fed.target[0] * x_0 + fed.target[1] * epsilon;
            let of = |factors: [f64; 2]| factors[0] * x_t + factors[1] * output;
            prop_assert!((of(fed.x_0) - x_0).abs() < 1e-10, "{objective}: {} is not {x_0}", of(fed.x_0));
            prop_assert!((of(fed.epsilon) - epsilon).abs() < 1e-10, "{objective}: {} is not {epsilon}", of(fed.epsilon));
        }
    }

    /// EDM's principle: data of deviation sigma_data gives input and target of variance 1, at every sigma.
    #[test]
    fn edm_has_input_and_target_of_unit_variance(sigma_data in 0.1..3.0_f64, log_sigma in -4.0..4.0_f64) {
        let level = level(log_sigma.exp());
        let fed = Objective::Edm { sigma_data }.preconditioning(level);
        let input = fed.input.powi(2) * (level.alpha_bar * sigma_data.powi(2) + 1.0 - level.alpha_bar);
        let target = (fed.target[0] * sigma_data).powi(2) + fed.target[1].powi(2);
        prop_assert!((input - 1.0).abs() < 1e-12 && (target - 1.0).abs() < 1e-12, "{input}, {target}");
        // table 1 of the paper, in its notation
        let sigma = level.sigma();
        let root = (sigma * sigma + sigma_data * sigma_data).sqrt();
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * (1.0 + b.abs());
        prop_assert!(close(fed.input * level.signal_scale(), 1.0 / root));
        prop_assert!(close(fed.x_0[0] * level.signal_scale(), (sigma_data / root).powi(2)));
        prop_assert!(close(fed.x_0[1], sigma * sigma_data / root));
        prop_assert!(close(fed.time, 250.0 * sigma.ln()));
    }

    /// The weight of min-SNR on x_0 is the same for every objective.
    #[test]
    fn min_snr_is_one_weight_on_x_0(log_sigma in -4.0..4.0_f64, gamma in 0.5..10.0_f64) {
        let level = level(log_sigma.exp());
        for objective in OBJECTIVES {
            let [_, output] = objective.preconditioning(level).x_0;
            let on_x_0 = LossWeight::MinSnr { gamma }.weight(level, objective) / (output * output);
            prop_assert!((on_x_0 / level.snr().min(gamma) - 1.0).abs() < 1e-9, "{objective}: {on_x_0}");
        }
    }
}

#[test]
fn flow_is_a_straight_path() {
    let level = level(3.0); // s = 0.75
    let fed = Objective::Flow.preconditioning(level);
    assert!((fed.time - 750.0).abs() < 1e-9);
    // the input is (1 - s) x_0 + s epsilon
    assert!((fed.input * level.signal_scale() - 0.25).abs() < 1e-12);
    assert!((fed.input * level.noise_scale() - 0.75).abs() < 1e-12);
    // at pure noise the velocity leads to x_0 in one step
    let end = Objective::Flow.preconditioning(NoiseLevel { timestep: 999.0, alpha_bar: 0.0 });
    assert_eq!((end.time, end.input, end.x_0, end.epsilon), (1000.0, 1.0, [1.0, -1.0], [1.0, 0.0]));
}

#[test]
fn the_beta_schedule_edm_has_the_sigmas_of_the_paper() {
    let schedule = Schedule::new(&"edm".parse::<BetaSchedule>().unwrap(), 18).unwrap();
    let sigma = |t: usize| schedule.level(t).sigma();
    let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a} is not {b}");
    close(sigma(0), 0.002);
    close(sigma(17), 80.0);
    // equation 5 with N = 18, i = 17 - 8
    let root = |sigma: f64| sigma.powf(1.0 / 7.0);
    close(sigma(8), (root(80.0) + 9.0 / 17.0 * (root(0.002) - root(80.0))).powi(7));
    // the spacing of the paper visits each timestep
    let levels = schedule.levels(Spacing::Karras, 18).unwrap();
    for (index, level) in levels[..18].iter().enumerate() {
        close(level.sigma(), sigma(17 - index));
    }
    for (text, says) in [
        ("family = 'edm'\nsigma_min = 0.0", "sigma_min"),
        ("family = 'edm'\nsigma_max = 0.001", "sigma_max"),
        ("family = 'edm'\nrho = -1.0", "rho"),
    ] {
        let beta_schedule: BetaSchedule = toml::from_str(text).unwrap();
        assert!(Schedule::new(&beta_schedule, 10).unwrap_err().to_string().contains(says));
    }
}

#[test]
fn the_spacing_flow_is_even_in_s() {
    for zero_terminal in [false, true] {
        let schedule = Schedule::new(&BetaSchedule::default(), 1000).unwrap();
        let schedule = if zero_terminal { schedule.rescale_zero_terminal_snr().unwrap() } else { schedule };
        let levels = schedule.levels(Spacing::Flow, 8).unwrap();
        assert_eq!((levels.len(), levels[0], levels[8]), (9, schedule.level(999), NoiseLevel::CLEAN));
        let s = |level: &NoiseLevel| level.noise_scale() / (level.signal_scale() + level.noise_scale());
        for pair in levels.windows(2) {
            assert!((s(&pair[0]) - s(&pair[1]) - s(&levels[0]) / 8.0).abs() < 1e-9);
        }
    }
    let schedule = Schedule::new(&BetaSchedule::default(), 10).unwrap();
    assert!(schedule.levels(Spacing::Flow, 11).is_err());
}

#[test]
fn each_distribution_draws_its_levels() {
    let schedule = Schedule::new(&"edm".parse::<BetaSchedule>().unwrap(), 1000).unwrap();
    let own = |objective| LevelDistribution::Own.of(objective);
    assert_eq!(own(Objective::V), LevelDistribution::Uniform);
    assert_eq!(own(Objective::Flow), LevelDistribution::Flow);
    assert_eq!(own(Objective::Edm { sigma_data: 0.5 }), "log_normal".parse().unwrap());
    assert_eq!(LevelDistribution::Flow.of(Objective::V), LevelDistribution::Flow);

    let level = |distribution: LevelDistribution, uniform, normal| distribution.level(&schedule, uniform, normal);
    assert_eq!(level(LevelDistribution::Uniform, 0.0005, 9.0), schedule.level(0));
    assert_eq!(level(LevelDistribution::Uniform, 0.9995, 9.0), schedule.level(999));
    assert!((level(LevelDistribution::Flow, 0.75, 9.0).sigma() - 3.0).abs() < 1e-12);
    let log_normal = LevelDistribution::LogNormal { mean: -1.0, deviation: 2.0 };
    assert!((level(log_normal, 0.5, 0.5).sigma() - 1.0).abs() < 1e-12);
    // sigma may lie beyond the schedule, the timestep does not
    let beyond = level(log_normal, 0.5, 4.0);
    assert!((beyond.sigma() - 7.0_f64.exp()).abs() < 1e-6 && beyond.timestep == 999.0);
}
