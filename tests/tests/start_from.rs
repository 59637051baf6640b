//! `train --from` and `--freeze`: weights of a model, other classes and colors, parts that stay.

use std::collections::BTreeMap;

use checkpoint::Model;
use end_to_end::Workplace;
use train::Part;

/// A folder with a run of twenty steps on the digits, `first`, and pictures of three classes, `three`.
fn workplace() -> Workplace {
    let workplace = Workplace::new();
    workplace.train_tiny(&["--run", "first", "--steps", "20"]).succeeded();
    for (seed, class) in [("1", "ant"), ("2", "bee"), ("3", "cat")] {
        let out = format!("three/{class}");
        workplace.run(&["sample", "first", "--count", "6", "--save", "png", "--seed", seed, "--out", &out]).succeeded();
    }
    workplace
}

/// The arguments of a short training from a model, without a word of its network.
fn start<'a>(more: &[&'a str]) -> Vec<&'a str> {
    const SETTINGS: [&str; 5] =
        ["training.batch_size=4", "training.warmup_steps=0", "training.steps=2", "sampling.count=3", "data.channels=3"];
    let settings = SETTINGS.iter().flat_map(|setting| ["--set", setting]);
    ["train", "--data", "three"].into_iter().chain(settings).chain(more.iter().copied()).collect()
}

/// Shape and values of all tensors of a model.
fn tensors(workplace: &Workplace, run: &str) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let path = workplace.path(format!("{run}/model.safetensors"));
    let model = Model::load(&path, &burn::tensor::Device::flex()).expect("a model");
    let state = model.unet.state_dict().into_iter();
    state.map(|(name, data)| (name, (data.shape().to_vec(), data.iter::<f32>().collect()))).collect()
}

#[test]
fn a_model_of_gray_digits_learns_three_classes_in_color_and_keeps_its_frozen_parts() {
    let workplace = workplace();
    let arguments = ["--from", "first", "--freeze", "time,down,mid,up", "--run", "second"];
    let finished = workplace.run(&start(&arguments)).succeeded();
    for words in [
        "start       ",
        "first/model.safetensors: averaged weights, 28x28, 1 channel(s), 10 classes\n",
        "taken       ",
        "fresh       4 tensors, ",
        "init_conv.weight [8, 12, 7, 7], there [8, 4, 7, 7]",
        "label_embedding.weight [4, 32], there [11, 32]",
        "frozen      time, down, mid, up: ",
    ] {
        assert!(finished.error.contains(words), "{words}: {finished}");
    }
    // network and sampling are those of the model, not of the preset
    let config = workplace.text("second/config.toml");
    for line in
        ["dim = 8", "dim_mults = [1]", "channels = 3", "classes = 3", "freeze = [\"time\", \"down\", \"mid\", \"up\"]"]
    {
        assert!(config.lines().any(|found| found == line), "{line}: {config}");
    }
    assert!(config.contains("[sampling]\nsampler = \"ddim\"\nsteps = 3\n"), "{config}");
    let from = config.lines().find(|line| line.starts_with("from = ")).expect("the model");
    assert!(from.ends_with("/first\"") && from.starts_with("from = \"/"), "{from}");
    assert_frozen(&workplace);

    // the run goes on without the model
    std::fs::remove_dir_all(workplace.path("first")).expect("a folder");
    let resume = |more: &[&str]| workplace.run(&[&["train", "--resume", "--run", "second"], more].concat());
    resume(&["--steps", "3", "--freeze", "mid"])
        .refused(&["training.freeze: [\"time\", ", " in the run, [\"mid\"] now"]);
    resume(&["--steps", "3", "--from", "second"]).refused(&["training.from: ", "/first", "/second"]);
    let finished = resume(&["--steps", "4", "--from", "first"]).succeeded();
    assert!(finished.error.contains("going on after step 2") && !finished.error.contains("taken  "), "{finished}");
    workplace.run(&["sample", "second", "--class", "bee", "--count", "2"]).succeeded();
}

fn assert_frozen(workplace: &Workplace) {
    let (before, after) = (tensors(workplace, "first"), tensors(workplace, "second"));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (name, tensor) in &after {
        let stays = matches!(Part::of(name), Part::Time | Part::Down | Part::Mid | Part::Up);
        assert_eq!(before[name] == *tensor, stays, "{name}");
    }
}

#[test]
fn a_training_state_gives_its_raw_weights_and_the_file_may_name_the_model() {
    let workplace = workplace();
    workplace
        .write("mine.toml", "[training]\nfrom = \"first/checkpoints/step-0000020.safetensors\"\nfreeze = [\"up\"]\n");
    let finished = workplace.run(&start(&["--config", "mine.toml", "--dry-run"])).succeeded();
    for words in ["raw weights of step 20, 1 channel(s), 10 classes", "frozen      up: "] {
        assert!(finished.error.contains(words), "{words}: {finished}");
    }
    let shown = workplace.run(&["config", "show", "--from", "first", "--set", "unet.dropout=0.1"]).succeeded().output;
    let line = |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}: {shown}"));
    assert!(line("dim = 8 ").ends_with("# model first"), "{shown}");
    assert!(line("objective = ").ends_with("# model first"), "{shown}");
    assert!(line("dropout = 0.1 ").ends_with("# --set unet.dropout=0.1"), "{shown}");
    assert!(line("from = ").ends_with("# --from"), "{shown}");
    assert!(!line("batch_size = ").contains("model"), "{shown}");
    // what the user sets wins, also where it is a mistake
    let objective = ["--from", "first", "--dry-run", "--set", "diffusion.objective=v"];
    let warned = workplace.run(&start(&objective)).succeeded();
    assert!(warned.error.contains("warning: the objective is v, but that of the model x0"), "{warned}");
}

#[test]
fn what_cannot_be_started_from_or_frozen_is_refused() {
    let workplace = workplace();
    workplace.write("notes.txt", "not a model");
    workplace.write("empty/notes.txt", "no run");
    let refused = |more: &[&str], words: &[&str]| {
        let finished = workplace.run(&start(more)).refused(words);
        assert!(!workplace.path("runs").exists(), "{finished}");
        finished
    };
    let finished = refused(&["--from", "nowhere"], &["--from: cannot read nowhere", "check the name"]);
    assert_eq!(finished.code, Some(2), "{finished}");
    refused(&["--set", "training.from=notes.txt"], &["--set training.from=notes.txt: ", "diffuse import"]);
    refused(&["--from", "empty"], &["the folder empty has no model.safetensors"]);
    let other =
        ["--from", "first", "--set", "unet.dim=16", "--set", "unet.dim_mults=[1, 2]", "--set", "unet.attention=[]"];
    let keys =
        ["unet.dim: 8 in the model, 16 here", "unet.dim_mults: [1] in the model, [1, 2] here", "Leave these keys out"];
    refused(&other, &keys);
    let parts =
        ["--freeze: `training.freeze", "`stem`", "`time`", "`labels`", "`down`", "`mid`", "`up`", "`head`", "`middle`"];
    refused(&["--from", "first", "--freeze", "down,middle"], &parts);
    let unlabeled = ["--from", "first", "--freeze", "labels", "--set", "training.class_labels=false"];
    refused(&unlabeled, &["training.freeze", "no labels"]);
    refused(&["--freeze", "stem,time,labels,down,mid,up,head"], &["nothing is left to train"]);
}
