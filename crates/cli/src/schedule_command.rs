//! `diffuse schedule`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use data::LoadOptions;
use noise::{Noise, Purpose, forward::q_sample};
use picture::{LineChart, Panels, Pixels, save_png, strip};
use pipeline::pictures;
use schedule::{BetaSchedule, NoiseLevel, Schedule};
use serde_json::json;

use crate::{model_images::batch, print_result};

#[derive(Args)]
pub struct ScheduleArguments {
    /// linear, linear_unscaled, scaled_linear, quadratic, constant, cosine, sigmoid or edm
    #[arg(long, default_value = "cosine")]
    family: BetaSchedule,
    /// Number of timesteps
    #[arg(long, default_value_t = 1000)]
    timesteps: usize,
    /// One JSON object with all values on standard output
    #[arg(long)]
    json: bool,
    /// Draw schedule.svg, schedule.png and destroyed.png, a digit in the forward process, into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub fn run(arguments: ScheduleArguments) -> anyhow::Result<()> {
    let name = arguments.family.name();
    let schedule = Schedule::new(&arguments.family, arguments.timesteps)?;
    let files = match &arguments.out {
        Some(folder) => draw(&schedule, name, folder)?,
        None => Vec::new(),
    };
    if arguments.json {
        return print_result(json!({
            "family": name,
            "timesteps": arguments.timesteps,
            "betas": schedule.betas(),
            "alpha_bars": schedule.alpha_bars(),
            "posterior_variance": schedule.posterior_variance(),
            "posterior_log_variance_clipped": schedule.posterior_log_variance_clipped(),
            "posterior_mean_coef1": schedule.posterior_mean_coef1(),
            "posterior_mean_coef2": schedule.posterior_mean_coef2(),
            "snr": schedule.snr(),
            "files": files,
        }));
    }
    if files.is_empty() {
        print_result("t\tbeta\talpha_bar\tsnr")?;
        let last = arguments.timesteps - 1;
        let mut shown: Vec<usize> = (0..=10).map(|tenth| last * tenth / 10).collect();
        shown.dedup();
        for t in shown {
            let (beta, level) = (schedule.beta(t), schedule.level(t));
            print_result(format_args!("{t}\t{beta:.6e}\t{:.6e}\t{:.6e}", level.alpha_bar, level.snr()))?;
        }
    }
    files.iter().try_for_each(|file| print_result(file.display()))
}

/// Writes the curves of a schedule and a picture of the forward process, and returns the files.
fn draw(schedule: &Schedule, name: &str, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    files::create_folder(folder).context("the drawings need a folder; name one with --out")?;
    let files = ["schedule.svg", "schedule.png", "destroyed.png"].map(|name| folder.join(name));
    let panels = curves(schedule, name);
    panels.save_svg(&files[0])?;
    panels.save_png(&files[1])?;
    save_png(&forward_process(schedule)?, &files[2])?;
    Ok(files.to_vec())
}

fn curves(schedule: &Schedule, name: &str) -> Panels {
    let points = |values: &[f64]| -> Vec<(f64, f64)> {
        values.iter().enumerate().map(|(t, value)| (t as f64, *value)).collect()
    };
    let panel = |title: &str, label: &str| LineChart::new(format!("{title}, {name}"), "timestep t", label);
    let lost: Vec<f64> = schedule.alpha_bars().iter().map(|alpha_bar| 1.0 - alpha_bar).collect();
    let alpha_bars = panel("signal and noise left", "share")
        .with_series("alpha_bar", points(schedule.alpha_bars()))
        .with_series("1 - alpha_bar", points(&lost));
    let betas = panel("noise added in a step", "beta")
        .with_series("beta", points(schedule.betas()))
        .with_series("posterior variance", points(schedule.posterior_variance()));
    let snr = panel("signal-to-noise ratio", "SNR").with_series("SNR", points(schedule.snr())).with_log_y();
    Panels { charts: vec![alpha_bars, betas, snr], columns: 3 }
}

/// A digit at ten noise levels, x_0 first.
fn forward_process(schedule: &Schedule) -> anyhow::Result<Pixels> {
    let (_, device) = device::open_or_default(None)?;
    let images = data::open("mnist-5k", &LoadOptions::default())?.images;
    let x_0 = batch(&images, 0..1, &device);
    let [_, channels, height, width] = x_0.dims();
    let epsilon = Noise::new(0).stream(Purpose::Evaluation).normal_images(&[0], 0, [channels, height, width], &device);
    let last = schedule.timesteps() - 1;
    let levels = std::iter::once(NoiseLevel::CLEAN).chain((1..10).map(|part| schedule.level(last * part / 9)));
    let mut frames = Vec::new();
    for level in levels {
        frames.extend(pictures(q_sample(x_0.clone(), epsilon.clone(), &[level]))?);
    }
    Ok(strip(&frames, 2, 2)?)
}
