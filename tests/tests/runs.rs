//! The end of a run and its continuation, classes by name, options that would change nothing, findings that name files.

use end_to_end::{Workplace, png_size};
use serde_json::Value;

/// Two folders of six samples each, `Red Ant` and `zebra`.
fn animals() -> Workplace {
    let workplace = Workplace::new();
    workplace.train_tiny(&["--run", "first", "--steps", "1"]).succeeded();
    for (seed, class) in [("1", "Red Ant"), ("2", "zebra")] {
        let out = format!("animals/{class}");
        workplace.run(&["sample", "first", "--count", "6", "--save", "png", "--seed", seed, "--out", &out]).succeeded();
    }
    workplace
}

#[test]
fn a_finite_divergence_is_no_success() {
    let workplace = Workplace::new();
    let more = ["--run", "run", "--steps", "20", "--json", "--set", "training.learning_rate=1"];
    let finished = workplace.train_tiny(&more);
    assert_eq!(finished.code, Some(3), "{finished}");
    for words in
        ["warning: the training has diverged", "the loss of the last steps is", "training.learning_rate = 0.001"]
    {
        assert!(finished.error.contains(words), "{words}: {finished}");
    }
    assert!(finished.json()["divergence"].as_str().is_some_and(|text| text.contains("diverged")), "{finished}");
    for file in ["model.safetensors", "samples.png", "report.html", "checkpoints/step-0000020.safetensors"] {
        assert!(workplace.path(format!("run/{file}")).exists(), "{file}");
    }
}

/// After two steps, one step of sampling saturates every pixel; that is no divergence.
#[test]
fn a_run_of_few_steps_is_not_judged_by_its_samples() {
    let workplace = Workplace::new();
    let few = ["--set", "sampling.steps=1", "--set", "training.evaluate_every=0", "--steps", "2"];
    let finished = workplace.train_tiny(&few).succeeded();
    assert!(!finished.error.contains("of no use"), "{finished}");
}

#[test]
fn a_run_goes_on_from_any_folder_and_with_another_rate() {
    let workplace = animals();
    workplace.train_tiny(&["--data", "animals", "--run", "run", "--steps", "3"]).succeeded();
    std::fs::create_dir(workplace.path("elsewhere")).expect("a folder");
    let resume = |arguments: &[&str]| {
        let arguments = [&["train", "--resume", "--run", "../run"], arguments].concat();
        let output = workplace.command(&arguments).current_dir(workplace.path("elsewhere")).output();
        end_to_end::Finished::new(&arguments, output.expect("diffuse starts"))
    };
    let longer = resume(&["--steps", "5", "--set", "training.learning_rate=1e-5"]).succeeded();
    assert!(longer.error.contains("changed     training.learning_rate: 0.004 in the run, 0.00001 now"), "{longer}");
    let history: Value = serde_json::from_str(&workplace.text("run/history.jsonl")).expect("one line");
    assert_eq!((&history["step"], &history["changes"][0]["now"]), (&3.into(), &"0.00001".into()));
    assert!(workplace.text("run/config.toml").contains("learning_rate = 0.00001\n"));
    let last = workplace.text("run/metrics.jsonl").lines().last().map(str::to_owned).expect("a line");
    let last: Value = serde_json::from_str(&last).expect("JSON");
    assert!(last["learning_rate"].as_f64().is_some_and(|rate| rate <= 1e-5), "{last}");

    // all steps are done
    let files = ["config.toml", "metrics.jsonl", "history.jsonl", "model.safetensors", "report.html"];
    let before: Vec<_> = files.iter().map(|file| workplace.read(format!("run/{file}"))).collect();
    let nothing = resume(&["--json"]).succeeded();
    assert!(nothing.error.contains("nothing to do: all 5 steps"), "{nothing}");
    assert_eq!((&nothing.json()["steps"], &nothing.json()["loss"]), (&5.into(), &Value::Null));
    resume(&["--steps", "2"]).refused(&["has done 5 steps", "--steps", "nothing was changed"]);
    for (file, before) in files.iter().zip(before) {
        assert!(workplace.read(format!("run/{file}")) == before, "{file} was changed");
    }
    resume(&["--preset", "mnist"]).refused(&["--preset mnist", "leave it out"]);

    // a run of an earlier version has the path as it was given
    let config = workplace.text("run/config.toml");
    let path = config.lines().find(|line| line.starts_with("path = ")).expect("a path").to_owned();
    workplace.write("run/config.toml", config.replace(&path, "path = \"animals\""));
    resume(&["--steps", "6"]).succeeded();
    std::fs::rename(workplace.path("animals"), workplace.path("moved")).expect("a folder");
    resume(&["--steps", "7"]).refused(&["animals", "--data"]);
    resume(&["--steps", "7", "--data", "../moved"]).succeeded();
}

