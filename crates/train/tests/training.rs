//! The trainer and its runs, on a small network and a few digits.

mod common;

use burn::tensor::Device;
use schedule::{LevelDistribution, LossWeight, Objective};
use train::{Config, Control, MixedPrecision, Run, TrainError, Trainer};

use common::{few_digits, images, unet, unet2d};

type Change = fn(&mut Config);

/// Training targets beyond the article's.
const TARGETS: [(&str, Change); 9] = [
    ("EDM", |config| {
        config.diffusion.objective = Objective::Edm { sigma_data: 0.5 };
        config.diffusion.schedule.family = "edm".parse().expect("a family");
    }),
    ("flow matching", |config| config.diffusion.objective = Objective::Flow),
    ("logit-normal levels", |config| {
        config.diffusion.objective = Objective::V;
        config.diffusion.level_distribution = LevelDistribution::LogitNormal { mean: 0.0, deviation: 1.0 };
    }),
    ("learned variance", |config| {
        unet(config).learned_variance = true;
        config.diffusion.loss_weight = LossWeight::Uniform;
    }),
    ("importance sampling", |config| {
        config.diffusion.importance_sampling = true;
        config.diffusion.schedule.timesteps = 2;
        config.sampling.steps = 2;
    }),
    ("immiscible noise", |config| config.diffusion.immiscible_noise = true),
    ("self-conditioning", |config| unet(config).self_condition = true),
    ("post-hoc EMA", |config| config.training.post_hoc_ema.snapshot_every = 2),
    ("diffusers' network", |config| config.unet = unet2d().into()),
];

fn small() -> Config {
    let mut config = few_digits();
    let training = &mut config.training;
    (training.batch_size, training.steps, training.warmup_steps, training.parallel_parts) = (4, 6, 2, 1);
    config
}

fn trainer(config: Config) -> Trainer {
    common::trainer(&config)
}

fn weights(trainer: &Trainer) -> Vec<f32> {
    trainer.unet().state_dict().iter().flat_map(|(_, data)| data.iter::<f32>().collect::<Vec<_>>()).collect()
}

fn largest_difference(one: &[f32], two: &[f32]) -> f32 {
    assert_eq!(one.len(), two.len());
    one.iter().zip(two).fold(0.0, |largest, (a, b)| largest.max((a - b).abs()))
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_not() {
    let run = |seed| {
        let mut config = small();
        config.training.seed = seed;
        let mut trainer = trainer(config);
        let losses: Vec<f64> = (0..3).map(|_| trainer.step().expect("a step").loss).collect();
        (losses, weights(&trainer))
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
}

#[test]
fn the_loss_falls() {
    let mut config = small();
    config.training.learning_rate = 4e-3;
    config.training.steps = 60;
    let mut trainer = trainer(config);
    let losses: Vec<f64> = (0..60).map(|_| trainer.step().expect("a step").loss).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&losses[50..]) < 0.5 * mean(&losses[..5]), "{losses:?}");
}

#[test]
fn accumulated_and_parallel_batches_are_one_large_batch() {
    let after = |batch_size, accumulate, parts| {
        let mut config = small();
        config.training.batch_size = batch_size;
        config.training.gradient_accumulate_every = accumulate;
        config.training.parallel_parts = parts;
        let mut trainer = trainer(config);
        let report = trainer.step().expect("a step");
        (report, weights(&trainer))
    };
    let (whole, whole_weights) = after(8, 1, 1);
    for (batch_size, accumulate, parts) in [(4, 2, 1), (2, 4, 1), (8, 1, 2), (8, 1, 3), (4, 2, 4)] {
        let (report, weights) = after(batch_size, accumulate, parts);
        assert!((report.loss - whole.loss).abs() < 1e-5, "{report:?} {whole:?}");
        assert!((report.gradient_norm - whole.gradient_norm).abs() < 1e-4 * whole.gradient_norm);
        // Adam's first step is about the sign of the gradient, so a gradient of nearly 0 may move either way
        let moved = largest_difference(&weights, &whole_weights);
        assert!(moved <= 2.1 * report.learning_rate as f32, "{moved}");
        let differing = weights.iter().zip(&whole_weights).filter(|(a, b)| (*a - *b).abs() > 1e-5).count();
        assert!(differing * 100 < weights.len(), "{differing} of {} weights differ", weights.len());
    }
}

