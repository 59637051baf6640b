//! The same seed gives the same bytes, also of a run that was stopped and resumed.

use std::process::Command;

use end_to_end::{Workplace, tiny};
use serde_json::Value;

/// Files that depend on the configuration alone; `metrics.jsonl` also has speeds.
const SAME: [&str; 5] = ["config.toml", "model.safetensors", "best.safetensors", "evaluations.jsonl", "samples.png"];

/// The lines of `metrics.jsonl` without speed and memory.
fn lines(workplace: &Workplace, run: &str) -> Vec<Value> {
    let parse = |line| -> Value {
        let mut line: Value = serde_json::from_str(line).expect("a JSON object");
        for key in ["images_per_second", "memory_bytes"] {
            line.as_object_mut().expect("an object").remove(key);
        }
        line
    };
    workplace.text(format!("{run}/metrics.jsonl")).lines().map(parse).collect()
}

/// The last training state of a run that ends after this step.
fn last_state(run: &str, step: u64) -> String {
    format!("{run}/checkpoints/step-{step:07}.safetensors")
}

#[test]
fn the_same_seed_gives_the_same_bytes_with_any_number_of_threads() {
    let workplace = Workplace::new();
    workplace.train_tiny(&["--run", "first"]).succeeded();
    let second = workplace.command(&tiny(&["--run", "second"])).env("RAYON_NUM_THREADS", "1").output();
    assert!(second.expect("diffuse starts").status.success());
    for file in SAME {
        assert!(workplace.read(format!("first/{file}")) == workplace.read(format!("second/{file}")), "{file}");
    }
    assert!(workplace.read(last_state("first", 6)) == workplace.read(last_state("second", 6)));
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
    // the saved model can be sampled
    workplace.run(&["sample", "parts", "--count", "1"]).succeeded();
    assert!(workplace.read("whole/model.safetensors") != workplace.read("parts/model.safetensors"));

    let resumed = workplace.run(&["train", "--resume", "--run", "parts", "--json"]).succeeded();
    assert!(resumed.error.contains(&format!("going on after step {done}\n")), "{resumed}");
    assert_eq!(resumed.json()["steps"], 60);
    for file in SAME {
        assert!(workplace.read(format!("whole/{file}")) == workplace.read(format!("parts/{file}")), "{file}");
    }
    assert!(workplace.read(last_state("whole", 60)) == workplace.read(last_state("parts", 60)));
    // each step has one line
    assert_eq!(lines(&workplace, "whole").len(), 60);
    assert_eq!(lines(&workplace, "whole"), lines(&workplace, "parts"));
}

#[test]
fn resume_takes_the_latest_run_and_its_last_checkpoint() {
    let workplace = Workplace::new();
    workplace.train_tiny(&[]).succeeded();
    // as after a power cut: lines of steps that were not saved
    let metrics = workplace.text("runs/digits-1/metrics.jsonl");
    workplace.write("runs/digits-1/metrics.jsonl", format!("{metrics}{{\"step\":7,\"loss\":1.0}}\n{{\"step\":"));
    let model = workplace.read("runs/digits-1/model.safetensors");
    let finished = workplace.run(&["train", "--resume"]).succeeded();
    assert!(finished.error.contains("going on after step 6\n"), "{finished}");
    assert!(finished.output.starts_with("run    runs/digits-1\n"), "{finished}");
    assert_eq!(workplace.text("runs/digits-1/metrics.jsonl"), metrics);
    assert!(workplace.read("runs/digits-1/model.safetensors") == model);
}

