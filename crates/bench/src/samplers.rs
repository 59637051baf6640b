//! `bench samplers`: quality against steps, sampler by sampler, of one model and from the same noise.

use std::{io::Write, path::PathBuf};

use anyhow::Context;
use clap::Args;
use metrics::{FEATURES, frechet_distance};
use pipeline::Request;
use sampler::SamplerKind;
use schedule::Spacing;

use crate::{
    judge::Judge,
    quality::{asked, confident, draw, load, train},
};

#[derive(Args)]
pub struct SamplersArguments {
    /// The preset whose data and recipe are measured
    #[arg(long, default_value = train::PRESETS[0])]
    preset: String,
    /// Use this model file (or run directory) instead of training one on half of the data; it may have seen all of it
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Training steps; the preset's if not given
    #[arg(long, conflicts_with = "model", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Number of samples of each row, the classes in equal parts
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..))]
    count: u32,
    /// Everything random follows from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only the samplers of these names
    #[arg(long, value_delimiter = ',')]
    only: Vec<SamplerKind>,
    /// Where to compute
    #[arg(long)]
    device: Option<String>,
}

/// What is tried: each sampler with the spacing that suits it.
const TRIED: [(SamplerKind, Spacing, &[usize]); 13] = [
    (SamplerKind::Ddpm, Spacing::Lucidrains, &[50, 250, 1000]),
    (SamplerKind::Ddim, Spacing::Lucidrains, &[5, 10, 20, 50, 100, 250]),
    (SamplerKind::Euler, Spacing::Karras, &[10, 20, 50]),
    (SamplerKind::EulerAncestral, Spacing::Uniform, &[20, 50, 100]),
    (SamplerKind::Heun, Spacing::Karras, &[5, 10, 25]),
    (SamplerKind::Edm, Spacing::Karras, &[10, 25, 50]),
    (SamplerKind::Dpmpp2m, Spacing::Uniform, &[5, 10, 20, 50]),
    (SamplerKind::Dpmpp3m, Spacing::Uniform, &[5, 10, 20, 50]),
    (SamplerKind::Dpmpp2mSde, Spacing::Uniform, &[10, 20, 50]),
    (SamplerKind::Dpmpp3mSde, Spacing::Uniform, &[10, 20, 50]),
    (SamplerKind::Unipc, Spacing::Uniform, &[5, 10, 20, 50]),
    (SamplerKind::Deis, Spacing::Uniform, &[5, 10, 20, 50]),
    (SamplerKind::Pndm, Spacing::Uniform, &[10, 20, 50]),
];

/// Measures and prints a table in Markdown, row by row.
pub fn run(arguments: &SamplersArguments) -> anyhow::Result<()> {
    let (_, device) = device::open_or_default(arguments.device.as_deref())?;
    let mut config = train::Config::preset(&arguments.preset)?;
    config.training.seed = arguments.seed;
    config.training.steps = arguments.steps.unwrap_or(config.training.steps);
    let count = arguments.count as usize;
    let judge = Judge::new(&config, count, arguments.seed, &device)?;
    let Judge { classifier, real, confident_real, padded, .. } = &judge;
    let mut model = match &arguments.model {
        Some(path) => load(path, &device)?,
        None => train(&config, padded.clone(), &device)?.0,
    };
    let print = |line: &str| writeln!(std::io::stdout(), "{line}").context("cannot write to the standard output");

    let request = Request::even(count, model.header.unet.classes);
    print("| sampler | spacing | steps | NFE | confidence ratio | class asked for | Fréchet |")?;
    print("| --- | --- | --- | --- | --- | --- | --- |")?;
    for (kind, spacing, all_steps) in TRIED {
        if !arguments.only.is_empty() && !arguments.only.contains(&kind) {
            continue;
        }
        for &steps in all_steps.iter().filter(|steps| **steps <= model.header.schedule.timesteps) {
            let sampling = &mut model.header.sampling;
            (sampling.sampler, sampling.spacing, sampling.steps, sampling.eta) = (kind, spacing, steps, 0.0);
            let samples = draw(&model, &request, arguments.seed)?;
            let judgment = classifier.classify(&samples)?;
            let called = request.labels.as_ref().map_or("-".to_owned(), |labels| {
                format!("{:.1} %", 100.0 * asked(&judgment, labels, *confident_real).called)
            });
            let frechet = frechet_distance(&judgment.features, &real.features, FEATURES)?;
            print(&format!(
                "| {kind} | {spacing} | {steps} | {} | {:.3} | {called} | {frechet:.1} |",
                kind.nfe(steps),
                confident(&judgment) / confident_real,
            ))?;
        }
    }
    Ok(())
}