#[test]
fn a_resumed_run_is_byte_for_byte_the_uninterrupted_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let mut whole = Run::create(trainer(small()), &one).expect("a run");
    assert!(whole.train(&mut |_| Control::Continue).expect("trained").finished);

    let mut first = Run::create(trainer(small()), &two).expect("a run");
    let mut steps = 0;
    let outcome = first.train(&mut |event| {
        steps += usize::from(matches!(event, train::Event::Step { .. }));
        if steps == 3 { Control::Stop } else { Control::Continue }
    });
    let outcome = outcome.expect("trained");
    assert_eq!((outcome.finished, outcome.steps), (false, 3));
    drop(first);
    let config = Run::config_of(&two).expect("its configuration");
    let mut second = Run::resume(trainer(config), &two).expect("the run");
    assert_eq!(second.trainer.steps_done(), 3);
    assert!(second.train(&mut |_| Control::Continue).expect("trained").finished);
    for name in ["model.safetensors", "checkpoints/step-0000006.safetensors", "samples.png", "config.toml"] {
        let read = |run: &std::path::Path| std::fs::read(run.join(name)).expect("a file");
        assert!(read(&one) == read(&two), "{name} differs");
    }
}

#[test]
fn a_line_has_the_losses_of_each_quartile_since_the_previous_line_also_across_a_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = |directory: &std::path::Path| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(directory.join("metrics.jsonl")).expect("lines");
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
    };
    // with few and with many steps in a line; levels with a timestep and without; micro-batches in parts
    let edm: Change = TARGETS[0].1;
    let parts: Change = |config| {
        (config.training.gradient_accumulate_every, config.training.parallel_parts) = (2, 2);
    };
    for (number, change) in [edm, parts].into_iter().enumerate() {
        let mut config = small();
        (config.training.steps, config.training.log_every) = (7, 3);
        change(&mut config);
        let images_in_step = config.training.batch_size * config.training.gradient_accumulate_every;
        let (one, two) = (folder.path().join(format!("one-{number}")), folder.path().join(format!("two-{number}")));
        let mut losses = Vec::new();
        let mut whole = Run::create(trainer(config.clone()), &one).expect("a run");
        let outcome = whole.train(&mut |event| {
            if let train::Event::Step { report, .. } = event {
                losses.push(report.loss);
            }
            Control::Continue
        });
        assert!(outcome.expect("trained").finished);

        let found = lines(&one);
        let steps: Vec<u64> = found.iter().filter_map(|line| line["step"].as_u64()).collect();
        assert_eq!(steps, [3, 6, 7]);
        for (line, losses) in found.iter().zip([&losses[..3], &losses[3..6], &losses[6..]]) {
            let quartiles: Vec<&serde_json::Value> =
                line["quartiles"].as_array().expect("a list").iter().filter(|quartile| !quartile.is_null()).collect();
            let count = |quartile: &serde_json::Value| quartile["count"].as_u64().expect("a count");
            let mean = |quartile: &serde_json::Value| quartile["mean"].as_f64().expect("a mean");
            let samples: u64 = quartiles.iter().map(|quartile| count(quartile)).sum();
            assert_eq!(samples as usize, losses.len() * images_in_step, "{line}");
            let sum: f64 = quartiles.iter().map(|quartile| count(quartile) as f64 * mean(quartile)).sum();
            let expected = losses.iter().sum::<f64>() / losses.len() as f64;
            assert!((sum / samples as f64 / expected - 1.0).abs() < 1e-5, "{line}: not {expected}");
            let has_error = |quartile: &&serde_json::Value| quartile["error"].as_f64().is_some_and(|error| error > 0.0);
            assert!(quartiles.iter().any(has_error), "{line}");
        }

        // stopped after step 4, with one step gathered since the last line
        let mut first = Run::create(trainer(config.clone()), &two).expect("a run");
        let mut steps = 0;
        let stopped = first.train(&mut |event| {
            steps += usize::from(matches!(event, train::Event::Step { .. }));
            if steps == 4 { Control::Stop } else { Control::Continue }
        });
        assert_eq!(stopped.expect("trained").steps, 4);
        drop(first);
        let mut second = Run::resume(trainer(config), &two).expect("the run");
        assert!(second.train(&mut |_| Control::Continue).expect("trained").finished);
        let quartiles = |lines: Vec<serde_json::Value>| -> Vec<String> {
            lines.iter().map(|line| format!("{} {} {}", line["step"], line["loss"], line["quartiles"])).collect()
        };
        assert_eq!(quartiles(lines(&two)), quartiles(found));
        let read = |run: &std::path::Path| std::fs::read(run.join("checkpoints/step-0000007.safetensors"));
        assert!(read(&one).expect("a file") == read(&two).expect("a file"), "the last states differ");
    }
}

