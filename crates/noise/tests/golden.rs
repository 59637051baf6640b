//! x_t, v and x_0 equal those of lucidrains' `GaussianDiffusion` 2.3.4, on each of its schedules. The files hold `x0`, `eps`,
//! `t` and the results, written by PyTorch in f32.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use noise::{NoiseLevel, Objective, Prediction, forward::q_sample, target};
use safetensors::{Dtype, SafeTensors};
use schedule::{BetaSchedule, Schedule};

struct Golden(Vec<u8>);

impl Golden {
    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        Self(std::fs::read(path).expect("a golden file"))
    }

    fn images(&self, name: &str, device: &Device) -> Tensor<4> {
        let file = SafeTensors::deserialize(&self.0).expect("safetensors");
        let view = file.tensor(name).expect("a tensor");
        assert_eq!(view.dtype(), Dtype::F32);
        let values: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Tensor::from_data(TensorData::new(values, view.shape().to_vec()), device)
    }

    fn timesteps(&self) -> Vec<usize> {
        let file = SafeTensors::deserialize(&self.0).expect("safetensors");
        let view = file.tensor("t").expect("t");
        view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as usize).collect()
    }
}

fn close(what: &str, ours: Tensor<4>, theirs: Tensor<4>, levels: &[NoiseLevel]) {
    for (index, level) in levels.iter().enumerate() {
        let (ours, theirs) = (ours.clone().narrow(0, index, 1), theirs.clone().narrow(0, index, 1));
        let largest: f32 = theirs.clone().abs().max().into_scalar();
        let error: f32 = (ours - theirs).abs().max().into_scalar();
        assert!(error < 1e-5 * largest.max(1.0), "{what} at {level:?} is off by {error:e} of {largest}");
    }
}

fn check(schedule: &str, file: &str) {
    let device = Device::flex();
    let golden = Golden::open(file);
    let schedule = Schedule::new(&schedule.parse::<BetaSchedule>().expect("a name"), 1000).expect("a schedule");
    let levels: Vec<NoiseLevel> = golden.timesteps().into_iter().map(|t| schedule.level(t)).collect();
    let get = |name: &str| golden.images(name, &device);
    let (x_0, epsilon) = (get("x0"), get("eps"));

    let x_t = q_sample(x_0.clone(), epsilon.clone(), &levels);
    close("x_t", x_t.clone(), get("xt"), &levels);
    let v = target(Objective::V, x_0.clone(), epsilon.clone(), &levels);
    close("v", v.clone(), get("v"), &levels);
    close("x_0 from v", Prediction::from_v(v, x_t, &levels).x_0, get("x0_from_v"), &levels);
    // from their x_t: at the noisy end the division magnifies its rounding
    let x_0 = Prediction::from_epsilon(epsilon, get("xt"), &levels).x_0;
    close("x_0 from epsilon", x_0, get("x0_from_eps"), &levels);
}

#[test]
fn the_linear_schedule_equals_lucidrains() {
    check("linear", "forward_linear_pred_noise.safetensors");
}

#[test]
fn the_cosine_schedule_equals_lucidrains() {
    check("cosine", "forward_cosine_pred_v.safetensors");
}

#[test]
fn the_sigmoid_schedule_equals_lucidrains() {
    check("sigmoid", "forward_sigmoid_pred_x0.safetensors");
}
