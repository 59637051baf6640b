//! Equal to lucidrains' `Unet` 2.3.4: output, loss, gradients and three Adam steps. `golden/make.py` wrote the values.

use std::path::Path;

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Tensor, TensorData},
};
use safetensors::{Dtype, SafeTensors};
use unet::{AttentionKind, Condition, Unet, UnetConfig, state_dict_name};

use crate::device;

struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        Self { bytes: std::fs::read(path).expect("a golden file") }
    }

    fn get(&self, name: &str) -> Option<TensorData> {
        let file = SafeTensors::deserialize(&self.bytes).expect("safetensors");
        let view = file.tensor(name).ok()?;
        let shape = view.shape().to_vec();
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::I64 => view
                .data()
                .chunks_exact(8)
                .map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
                .collect(),
            other => panic!("{other:?}"),
        };
        Some(TensorData::new(values, shape))
    }

    fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        Tensor::from_data(self.get(name).unwrap_or_else(|| panic!("{name} is not in the golden file")), device)
    }

    fn load(&self, config: &UnetConfig, device: &Device) -> Unet {
        let unet = config.init(device).expect("a possible configuration");
        unet.load_state_dict(|name| self.get(&format!("weights.{name}"))).expect("lucidrains' names and shapes")
    }
}

fn two_levels() -> UnetConfig {
    UnetConfig { dim: 8, dim_mults: vec![1, 2], channels: 1, ..UnetConfig::default() }
}

fn four_levels() -> UnetConfig {
    UnetConfig { dim: 4, attention_heads: 2, attention_head_dim: 8, ..UnetConfig::default() }
}

/// Largest difference over the largest value: the relative error of a whole tensor.
fn relative_error(ours: &TensorData, theirs: &TensorData) -> f64 {
    assert_eq!(ours.shape(), theirs.shape());
    let (ours, theirs) = (ours.as_slice::<f32>().expect("f32"), theirs.as_slice::<f32>().expect("f32"));
    let largest = theirs.iter().fold(0f64, |m, v| m.max(f64::from(v.abs())));
    ours.iter().zip(theirs).fold(0f64, |m, (a, b)| m.max(f64::from((a - b).abs()))) / largest.max(1e-12)
}

fn check_output(golden: &Golden, config: &UnetConfig, condition: Condition) {
    let device = device();
    let unet = golden.load(config, &device);
    let y = unet.forward(golden.tensor("x", &device), golden.tensor("t", &device), condition);
    let error = relative_error(&y.into_data(), &golden.get("y").expect("y"));
    assert!(error < 1e-4, "output differs by {error:e} of its largest value");
}

/// The weighted v-objective of the golden file: sigmoid schedule, T = 1000, weight snr / (snr + 1) = alpha_bar.
fn alpha_bar(t: f32) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    // lucidrains' sigmoid(-3), sigmoid(3) are single precision
    let (start, end) = (f64::from(sigmoid(-3.0) as f32), f64::from(sigmoid(3.0) as f32));
    let at = |u: f64| (end - sigmoid(u * 6.0 - 3.0)) / (end - start);
    at((f64::from(t) + 1.0) / 1000.0) / at(0.0)
}

fn loss(unet: &Unet, golden: &Golden, device: &Device) -> Tensor<1> {
    let x_0: Tensor<4> = golden.tensor("x0", device);
    let epsilon: Tensor<4> = golden.tensor("eps", device);
    let t: Vec<f32> = golden.get("t").expect("t").try_to_vec().expect("f32");
    let levels: Vec<f64> = t.iter().map(|t| alpha_bar(*t)).collect();
    let column = |f: &dyn Fn(f64) -> f64| {
        let values: Vec<f32> = levels.iter().map(|level| f(*level) as f32).collect();
        Tensor::<4>::from_data(TensorData::new(values, [levels.len(), 1, 1, 1]), device)
    };
    let (signal, noise) = (column(&|a| a.sqrt()), column(&|a| (1.0 - a).sqrt()));
    let x_t = x_0.clone() * signal.clone() + epsilon.clone() * noise.clone();
    let target = epsilon * signal - x_0 * noise;
    let prediction = unet.forward(x_t, golden.tensor("t", device), Condition::default());
    ((prediction - target).powi_scalar(2) * column(&|a| a)).mean()
}

/// Names of the parameters with their gradients.
fn gradients(unet: &Unet, loss: Tensor<1>) -> Vec<(String, TensorData)> {
    struct Collect {
        path: Vec<String>,
        gradients: burn::tensor::Gradients,
        found: Vec<(String, TensorData)>,
    }
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = param.val().grad(&self.gradients).expect("every parameter has a gradient");
            self.found.push((state_dict_name(&self.path), gradient.into_data()));
        }
    }
    let mut collect = Collect { path: Vec::new(), gradients: loss.backward(), found: Vec::new() };
    unet.visit(&mut collect);
    collect.found
}

