//! The likelihood by the probability-flow ODE (Song, Sohl-Dickstein, Kingma, Kumar, Ermon and Poole 2021, arXiv:2011.13456,
//! appendix D.2), with Hutchinson's estimate of the divergence and an adaptive Runge-Kutta method.

use burn::tensor::{Tensor, TensorData};
use core::f64::consts::{LN_2, TAU};
use noise::{Noise, Purpose};
use sampler::Denoiser;
use schedule::Schedule;

use crate::error::LikelihoodError;

/// Options of [`flow_bits`].
#[derive(Clone, Debug, PartialEq)]
pub struct FlowOptions {
    /// The largest error of a step, in the image (root mean square) and in ln p per dimension. Above 0.
    pub tolerance: f64,
    /// The most steps of the solver, after which it is an error.
    pub max_steps: usize,
    /// Number of Hutchinson probes, the random directions of the trace estimate; at least 1. Each costs a forward and a
    /// backward pass at each evaluation of the ODE.
    pub probes: usize,
    /// Whether to spread each of the 256 pixel values evenly over its step (uniform dequantization): then the result is an
    /// upper bound of the bits of the discrete image. Otherwise the result is that of the density at `x_0` times the step.
    pub dequantize: bool,
    /// Noise index of each image; None numbers them from 0.
    pub noise_indices: Option<Vec<u64>>,
}

impl Default for FlowOptions {
    fn default() -> Self {
        Self { tolerance: 1e-4, max_steps: 2000, probes: 1, dequantize: true, noise_indices: None }
    }
}

/// The result of [`flow_bits`].
#[derive(Clone, Debug, PartialEq)]
pub struct FlowResult {
    /// Bits per dimension, one for each image.
    pub bits: Vec<f64>,
    /// Number of network evaluations.
    pub nfe: usize,
}

/// Returns `-log2 p(x_0)` in bits per dimension, one for each image. `observe` is called with the sigma after each step.
///
/// With y = x / alpha the ODE is `dy / d sigma = epsilon`, from the sigma of the first timestep to that of the last, where x is
/// standard normal; along it `d ln p(y) / d sigma = -div epsilon`. The divergence is `v . d(epsilon . v)/dy` for random signs v
/// (Hutchinson 1989), drawn once for the whole path. The variable of integration is ln sigma.
///
/// # Shapes
/// - `x_0`: `[batch, channels, height, width]` in [-1, 1], on a device with autodiff, as is the denoiser
///
/// # Errors
/// [`LikelihoodError::NoSignal`], [`LikelihoodError::OutOfRange`], [`LikelihoodError::TooManySteps`] and
/// [`LikelihoodError::NotFinite`].
pub fn flow_bits(
    denoiser: &dyn Denoiser,
    x_0: Tensor<4>,
    schedule: &Schedule,
    options: FlowOptions,
    noise: &Noise,
    observe: &mut dyn FnMut(f64),
) -> Result<FlowResult, LikelihoodError> {
    let (first, last) = (schedule.level(0), schedule.level(schedule.timesteps() - 1));
    if last.alpha_bar == 0.0 {
        return Err(LikelihoodError::NoSignal);
    }
    for (name, value, is_in_range, range) in [
        ("tolerance", options.tolerance, options.tolerance > 0.0, "above 0"),
        ("probes", options.probes as f64, options.probes > 0, "at least 1"),
    ] {
        if !is_in_range {
            return Err(LikelihoodError::OutOfRange { name, value, range });
        }
    }
    let [batch, channels, height, width] = x_0.dims();
    let dimensions = channels * height * width;
    let noise_indices = options.noise_indices.clone().unwrap_or_else(|| (0..batch as u64).collect());
    let uniform_images = |step: u64| {
        let mut values = vec![0f32; batch * dimensions];
        for (noise_index, image) in noise_indices.iter().zip(values.chunks_mut(dimensions.max(1))) {
            noise.stream(Purpose::Evaluation).uniform(*noise_index, step, image);
        }
        let data = TensorData::new(values, [batch, channels, height, width]);
        Tensor::<4>::from_data(data, (&x_0.device(), x_0.dtype()))
    };
    let probes: Vec<Tensor<4>> = (1..=options.probes as u64).map(|step| (uniform_images(step) - 0.5).sign()).collect();
    let dequantization = options.dequantize.then(|| (uniform_images(0) - 0.5) * (2.0 / 255.0));
    let x_0 = dequantization.map_or(x_0.clone(), |offset| x_0 + offset);

    let mut nfe = 0;
    let mut slope = |state: &State, ln_sigma: f64| {
        nfe += probes.len();
        slope(denoiser, schedule, &probes, state, ln_sigma.exp())
    };
    // the image at the first timestep is taken to be the clean one
    let start = State { y: x_0 / first.signal_scale(), divergence: vec![0.0; batch] };
    let span = [first.sigma().ln(), last.sigma().ln()];
    let end = dormand_prince(&mut slope, start, span, &options, observe)?;

    let x_t = end.y * last.signal_scale();
    let dimensions = dimensions as f64;
    let bits: Vec<f64> = sums(x_t.clone() * x_t)
        .into_iter()
        .zip(&end.divergence)
        .map(|(square, divergence)| {
            let ln_prior = -0.5 * (square + dimensions * TAU.ln());
            // from the density of x at the last level to that of y, along the path, and to that of x at the first
            let volume = dimensions * (last.signal_scale().ln() - first.signal_scale().ln());
            // a step of 2/255 holds the mass of a pixel value
            -(ln_prior + volume + divergence) / dimensions / LN_2 - (2.0f64 / 255.0).log2()
        })
        .collect();
    if bits.iter().all(|bits| bits.is_finite()) {
        Ok(FlowResult { bits, nfe })
    } else {
        Err(LikelihoodError::NotFinite { sigma: last.sigma() })
    }
}

