//! Configuration files, help, errors, completions and manual pages.
//!
//! `UPDATE_EXPECT=1 cargo test --workspace --test config_and_help` writes `tests/snapshots/` anew; review the difference.

use end_to_end::Workplace;
use expect_test::expect_file;

#[test]
fn config_show_prints_the_origin_of_each_value() {
    let workplace = Workplace::new();
    workplace.write("mine.toml", "[training]\nbatch_size = 8\nlearning_rate = 1e-3\n");
    let shown = workplace
        .run(&["config", "show", "--config", "mine.toml", "--set", "training.learning_rate=2e-3", "--steps", "7"])
        .succeeded()
        .output;
    let line = |start: &str| {
        let found = shown.lines().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("{start}: {shown}")).to_owned()
    };
    assert!(line("batch_size = 8").ends_with("# mine.toml"), "{shown}");
    assert!(line("learning_rate = 0.002").ends_with("# --set training.learning_rate=2e-3"), "{shown}");
    assert!(line("steps = 7").ends_with("# --steps"), "{shown}");
    assert!(line("warmup_steps = 100").ends_with("# preset digits"), "{shown}");
    assert!(line("max_gradient_norm = 1.0").ends_with("# default"), "{shown}");
    // the output is a configuration file with the same values
    workplace.write("shown.toml", &shown);
    let again = workplace.run(&["train", "--config", "shown.toml", "--dry-run"]).succeeded().output;
    let direct =
        ["train", "--config", "mine.toml", "--set", "training.learning_rate=2e-3", "--steps", "7", "--dry-run"];
    assert_eq!(again, workplace.run(&direct).succeeded().output);
    workplace.run(&["config", "show", "--set", "training.batchsize=8"]).refused(&["`training.batch_size`"]);
}

#[test]
fn config_init_writes_a_file_with_comments() {
    let workplace = Workplace::new();
    let begun = workplace.run(&["config", "init", "--preset", "fashion-mnist", "--out", "own.toml"]).succeeded();
    assert_eq!(begun.output, "own.toml\n");
    let text = workplace.text("own.toml");
    for part in ["# Optimizer steps.", "steps = 20000", "[training.ema]", "# image_size =", "# limit ="] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let dry = |arguments: &[&str]| workplace.run(&[&["config", "show"], arguments].concat()).succeeded().output;
    let values = |shown: String| -> Vec<String> {
        shown.lines().map(|line| line.split('#').next().unwrap_or_default().trim().to_owned()).collect()
    };
    let (with, without) =
        (dry(&["--preset", "fashion-mnist", "--config", "own.toml"]), dry(&["--preset", "fashion-mnist"]));
    assert_eq!(values(with), values(without));
    workplace.run(&["config", "init", "--out", "own.toml"]).refused(&["own.toml exists already"]);
}

#[test]
fn help_and_errors_are_those_of_the_snapshots() {
    let workplace = Workplace::new();
    let mut help = String::new();
    for command in [
        &["--help"][..],
        &["train", "--help"],
        &["doctor", "--help"],
        &["sample", "--help"],
        &["edit", "--help"],
        &["evaluate", "--help"],
        &["nll", "--help"],
        &["plan", "--help"],
        &["average", "--help"],
        &["classifier", "--help"],
        &["import", "--help"],
        &["export", "--help"],
        &["config", "--help"],
        &["completions", "--help"],
        &["man", "--help"],
        &["data", "--help"],
        &["schedule", "--help"],
    ] {
        let output = workplace.run(command).succeeded().output;
        help.push_str(&format!("$ diffuse {}\n{output}\n", command.join(" ")));
    }
    expect_file!["../snapshots/help.txt"].assert_eq(&help);

    let mut errors = String::new();
    for command in [
        &["trian"][..],
        &["train", "--preset", "digit"],
        &["train", "--data", "nowhere"],
        &["train", "--set", "training.batchsize=4"],
        &["train", "--set", "training.batch_size=0"],
        &["train", "--set", "diffusion.family=linear", "--set", "diffusion.timesteps=20"],
        &["train", "--config", "missing.toml"],
        &["train", "--resume"],
        &["train", "--resume", "--run", "nowhere"],
        &["train", "--device", "tpu"],
        &["sample", "nowhere"],
        &["schedule", "--family", "cosin"],
        &["data", "inspect", "nowhere"],
        &["data", "fetch", "imagenet"],
    ] {
        let finished = workplace.run(command);
        assert!(matches!(finished.code, Some(1 | 2)), "{finished}");
        errors.push_str(&format!("$ diffuse {}\n{}\n", command.join(" "), finished.error));
    }
    expect_file!["../snapshots/errors.txt"].assert_eq(&errors);
}

#[test]
fn completions_and_manual_pages_are_written() {
    let workplace = Workplace::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = workplace.run(&["completions", shell]).succeeded().output;
        assert!(script.contains("diffuse") && script.contains("interpolate"), "{shell}: {script}");
    }
    let pages = workplace.run(&["man", "man1"]).succeeded().output;
    for page in ["diffuse.1", "diffuse-train.1", "diffuse-edit-inpaint.1"] {
        assert!(pages.contains(&format!("man1/{page}\n")), "{pages}");
        assert!(workplace.text(format!("man1/{page}")).contains(".SH NAME"), "{page}");
    }
    workplace.write("taken", "a file");
    workplace.run(&["man", "taken"]).refused(&["taken", "it is a file"]);
    workplace.run(&["completions", "csh"]).refused(&["csh"]);
}
