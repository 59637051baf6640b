//! The convolutions against their definition as loops in f64, bit-identity across thread pools, and non-finite numbers.

use kernels::cpu::convolution::{Algorithm, Convolution};
use proptest::prelude::*;

/// Numbers in [-1, 1) from a linear congruential generator.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

struct Case {
    shape: Convolution,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    y_gradient: Vec<f32>,
}

/// `y`, and the gradients of the input, the weights and the bias.
type Outputs<T> = [Vec<T>; 4];

impl Case {
    fn new(shape: Convolution, seed: u64) -> Self {
        let Convolution { batch, height, width, channels_in, channels_out, kernel, .. } = shape;
        let [height_out, width_out] = shape.output_size();
        Self {
            shape,
            x: numbers(batch * height * width * channels_in, seed),
            weight: numbers(channels_out * channels_in * kernel * kernel, seed + 1),
            bias: numbers(channels_out, seed + 2),
            y_gradient: numbers(batch * height_out * width_out * channels_out, seed + 3),
        }
    }

    /// The outputs by the definition of a convolution.
    fn reference(&self) -> Outputs<f64> {
        let Convolution { batch, height, width, channels_in, channels_out, kernel, stride, padding, upsample } =
            self.shape;
        let [height_out, width_out] = self.shape.output_size();
        let scale = if upsample { 2 } else { 1 };
        let zeros = |values: &[f32]| vec![0.0; values.len()];
        let mut outputs = [zeros(&self.y_gradient), zeros(&self.x), zeros(&self.weight), zeros(&self.bias)];
        let [y, x_gradient, weight_gradient, bias_gradient] = &mut outputs;
        for pixel in 0..batch * height_out * width_out {
            let (image, i, j) = (pixel / width_out / height_out, pixel / width_out % height_out, pixel % width_out);
            for output in 0..channels_out {
                let gradient = f64::from(self.y_gradient[pixel * channels_out + output]);
                let mut sum = f64::from(self.bias[output]);
                bias_gradient[output] += gradient;
                for tap in 0..kernel * kernel {
                    let (row, column) = (i * stride + tap / kernel, j * stride + tap % kernel);
                    if row < padding || column < padding {
                        continue;
                    }
                    let (row, column) = ((row - padding) / scale, (column - padding) / scale);
                    if row >= height || column >= width {
                        continue;
                    }
                    for input in 0..channels_in {
                        let at = ((image * height + row) * width + column) * channels_in + input;
                        let weight_at = (output * channels_in + input) * kernel * kernel + tap;
                        let (x, weight) = (f64::from(self.x[at]), f64::from(self.weight[weight_at]));
                        sum += x * weight;
                        x_gradient[at] += gradient * weight;
                        weight_gradient[weight_at] += gradient * x;
                    }
                }
                y[pixel * channels_out + output] = sum;
            }
        }
        outputs
    }

    fn compute(&self, algorithm: Algorithm) -> Outputs<f32> {
        let poison = |values: &[f32]| vec![f32::NAN; values.len()];
        let mut outputs = [poison(&self.y_gradient), poison(&self.x), poison(&self.weight), poison(&self.bias)];
        let [y, x_gradient, weight_gradient, bias_gradient] = &mut outputs;
        self.shape.forward_by(algorithm, &self.x, &self.weight, Some(&self.bias), y);
        self.shape.input_gradient_by(algorithm, &self.y_gradient, &self.weight, x_gradient);
        self.shape.weight_gradient_by(algorithm, &self.x, &self.y_gradient, weight_gradient, Some(bias_gradient));
        outputs
    }

    /// Largest error of each output, relative to its root mean square or half of its expectation; infinite if a value is NaN.
    fn errors(&self, algorithm: Algorithm) -> [f64; 4] {
        let (expected, actual) = (self.reference(), self.compute(algorithm));
        let mut errors = [0.0; 4];
        let multiplications = self.y_gradient.len() * self.shape.channels_in * self.shape.kernel.pow(2);
        let [y, x, weight, bias] = [&self.y_gradient, &self.x, &self.weight, &self.bias].map(Vec::len);
        // root mean squares of sums of products, and of sums, of numbers drawn evenly from -1 to 1
        let products = |outputs: usize| (multiplications as f64 / outputs as f64 / 9.0).sqrt();
        let usual = [products(y), products(x), products(weight), (y as f64 / bias as f64 / 3.0).sqrt()];
        for (((error, expected), actual), usual) in errors.iter_mut().zip(&expected).zip(&actual).zip(usual) {
            let mean_square = expected.iter().map(|value| value * value).sum::<f64>() / expected.len() as f64;
            // a few sums may all be small by chance, while their rounding is that of the larger sums on the way
            let scale = mean_square.sqrt().max(0.5 * usual);
            for (expected, &actual) in expected.iter().zip(actual) {
                let distance = (expected - f64::from(actual)).abs() / scale;
                *error = if distance.is_nan() { f64::INFINITY } else { distance.max(*error) };
            }
        }
        errors
    }

    /// Compares all outputs with the reference.
    fn check(&self) {
        for &algorithm in algorithms(&self.shape) {
            let errors = self.errors(algorithm);
            let bound = bound(algorithm);
            assert!(errors.iter().all(|&error| error < bound), "{algorithm:?} of {:?}: {errors:?}", self.shape);
        }
    }
}

fn algorithms(shape: &Convolution) -> &'static [Algorithm] {
    if [shape.kernel, shape.stride, shape.padding] == [3, 1, 1] {
        &[Algorithm::Im2col, Algorithm::Winograd2, Algorithm::Winograd4]
    } else {
        &[Algorithm::Im2col]
    }
}

