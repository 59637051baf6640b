//! Every solver reaches the order of convergence that its paper states, on the probability-flow ODE of a mixture of two
//! Gaussians, whose denoiser has a closed form: the slope of the error over the number of steps is fitted in f64.

use burn::tensor::{DType, Device, Tensor, TensorData};
use noise::Noise;
use sampler::{
    DdimOptions, DeisOptions, DpmSolverOptions, EdmOptions, GaussianMixture, NoiseLevel, PndmOptions, SecondOrder,
    ThirdOrder, UniPcOptions, UniPcVariant, ddim, ddim_inversion, deis, dpm_solver_plus_plus, edm_stochastic, euler,
    heun, pndm, unipc,
};

const COMPONENTS: [(f64, f64, f64); 2] = [(0.4, -0.8, 0.3), (0.6, 0.7, 0.4)];
const SIGMAS: (f64, f64) = (20.0, 0.1);

fn level(sigma: f64) -> NoiseLevel {
    NoiseLevel { timestep: sigma, alpha_bar: 1.0 / (1.0 + sigma * sigma) }
}

/// Levels evenly spaced in ln(sigma).
fn levels(steps: usize) -> Vec<NoiseLevel> {
    let (first, last) = SIGMAS;
    (0..=steps).map(|index| level(first * (last / first).powf(index as f64 / steps as f64))).collect()
}

/// x / alpha of each chain at the first level.
fn starts() -> Vec<f64> {
    (0..24).map(|index| SIGMAS.0 * (f64::from(index) / 23.0 - 0.5) * 3.0).collect()
}

/// E[x_0 | x_0 + sigma z = y].
fn denoised(y: f64, sigma: f64) -> f64 {
    let total = |deviation: f64| deviation * deviation + sigma * sigma;
    let density =
        |(weight, mean, sd): (f64, f64, f64)| weight / total(sd).sqrt() * (-0.5 * (y - mean).powi(2) / total(sd)).exp();
    let sum: f64 = COMPONENTS.iter().map(|component| density(*component)).sum();
    let posterior = |(_, mean, sd): (f64, f64, f64)| mean + sd * sd / total(sd) * (y - mean);
    COMPONENTS.iter().map(|component| density(*component) / sum * posterior(*component)).sum()
}

/// The ODE dy / d ln(sigma) = y - D(y, sigma) by the classical Runge-Kutta method, in small steps.
fn exact(start: f64) -> f64 {
    let steps = 4000;
    let width = (SIGMAS.1 / SIGMAS.0).ln() / f64::from(steps);
    let slope = |y: f64, time: f64| y - denoised(y, time.exp());
    (0..steps).fold(start, |y, index| {
        let time = SIGMAS.0.ln() + width * f64::from(index);
        let first = slope(y, time);
        let second = slope(y + first * width / 2.0, time + width / 2.0);
        let third = slope(y + second * width / 2.0, time + width / 2.0);
        let fourth = slope(y + third * width, time + width);
        y + (first + 2.0 * second + 2.0 * third + fourth) * width / 6.0
    })
}

fn tensor(values: &[f64]) -> Tensor<4> {
    Tensor::from_data(TensorData::new(values.to_vec(), [1, 1, 1, values.len()]), (&Device::flex(), DType::F64))
}

fn error_of(solver: &dyn Fn(&GaussianMixture, Tensor<4>, &[NoiseLevel]) -> Tensor<4>, steps: usize) -> f64 {
    let mixture = GaussianMixture::new(COMPONENTS.to_vec());
    let levels = levels(steps);
    let x_t = tensor(&starts()) * levels[0].signal_scale();
    let scale = levels[steps].signal_scale();
    let found: Vec<f64> = solver(&mixture, x_t, &levels).into_data().iter::<f64>().map(|x| x / scale).collect();
    let squares: f64 = starts().iter().zip(&found).map(|(start, found)| (exact(*start) - found).powi(2)).sum();
    (squares / found.len() as f64).sqrt()
}

/// The slope of the least-squares line through (log steps, -log error).
fn order_of(solver: &dyn Fn(&GaussianMixture, Tensor<4>, &[NoiseLevel]) -> Tensor<4>) -> f64 {
    let steps = [40, 80, 160, 320];
    let points: Vec<(f64, f64)> = steps.map(|steps| ((steps as f64).log2(), -error_of(solver, steps).log2())).to_vec();
    let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / points.len() as f64;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    covariance / points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>()
}