#[test]
fn a_run_resumes_with_less_memory_as_the_same_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut whole = trainer(small());
    (0..6).for_each(|_| drop(whole.step().expect("a step")));
    let directory = folder.path().join("run");
    let mut first = Run::create(trainer(small()), &directory).expect("a run");
    let mut steps = 0;
    let stopped = first.train(&mut |event| {
        steps += usize::from(matches!(event, train::Event::Step { .. }));
        if steps == 3 { Control::Stop } else { Control::Continue }
    });
    assert_eq!(stopped.expect("trained").steps, 3);
    drop(first);

    let with = |batch_size, gradient_accumulate_every| {
        let mut config = small();
        (config.training.batch_size, config.training.gradient_checkpointing) = (batch_size, true);
        config.training.gradient_accumulate_every = gradient_accumulate_every;
        Run::resume(trainer(config), &directory)
    };
    let refused = with(2, 1).err().expect("another step").to_string();
    assert!(refused.contains("training.batch_size: 4 in the run, 2 now"), "{refused}");
    let mut second = with(2, 2).expect("the same step");
    assert!(second.train(&mut |_| Control::Continue).expect("trained").finished);
    assert!(largest_difference(&weights(&second.trainer), &weights(&whole)) < 1e-4);
}

#[test]
fn every_objective_learns_and_resumes_byte_for_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, change) in TARGETS {
        let mut config = small();
        config.training.steps = 40;
        change(&mut config);
        let mut whole = trainer(config.clone());
        let losses: Vec<f64> = (0..40).map(|_| whole.step().expect("a step").loss).collect();
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        assert!(mean(&losses[30..]) < 0.9 * mean(&losses[..5]), "{name}: {losses:?}");

        let mut first = trainer(config.clone());
        for _ in 0..25 {
            first.step().expect("a step");
        }
        let (half, one, two) = (folder.path().join("half"), folder.path().join("one"), folder.path().join("two"));
        first.save_state(&half).expect("saved");
        let mut second = trainer(config);
        second.load_state(&half).expect("loaded");
        for _ in 0..15 {
            second.step().expect("a step");
        }
        whole.save_state(&one).expect("saved");
        second.save_state(&two).expect("saved");
        let read = |path: &std::path::Path| std::fs::read(path).expect("a file");
        assert!(read(&one) == read(&two), "{name}: the state differs");
    }
}

#[test]
fn importance_sampling_does_not_change_the_expected_loss() {
    // two timesteps with very different losses
    let mean_loss = |importance_sampling| {
        let mut config = small();
        config.diffusion.objective = Objective::Epsilon;
        config.diffusion.schedule.timesteps = 2;
        config.diffusion.importance_sampling = importance_sampling;
        (config.sampling.steps, config.training.learning_rate, config.training.batch_size) = (2, 1e-12, 32);
        let mut trainer = trainer(config);
        let losses: Vec<f64> = (0..60).map(|_| trainer.step().expect("a step").loss).collect();
        // the first steps are uniform anyway
        losses[10..].iter().sum::<f64>() / 50.0
    };
    let (uniform, importance) = (mean_loss(false), mean_loss(true));
    assert!((importance / uniform - 1.0).abs() < 0.05, "{importance} is not {uniform}");
}

#[test]
fn immiscible_noise_is_nearer_to_the_images_and_easier() {
    let first_losses = |immiscible_noise| {
        let mut config = small();
        config.diffusion.immiscible_noise = immiscible_noise;
        config.training.batch_size = 32;
        trainer(config).step().expect("a step").loss
    };
    // the same noise in another order: not the same loss
    assert_ne!(first_losses(true), first_losses(false));
}