/// Largest error relative to the root mean square of an output, for numbers between -1 and 1 and sums of up to a few
/// thousand terms.
fn bound(algorithm: Algorithm) -> f64 {
    match algorithm {
        Algorithm::Im2col | Algorithm::Winograd2 => 2e-5,
        Algorithm::Winograd4 => 1.5e-4,
    }
}

fn three(batch: usize, [height, width]: [usize; 2], [channels_in, channels_out]: [usize; 2]) -> Convolution {
    let (kernel, stride, padding, upsample) = (3, 1, 1, false);
    Convolution { batch, height, width, channels_in, channels_out, kernel, stride, padding, upsample }
}

/// Shapes for every path through the code: shared and own weights, one and several blocks and parts, upsampling.
fn shapes() -> Vec<Convolution> {
    vec![
        three(2, [8, 8], [64, 64]),
        three(2, [4, 4], [130, 129]),
        three(3, [14, 14], [32, 96]),
        three(16, [8, 7], [72, 70]),
        three(1, [1, 1], [1, 1]),
        Convolution { upsample: true, ..three(2, [4, 4], [130, 70]) },
        Convolution { upsample: true, ..three(2, [5, 7], [1, 3]) },
        Convolution { upsample: true, ..three(3, [8, 8], [20, 33]) },
        Convolution { upsample: true, kernel: 5, padding: 3, stride: 2, ..three(2, [5, 4], [3, 4]) },
        Convolution { kernel: 7, padding: 3, ..three(2, [9, 12], [3, 64]) },
        Convolution { kernel: 7, padding: 3, ..three(2, [2, 1], [2, 5]) },
        Convolution { kernel: 2, padding: 0, stride: 2, ..three(4, [8, 9], [64, 96]) },
        Convolution { kernel: 1, padding: 0, ..three(2, [8, 8], [96, 130]) },
        Convolution { kernel: 1, padding: 0, ..three(4, [8, 8], [300, 260]) },
        Convolution { kernel: 1, padding: 0, stride: 2, ..three(2, [5, 5], [7, 6]) },
    ]
}

#[test]
fn common_shapes_match_the_definition() {
    for shape in shapes() {
        Case::new(shape, 1).check();
    }
}

#[test]
fn threads_change_no_bit() {
    for shape in shapes() {
        // large enough for several threads
        let case = Case::new(Convolution { batch: shape.batch * 4, ..shape }, 2);
        for &algorithm in algorithms(&shape) {
            let with = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
                pool.install(|| case.compute(algorithm)).map(|output| output.into_iter().map(f32::to_bits).collect())
            };
            let one: Outputs<u32> = with(1);
            for threads in [2, 3] {
                assert!(one == with(threads), "{algorithm:?} of {shape:?} with {threads} threads");
            }
        }
    }
}

#[test]
fn non_finite_numbers_stay_visible() {
    for shape in shapes() {
        for &algorithm in algorithms(&shape) {
            for (bad, place) in [f32::NAN, f32::INFINITY].into_iter().flat_map(|bad| [(bad, 0), (bad, 1), (bad, 2)]) {
                let mut case = Case::new(shape, 3);
                let values = [&mut case.x, &mut case.weight, &mut case.y_gradient];
                let middle = values[place].len() / 2;
                values.into_iter().nth(place).expect("one of three")[middle] = bad;
                let (expected, actual) = (case.reference(), case.compute(algorithm));
                for (expected, actual) in expected.iter().zip(&actual) {
                    for (&expected, &actual) in expected.iter().zip(actual) {
                        assert!(expected.is_finite() || !actual.is_finite(), "{algorithm:?} of {shape:?} hides {bad}");
                    }
                }
            }
        }
    }
}

#[test]
fn bias_is_optional() {
    for shape in shapes() {
        let case = Case::new(shape, 4);
        for &algorithm in algorithms(&shape) {
            let [with, _, with_gradient, _] = case.compute(algorithm);
            let (mut without, mut gradient) = (with.clone(), vec![f32::NAN; with_gradient.len()]);
            shape.forward_by(algorithm, &case.x, &case.weight, None, &mut without);
            shape.weight_gradient_by(algorithm, &case.x, &case.y_gradient, &mut gradient, None);
            assert_eq!(gradient, with_gradient);
            for (index, (with, without)) in with.iter().zip(&without).enumerate() {
                let bias = case.bias[index % shape.channels_out];
                assert!((with - without - bias).abs() < 1e-4, "{algorithm:?} of {shape:?}: {with} - {without}, {bias}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "length of the weights")]
fn lengths_are_checked() {
    let shape = three(1, [4, 4], [2, 2]);
    shape.forward(&[0.0; 32], &[0.0; 35], None, &mut [0.0; 32]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn three_by_three_matches_the_definition(
        batch in 1usize..4,
        size in [1usize..12, 1usize..12],
        channels in [1usize..40, 1usize..40],
        upsample: bool,
        seed: u64,
    ) {
        Case::new(Convolution { upsample, ..three(batch, size, channels) }, seed >> 8).check();
    }

    #[test]
    fn any_kernel_matches_the_definition(
        batch in 1usize..4,
        size in [1usize..12, 1usize..12],
        channels in [1usize..24, 1usize..24],
        kernel in 1usize..8,
        stride in 1usize..4,
        padding in 0usize..5,
        upsample: bool,
        seed: u64,
    ) {
        let shape = Convolution { kernel, stride, padding, upsample, ..three(batch, size, channels) };
        let scale = if upsample { 2 } else { 1 };
        prop_assume!(size.iter().all(|side| side * scale + 2 * padding >= kernel));
        Case::new(shape, seed >> 8).check();
    }
}
