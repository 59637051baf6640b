//! Bad input: an error that names what is wrong, and never a panic.

use end_to_end::{Workplace, png_size, tiny};

/// An IDX file of images.
fn idx(count: u32, pixels: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = [0x0803, count, 28, 28].iter().flat_map(|number| number.to_be_bytes()).collect();
    bytes.resize(bytes.len() + pixels, 100);
    bytes
}

#[test]
fn missing_and_broken_data_is_refused() {
    let workplace = Workplace::new();
    workplace.train_tiny(&["--run", "run", "--steps", "1"]).succeeded();
    workplace.run(&["sample", "run", "--count", "2", "--save", "png", "--out", "broken"]).succeeded();
    let png = workplace.read("broken/00000.png");
    assert_eq!(png_size(&png), (28, 28));
    workplace.write("broken/cut.png", &png[..png.len() / 2]);
    workplace.write("noise/a.png", [7; 300]);
    workplace.write("noise/b.png", &png);
    workplace.write("notes/readme.txt", "no image");
    std::fs::create_dir(workplace.path("empty")).expect("a folder");
    workplace.write("cut-idx3-ubyte", idx(10, 9 * 784 + 5));
    workplace.write("lying-idx3-ubyte", idx(4_000_000_000, 784));
    workplace.write("strange-idx3-ubyte", [0xab; 100]);
    workplace.write("zero-idx3-ubyte", idx(0, 0));

    let cases: [(&str, &[&str]); 9] = [
        ("missing", &["`missing`", "known dataset"]),
        ("empty", &["empty", "looked for png"]),
        ("notes", &["notes", "looked for png"]),
        ("broken", &["1 of 3 images", "broken/cut.png", "skip_unreadable"]),
        ("noise", &["1 of 2 images", "noise/a.png", "skip_unreadable"]),
        ("cut-idx3-ubyte", &["cut-idx3-ubyte", "10x28x28", "7077"]),
        ("lying-idx3-ubyte", &["lying-idx3-ubyte", "4000000000x28x28", "800"]),
        ("strange-idx3-ubyte", &["strange-idx3-ubyte"]),
        ("zero-idx3-ubyte", &["zero-idx3-ubyte"]),
    ];
    for (path, words) in cases {
        workplace.train_tiny(&["--data", path]).refused(words);
        if path != "zero-idx3-ubyte" {
            workplace.run(&["data", "inspect", path]).refused(words);
        }
    }
    assert!(!workplace.path("runs").exists(), "a run directory was made before the data was looked at");

    // unreadable images are left out if asked to
    let finished = workplace.run(&["data", "inspect", "broken", "--skip-unreadable", "--json"]).succeeded();
    assert_eq!((&finished.json()["count"], &finished.json()["skipped"]), (&2.into(), &1.into()));
    assert!(finished.error.contains("broken/cut.png"), "{finished}");
    workplace.train_tiny(&["--data", "broken", "--set", "data.skip_unreadable=true", "--steps", "1"]).succeeded();

    workplace.run(&["data", "fetch", "mnisst"]).refused(&["`mnisst`", "mnist"]);
    workplace.run(&["data", "fetch", "mnist", "--from", "empty"]).refused(&["empty"]);
    for name in ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"] {
        workplace.write(format!("other/{name}-ubyte.gz"), "of another kind");
    }
    let words = ["other/train-images-idx3-ubyte.gz", "`mnist`", "15 bytes instead of 9912422"];
    workplace.run(&["data", "fetch", "mnist", "--from", "other"]).refused(&words);
    workplace.train_tiny(&["--data", "mnist"]).refused(&["`mnist`", "diffuse data fetch mnist"]);
    workplace.run(&["train", "--preset", "article"]).refused(&["path/to/your/images"]);
    workplace.run(&["data", "inspect", "mnist-5k", "--preview", "not/here.png"]).refused(&["not/here.png"]);
}

