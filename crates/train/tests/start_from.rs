//! Trainings that start from the weights of a model, and parts of the network that are frozen.

mod common;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, TensorData};
use schedule::Objective;
use tempfile::TempDir;
use train::{Config, Control, MixedPrecision, OptimizerKind, Origin, Part, Run, Trainer, check_start};

use common::{few_digits, images, trainer, unet};

type Weights = BTreeMap<String, Vec<f32>>;
type Change = fn(&mut Config);
type Names = &'static [&'static str];

fn small() -> Config {
    let mut config = few_digits();
    unet(&mut config).dim_mults = vec![1, 2];
    let training = &mut config.training;
    (training.batch_size, training.steps, training.warmup_steps, training.parallel_parts) = (4, 3, 0, 1);
    // otherwise the average of so few steps is a copy
    training.ema.warmup = false;
    config
}

fn error_of(config: &Config) -> String {
    Trainer::new(config.clone(), images(config), &Device::flex()).err().expect("not possible").to_string()
}

fn values(state: Vec<(String, TensorData)>) -> Weights {
    state.into_iter().map(|(name, data)| (name, data.iter::<f32>().collect())).collect()
}

fn weights(trainer: &Trainer) -> Weights {
    values(trainer.unet().state_dict())
}

fn averages(trainer: &Trainer) -> Weights {
    values(trainer.model().unet.state_dict())
}

/// The names that two sets of weights both have, with other values.
fn differing(one: &Weights, other: &Weights) -> Vec<String> {
    one.iter().filter(|(name, values)| other.get(*name) != Some(values)).map(|(name, _)| name.clone()).collect()
}

/// A run of three steps in a folder: its model, its last state, and its weights.
struct Trained {
    folder: TempDir,
    raw: Weights,
    averaged: Weights,
}

impl Trained {
    fn new(config: &Config) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut run = Run::create(trainer(config), &folder.path().join("run")).expect("a run");
        run.train(&mut |_| Control::Continue).expect("trained");
        let (raw, averaged) = (weights(&run.trainer), averages(&run.trainer));
        assert!(!differing(&raw, &averaged).is_empty());
        Self { folder, raw, averaged }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A configuration that starts from a file of the run.
    fn start(&self, config: &Config, file: &str) -> Config {
        let mut config = config.clone();
        config.training.from = Some(self.path(file).to_str().expect("text").to_owned());
        config
    }
}

#[test]
fn a_training_starts_from_the_averaged_weights_of_a_run_or_the_raw_ones_of_a_state() {
    let trained = Trained::new(&small());
    for (file, expected) in [
        ("run", &trained.averaged),
        ("run/model.safetensors", &trained.averaged),
        ("run/checkpoints/step-0000003.safetensors", &trained.raw),
    ] {
        // of another seed, which would give other initial weights
        let mut config = trained.start(&small(), file);
        config.training.seed = 5;
        let mut trainer = trainer(&config);
        assert!(differing(&weights(&trainer), expected).is_empty(), "{file}");
        assert!(differing(&averages(&trainer), expected).is_empty(), "{file}: the average begins as a copy");
        let start = trainer.start().expect("an account");
        assert!(start.fresh.is_empty() && start.left_out.is_empty(), "{start:?}");
        assert_eq!(start.origin.step, (expected == &trained.raw).then_some(3));
        trainer.step().expect("a step");
        assert!(!differing(&weights(&trainer), expected).is_empty());
    }
}

#[test]
fn what_follows_from_classes_and_channels_is_fresh_and_the_rest_is_taken() {
    let trained = Trained::new(&small());
    let cases: [(&str, Change, Names, Names); 4] = [
        (
            "colors",
            |config| config.data.channels = Some(3),
            &["final_conv.bias", "final_conv.weight", "init_conv.weight"],
            &[],
        ),
        ("no labels", |config| config.training.class_labels = false, &[], &["label_embedding.weight"]),
        ("self-conditioning", |config| unet(config).self_condition = true, &["init_conv.weight"], &[]),
        (
            "a learned variance",
            |config| unet(config).learned_variance = true,
            &["final_conv.bias", "final_conv.weight"],
            &[],
        ),
    ];
    for (name, change, fresh, left_out) in cases {
        for file in ["run", "run/checkpoints/step-0000003.safetensors"] {
            let mut nothing = small();
            change(&mut nothing);
            let config = trained.start(&nothing, file);
            let source = if file == "run" { &trained.averaged } else { &trained.raw };
            let (initial, started) = (weights(&trainer(&nothing)), trainer(&config));
            let start = started.start().expect("an account");
            let names: Vec<&str> = start.fresh.iter().map(|fresh| fresh.name.as_str()).collect();
            assert_eq!(
                (sorted(names), sorted(start.left_out.clone())),
                (fresh.to_vec(), sorted_texts(left_out)),
                "{name}"
            );
            let found = weights(&started);
            assert_eq!(differing(&found, source), *fresh, "{name}: the others are those of the model");
            for fresh in fresh {
                assert_eq!(
                    found[*fresh], initial[*fresh],
                    "{name}: fresh tensors are those of a training from nothing"
                );
            }
        }
    }
    // labels that the model has not
    let mut config = small();
    config.training.class_labels = false;
    let unlabeled = Trained::new(&config);
    let started = trainer(&unlabeled.start(&small(), "run"));
    let start = started.start().expect("an account");
    assert_eq!((start.fresh[0].name.as_str(), &start.fresh[0].there), ("label_embedding.weight", &None));
    let lines: Vec<String> = start.lines().iter().map(|(label, text)| format!("{label} {text}")).collect();
    let text = lines.join("\n");
    for words in ["averaged weights, 28x28, 1 channel(s), 0 classes", "stem 2, time 4, down ", "fresh 1 tensors, 352 "]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list
}

