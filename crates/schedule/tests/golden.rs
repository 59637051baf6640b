//! Values of denoising-diffusion-pytorch 2.3.4. `golden/cut_forward.py` makes `golden/forward.safetensors`.
#![allow(clippy::unwrap_used)]

use safetensors::{Dtype, SafeTensors};
use schedule::{BetaSchedule, LossWeight, Objective, Schedule};

/// One array of a golden file, as f64.
fn array(file: &[u8], name: &str) -> Vec<f64> {
    let tensors = SafeTensors::deserialize(file).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let bytes = tensor.data();
    match tensor.dtype() {
        Dtype::F64 => bytes.chunks_exact(8).map(|word| f64::from_le_bytes(word.try_into().unwrap())).collect(),
        Dtype::F32 => bytes.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap()).into()).collect(),
        Dtype::I64 => bytes.chunks_exact(8).map(|word| i64::from_le_bytes(word.try_into().unwrap()) as f64).collect(),
        other => panic!("{name} is {other:?}"),
    }
}

fn assert_close(what: &str, ours: &[f64], golden: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), golden.len(), "{what}");
    for (t, (our, gold)) in ours.iter().zip(golden).enumerate() {
        assert!((our - gold).abs() <= tolerance * gold.abs(), "{what}[{t}]: {our:e} is not {gold:e}");
    }
}

#[test]
fn betas_and_alpha_bars_equal_lucidrains() {
    let files: [(usize, &[u8]); 3] = [
        (1000, include_bytes!("golden/schedule_T1000.safetensors")),
        (250, include_bytes!("golden/schedule_T250.safetensors")),
        (50, include_bytes!("golden/schedule_T50.safetensors")),
    ];
    for (timesteps, file) in files {
        for name in ["linear", "cosine", "sigmoid"] {
            let schedule = Schedule::new(&name.parse::<BetaSchedule>().unwrap(), timesteps).unwrap();
            assert_close(name, schedule.betas(), &array(file, &format!("{name}.betas")), 1e-12);
            assert_close(name, schedule.alpha_bars(), &array(file, &format!("{name}.alpha_bars")), 1e-12);
        }
    }
}

const FORWARD: &[u8] = include_bytes!("golden/forward.safetensors");

/// The golden posterior is f64 arithmetic rounded to f32.
const HALF_F32: f64 = f32::EPSILON as f64 / 2.0 * 1.01;

#[test]
fn posterior_equals_lucidrains() {
    for name in ["linear", "cosine", "sigmoid"] {
        let schedule = Schedule::new(&name.parse::<BetaSchedule>().unwrap(), 1000).unwrap();
        let timesteps = array(FORWARD, &format!("{name}.t"));
        assert!(timesteps.contains(&0.0) && timesteps.contains(&999.0), "both ends: {timesteps:?}");
        for (what, ours) in [
            ("posterior_variance", schedule.posterior_variance()),
            ("posterior_log_variance_clipped", schedule.posterior_log_variance_clipped()),
        ] {
            let ours: Vec<f64> = timesteps.iter().map(|&t| ours[t as usize]).collect();
            assert_close(what, &ours, &array(FORWARD, &format!("{name}.{what}")), HALF_F32);
        }
    }
}

#[test]
fn loss_weights_equal_lucidrains() {
    let compare = |schedule: &str, objective: &str, clip: &str, weight: LossWeight| {
        let name = format!("{schedule}_{objective}{clip}.loss_weight");
        let schedule = Schedule::new(&schedule.parse::<BetaSchedule>().unwrap(), 1000).unwrap();
        let ours = weight.weights(&schedule, objective.parse::<Objective>().unwrap());
        assert_close(&name, &ours, &array(FORWARD, &name), HALF_F32);
    };
    let min_snr = LossWeight::MinSnr { gamma: 5.0 };
    for objective in ["pred_noise", "pred_x0", "pred_v"] {
        compare("cosine", objective, "", LossWeight::Snr);
        compare("cosine", objective, "_minsnr5", min_snr);
    }
    compare("linear", "pred_v", "_minsnr5", min_snr);
    compare("sigmoid", "pred_v", "_minsnr5", min_snr);
}
