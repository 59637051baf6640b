//! `diffuse average`.

use std::path::PathBuf;

use clap::Args;

use crate::print_result;

#[derive(Args)]
pub struct AverageArguments {
    /// A run that was trained with training.post_hoc_ema.snapshot_every
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Width of the average as a share of the training, 0.005 to 0.28: small follows the last weights, 0.28 is nearly the mean
    /// of all
    #[arg(long)]
    relative_width: f64,
    /// The step at which the average ends; the last if not given
    #[arg(long)]
    step: Option<u64>,
    /// Where the model goes; RUN/average-WIDTH.safetensors if not given
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// flex (the CPU), wgpu, vulkan, metal, cuda, rocm
    #[arg(long)]
    device: Option<String>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: AverageArguments) -> anyhow::Result<()> {
    let (_, device) = device::open_or_default(arguments.device.as_deref())?;
    let width = arguments.relative_width;
    let model = train::average(&arguments.run.join("averages"), arguments.step, width, &device)?;
    let out = arguments.out.unwrap_or_else(|| arguments.run.join(format!("average-{width}.safetensors")));
    model.save(&out)?;
    if arguments.json {
        return print_result(serde_json::json!({ "model": out, "relative_width": width }));
    }
    print_result(format_args!("model  {}", out.display()))
}
