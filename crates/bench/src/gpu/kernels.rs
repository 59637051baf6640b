//! The stage `kernels`: each operation on the device against its composition in f64 on the CPU, and its time.
//!
//! An operation that fails may leave a device that fails from then on: the next one runs in a new process.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use burn::tensor::{DType, Device, Tensor, TensorData};
use serde_json::json;

use super::{
    Session,
    networks::Format,
    rounded,
    worker::{self, Limit, shortened},
};
use crate::operations::{Case, Operation, numbers, operations};

/// The batch size of comparisons: the reference in f64 is slow.
const COMPARED: usize = 2;
/// The batch size of times: that of the preset `cifar10`.
const TIMED: usize = 128;
/// Rounds of calls, of which the quickest counts, and calls of one round.
const ROUNDS: (usize, usize) = (3, 10);
/// The longest time of an operation, with the compilation of its kernels.
const LONGEST: u64 = 30;

/// The largest error that passes, over the largest value of a tensor.
fn tolerance(format: Format) -> f64 {
    match format.dtype {
        DType::F32 if format.tf32 => 5e-3,
        DType::F32 => 1e-4,
        DType::BF16 => 5e-2,
        _ => 1e-2,
    }
}

pub fn run(session: &Session) -> anyhow::Result<()> {
    match &session.part {
        Some(part) => compare(session, part),
        None => session.formats().iter().try_for_each(|format| in_processes(session, *format)),
    }
}

/// The operations with a batch size, or small ones.
fn cases(session: &Session, batch: usize) -> Vec<Case> {
    if session.small { operations(|_| 1, 4) } else { operations(|_| batch, 1) }
}

/// Runs all operations in one process, or, after each that fails, the rest in a new one.
fn in_processes(session: &Session, format: Format) -> anyhow::Result<()> {
    let cases = cases(session, TIMED);
    let mut next = 0;
    while next < cases.len() {
        if session.left() < Duration::from_secs(1) {
            let message = format!("no time was left for the last {} operations", cases.len() - next);
            return session.skipped(format.name, &message);
        }
        let limit = Limit { total: session.left(), line: session.limit(LONGEST) };
        let ended = worker::run(&mut session.worker(&format!("{}:{next}", format.name))?, limit, true)?;
        let Some(failure) = ended.failure() else { return Ok(()) };
        next += ended.lines.len();
        let is_reported = ended.lines.last().is_some_and(|(_, line)| line.contains("\"result\":\"failed\""));
        if !is_reported && next < cases.len() {
            session.failed(&format!("{}: {}", format.name, cases[next].name), &failure)?;
            next += 1;
        }
        if ended.lines.is_empty() && ended.status.is_some_and(|status| status.code() == Some(1)) {
            // not an operation: there is no device
            return Ok(());
        }
    }
    Ok(())
}

/// Compares and times the operations from an index on, and ends at the first that fails.
fn compare(session: &Session, part: &str) -> anyhow::Result<()> {
    let (format, first) = part.split_once(':').context("a part is FORMAT:INDEX")?;
    let format = Format::named(format).with_context(|| format!("there is no format `{format}`"))?;
    let first: usize = first.parse().with_context(|| format!("`{first}` is no index"))?;
    let device = session.open()?;
    if !format.is_supported(&device) {
        return session.skipped(format.name, "the device does not compute in it");
    }
    kernels::tensor_cores::allow_tf32(format.tf32);
    for (compared, timed) in cases(session, COMPARED).into_iter().zip(cases(session, TIMED)).skip(first) {
        let name = format!("{}: {}", format.name, timed.name);
        let results = || -> anyhow::Result<_> {
            let error = largest_error(&compared, &device, format.dtype)?;
            let times =
                if error.is_finite() { times(&timed, &device, format.dtype, session.small)? } else { [f64::NAN; 2] };
            Ok((error, times))
        };
        let (error, [forward, both]) = match catch_unwind(AssertUnwindSafe(results)) {
            Ok(Ok(results)) => results,
            Ok(Err(error)) => return fail(session, &name, &format!("{error:#}")),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text =
                    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message");
                return fail(session, &name, text);
            }
        };
        let failure = (error > tolerance(format)).then(|| format!("the largest error is above {}", tolerance(format)));
        session.judged(
            &name,
            failure,
            json!({
                "largest_error": rounded(error),
                "forward_ms": rounded(1e3 * forward),
                "forward_and_backward_ms": rounded(1e3 * both),
            }),
        )?;
    }
    Ok(())
}

