//! `bench targets`: what a network is trained for, and how, compared on digits at equal steps.

use std::io::Write;

use anyhow::{Context, ensure};
use checkpoint::SamplerKind;
use clap::Args;
use data::ImageSet;
use metrics::{FEATURES, frechet_distance, manifold};
use pipeline::Request;
use sampler::Variance;
use schedule::{BetaSchedule, LevelDistribution, LossWeight, Objective, Spacing};
use train::{Config, Trainer};

use crate::{
    judge::Judge,
    quality::{asked, confident, draw},
};

#[derive(Args)]
pub struct TargetsArguments {
    /// The preset whose data and recipe are varied
    #[arg(long, default_value = train::PRESETS[0])]
    preset: String,
    /// Training steps of each; the preset's if not given
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Number of samples of each row, the classes in equal parts
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(8..))]
    count: u32,
    /// Everything random follows from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only those whose name contains one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where to compute
    #[arg(long)]
    device: Option<String>,
}

/// What is changed in the preset.
type Change = fn(&mut Config);

/// What is compared. Everything that is not named stays the preset's.
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
    ("x_0, self-conditioning", |config| config.unet.self_condition = true),
    ("x_0, averaged afterwards", |config| config.training.post_hoc_ema.snapshot_every = config.training.steps / 12),
];

/// Relative widths of the averages that are made after the training.
const WIDTHS: [f64; 4] = [0.02, 0.05, 0.1, 0.2];

/// The hybrid loss of Nichol and Dhariwal, and the sampler that uses the variance. (Their loss leaves the mean's own weight at
/// 1, and clipping the range at 1 would be ours.)
fn learned_variance(config: &mut Config) {
    config.unet.learned_variance = true;
    config.diffusion.objective = Objective::Epsilon;
    config.diffusion.loss_weight = LossWeight::Uniform;
    config.sampling.sampler = SamplerKind::Ddpm;
    config.sampling.variance = Variance::Learned;
    config.sampling.steps = 100;
}

/// Karras et al.'s preconditioning, noise levels, schedule, and deterministic sampler; [`run`] measures sigma_data.
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

/// Of all pixels in [-1, 1]: what EDM's sigma_data stands for where the mean is not 0.
fn root_mean_square(images: &ImageSet) -> f64 {
    let values = metrics::pixels(images);
    (values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / values.len().max(1) as f64).sqrt()
}

/// Trains and judges each, and prints a table in Markdown, row by row.
pub fn run(arguments: &TargetsArguments) -> anyhow::Result<()> {
    let (_, device) = device::open_or_default(arguments.device.as_deref())?;
    let mut preset = Config::preset(&arguments.preset)?;
    preset.training.seed = arguments.seed;
    preset.training.steps = arguments.steps.unwrap_or(preset.training.steps);
    let chosen: Vec<(&str, Change)> = TARGETS
        .into_iter()
        .filter(|(name, _)| arguments.only.is_empty() || arguments.only.iter().any(|part| name.contains(part.as_str())))
        .collect();
    ensure!(!chosen.is_empty(), "no target's name contains {}", arguments.only.join(" or "));
    let count = arguments.count as usize;
    let judge = Judge::new(&preset, count, arguments.seed, &device)?;

    let print = |line: &str| writeln!(std::io::stdout(), "{line}").context("cannot write to the standard output");
    print(
        "| target | seconds of training | sampler | NFE | confidence ratio | class asked for | Fréchet | precision | \
         recall |",
    )?;
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for (name, change) in chosen {
        let mut config = preset.clone();
        change(&mut config);
        if let Objective::Edm { sigma_data } = &mut config.diffusion.objective {
            *sigma_data = root_mean_square(&judge.padded);
            eprintln!("{name}: sigma_data {sigma_data:.3}");
        }
        config.validate().with_context(|| format!("the target `{name}`"))?;
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let started = std::time::Instant::now();
        let mut trainer = Trainer::new(config.clone(), judge.padded.clone(), &device)?;
        let every = config.training.post_hoc_ema.snapshot_every;
        for step in 1..=config.training.steps {
            let loss = trainer.step()?.loss;
            if every > 0 && step % every == 0 {
                for (width, model) in trainer.power_averages() {
                    model.save(&folder.path().join(train::Snapshot { step, width }.file_name()))?;
                }
            }
            if step % 500 == 0 {
                eprintln!("{name}: step {step}/{} loss {loss:.4}", config.training.steps);
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let mut models = vec![(name.to_owned(), trainer.model())];
        if every > 0 {
            models.clear();
            for width in WIDTHS {
                models.push((format!("{name}, width {width}"), train::average(folder.path(), None, width, &device)?));
            }
        }
        for (name, model) in models {
            let sampling = &model.header.sampling;
            let (kind, nfe) = (sampling.sampler, sampling.sampler.nfe(sampling.steps));
            let request = Request::even(count, model.header.unet.classes);
            let judged = judge.classifier.classify(&draw(&model, &request, arguments.seed)?)?;
            let called = request.labels.as_ref().map_or("-".to_owned(), |labels| {
                format!("{:.1} %", 100.0 * asked(&judged, labels, judge.confident_real).called)
            });
            let near = manifold(&judged.features, &judge.some_real, FEATURES, 3)?;
            print(&format!(
                "| {name} | {seconds:.0} | {kind} | {nfe} | {:.3} | {called} | {:.1} | {:.3} | {:.3} |",
                confident(&judged) / judge.confident_real,
                frechet_distance(&judged.features, &judge.real.features, FEATURES)?,
                near.precision,
                near.recall,
            ))?;
        }
    }
    Ok(())
}