fn sorted_texts(list: &[&str]) -> Vec<String> {
    sorted(list.iter().map(|text| (*text).to_owned()).collect())
}

#[test]
fn a_network_of_another_architecture_is_refused_by_its_keys() {
    let trained = Trained::new(&small());
    let mut other = trained.start(&small(), "run");
    (unet(&mut other).dim, unet(&mut other).attention_heads) = (16, 2);
    let error = error_of(&other);
    for words in
        ["model.safetensors", "unet.dim: 8 in the model, 16 here", "unet.attention_heads: 4 in", "Leave these keys out"]
    {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(!error.contains("unet.channels") && !error.contains("unet.classes"), "{error}");
    // the same network, written out
    let mut same = trained.start(&small(), "run");
    let network = unet(&mut same);
    network.init_dim = Some(8);
    network.attention = (0..2).map(|level| network.attention_of(level)).collect();
    network.dropout = 0.1;
    assert!(trainer(&same).start().is_some());
}

#[test]
fn what_is_no_model_is_refused_by_its_name() {
    let trained = Trained::new(&small());
    std::fs::write(trained.path("text.pt"), "no tensors at all").expect("a file");
    std::fs::create_dir(trained.path("empty")).expect("a folder");
    let model = std::fs::read(trained.path("run/model.safetensors")).expect("a file");
    std::fs::write(trained.path("half.safetensors"), &model[..model.len() / 2]).expect("a file");
    for (file, words) in [
        ("text.pt", &["text.pt", "not a whole safetensors file", "diffuse import"][..]),
        ("half.safetensors", &["half.safetensors", "cut off"]),
        ("empty", &["empty has no model.safetensors", "checkpoints/"]),
        ("nowhere", &["nowhere", "No such file"]),
    ] {
        let error = error_of(&trained.start(&small(), file));
        assert!(words.iter().all(|word| error.contains(word)), "{file}: {error}");
    }
    // a model that claims another size than it has, and one that is not finite
    let edited = |from: &str, to: &str| {
        let length = u64::from_le_bytes(*model.first_chunk().expect("a length")) as usize;
        let (header, tensors) = model[8..].split_at(length);
        let header = String::from_utf8(header.to_vec()).expect("JSON");
        assert!(header.contains(from), "{header:.900}");
        let header = header.replacen(from, to, 1);
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), tensors].concat()
    };
    std::fs::write(trained.path("huge.safetensors"), edited(r#"\"dim\":8"#, r#"\"dim\":32768"#)).expect("a file");
    let error = error_of(&trained.start(&small(), "huge.safetensors"));
    assert!(error.contains("huge.safetensors") && error.contains("do not fit the"), "{error}");
    let mut nan = model.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(trained.path("nan.safetensors"), nan).expect("a file");
    let error = error_of(&trained.start(&small(), "nan.safetensors"));
    assert!(error.contains("nan.safetensors") && error.contains("not finite"), "{error}");
}

#[test]
fn a_start_that_costs_quality_is_said() {
    let trained = Trained::new(&small());
    let texts = |change: fn(&mut Config), from: Option<&str>| -> Vec<String> {
        let mut config = from.map_or(small(), |file| trained.start(&small(), file));
        change(&mut config);
        let (images, trainer) = (images(&config), trainer(&config));
        check_start(trainer.config(), &images, trainer.start()).into_iter().map(|finding| finding.text).collect()
    };
    assert_eq!(texts(|_| (), Some("run")), [""; 0]);
    assert_eq!(texts(|_| (), None), [""; 0]);
    let said = |change: fn(&mut Config), from, words: &[&str]| {
        let texts = texts(change, from);
        assert!(texts.len() == 1 && words.iter().all(|word| texts[0].contains(word)), "{words:?}: {texts:?}");
    };
    said(|config| config.training.freeze = vec![Part::Mid], None, &["random weights", "mid", "training.from"]);
    said(|config| config.diffusion.objective = Objective::V, Some("run"), &["objective is v", "the model x0"]);
    said(|config| config.diffusion.schedule.timesteps = 500, Some("run"), &["timesteps: 1000 in the model, 500 here"]);
    let smaller: fn(&mut Config) = |config| config.data.image_size = Some(train::ImageSize::Square(16));
    said(smaller, Some("run"), &["images of 16x16", "28x28 in the model", "data.image_size = 28"]);
    let frozen: fn(&mut Config) = |config| {
        config.data.channels = Some(3);
        config.training.freeze = vec![Part::Stem, Part::Down];
    };
    said(frozen, Some("run"), &["init_conv.weight", "training.freeze"]);
}

#[test]
fn every_parameter_has_its_part() {
    let names = trainer(&small()).unet().parameter_names();
    let parts: Vec<Part> = names.iter().map(|name| Part::of(name)).collect();
    assert!(parts.is_sorted(), "{names:?}");
    let of_head: Vec<&String> = names.iter().filter(|name| Part::of(name) == Part::Head).collect();
    assert!(of_head.iter().all(|name| name.starts_with("final_")), "{of_head:?}");
    for part in [Part::Stem, Part::Time, Part::Labels, Part::Down, Part::Mid, Part::Up, Part::Head] {
        assert!(parts.contains(&part), "{part:?} of {names:?}");
        let mut config = small();
        config.training.freeze = vec![part];
        let text = toml::to_string(&config).expect("TOML");
        assert!(text.contains(&format!("freeze = [\"{}\"]", part.name())), "{text}");
    }
}

#[test]
fn what_cannot_be_frozen_is_refused() {
    use Part::{Down, Head, Labels, Mid, Stem, Time, Up};
    let mut config = small();
    config.training.class_labels = false;
    for (parts, words) in [
        (vec![Mid, Labels], [r#"["mid", "labels"]"#, "training.class_labels = true"]),
        (vec![Stem, Time, Down, Mid, Up, Head], ["training.freeze", "nothing is left to train"]),
    ] {
        config.training.freeze = parts;
        let error = error_of(&config);
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}

#[test]
fn frozen_parts_stay_and_the_others_take_the_steps_that_they_would_take() {
    let kinds: [(&str, Change); 4] = [
        ("Adam", |_| ()),
        ("AdamW on threads", |config| {
            (config.training.optimizer, config.training.weight_decay) = (OptimizerKind::Adamw, 0.1);
            config.training.parallel_parts = 2;
        }),
        ("decay in the gradient, accumulated", |config| {
            (config.training.weight_decay, config.training.gradient_accumulate_every) = (0.1, 2);
        }),
        ("checkpointed", |config| config.training.gradient_checkpointing = true),
    ];
    for (name, change) in kinds {
        for parts in
            [vec![Part::Down, Part::Mid], vec![Part::Stem, Part::Time, Part::Labels, Part::Down], vec![Part::Head]]
        {
            let mut config = small();
            config.training.max_gradient_norm = 0.0;
            change(&mut config);
            let mut free = trainer(&config);
            config.training.freeze = parts.clone();
            let mut frozen = trainer(&config);
            let before = weights(&frozen);
            assert!(differing(&before, &weights(&free)).is_empty());
            let is_frozen = |name: &String| parts.contains(&Part::of(name));
            let count: usize = before.iter().filter(|(name, _)| is_frozen(name)).map(|(_, values)| values.len()).sum();
            assert_eq!(frozen.frozen_parameters(), count);

            let (with, without) = (frozen.step().expect("a step"), free.step().expect("a step"));
            assert!(with.loss == without.loss && with.gradient_norm < without.gradient_norm, "{with:?} {without:?}");
            // one step of Adam on each parameter alone
            let differing_now = differing(&weights(&frozen), &weights(&free));
            assert!(differing_now.iter().all(is_frozen), "{name}, {parts:?}: {differing_now:?}");
            (0..3).for_each(|_| assert!(frozen.step().expect("a step").loss.is_finite()));
            let (trained, averaged) = (weights(&frozen), averages(&frozen));
            for (parameter, values) in &before {
                let stays = is_frozen(parameter);
                assert_eq!(trained[parameter] == *values, stays, "{name}, {parts:?}: {parameter}");
                assert!(!stays || averaged[parameter] == *values, "{name}, {parts:?}: the average of {parameter}");
            }
        }
    }
}

#[test]
fn the_gradients_and_moments_of_frozen_parts_stay_nothing_also_in_half_precision() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = small();
    config.training.freeze = vec![Part::Down, Part::Mid];
    config.training.mixed_precision = MixedPrecision::Bf16;
    let made = Trainer::new(config.clone(), images(&config), &Device::flex());
    config.training.mixed_precision = MixedPrecision::No;
    // where the device has no bf16
    let mut trainer = made.unwrap_or_else(|_| trainer(&config));
    (0..2).for_each(|_| drop(trainer.step().expect("a step")));
    let path = folder.path().join("state.safetensors");
    trainer.save_state(&path).expect("saved");
    let state = checkpoint::file::TensorFile::read(&path, "diffuse-training-state").expect("a state");
    for name in trainer.unet().parameter_names() {
        for moment in ["first_moment", "second_moment"] {
            let data = state.tensor(&format!("{moment}.{name}")).expect("a tensor").expect("of this name");
            let is_zero = data.iter::<f32>().all(|value| value == 0.0);
            assert_eq!(is_zero, matches!(Part::of(&name), Part::Down | Part::Mid), "{moment} of {name}");
        }
    }
}

#[test]
fn a_resumed_run_keeps_its_frozen_parts_and_does_not_read_the_model_again() {
    let trained = Trained::new(&small());
    let mut config = trained.start(&small(), "run");
    config.training.freeze = vec![Part::Time, Part::Up];
    config.training.steps = 4;
    let run_to = |directory: &Path, stop: u64| {
        let mut run = Run::create(trainer(&config), directory).expect("a run");
        let outcome = run.train(&mut |event| match event {
            train::Event::Step { report, .. } if report.step == stop => Control::Stop,
            _ => Control::Continue,
        });
        assert_eq!(outcome.expect("trained").steps, stop);
    };
    let (whole, parted, begun) = (trained.path("whole"), trained.path("parted"), trained.path("begun"));
    run_to(&whole, 4);
    run_to(&parted, 2);
    drop(Run::create(trainer(&config), &begun).expect("a run without a state"));
    std::fs::rename(trained.path("run"), trained.path("moved")).expect("a folder");

    let resume = |directory: &Path| {
        let config = Run::config_of(directory)?;
        Run::resume(Trainer::to_resume(config.clone(), images(&config), &Device::flex())?, directory)
    };
    let mut run = resume(&parted).expect("the run goes on");
    assert!(run.trainer.start().is_none());
    run.train(&mut |_| Control::Continue).expect("trained");
    for name in ["model.safetensors", "checkpoints/step-0000004.safetensors", "config.toml"] {
        let read = |run: &Path| std::fs::read(run.join(name)).expect("a file");
        assert!(read(&parted) == read(&whole), "{name} differs");
    }
    let frozen = |name: &String| matches!(Part::of(name), Part::Time | Part::Up);
    let changed = differing(&weights(&run.trainer), &trained.averaged);
    assert!(!changed.is_empty() && !changed.iter().any(frozen), "{changed:?}");

    // without a state there is nothing to go on from but the model
    let error = resume(&begun).err().expect("the model is not there").to_string();
    assert!(error.contains("run") && error.contains("No such file"), "{error}");
    std::fs::rename(trained.path("moved"), trained.path("run")).expect("a folder");
    let run = resume(&begun).expect("the run begins");
    assert!(differing(&weights(&run.trainer), &trained.averaged).is_empty() && run.trainer.start().is_some());

    // the parts are those of the run
    let mut other = Run::config_of(&parted).expect("a configuration");
    other.training.freeze = vec![Part::Time];
    let error = Run::resume(trainer(&other), &parted).err().expect("another run").to_string();
    assert!(error.contains("training.freeze: [\"time\", \"up\"] in the run, [\"time\"] now"), "{error}");
}

#[test]
fn the_origin_says_what_the_model_is() {
    let trained = Trained::new(&small());
    for (file, step, has_image) in [("run", None, true), ("run/checkpoints/step-0000003.safetensors", Some(3), false)] {
        let origin = Origin::read(&trained.path(file)).expect("a model");
        let network = origin.unet.as_unet().expect("lucidrains' network");
        assert_eq!((origin.objective, network.dim, network.classes), (Objective::X0, 8, 10));
        assert_eq!((origin.step, origin.image.is_some(), origin.sampling.steps), (step, has_image, 2));
    }
}
