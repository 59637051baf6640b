//! From data to pictures with the main commands.

use std::{collections::HashMap, io::Read};

use end_to_end::{Workplace, png_size};
use serde_json::Value;

/// Side of an image in a grid: 28 pixels are shown as 56.
const SHOWN: u32 = 2 * 28;
/// Pixels between the images of a grid.
const GAP: u32 = 2;

/// Side of a grid of `count` images.
fn side_of(count: u32) -> u32 {
    count * SHOWN + (count - 1) * GAP
}

#[test]
fn train_writes_a_run_and_prints_its_files() {
    let workplace = Workplace::new();
    let finished = workplace.train_tiny(&["--json", "--set", "training.sample_every=4"]).succeeded();

    let report = finished.json();
    let keys: Vec<&String> = report.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["grid", "loss", "model", "run", "seconds", "steps"]);
    assert_eq!(report["run"], "runs/digits-1");
    assert_eq!(report["model"], "runs/digits-1/model.safetensors");
    assert_eq!(report["grid"], "runs/digits-1/samples.png");
    assert_eq!(report["steps"], 6);
    assert!(report["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{report}");
    // printed before the first step
    for word in
        ["flex", "mnist-5k", "58 images", "held out    6 images", "28x28", "parameters", "6 of 4 images", "step 6/6"]
    {
        assert!(finished.error.contains(word), "`{word}`: {finished}");
    }

    let lines: Vec<Value> = workplace
        .text("runs/digits-1/metrics.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object"))
        .collect();
    let steps: Vec<u64> = lines.iter().filter_map(|line| line["step"].as_u64()).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
    for key in ["loss", "gradient_norm", "learning_rate", "images_per_second"] {
        assert!(lines.iter().all(|line| line[key].as_f64().is_some_and(|value| value > 0.0)), "{key}: {lines:?}");
    }
    let mean = lines.iter().filter_map(|line| line["loss"].as_f64()).sum::<f64>() / 6.0;
    assert!(report["loss"].as_f64().is_some_and(|loss| (loss - mean).abs() < 1e-12), "{report}, {mean}");

    // a row for each class
    for grid in ["samples.png", "samples/step-0000004.png"] {
        assert_eq!(png_size(&workplace.read(format!("runs/digits-1/{grid}"))), (side_of(1), side_of(10)), "{grid}");
    }
    let mut files: Vec<String> = std::fs::read_dir(workplace.path("runs/digits-1"))
        .expect("a run")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    let expected = [
        ".lock",
        "best.safetensors",
        "checkpoints",
        "config.toml",
        "evaluations.jsonl",
        "metrics.jsonl",
        "model.safetensors",
        "report.html",
        "samples",
        "samples.png",
        "tensorboard",
    ];
    assert_eq!(files, expected);

    // the configuration that was written describes the same run
    let again = workplace.run(&["train", "--config", "runs/digits-1/config.toml", "--dry-run"]).succeeded();
    assert_eq!(again.output.trim_end(), workplace.text("runs/digits-1/config.toml").trim_end());
    assert!(!workplace.path("runs/digits-2").exists(), "a dry run made a run directory");
}

#[test]
fn the_digits_in_the_repository_are_split_as_the_built_in_ones() {
    // the folder of the repository has the images that are built in
    let workplace = Workplace::new();
    let command = end_to_end::tiny(&["--steps", "1"]);
    let datasets = concat!(env!("CARGO_MANIFEST_DIR"), "/../datasets");
    let output = workplace.command(&command).env("DIFFUSE_DATASETS", datasets).output().expect("diffuse starts");
    let finished = end_to_end::Finished::new(&command, output).succeeded();
    for words in ["58 images", "held out    6 images", "datasets/mnist-5k"] {
        assert!(finished.error.contains(words), "`{words}`: {finished}");
    }
}

#[test]
fn a_second_run_takes_the_next_name_and_prints_its_files() {
    let workplace = Workplace::new();
    for number in [1, 2] {
        let finished = workplace.train_tiny(&["--steps", "1", "--set", "sampling.count=1", "--seed", "7"]).succeeded();
        let run = format!("runs/digits-{number}");
        let expected = format!("run    {run}\nmodel  {run}/model.safetensors\ngrid   {run}/samples.png\n");
        assert_eq!(finished.output, expected);
    }
    assert!(workplace.text("runs/digits-2/config.toml").contains("seed = 7"));
}