/// The state of the ODE, or its derivative.
#[derive(Clone, Debug)]
struct State {
    /// The image over alpha.
    y: Tensor<4>,
    /// The integral of the divergence, one for each image.
    divergence: Vec<f64>,
}

impl State {
    /// `self + width * sum_i factors[i] slopes[i]`.
    fn plus(&self, width: f64, slopes: &[State], factors: &[f64]) -> State {
        let mut sum = self.clone();
        for (slope, factor) in slopes.iter().zip(factors).filter(|(_, factor)| **factor != 0.0) {
            sum.y = sum.y + slope.y.clone() * (width * factor);
            for (sum, divergence) in sum.divergence.iter_mut().zip(&slope.divergence) {
                *sum += width * factor * divergence;
            }
        }
        sum
    }
}

/// The sum over channels and pixels, one for each image.
fn sums(x: Tensor<4>) -> Vec<f64> {
    let batch = x.dims()[0];
    x.reshape([batch as i32, -1]).sum_dim(1).into_data().iter::<f64>().collect()
}

/// d/d ln(sigma) of the state: sigma epsilon, and sigma div epsilon.
fn slope(denoiser: &dyn Denoiser, schedule: &Schedule, probes: &[Tensor<4>], state: &State, sigma: f64) -> State {
    let level = schedule.level_at_sigma(sigma);
    let mut slope = State { y: state.y.zeros_like(), divergence: vec![0.0; state.divergence.len()] };
    // a backward pass consumes its graph, so that each probe needs a forward pass of its own
    for probe in probes {
        let y = state.y.clone().detach().require_grad();
        let epsilon = denoiser.denoise(y.clone() * level.signal_scale(), level, None).epsilon;
        let gradients = (epsilon.clone() * probe.clone()).sum().backward();
        if let Some(gradient) = y.grad(&gradients) {
            for (sum, divergence) in slope.divergence.iter_mut().zip(sums(gradient * probe.clone().inner())) {
                *sum += sigma * divergence / probes.len() as f64;
            }
        }
        slope.y = epsilon.detach() * sigma;
    }
    slope
}

/// Dormand and Prince's method of fifth order, whose steps are as long as the error of its fourth order allows (Hairer,
/// Norsett and Wanner 1993, table II.5.2), over `span` of ln(sigma).
fn dormand_prince(
    slope: &mut dyn FnMut(&State, f64) -> State,
    start: State,
    [from, to]: [f64; 2],
    options: &FlowOptions,
    observe: &mut dyn FnMut(f64),
) -> Result<State, LikelihoodError> {
    const NODES: [f64; 7] = [0.0, 0.2, 0.3, 0.8, 8.0 / 9.0, 1.0, 1.0];
    const STAGES: [[f64; 6]; 7] = [
        [0.0; 6],
        [0.2, 0.0, 0.0, 0.0, 0.0, 0.0],
        [3.0 / 40.0, 9.0 / 40.0, 0.0, 0.0, 0.0, 0.0],
        [44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0, 0.0, 0.0, 0.0],
        [19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0, 0.0, 0.0],
        [9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0, 0.0],
        [35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
    ];
    const ERROR: [f64; 7] =
        [71.0 / 57600.0, 0.0, -71.0 / 16695.0, 71.0 / 1920.0, -17253.0 / 339200.0, 22.0 / 525.0, -1.0 / 40.0];
    let dimensions = (start.y.dims()[1..].iter().product::<usize>()) as f64;
    let (mut state, mut time, mut width) = (start, from, (to - from) / 50.0);
    let mut first = slope(&state, time);
    let mut steps = 0;
    while time < to {
        if steps == options.max_steps {
            return Err(LikelihoodError::TooManySteps { steps, sigma: time.exp(), tolerance: options.tolerance });
        }
        steps += 1;
        let is_last = time + width >= to;
        if is_last {
            width = to - time;
        }
        let mut slopes = vec![first.clone()];
        let mut next = state.clone();
        for stage in 1..7 {
            next = state.plus(width, &slopes, &STAGES[stage][..stage]);
            slopes.push(slope(&next, time + NODES[stage] * width));
        }
        // `next` is the state of the seventh stage, which is the result
        let zero = State { y: state.y.zeros_like(), divergence: vec![0.0; state.divergence.len()] };
        let error = zero.plus(width, &slopes, &ERROR);
        // relative to the size of the image, which grows with sigma
        let size = (time + width).exp().max(1.0);
        let of_image = (error.y.clone() * error.y).mean().sqrt().into_scalar::<f32>();
        let of_density = error.divergence.iter().fold(0.0, |most: f64, error| most.max(error.abs())) / dimensions;
        let ratio = (f64::from(of_image) / size).max(of_density) / options.tolerance;
        if !ratio.is_finite() {
            return Err(LikelihoodError::NotFinite { sigma: time.exp() });
        }
        if ratio <= 1.0 {
            (state, time) = (next, if is_last { to } else { time + width });
            if let Some(last) = slopes.pop() {
                first = last;
            }
            observe(time.exp());
        }
        width *= (0.9 * ratio.max(1e-10).powf(-0.2)).clamp(0.2, 5.0);
    }
    Ok(state)
}
