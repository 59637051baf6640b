//! `bench targets`: objectives and variants of training, compared at equal steps.

use anyhow::{Context, ensure};
use burn::tensor::Device;
use checkpoint::{Model, SamplerKind};
use clap::Args;
use data::ImageSet;
use pipeline::{Guide, Request};
use sampler::Variance;
use schedule::{BetaSchedule, LevelDistribution, LossWeight, Objective, Spacing};
use train::Config;
use unet::UnetConfig;

use crate::{
    judge::{EPOCHS, Halves, Judge},
    measurement::{Recipe, draw, print, print_table_head, train},
};

#[derive(Args)]
pub struct TargetsArguments {
    #[command(flatten)]
    recipe: Recipe,
    /// Training steps of each; the preset's if not given
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Number of samples of each row, the classes in equal parts
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(8..))]
    count: u32,
    /// Only those whose name contains one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// A change of the preset.
type Change = fn(&mut Config);

/// The variants. All that is not named stays the preset's.
const TARGETS: [(&str, Change); 12] = [
    ("x_0 with min-SNR (the preset)", |_| ()),
    ("epsilon", |config| config.diffusion.objective = Objective::Epsilon),
    ("v", |config| config.diffusion.objective = Objective::V),
    ("x_0, importance-sampled t", |config| config.diffusion.importance_sampling = true),
    ("epsilon, learned variance, DDPM", learned_variance),
    ("epsilon, learned variance, importance-sampled t, DDPM", |config| {
        learned_variance(config);
        config.diffusion.importance_sampling = true;
    }),
    ("EDM", edm),
    ("flow matching", flow),
    ("flow matching, logit-normal", |config| {
        flow(config);
        config.diffusion.level_distribution = LevelDistribution::LogitNormal { mean: 0.0, deviation: 1.0 };
    }),
    ("x_0, immiscible noise", |config| config.diffusion.immiscible_noise = true),
    ("x_0, self-conditioning", |config| change(config, |unet| unet.self_condition = true)),
    ("x_0, averaged afterwards", |config| config.training.post_hoc_ema.snapshot_every = config.training.steps / 12),
];

/// Relative widths of the post-hoc averages.
const WIDTHS: [f64; 4] = [0.02, 0.05, 0.1, 0.2];

/// Changes lucidrains' network, which the presets have.
fn change(config: &mut Config, change: impl FnOnce(&mut UnetConfig)) {
    if let Some(unet) = config.unet.as_unet_mut() {
        change(unet);
    }
}

/// The hybrid loss of Nichol and Dhariwal (2021, arXiv:2102.09672), and the sampler that uses the variance. Their loss has
/// weight 1 for the mean.
fn learned_variance(config: &mut Config) {
    change(config, |unet| unet.learned_variance = true);
    config.diffusion.objective = Objective::Epsilon;
    config.diffusion.loss_weight = LossWeight::Uniform;
    config.sampling.sampler = SamplerKind::Ddpm;
    config.sampling.variance = Variance::Learned;
    config.sampling.steps = 100;
}

/// Karras et al.'s (2022, arXiv:2206.00364) preconditioning, noise levels, schedule, and deterministic sampler; [`run`]
/// measures sigma_data.
fn edm(config: &mut Config) {
    config.diffusion.objective = Objective::Edm { sigma_data: 0.5 };
    config.diffusion.loss_weight = LossWeight::Uniform;
    config.diffusion.schedule.family = BetaSchedule::Edm { sigma_min: 0.002, sigma_max: 80.0, rho: 7.0 };
    config.sampling.sampler = SamplerKind::Heun;
    config.sampling.spacing = Spacing::Karras;
    config.sampling.steps = 18;
}

/// Straight paths and Euler's method along them (DDIM is Euler's method in these coordinates).
fn flow(config: &mut Config) {
    config.diffusion.objective = Objective::Flow;
    config.diffusion.loss_weight = LossWeight::Uniform;
    config.sampling.sampler = SamplerKind::Ddim;
    config.sampling.spacing = Spacing::Flow;
}

/// The root mean square of all pixels in [-1, 1], EDM's sigma_data where the mean is not 0.
fn root_mean_square(images: &ImageSet) -> f64 {
    let values = metrics::pixels(images);
    (values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / values.len().max(1) as f64).sqrt()
}

/// Trains and judges each, and prints a table in Markdown, row by row.
pub fn run(arguments: &TargetsArguments) -> anyhow::Result<()> {
    let (device, seed, count) = (arguments.recipe.device()?, arguments.recipe.seed, arguments.count as usize);
    let preset = arguments.recipe.config(arguments.steps)?;
    let is_wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|part| name.contains(part));
    let chosen: Vec<(&str, Change)> = TARGETS.into_iter().filter(|(name, _)| is_wanted(name)).collect();
    ensure!(!chosen.is_empty(), "no target's name contains {}", arguments.only.join(" or "));
    let judge = Judge::train(Halves::read(&preset, count)?, seed, EPOCHS, &device)?;

    print_table_head(
        "target | seconds of training | sampler | NFE | confidence ratio | class asked for | Fréchet | precision | recall",
    )?;
    for (name, change) in chosen {
        let mut config = preset.clone();
        change(&mut config);
        if let Objective::Edm { sigma_data } = &mut config.diffusion.objective {
            *sigma_data = root_mean_square(&judge.halves.padded);
            eprintln!("{name}: sigma_data {sigma_data:.3}");
        }
        config.validate().with_context(|| format!("the target `{name}`"))?;
        eprintln!("{name}");
        let (models, seconds) = train_models(name, &config, &judge.halves.padded, &device)?;
        for (name, model) in models {
            let sampling = &model.header.sampling;
            let (kind, nfe) = (sampling.sampler, sampling.sampler.nfe(sampling.steps));
            let request = Request::even(count, model.header.unet.classes());
            let verdict = judge.judge(&draw(&model, Guide::Itself, &request, seed)?, &request)?;
            let near = judge.manifold(&verdict.drawn)?;
            print(format!(
                "| {name} | {seconds:.0} | {kind} | {nfe} | {:.3} | {} | {:.1} | {:.3} | {:.3} |",
                verdict.confident_ratio,
                verdict.called(),
                verdict.frechet,
                near.precision,
                near.recall,
            ))?;
        }
    }
    Ok(())
}

/// The model of one training, or those of its post-hoc averages, by name; and the time of the training in seconds.
fn train_models(
    name: &str,
    config: &Config,
    images: &ImageSet,
    device: &Device,
) -> anyhow::Result<(Vec<(String, Model)>, f64)> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let every = config.training.post_hoc_ema.snapshot_every;
    let (trainer, seconds) = train(config, images, device, |step, trainer| {
        if every > 0 && step.is_multiple_of(every) {
            for (width, model) in trainer.power_averages() {
                model.save(&folder.path().join(train::Snapshot { step, width }.file_name()))?;
            }
        }
        Ok(())
    })?;
    if every == 0 {
        return Ok((vec![(name.to_owned(), trainer.model())], seconds));
    }
    let average = |width| Ok((format!("{name}, width {width}"), train::average(folder.path(), None, width, device)?));
    Ok((WIDTHS.into_iter().map(average).collect::<anyhow::Result<_>>()?, seconds))
}