#[test]
fn flags_win_over_settings_and_these_over_the_file_and_that_over_the_preset() {
    let workplace = Workplace::new();
    workplace
        .write("mine.toml", "[training]\nsteps = 11\nbatch_size = 12\nseed = 13\n[diffusion]\nfamily = \"linear\"\n");
    let settings = ["--set", "training.batch_size=22", "--set", "training.seed=23"];
    let arguments = ["train", "--dry-run", "--config", "mine.toml", "--seed", "33"];
    let finished = workplace.run(&[&arguments[..], &settings[..]].concat()).succeeded();
    for line in ["steps = 11", "batch_size = 22", "seed = 33", "family = \"linear\"", "path = \"mnist-5k\""] {
        assert!(finished.output.lines().any(|found| found == line), "`{line}`: {finished}");
    }
    assert!(!workplace.path("runs").exists());
}

#[test]
fn a_closed_standard_output_is_no_error() {
    let workplace = Workplace::new();
    let mut child = workplace.start(&["schedule", "--json"]);
    // the output is larger than the buffer of a pipe
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("a child");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn sample_writes_every_kind_of_file() {
    let workplace = Workplace::new();
    workplace.train_tiny(&["--run", "run"]).succeeded();
    let sample = |out: &str, more: &[&str]| {
        let arguments = [&["sample", "run", "--out", out], more].concat();
        workplace.run(&arguments).succeeded()
    };

    let finished = sample("all", &["--count", "20", "--save", "grid,png,npz,gif,strip", "--json"]);
    let report = finished.json();
    assert_eq!(report["count"], 20);
    let files: Vec<&str> = report["files"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(files.len(), 24, "{files:?}");
    for file in &files {
        assert!(workplace.path(file).is_file(), "{file}");
    }
    assert_eq!(png_size(&workplace.read("all/grid.png")), (side_of(2), side_of(10)));
    assert_eq!(png_size(&workplace.read("all/00019.png")), (28, 28));
    // a frame for each of the three steps, cropped to the content
    assert_eq!(png_size(&workplace.read("all/strip.png")), (side_of(3), side_of(1)));
    assert_eq!(gif_size_and_frames(&workplace.read("all/denoising.gif")), (side_of(2), side_of(10), 3));

    let npz = workplace.read("all/samples.npz");
    // bytes 10 to 13 of an archive, time and date of its first file, are constant
    assert_eq!(npz[10..14], [0, 0, 0x21, 0]);
    let arrays = read_npz(&npz);
    assert_eq!(arrays.len(), 2);
    let (header, pixels) = &arrays["arr_0.npy"];
    assert!(header.contains("'|u1'") && header.contains("(20, 28, 28, 1") && header.contains("False"), "{header}");
    assert_eq!(pixels.len(), 20 * 28 * 28);
    let (header, labels) = &arrays["arr_1.npy"];
    assert!(header.contains("'<i8'") && header.contains("(20,"), "{header}");
    let labels: Vec<i64> = labels.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
    assert_eq!(labels, (0..20).map(|index| index / 2).collect::<Vec<i64>>());

    // the same seed gives the same bytes, another does not
    sample("again", &["--count", "20", "--save", "grid,npz,gif,strip"]);
    for file in ["grid.png", "samples.npz", "denoising.gif", "strip.png"] {
        assert_eq!(workplace.read(format!("all/{file}")), workplace.read(format!("again/{file}")), "{file}");
    }
    // `generate` is another name of `sample`
    workplace.run(&["generate", "run", "--out", "named", "--count", "20"]).succeeded();
    assert_eq!(workplace.read("all/grid.png"), workplace.read("named/grid.png"));
    let finished = sample("other", &["--count", "20", "--seed", "1"]);
    assert_eq!(finished.output, "other/grid.png\n");
    assert_ne!(workplace.read("all/grid.png"), workplace.read("other/grid.png"));
    // ... nor does another sampler
    sample("ddpm", &["--count", "20", "--sampler", "ddpm", "--steps", "2"]);
    assert_ne!(workplace.read("all/grid.png"), workplace.read("ddpm/grid.png"));
}

#[test]
fn an_image_depends_on_seed_class_and_index_alone() {
    let workplace = Workplace::new();
    // batches of 4: the images of 10 and of 5 are batched differently
    workplace.train_tiny(&["--run", "run", "--set", "sampling.batch_size=4"]).succeeded();
    for (out, count) in [("ten", "10"), ("five", "5")] {
        let arguments = ["sample", "run", "--class", "7", "--count", count, "--save", "png,npz", "--out", out];
        workplace.run(&arguments).succeeded();
    }
    for number in 0..5 {
        let file = format!("{number:05}.png");
        assert_eq!(workplace.read(format!("ten/{file}")), workplace.read(format!("five/{file}")), "{file}");
    }
    assert_ne!(workplace.read("ten/00000.png"), workplace.read("ten/00001.png"));
    let (_, labels) = &read_npz(&workplace.read("five/samples.npz"))["arr_1.npy"];
    assert_eq!(*labels, 7i64.to_le_bytes().repeat(5));

    // another class gives another image from the same noise
    workplace.run(&["sample", "run/model.safetensors", "--class", "3", "--count", "1", "--save", "png"]).succeeded();
    assert_ne!(workplace.read("samples/00000.png"), workplace.read("ten/00000.png"));
}

#[test]
fn shards_together_are_the_whole() {
    let workplace = Workplace::new();
    workplace.train_tiny(&["--run", "run", "--steps", "2"]).succeeded();
    let base = ["sample", "run", "--count", "7", "--save", "png"];
    workplace.run(&[&base[..], &["--out", "whole"]].concat()).succeeded();
    for shard in ["1/3", "2/3", "3/3"] {
        workplace.run(&[&base[..], &["--out", "parts", "--shard", shard]].concat()).succeeded();
    }
    for index in 0..7 {
        let file = format!("{index:05}.png");
        assert_eq!(workplace.read(format!("whole/{file}")), workplace.read(format!("parts/{file}")), "{file}");
    }
    assert_eq!(std::fs::read_dir(workplace.path("parts")).expect("a folder").count(), 7);
    workplace.run(&[&base[..], &["--shard", "4/3"]].concat()).refused(&["PART/PARTS"]);
    workplace.run(&["sample", "run", "--count", "2", "--shard", "1/3"]).refused(&["holds none of 2 images"]);
}

#[test]
fn a_model_without_classes_samples_without_labels() {
    let workplace = Workplace::new();
    workplace.train_tiny(&["--run", "run", "--set", "training.class_labels=false", "--steps", "1"]).succeeded();
    workplace.run(&["sample", "run", "--count", "3", "--save", "npz"]).succeeded();
    let arrays = read_npz(&workplace.read("samples/samples.npz"));
    assert_eq!(arrays.keys().collect::<Vec<_>>(), ["arr_0.npy"]);
    workplace.run(&["sample", "run", "--class", "0"]).refused(&["class 0", "without classes"]);
}

#[test]
fn train_learns_from_a_folder_of_images() {
    let workplace = Workplace::new();
    workplace.train_tiny(&["--run", "run", "--steps", "1"]).succeeded();
    workplace.run(&["sample", "run", "--count", "10", "--save", "png", "--out", "images/some"]).succeeded();
    workplace.run(&["sample", "run", "--count", "4", "--save", "png", "--out", "images/more"]).succeeded();
    let finished = workplace.train_tiny(&["--data", "images", "--run", "second", "--json"]).succeeded();
    assert!(finished.error.contains("14 images") && finished.error.contains("2 classes"), "{finished}");
    // 5 columns: ten samples of two classes
    assert_eq!(png_size(&workplace.read("second/samples.png")), (side_of(5), side_of(2)));
}

#[test]
fn schedule_prints_and_draws() {
    let workplace = Workplace::new();
    let report = workplace.run(&["schedule", "--family", "linear", "--json"]).succeeded().json();
    assert_eq!((&report["family"], &report["timesteps"]), (&Value::from("linear"), &Value::from(1000)));
    let numbers = |key: &str| -> Vec<f64> {
        report[key].as_array().unwrap_or_else(|| panic!("{key}")).iter().filter_map(Value::as_f64).collect()
    };
    for key in [
        "betas",
        "alpha_bars",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "snr",
    ] {
        assert_eq!(numbers(key).len(), 1000, "{key}");
    }
    let (betas, alpha_bars, snr) = (numbers("betas"), numbers("alpha_bars"), numbers("snr"));
    assert!((betas[0] - 1e-4).abs() < 1e-15 && (betas[999] - 0.02).abs() < 1e-15, "{} {}", betas[0], betas[999]);
    assert!((alpha_bars[0] - 0.9999).abs() < 1e-12);
    // DDPM, section 4: almost no signal is left
    assert!((alpha_bars[999] - 4.0358e-5).abs() < 1e-8, "{}", alpha_bars[999]);
    assert!((snr[0] - 9999.0).abs() < 1e-6, "{}", snr[0]);
    assert_eq!(numbers("posterior_variance")[0], 0.0);
    assert!((numbers("posterior_log_variance_clipped")[0] - 1e-20f64.ln()).abs() < 1e-9);
    assert!((numbers("posterior_mean_coef1")[0] - 1.0).abs() < 1e-9);

    let finished = workplace.run(&["schedule", "--timesteps", "100", "--out", "drawn/here"]).succeeded();
    assert_eq!(finished.output, "drawn/here/schedule.svg\ndrawn/here/schedule.png\ndrawn/here/destroyed.png\n");
    let svg = workplace.text("drawn/here/schedule.svg");
    assert!(svg.contains("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains("cosine"), "{svg:.200}");
    let (width, height) = png_size(&workplace.read("drawn/here/schedule.png"));
    assert!(width > height && height > 100, "{width}x{height}");
    assert_eq!(png_size(&workplace.read("drawn/here/destroyed.png")), (side_of(10), side_of(1)));

    let finished = workplace.run(&["schedule", "--timesteps", "5"]).succeeded();
    assert_eq!(finished.output.lines().count(), 6, "{finished}");
    assert!(finished.output.starts_with("t\tbeta\talpha_bar\tsnr\n"), "{finished}");
}

#[test]
fn data_inspect_counts_and_previews() {
    let workplace = Workplace::new();
    let report = workplace.run(&["data", "inspect", "mnist-5k", "--json"]).succeeded().json();
    assert_eq!(report["count"], 5000);
    assert_eq!((&report["height"], &report["width"], &report["channels"]), (&28.into(), &28.into(), &1.into()));
    let classes: Vec<(&str, u64)> = report["classes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|class| Some((class[0].as_str()?, class[1].as_u64()?)))
        .collect();
    let expected = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"].map(|name| (name, 500));
    assert_eq!(classes, expected);
    assert!(report["mean"][0].as_f64().is_some_and(|mean| (mean - 0.1313196).abs() < 1e-6), "{report}");
    let (width, height) = png_size(&workplace.read("preview.png"));
    assert_eq!((width, height), (side_of(8), side_of(8)));

    let finished = workplace.run(&["data", "inspect", "mnist-5k", "--preview", "other.png"]).succeeded();
    assert!(finished.output.contains("count      5000\n") && finished.output.contains("size       28x28\n"));
    assert!(finished.output.ends_with("preview    other.png\n"), "{finished}");
    assert!(workplace.path("other.png").is_file());
}

/// Header and data of each array of an `.npz`, read without the crates under test.
fn read_npz(bytes: &[u8]) -> HashMap<String, (String, Vec<u8>)> {
    let number = |start: usize, length: usize| -> usize {
        bytes[start..start + length].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let end = bytes.windows(4).rposition(|window| window == b"PK\x05\x06").expect("the end of a zip archive");
    let (count, mut entry) = (number(end + 10, 2), number(end + 16, 4));
    let mut arrays = HashMap::new();
    for _ in 0..count {
        assert_eq!(&bytes[entry..entry + 4], b"PK\x01\x02");
        let (method, compressed) = (number(entry + 10, 2), number(entry + 20, 4));
        let (name_length, extra, comment) = (number(entry + 28, 2), number(entry + 30, 2), number(entry + 32, 2));
        let name = String::from_utf8(bytes[entry + 46..entry + 46 + name_length].to_vec()).expect("a name");
        let local = number(entry + 42, 4);
        let start = local + 30 + number(local + 26, 2) + number(local + 28, 2);
        let stored = &bytes[start..start + compressed];
        let mut file = Vec::new();
        match method {
            0 => file.extend_from_slice(stored),
            8 => drop(flate2::read::DeflateDecoder::new(stored).read_to_end(&mut file).expect("deflated data")),
            other => panic!("{name} is stored with the method {other}"),
        }
        // NumPy's format: magic, version, length of the header, header, data
        assert_eq!(&file[..7], b"\x93NUMPY\x01", "{name}");
        let length = usize::from(u16::from_le_bytes([file[8], file[9]]));
        let header = String::from_utf8(file[10..10 + length].to_vec()).expect("a header");
        arrays.insert(name, (header, file[10 + length..].to_vec()));
        entry += 46 + name_length + extra + comment;
    }
    arrays
}

/// Width, height and number of frames of a GIF, from its blocks.
fn gif_size_and_frames(bytes: &[u8]) -> (u32, u32, usize) {
    assert_eq!(&bytes[..6], b"GIF89a");
    let table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let size = |start: usize| u32::from(u16::from_le_bytes([bytes[start], bytes[start + 1]]));
    let mut position = 13 + table(bytes[10]);
    let mut frames = 0;
    loop {
        match bytes[position] {
            0x2c => {
                frames += 1;
                position += 11 + table(bytes[position + 9]);
            }
            0x21 => position += 2,
            0x3b => return (size(6), size(8), frames),
            other => panic!("a block {other:#x} at {position}"),
        }
        while bytes[position] != 0 {
            position += 1 + usize::from(bytes[position]);
        }
        position += 1;
    }
}