#[test]
fn impossible_configurations_are_refused() {
    let workplace = Workplace::new();
    workplace.write("broken.toml", "[training\nsteps = 5");
    workplace.write("wrong.toml", "[training]\nlearning_rat = 0.1");
    workplace.write("kind.toml", "[training]\nepsilon = \"small\"");
    let cases: [(&[&str], &[&str]); 20] = [
        (&["--config", "missing.toml"], &["missing.toml"]),
        (&["--config", "broken.toml"], &["broken.toml", "line 1"]),
        (&["--config", "wrong.toml"], &["wrong.toml", "`training.learning_rat`", "`training.learning_rate`"]),
        (&["--config", "kind.toml"], &["epsilon", "small"]),
        (&["--set", "training.batchsize=4"], &["`training.batchsize`", "`training.batch_size`"]),
        (&["--set", "training.steps"], &["training.steps", "KEY=VALUE"]),
        (&["--preset", "digit"], &["`digit`", "digits"]),
        (&["--batch-size", "0"], &["training.batch_size = 0"]),
        (&["--steps", "0"], &["training.steps = 0"]),
        (&["--steps", "18446744073709551615"], &["18446744073709551615", "--steps"]),
        (&["--set", "training.learning_rate=nan"], &["training.learning_rate = NaN"]),
        (&["--set", "sampling.steps=2000"], &["2000", "1000"]),
        (&["--set", "sampling.count=0"], &["sampling.count = 0"]),
        (&["--set", "diffusion.family=cosin"], &["cosin", "cosine"]),
        (&["--set", "diffusion.family=linear", "--set", "diffusion.timesteps=10"], &["10"]),
        (&["--set", "data.pad_to=30", "--set", "unet.dim_mults=[1, 2]"], &["30x30", "divisible by 4", "32x32"]),
        (&["--set", "data.pad_to=20"], &["20", "28"]),
        (&["--set", "unet.dim=7"], &["unet.dim = 7"]),
        (&["--set", "unet.attention=[\"full\", \"full\"]"], &["unet.attention has 2", "1"]),
        (&["--set", "unet.dropout=1.5"], &["unet.dropout = 1.5"]),
    ];
    for (arguments, words) in cases {
        // or else `unet.attention` of the tiny network would be refused first
        let settings = if words[0].starts_with("30x30") { &["--set", "unet.attention=[]"][..] } else { &[] };
        workplace.train_tiny(&[settings, arguments].concat()).refused(words);
    }
    assert!(!workplace.path("runs").exists(), "a run directory was made for an impossible configuration");
    workplace.run(&["schedule", "--family", "cosin"]).refused(&["cosin", "cosine"]);
    workplace.run(&["schedule", "--timesteps", "0"]).refused(&["0"]);
    workplace.run(&["schedule", "--family", "linear", "--timesteps", "10"]).refused(&["10"]);
}

#[test]
fn a_training_that_diverges_is_stopped() {
    let workplace = Workplace::new();
    let finished = workplace.train_tiny(&["--run", "run", "--set", "training.learning_rate=1e38"]);
    finished.refused(&["run", "diverged", "gradient", "training.learning_rate"]);
    assert!(!workplace.path("run/model.safetensors").exists(), "the model of a diverged run was saved");
}

#[test]
fn a_network_larger_than_the_memory_is_refused_before_it_is_built() {
    let workplace = Workplace::new();
    let refused = workplace.train_tiny(&["--run", "run", "--set", "unet.dim=60000"]);
    refused.refused(&["parameters needs at least", "GB", "lower unet.dim"]);
    assert!(!workplace.path("run").exists());
}

#[test]
fn unknown_commands_are_refused() {
    let workplace = Workplace::new();
    for arguments in [&["trian"][..], &["train", "--batchsize", "4"], &["sample"], &["sample", "run", "--save", "jpg"]]
    {
        workplace.run(arguments).refused(&["--help"]);
    }
}

#[test]
fn mixed_precision_works_or_is_refused() {
    let workplace = Workplace::new();
    for precision in ["bf16", "f16"] {
        let setting = format!("training.mixed_precision={precision}");
        let finished = workplace.train_tiny(&["--set", &setting, "--json"]);
        if finished.code == Some(0) {
            assert!(finished.json()["loss"].as_f64().is_some_and(f64::is_finite), "{finished}");
        } else {
            finished.refused(&[&format!("training.mixed_precision = {precision}"), "`no`"]);
        }
    }
}

#[test]
fn missing_devices_are_refused() {
    let workplace = Workplace::new();
    workplace.train_tiny(&["--device", "quantum"]).refused(&["`quantum`", "flex", "cuda"]);
    workplace.train_tiny(&["--device", "flex:1"]).refused(&["`flex:1`", "1"]);
    workplace.run(&["sample", "run", "--device", "quantum"]).refused(&["`quantum`"]);
    for (backend, is_compiled) in [("cuda", cfg!(feature = "cuda")), ("rocm", cfg!(feature = "rocm"))] {
        if !is_compiled {
            workplace.train_tiny(&["--device", backend]).refused(&[backend, &format!("--features {backend}")]);
        }
    }
    assert!(!workplace.path("runs").exists(), "a run directory was made for a missing device");
}