/// Reports an operation, and ends the process.
fn fail(session: &Session, name: &str, message: &str) -> anyhow::Result<()> {
    session.failed(name, &shortened(message))?;
    bail!("{name}: {message}")
}

/// The largest difference of the result and all gradients, over the largest value of each, or over 1.
fn largest_error(case: &Case, device: &Device, dtype: DType) -> anyhow::Result<f64> {
    // the same rounded numbers for both
    let round = |values: Vec<f32>| -> Vec<f64> {
        let count = values.len();
        TensorData::new(values, [count]).convert_dtype(dtype).iter::<f64>().collect()
    };
    let inputs: Vec<Vec<f64>> = (1..).zip(&case.lengths).map(|(seed, length)| round(numbers(*length, seed))).collect();
    let ours = evaluate(&case.ours, &inputs, round, device, dtype)?;
    let reference = evaluate(&case.composed, &inputs, round, &Device::flex(), DType::F64)?;
    let mut largest = 0f64;
    for (ours, reference) in ours.iter().zip(&reference) {
        let scale = reference.iter().fold(1f64, |scale, value| scale.max(value.abs()));
        for (ours, reference) in ours.iter().zip(reference) {
            let difference = (ours - reference).abs() / scale;
            // NaN counts as the largest
            largest = if difference.is_nan() { f64::INFINITY } else { largest.max(difference) };
        }
    }
    Ok(largest)
}

/// The result, and the gradient of each input of a weighted sum of the results.
fn evaluate(
    operation: &Operation,
    inputs: &[Vec<f64>],
    round: impl Fn(Vec<f32>) -> Vec<f64>,
    device: &Device,
    dtype: DType,
) -> anyhow::Result<Vec<Vec<f64>>> {
    let device = device.clone().autodiff();
    let upload = |values: Vec<f64>| {
        let count = values.len();
        Tensor::<1>::from_data(TensorData::new(values, [count]), (&device, dtype))
    };
    let leaves: Vec<Tensor<1>> = inputs.iter().map(|values| upload(values.clone()).require_grad()).collect();
    let result = operation(&leaves);
    let weights = upload(round(numbers(result.dims()[0], 99)));
    let gradients = (result.clone() * weights).sum().backward();
    let read = |tensor: Tensor<1>| -> anyhow::Result<Vec<f64>> {
        Ok(tensor.try_into_data().context("cannot read a result")?.iter::<f64>().collect())
    };
    let mut values = vec![read(result.inner())?];
    for leaf in &leaves {
        values.push(read(leaf.grad(&gradients).context("an input has no gradient")?)?);
    }
    Ok(values)
}

/// The seconds of a forward pass, and of a forward and a backward pass.
fn times(case: &Case, device: &Device, dtype: DType, small: bool) -> anyhow::Result<[f64; 2]> {
    let (rounds, calls) = if small { (1, 1) } else { ROUNDS };
    let autodiff = device.clone().autodiff();
    let upload = |(seed, length): (u64, &usize)| {
        Tensor::<1>::from_data(TensorData::new(numbers(*length, seed), [*length]), (&autodiff, dtype))
    };
    let inputs: Vec<Tensor<1>> = (1..).zip(&case.lengths).map(upload).collect();
    let inner: Vec<Tensor<1>> = inputs.iter().map(|input| input.clone().inner()).collect();
    let forward = || drop((case.ours)(&inner));
    let both = || {
        let leaves: Vec<_> = inputs.iter().map(|input| input.clone().require_grad()).collect();
        drop((case.ours)(&leaves).sum().backward());
    };
    let time = |work: &dyn Fn()| -> anyhow::Result<f64> {
        let mut quickest = f64::INFINITY;
        // the first round compiles
        for round in 0..=rounds {
            let began = Instant::now();
            (0..calls).for_each(|_| work());
            device.sync().context("cannot wait for the device")?;
            if round > 0 {
                quickest = quickest.min(began.elapsed().as_secs_f64() / calls as f64);
            }
        }
        Ok(quickest)
    };
    Ok([time(&forward)?, time(&both)?])
}
