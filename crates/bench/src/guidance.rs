//! `bench guidance`: how well each kind of guidance reaches the class asked for, and what it costs in variety.

use anyhow::Context;
use burn::tensor::{Device, Int, Tensor};
use checkpoint::{GuidanceKind, Model};
use clap::Args;
use classifier::{NoisedClassifier, TrainingOptions};
use metrics::FEATURES;
use pipeline::{Guide, Request};
use sampler::Classifier;

use crate::{
    judge::{EPOCHS, Halves, Judge, spread},
    measurement::{Recipe, draw, print, print_table_head, train},
};

#[derive(Args)]
pub struct GuidanceArguments {
    #[command(flatten)]
    recipe: Recipe,
    /// Number of samples of each row, the classes in equal parts
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(8..))]
    count: u32,
    /// Training steps of the model; the preset's if not given. The weaker one of autoguidance has a fifth
    #[arg(long, value_parser = clap::value_parser!(u64).range(5..))]
    steps: Option<u64>,
}

/// The guidance of a row.
struct Row {
    name: &'static str,
    scale: f64,
    kind: GuidanceKind,
    interval: Option<[f64; 2]>,
    rescale: f64,
    by: By,
}

/// The guide: the model without a class, a weaker model, or a classifier.
enum By {
    Itself,
    Weaker,
    Classifier,
}

fn rows() -> Vec<Row> {
    let classifier_free = |scale| Row {
        name: "classifier-free",
        scale,
        kind: GuidanceKind::Cfg,
        interval: None,
        rescale: 0.0,
        by: By::Itself,
    };
    let mut rows: Vec<Row> = [0.0, 1.0, 1.5, 2.0, 4.0, 8.0].map(classifier_free).into();
    for scale in [2.0, 4.0] {
        rows.push(Row { name: "classifier-free, rescale 0.7", rescale: 0.7, ..classifier_free(scale) });
        rows.push(Row {
            name: "classifier-free, sigma 0.3 to 5",
            interval: Some([0.3, 5.0]),
            ..classifier_free(scale)
        });
    }
    for scale in [0.3, 0.6, 1.0] {
        rows.push(Row { name: "CFG++", kind: GuidanceKind::CfgPlusPlus, ..classifier_free(scale) });
    }
    for scale in [1.5, 2.0, 4.0] {
        rows.push(Row { name: "weaker model", by: By::Weaker, ..classifier_free(scale) });
    }
    for scale in [0.5, 1.0, 2.0, 4.0] {
        rows.push(Row { name: "classifier", by: By::Classifier, ..classifier_free(scale) });
    }
    rows
}

/// Trains, draws and judges; prints a table in Markdown, row by row.
pub fn run(arguments: &GuidanceArguments) -> anyhow::Result<()> {
    let (device, seed, count) = (arguments.recipe.device()?, arguments.recipe.seed, arguments.count as usize);
    let mut config = arguments.recipe.config(arguments.steps)?;
    let judge = Judge::train(Halves::read(&config, count)?, seed, EPOCHS, &device)?;
    let Halves { padded, first, .. } = &judge.halves;
    let mut model = train(&config, padded, &device, |_, _| Ok(()))?.0.model();
    config.training.steps /= 5;
    let weaker = train(&config, padded, &device, |_, _| Ok(()))?.0.model();
    let classifier = noised_classifier(&judge, &model, seed, &device)?;

    print_table_head(
        "guidance | scale | class asked for | confidence ratio | Fréchet | precision | density | recall | coverage | spread within a class",
    )?;
    let request = Request::even(count, model.header.unet.classes());
    let labels = request.labels.clone().context("the preset has no classes to guide to")?;
    let label_of = |index: usize| first.label(index).map(|label| label as usize);
    let real_labels: Vec<usize> = spread(count, first.len()).filter_map(label_of).collect();
    let real_spread = spread_within(&judge.some_real(count), &real_labels);
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
        let verdict = judge.judge(&draw(&model, guide, &request, seed)?, &request)?;
        let near = judge.manifold(&verdict.drawn)?;
        print(format!(
            "| {} | {} | {} | {:.3} | {:.1} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} |",
            row.name,
            row.scale,
            verdict.called(),
            verdict.confident_ratio,
            verdict.frechet,
            near.precision,
            near.density,
            near.recall,
            near.coverage,
            spread_within(&verdict.drawn.features, &labels) / real_spread,
        ))?;
    }
    Ok(())
}

/// Trains a classifier of noised images on the half that the model learned.
fn noised_classifier(judge: &Judge, model: &Model, seed: u64, device: &Device) -> anyhow::Result<NoisedClassifier> {
    eprintln!("training the classifier of noised images");
    let options = TrainingOptions { seed, ..TrainingOptions::default() };
    let schedule = &model.header.schedule;
    Ok(NoisedClassifier::train(&judge.halves.padded, schedule, options, device, &mut |step, loss| {
        if step % 500 == 0 {
            eprintln!("step {step} loss {loss:.4}");
        }
    })?)
}

/// The variance of the features within a class, summed over features and averaged over classes.
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