#[test]
fn broken_model_files_are_refused() {
    let workplace = Workplace::new();
    workplace.train_tiny(&["--run", "run", "--steps", "1"]).succeeded();
    let model = workplace.read("run/model.safetensors");
    let length = u64::from_le_bytes(*model.first_chunk().expect("a length")) as usize;
    let (header, weights) = model[8..].split_at(length);
    let header = String::from_utf8(header.to_vec()).expect("a header");
    let with_header = |old: &str, new: &str| -> Vec<u8> {
        assert!(header.contains(old), "{old} is not in {header}");
        let header = header.replacen(old, new, 1);
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), weights].concat()
    };
    let noise: Vec<u8> = (0..5000u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut not_finite = model.clone();
    let end = not_finite.len();
    not_finite[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());

    let cases: [(&str, Vec<u8>, &[&str]); 12] = [
        ("empty", Vec::new(), &["not a whole safetensors file"]),
        ("half", model[..model.len() / 2].to_vec(), &["not a whole safetensors file"]),
        ("noise", noise, &["not a whole safetensors file"]),
        ("huge", [&(1u64 << 62).to_le_bytes(), &model[8..]].concat(), &["not a whole safetensors file"]),
        ("tensor", with_header("\"shape\":[", "\"shape\":[4611686018427387904,"), &["not a whole safetensors file"]),
        // headers of the same length
        ("shape", with_header("\\\"dim\\\":8,", "\\\"dim\\\":6,"), &["do not fit", "[8, 4, 7, 7]", "[6, 4, 7, 7]"]),
        ("wide", with_header("\\\"dim\\\":8,", "\\\"dim\\\":60000,"), &["do not fit", "60000"]),
        ("none", with_header("\\\"dim\\\":8,", "\\\"dim\\\":0,"), &["unet.dim = 0"]),
        ("large", with_header("\\\"height\\\":28,", "\\\"height\\\":4611686018427387904,"), &["4611686018427387904"]),
        ("newer", with_header("\\\"format_version\\\":1,", "\\\"format_version\\\":9,"), &["format version 9"]),
        ("foreign", with_header("\"diffuse\":", "\"another\":"), &["`diffuse`"]),
        ("weight", not_finite, &["not finite"]),
    ];
    for (name, bytes, words) in cases {
        let file = format!("{name}.safetensors");
        workplace.write(&file, bytes);
        workplace.run(&["sample", &file]).refused(&[&[file.as_str()], words].concat());
    }
    let finished = workplace.run(&["sample", "missing"]).refused(&["missing"]);
    assert_eq!(finished.error.matches("No such file").count(), 1, "the cause is printed twice: {finished}");
    std::fs::create_dir(workplace.path("folder")).expect("a folder");
    workplace.run(&["sample", "folder"]).refused(&["folder", "model.safetensors"]);
    assert!(!workplace.path("samples").exists(), "a folder was made without samples");

    // options that a good model refuses
    let cases: [(&[&str], &[&str]); 7] = [
        (&["--class", "10"], &["class 10", "0 to 9"]),
        (&["--count", "0"], &["--count", "0 is not in 1..=1048576"]),
        (&["--count", "18446744073709551615"], &["--count", "18446744073709551615 is not in 1..=1048576"]),
        (&["--steps", "0"], &["0"]),
        (&["--steps", "1001"], &["1001", "1000"]),
        (&["--eta=-1"], &["eta", "-1"]),
        (&["--guidance", "inf"], &["guidance", "inf"]),
    ];
    for (arguments, words) in cases {
        workplace.run(&[&["sample", "run"], arguments].concat()).refused(words);
    }
    workplace.write("taken", "a file");
    workplace.run(&["sample", "run", "--count", "1", "--out", "taken"]).refused(&["taken", "--out"]);
    workplace.run(&["schedule", "--out", "taken"]).refused(&["taken", "--out"]);
    // the model is unchanged
    assert!(workplace.read("run/model.safetensors") == model);
}

