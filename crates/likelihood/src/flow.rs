//! The likelihood by the probability-flow ODE (Song, Sohl-Dickstein, Kingma, Kumar, Ermon and Poole 2021, arXiv:2011.13456,
//! appendix D.2), with Hutchinson's estimate of the divergence and an adaptive Runge-Kutta method.

use burn::tensor::Tensor;
use core::f64::consts::{LN_2, TAU};
use noise::{Noise, Purpose};
use sampler::Denoiser;
use schedule::{NoiseLevel, Schedule};

use crate::error::LikelihoodError;

/// How [`flow_bits`] computes.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowOptions {
    /// The largest error of a step, of the image (root mean square) and of ln p for each dimension. Above 0.
    pub tolerance: f64,
    /// The solver gives up after so many steps.
    pub most_steps: usize,
    /// Random directions for the trace, each another backward pass a step; at least 1.
    pub probes: usize,
    /// Whether pixels of 256 values are spread evenly over their step (uniform dequantization): then the result is a bound of the
    /// bits of the discrete image. Otherwise `x_0` is taken as it is, and the result is that of its density times the step.
    pub dequantize: bool,
    /// Which image of the seed each one in the batch is; None numbers them from 0.
    pub noise_indices: Option<Vec<u64>>,
}

impl Default for FlowOptions {
    fn default() -> Self {
        Self { tolerance: 1e-4, most_steps: 2000, probes: 1, dequantize: true, noise_indices: None }
    }
}

/// What [`flow_bits`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowResult {
    /// Bits for each dimension, one for each image.
    pub bits: Vec<f64>,
    /// How often the denoiser was asked.
    pub nfe: usize,
}

/// `-log2 p(x_0)` in bits for each dimension, one for each image.
///
/// With y = x / alpha the ODE is `dy / d sigma = epsilon`, from the sigma of the first timestep to that of the last, where x is
/// standard normal; along it `d ln p(y) / d sigma = -div epsilon`. The divergence is `v . d(epsilon . v)/dy` for random signs v
/// (Hutchinson 1989), drawn once for the whole path. The variable of integration is ln sigma.
///
/// # Shapes
/// - `x_0`: `[batch, channels, height, width]` in [-1, 1], on a device with autodiff, as is the denoiser
///
/// # Errors
/// [`LikelihoodError`]; among them that the solver does not get on.
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
    for (name, value, good, range) in [
        ("tolerance", options.tolerance, options.tolerance > 0.0, "above 0"),
        ("probes", options.probes as f64, options.probes > 0, "at least 1"),
    ] {
        if !good {
            return Err(LikelihoodError::OutOfRange { name, value, range });
        }
    }
    let [batch, channels, height, width] = x_0.dims();
    let dimensions = (channels * height * width) as f64;
    let noise_indices = options.noise_indices.clone().unwrap_or_else(|| (0..batch as u64).collect());
    let device = x_0.device();
    let format = x_0.dtype();
    let draw = |step: u64| {
        let values: Vec<f64> = noise_indices
            .iter()
            .flat_map(|sample| {
                let mut values = vec![0f32; channels * height * width];
                noise.stream(Purpose::Evaluation).uniform(*sample, step, &mut values);
                values
            })
            .map(f64::from)
            .collect();
        let data = burn::tensor::TensorData::new(values, [batch, channels, height, width]);
        Tensor::<4>::from_data(data, (&device, format))
    };
    let x_0 = if options.dequantize { x_0 + (draw(0) - 0.5) * (2.0 / 255.0) } else { x_0 };
    let probes: Vec<Tensor<4>> = (1..=options.probes as u64).map(|probe| (draw(probe) - 0.5).sign()).collect();

    let mut nfe = 0;
    let mut slope = |state: &State, time: f64| {
        nfe += 1;
        slope(denoiser, schedule, &probes, state, time.exp())
    };
    // the first timestep's image is taken for the clean one
    let start = State { y: x_0.clone() / first.signal_scale(), change: vec![0.0; batch] };
    let (from, to) = (first.sigma().ln(), last.sigma().ln());
    let end = dormand_prince(&mut slope, start, from, to, &options, observe)?;

    let x_t = end.y.clone() * last.signal_scale();
    let squares = (x_t.clone() * x_t).reshape([batch as i32, -1]).sum_dim(1).into_data();
    let bits: Vec<f64> = squares
        .iter::<f64>()
        .zip(&end.change)
        .map(|(square, change)| {
            let ln_prior = -0.5 * (square + dimensions * TAU.ln());
            // from the density of x at the last level to that of y, along the path, and to that of x at the first
            let volume = dimensions * (last.signal_scale().ln() - first.signal_scale().ln());
            // a step of 2/255 holds the mass of a value
            -(ln_prior + volume + change) / dimensions / LN_2 - (2.0f64 / 255.0).log2()
        })
        .collect();
    match bits.iter().all(|bits| bits.is_finite()) {
        true => Ok(FlowResult { bits, nfe }),
        false => Err(LikelihoodError::NotFinite { timestep: last.timestep }),
    }
}