#[test]
fn a_run_is_not_resumed_with_another_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("run");
    Run::create(trainer(small()), &directory).expect("a run");
    let mut config = small();
    config.training.weight_decay = 1.0;
    config.training.log_every = 1;
    let Err(error) = Run::resume(trainer(config), &directory) else { panic!("it must be refused") };
    assert!(matches!(error, TrainError::OtherConfiguration { .. }));
    let text = error.to_string();
    assert!(text.contains("training.weight_decay: 0.0 in the run, 1.0 now"), "{text}");
    assert!(!text.contains("log_every") && !text.contains("content_hash"), "{text}");
}

#[test]
fn a_config_toml_changed_by_hand_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("run");
    let mut run = Run::create(trainer(small()), &directory).expect("a run");
    run.train(&mut |_| Control::Continue).expect("trained");
    drop(run);
    let file = directory.join("config.toml");
    let text = std::fs::read_to_string(&file).expect("a configuration");
    let resume = |from: &str, to: &str| {
        assert!(text.contains(from), "{text}");
        std::fs::write(&file, text.replace(from, to)).expect("a file");
        Run::resume(trainer(Run::config_of(&directory).expect("a configuration")), &directory)
    };
    // how often a checkpoint is written may change at any time
    resume("checkpoint_every = ", "checkpoint_every = 1").expect("the same run");
    let Err(error) = resume("weight_decay = ", "weight_decay = 1") else { panic!("it must be refused") };
    assert!(matches!(error, TrainError::OtherConfiguration { .. }));
    let text = error.to_string();
    for words in ["step-", "training.weight_decay: 0.0 in the run, 10.0 now", "config.toml"] {
        assert!(text.contains(words), "`{words}`: {text}");
    }
}

#[test]
fn a_run_may_be_made_longer_with_another_rate_and_keeps_the_history() {
    use train::RateSchedule;
    let folder = tempfile::tempdir().expect("a folder");
    let with_steps = |steps, rate_schedule| {
        let mut config = small();
        (config.training.steps, config.training.rate_schedule) = (steps, rate_schedule);
        config
    };
    let train = |mut run: Run| run.train(&mut |_| Control::Continue).expect("trained");
    let model = |name: &str| std::fs::read(folder.path().join(name).join("model.safetensors")).expect("a model");
    let (whole, grown) = (folder.path().join("whole"), folder.path().join("grown"));
    train(Run::create(trainer(with_steps(6, RateSchedule::Constant)), &whole).expect("a run"));
    train(Run::create(trainer(with_steps(3, RateSchedule::Constant)), &grown).expect("a run"));
    assert!(model("grown") != model("whole"));
    // and where its images lie may change, as long as they are the same
    let mut longer = with_steps(6, RateSchedule::Constant);
    longer.data.path = "moved".to_owned();
    let same_images = Trainer::new(longer.clone(), images(&small()), &Device::flex()).expect("a possible run");
    train(Run::resume(same_images, &grown).expect("the same run"));
    assert!(model("grown") == model("whole"));
    let kept = Run::config_of(&grown).expect("a configuration");
    assert_eq!((kept.training.steps, kept.data.path.as_str()), (6, "moved"), "the changed keys are kept");

    let cosine = folder.path().join("cosine");
    train(Run::create(trainer(with_steps(3, RateSchedule::Cosine)), &cosine).expect("a run"));
    let mut slower = with_steps(6, RateSchedule::Linear);
    slower.training.learning_rate = 1e-5;
    let run = Run::resume(trainer(slower.clone()), &cosine).expect("another rate");
    let changed: Vec<&str> = run.changes.iter().map(|change| change.key.as_str()).collect();
    assert_eq!(changed, ["training.learning_rate", "training.rate_schedule", "training.steps"]);
    drop(run);
    // again from the same state: recorded once
    train(Run::resume(trainer(slower.clone()), &cosine).expect("the same change"));
    let history = std::fs::read_to_string(cosine.join("history.jsonl")).expect("a history");
    let line: serde_json::Value = serde_json::from_str(&history).expect("one line");
    assert_eq!((&line["step"], &line["changes"][0]["before"]), (&3.into(), &"0.004".into()));
    let metrics = std::fs::read_to_string(cosine.join("metrics.jsonl")).expect("metrics");
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().expect("a line")).expect("JSON");
    assert!(last["learning_rate"].as_f64().is_some_and(|rate| rate < 1e-5), "{last}");
    assert!(std::fs::read_to_string(cosine.join("report.html")).expect("a report").contains("from 0.004 to 0.00001"));

    // a complete run is not changed
    let before = std::fs::read(cosine.join("config.toml")).expect("a configuration");
    slower.sampling.count += 1;
    let run = Run::resume(trainer(slower), &cosine).expect("a complete run");
    assert!(run.is_complete() && run.changes.is_empty());
    drop(run);
    let Err(error) = Run::resume(trainer(with_steps(2, RateSchedule::Cosine)), &cosine) else { panic!("fewer steps") };
    assert!(matches!(error, TrainError::StepsDone { done: 6, steps: 2 }), "{error}");
    assert_eq!(std::fs::read(cosine.join("config.toml")).expect("a configuration"), before);
}

