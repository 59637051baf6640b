//! `diffuse plan`: the sampler, spacing and number of steps that come nearest to the exact chain in a given time.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, anyhow};
use checkpoint::Model;
use clap::Args;
use noise::Noise;
use picture::LineChart;
use pipeline::{Request, generate};
use sampler::SamplerKind;
use schedule::Spacing;
use serde::Serialize;
use serde_json::json;

use crate::arguments::{ModelArguments, count, model_file};

#[derive(Args)]
pub struct PlanArguments {
    /// Time for the images, such as 2s or 500ms
    #[arg(long, value_parser = seconds)]
    budget: f64,
    /// Number of images to draw in that time
    #[arg(long, default_value_t = 20, value_parser = count(1..=4096))]
    count: usize,
    /// Steps of the reference, by DPM-Solver++ 3M
    #[arg(long, default_value_t = 250)]
    reference_steps: usize,
    /// Where the plot goes, as SVG; plan.svg beside the model if not given
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print the plan, and leave the model unchanged
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    model: ModelArguments,
}

/// Parses `2s`, `500ms`, or a number of seconds.
fn seconds(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number * unit),
        _ => Err(format!("`{text}` is no time: write 2s or 500ms")),
    }
}

/// The deterministic samplers, whose images can be compared with the reference.
const KINDS: [SamplerKind; 7] = {
    use SamplerKind::{Ddim, Deis, Dpmpp2m, Dpmpp3m, Heun, Pndm, Unipc};
    [Ddim, Heun, Dpmpp2m, Dpmpp3m, Unipc, Deis, Pndm]
};
const SPACINGS: [Spacing; 3] = [Spacing::Uniform, Spacing::Karras, Spacing::Lucidrains];
const STEPS: [usize; 9] = [3, 4, 6, 8, 10, 15, 20, 30, 50];

/// A sampler that was tried.
#[derive(Clone, Debug, Serialize)]
struct Trial {
    sampler: SamplerKind,
    spacing: Spacing,
    steps: usize,
    nfe: usize,
    seconds: f64,
    /// Root mean square distance to the reference from the same noise, in units of [-1, 1] pixels.
    error: f64,
}

pub fn run(arguments: PlanArguments) -> anyhow::Result<()> {
    let (mut model, _) = arguments.model.open()?;
    let file = model_file(&arguments.model.path)?;
    let trials = try_all(&arguments, model.clone())?;
    let front = pareto(&trials);
    let chosen = front.iter().rev().find(|trial| trial.seconds <= arguments.budget).ok_or_else(|| {
        anyhow!(
            "nothing draws {} images within {} s: the quickest took {:.2} s; allow more time or draw fewer",
            arguments.count,
            arguments.budget,
            front.first().map_or(f64::NAN, |trial| trial.seconds)
        )
    })?;
    let plot = match &arguments.plot {
        Some(plot) => plot.clone(),
        None => file.parent().context("the model file lies in no folder")?.join("plan.svg"),
    };
    let chart = chart(&trials);
    if let Some(chart) = &chart {
        chart.save_svg(&plot)?;
    }
    let mut lines =
        vec!["| sampler | spacing | steps | NFE | seconds | error |\n| --- | --- | --- | --- | --- | --- |".to_owned()];
    lines.extend(front.iter().map(|Trial { sampler, spacing, steps, nfe, seconds, error }| {
        format!("| {sampler} | {spacing} | {steps} | {nfe} | {seconds:.3} | {error:.4} |")
    }));
    lines.push(format!("chosen  {} over {} in {} steps", chosen.sampler, chosen.spacing, chosen.steps));
    if !arguments.keep {
        set(&mut model, chosen.sampler, chosen.spacing, chosen.steps);
        model.save(&file)?;
        lines.push(format!("stored  {}", file.display()));
    }
    if chart.is_some() {
        lines.push(format!("plot    {}", plot.display()));
    }
    let json = json!({ "chosen": chosen, "stored": !arguments.keep, "front": front, "plot": chart.map(|_| plot) });
    arguments.model.common.print(json, lines.join("\n"))
}