/// Number of kills of the next test: KILLS, or 12.
#[cfg(unix)]
fn kills() -> u64 {
    std::env::var("KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

#[cfg(unix)]
#[test]
fn a_run_that_is_killed_again_and_again_loses_nothing_older_than_its_last_checkpoint() {
    use std::time::Duration;

    /// The steps of the checkpoints that are there.
    fn checkpoints(workplace: &Workplace) -> Vec<u64> {
        let entries = std::fs::read_dir(workplace.path("killed/checkpoints")).into_iter().flatten().flatten();
        let step = |name: String| name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok();
        let mut steps: Vec<u64> =
            entries.filter_map(|entry| step(entry.file_name().to_string_lossy().into_owned())).collect();
        steps.sort_unstable();
        steps
    }

    let workplace = Workplace::new();
    let kills = kills();
    let steps = (kills * 8).to_string();
    let settings = ["--steps", &steps, "--set", "training.checkpoint_every=1", "--set", "training.evaluate_every=3"];
    workplace.train_tiny(&[&settings[..], &["--run", "whole"]].concat()).succeeded();

    let first = tiny(&[&settings[..], &["--run", "killed"]].concat());
    let resume = ["train", "--resume", "--run", "killed"];
    let (mut newest, mut was_noted) = (0, false);
    for kill in 0..kills {
        let arguments: &[&str] = if kill == 0 { &first } else { &resume };
        let mut child = workplace.start(arguments);
        // at pseudo-random times between start-up and the middle of a write
        let chosen = kill.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 33;
        // the first process must write its configuration
        let least = if kill == 0 { 400 } else { 5 };
        std::thread::sleep(Duration::from_millis(least + chosen % 300));
        child.kill().expect("it can be killed");
        let error = String::from_utf8_lossy(&child.wait_with_output().expect("a child").stderr).into_owned();
        assert!(!error.contains("passed over"), "a checkpoint could not be read: {error}");
        // the process after one that was killed in training says so
        was_noted |= error.contains("note: the process that trained here before ended without saving");
        if let Some(after) = error.lines().find_map(|line| line.strip_prefix("going on after step ")) {
            assert!(after.parse::<u64>().is_ok_and(|step| step >= newest), "went on after step {after}, not {newest}");
        }
        let found = checkpoints(&workplace);
        assert!(found.len() <= 3, "more than the last two, and one that was just written: {found:?}");
        assert!(found.last().copied().unwrap_or(0) >= newest, "{found:?} after {newest}");
        newest = found.last().copied().unwrap_or(0);
        for name in ["model.safetensors", "best.safetensors"] {
            if workplace.path(format!("killed/{name}")).exists() {
                workplace.run(&["sample", &format!("killed/{name}"), "--count", "1", "--steps", "1"]).succeeded();
            }
        }
    }
    assert!(was_noted, "none of {kills} kills was noticed");
    workplace.run(&resume).succeeded();
    let again = workplace.run(&resume).succeeded();
    assert!(!again.error.contains("ended without saving"), "{again}");
    for file in SAME {
        assert!(workplace.read(format!("whole/{file}")) == workplace.read(format!("killed/{file}")), "{file}");
    }
    assert_eq!(lines(&workplace, "whole"), lines(&workplace, "killed"));
    let last = kills * 8;
    assert!(workplace.read(last_state("whole", last)) == workplace.read(last_state("killed", last)));
}

#[cfg(unix)]
#[test]
fn sigterm_saves_and_a_second_process_is_refused() {
    use end_to_end::Finished;
    use std::time::{Duration, Instant};

    let workplace = Workplace::new();
    let arguments = tiny(&["--run", "run", "--steps", "100000"]);
    let mut child = workplace.start(&arguments);
    let deadline = Instant::now() + Duration::from_secs(120);
    while !workplace.path("run/metrics.jsonl").exists() {
        assert!(child.try_wait().expect("a child").is_none() && Instant::now() < deadline, "no step");
        std::thread::sleep(Duration::from_millis(5));
    }
    workplace.run(&["train", "--resume", "--run", "run"]).refused(&["run", "another process", "--run"]);
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(status.success());
    let stopped = Finished::new(&arguments, child.wait_with_output().expect("a child"));
    assert_eq!(stopped.code, Some(130), "{stopped}");
    assert!(stopped.error.contains("go on with: diffuse train --resume --run run"), "{stopped}");
    // the lock ends with the process
    workplace.run(&["train", "--resume", "--run", "run", "--dry-run"]).succeeded();
}
