//! `diffuse nll`.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use checkpoint::Model;
use clap::{Args, ValueEnum};
use data::{ImageSet, LoadOptions, Split};
use likelihood::{BoundOptions, FlowOptions, flow_bits, mean_and_error, variational_bound};
use noise::Noise;
use pipeline::NetworkDenoiser;
use serde_json::{Value, json};

use crate::{
    UsageError,
    arguments::{ModelArguments, count, load_model},
    model_images::{batch, load_options},
    read_data::{ColumnArguments, open_data},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Method {
    /// The variational bound with the discrete decoder, term by term
    Bound,
    /// The probability-flow ODE with uniform dequantization
    Flow,
}

#[derive(Args)]
pub struct NllArguments {
    /// The images; of a dataset with two parts, the held-out part
    #[arg(long, value_name = "NAME|PATH")]
    data: String,
    #[command(flatten)]
    columns: ColumnArguments,
    /// Take the part that models are trained on instead
    #[arg(long)]
    train_split: bool,
    /// Number of images at most, spread evenly over the data
    #[arg(long, default_value_t = 64, value_parser = count(1..))]
    count: usize,
    /// bound: an upper bound by all timesteps; flow: the probability-flow ODE
    #[arg(long, value_enum, default_value_t = Method::Bound)]
    method: Method,
    /// Tolerance of the flow's adaptive solver; 0.001 if not given
    #[arg(long)]
    tolerance: Option<f64>,
    #[command(flatten)]
    model: ModelArguments,
}

/// Tolerance of the flow without `--tolerance`.
const TOLERANCE: f64 = 1e-3;
/// Number of ranges of timesteps that the terms of a bound are summed over for printing.
const RANGES: usize = 10;

/// Bits per dimension of each image, and further results of the method.
struct Report {
    method: &'static str,
    bits: Vec<f64>,
    json: Value,
    lines: Vec<String>,
}

pub fn run(arguments: NllArguments) -> anyhow::Result<()> {
    if arguments.tolerance.is_some() && arguments.method != Method::Flow {
        return Err(UsageError(
            "--tolerance is of --method flow: the bound has no solver; leave one of them out".to_owned(),
        )
        .into());
    }
    let (_, device) = arguments.model.common.open_device()?;
    let device = if arguments.method == Method::Flow { device.autodiff() } else { device };
    let model = load_model(&arguments.model.path, &device)?;
    let images = read(&arguments, &model)?;
    eprintln!("{} images of {}, {}x{}", images.len(), images.name(), images.height(), images.width());

    let noise = Noise::new(arguments.model.seed);
    let Report { method, bits, mut json, mut lines } = match arguments.method {
        Method::Bound => bound(&model, &images, &noise, &device)?,
        Method::Flow => flow(&model, &images, arguments.tolerance.unwrap_or(TOLERANCE), &noise, &device)?,
    };
    let (count, name) = (bits.len(), images.name());
    let (mean, error) = mean_and_error(&bits);
    json["method"] = method.into();
    json["images"] = name.into();
    json["count"] = count.into();
    json["bits_per_dimension"] = mean.into();
    json["standard_error"] = error.into();
    // one image has no standard error
    let (error, noun) = if count > 1 { (format!(" +- {error:.4}"), "images") } else { (String::new(), "image") };
    lines.insert(0, format!("bits/dim  {mean:.4}{error} ({method}, {count} {noun} of {name})"));
    arguments.model.common.print(json, lines.join("\n"))
}

/// Reads the images with 8 bits, which the likelihoods are of.
fn read(arguments: &NllArguments, model: &Model) -> anyhow::Result<ImageSet> {
    let options = LoadOptions {
        sixteen_bits: false,
        split: if arguments.train_split { Split::Train } else { Split::Test },
        limit: Some(arguments.count),
        ..load_options(model.header.image, &arguments.columns)
    };
    match open_data(&arguments.data, &options) {
        Err(error) if error.is_missing_split() && !arguments.train_split => {
            Err(anyhow::Error::new(error).context("no held-out images; --train-split takes the other part"))
        }
        opened => Ok(opened?.images),
    }
}

/// The variational bound of each image.
fn bound(model: &Model, images: &ImageSet, noise: &Noise, device: &Device) -> anyhow::Result<Report> {
    let schedule = model.header.schedule.build()?;
    let variance = model.header.sampling.variance;
    let (mut bits, mut prior, mut terms) = (Vec::new(), Vec::new(), vec![Vec::new(); schedule.timesteps()]);
    for range in batches(model, images) {
        let denoiser = NetworkDenoiser::new(model, labels(model, images, range.clone(), device));
        let options = BoundOptions { variance, noise_indices: noise_indices(&range), ..BoundOptions::default() };
        let x_0 = batch(images, range.clone(), device);
        let bound = variational_bound(&denoiser, x_0, &schedule, options, noise, &mut |t| {
            if t.is_multiple_of(100) {
                eprintln!("images {} to {}: timestep {t}", range.start, range.end - 1);
            }
        })?;
        bits.extend(bound.total);
        prior.extend(bound.prior);
        terms.iter_mut().zip(bound.terms).for_each(|(all, term)| all.extend(term));
    }
    let prior = mean_and_error(&prior).0;
    let terms: Vec<f64> = terms.iter().map(|term| mean_and_error(term).0).collect();
    let mut lines = vec![format!("prior     {prior:.5}"), format!("decoder   {:.4} (timestep 0)", terms[0])];
    let size = (terms.len() - 1).div_ceil(RANGES).max(1);
    lines.extend(terms[1..].chunks(size).enumerate().map(|(index, range)| {
        let (first, last) = (1 + index * size, index * size + range.len());
        format!("t {first:>4}..{last:<4} {:.4}", range.iter().sum::<f64>())
    }));
    Ok(Report { method: "bound", bits, json: json!({ "prior": prior, "terms": terms }), lines })
}

/// The likelihood of each image by the probability-flow ODE.
fn flow(model: &Model, images: &ImageSet, tolerance: f64, noise: &Noise, device: &Device) -> anyhow::Result<Report> {
    let schedule = model.header.schedule.build()?;
    let (mut bits, mut nfe) = (Vec::new(), 0);
    for range in batches(model, images) {
        let denoiser = NetworkDenoiser::new(model, labels(model, images, range.clone(), device));
        let options = FlowOptions { tolerance, noise_indices: noise_indices(&range), ..FlowOptions::default() };
        let mut steps = 0;
        let found =
            flow_bits(&denoiser, batch(images, range.clone(), device), &schedule, options, noise, &mut |sigma| {
                steps += 1;
                if steps % 20 == 0 {
                    eprintln!("images {} to {}: step {steps}, sigma {sigma:.3}", range.start, range.end - 1);
                }
            })?;
        bits.extend(found.bits);
        nfe += found.nfe;
    }
    let lines = vec![format!("NFE       {nfe} over all batches, each with its gradient")];
    Ok(Report { method: "flow", bits, json: json!({ "nfe": nfe }), lines })
}

/// Ranges of images that go through the network at a time.
fn batches(model: &Model, images: &ImageSet) -> impl Iterator<Item = Range<usize>> {
    let (count, size) = (images.len(), model.header.sampling.batch_size.max(1));
    (0..count).step_by(size).map(move |start| start..(start + size).min(count))
}

fn noise_indices(range: &Range<usize>) -> Option<Vec<u64>> {
    Some((range.start as u64..range.end as u64).collect())
}

/// Classes of images, if the model and the images have classes and the model has those of the images.
fn labels(model: &Model, images: &ImageSet, range: Range<usize>, device: &Device) -> Option<Tensor<1, Int>> {
    let header = &model.header;
    let label_of = |index: usize| {
        let label = images.label(index)?;
        // by name: other data may number the classes otherwise
        match images.class_names() {
            Some(names) if !header.classes.is_empty() => {
                let name = &names[label as usize];
                Some(header.classes.iter().position(|class| class == name).map_or(i64::MAX, |at| at as i64))
            }
            _ => Some(i64::from(label)),
        }
    };
    let labels: Vec<i64> = range.filter_map(label_of).collect();
    let are_known = !labels.is_empty() && labels.iter().all(|label| *label < header.unet.classes() as i64);
    let shape = [labels.len()];
    are_known.then(|| Tensor::from_data(TensorData::new(labels, shape), device))
}