/// Draws the same images with every sampler, spacing and number of steps, and compares them with the reference.
fn try_all(arguments: &PlanArguments, mut model: Model) -> anyhow::Result<Vec<Trial>> {
    let request = Request::even(arguments.count, model.header.unet.classes());
    let draw = |model: &Model| -> anyhow::Result<(Vec<f32>, f64)> {
        let started = Instant::now();
        let images = generate(model, &request, &Noise::new(arguments.model.seed), &mut |_| ())?;
        let values = images.into_data().iter::<f32>().collect();
        Ok((values, started.elapsed().as_secs_f64()))
    };
    let timesteps = model.header.schedule.timesteps;
    set(&mut model, SamplerKind::Dpmpp3m, Spacing::Uniform, arguments.reference_steps.min(timesteps));
    eprintln!("drawing the reference in {} steps", model.header.sampling.steps);
    let (reference, _) = draw(&model)?;
    let mut trials = Vec::new();
    for sampler in KINDS {
        for spacing in SPACINGS {
            for steps in STEPS.into_iter().filter(|steps| *steps <= timesteps) {
                set(&mut model, sampler, spacing, steps);
                let (images, seconds) = draw(&model)?;
                let squares: f64 = images.iter().zip(&reference).map(|(a, b)| f64::from(a - b).powi(2)).sum();
                let error = (squares / images.len() as f64).sqrt();
                trials.push(Trial { sampler, spacing, steps, nfe: sampler.nfe(steps), seconds, error });
                if seconds > arguments.budget {
                    break; // more steps take longer
                }
            }
        }
        eprintln!("tried {sampler}");
    }
    trials.retain(|trial| trial.error.is_finite());
    Ok(trials)
}

/// Chooses a deterministic sampler.
fn set(model: &mut Model, sampler: SamplerKind, spacing: Spacing, steps: usize) {
    let sampling = &mut model.header.sampling;
    (sampling.sampler, sampling.spacing, sampling.steps, sampling.eta) = (sampler, spacing, steps, 0.0);
}

/// The trials that no other beats in both NFE and error, by NFE. NFE stand for time, since they do not depend on the load of the
/// computer.
fn pareto(trials: &[Trial]) -> Vec<Trial> {
    let mut front = trials.to_vec();
    front.sort_by(|a, b| a.nfe.cmp(&b.nfe).then(a.error.total_cmp(&b.error)));
    let mut best = f64::INFINITY;
    front.retain(|trial| {
        let is_better = trial.error < best;
        best = best.min(trial.error);
        is_better
    });
    front
}

/// Error against NFE of each sampler with its best spacing; None if no sampler has two points.
fn chart(trials: &[Trial]) -> Option<LineChart> {
    let title = "Distance to the exact chain";
    let mut chart = LineChart::new(title, "network evaluations (NFE)", "root mean square error").with_log_y();
    let mut lines = 0;
    for kind in KINDS {
        let own: Vec<Trial> = trials.iter().filter(|trial| trial.sampler == kind).cloned().collect();
        let front = pareto(&own);
        if front.len() > 1 {
            lines += 1;
            chart = chart
                .with_series(kind.to_string(), front.iter().map(|trial| (trial.nfe as f64, trial.error.max(1e-6))));
        }
    }
    (lines > 0).then_some(chart)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!([seconds("2s"), seconds("500ms"), seconds("1.5")], [Ok(2.0), Ok(0.5), Ok(1.5)]);
        for wrong in ["", "s", "-1s", "0", "2m", "inf"] {
            assert!(seconds(wrong).is_err_and(|text| text.contains("write 2s or 500ms")), "{wrong}");
        }
    }

    #[test]
    fn the_front_holds_what_nothing_beats() {
        let trial = |nfe: usize, error: f64| Trial {
            sampler: SamplerKind::Ddim,
            spacing: Spacing::Uniform,
            steps: nfe,
            nfe,
            seconds: nfe as f64,
            error,
        };
        let trials = [trial(10, 0.5), trial(5, 0.6), trial(10, 0.4), trial(20, 0.45), trial(7, 0.7), trial(30, 0.1)];
        let front: Vec<(usize, f64)> = pareto(&trials).iter().map(|trial| (trial.nfe, trial.error)).collect();
        assert_eq!(front, [(5, 0.6), (10, 0.4), (30, 0.1)]);
    }
}
