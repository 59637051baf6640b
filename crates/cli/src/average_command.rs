//! `diffuse average`.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde_json::json;
use train::RunFiles;

use crate::arguments::CommonArguments;

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
    #[command(flatten)]
    common: CommonArguments,
}

pub fn run(arguments: AverageArguments) -> anyhow::Result<()> {
    let AverageArguments { run, relative_width, step, out, common } = arguments;
    let files = RunFiles { directory: run.clone() };
    if files.config().exists() && !files.averages().exists() {
        bail!(
            "the run {} has no snapshots to average: they are written while it trains, with training.post_hoc_ema.snapshot_every = \
             STEPS",
            run.display()
        );
    }
    let (_, device) = common.open_device()?;
    let model = train::average(&files.averages(), step, relative_width, &device)?;
    let out = out.unwrap_or_else(|| run.join(format!("average-{relative_width}.safetensors")));
    model.save(&out)?;
    common.print(json!({ "model": out, "relative_width": relative_width }), format_args!("model  {}", out.display()))
}
