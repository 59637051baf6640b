//! Training on several ranks, against training on one.

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use burn::tensor::Device;
use parallel::{GroupError, ProcessGroup, threads};
use schedule::Objective;
use train::{Config, Control, Event, Outcome, Part, Run, TrainError, Trainer};

use common::{few_digits, images, trainer, unet, unet2d};

/// Steps of each curve.
const STEPS: usize = 8;

type Change = fn(&mut Config);

/// Options that could depend on which samples are computed together.
const KINDS: [(&str, Change); 10] = [
    ("default", |_| ()),
    ("accumulated", |config| config.training.gradient_accumulate_every = 3),
    ("parts on threads", |config| config.training.parallel_parts = 4),
    ("immiscible noise", |config| config.diffusion.immiscible_noise = true),
    ("self-conditioning", |config| unet(config).self_condition = true),
    ("dropout", |config| unet(config).dropout = 0.2),
    ("importance sampling", |config| {
        config.diffusion.importance_sampling = true;
        config.diffusion.schedule.timesteps = 2;
        config.sampling.steps = 2;
        config.training.gradient_accumulate_every = 2;
    }),
    ("flow matching", |config| config.diffusion.objective = Objective::Flow),
    ("frozen parts", |config| config.training.freeze = vec![Part::Stem, Part::Down]),
    ("diffusers' network", |config| config.unet = unet2d().into()),
];

fn small() -> Config {
    let mut config = few_digits();
    let training = &mut config.training;
    (training.batch_size, training.steps, training.warmup_steps, training.parallel_parts) = (8, 12, 2, 1);
    (training.log_every, training.evaluate_every, training.checkpoint_every) = (1, 4, 4);
    config
}

/// The result of `each` on every rank of a group.
fn on_all<T: Send>(ranks: usize, each: impl Fn(Arc<dyn ProcessGroup>) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let each = &each;
        let running: Vec<_> =
            threads(ranks).into_iter().map(|rank| scope.spawn(move || each(Arc::new(rank)))).collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

fn losses(trainer: &mut Trainer, steps: usize) -> Vec<f64> {
    (0..steps).map(|_| trainer.step().expect("a step").loss).collect()
}

#[track_caller]
fn assert_near(found: &[f64], expected: &[f64], largest: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (step, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (found - expected).abs() / expected.abs().max(1e-3);
        assert!(difference < largest, "{what}, step {}: {found} is not {expected}", step + 1);
    }
}

#[test]
fn the_loss_curve_of_several_ranks_is_that_of_one() {
    for (name, change) in KINDS {
        let mut config = small();
        change(&mut config);
        let expected = losses(&mut trainer(&config), STEPS);
        assert!(expected[STEPS - 1] != expected[0]);
        // 3 does not divide 8
        for ranks in [2, 3] {
            let curves = on_all(ranks, |group| {
                losses(&mut trainer(&config).distributed(group).expect("ranks of one configuration"), STEPS)
            });
            assert!(curves.iter().all(|curve| *curve == curves[0]), "{name}: all ranks report the same");
            assert_near(&curves[0], &expected, 1e-3, &format!("{name} on {ranks} ranks"));
            // before the first update there is nothing that could have drifted apart
            assert_near(&curves[0][..1], &expected[..1], 1e-6, &format!("{name} on {ranks} ranks"));
        }
    }
}

/// A rank's run in `directory`, up to the step `stop_at` of the rank `stops`.
fn run_in(
    config: &Config,
    directory: &std::path::Path,
    group: Arc<dyn ProcessGroup>,
    stop_at: Option<(usize, u64)>,
) -> Result<Outcome, TrainError> {
    let (is_main, rank) = (group.is_main(), group.rank());
    let trainer = trainer(config).distributed(group)?;
    let resumed = directory.join("config.toml").exists();
    // all ranks have checked before rank 0 creates it
    trainer.group().barrier()?;
    let mut run = if resumed { Run::resume(trainer, directory)? } else { Run::create(trainer, directory)? };
    run.held_out = Some(images(config).subset(0..8));
    run.train(&mut |event| {
        assert!(is_main || matches!(event, Event::Step { .. }), "rank {rank} did {event:?}");
        match event {
            Event::Step { report, .. } if stop_at == Some((rank, report.step)) => Control::Stop,
            _ => Control::Continue,
        }
    })
}

/// The numbers under a key of a file of one JSON object a line.
fn numbers(path: &std::path::Path, keys: &[&str]) -> Vec<f64> {
    let text = std::fs::read_to_string(path).expect("a file");
    let value = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a JSON object");
        keys.iter().fold(&line, |value, key| &value[*key]).as_f64().expect("a number")
    };
    text.lines().map(value).collect()
}

#[test]
fn a_run_resumes_with_any_number_of_ranks_and_has_the_same_losses() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let config = small();
    on_all(1, |group| run_in(&config, &whole, group, None).expect("trained"));
    // the second of two ranks stops it, then three go on, then one
    for (ranks, stop_at, steps) in [(2, Some((1, 3)), 3), (3, Some((0, 6)), 6), (1, None, 12)] {
        let outcomes = on_all(ranks, |group| run_in(&config, &parts, group, stop_at).expect("trained"));
        for outcome in outcomes {
            assert_eq!((outcome.steps, outcome.finished), (steps, stop_at.is_none()));
        }
    }
    let both = |file: &str, keys: &[&str]| [&parts, &whole].map(|run| numbers(&run.join(file), keys));
    for (file, keys) in [("metrics.jsonl", &["loss"][..]), ("evaluations.jsonl", &["held_out", "all", "mean"])] {
        let [found, expected] = both(file, keys);
        assert_near(&found, &expected, 1e-3, file);
    }
    assert_eq!(both("metrics.jsonl", &["step"])[0], (1..=12).map(f64::from).collect::<Vec<_>>());
    assert!(parts.join("samples.png").exists() && parts.join("model.safetensors").exists());
}

