//! Findings and estimates of `diffuse doctor`.

use end_to_end::{TINY, Workplace};

#[test]
fn time_and_memory_of_a_training_are_estimated() {
    let workplace = Workplace::new();
    let set: Vec<&str> = TINY.iter().flat_map(|setting| ["--set", setting]).collect();
    let finished = workplace.run(&[&["doctor", "--json"], &set[..]].concat()).succeeded();
    let json = finished.json();
    assert_eq!(
        (json["images"].as_u64(), json["classes"].as_u64(), json["device"].as_str()),
        (Some(64), Some(10), Some("flex"))
    );
    let measured = &json["measurement"];
    assert!(measured["step_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{json}");
    assert!(json["training_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{json}");
    // the steps see 24 of 64 images
    assert!(finished.output.contains("not every image is seen"), "{finished}");
    assert!(!workplace.path("runs").exists(), "nothing is written");
    let text = workplace.run(&[&["doctor"], &set[..]].concat()).succeeded().output;
    assert!(text.contains("estimate ") && text.contains("warning ") && text.starts_with("data "), "{text}");
}

#[test]
fn problems_of_data_and_schedule_are_found_by_the_doctor_and_before_the_first_step() {
    let workplace = Workplace::new();
    workplace.train_tiny(&["--run", "run", "--steps", "1"]).succeeded();
    workplace.run(&["sample", "run", "--count", "6", "--save", "png", "--out", "images"]).succeeded();
    // a copy, and a file that is no image
    workplace.write("images/copy.png", workplace.read("images/00000.png"));
    workplace.write("images/broken.png", b"no picture");
    let base = ["--data", "images", "--set", "diffusion.family=scaled_linear", "--set", "data.image_size=32"];
    let looked = workplace.run(&[&["doctor", "--no-steps"], &base[..]].concat()).succeeded().output;
    for words in [
        "problem   1 images cannot be read: images/broken.png",
        "1 of 7 images are copies",
        "are smaller than data.image_size = 32",
        "the data has no labels",
        "of the image is left",
    ] {
        assert!(looked.contains(words), "{words}: {looked}");
    }
    assert!(!looked.contains("estimate"), "{looked}");
    let skip = ["train", "--dry-run", "--set", "data.skip_unreadable=true"];
    let trained = workplace.run(&[&skip, &base[..]].concat()).succeeded();
    assert!(trained.error.contains("warning: 7 of 7 images are smaller"), "{trained}");
    // the doctor weighs what is left out as the training does
    workplace.write("mixed/a.png", workplace.read("images/00000.png"));
    workplace.write("mixed/b.heic", b"\0\0\0\x18ftypheic");
    let looked = workplace.run(&["doctor", "--no-steps", "--data", "mixed"]).succeeded().output;
    assert!(looked.contains("problem   mixed/b.heic") || looked.contains("problem   b.heic"), "{looked}");
    assert!(looked.contains("data.accept_left_out = true"), "{looked}");
    workplace.train_tiny(&["--data", "mixed", "--dry-run"]).refused(&["b.heic", "data.accept_left_out"]);
    workplace.run(&["doctor", "--data", "nowhere"]).refused(&["nowhere"]);
    workplace.run(&["doctor", "--set", "unet.dim=7"]).refused(&["dim"]);
}
