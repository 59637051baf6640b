//! `diffuse schedule`.

use std::path::PathBuf;

use anyhow::Context;
use burn::tensor::Tensor;
use clap::Args;
use data::LoadOptions;
use noise::{Noise, Purpose, forward::q_sample};
use picture::{LineChart, Panels, Pixels, save_png, strip};
use schedule::{BetaSchedule, NoiseLevel, Schedule};

use crate::{UsageError, print_result};

#[derive(Args)]
pub struct ScheduleArguments {
    /// linear, linear_unscaled, scaled_linear, quadratic, constant, cosine or sigmoid
    #[arg(long, default_value = "cosine")]
    family: String,
    /// Number of steps T
    #[arg(long, default_value_t = 1000)]
    timesteps: usize,
    /// All values as one JSON object on standard output
    #[arg(long)]
    json: bool,
    /// Draw schedule.svg, schedule.png and destroyed.png, a real image being destroyed, here
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub fn run(arguments: ScheduleArguments) -> anyhow::Result<()> {
    let family: BetaSchedule = arguments.family.parse().map_err(|error| UsageError(format!("--family: {error}")))?;
    let schedule = Schedule::new(&family, arguments.timesteps)?;
    let mut files = Vec::new();
    if let Some(folder) = &arguments.out {
        files::create_folder(folder).context("the drawings need a folder; name one with --out")?;
        let panels = draw(&schedule, &arguments.family);
        panels.save_svg(folder.join("schedule.svg"))?;
        panels.save_png(folder.join("schedule.png"))?;
        save_png(&destroyed(&schedule)?, folder.join("destroyed.png"))?;
        files = ["schedule.svg", "schedule.png", "destroyed.png"].map(|name| folder.join(name)).to_vec();
    }
    if arguments.json {
        return print_result(serde_json::json!({
            "family": arguments.family,
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

fn draw(schedule: &Schedule, name: &str) -> Panels {
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

/// A digit at ten moments of the forward process.
fn destroyed(schedule: &Schedule) -> anyhow::Result<Pixels> {
    let (_, device) = device::open_or_default(None)?;
    let images = data::open("mnist-5k", &LoadOptions::default())?.images;
    let mut values = vec![0f32; images.image_len()];
    images.write_chw_f32(0, false, &mut values);
    let shape = [images.channels(), images.height(), images.width()];
    let x_0 = Tensor::<1>::from_floats(values.as_slice(), &device).reshape([1, shape[0], shape[1], shape[2]]);
    let epsilon = Noise::new(0).stream(Purpose::Evaluation).normal_images(&[0], 0, shape, &device);
    let last = schedule.timesteps() - 1;
    let levels = std::iter::once(NoiseLevel::CLEAN).chain((1..10).map(|part| schedule.level(last * part / 9)));
    let mut frames = Vec::new();
    for level in levels {
        let x_t: Vec<f32> = q_sample(x_0.clone(), epsilon.clone(), &[level]).into_data().iter::<f32>().collect();
        frames.push(Pixels::from_chw(shape[1], shape[2], shape[0], &x_t)?);
    }
    Ok(strip(&frames, 2, 2)?)
}
