//! `bench ops`: each operation alone, forward and with its gradients, at the shapes of a U-Net, with criterion.
//!
//! The throughput of a convolution counts the multiplications and additions of the direct algorithm, so that Winograd's can
//! exceed that of a matrix product, which is measured first, in the same run.

use criterion::{BenchmarkId, Criterion, Throughput};

use burn::tensor::{Device, Tensor, TensorData};
use clap::Args;

use crate::operations::{numbers, operations};

#[derive(Args)]
pub struct OpsArguments {
    /// Only operations whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
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
    for case in operations(|batch| batch, 1) {
        if !is_wanted(&case.name) {
            continue;
        }
        let inputs: Vec<_> = (1..).zip(&case.lengths).map(|(seed, length)| random(*length, seed, &autodiff)).collect();
        let inner: Vec<_> = inputs.iter().map(|input| input.clone().inner()).collect();
        let mut group = criterion.benchmark_group(&case.name);
        group.throughput(Throughput::Elements(case.work as u64));
        group.bench_function(BenchmarkId::from_parameter("forward"), |bencher| bencher.iter(|| (case.ours)(&inner)));
        // a forward pass and a gradient for each input are three times the work
        group.throughput(Throughput::Elements(3 * case.work as u64));
        group.bench_function(BenchmarkId::from_parameter("forward and backward"), |bencher| {
            bencher.iter(|| {
                let leaves: Vec<_> = inputs.iter().map(|input| input.clone().require_grad()).collect();
                (case.ours)(&leaves).sum().backward()
            });
        });
    }
    Ok(())
}

/// Random numbers, uniform in (-1, 1).
fn random(count: usize, seed: u64, device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(numbers(count, seed), [count]), device)
}
