//! Configurations of known models, from their pages.

use std::fs;

use checkpoint::{Header, ImageFormat, SamplerKind};
use sampler::Variance;
use schedule::{BetaSchedule, Objective, Spacing};
use unet::{DownBlock, Unet2dConfig, UpBlock};

use super::{keys::Keys, network, scheduler::Chain};
use crate::{Account, InterchangeError};

fn keys(text: &str) -> Keys {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.json");
    fs::write(&path, text).expect("written");
    Keys::read(&path).expect("JSON")
}

/// Network, height and width of the images, and account.
type Read = (Unet2dConfig, Option<(usize, usize)>, Account);

fn network_of(text: &str) -> Result<Read, InterchangeError> {
    let mut account = Account::default();
    let (config, size) = network::read(keys(text), &mut account)?;
    Ok((config, size, account))
}

fn chain_of(text: &str, pipeline: Option<&str>) -> Result<(Header, Account), InterchangeError> {
    let (mut account, config) =
        (Account::default(), Unet2dConfig { learned_variance: true, ..Unet2dConfig::default() });
    let chain = Chain::read(keys(text), pipeline, &config, &mut account)?;
    let mut header = Header::new(config, ImageFormat::new(3, 32, 32));
    chain.describe(&mut header);
    Ok((header, account))
}

/// google/ddpm-cifar10-32, written by diffusers 0.0.4.
const CIFAR10: &str = r#"{
  "_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu", "attention_head_dim": null,
  "block_out_channels": [128, 256, 256, 256], "center_input_sample": false,
  "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"], "downsample_padding": 0,
  "flip_sin_to_cos": false, "freq_shift": 1, "in_channels": 3, "layers_per_block": 2, "mid_block_scale_factor": 1,
  "norm_eps": 1e-06, "norm_num_groups": 32, "out_channels": 3, "sample_size": 32, "time_embedding_type": "positional",
  "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"]
}"#;

#[test]
fn the_cifar_10_network_of_google_is_known() {
    let (config, size, account) = network_of(CIFAR10).expect("a network");
    assert_eq!(config, Unet2dConfig { dropout: 0.0, ..Unet2dConfig::default() });
    assert_eq!((size, config.parameters()), (Some((32, 32)), 35_746_307));
    assert!(account.not_used.is_empty() && account.assumed.is_empty(), "{account}");
    let scheduler = r#"{"_class_name": "DDPMScheduler", "_diffusers_version": "0.1.1", "beta_end": 0.02,
        "beta_schedule": "linear", "beta_start": 0.0001, "clip_sample": true, "num_train_timesteps": 1000,
        "trained_betas": null, "variance_type": "fixed_large", "tensor_format": "pt", "timestep_values": null}"#;
    let (header, account) = chain_of(scheduler, Some("DDPMPipeline")).expect("a chain");
    assert_eq!(header.schedule.family, BetaSchedule::LinearUnscaled { beta_start: 0.0001, beta_end: 0.02 });
    assert_eq!((header.objective, header.schedule.timesteps), (Objective::Epsilon, 1000));
    let sampling = &header.sampling;
    assert_eq!((sampling.sampler, sampling.steps, sampling.clip), (SamplerKind::Ddpm, 1000, true));
    assert_eq!((sampling.variance, sampling.spacing), (Variance::Beta, Spacing::Leading));
    assert!(account.not_used.is_empty(), "{account}");
}

