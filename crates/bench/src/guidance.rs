//! `bench guidance`: how well each kind of guidance reaches the class asked for, and what it costs in variety.

use std::io::Write;

use anyhow::Context;
use burn::tensor::{Device, Int, Tensor};
use checkpoint::{GuidanceKind, Model};
use clap::Args;
use classifier::{NoisedClassifier, TrainingOptions};
use metrics::{FEATURES, frechet_distance, manifold};
use pipeline::{Guide, Request};
use sampler::Classifier;
use train::Config;

use crate::{
    judge::Judge,
    quality::{asked, confident, draw_guided, train},
};

#[derive(Args)]
pub struct GuidanceArguments {
    /// The preset whose data and recipe are measured
    #[arg(long, default_value = train::PRESETS[0])]
    preset: String,
    /// Number of samples of each row, the classes in equal parts
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(8..))]
    count: u32,
    /// Everything random follows from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Training steps of the model; the preset's if not given. The weaker one of autoguidance has a fifth
    #[arg(long, value_parser = clap::value_parser!(u64).range(5..))]
    steps: Option<u64>,
    /// Where to compute
    #[arg(long)]
    device: Option<String>,
}

/// What a row varies.
struct Row {
    name: &'static str,
    scale: f64,
    kind: GuidanceKind,
    interval: Option<[f64; 2]>,
    rescale: f64,
    by: By,
}

enum By {
    Itself,
    Weaker,
    Classifier,
}

fn rows() -> Vec<Row> {
    let plain = |scale| Row {
        name: "classifier-free",
        scale,
        kind: GuidanceKind::Cfg,
        interval: None,
        rescale: 0.0,
        by: By::Itself,
    };
    let mut rows: Vec<Row> = [0.0, 1.0, 1.5, 2.0, 4.0, 8.0].map(plain).into();
    for scale in [2.0, 4.0] {
        rows.push(Row { name: "classifier-free, rescale 0.7", rescale: 0.7, ..plain(scale) });
        rows.push(Row { name: "classifier-free, sigma 0.3 to 5", interval: Some([0.3, 5.0]), ..plain(scale) });
    }
    for scale in [0.3, 0.6, 1.0] {
        rows.push(Row { name: "CFG++", kind: GuidanceKind::CfgPlusPlus, ..plain(scale) });
    }
    for scale in [1.5, 2.0, 4.0] {
        rows.push(Row { name: "weaker model", by: By::Weaker, ..plain(scale) });
    }
    for scale in [0.5, 1.0, 2.0, 4.0] {
        rows.push(Row { name: "classifier", by: By::Classifier, ..plain(scale) });
    }
    rows
}

/// Trains, draws and judges; prints a table in Markdown, row by row.
pub fn run(arguments: &GuidanceArguments) -> anyhow::Result<()> {
    let (_, device) = device::open_or_default(arguments.device.as_deref())?;
    let mut config = Config::preset(&arguments.preset)?;
    config.training.seed = arguments.seed;
    config.training.steps = arguments.steps.unwrap_or(config.training.steps);
    let count = arguments.count as usize;
    let judge = Judge::new(&config, count, arguments.seed, &device)?;
    let (mut model, _) = train(&config, judge.padded.clone(), &device)?;
    config.training.steps /= 5;
    let (weaker, _) = train(&config, judge.padded.clone(), &device)?;
    let classifier = noised_classifier(&judge, &model, arguments.seed, &device)?;

    let print = |line: &str| writeln!(std::io::stdout(), "{line}").context("cannot write to the standard output");
    print(
        "| guidance | scale | class asked for | confidence ratio | Fréchet | precision | density | recall | coverage | spread \
         within a class |",
    )?;
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
    let request = Request::even(count, model.header.unet.classes);
    let labels = request.labels.clone().context("the preset has no classes to guide to")?;
    let real_labels: Vec<usize> = (0..count)
        .map(|index| index * judge.padded.len() / count)
        .filter_map(|index| judge.padded.label(index).map(|label| label as usize))
        .collect();
    let towards = |labels: Tensor<1, Int>| -> Box<dyn Classifier + '_> { Box::new(classifier.towards(labels)) };
    for row in rows() {
        let sampling = &mut model.header.sampling;
        sampling.guidance = row.scale;
        sampling.guidance_kind = row.kind;
        sampling.guidance_interval = row.interval;
        sampling.guidance_rescale = row.rescale;
        let guide = match row.by {
            By::Itself => Guide::Itself,
            By::Weaker => Guide::Weaker(&weaker),
            By::Classifier => Guide::Classifier(&towards),
        };
        let judged = judge.classifier.classify(&draw_guided(&model, guide, &request, arguments.seed)?)?;
        let near = manifold(&judged.features, &judge.some_real, FEATURES, 3)?;
        print(&format!(
            "| {} | {} | {:.1} % | {:.3} | {:.1} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} |",
            row.name,
            row.scale,
            100.0 * asked(&judged, &labels, judge.confident_real).called,
            confident(&judged) / judge.confident_real,
            frechet_distance(&judged.features, &judge.real.features, FEATURES)?,
            near.precision,
            near.density,
            near.recall,
            near.coverage,
            spread_within(&judged.features, &labels) / spread_within(&judge.some_real, &real_labels),
        ))?;
    }
    Ok(())
}

/// Learns the half that the model learned.
fn noised_classifier(judge: &Judge, model: &Model, seed: u64, device: &Device) -> anyhow::Result<NoisedClassifier> {
    eprintln!("training the classifier of noised images");
    let options = TrainingOptions { seed, ..TrainingOptions::default() };
    let schedule = &model.header.schedule;
    Ok(NoisedClassifier::train(&judge.padded, schedule, options, device, &mut |step, loss| {
        if step % 500 == 0 {
            eprintln!("step {step} loss {loss:.4}");
        }
    })?)
}

/// The mean variance of the features of the images of one class: how different the sevens are.
fn spread_within(features: &[f32], labels: &[usize]) -> f64 {
    let classes = labels.iter().max().map_or(0, |largest| largest + 1);
    let mut total = 0.0;
    for class in 0..classes {
        let rows: Vec<&[f32]> = features
            .chunks_exact(FEATURES)
            .zip(labels)
            .filter(|(_, label)| **label == class)
            .map(|(row, _)| row)
            .collect();
        for feature in 0..FEATURES {
            let values: Vec<f64> = rows.iter().map(|row| f64::from(row[feature])).collect();
            let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
            total += values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len().max(1) as f64;
        }
    }
    total / classes.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_that_within_the_classes() {
        let mut features = vec![0f32; 4 * FEATURES];
        // two of class 0, 2 apart in one feature; two of class 1, alike and far away
        features[0] = 2.0;
        (features[2 * FEATURES], features[3 * FEATURES]) = (100.0, 100.0);
        assert_eq!(spread_within(&features, &[0, 0, 1, 1]), 0.5);
        assert_eq!(spread_within(&[], &[]), 0.0);
    }
}