#[track_caller]
fn assert_order(name: &str, expected: f64, solver: &dyn Fn(&GaussianMixture, Tensor<4>, &[NoiseLevel]) -> Tensor<4>) {
    let order = order_of(solver);
    assert!((order - expected).abs() < 0.3, "{name}: order {order:.2} instead of {expected}");
}

#[test]
fn solvers_of_first_order_reach_it() {
    assert_order("ddim", 1.0, &|denoiser, x, levels| {
        let options = DdimOptions { clip: None, ..DdimOptions::default() };
        ddim(denoiser, x, levels, options, &Noise::new(0), &mut |_| ()).expect("a chain")
    });
    assert_order("euler", 1.0, &|denoiser, x, levels| euler(denoiser, x, levels, None, &mut |_| ()).expect("a chain"));
    assert_order("ddim inversion", 1.0, &|denoiser, x, levels| {
        // to the image by an accurate solver, back by the inversion, and to the image again
        let fine: Vec<NoiseLevel> = self::levels(4 * (levels.len() - 1));
        let options = DpmSolverOptions { order: 3, clip: None, ..DpmSolverOptions::default() };
        let there = dpm_solver_plus_plus(denoiser, x, &fine, options.clone(), &Noise::new(0), &mut |_| ());
        let back = ddim_inversion(denoiser, there.expect("a chain"), levels, 0, &mut |_| ()).expect("a chain");
        dpm_solver_plus_plus(denoiser, back, &fine, options, &Noise::new(0), &mut |_| ()).expect("a chain")
    });
}

#[test]
fn solvers_of_second_order_reach_it() {
    assert_order("heun", 2.0, &|denoiser, x, levels| heun(denoiser, x, levels, None, &mut |_| ()).expect("a chain"));
    assert_order("edm without churn", 2.0, &|denoiser, x, levels| {
        let options = EdmOptions { clip: None, ..EdmOptions::default() };
        edm_stochastic(denoiser, x, levels, &level, options, &Noise::new(0), &mut |_| ()).expect("a chain")
    });
    for second_order in [SecondOrder::Midpoint, SecondOrder::Heun] {
        assert_order(&format!("dpm-solver++ 2M, {second_order:?}"), 2.0, &|denoiser, x, levels| {
            let options = DpmSolverOptions { second_order, clip: None, ..DpmSolverOptions::default() };
            dpm_solver_plus_plus(denoiser, x, levels, options, &Noise::new(0), &mut |_| ()).expect("a chain")
        });
    }
    assert_order("deis of 2", 2.0, &|denoiser, x, levels| {
        let options = DeisOptions { clip: None, ..DeisOptions::default() };
        deis(denoiser, x, levels, options, &mut |_| ()).expect("a chain")
    });
    for variant in [UniPcVariant::Bh1, UniPcVariant::Bh2] {
        assert_order(&format!("unip of 2, {variant:?}"), 2.0, &|denoiser, x, levels| {
            let options = UniPcOptions {
                variant,
                corrector: false,
                lower_order_final: false,
                clip: None,
                ..UniPcOptions::default()
            };
            unipc(denoiser, x, levels, options, &mut |_| ()).expect("a chain")
        });
    }
}

#[test]
fn solvers_of_higher_order_reach_the_order_of_their_variant() {
    let no_clip = DpmSolverOptions { clip: None, ..DpmSolverOptions::default() };
    for (third_order, expected) in [(ThirdOrder::Peers, 2.0), (ThirdOrder::Exact, 3.0)] {
        assert_order(&format!("dpm-solver++ 3M, {third_order:?}"), expected, &|denoiser, x, levels| {
            let options = DpmSolverOptions { order: 3, third_order, ..no_clip.clone() };
            dpm_solver_plus_plus(denoiser, x, levels, options, &Noise::new(0), &mut |_| ()).expect("a chain")
        });
    }
    assert_order("deis of 3", 3.0, &|denoiser, x, levels| {
        let options = DeisOptions { order: 3, clip: None, ..DeisOptions::default() };
        deis(denoiser, x, levels, options, &mut |_| ()).expect("a chain")
    });
    for (order, expected) in [(2, 3.0), (3, 4.0)] {
        assert_order(&format!("unipc of {order}"), expected, &|denoiser, x, levels| {
            let options = UniPcOptions { order, lower_order_final: false, clip: None, ..UniPcOptions::default() };
            unipc(denoiser, x, levels, options, &mut |_| ()).expect("a chain")
        });
    }
    assert_order("pndm", 2.0, &|denoiser, x, levels| {
        pndm(denoiser, x, levels, PndmOptions { clip: None, ..PndmOptions::default() }, &mut |_| ()).expect("a chain")
    });
}