/// The image over alpha, and the integral of the divergence so far.
#[derive(Clone, Debug)]
struct State {
    y: Tensor<4>,
    change: Vec<f64>,
}

impl State {
    /// `self + factor * other`, for some of them.
    fn plus(&self, width: f64, slopes: &[State], factors: &[f64]) -> State {
        let mut sum = self.clone();
        for (slope, factor) in slopes.iter().zip(factors).filter(|(_, factor)| **factor != 0.0) {
            sum.y = sum.y + slope.y.clone() * (width * factor);
            sum.change.iter_mut().zip(&slope.change).for_each(|(sum, change)| *sum += width * factor * change);
        }
        sum
    }
}

/// d/d ln(sigma) of the state: sigma epsilon, and sigma div epsilon.
fn slope(denoiser: &dyn Denoiser, schedule: &Schedule, probes: &[Tensor<4>], state: &State, sigma: f64) -> State {
    let level: NoiseLevel = schedule.level_at_sigma(sigma);
    let batch = state.y.dims()[0];
    let y = state.y.clone().detach().require_grad();
    let epsilon = denoiser.denoise(y.clone() * level.signal_scale(), level, None).epsilon;
    let mut change = vec![0.0; batch];
    for probe in probes {
        let gradients = (epsilon.clone() * probe.clone()).sum().backward();
        let Some(gradient) = y.grad(&gradients) else { continue };
        let product = gradient * probe.clone().inner();
        let divergence = product.reshape([batch as i32, -1]).sum_dim(1).into_data();
        for (change, value) in change.iter_mut().zip(divergence.iter::<f64>()) {
            *change += sigma * value / probes.len() as f64;
        }
    }
    State { y: epsilon.detach() * sigma, change }
}

/// Dormand and Prince's method of fifth order, with steps as long as its error of fourth order allows (Hairer, Norsett and Wanner 1993,
/// table II.5.2).
fn dormand_prince(
    slope: &mut dyn FnMut(&State, f64) -> State,
    start: State,
    from: f64,
    to: f64,
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
        if steps == options.most_steps {
            return Err(LikelihoodError::TooManySteps { steps, sigma: time.exp(), tolerance: options.tolerance });
        }
        steps += 1;
        let at_end = time + width >= to;
        let width_now = if at_end { to - time } else { width };
        let mut slopes = vec![first.clone()];
        let mut next = state.clone();
        for stage in 1..7 {
            next = state.plus(width_now, &slopes, &STAGES[stage][..stage]);
            slopes.push(slope(&next, time + NODES[stage] * width_now));
        }
        // the seventh stage is the result
        let zero = State { y: state.y.zeros_like(), change: vec![0.0; state.change.len()] };
        let error = zero.plus(width_now, &slopes, &ERROR);
        // relative to the image's own size, which grows with sigma
        let size = (time + width_now).exp().max(1.0);
        let of_image = (error.y.clone() * error.y).mean().sqrt().into_scalar::<f32>();
        let of_change = error.change.iter().fold(0.0, |most: f64, change| most.max(change.abs())) / dimensions;
        let ratio = (f64::from(of_image) / size).max(of_change) / options.tolerance;
        if !ratio.is_finite() {
            return Err(LikelihoodError::NotFinite { timestep: time.exp() });
        }
        if ratio <= 1.0 {
            (state, time) = (next, if at_end { to } else { time + width_now });
            if let Some(last) = slopes.pop() {
                first = last;
            }
            observe(time.exp());
        }
        width = width_now * (0.9 * ratio.max(1e-10).powf(-0.2)).clamp(0.2, 5.0);
    }
    Ok(state)
}
