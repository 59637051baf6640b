//! The solvers equal those of diffusers in f64, on the toy network `epsilon(x, t) = x t / (t + 1)` over the linear schedule
//! of diffusers (1000 timesteps). Each golden file holds the start `xT`, the `timesteps` that diffusers visited, and the
//! result `y`; its settings are in the file's metadata. diffusers has the sigmas of these solvers, and for some of them the
//! sample, in f32, which limits the accuracy of the comparison.

use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use noise::{Noise, Purpose};
use safetensors::SafeTensors;
use sampler::{
    DdimOptions, DeisOptions, Denoiser, DpmSolverOptions, NoiseLevel, PndmOptions, Prediction, SecondOrder,
    UniPcOptions, UniPcVariant, ddim, deis, dpm_solver_plus_plus, euler, heun, pndm, unipc,
};
use schedule::{BetaSchedule, Schedule, Spacing};

/// `epsilon(x, t) = x t / (t + 1)`.
struct Toy;

impl Denoiser for Toy {
    fn denoise(&self, x_t: Tensor<4>, level: NoiseLevel, _self_condition: Option<&Tensor<4>>) -> Prediction {
        let epsilon = x_t.clone() * (level.timestep / (level.timestep + 1.0));
        Prediction::from_epsilon(epsilon, x_t.clone(), &vec![level; x_t.dims()[0]])
    }
}

struct Golden {
    x_t: Tensor<4>,
    timesteps: Vec<f64>,
    y: Vec<f64>,
    /// Of a stochastic solver: the change of the result by a unit of noise in each step.
    response: Vec<f64>,
}

impl Golden {
    fn open(name: &str) -> Self {
        Self::read(name, "")
    }

    /// One of the runs of `golden/make_solvers.py`.
    fn more(name: &str) -> Self {
        Self::read("solvers_more", &format!("{name}."))
    }

    fn read(name: &str, prefix: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.safetensors"));
        let bytes = std::fs::read(path).expect("a golden file");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let get = |name: &str| {
            let view = file.tensor(name).expect(name);
            assert_eq!(view.dtype(), safetensors::Dtype::F64, "{name}");
            let values: Vec<f64> =
                view.data().as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
            (values, view.shape().to_vec())
        };
        let (values, shape) = get("xT");
        let x_t = Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), DType::F64));
        let timesteps = get(&format!("{prefix}timesteps")).0;
        let response = format!("{prefix}response");
        let response = if file.names().contains(&response.as_str()) { get(&response).0 } else { Vec::new() };
        Self { x_t, timesteps, y: get(&format!("{prefix}y")).0, response }
    }

    /// Compares a result with `y`: the largest difference over the largest value.
    fn check(&self, y: Tensor<4>, tolerance: f64) {
        let ours: Vec<f64> = y.into_data().iter::<f64>().collect();
        assert_eq!(ours.len(), self.y.len());
        let largest = self.y.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        // not `f64::max`, which ignores NaN
        let error = ours
            .iter()
            .zip(&self.y)
            .map(|(a, b)| (a - b).abs() / largest)
            .fold(0.0, |most, one| if one <= most { most } else { one });
        assert!(error < tolerance, "differs by {error:e} of the largest value");
    }
}

/// The linear schedule of diffusers.
fn schedule() -> Schedule {
    Schedule::new(&BetaSchedule::LinearUnscaled { beta_start: 1e-4, beta_end: 0.02 }, 1000).expect("a schedule")
}

/// These timesteps, then clean data.
fn levels(timesteps: &[f64]) -> Vec<NoiseLevel> {
    let schedule = schedule();
    timesteps.iter().map(|t| schedule.level_at(*t)).chain([NoiseLevel::CLEAN]).collect()
}

/// The levels of a spacing, whose timesteps are those that diffusers visited.
fn spaced(golden: &Golden, spacing: Spacing) -> Vec<NoiseLevel> {
    let levels = schedule().levels(spacing, golden.timesteps.len()).expect("levels");
    let visited: Vec<f64> = levels.iter().map(|level| level.timestep).take(golden.timesteps.len()).collect();
    assert_eq!(visited, golden.timesteps);
    levels
}

#[test]
fn ddim_equals_diffusers_with_both_spacings() {
    for (name, spacing) in [("solver_ddim_leading", Spacing::Leading), ("solver_ddim_trailing", Spacing::Trailing)] {
        let golden = Golden::open(name);
        let levels = spaced(&golden, spacing);
        let options = DdimOptions { clip: None, ..DdimOptions::default() };
        let y = ddim(&Toy, golden.x_t.clone(), &levels, options, &Noise::new(0), &mut |_| ()).expect("a chain");
        golden.check(y, 1e-5);
    }
}

