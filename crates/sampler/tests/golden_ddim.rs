//! DDIM equals lucidrains' `GaussianDiffusion.ddim_sample` 2.3.4: 20 steps of 1000, eta 0, three objectives, three
//! schedules. The golden files hold the start `xT` and the result `y`; `ddim20_pred_noise_linear` also has the weights.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use noise::Noise;
use safetensors::SafeTensors;
use sampler::{DdimOptions, Denoiser, NoiseLevel, Prediction, ddim};
use schedule::{BetaSchedule, Objective, Schedule, Spacing};
use unet::{Condition, Unet, UnetConfig};

struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.safetensors"));
        Self { bytes: std::fs::read(path).expect("a golden file") }
    }

    fn get(&self, name: &str) -> Option<TensorData> {
        let file = SafeTensors::deserialize(&self.bytes).expect("safetensors");
        let view = file.tensor(name).ok()?;
        assert_eq!(view.dtype(), safetensors::Dtype::F32, "{name}");
        let values: Vec<f32> =
            view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Some(TensorData::new(values, view.shape().to_vec()))
    }
}

/// A network and its objective.
struct Network {
    unet: Unet,
    objective: Objective,
}

impl Denoiser for Network {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, _self_condition: Option<&Tensor<4>>) -> Prediction {
        let batch = x_t.dims()[0];
        let t = Tensor::<1>::full([batch], level.timestep, &x_t.device());
        let output = self.unet.forward(x_t.clone(), t, Condition::default());
        Prediction::from_output(self.objective, output, x_t, &vec![level; batch])
    }
}

/// Largest difference over the largest value.
fn relative_error(ours: &TensorData, theirs: &TensorData) -> f64 {
    assert_eq!(ours.shape(), theirs.shape());
    let (ours, theirs) = (ours.as_slice::<f32>().expect("f32"), theirs.as_slice::<f32>().expect("f32"));
    let largest = theirs.iter().fold(0f64, |largest, value| largest.max(f64::from(value.abs())));
    let difference = |(a, b): (&f32, &f32)| f64::from((a - b).abs());
    // not `f64::max`, which ignores NaN
    ours.iter().zip(theirs).map(difference).fold(0.0, |most, one| if one <= most { most } else { one }) / largest
}

fn check(objective: Objective, peer_objective: &str) {
    let device = Device::flex();
    let weights = Golden::open("ddim20_pred_noise_linear");
    let config = UnetConfig { dim: 16, dim_mults: vec![1, 2], channels: 1, ..UnetConfig::default() };
    let unet = config
        .init(&device)
        .expect("a possible configuration")
        .load_state_dict(|name| weights.get(&format!("weights.{name}")))
        .expect("lucidrains' names and shapes");
    let network = Network { unet, objective };
    for name in ["linear", "cosine", "sigmoid"] {
        let golden = Golden::open(&format!("ddim20_{peer_objective}_{name}"));
        let schedule = Schedule::new(&name.parse::<BetaSchedule>().expect("a name"), 1000).expect("a schedule");
        let levels = schedule.levels(Spacing::Lucidrains, 20).expect("20 of 1000");
        let x_t = Tensor::<4>::from_data(golden.get("xT").expect("xT"), &device);
        let y = ddim(&network, x_t, &levels, DdimOptions::default(), &Noise::new(0), &mut |_| ()).expect("a chain");
        let error = relative_error(&y.into_data(), &golden.get("y").expect("y"));
        assert!(error < 1e-4, "{peer_objective}, {name}: differs by {error:e} of the largest value");
    }
}

#[test]
fn ddim_of_epsilon_equals_lucidrains() {
    check(Objective::Epsilon, "pred_noise");
}

#[test]
fn ddim_of_x_0_equals_lucidrains() {
    check(Objective::X0, "pred_x0");
}

#[test]
fn ddim_of_v_equals_lucidrains() {
    check(Objective::V, "pred_v");
}