#[test]
fn unusable_run_directories_are_refused() {
    let workplace = Workplace::new();
    workplace.write("file", "a file");
    workplace.train_tiny(&["--run", "file"]).refused(&["file", "it is a file", "--run"]);
    workplace.train_tiny(&["--run", "file/below"]).refused(&["file/below"]);
    workplace.write("full/notes.txt", "mine");
    workplace.train_tiny(&["--run", "full"]).refused(&["full", "not empty", "--resume"]);
    assert_eq!(workplace.text("full/notes.txt"), "mine");
    assert_eq!(workplace.text("file"), "a file");

    workplace.run(&["train", "--resume"]).refused(&["runs/", "--run"]);
    workplace.run(&["train", "--resume", "--run", "full"]).refused(&["full", "config.toml"]);
    workplace.train_tiny(&["--run", "run", "--steps", "2"]).succeeded();
    let another = workplace.run(&["train", "--resume", "--run", "run", "--batch-size", "5"]);
    another.refused(&["run", "training.batch_size: 4 in the run, 5 now"]);
    // instead of a half-written checkpoint the one before is taken, with a warning
    let (last, before) = ("run/checkpoints/step-0000002.safetensors", "run/checkpoints/step-0000001.safetensors");
    let whole = workplace.read(last);
    workplace.write(last, &whole[..whole.len() / 2]);
    workplace.run(&["train", "--resume", "--run", "run"]).refused(&[last, "not a whole"]);
    workplace.write(before, &whole);
    let resumed = workplace.run(&["train", "--resume", "--run", "run"]).succeeded();
    assert!(resumed.error.contains(&format!("passed over the checkpoint {last}")), "{resumed}");
    std::fs::remove_file(workplace.path(before)).expect("a file");
    workplace.write(last, workplace.read("run/model.safetensors"));
    workplace.run(&["train", "--resume", "--run", "run"]).refused(&[last]);
    workplace.write("run/config.toml", "[training]\nsteps = -1\n");
    workplace.run(&["train", "--resume", "--run", "run"]).refused(&["run/config.toml", "steps"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported_and_leaves_no_half_file() {
    use std::process::Command;

    /// A file system of 64 KiB, unmounted at the end of the test.
    struct Small<'a>(&'a Workplace);
    impl Small<'_> {
        fn mount(&self) -> bool {
            let mount = Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=64k", "diffuse-test"])
                .arg(self.0.path("small"))
                .output();
            mount.is_ok_and(|output| output.status.success())
        }
    }
    impl Drop for Small<'_> {
        fn drop(&mut self) {
            // if this fails, so does the removal of the temporary folder
            drop(Command::new("umount").arg(self.0.path("small")).output());
        }
    }

    let workplace = Workplace::new();
    // a device that is always full
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let output = workplace.command(&["schedule", "--json"]).stdout(full).output().expect("diffuse starts");
    let finished = end_to_end::Finished::new(&["schedule"], output);
    finished.refused(&["standard output", "No space left"]);

    std::fs::create_dir(workplace.path("small")).expect("a folder");
    let small = Small(&workplace);
    if !small.mount() {
        eprintln!("skipped: only root may mount a small file system");
        return;
    }
    let finished = workplace.run(&tiny(&["--run", "small/run"]));
    finished.refused(&["small/run/", "No space left"]);
    let mut left: Vec<String> = std::fs::read_dir(workplace.path("small/run"))
        .expect("a run directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    for name in &left {
        let is_whole = ["config.toml", "evaluations.jsonl", "metrics.jsonl", "samples", ".lock", "tensorboard"];
        assert!(is_whole.contains(&name.as_str()), "{left:?}");
    }
}