#[test]
fn a_training_that_diverges_with_finite_numbers_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let outcome = |name: &str, learning_rate, objective| {
        let mut config = small();
        (config.training.steps, config.training.learning_rate) = (20, learning_rate);
        config.diffusion.objective = objective;
        let mut run = Run::create(trainer(config), &folder.path().join(name)).expect("a run");
        run.train(&mut |_| Control::Continue).expect("trained")
    };
    for objective in [Objective::X0, Objective::Epsilon, Objective::V] {
        assert_eq!(outcome(&format!("good {objective}"), 1e-3, objective).divergence, None);
        let divergence = outcome(&format!("bad {objective}"), 1.0, objective).divergence.expect("a divergence");
        assert_eq!(divergence.rate_to_try, 1e-3);
        let text = divergence.to_string();
        assert!(
            text.contains("the loss of the last steps is") && text.contains("learning_rate = 0.001 instead of 1"),
            "{text}"
        );
    }
    for file in ["model.safetensors", "samples.png", "report.html", "checkpoints/step-0000020.safetensors"] {
        assert!(folder.path().join("bad v").join(file).exists(), "{file}");
    }
}

#[test]
fn epsilon_is_not_predicted_from_pure_noise() {
    let mut config = small();
    config.diffusion.objective = Objective::Epsilon;
    config.diffusion.schedule.zero_terminal_snr = true;
    let error = config.validate().expect_err("no information").to_string();
    assert!(error.contains("pure noise") && error.contains("diffusion.objective = \"v\""), "{error}");
    config.diffusion.objective = Objective::V;
    config.validate().expect("v is fine");
}

#[test]
fn a_run_is_not_resumed_with_other_images() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("run");
    Run::create(trainer(small()), &directory).expect("a run");
    let all = images(&small());
    // as many images, one of them another
    let others = all.subset((0..all.len()).map(|index| index.max(1)));
    let with_others = || Trainer::new(small(), others.clone(), &Device::flex()).expect("a possible run");
    let Err(error) = Run::resume(with_others(), &directory) else { panic!("it must be refused") };
    assert!(matches!(error, TrainError::OtherConfiguration { .. }));
    assert!(error.to_string().contains("data.content_hash: the images are others"), "{error}");
    Run::resume(trainer(small()), &directory).expect("the same images");
    // a run of a version without content hashes
    let config = directory.join("config.toml");
    let text = std::fs::read_to_string(&config).expect("a configuration");
    let older: Vec<&str> = text.lines().filter(|line| !line.starts_with("content_hash")).collect();
    assert!(older.len() + 1 == text.lines().count(), "{text}");
    std::fs::write(&config, older.join("\n")).expect("a file");
    Run::resume(with_others(), &directory).expect("nothing to compare with");
}

#[test]
fn nothing_is_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "kept").expect("a file");
    for directory in [&file, folder.path()] {
        assert!(matches!(Run::create(trainer(small()), directory), Err(TrainError::RunDirectory { .. })));
    }
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), "kept");
}

#[test]
fn mixed_precision_is_refused_or_close() {
    let mut config = small();
    config.training.mixed_precision = MixedPrecision::Bf16;
    let images = images(&config);
    let exact = trainer(small()).step().expect("a step");
    match Trainer::new(config, images, &Device::flex()) {
        Err(error) => assert!(error.to_string().contains("training.mixed_precision = bf16"), "{error}"),
        Ok(mut trainer) => {
            let report = trainer.step().expect("a step");
            assert!((report.loss / exact.loss - 1.0).abs() < 0.05, "{report:?} {exact:?}");
            assert_ne!(report.loss, exact.loss);
        }
    }
}

