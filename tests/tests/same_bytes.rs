//! The same seed gives the same bytes, also where the run was stopped in between.

use std::process::Command;

use end_to_end::{Workplace, tiny};

/// What depends on the configuration alone: not `metrics.jsonl`, which says how fast it went.
const SAME: [&str; 4] = ["config.toml", "model.safetensors", "state.safetensors", "samples.png"];

#[test]
fn the_same_seed_gives_the_same_bytes_with_any_number_of_threads() {
    let workplace = Workplace::new();
    workplace.train_tiny(&["--run", "first"]).succeeded();
    let second = workplace.command(&tiny(&["--run", "second"])).env("RAYON_NUM_THREADS", "1").output();
    assert!(second.expect("diffuse starts").status.success());
    for file in SAME {
        assert!(workplace.read(format!("first/{file}")) == workplace.read(format!("second/{file}")), "{file}");
    }
    workplace.train_tiny(&["--run", "other", "--seed", "1"]).succeeded();
    for file in SAME {
        assert!(workplace.read(format!("first/{file}")) != workplace.read(format!("other/{file}")), "{file}");
    }
}

#[cfg(unix)]
#[test]
fn a_run_that_was_interrupted_ends_as_one_that_was_not() {
    use end_to_end::Finished;
    use std::time::{Duration, Instant};

    let workplace = Workplace::new();
    let steps = ["--steps", "60", "--set", "training.checkpoint_every=7", "--json"];
    workplace.train_tiny(&[&steps[..], &["--run", "whole"]].concat()).succeeded();

    let parts = [&steps[..], &["--run", "parts"]].concat();
    let mut child = workplace.start(&tiny(&parts));
    let metrics = workplace.path("parts/metrics.jsonl");
    let deadline = Instant::now() + Duration::from_secs(120);
    while !std::fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() >= 2) {
        assert!(child.try_wait().expect("a child").is_none() && Instant::now() < deadline, "no second step");
        std::thread::sleep(Duration::from_millis(2));
    }
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(status.success());
    let stopped = Finished::new(&parts, child.wait_with_output().expect("a child"));
    assert_eq!(stopped.code, Some(130), "{stopped}");
    assert!(stopped.error.contains("go on with: diffuse train --resume --run parts\n"), "{stopped}");
    assert_eq!(stopped.output, "", "{stopped}");
    let done = workplace.text("parts/metrics.jsonl").lines().count();
    assert!((2..60).contains(&done), "it was stopped after step {done} of 60");
    // what was saved can be sampled from already
    workplace.run(&["sample", "parts", "--count", "1"]).succeeded();
    assert!(workplace.read("whole/model.safetensors") != workplace.read("parts/model.safetensors"));

    let resumed = workplace.run(&["train", "--resume", "--run", "parts", "--json"]).succeeded();
    assert!(resumed.error.contains(&format!("going on after step {done}\n")), "{resumed}");
    assert_eq!(resumed.json()["steps"], 60);
    for file in SAME {
        assert!(workplace.read(format!("whole/{file}")) == workplace.read(format!("parts/{file}")), "{file}");
    }
    // each step once, with the loss of the whole run
    let losses = |run: &str| -> Vec<(u64, f64)> {
        let text = workplace.text(format!("{run}/metrics.jsonl"));
        let parse = |line| serde_json::from_str::<serde_json::Value>(line).expect("a JSON object");
        text.lines().map(parse).filter_map(|line| Some((line["step"].as_u64()?, line["loss"].as_f64()?))).collect()
    };
    assert_eq!(losses("whole").len(), 60);
    assert_eq!(losses("whole"), losses("parts"));
}

#[test]
fn resume_goes_on_after_the_last_checkpoint_and_with_the_latest_run() {
    let workplace = Workplace::new();
    workplace.train_tiny(&[]).succeeded();
    // as after a power cut: the lines of steps that were not saved are there
    let metrics = workplace.text("runs/digits-1/metrics.jsonl");
    workplace.write("runs/digits-1/metrics.jsonl", format!("{metrics}{{\"step\":7,\"loss\":1.0}}\n{{\"step\":"));
    let model = workplace.read("runs/digits-1/model.safetensors");
    let finished = workplace.run(&["train", "--resume"]).succeeded();
    assert!(finished.error.contains("going on after step 6\n"), "{finished}");
    assert!(finished.output.starts_with("run    runs/digits-1\n"), "{finished}");
    assert_eq!(workplace.text("runs/digits-1/metrics.jsonl"), metrics);
    assert!(workplace.read("runs/digits-1/model.safetensors") == model);
}
