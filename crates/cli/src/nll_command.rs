//! `diffuse nll`.

use std::path::PathBuf;

use burn::tensor::{Tensor, TensorData};
use checkpoint::Model;
use clap::{Args, ValueEnum};
use data::{ImageSet, LoadOptions, Padding, Split};
use likelihood::{BoundOptions, FlowOptions, flow_bits, mean_and_error, variational_bound};
use noise::Noise;
use pipeline::NetworkDenoiser;

use crate::{
    UsageError, print_result,
    read_data::{ColumnArguments, open_data},
    sample_command::model_file,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Method {
    /// The variational bound with the discrete decoder, term by term
    Bound,
    /// The probability-flow ODE, pixels spread over their steps
    Flow,
}

#[derive(Args)]
pub struct NllArguments {
    /// A run directory or a model file
    #[arg(value_name = "RUN|FILE")]
    model: PathBuf,
    /// The images: their held-out part, where they come in two
    #[arg(long, value_name = "NAME|PATH")]
    data: String,
    #[command(flatten)]
    columns: ColumnArguments,
    /// Take the part that models are trained on instead
    #[arg(long)]
    train_split: bool,
    /// At most so many images, spread evenly over the data
    #[arg(long, default_value_t = 64)]
    count: usize,
    /// bound: an upper bound by all timesteps; flow: the probability-flow ODE
    #[arg(long, value_enum, default_value_t = Method::Bound)]
    method: Method,
    /// Tolerance of the flow's adaptive solver
    #[arg(long, default_value_t = 1e-3)]
    tolerance: f64,
    /// The same seed draws the same noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// flex (the CPU), wgpu, vulkan, metal, cuda, rocm
    #[arg(long)]
    device: Option<String>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// What is printed of the terms of a bound: so many ranges of timesteps.
const RANGES: usize = 10;

pub fn run(arguments: NllArguments) -> anyhow::Result<()> {
    if arguments.count == 0 {
        return Err(UsageError("--count 0 is not possible: it must be at least 1".to_owned()).into());
    }
    let (_, device) = device::open_or_default(arguments.device.as_deref())?;
    let device = if arguments.method == Method::Flow { device.autodiff() } else { device };
    let model = Model::load(&model_file(&arguments.model)?, &device)?;
    let image = model.header.image;
    let split = if arguments.train_split { Split::Train } else { Split::Test };
    // the bits are those of bytes
    let read = LoadOptions { sixteen_bits: false, ..options(&model, &arguments.columns, split, arguments.count) };
    let opened = open_data(&arguments.data, &read);
    let images = match opened {
        Err(error) if error.is_missing_split() && !arguments.train_split => {
            return Err(anyhow::Error::new(error).context("no held-out images; --train-split takes the other part"));
        }
        opened => opened?.images,
    };
    eprintln!("{} images of {}, {}x{}", images.len(), images.name(), image.height, image.width);

    let schedule = model.header.schedule.build()?;
    let noise = Noise::new(arguments.seed);
    let mut bits = Vec::new();
    let (mut terms, mut prior, mut nfe) = (vec![Vec::new(); schedule.timesteps()], Vec::new(), 0);
    for start in (0..images.len()).step_by(model.header.sampling.batch_size.max(1)) {
        let end = (start + model.header.sampling.batch_size.max(1)).min(images.len());
        let x_0 = batch(&images, start..end, &device);
        let labels = labels(&model, &images, start..end, &device);
        let denoiser = NetworkDenoiser::new(&model, labels);
        let noise_indices = Some((start as u64..end as u64).collect());
        match arguments.method {
            Method::Bound => {
                let variance = model.header.sampling.variance;
                let options = BoundOptions { variance, noise_indices, ..BoundOptions::default() };
                let bound = variational_bound(&denoiser, x_0, &schedule, options, &noise, &mut |t| {
                    if t.is_multiple_of(100) {
                        eprintln!("images {start} to {}: timestep {t}", end - 1);
                    }
                })?;
                bits.extend(bound.total);
                prior.extend(bound.prior);
                terms.iter_mut().zip(bound.terms).for_each(|(all, term)| all.extend(term));
            }
            Method::Flow => {
                let options = FlowOptions { tolerance: arguments.tolerance, noise_indices, ..FlowOptions::default() };
                let mut steps = 0;
                let found = flow_bits(&denoiser, x_0, &schedule, options, &noise, &mut |sigma| {
                    steps += 1;
                    if steps % 20 == 0 {
                        eprintln!("images {start} to {}: step {steps}, sigma {sigma:.3}", end - 1);
                    }
                })?;
                bits.extend(found.bits);
                nfe += found.nfe;
            }
        }
    }
    report(&arguments, &images, &bits, &prior, &terms, nfe)
}

fn report(
    arguments: &NllArguments,
    images: &ImageSet,
    bits: &[f64],
    prior: &[f64],
    terms: &[Vec<f64>],
    nfe: usize,
) -> anyhow::Result<()> {
    let (mean, error) = mean_and_error(bits);
    let means: Vec<f64> = terms.iter().map(|term| mean_and_error(term).0).collect();
    let method = match arguments.method {
        Method::Bound => "bound",
        Method::Flow => "flow",
    };
    if arguments.json {
        let mut value = serde_json::json!({
            "method": method,
            "images": images.name(),
            "count": bits.len(),
            "bits_per_dimension": mean,
            "standard_error": error,
        });
        match arguments.method {
            Method::Bound => {
                value["prior"] = mean_and_error(prior).0.into();
                value["terms"] = means.into();
            }
            Method::Flow => value["nfe"] = nfe.into(),
        }
        return print_result(value);
    }
    print_result(format_args!(
        "bits/dim  {mean:.4} +- {error:.4} ({method}, {} images of {})",
        bits.len(),
        images.name()
    ))?;
    match arguments.method {
        Method::Flow => print_result(format_args!("network   asked {nfe} times for each batch and its gradient")),
        Method::Bound => {
            print_result(format_args!("prior     {:.5}", mean_and_error(prior).0))?;
            print_result(format_args!("decoder   {:.4} (timestep 0)", means[0]))?;
            let rest = &means[1..];
            let size = rest.len().div_ceil(RANGES).max(1);
            for (index, range) in rest.chunks(size).enumerate() {
                let (first, last) = (1 + index * size, index * size + range.len());
                print_result(format_args!("t {first:>4}..{last:<4} {:.4}", range.iter().sum::<f64>()))?;
            }
            Ok(())
        }
    }
}

/// How images are read that a model is to see as it saw those of its training.
pub fn options(model: &Model, columns: &ColumnArguments, split: Split, limit: usize) -> LoadOptions {
    let image = model.header.image;
    let padded = (image.height, image.width) != (image.content_height, image.content_width);
    LoadOptions {
        size: Some((image.content_height, image.content_width)),
        channels: Some(image.channels),
        padding: match padded {
            true => Padding::To { height: image.height, width: image.width, fill: 0 },
            false => Padding::None,
        },
        limit: Some(limit),
        split,
        sixteen_bits: image.bits == 16,
        image_column: columns.image_column.clone(),
        label_column: columns.label_column.clone(),
        ..LoadOptions::default()
    }
}

/// Images `[batch, channels, height, width]` in [-1, 1].
pub fn batch(images: &ImageSet, range: std::ops::Range<usize>, device: &burn::tensor::Device) -> Tensor<4> {
    let shape = [range.len(), images.channels(), images.height(), images.width()];
    let mut values = vec![0f32; shape.iter().product()];
    for (index, out) in range.zip(values.chunks_exact_mut(images.image_len())) {
        images.write_chw_f32(index, false, out);
    }
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Their classes, where the model knows classes and the images have them.
fn labels(
    model: &Model,
    images: &ImageSet,
    range: std::ops::Range<usize>,
    device: &burn::tensor::Device,
) -> Option<Tensor<1, burn::tensor::Int>> {
    let classes = model.header.unet.classes;
    let label_of = |index: usize| {
        let label = images.label(index)?;
        // by name, for what has other classes than the training images numbers them otherwise
        match images.class_names() {
            Some(names) if !model.header.classes.is_empty() => {
                let name = &names[label as usize];
                Some(model.header.classes.iter().position(|class| class == name).map_or(i64::MAX, |at| at as i64))
            }
            _ => Some(i64::from(label)),
        }
    };
    let labels: Vec<i64> = range.filter_map(label_of).collect();
    let known = classes > 0 && !labels.is_empty() && labels.iter().all(|label| *label < classes as i64);
    known.then(|| {
        let count = labels.len();
        Tensor::from_data(TensorData::new(labels, [count]), device)
    })
}