fn check_training(golden: &Golden, config: &UnetConfig) {
    let device = device().autodiff();
    let mut unet = golden.load(config, &device);
    let losses: Vec<f32> = golden.get("losses").expect("losses").try_to_vec().expect("f32");
    let mut moments: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
    for (step, expected) in losses.iter().enumerate() {
        let loss = loss(&unet, golden, &device);
        let value: f32 = loss.clone().into_scalar();
        assert!((value / expected - 1.0).abs() < 1e-4, "loss {value} of step {step} should be {expected}");
        let gradients = gradients(&unet, loss);
        let norm = gradients
            .iter()
            .flat_map(|(_, data)| data.as_slice::<f32>().expect("f32"))
            .map(|g| f64::from(*g).powi(2))
            .sum::<f64>()
            .sqrt();
        if step == 0 {
            let expected: f32 = golden.get("grad_norm").expect("grad_norm").try_to_vec().expect("f32")[0];
            assert!((norm / f64::from(expected) - 1.0).abs() < 1e-4, "norm {norm} should be {expected}");
            for (name, gradient) in &gradients {
                let expected = golden.get(&format!("grads.{name}")).unwrap_or_else(|| panic!("grads.{name}"));
                let error = relative_error(gradient, &expected);
                assert!(error < 1e-4, "the gradient of {name} differs by {error:e} of its largest value");
            }
        }
        // Adam as the paper has it (betas 0.9, 0.99; eps 1e-8; clip 1.0), in f64
        let clip = (1.0 / (norm + 1e-6)).min(1.0);
        if moments.is_empty() {
            moments =
                gradients.iter().map(|(_, g)| (vec![0.0; g.num_elements()], vec![0.0; g.num_elements()])).collect();
        }
        let (correction_1, correction_2) = (1.0 - 0.9f64.powi(step as i32 + 1), 1.0 - 0.99f64.powi(step as i32 + 1));
        let mut state = unet.state_dict();
        for (((_, data), (_, gradient)), (first, second)) in state.iter_mut().zip(&gradients).zip(&mut moments) {
            let mut values: Vec<f32> = data.try_to_vec().expect("f32");
            for (i, g) in gradient.as_slice::<f32>().expect("f32").iter().enumerate() {
                let g = f64::from(*g) * clip;
                first[i] = 0.9 * first[i] + 0.1 * g;
                second[i] = 0.99 * second[i] + 0.01 * g * g;
                let step = first[i] / correction_1 / ((second[i] / correction_2).sqrt() + 1e-8);
                values[i] = (f64::from(values[i]) - 1e-3 * step) as f32;
            }
            *data = TensorData::new(values, data.shape().clone());
        }
        unet = unet
            .load_state_dict(|name| state.iter().find(|(other, _)| other == name).map(|(_, data)| data.clone()))
            .expect("its own state");
    }
    let mut compared = 0;
    for (name, data) in unet.state_dict() {
        if let Some(expected) = golden.get(&format!("after3.{name}")) {
            compared += 1;
            let error = relative_error(&data, &expected);
            assert!(error < 1e-4, "{name} after three steps differs by {error:e}");
        }
    }
    assert!(compared >= 7);
}

#[test]
fn two_levels_output() {
    check_output(&Golden::open("two_levels.safetensors"), &two_levels(), Condition::default());
}

#[test]
fn two_levels_training() {
    check_training(&Golden::open("two_levels.safetensors"), &two_levels());
}

#[test]
fn four_levels_output() {
    check_output(&Golden::open("four_levels.safetensors"), &four_levels(), Condition::default());
}

#[test]
fn four_levels_training() {
    check_training(&Golden::open("four_levels.safetensors"), &four_levels());
}

#[test]
fn options_output() {
    let golden = Golden::open("options.safetensors");
    let config = UnetConfig {
        dim: 8,
        init_dim: Some(12),
        dim_mults: vec![1, 2],
        channels: 2,
        self_condition: true,
        learned_variance: true,
        learned_sinusoidal_cond: true,
        attention: vec![AttentionKind::Full, AttentionKind::Linear],
        attention_heads: 2,
        attention_head_dim: 8,
        ..UnetConfig::default()
    };
    let estimate = golden.tensor("self_cond", &device());
    check_output(&golden, &config, Condition { self_condition: Some(estimate), ..Condition::default() });
}
