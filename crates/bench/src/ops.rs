//! `bench ops`: each operation alone, forward and with its gradients, at the shapes of a U-Net, with criterion.
//!
//! The throughput of a convolution counts the multiplications and additions of the direct algorithm, so that Winograd's can
//! exceed that of a matrix product, which is measured first, in the same run.

use criterion::{BenchmarkId, Criterion, Throughput};

use burn::tensor::{Device, Tensor, TensorData};
use clap::Args;
use kernels::Convolution;

#[derive(Args)]
pub struct OpsArguments {
    /// Only operations whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

/// A function of flat tensors.
type Operation = Box<dyn Fn(&[Tensor<1>]) -> Tensor<1>>;

/// An operation, its inputs and its work.
struct Case {
    name: String,
    /// Lengths of the inputs.
    lengths: Vec<usize>,
    function: Operation,
    /// Multiplications and additions of the forward pass, or elements for an operation bound by memory.
    work: usize,
}

pub fn run(arguments: &OpsArguments) -> anyhow::Result<()> {
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs_f64(arguments.seconds.max(0.1)));
    let is_wanted = |name: &str| arguments.only.as_ref().is_none_or(|part| name.contains(part.as_str()));
    let device = Device::flex();
    if is_wanted("matrix product") {
        let size = 1024;
        let [left, right] = [1, 2].map(|seed| random(size * size, seed, &device).reshape([size, size]));
        let mut group = criterion.benchmark_group("matrix product");
        group.throughput(Throughput::Elements(2 * (size as u64).pow(3)));
        group.bench_function("1024x1024x1024", |bencher| bencher.iter(|| left.clone().matmul(right.clone())));
    }
    let autodiff = device.autodiff();
    for case in [convolutions(), norms(), attentions(), elementwise()].into_iter().flatten() {
        if !is_wanted(&case.name) {
            continue;
        }
        let inputs: Vec<_> = (1..).zip(&case.lengths).map(|(seed, length)| random(*length, seed, &autodiff)).collect();
        let inner: Vec<_> = inputs.iter().map(|input| input.clone().inner()).collect();
        let mut group = criterion.benchmark_group(&case.name);
        group.throughput(Throughput::Elements(case.work as u64));
        group
            .bench_function(BenchmarkId::from_parameter("forward"), |bencher| bencher.iter(|| (case.function)(&inner)));
        // a forward pass and a gradient for each input are three times the work
        group.throughput(Throughput::Elements(3 * case.work as u64));
        group.bench_function(BenchmarkId::from_parameter("forward and backward"), |bencher| {
            bencher.iter(|| {
                let leaves: Vec<_> = inputs.iter().map(|input| input.clone().require_grad()).collect();
                (case.function)(&leaves).sum().backward()
            });
        });
    }
    Ok(())
}

/// Random numbers, uniform in (-1, 1).
fn random(count: usize, seed: u64, device: &Device) -> Tensor<1> {
    let mut values = vec![0f32; count];
    noise::Noise::new(seed).stream(noise::Purpose::InitialNoise).uniform(0, 0, &mut values);
    values.iter_mut().for_each(|value| *value = 2.0 * *value - 1.0);
    Tensor::from_data(TensorData::new(values, [count]), device)
}

