//! `bench samplers`: quality against steps, sampler by sampler, of one model and from the same noise.

use std::path::PathBuf;

use clap::Args;
use pipeline::{Guide, Request};
use sampler::SamplerKind;
use schedule::Spacing;

use crate::{
    judge::{EPOCHS, Halves, Judge},
    measurement::{Recipe, draw, load, print, print_table_head, train},
};

#[derive(Args)]
pub struct SamplersArguments {
    #[command(flatten)]
    recipe: Recipe,
    /// Use this model file (or run directory) instead of training one on half of the data; it may have seen all of it
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Training steps; the preset's if not given
    #[arg(long, conflicts_with = "model", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Number of samples of each row, the classes in equal parts
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..))]
    count: u32,
    /// Only the samplers of these names
    #[arg(long, value_delimiter = ',')]
    only: Vec<SamplerKind>,
}

/// Each sampler with the spacing that suits it, and numbers of steps.
const CASES: [(SamplerKind, Spacing, &[usize]); 13] = [
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
    let (device, seed, count) = (arguments.recipe.device()?, arguments.recipe.seed, arguments.count as usize);
    let config = arguments.recipe.config(arguments.steps)?;
    let judge = Judge::train(Halves::read(&config, count)?, seed, EPOCHS, &device)?;
    let mut model = match &arguments.model {
        Some(path) => load(path, &device)?,
        None => train(&config, &judge.halves.padded, &device, |_, _| Ok(()))?.0.model(),
    };

    let request = Request::even(count, model.header.unet.classes());
    print_table_head("sampler | spacing | steps | NFE | confidence ratio | class asked for | Fréchet")?;
    for (kind, spacing, all_steps) in CASES {
        if !arguments.only.is_empty() && !arguments.only.contains(&kind) {
            continue;
        }
        for &steps in all_steps.iter().filter(|steps| **steps <= model.header.schedule.timesteps) {
            let sampling = &mut model.header.sampling;
            (sampling.sampler, sampling.spacing, sampling.steps, sampling.eta) = (kind, spacing, steps, 0.0);
            let verdict = judge.judge(&draw(&model, Guide::Itself, &request, seed)?, &request)?;
            print(format!(
                "| {kind} | {spacing} | {steps} | {} | {:.3} | {} | {:.1} |",
                kind.nfe(steps),
                verdict.confident_ratio,
                verdict.called(),
                verdict.frechet,
            ))?;
        }
    }
    Ok(())
}
