//! `bench ops`: each hot operation alone, forward and with its gradients, at the shapes of a U-Net, with criterion.
//!
//! The throughput of a convolution is that of the direct algorithm (two operations a multiplication and addition), so
//! that Winograd can lie above the machine's own matrix product, which is measured first, in the same run.

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

/// An operation on flat tensors.
type Operation = Box<dyn Fn(&[Tensor<1>]) -> Tensor<1>>;

/// A function of some inputs, and what it costs.
struct Case {
    name: String,
    inputs: Vec<Tensor<1>>,
    function: Operation,
    /// Operations of the forward pass for what multiplies, elements for what only passes over memory.
    work: u64,
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
        let [left, right] = [1, 2].map(|seed| numbers(size * size, seed, &device).reshape([size, size]));
        let mut group = criterion.benchmark_group("matrix product");
        group.throughput(Throughput::Elements(2 * (size as u64).pow(3)));
        group.bench_function("1024x1024x1024", |bencher| bencher.iter(|| left.clone().matmul(right.clone())));
    }
    for case in cases(&device.clone().autodiff()).into_iter().filter(|case| is_wanted(&case.name)) {
        let mut group = criterion.benchmark_group(&case.name);
        group.throughput(Throughput::Elements(case.work));
        let plain: Vec<Tensor<1>> = case.inputs.iter().map(|input| input.clone().inner()).collect();
        group
            .bench_function(BenchmarkId::from_parameter("forward"), |bencher| bencher.iter(|| (case.function)(&plain)));
        // a forward pass and a gradient for each input are three times the work
        group.throughput(Throughput::Elements(3 * case.work));
        group.bench_function(BenchmarkId::from_parameter("forward and backward"), |bencher| {
            bencher.iter(|| {
                let leaves: Vec<Tensor<1>> = case.inputs.iter().map(|input| input.clone().require_grad()).collect();
                (case.function)(&leaves).sum().backward()
            });
        });
    }
    Ok(())
}

/// Numbers in (-1, 1).
fn numbers(count: usize, seed: u64, device: &Device) -> Tensor<1> {
    let mut values = vec![0f32; count];
    noise::Noise::new(seed).stream(noise::Purpose::InitialNoise).uniform(0, 0, &mut values);
    values.iter_mut().for_each(|value| *value = 2.0 * *value - 1.0);
    Tensor::from_data(TensorData::new(values, [count]), device)
}

fn cases(device: &Device) -> Vec<Case> {
    let mut cases = Vec::new();
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
    let all = same
        .map(|(batch, side, channels_in, channels_out, kernel)| {
            (batch, side, channels_in, channels_out, kernel, Convolution::same(kernel))
        })
        .into_iter()
        .chain([
            (8, 8, 256, 128, 3, Convolution::upsampled(3)),
            (8, 16, 128, 64, 3, Convolution::upsampled(3)),
            (8, 32, 64, 64, 2, Convolution::patches(2)),
        ]);
    for (batch, side, channels_in, channels_out, kernel, options) in all {
        let upsampled = if options.upsample { " upsampled" } else { "" };
        let out_side = if options.upsample { 2 * side } else { side / options.stride };
        cases.push(Case {
            name: format!("conv {kernel}x{kernel}{upsampled} {batch}x{side}x{side}x{channels_in} to {channels_out}"),
            inputs: vec![
                numbers(batch * side * side * channels_in, 1, device),
                numbers(channels_out * channels_in * kernel * kernel, 2, device),
                numbers(channels_out, 3, device),
            ],
            function: Box::new(move |leaves| {
                let x = leaves[0].clone().reshape([batch, side, side, channels_in]);
                let weight = leaves[1].clone().reshape([channels_out, channels_in, kernel, kernel]);
                kernels::conv2d(x, weight, Some(leaves[2].clone()), options).flatten(0, 3)
            }),
            work: 2 * (batch * out_side * out_side * channels_out * channels_in * kernel * kernel) as u64,
        });
    }
    for (batch, side, channels) in [(8, 32, 64), (8, 16, 128), (8, 4, 512), (1, 28, 32)] {
        let shape = [batch, side, side, channels];
        cases.push(Case {
            name: format!("rms norm, scale-shift, silu {batch}x{side}x{side}x{channels}"),
            inputs: vec![
                numbers(batch * side * side * channels, 1, device),
                numbers(channels, 2, device),
                numbers(batch * 2 * channels, 3, device),
            ],
            function: Box::new(move |leaves| {
                let scale_shift = leaves[2].clone().reshape([batch, 2 * channels]);
                kernels::rms_norm_silu(leaves[0].clone().reshape(shape), leaves[1].clone(), Some(scale_shift))
                    .flatten(0, 3)
            }),
            work: (batch * side * side * channels) as u64,
        });
    }
    for (name, batch, positions) in
        [("linear attention", 8, 1024), ("linear attention", 8, 256), ("attention", 8, 16), ("attention", 8, 256)]
    {
        let (heads, head_dim, memory) = (4, 32, 4);
        let is_linear = name == "linear attention";
        let keys = positions + memory;
        cases.push(Case {
            name: format!("{name} {batch}x{positions}, {heads} heads of {head_dim}"),
            inputs: vec![
                numbers(batch * positions * 3 * heads * head_dim, 1, device),
                numbers(2 * heads * memory * head_dim, 2, device),
            ],
            function: Box::new(move |leaves| {
                let qkv = leaves[0].clone().reshape([batch, positions, 3 * heads * head_dim]);
                let memory_of = |shape: [usize; 4]| leaves[1].clone().reshape(shape);
                match is_linear {
                    true => kernels::linear_attention(qkv, memory_of([2, heads, head_dim, memory])),
                    false => kernels::attention(qkv, memory_of([2, heads, memory, head_dim])),
                }
                .flatten(0, 2)
            }),
            work: match is_linear {
                true => 2 * (batch * heads * head_dim * head_dim * (keys + positions)) as u64,
                false => 4 * (batch * heads * head_dim * keys * positions) as u64,
            },
        });
    }
    for name in ["silu", "gelu"] {
        cases.push(Case {
            name: format!("{name} of 524288"),
            inputs: vec![numbers(1 << 19, 1, device)],
            function: Box::new(move |leaves| match name {
                "silu" => kernels::silu(leaves[0].clone()),
                _ => kernels::gelu(leaves[0].clone()),
            }),
            work: 1 << 19,
        });
    }
    cases.push(Case {
        name: "concat channels 8x32x32x64 and 64".to_owned(),
        inputs: vec![numbers(1 << 19, 1, device), numbers(1 << 19, 2, device)],
        function: Box::new(move |leaves| {
            let [first, second] = [0, 1].map(|index: usize| leaves[index].clone().reshape([8, 32, 32, 64]));
            kernels::concat_channels(first, second).flatten(0, 3)
        }),
        work: 1 << 20,
    });
    cases
}