#[test]
fn dpm_solver_equals_diffusers() {
    for (name, order) in [("solver_dpmpp_2m", 2), ("solver_dpmpp_3m", 3)] {
        let golden = Golden::open(name);
        let levels = spaced(&golden, Spacing::Uniform);
        let options = DpmSolverOptions { order, clip: None, ..DpmSolverOptions::default() };
        let y = dpm_solver_plus_plus(&Toy, golden.x_t.clone(), &levels, options, &Noise::new(0), &mut |_| ());
        golden.check(y.expect("a chain"), 1e-5);
    }
}

#[test]
fn dpm_solver_over_karras_sigmas_equals_diffusers() {
    let golden = Golden::open("solver_dpmpp_2m_karras");
    let mut levels = schedule().levels(Spacing::Karras, golden.timesteps.len()).expect("levels");
    // diffusers rounds the timesteps here, not the sigmas
    for (level, timestep) in levels.iter_mut().zip(&golden.timesteps) {
        level.timestep = level.timestep.round();
        assert_eq!(level.timestep, *timestep);
    }
    let options = DpmSolverOptions { clip: None, ..DpmSolverOptions::default() };
    let y = dpm_solver_plus_plus(&Toy, golden.x_t.clone(), &levels, options, &Noise::new(0), &mut |_| ());
    golden.check(y.expect("a chain"), 1e-5);
}

#[test]
fn unipc_of_second_order_equals_diffusers() {
    let golden = Golden::open("solver_unipc_bh2");
    let levels = spaced(&golden, Spacing::Uniform);
    let options = UniPcOptions { clip: None, ..UniPcOptions::default() };
    golden.check(unipc(&Toy, golden.x_t.clone(), &levels, options, &mut |_| ()).expect("a chain"), 1e-5);
}

/// diffusers ends at the first timestep here, not at clean data.
#[test]
fn deis_of_second_order_equals_diffusers() {
    let golden = Golden::open("solver_deis");
    let mut levels = spaced(&golden, Spacing::Uniform);
    levels.pop();
    levels.push(schedule().level(0));
    let options = DeisOptions { clip: None, ..DeisOptions::default() };
    golden.check(deis(&Toy, golden.x_t.clone(), &levels, options, &mut |_| ()).expect("a chain"), 1e-5);
}

/// diffusers lists the second timestep twice, for the repeated Euler step; its last step, from timestep 0 to the same
/// alpha_bar, does nothing.
#[test]
fn pndm_without_runge_kutta_equals_diffusers() {
    let golden = Golden::open("solver_pndm");
    let mut timesteps = golden.timesteps.clone();
    timesteps.remove(1);
    let mut levels = levels(&timesteps);
    levels.pop();
    let options = PndmOptions { clip: None, ..PndmOptions::default() };
    golden.check(pndm(&Toy, golden.x_t.clone(), &levels, options, &mut |_| ()).expect("a chain"), 1e-5);
}

/// diffusers starts these two at x / alpha = sigma xT, without the remaining signal.
fn without_signal(golden: &Golden, levels: &[NoiseLevel]) -> Tensor<4> {
    golden.x_t.clone() * levels[0].noise_scale()
}

#[test]
fn euler_over_fractional_timesteps_equals_diffusers() {
    let golden = Golden::open("solver_euler");
    let levels = levels(&golden.timesteps);
    golden.check(euler(&Toy, without_signal(&golden, &levels), &levels, None, &mut |_| ()).expect("a chain"), 1e-5);
}

#[test]
fn heun_over_fractional_timesteps_equals_diffusers() {
    let golden = Golden::open("solver_heun");
    // each but the first is visited twice
    let timesteps: Vec<f64> = golden.timesteps.iter().copied().step_by(2).collect();
    let levels = levels(&timesteps);
    golden.check(heun(&Toy, without_signal(&golden, &levels), &levels, None, &mut |_| ()).expect("a chain"), 1e-5);
}

#[test]
fn dpm_solver_with_other_settings_equals_diffusers() {
    let heun = SecondOrder::Heun;
    for (name, spacing, options) in [
        ("dpmpp_2m_heun", Spacing::Trailing, DpmSolverOptions { second_order: heun, ..DpmSolverOptions::default() }),
        ("dpmpp_3m_short", Spacing::Uniform, DpmSolverOptions { order: 3, ..DpmSolverOptions::default() }),
    ] {
        let golden = Golden::more(name);
        let levels = spaced(&golden, spacing);
        let options = DpmSolverOptions { clip: None, ..options };
        let y = dpm_solver_plus_plus(&Toy, golden.x_t.clone(), &levels, options, &Noise::new(0), &mut |_| ());
        golden.check(y.expect("a chain"), 1e-5);
    }
}