#[test]
fn ranks_with_another_configuration_or_other_images_are_refused() {
    let error_of = |change: fn(&mut Config)| -> Vec<String> {
        on_all(3, |group| {
            let mut config = small();
            if group.rank() == 2 {
                change(&mut config);
            }
            trainer(&config).distributed(group).err().map(|error| error.to_string()).unwrap_or_default()
        })
    };
    for error in error_of(|config| config.training.learning_rate = 0.5) {
        let words = ["rank 2 ", "training.learning_rate: ", " on rank 0, 0.5 there"];
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    for error in error_of(|config| config.data.limit = Some(39)) {
        assert!(error.contains("rank 2 ") && error.contains("data.limit: 40 on rank 0, 39 there"), "{error}");
    }
    // the same configuration, and other images behind it
    let errors = on_all(2, |group| {
        let config = small();
        let images = images(&config).subset((0..40).map(|index| if index == 7 { group.rank() } else { index }));
        let trainer = Trainer::new(config, images, &Device::flex()).expect("a possible run");
        trainer.distributed(group).err().map(|error| error.to_string()).unwrap_or_default()
    });
    for error in errors {
        assert!(error.contains("rank 1 ") && error.contains("data.content_hash: the images are others"), "{error}");
    }
    assert_eq!(error_of(|_| ()), ["", "", ""]);
    // more ranks than images in a batch
    let errors = on_all(3, |group| {
        let mut config = small();
        config.training.batch_size = 2;
        trainer(&config).distributed(group).err().map(|error| error.to_string())
    });
    assert!(errors.iter().flatten().all(|error| error.contains("batch_size = 2") && error.contains("3 processes")));
    assert_eq!(errors.iter().flatten().count(), 3);
}

#[test]
fn a_step_that_is_not_finite_is_skipped_by_all_and_none_drifts_away() {
    let mut config = small();
    // the numbers of f32 end soon
    config.training.learning_rate = 1e30;
    config.training.warmup_steps = 0;
    config.training.max_gradient_norm = 0.0;
    let ends = |trainer: &mut Trainer| -> Vec<String> {
        (0..12)
            .map(|_| match trainer.step() {
                Ok(report) => format!("{} {}", report.step, report.non_finite.is_some()),
                Err(error) => error.to_string(),
            })
            .collect()
    };
    let alone = ends(&mut trainer(&config));
    assert!(alone.iter().any(|end| end.contains("diverged") || end.contains("true")), "{alone:?}");
    for ranks in on_all(2, |group| ends(&mut trainer(&config).distributed(group).expect("ranks of one configuration")))
    {
        assert_eq!(ranks, alone);
    }
}

/// A rank that dies in the middle of a step.
#[derive(Debug)]
struct Mortal {
    rank: Arc<dyn ProcessGroup>,
    sums_left: AtomicUsize,
}

impl ProcessGroup for Mortal {
    fn rank(&self) -> usize {
        self.rank.rank()
    }
    fn world_size(&self) -> usize {
        self.rank.world_size()
    }
    fn all_reduce(&self, values: Vec<f32>) -> Result<Vec<f32>, GroupError> {
        if self.sums_left.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(GroupError::Gone { size: self.world_size() });
        }
        self.rank.all_reduce(values)
    }
    fn all_gather(&self, value: Vec<u8>) -> Result<Vec<Vec<u8>>, GroupError> {
        self.rank.all_gather(value)
    }
    fn broadcast(&self, value: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        self.rank.broadcast(value)
    }
}

#[test]
fn when_a_rank_dies_the_others_end_and_the_last_complete_step_is_saved() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = small();
    let whole = folder.path().join("whole");
    on_all(1, |group| run_in(&config, &whole, group, None).expect("trained"));
    for ranks_after in [3, 1] {
        let directory = folder.path().join(format!("then-{ranks_after}"));
        let outcomes = on_all(3, |group| {
            let dies = group.rank() == 2;
            let mortal = Mortal { rank: Arc::clone(&group), sums_left: AtomicUsize::new(6) };
            run_in(&config, &directory, if dies { Arc::new(mortal) } else { group }, None)
        });
        let errors: Vec<TrainError> = outcomes.into_iter().map(|outcome| outcome.expect_err("a lost rank")).collect();
        assert!(matches!(errors[0], TrainError::LostRanks { step: 6, .. }), "{errors:?}");
        assert!(
            errors[0].to_string().contains("another of the 3 ranks has ended. The state after step 6"),
            "{errors:?}"
        );
        assert!(matches!(errors[1], TrainError::Ranks(GroupError::Gone { size: 3 })), "{errors:?}");
        let outcomes = on_all(ranks_after, |group| run_in(&config, &directory, group, None).expect("trained"));
        assert!(outcomes.iter().all(|outcome| outcome.finished));
        let [found, expected] = [&directory, &whole].map(|run| numbers(&run.join("metrics.jsonl"), &["loss"]));
        assert_near(&found, &expected, 1e-3, "after a death");
    }
}