#[test]
fn the_celeba_and_church_networks_and_those_of_the_course_are_known() {
    let faces = CIFAR10
        .replace("[128, 256, 256, 256]", "[128, 128, 256, 256, 512, 512]")
        .replace(
            r#"["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"]"#,
            r#"["DownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D"]"#,
        )
        .replace(
            r#"["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"]"#,
            r#"["UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"]"#,
        )
        .replace("\"sample_size\": 32", "\"sample_size\": 256");
    let (config, size, _) = network_of(&faces).expect("a network");
    assert_eq!((size, config.parameters()), (Some((256, 256)), 113_673_219));
    // early versions named the blocks otherwise
    let named_before =
        faces.replace("\"DownBlock2D\"", "\"UNetResDownBlock2D\"").replace("\"UpBlock2D\"", "\"UNetResUpBlock2D\"");
    assert_eq!(network_of(&named_before).expect("a network").0, config);
    // butterflies of the course: what is not given has diffusers' defaults
    let course = r#"{"_class_name": "UNet2DModel", "sample_size": [64, 32], "block_out_channels": [64, 128, 128, 256],
        "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"]}"#;
    let (config, size, _) = network_of(course).expect("a network");
    let expected = Unet2dConfig {
        block_out_channels: vec![64, 128, 128, 256],
        down_block_types: vec![DownBlock::Plain, DownBlock::Plain, DownBlock::Attention, DownBlock::Attention],
        up_block_types: vec![UpBlock::Attention, UpBlock::Attention, UpBlock::Plain, UpBlock::Plain],
        attention_head_dim: Some(8),
        downsample_padding: 1,
        flip_sin_to_cos: true,
        freq_shift: 0.0,
        norm_eps: 1e-5,
        dropout: 0.0,
        ..Unet2dConfig::default()
    };
    assert_eq!((config, size), (expected, Some((64, 32))));
    let (header, _) =
        chain_of(r#"{"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2"}"#, None).expect("a chain");
    assert_eq!(header.schedule.family, BetaSchedule::Cosine { s: 0.008 });
    assert_eq!((header.sampling.steps, header.sampling.variance), (50, Variance::Posterior));
}