/// A folder that no user, not even root, can write into until this is dropped.
#[cfg(target_os = "linux")]
struct ReadOnly(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl ReadOnly {
    /// None if this user can write without permission but may not mount.
    fn new(folder: std::path::PathBuf) -> Option<Self> {
        use std::{fs::Permissions, os::unix::fs::PermissionsExt, process::Command};

        std::fs::set_permissions(&folder, Permissions::from_mode(0o555)).expect("permissions");
        let is_read_only = |folder: &std::path::Path| tempfile::tempfile_in(folder).is_err();
        if !is_read_only(&folder) {
            // root needs no permission: the folder is mounted on itself, read only
            for options in ["bind", "remount,bind,ro"] {
                drop(Command::new("mount").args(["-o", options]).args([&folder, &folder]).output());
            }
        }
        let is_read_only = is_read_only(&folder);
        let made = Self(folder);
        is_read_only.then_some(made)
    }
}

#[cfg(target_os = "linux")]
impl Drop for ReadOnly {
    fn drop(&mut self) {
        use std::{fs::Permissions, os::unix::fs::PermissionsExt, process::Command};

        // one of the two undoes what `new` did
        drop(Command::new("umount").arg(&self.0).output());
        drop(std::fs::set_permissions(&self.0, Permissions::from_mode(0o755)));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_read_only_folder_is_reported_before_the_work_and_nothing_is_lost() {
    let workplace = Workplace::new();
    workplace.train_tiny(&["--run", "ro/run", "--steps", "2"]).succeeded();
    let files =
        ["model.safetensors", "metrics.jsonl", "config.toml", "report.html"].map(|name| format!("ro/run/{name}"));
    let before: Vec<Vec<u8>> = files.iter().map(|file| workplace.read(file)).collect();
    let state = "ro/run/checkpoints/step-0000002.safetensors";
    let state_before = workplace.read(state);
    // the inner folder first, while the outer one is writable
    let (_inner, outer) = (ReadOnly::new(workplace.path("ro/run")), ReadOnly::new(workplace.path("ro")));
    if outer.is_none() {
        eprintln!(
            "skipped: this user can write into a folder without permission, but may not mount one to be read only"
        );
        return;
    }

    let words = ["ro/", "make the folder ro", "writable or choose another"];
    workplace.train_tiny(&["--run", "ro/second"]).refused(&words);
    workplace.run(&["train", "--resume", "--run", "ro/run"]).refused(&words);
    let refused = workplace.run(&["sample", "ro/run", "--count", "1", "--out", "ro/samples"]).refused(&words);
    assert!(refused.error.contains("--out"), "{refused}");
    workplace.run(&["schedule", "--out", "ro/schedule"]).refused(&words);
    workplace.run(&["data", "inspect", "mnist-5k", "--preview", "ro/preview.png"]).refused(&words);
    let fetch = ["data", "fetch", "mnist-5k"];
    let output = workplace.command(&fetch).env("XDG_CACHE_HOME", workplace.path("ro/cache")).output();
    let refused = end_to_end::Finished::new(&fetch, output.expect("diffuse starts"));
    refused.refused(&["ro/cache", "writable or choose another"]);

    // the files there can be read and are unchanged
    workplace.run(&["sample", "ro/run", "--count", "1", "--steps", "1", "--out", "elsewhere"]).succeeded();
    for (file, before) in files.iter().zip(before) {
        assert!(workplace.read(file) == before, "{file}");
    }
    assert!(workplace.read(state) == state_before);
    for name in ["second", "samples", "schedule", "preview.png", "cache"] {
        assert!(!workplace.path("ro").join(name).exists(), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn a_batch_larger_than_the_memory_is_refused_with_advice() {
    let workplace = Workplace::new();
    let words = ["images at a time", "GB", "lower training.batch_size and raise training.gradient_accumulate_every"];
    workplace.train_tiny(&["--run", "run", "--batch-size", "1000000", "--set", "unet.dim=64"]).refused(&words);
    // limited by the shell, in KiB
    let limited = |arguments: &[&str]| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "ulimit -v 2000000 && exec \"$0\" \"$@\""]).arg(end_to_end::program()).args(arguments);
        let output = command.current_dir(workplace.path("")).output().expect("sh starts");
        end_to_end::Finished::new(arguments, output)
    };
    limited(&tiny(&["--run", "run", "--batch-size", "100000"])).refused(&words);
    assert!(!workplace.path("run").exists());

    // beyond what the check knows, Rust ends the process in the middle of a step; the next one says what to lower
    let ended = limited(&tiny(&["--run", "run", "--batch-size", "10000"]));
    assert!(ended.code.is_none() && ended.error.contains("memory allocation of "), "{ended}");
    let next = limited(&["train", "--resume", "--run", "run"]);
    for words in ["note: the process that trained here before ended without saving", "lower training.batch_size"] {
        assert!(next.error.contains(words), "`{words}`: {next}");
    }

    // sampling: fewer images at a time take less memory
    workplace.train_tiny(&["--run", "model"]).succeeded();
    let many = ["sample", "model", "--out", "samples", "--count", "40000", "--batch-size", "40000"];
    let ended = limited(&many);
    assert_eq!(ended.code, None, "{ended}");
    limited(&[&many[..5], &["100"]].concat()).succeeded();
}
