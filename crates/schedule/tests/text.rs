//! Names on a command line and tables in a configuration file.
#![allow(clippy::unwrap_used)]

use schedule::{BetaSchedule, LevelDistribution, LossWeight, Objective, ScheduleConfig, Spacing};
use serde::{Deserialize, Serialize};

#[test]
fn names_survive_display_and_parsing() {
    for name in BetaSchedule::NAMES {
        assert_eq!(name.parse::<BetaSchedule>().unwrap().to_string(), name);
    }
    for name in ["epsilon", "x0", "v", "flow", "edm:0.5", "edm:0.25"] {
        assert_eq!(name.parse::<Objective>().unwrap().to_string(), name);
    }
    for name in ["lucidrains", "leading", "trailing", "linspace", "uniform", "karras", "exponential", "flow"] {
        assert_eq!(name.parse::<Spacing>().unwrap().to_string(), name);
    }
    for name in ["uniform", "snr", "min_snr:5", "min_snr:0.25"] {
        assert_eq!(name.parse::<LossWeight>().unwrap().to_string(), name);
    }
    for name in ["own", "uniform", "flow", "log_normal:-1.2:1.2", "logit_normal:0:1"] {
        assert_eq!(name.parse::<LevelDistribution>().unwrap().to_string(), name);
    }
    assert_eq!("min_snr".parse(), Ok(LossWeight::MinSnr { gamma: 5.0 }));
    assert_eq!("edm".parse(), Ok(Objective::Edm { sigma_data: 0.5 }));
    assert_eq!("log_normal".parse(), Ok(LevelDistribution::LogNormal { mean: -1.2, deviation: 1.2 }));
    assert_eq!("logit_normal".parse(), Ok(LevelDistribution::LogitNormal { mean: 0.0, deviation: 1.0 }));
    for (alias, objective) in [("pred_noise", Objective::Epsilon), ("pred_x0", Objective::X0), ("pred_v", Objective::V)]
    {
        assert_eq!(alias.parse(), Ok(objective));
    }
}

#[test]
fn the_error_of_an_unknown_name_lists_the_valid_ones() {
    let says = |text: String, parts: &[&str]| {
        for part in parts {
            assert!(text.contains(part), "`{text}` does not say `{part}`");
        }
    };
    says(
        "cosin".parse::<BetaSchedule>().unwrap_err().to_string(),
        &["beta schedule `cosin`", &BetaSchedule::NAMES.join(", ")],
    );
    says("custom".parse::<BetaSchedule>().unwrap_err().to_string(), &["custom betas need a configuration file"]);
    says("eps".parse::<Objective>().unwrap_err().to_string(), &["objective `eps`", "epsilon, x0, v, flow"]);
    for text in ["edm:", "edm:0", "edm:-1", "edm:NaN", "edm:inf"] {
        says(text.parse::<Objective>().unwrap_err().to_string(), &["objective", text, "edm:SIGMA_DATA"]);
    }
    for text in ["log_normal:", "log_normal:0", "logit_normal:0:0", "log_normal:NaN:1", "logit_normal:0:1:2", "sigma"] {
        says(text.parse::<LevelDistribution>().unwrap_err().to_string(), &["distribution of noise levels", text]);
    }
    says(
        "middle".parse::<Spacing>().unwrap_err().to_string(),
        &["`middle`", "lucidrains, leading, trailing, linspace, uniform, karras, exponential, flow"],
    );
    for text in ["", "minsnr", "min_snr:", "min_snr:x", "min_snr:0", "min_snr:-1", "min_snr:NaN", "min_snr:inf"] {
        says(text.parse::<LossWeight>().unwrap_err().to_string(), &["loss weight", text, "min_snr:GAMMA"]);
    }
}

#[test]
fn a_beta_schedule_is_a_table_with_defaults() {
    for name in BetaSchedule::NAMES {
        let read: BetaSchedule = toml::from_str(&format!("family = '{name}'")).unwrap();
        assert_eq!(read, name.parse().unwrap(), "defaults of a table and of a name are the same");
        assert_eq!(toml::from_str::<BetaSchedule>(&toml::to_string(&read).unwrap()).unwrap(), read);
    }
    assert_eq!(
        toml::from_str::<BetaSchedule>("family = 'sigmoid'\ntau = 1\nend = 2.5").unwrap(),
        BetaSchedule::Sigmoid { start: -3.0, end: 2.5, tau: 1.0 }
    );
    assert_eq!(
        toml::from_str::<BetaSchedule>("family = 'custom'\nbetas = [0.1, 0.2]").unwrap(),
        BetaSchedule::Custom { betas: vec![0.1, 0.2] }
    );
    let error = toml::from_str::<BetaSchedule>("family = 'cosine'\nbeta_end = 0.1").unwrap_err().to_string();
    assert!(error.contains("unknown field `beta_end`, expected `s`"), "{error}");
    let error = toml::from_str::<BetaSchedule>("family = 'cosin'").unwrap_err().to_string();
    assert!(error.contains("cosin") && error.contains("linear_unscaled"), "{error}");
    assert!(toml::from_str::<BetaSchedule>("family = 'custom'").is_err(), "custom without betas");
}

#[test]
fn a_configuration_is_one_flat_table() {
    let default = ScheduleConfig::default();
    assert_eq!(default, toml::from_str("family = 'cosine'").unwrap());
    assert_eq!((default.timesteps, default.zero_terminal_snr), (1000, false));
    assert_eq!(default, toml::from_str(&toml::to_string(&default).unwrap()).unwrap());

    let own: ScheduleConfig =
        toml::from_str("family = 'linear'\ntimesteps = 250\nzero_terminal_snr = true\nbeta_end = 0.03").unwrap();
    assert_eq!(own.family, BetaSchedule::Linear { beta_start: 0.0001, beta_end: 0.03 });
    let schedule = own.build().unwrap();
    assert_eq!((schedule.timesteps(), schedule.alpha_bar(249)), (250, 0.0));
    assert!(ScheduleConfig { zero_terminal_snr: false, ..own }.build().unwrap().alpha_bar(249) > 0.0);
    assert!(ScheduleConfig { timesteps: 0, ..default }.build().is_err());

    for (text, culprit) in [
        ("family = 'cosine'\ntimestep = 10", "timestep"),
        ("family = 'linear'\ns = 0.008", "`s`"),
        ("timesteps = 10", "family"),
        ("family = 'cosine'\ntimesteps = -1", "-1"),
    ] {
        let error = toml::from_str::<ScheduleConfig>(text).unwrap_err().to_string();
        assert!(error.contains(culprit), "{error}");
    }
}

#[test]
fn choices_are_plain_strings_in_a_file() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Choices {
        objective: Objective,
        loss_weight: LossWeight,
        spacing: Spacing,
    }
    let text = "objective = \"v\"\nloss_weight = \"min_snr:3\"\nspacing = \"trailing\"\n";
    let choices: Choices = toml::from_str(text).unwrap();
    let expected =
        Choices { objective: Objective::V, loss_weight: LossWeight::MinSnr { gamma: 3.0 }, spacing: Spacing::Trailing };
    assert_eq!(choices, expected);
    assert_eq!(toml::to_string(&choices).unwrap(), text);
    let alias: Choices = toml::from_str(&text.replace("\"v\"", "\"pred_x0\"")).unwrap();
    assert_eq!(alias.objective, Objective::X0);
    let error = toml::from_str::<Choices>(&text.replace(":3", ":0")).unwrap_err().to_string();
    assert!(error.contains("min_snr:0") && error.contains("above 0"), "{error}");
}