#[test]
fn schedulers_become_samplers_with_their_spacing() {
    for (class, more, sampler, spacing) in [
        ("DDPM", "", SamplerKind::Ddpm, Spacing::Leading),
        ("DDIM", r#", "timestep_spacing": "trailing""#, SamplerKind::Ddim, Spacing::Trailing),
        ("PNDM", "", SamplerKind::Pndm, Spacing::Leading),
        ("DPMSolverMultistep", "", SamplerKind::Dpmpp2m, Spacing::Uniform),
        ("DPMSolverMultistep", r#", "use_karras_sigmas": true"#, SamplerKind::Dpmpp2m, Spacing::Karras),
        ("DPMSolverMultistep", r#", "solver_order": 3"#, SamplerKind::Dpmpp3m, Spacing::Uniform),
        ("DPMSolverMultistep", r#", "solver_order": 1"#, SamplerKind::Ddim, Spacing::Uniform),
        ("DPMSolverMultistep", r#", "algorithm_type": "sde-dpmsolver++""#, SamplerKind::Dpmpp2mSde, Spacing::Uniform),
        ("UniPCMultistep", "", SamplerKind::Unipc, Spacing::Uniform),
        ("DEISMultistep", "", SamplerKind::Deis, Spacing::Uniform),
        ("EulerDiscrete", "", SamplerKind::Euler, Spacing::Linspace),
        ("EulerDiscrete", r#", "use_exponential_sigmas": true"#, SamplerKind::Euler, Spacing::Exponential),
        ("EulerAncestralDiscrete", "", SamplerKind::EulerAncestral, Spacing::Linspace),
        ("HeunDiscrete", "", SamplerKind::Heun, Spacing::Linspace),
    ] {
        let text = format!(r#"{{"_class_name": "{class}Scheduler"{more}}}"#);
        let (header, _) = chain_of(&text, None).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((header.sampling.sampler, header.sampling.spacing), (sampler, spacing), "{text}");
        let clips = ["DDPM", "DDIM"].contains(&class);
        assert_eq!(header.sampling.clip, clips, "{text}");
    }
    for (value, objective) in [("sample", Objective::X0), ("v_prediction", Objective::V)] {
        let text = format!(r#"{{"prediction_type": "{value}", "rescale_betas_zero_snr": true}}"#);
        let (header, _) = chain_of(&text, None).expect("a chain");
        assert_eq!((header.objective, header.schedule.zero_terminal_snr), (objective, true));
    }
}

#[test]
fn what_differs_is_said() {
    for (text, said) in [
        (r#"{"clip_sample_range": 2.5}"#, "clip_sample_range = 2.5"),
        (r#"{"thresholding": true}"#, "thresholding"),
        (r#"{"timestep_spacing": "linspace"}"#, "linspace"),
        (r#"{"steps_offset": 1}"#, "steps_offset = 1"),
        (r#"{"_class_name": "PNDMScheduler"}"#, "skip_prk_steps"),
        (r#"{"_class_name": "DDIMScheduler", "set_alpha_to_one": false}"#, "ends at the first timestep"),
        (r#"{"_class_name": "UniPCMultistepScheduler", "solver_order": 3}"#, "solver_order = 3"),
        (r#"{"_class_name": "UniPCMultistepScheduler", "solver_type": "bh1"}"#, "solver_type = bh1"),
        (r#"{"_class_name": "DPMSolverMultistepScheduler", "euler_at_final": true}"#, "euler_at_final"),
        (r#"{"a_new_key": [1, 2]}"#, "a_new_key = [1,2]"),
    ] {
        let (_, account) = chain_of(text, None).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(account.not_used.iter().any(|line| line.contains(said)), "{text}: {account}");
    }
}

#[test]
fn what_has_no_twin_is_refused_by_name() {
    for (text, said) in [
        (r#"{"_class_name": "LCMScheduler"}"#, "LCMScheduler"),
        (r#"{"_class_name": "ScoreSdeVeScheduler"}"#, "ScoreSdeVeScheduler"),
        (r#"{"beta_schedule": "laplace"}"#, "laplace"),
        (r#"{"trained_betas": [0.1, 0.2]}"#, "1000"),
        (r#"{"num_train_timesteps": 0}"#, "num_train_timesteps"),
        (r#"{"num_train_timesteps": 4611686018427387904}"#, "num_train_timesteps"),
        (r#"{"num_train_timesteps": "many"}"#, "num_train_timesteps"),
        (r#"{"variance_type": "fixed_large_log"}"#, "fixed_large_log"),
        (r#"{"variance_type": "learned"}"#, "learned"),
        (r#"{"prediction_type": "flow_prediction"}"#, "flow_prediction"),
        (r#"{"rescale_betas_zero_snr": true}"#, "rescale_betas_zero_snr"),
        (r#"{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}"#, "dpmsolver of order 2"),
        (r#"{"_class_name": "EulerDiscreteScheduler", "use_beta_sigmas": true}"#, "use_beta_sigmas"),
        (r#"{"timestep_spacing": "cubic"}"#, "cubic"),
        (r#"{"beta_start": -1}"#, "beta"),
    ] {
        let error = chain_of(text, None).expect_err(text).to_string();
        assert!(error.contains(said) && error.contains("config.json"), "{text}: {error}");
    }
    for (from, to, said) in [
        ("\"UNet2DModel\"", "\"UNet2DConditionModel\"", "UNet2DConditionModel"),
        ("\"AttnDownBlock2D\"", "\"SkipDownBlock2D\"", "SkipDownBlock2D"),
        ("\"AttnUpBlock2D\"", "\"KUpBlock2D\"", "KUpBlock2D"),
        ("\"out_channels\": 3", "\"out_channels\": 5", "5 channels"),
        ("\"silu\"", "\"tanh\"", "act_fn"),
        ("\"positional\"", "\"rotary\"", "time_embedding_type"),
        ("\"norm_num_groups\": 32", "\"norm_num_groups\": 31", "norm_num_groups = 31"),
        ("\"norm_num_groups\": 32", "\"norm_num_groups\": null", "norm_num_groups"),
        ("\"layers_per_block\": 2", "\"layers_per_block\": 4611686018427387904", "layers_per_block"),
        ("[128, 256, 256, 256]", "[128, 256]", "down_block_types"),
        (
            "\"center_input_sample\": false",
            "\"mid_block_type\": \"UNetMidBlock2DCrossAttn\"",
            "UNetMidBlock2DCrossAttn",
        ),
        ("\"center_input_sample\": false", "\"resnet_time_scale_shift\": \"spatial\"", "resnet_time_scale_shift"),
        ("\"center_input_sample\": false", "\"class_embed_type\": \"projection\"", "class_embed_type"),
    ] {
        assert!(CIFAR10.contains(from), "{from}");
        let error = network_of(&CIFAR10.replace(from, to)).expect_err(to).to_string();
        assert!(error.contains(said) && error.contains("config.json"), "{to}: {error}");
    }
}