#[test]
fn every_option_of_training_runs() {
    let with = |change: &dyn Fn(&mut Config)| {
        let mut config = small();
        change(&mut config);
        let mut trainer = trainer(config);
        (0..2).for_each(|_| assert!(trainer.step().expect("a step").loss.is_finite()));
    };
    with(&|config| config.training.gradient_checkpointing = true);
    with(&|config| unet(config).self_condition = true);
    with(&|config| unet(config).learned_variance = true);
    with(&|config| unet(config).dropout = 0.2);
    with(&|config| config.data.horizontal_flip = true);
    with(&|config| config.training.class_labels = false);
    with(&|config| config.diffusion.offset_noise_strength = 0.1);
    with(&|config| config.diffusion.loss = noise::LossType::Huber);
    with(&|config| config.training.optimizer = train::OptimizerKind::Adamw);
}

#[test]
fn output_channels_that_are_no_learned_variance_have_no_loss() {
    let first_loss = |out_dim, variational_weight| {
        let mut config = small();
        // levels between the timesteps, which a learned variance cannot have
        config.diffusion.objective = Objective::Flow;
        unet(&mut config).out_dim = Some(out_dim);
        config.diffusion.variational_weight = variational_weight;
        trainer(config).step().expect("a step").loss
    };
    for out_dim in [2, 3] {
        assert_eq!(first_loss(out_dim, 0.5), first_loss(out_dim, 0.0));
    }
}

#[test]
fn gradient_checkpointing_does_not_change_the_result() {
    let after = |gradient_checkpointing| {
        let mut config = small();
        config.training.gradient_checkpointing = gradient_checkpointing;
        let mut trainer = trainer(config);
        trainer.step().expect("a step");
        weights(&trainer)
    };
    assert!(largest_difference(&after(true), &after(false)) < 1e-6);
}

#[test]
fn the_last_states_and_the_model_of_the_least_held_out_loss_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = folder.path().join("run");
    let mut config = small();
    (config.training.steps, config.training.checkpoint_every, config.training.evaluate_every) = (9, 1, 2);
    config.training.keep_checkpoints = 3;
    let all = images(&config);
    let trainer = Trainer::new(config, all.subset(0..30), &Device::flex()).expect("a possible run");
    let mut run = Run::create(trainer, &directory).expect("a run");
    run.held_out = Some(all.subset(30..40));
    run.environment = vec!["a <machine>".to_owned()];
    let mut evaluations = Vec::new();
    let outcome = run.train(&mut |event| {
        if let train::Event::Evaluated(evaluation) = event {
            evaluations.push(*evaluation);
        }
        Control::Continue
    });
    assert!(outcome.expect("trained").finished);
    let steps: Vec<u64> = run.files.all_checkpoints().into_iter().map(|(step, _)| step).collect();
    assert_eq!(steps, [9, 8, 7]);

    assert_eq!(evaluations.iter().map(|evaluation| evaluation.step).collect::<Vec<_>>(), [2, 4, 6, 8, 9]);
    let text = std::fs::read_to_string(run.files.evaluations()).expect("lines");
    let read: Vec<train::Evaluation> = text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    assert_eq!(read, evaluations);
    let last = evaluations.last().expect("one");
    assert_eq!(run.trainer.losses_of(&all.subset(30..40)), last.held_out, "the draws never change");
    let mean =
        last.held_out.quartiles.iter().zip([3.0, 3.0, 2.0, 2.0]).map(|(mean, count)| mean.mean * count).sum::<f64>();
    assert!((mean / 10.0 - last.held_out.all.mean).abs() < 1e-9);
    let best = checkpoint::Model::load(&run.files.best_model(), &Device::flex()).expect("a model");
    let least = evaluations.iter().min_by(|a, b| a.held_out.all.mean.total_cmp(&b.held_out.all.mean)).expect("one");
    if least.step == last.step {
        assert_eq!(best.unet.state_dict(), run.trainer.model().unet.state_dict());
    }

    let page = std::fs::read_to_string(run.files.report()).expect("a page");
    for part in [
        "<svg",
        "quartile 1, least noise",
        "data:image/png;base64,",
        "a &lt;machine&gt;",
        "learning_rate",
        "held out",
        "±",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("http://") || page.contains("http://www.w3.org/2000/svg"), "it asks for nothing");
    let events = std::fs::read_dir(run.files.events()).expect("a folder").count();
    assert_eq!(events, 1);
}