#[test]
fn classes_have_names() {
    let workplace = animals();
    workplace.train_tiny(&["--data", "animals", "--run", "run", "--steps", "1"]).succeeded();
    let sample = |more: &[&str]| workplace.run(&[&["sample", "run", "--save", "png,grid", "--json"], more].concat());
    let finished = sample(&["--count", "4", "--row-labels", "--out", "all"]).succeeded();
    assert_eq!(finished.json()["class_names"], serde_json::json!(["Red Ant", "zebra"]));
    assert_eq!(finished.json()["classes"], serde_json::json!(["Red Ant", "Red Ant", "zebra", "zebra"]));
    assert!(workplace.path("all/00000-Red-Ant.png").is_file() && workplace.path("all/00003-zebra.png").is_file());
    sample(&["--count", "4", "--out", "plain"]).succeeded();
    let [(labeled, high), (plain, same)] =
        ["all", "plain"].map(|out| png_size(&workplace.read(format!("{out}/grid.png"))));
    assert!(labeled > plain + 20 && high == same, "{labeled} and {plain}");
    for (class, name) in [("red ant", "Red Ant"), ("zebra", "zebra"), ("1", "zebra")] {
        let finished = sample(&["--count", "1", "--class", class]).succeeded();
        assert_eq!(finished.json()["classes"], serde_json::json!([name]));
        let edit = ["edit", "vary", "run", "all/00000-Red-Ant.png", "--count", "1", "--class", class];
        workplace.run(&edit).succeeded();
    }
    for class in ["bags", "2", "-1"] {
        let words = [&*format!("the class {class} does not exist"), "Red Ant, zebra"];
        sample(&["--class", class]).refused(&words);
        workplace.run(&["edit", "vary", "run", "all/00000-Red-Ant.png", "--class", class]).refused(&words);
    }

    // folders called by numbers are classes of these numbers
    std::fs::rename(workplace.path("animals/Red Ant"), workplace.path("animals/7")).expect("a folder");
    std::fs::rename(workplace.path("animals/zebra"), workplace.path("animals/1")).expect("a folder");
    workplace.train_tiny(&["--data", "animals", "--run", "numbered", "--steps", "1"]).succeeded();
    let seven = ["sample", "numbered", "--count", "1", "--class", "7", "--save", "png", "--out", "seven"];
    workplace.run(&seven).succeeded();
    assert!(workplace.path("seven/00000-7.png").is_file());
    workplace.run(&["sample", "numbered", "--class", "0"]).refused(&["the class 0", "1, 7"]);
}

#[test]
fn options_that_would_change_nothing_are_refused() {
    let workplace = Workplace::new();
    workplace.train_tiny(&["--run", "run", "--steps", "1", "--set", "sampling.guidance=1"]).succeeded();
    workplace.train_tiny(&["--run", "plain", "--steps", "1", "--set", "training.class_labels=false"]).succeeded();
    let cases: [(&[&str], &str); 13] = [
        (&["sample", "run", "--sampler", "heun", "--eta", "0.5"], "--eta is an option of ddim"),
        (&["sample", "run", "--eta", "-1"], "eta = -1"),
        (&["sample", "run", "--guidance-rescale", "0.5"], "--guidance-rescale changes nothing without guidance"),
        (&["sample", "run", "--weaker", "plain"], "--weaker changes nothing without guidance"),
        (&["sample", "run", "--cfg-plus-plus", "--guidance-rescale", "0.5"], "cannot be used with"),
        (&["sample", "run", "--row-labels", "--class", "1"], "--row-labels needs"),
        (&["sample", "plain", "--guidance", "2"], "--guidance changes nothing"),
        (&["edit", "vary", "run", "mnist-5k#1", "--guidance", "2"], "--class"),
        (&["nll", "run", "--data", "mnist-5k", "--tolerance", "0.1"], "--tolerance is of --method flow"),
        (&["train", "--set", "sampling.eta=1", "--set", "sampling.sampler=heun"], "sampling.eta is an option of ddim"),
        (&["train", "--set", "sampling.churn=1"], "sampling.churn is an option of edm"),
        (&["train", "--dry-run", "--set", "unet.channels=3"], "the images have 1 channel(s)"),
        (
            &["train", "--set", "diffusion.objective=epsilon", "--set", "diffusion.zero_terminal_snr=true"],
            "ends in pure noise",
        ),
    ];
    for (arguments, words) in cases {
        workplace.run(arguments).refused(&[words]);
    }
    assert!(!workplace.path("samples").exists() && !workplace.path("runs").exists());
    workplace.run(&["doctor", "--no-steps", "--set", "unet.channels=3"]).refused(&["data.channels = 3"]);
    workplace.run(&["train", "--dry-run", "--set", "unet.channels=3", "--set", "data.channels=3"]).succeeded();
    workplace.run(&["average", "run", "--relative-width", "0.1"]).refused(&["no snapshots", "snapshot_every"]);
}

#[test]
fn findings_name_all_files() {
    let workplace = animals();
    workplace.write("animals/zebra/copy.png", workplace.read("animals/Red Ant/00000.png"));
    workplace.write("animals/zebra/also.png", workplace.read("animals/Red Ant/00001.png"));
    let doctor = ["doctor", "--data", "animals", "--no-steps"];
    let text = workplace.run(&[&doctor[..], &["--report", "all.txt"]].concat()).succeeded().output;
    assert!(text.contains("(the first: animals/zebra/also.png of animals/Red Ant/00001.png)"), "{text}");
    let report = workplace.text("all.txt");
    assert!(report.contains("\n  animals/zebra/copy.png is a copy of animals/Red Ant/00000.png\n"), "{report}");
    let json = workplace.run(&[&doctor[..], &["--json"]].concat()).succeeded().json();
    let items = json["findings"].as_array().into_iter().flatten().find_map(|finding| finding["items"].as_array());
    assert_eq!(items.map(Vec::len), Some(2), "{json}");
}
