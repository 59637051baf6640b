//! The binary in several processes: `cargo test --workspace --features mpi --test mpi`. A build without the feature refuses.

use end_to_end::{Workplace, tiny};

#[cfg(not(feature = "mpi"))]
#[test]
fn a_build_without_mpi_refuses_to_be_one_of_several_ranks() {
    let workplace = Workplace::new();
    let arguments = tiny(&["--run", "run"]);
    let mut command = workplace.command(&arguments);
    command.env("OMPI_COMM_WORLD_SIZE", "4");
    let output = command.output().expect("diffuse starts");
    end_to_end::Finished::new(&arguments, output).refused(&["mpirun started 4 processes", "--features mpi"]);
    assert!(!workplace.path("run").exists());
}

#[test]
fn several_processes_do_not_draw_the_same_images() {
    let workplace = Workplace::new();
    workplace.train_tiny(&["--run", "run"]).succeeded();
    let run = |arguments: &[&str]| {
        let mut command = workplace.command(arguments);
        command.env("OMPI_COMM_WORLD_SIZE", "4");
        end_to_end::Finished::new(arguments, command.output().expect("diffuse starts"))
    };
    let all = ["sample", "run", "--count", "4", "--out", "drawn"];
    run(&all).refused(&["mpirun started 4 processes", "--shard 1/4"]);
    assert!(!workplace.path("drawn").exists());
    run(&[&all[..], &["--shard", "2/4"]].concat()).succeeded();
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
        let mut command = Command::new("mpirun");
        command.args(["--allow-run-as-root", "--oversubscribe", "-n", &ranks.to_string()]);
        with_diffuse(command, workplace, arguments)
    }

    /// A command that starts another, completed with `diffuse` in this workplace.
    fn with_diffuse(mut command: Command, workplace: &Workplace, arguments: &[&str]) -> Command {
        command.arg(program()).args(arguments).current_dir(workplace.path("")).env("HOME", workplace.path(""));
        command.env_remove("XDG_CACHE_HOME").env_remove("DIFFUSE_DATASETS");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(workplace: &Workplace, ranks: usize, arguments: &[&str]) -> Finished {
        let output = mpirun(workplace, ranks, arguments).output().expect("mpirun is installed (Debian: openmpi-bin)");
        Finished::new(arguments, output)
    }

    /// The number at a path of keys in each line.
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

    /// Waits until the file has this number of lines.
    fn wait_for_lines(child: &mut Child, path: &Path, lines: usize) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !std::fs::read_to_string(path).is_ok_and(|text| text.lines().count() >= lines) {
            assert!(child.try_wait().expect("a child").is_none() && Instant::now() < deadline, "no {lines} steps");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The processes of `diffuse` in this workplace, by rank.
    fn ranks_in(workplace: &Workplace) -> Vec<u32> {
        let home = format!("HOME={}", workplace.path("").display());
        let rank = |process: u32| -> Option<usize> {
            let environment = std::fs::read(format!("/proc/{process}/environ")).ok()?;
            let environment = String::from_utf8_lossy(&environment).into_owned();
            let is_program = std::fs::read_link(format!("/proc/{process}/exe")).ok()?.ends_with("diffuse");
            let rank = environment.split('\0').find_map(|line| line.strip_prefix("OMPI_COMM_WORLD_RANK="))?;
            (is_program && environment.split('\0').any(|line| line == home)).then(|| rank.parse().ok())?
        };
        let processes = std::fs::read_dir("/proc").expect("processes").flatten();
        let mut found: Vec<(usize, u32)> = processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
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
        assert_eq!(two.error.matches("parameters  ").count(), 1, "only rank 0 prints: {two}");
        assert_same_curves(&workplace, "two", "one");
        for file in ["model.safetensors", "samples.png", "report.html", "checkpoints/step-0000012.safetensors"] {
            assert!(workplace.path(format!("two/{file}")).exists(), "{file}");
        }
        // rank 0 chooses the directory for all
        run(&workplace, 2, &tiny(&["--steps", "2"])).succeeded();
        assert!(workplace.path("runs/digits-1/model.safetensors").exists());
        assert!(!workplace.path("runs/digits-2").exists());
        // rank 0 finds the latest run
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
        let ranks = ranks_in(&workplace);
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
            let ranks = ranks_in(&workplace);
            assert_eq!(ranks.len(), 2);
            signal("-KILL", ranks[killed]);
            let began = Instant::now();
            let ended = Finished::new(&arguments, child.wait_with_output().expect("a child"));
            assert!(began.elapsed() < Duration::from_secs(20), "{ended}");
            assert!(!matches!(ended.code, Some(0 | 130)), "{ended}");
            // mpirun has killed the other ranks, which may take the system a moment
            let is_left = |rank: &u32| Path::new(&format!("/proc/{rank}/exe")).exists();
            while ranks.iter().any(is_left) {
                assert!(began.elapsed() < Duration::from_secs(20), "a rank is left: {ended}");
                std::thread::sleep(Duration::from_millis(10));
            }
            let least = if killed == 1 {
                // rank 0 has saved the last whole step
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

    /// Two hosts with a network between them, made of network namespaces.
    struct Hosts {
        names: [String; 2],
        /// Holds the script that starts a process on a host, in place of ssh, and a list of the files that the process left.
        folder: tempfile::TempDir,
    }

    impl Hosts {
        fn new() -> Self {
            static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
            let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let names = ["a", "b"].map(|letter| format!("diffuse-{}-{number}-{letter}", std::process::id()));
            let hosts = Self { names, folder: tempfile::tempdir().expect("a folder") };
            hosts.script("up", Some(hosts.folder.path()));
            hosts
        }

        /// Runs the script that makes and removes them.
        fn script(&self, action: &str, folder: Option<&Path>) {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("two-hosts.sh");
            let mut command = Command::new("sh");
            let output = command.arg(script).arg(action).args(&self.names).args(folder).output().expect("sh runs");
            assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }

        /// `mpirun` of a rank on each host, started on the first. In place of the workplace the second has an empty folder.
        fn mpirun(&self, workplace: &Workplace, arguments: &[&str]) -> Command {
            let [a, b] = &self.names;
            let mut command = Command::new("ip");
            command.args(["netns", "exec", a, "unshare", "--uts", "sh", "-c", "hostname \"$0\" && exec \"$@\"", a]);
            command.args(["mpirun", "--allow-run-as-root", "--bind-to", "none", "--mca", "btl", "tcp,self"]);
            // a host that does not answer is noticed within seconds
            for (name, value) in [("time", "3"), ("intvl", "1"), ("probes", "3")] {
                command.args(["--mca", &format!("oob_tcp_keepalive_{name}"), value]);
            }
            command.env("HIDDEN_FOLDER", workplace.path(""));
            command
                .args(["--mca", "plm_rsh_agent"])
                .arg(self.folder.path().join("agent"))
                .args(["--host", &format!("{a}:1,{b}:1")]);
            with_diffuse(command, workplace, arguments)
        }
    }

    impl Drop for Hosts {
        fn drop(&mut self) {
            self.script("down", None);
        }
    }

    fn ip(arguments: &[&str]) {
        let output = Command::new("ip").args(arguments).output().expect("ip is installed (Debian: iproute2)");
        assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    #[ignore = "needs root and iproute2: cargo xtask ci --only hosts"]
    fn two_hosts_train_as_one_process_and_only_the_first_has_files() {
        let workplace = Workplace::new();
        workplace.train_tiny(&[&SETTINGS[..], &["--run", "one"]].concat()).succeeded();
        let hosts = Hosts::new();
        let arguments = tiny(&[&SETTINGS[..], &["--run", "two", "--json"]].concat());
        let output = hosts.mpirun(&workplace, &arguments).output().expect("mpirun is installed");
        let two = Finished::new(&arguments, output).succeeded();
        assert_eq!(two.json()["steps"], 12, "only rank 0 reports: {two}");
        assert!(two.error.contains("ranks       2, 1 on this machine"), "{two}");
        assert_same_curves(&workplace, "two", "one");
        let left = std::fs::read_to_string(hosts.folder.path().join("left")).expect("a list of files");
        assert_eq!(left.trim_end(), workplace.path("").display().to_string());
        // from a state that only the first host can read
        let more = ["train", "--resume", "--run", "two"];
        let output = hosts.mpirun(&workplace, &more).output().expect("mpirun is installed");
        let again = Finished::new(&more, output).succeeded();
        assert!(again.error.contains("going on after step 12"), "{again}");
    }

    #[test]
    #[ignore = "needs root and iproute2: cargo xtask ci --only hosts"]
    fn a_host_that_is_lost_ends_the_training_which_goes_on_without_it() {
        let workplace = Workplace::new();
        for kind in ["killed", "unreachable"] {
            let hosts = Hosts::new();
            let arguments = tiny(&["--run", kind, "--steps", "1000"]);
            let mut child = hosts.mpirun(&workplace, &arguments).spawn().expect("mpirun is installed");
            wait_for_lines(&mut child, &workplace.path(format!("{kind}/metrics.jsonl")), 3);
            let ranks = ranks_in(&workplace);
            assert_eq!(ranks.len(), 2);
            match kind {
                "killed" => signal("-KILL", ranks[1]),
                _ => ip(&["-n", &hosts.names[0], "link", "set", "veth", "down"]),
            }
            let began = Instant::now();
            let ended = Finished::new(&arguments, child.wait_with_output().expect("a child"));
            assert!(began.elapsed() < Duration::from_secs(40), "{ended}");
            assert!(!matches!(ended.code, Some(0 | 130)) && !ended.error.contains("panicked"), "{ended}");
            assert!(ended.error.contains("is saved"), "{ended}");
            drop(hosts);
            let done = numbers(&workplace, &format!("{kind}/metrics.jsonl"), &["step"]).len();
            assert!(done < 1000, "{ended}");
            let resumed = workplace.run(&["train", "--resume", "--run", kind]).succeeded();
            assert!(resumed.error.contains(&format!("going on after step {done}")), "{resumed}");
        }
    }
}
