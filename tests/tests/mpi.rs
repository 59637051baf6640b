//! The binary in several processes: `cargo test --workspace --features mpi --test mpi`. Without the feature, that it says so.

use end_to_end::{Workplace, tiny};

#[cfg(not(feature = "mpi"))]
#[test]
fn a_build_without_mpi_refuses_to_be_one_of_several() {
    let workplace = Workplace::new();
    let arguments = tiny(&["--run", "run"]);
    let mut command = workplace.command(&arguments);
    command.env("OMPI_COMM_WORLD_SIZE", "4");
    let output = command.output().expect("diffuse starts");
    end_to_end::Finished::new(&arguments, output).refused(&["mpirun started 4 processes", "--features mpi"]);
    assert!(!workplace.path("run").exists());
}

#[cfg(feature = "mpi")]
mod with_mpi {
    use super::*;
    use end_to_end::{Finished, program};
    use std::{
        path::Path,
        process::{Child, Command, Stdio},
        time::{Duration, Instant},
    };

    /// `mpirun` of this many ranks of `diffuse`, not yet started.
    fn mpirun(workplace: &Workplace, ranks: usize, arguments: &[&str]) -> Command {
        let number = ranks.to_string();
        let mut words = vec!["--allow-run-as-root", "--oversubscribe", "-n", &number];
        words.push(program().to_str().expect("a path in UTF-8"));
        words.extend(arguments);
        let mut command = Command::new("mpirun");
        command.args(words).current_dir(workplace.path("")).env("HOME", workplace.path(""));
        command.env_remove("XDG_CACHE_HOME").env_remove("DIFFUSE_DATASETS");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(workplace: &Workplace, ranks: usize, arguments: &[&str]) -> Finished {
        let output = mpirun(workplace, ranks, arguments).output().expect("mpirun is installed (Debian: openmpi-bin)");
        Finished::new(arguments, output)
    }

    /// The numbers of a key, a line each.
    fn numbers(workplace: &Workplace, file: &str, keys: &[&str]) -> Vec<f64> {
        let value = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).expect("a JSON object");
            keys.iter().fold(&line, |value, key| &value[*key]).as_f64().expect("a number")
        };
        workplace.text(file).lines().map(value).collect()
    }

    #[track_caller]
    fn assert_same_curves(workplace: &Workplace, found: &str, expected: &str) {
        for (file, keys) in [("metrics.jsonl", &["loss"][..]), ("evaluations.jsonl", &["held_out", "all", "mean"])] {
            let [found, expected] = [found, expected].map(|run| numbers(workplace, &format!("{run}/{file}"), keys));
            assert_eq!(found.len(), expected.len(), "{file}");
            for (line, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!((found - expected).abs() < 2e-3 * expected, "{file}, {line}: {found} is not {expected}");
            }
        }
    }

    /// Waits until the file has so many lines.
    fn wait_for_lines(child: &mut Child, path: &Path, lines: usize) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !std::fs::read_to_string(path).is_ok_and(|text| text.lines().count() >= lines) {
            assert!(child.try_wait().expect("a child").is_none() && Instant::now() < deadline, "no {lines} steps");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The processes of `diffuse` that a launcher started, by their ranks.
    fn ranks_of(launcher: &Child) -> Vec<u32> {
        let read = |path: String| std::fs::read(path).unwrap_or_default();
        let rank = |process: u32| -> Option<usize> {
            let environment = String::from_utf8_lossy(&read(format!("/proc/{process}/environ"))).into_owned();
            environment.split('\0').find_map(|line| line.strip_prefix("OMPI_COMM_WORLD_RANK=")?.parse().ok())
        };
        let parent = |process: u32| -> Option<u32> {
            let status = String::from_utf8_lossy(&read(format!("/proc/{process}/status"))).into_owned();
            status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
        };
        let processes = std::fs::read_dir("/proc").expect("processes").flatten();
        let mut found: Vec<(usize, u32)> = processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|process| parent(*process) == Some(launcher.id()))
            .filter_map(|process| Some((rank(process)?, process)))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, process)| process).collect()
    }

    fn signal(name: &str, process: u32) {
        let status = Command::new("kill").args([name, &process.to_string()]).status().expect("kill runs");
        assert!(status.success());
    }

    const SETTINGS: [&str; 8] = [
        "--steps",
        "12",
        "--set",
        "training.evaluate_every=4",
        "--set",
        "training.parallel_parts=1",
        "--set",
        "data.held_out=6",
    ];

    #[test]
    fn two_processes_train_as_one() {
        let workplace = Workplace::new();
        workplace.train_tiny(&[&SETTINGS[..], &["--run", "one"]].concat()).succeeded();
        let arguments = tiny(&[&SETTINGS[..], &["--run", "two", "--json"]].concat());
        let two = run(&workplace, 2, &arguments).succeeded();
        assert_eq!(two.json()["steps"], 12, "only rank 0 reports: {two}");
        assert!(two.error.contains("ranks       2, 2 on this machine"), "{two}");
        assert_eq!(two.error.matches("parameters  ").count(), 1, "only rank 0 speaks: {two}");
        assert_same_curves(&workplace, "two", "one");
        for file in ["model.safetensors", "samples.png", "report.html", "checkpoints/step-0000012.safetensors"] {
            assert!(workplace.path(format!("two/{file}")).exists(), "{file}");
        }
        // a directory for all of them, found by rank 0
        run(&workplace, 2, &tiny(&["--steps", "2"])).succeeded();
        assert!(workplace.path("runs/digits-1/model.safetensors").exists());
        assert!(!workplace.path("runs/digits-2").exists());
        // the latest run, which only rank 0 looks for
        let again = run(&workplace, 2, &["train", "--resume", "--steps", "2"]).succeeded();
        assert!(again.error.contains("going on after step 2"), "{again}");
        run(&workplace, 2, &tiny(&["--batch-size", "1"])).refused_by_a_rank(&["batch_size = 1", "2 processes"]);
    }

    trait Refused {
        fn refused_by_a_rank(self, words: &[&str]);
    }

    impl Refused for Finished {
        #[track_caller]
        fn refused_by_a_rank(self, words: &[&str]) {
            assert_eq!(self.code, Some(1), "{self}");
            assert!(!self.error.contains("panicked"), "{self}");
            assert!(words.iter().all(|word| self.error.contains(word)), "{self}");
        }
    }

    #[test]
    fn a_rank_that_is_told_to_stop_stops_all_and_they_save() {
        let workplace = Workplace::new();
        let arguments = tiny(&["--run", "run", "--steps", "100000"]);
        let mut child = mpirun(&workplace, 2, &arguments).spawn().expect("mpirun starts");
        wait_for_lines(&mut child, &workplace.path("run/metrics.jsonl"), 3);
        let ranks = ranks_of(&child);
        assert_eq!(ranks.len(), 2);
        signal("-TERM", ranks[1]);
        let stopped = Finished::new(&arguments, child.wait_with_output().expect("a child"));
        assert_eq!(stopped.code, Some(130), "{stopped}");
        assert!(stopped.error.contains("go on with: diffuse train --resume --run run"), "{stopped}");
        let done = numbers(&workplace, "run/metrics.jsonl", &["step"]).len();
        assert!(workplace.path(format!("run/checkpoints/step-{done:07}.safetensors")).exists(), "{stopped}");
    }

    #[test]
    fn a_rank_that_is_killed_ends_the_others_and_the_run_goes_on() {
        let workplace = Workplace::new();
        let settings = [&SETTINGS[2..], &["--steps", "60", "--set", "training.checkpoint_every=7"]].concat();
        workplace.train_tiny(&[&settings[..], &["--run", "whole"]].concat()).succeeded();
        for (killed, ranks_after) in [(1, 2), (1, 1), (0, 2)] {
            let name = format!("killed-{killed}-{ranks_after}");
            let arguments = tiny(&[&settings[..], &["--run", &name]].concat());
            let mut child = mpirun(&workplace, 2, &arguments).spawn().expect("mpirun starts");
            wait_for_lines(&mut child, &workplace.path(format!("{name}/metrics.jsonl")), 10);
            let ranks = ranks_of(&child);
            assert_eq!(ranks.len(), 2);
            signal("-KILL", ranks[killed]);
            let began = Instant::now();
            let ended = Finished::new(&arguments, child.wait_with_output().expect("a child"));
            assert!(began.elapsed() < Duration::from_secs(20), "{ended}");
            assert!(!matches!(ended.code, Some(0 | 130)), "{ended}");
            // mpirun has killed those that were left, which may take the system a moment
            let is_left = |rank: &u32| Path::new(&format!("/proc/{rank}/exe")).exists();
            while ranks.iter().any(is_left) {
                assert!(began.elapsed() < Duration::from_secs(20), "a rank is left: {ended}");
                std::thread::sleep(Duration::from_millis(10));
            }
            let least = if killed == 1 {
                // rank 0 had the time to save the last whole step
                assert!(ended.error.contains("is saved"), "{ended}");
                numbers(&workplace, &format!("{name}/metrics.jsonl"), &["step"]).len()
            } else {
                7
            };
            let resume = ["train", "--resume", "--run", &name];
            let resumed = match ranks_after {
                1 => workplace.run(&resume),
                _ => run(&workplace, ranks_after, &resume),
            }
            .succeeded();
            let after = resumed.error.lines().find_map(|line| line.strip_prefix("going on after step "));
            let after: usize = after.and_then(|step| step.parse().ok()).unwrap_or_else(|| panic!("{resumed}"));
            assert!((least..60).contains(&after), "{after} of at least {least}: {resumed}");
            assert_same_curves(&workplace, &name, "whole");
        }
    }
}
