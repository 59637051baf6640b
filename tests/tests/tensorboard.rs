//! Event files, read by TensorBoard itself: `cargo xtask ci --only tensorboard` installs it and runs this.

use std::{collections::BTreeMap, path::Path, process::Command};

use end_to_end::Workplace;
use serde_json::Value;

/// A program that prints the scalars of a folder of event files as JSON: for each tag the steps with their values.
const READ: &str = r#"
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
events.Reload()
print(json.dumps({tag: [[event.step, event.value] for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}))
"#;

/// The scalars that TensorBoard reads in a folder.
fn scalars(folder: &Path) -> BTreeMap<String, Vec<(u64, f32)>> {
    let packages = std::env::var_os("TENSORBOARD_PACKAGES").expect(
        "TENSORBOARD_PACKAGES is the folder that pip installed tensorboard into: `cargo xtask ci --only tensorboard`",
    );
    let mut python = Command::new("python3");
    let output = python.arg("-c").arg(READ).arg(folder).env("PYTHONPATH", packages).output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("tags with their values")
}

#[test]
#[ignore = "needs the Python package tensorboard: run `cargo xtask ci --only tensorboard`"]
fn tensorboard_reads_the_events_of_a_run() {
    let workplace = Workplace::new();
    workplace.train_tiny(&["--run", "run", "--set", "training.evaluate_every=2"]).succeeded();
    let lines = |file: &str| -> Vec<Value> {
        let text = workplace.text(format!("run/{file}"));
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
    };
    let (metrics, evaluations) = (lines("metrics.jsonl"), lines("evaluations.jsonl"));
    assert_eq!((metrics.len(), evaluations.len()), (6, 3));

    // the values of the lines, as f32
    let mut expected = BTreeMap::new();
    let mut expect = |tag: String, lines: &[Value], pointer: String| {
        let point = |line: &Value| Some((line["step"].as_u64()?, line.pointer(&pointer)?.as_f64()? as f32));
        let points: Vec<(u64, f32)> = lines.iter().filter_map(point).collect();
        assert!(!points.is_empty(), "{pointer} is in no line");
        expected.insert(tag, points);
    };
    for (tag, key) in [("loss/step", "loss"), ("gradient_norm", "gradient_norm"), ("learning_rate", "learning_rate")] {
        expect(tag.to_owned(), &metrics, format!("/{key}"));
    }
    expect("images_per_second".to_owned(), &metrics, "/images_per_second".to_owned());
    for (tag, key) in [("held_out", "held_out"), ("trained_on", "training")] {
        expect(format!("loss/{tag}"), &evaluations, format!("/{key}/all/mean"));
    }
    for quartile in 0..4 {
        expect(format!("loss/quartile_{}", quartile + 1), &metrics, format!("/quartiles/{quartile}/mean"));
        let pointer = format!("/held_out/quartiles/{quartile}/mean");
        expect(format!("loss/held_out_{}", quartile + 1), &evaluations, pointer);
    }
    assert_eq!(scalars(&workplace.path("run/tensorboard")), expected);

    // TensorBoard checks the checksums
    let folder = workplace.path("run/tensorboard");
    let file = std::fs::read_dir(&folder).expect("a folder").next().expect("a file").expect("an entry").path();
    let mut bytes = std::fs::read(&file).expect("events");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    let left = scalars(&folder);
    assert!(left.get("loss/step").map_or(0, Vec::len) < 6, "a corrupt record was read: {left:?}");
}