fn convolutions() -> Vec<Case> {
    // batch, side of the input, channels in and out, kernel
    let same = [
        (8, 32, 64, 64, 3),
        (8, 32, 128, 64, 3),
        (8, 16, 128, 128, 3),
        (8, 8, 256, 256, 3),
        (8, 4, 512, 512, 3),
        (32, 14, 64, 64, 3),
        (1, 28, 32, 32, 3),
        (8, 32, 3, 64, 7),
        (8, 32, 64, 384, 1),
        (8, 4, 512, 384, 1),
    ];
    let others = [
        (8, 8, 256, 128, 3, Convolution::upsampled(3)),
        (8, 16, 128, 64, 3, Convolution::upsampled(3)),
        (8, 32, 64, 64, 2, Convolution::patches(2)),
    ];
    let same = same.map(|(batch, side, from, to, kernel)| (batch, side, from, to, kernel, Convolution::same(kernel)));
    let case = |(batch, side, channels_in, channels_out, kernel, options): (_, _, _, _, _, Convolution)| {
        let upsampled = if options.upsample { " upsampled" } else { "" };
        let out_side = if options.upsample { 2 * side } else { side / options.stride };
        let weights = channels_out * channels_in * kernel * kernel;
        Case {
            name: format!("conv {kernel}x{kernel}{upsampled} {batch}x{side}x{side}x{channels_in} to {channels_out}"),
            lengths: vec![batch * side * side * channels_in, weights, channels_out],
            function: Box::new(move |leaves| {
                let x = leaves[0].clone().reshape([batch, side, side, channels_in]);
                let weight = leaves[1].clone().reshape([channels_out, channels_in, kernel, kernel]);
                kernels::conv2d(x, weight, Some(leaves[2].clone()), options).flatten(0, 3)
            }),
            work: 2 * batch * out_side * out_side * weights,
        }
    };
    same.into_iter().chain(others).map(case).collect()
}

fn norms() -> Vec<Case> {
    let case = |(batch, side, channels)| {
        let elements = batch * side * side * channels;
        Case {
            name: format!("rms norm, scale-shift, silu {batch}x{side}x{side}x{channels}"),
            lengths: vec![elements, channels, batch * 2 * channels],
            function: Box::new(move |leaves| {
                let x = leaves[0].clone().reshape([batch, side, side, channels]);
                let scale_shift = leaves[2].clone().reshape([batch, 2 * channels]);
                kernels::rms_norm_silu(x, leaves[1].clone(), Some(scale_shift)).flatten(0, 3)
            }),
            work: elements,
        }
    };
    [(8, 32, 64), (8, 16, 128), (8, 4, 512), (1, 28, 32)].map(case).into()
}

fn attentions() -> Vec<Case> {
    let (batch, heads, head_dim, memory) = (8, 4, 32, 4);
    let case = |(is_linear, positions)| {
        let keys = positions + memory;
        let name = if is_linear { "linear attention" } else { "attention" };
        let products = if is_linear { head_dim * (keys + positions) } else { 2 * keys * positions };
        Case {
            name: format!("{name} {batch}x{positions}, {heads} heads of {head_dim}"),
            lengths: vec![batch * positions * 3 * heads * head_dim, 2 * heads * memory * head_dim],
            function: Box::new(move |leaves| {
                let qkv = leaves[0].clone().reshape([batch, positions, 3 * heads * head_dim]);
                let memory_of = |shape: [usize; 4]| leaves[1].clone().reshape(shape);
                let output = if is_linear {
                    kernels::linear_attention(qkv, memory_of([2, heads, head_dim, memory]))
                } else {
                    kernels::attention(qkv, memory_of([2, heads, memory, head_dim]))
                };
                output.flatten(0, 2)
            }),
            work: 2 * batch * heads * head_dim * products,
        }
    };
    [(true, 1024), (true, 256), (false, 16), (false, 256)].map(case).into()
}

/// Operations bound by memory.
fn elementwise() -> Vec<Case> {
    let length = 1 << 19;
    let activation = |name: &str, function: fn(Tensor<1>) -> Tensor<1>| Case {
        name: format!("{name} of {length}"),
        lengths: vec![length],
        function: Box::new(move |leaves| function(leaves[0].clone())),
        work: length,
    };
    let concatenation = Case {
        name: "concat channels 8x32x32x64 and 64".to_owned(),
        lengths: vec![length, length],
        function: Box::new(|leaves| {
            let [first, second] = [0, 1].map(|index: usize| leaves[index].clone().reshape([8, 32, 32, 64]));
            kernels::concat_channels(first, second).flatten(0, 3)
        }),
        work: 2 * length,
    };
    vec![activation("silu", kernels::silu), activation("gelu", kernels::gelu), concatenation]
}