/// diffusers cuts the timesteps to whole numbers here.
#[test]
fn dpm_solver_over_exponential_sigmas_equals_diffusers() {
    let golden = Golden::more("dpmpp_2m_exponential");
    let mut levels = schedule().levels(Spacing::Exponential, golden.timesteps.len()).expect("levels");
    for (level, timestep) in levels.iter_mut().zip(&golden.timesteps) {
        assert!((level.timestep - timestep).abs() < 1.0, "{} and {timestep}", level.timestep);
        level.timestep = *timestep;
    }
    let options = DpmSolverOptions { clip: None, ..DpmSolverOptions::default() };
    let y = dpm_solver_plus_plus(&Toy, golden.x_t.clone(), &levels, options, &Noise::new(0), &mut |_| ());
    golden.check(y.expect("a chain"), 1e-5);
}

/// The chain is linear: the result is that of x_T plus that of each step's noise.
#[test]
fn dpm_solver_as_an_sde_equals_diffusers() {
    for (name, second_order) in [("dpmpp_2m_sde", SecondOrder::Midpoint), ("dpmpp_2m_sde_heun", SecondOrder::Heun)] {
        let mut golden = Golden::more(name);
        let levels = spaced(&golden, Spacing::Uniform);
        let noise = Noise::new(5);
        let noise_indices: Vec<u64> = (0..golden.x_t.dims()[0] as u64).collect();
        for (index, response) in golden.response.iter().enumerate() {
            let z = noise.stream(Purpose::SamplerNoise).normal_like(&noise_indices, index as u64, &golden.x_t);
            golden.y.iter_mut().zip(z.into_data().iter::<f64>()).for_each(|(y, z)| *y += response * z);
        }
        let options = DpmSolverOptions { second_order, eta: 1.0, clip: None, ..DpmSolverOptions::default() };
        let y = dpm_solver_plus_plus(&Toy, golden.x_t.clone(), &levels, options, &noise, &mut |_| ());
        golden.check(y.expect("a chain"), 1e-5);
    }
}

#[test]
fn unipc_with_other_settings_equals_diffusers() {
    let default = UniPcOptions { clip: None, ..UniPcOptions::default() };
    for (name, options) in [
        ("unipc_bh1_3", UniPcOptions { order: 3, variant: UniPcVariant::Bh1, ..default.clone() }),
        ("unipc_bh2_3", UniPcOptions { order: 3, ..default.clone() }),
        ("unipc_bh2_predictor", UniPcOptions { corrector: false, ..default.clone() }),
    ] {
        let golden = Golden::more(name);
        let mut levels = spaced(&golden, Spacing::Uniform);
        if options.variant == UniPcVariant::Bh1 {
            // diffusers ends at the first timestep here, not at clean data
            levels.pop();
            levels.push(schedule().level(0));
        }
        golden.check(unipc(&Toy, golden.x_t.clone(), &levels, options, &mut |_| ()).expect("a chain"), 1e-5);
    }
}

#[test]
fn deis_of_third_order_equals_diffusers() {
    let golden = Golden::more("deis_3");
    let mut levels = spaced(&golden, Spacing::Uniform);
    levels.pop();
    levels.push(schedule().level(0));
    let options = DeisOptions { order: 3, clip: None, ..DeisOptions::default() };
    golden.check(deis(&Toy, golden.x_t.clone(), &levels, options, &mut |_| ()).expect("a chain"), 1e-5);
}

/// The first three steps are visited four times each: at their start, twice half-way, and at their end.
#[test]
fn pndm_with_runge_kutta_equals_diffusers() {
    let golden = Golden::more("pndm_runge_kutta");
    let (warm_up, rest) = golden.timesteps.split_at(12);
    let timesteps: Vec<f64> = warm_up.iter().copied().step_by(4).chain(rest.iter().copied()).collect();
    let midpoints = [1, 5, 9].map(|index| schedule().level_at(warm_up[index]));
    let mut levels = levels(&timesteps);
    levels.pop();
    let options = PndmOptions { midpoints: Some(midpoints), clip: None };
    golden.check(pndm(&Toy, golden.x_t.clone(), &levels, options, &mut |_| ()).expect("a chain"), 1e-5);
}
