//! The checks of continuous integration, one after another.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

use crate::cargo::{self, Built, CommandLine};
use crate::{UsageError, unknown_name};

/// The CUDA release whose interface is compiled against: asked of `nvcc` otherwise, which need not be there.
const CUDA_VERSION: (&str, &str) = ("CUDARC_CUDA_VERSION", "13000");
/// Static LLVM libraries from PyPI, and where the build of the CUDA backend looks for them.
const LLVM_PACKAGES: [&str; 2] = ["mlc-llvm-static==23.1.1.post0", "mlc-llvm-static-extra-targets==23.1.1.post0"];
/// Reads event files, from PyPI.
const TENSORBOARD: &str = "tensorboard==2.21.0";
const LLVM_FOLDER: &str = "tracel-llvm-23.1.0-4";

/// The tests of crate `kernels`, with the features of the whole workspace.
const KERNEL_TESTS: &str = "test --workspace --test convolution --test operations --test pointwise";

/// Every memory access of the kernels' tests is checked.
const SANITIZED: &str = "run nightly cargo test --package kernels --target x86_64-unknown-linux-gnu --test convolution \
                         --test operations --test pointwise";
/// The interpreter is some thousand times slower: the tests without random cases, over plain slices.
const MIRI: &str =
    "run nightly cargo miri test --package kernels --test convolution --test pointwise -- non_finite below_its";

/// Steps that run only if they are named: they need what a machine seldom has.
const ON_DEMAND: [&str; 5] = ["neon", "sanitizer", "miri", "fuzz", "hosts"];

/// Targets of `tests/fuzz` that need its feature `networks`, and with it burn.
const OF_NETWORKS: [&str; 3] = ["classifier", "config", "model"];

/// A check.
struct Step {
    name: &'static str,
    about: &'static str,
    action: Action,
}

enum Action {
    /// A command that succeeds.
    Run(CommandLine),
    /// Tries each reader of files with bytes that a fuzzer makes.
    Fuzz,
    /// Reads a run's event files with the real TensorBoard.
    ReadEvents,
    /// Links the CUDA backend, runs it, and wants a clear refusal where there is no GPU.
    LinkCuda,
}

fn steps() -> Vec<Step> {
    let cargo = |arguments: &str| CommandLine::new("cargo", arguments.split(' '));
    let step = |name, about, action| Step { name, about, action };
    let run = |name, about, line| step(name, about, Action::Run(line));
    vec![
        run("format", "the code is formatted", cargo("fmt --all --check")),
        run("clippy", "no warnings", cargo("clippy --workspace --all-targets -- -D warnings")),
        run(
            "docs",
            "the documentation builds and its links lead somewhere",
            cargo("doc --workspace --no-deps").with_variable("RUSTDOCFLAGS", "-D warnings"),
        ),
        run("tests", "every test, on the CPU", cargo("test --workspace")),
        run(
            "avx2",
            "the native operations without AVX-512",
            cargo(KERNEL_TESTS).with_variable("KERNELS_INSTRUCTION_SET", "avx2"),
        ),
        run(
            "scalar",
            "the native operations without vectors",
            cargo(KERNEL_TESTS).with_variable("KERNELS_INSTRUCTION_SET", "scalar"),
        ),
        run(
            "neon",
            "the native operations on ARM, emulated (if named; needs qemu-user, gcc-aarch64-linux-gnu, the target)",
            cargo("test --package kernels --target aarch64-unknown-linux-gnu --test convolution --test pointwise")
                .with_variable("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
                .with_variable(
                    "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER",
                    "qemu-aarch64 -L /usr/aarch64-linux-gnu",
                ),
        ),
        run(
            "sanitizer",
            "the native operations under AddressSanitizer (if named; needs a nightly toolchain)",
            CommandLine::new("rustup", SANITIZED.split(' ')).with_variable("RUSTFLAGS", "-Zsanitizer=address"),
        ),
        run(
            "miri",
            "the native operations under Miri, few cases (if named; needs a nightly toolchain with Miri)",
            CommandLine::new("rustup", MIRI.split(' ')).with_variable(
                "MIRIFLAGS",
                "-Zmiri-disable-isolation -Zmiri-tree-borrows -Zmiri-permissive-provenance -Zmiri-ignore-leaks",
            ),
        ),
        step(
            "fuzz",
            "each reader with made-up bytes for $FUZZ_SECONDS, 60 if not given (if named; needs a nightly toolchain and cargo-fuzz)",
            Action::Fuzz,
        ),
        run(
            "wgpu",
            "network, training and sampling on a Vulkan device",
            cargo("test --workspace --features wgpu --test wgpu"),
        ),
        step("tensorboard", "TensorBoard reads what a run writes", Action::ReadEvents),
        run(
            "mpi",
            "training in several processes (needs libopenmpi-dev, openmpi-bin, libclang-dev)",
            cargo("test --workspace --features mpi --test mpi"),
        ),
        run(
            "hosts",
            "training on two hosts, namespaces of this one (if named; needs root, iproute2 and what mpi needs)",
            cargo("test --workspace --features mpi --test mpi -- --ignored"),
        ),
        run(
            "cuda-check",
            "the CUDA backend compiles",
            cargo("check -p cli --features cuda")
                .with_variable("DOCS_RS", "1")
                .with_variable(CUDA_VERSION.0, CUDA_VERSION.1),
        ),
        step("cuda-link", "the CUDA backend links, and says so where there is no GPU", Action::LinkCuda),
        run(
            "licenses",
            "dependencies, their licenses and sources (cargo-deny)",
            cargo("deny check licenses bans sources"),
        ),
    ]
}

/// `cargo xtask ci [--only NAME[,NAME]] [--list]`.
pub fn main(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    match request(arguments)? {
        Request::List => {
            let lines = steps().into_iter().map(|step| format!("{:<12}{}\n", step.name, step.about));
            cargo::print(&lines.collect::<String>())?;
            Ok(ExitCode::SUCCESS)
        }
        Request::Run(names) => run(&names),
    }
}

#[derive(Debug, PartialEq)]
enum Request {
    List,
    /// The names of the steps to run, in their own order.
    Run(Vec<&'static str>),
}

fn request(arguments: &[OsString]) -> Result<Request, UsageError> {
    let all: Vec<&'static str> = steps().iter().map(|step| step.name).collect();
    let (mut only, mut list) = (None::<Vec<&str>>, false);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let argument = argument.to_string_lossy();
        let names = match argument.as_ref() {
            "--list" => {
                list = true;
                continue;
            }
            "--only" => match arguments.next() {
                Some(names) => names.to_string_lossy().into_owned(),
                None => return Err(UsageError(format!("--only needs names: some of {}", all.join(", ")))),
            },
            other => match other.strip_prefix("--only=") {
                Some(names) => names.to_owned(),
                None => {
                    return Err(unknown_name("argument of ci", other, &["--only", "--list"], "see `cargo xtask help`"));
                }
            },
        };
        for name in names.split(',') {
            let Some(known) = all.iter().find(|known| **known == name) else {
                return Err(unknown_name("step", name, &all, &format!("the steps are {}", all.join(", "))));
            };
            only.get_or_insert_default().push(known);
        }
    }
    if list {
        return Ok(Request::List);
    }
    let wanted = |name: &&'static str| match &only {
        Some(only) => only.contains(name),
        None => !ON_DEMAND.contains(name),
    };
    Ok(Request::Run(all.into_iter().filter(wanted).collect()))
}

fn run(names: &[&str]) -> anyhow::Result<ExitCode> {
    let root = cargo::workspace_root()?;
    let start = Instant::now();
    for step in steps().into_iter().filter(|step| names.contains(&step.name)) {
        let began = Instant::now();
        eprintln!("\n== {}: {}", step.name, step.about);
        let of_its_own = |outcome| (format!("cargo xtask ci --only {}", step.name), outcome);
        let (again, outcome) = match &step.action {
            Action::Run(line) => {
                eprintln!("$ {line}");
                (line.to_string(), succeed(line, &root))
            }
            Action::Fuzz => of_its_own(fuzz(&root)),
            Action::ReadEvents => of_its_own(read_events(&root)),
            Action::LinkCuda => of_its_own(link_cuda(&root)),
        };
        let seconds = began.elapsed().as_secs_f64();
        if let Err(error) = outcome {
            eprintln!("\n== {}: FAILED after {seconds:.1} s: {error:#}\n   to repeat it: {again}", step.name);
            return Ok(ExitCode::FAILURE);
        }
        eprintln!("== {}: passed in {seconds:.1} s", step.name);
    }
    eprintln!("\n== {} of the steps passed in {:.1} s", names.len(), start.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

/// Runs the command in `directory`; anything but success is an error.
fn succeed(line: &CommandLine, directory: &Path) -> anyhow::Result<()> {
    let status = line
        .command()
        .current_dir(directory)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start `{line}`; is it installed and on the PATH?"))?;
    if !status.success() {
        bail!("the command ended with {status}");
    }
    Ok(())
}

/// Runs each target of `tests/fuzz`. What it finds out about a reader is kept beside the build, and helps the next time.
fn fuzz(root: &Path) -> anyhow::Result<()> {
    let folder = root.join("tests").join("fuzz");
    let built = target_folder()?.join("fuzz");
    let seconds = std::env::var("FUZZ_SECONDS").unwrap_or_else(|_| "60".to_owned());
    let seconds: u32 = seconds.parse().with_context(|| format!("FUZZ_SECONDS={seconds} is no number of seconds"))?;
    let targets = folder.join("targets");
    let entries = std::fs::read_dir(&targets).with_context(|| format!("cannot list {}", targets.display()))?;
    let mut names = entries
        .map(|entry| Ok(entry?.path().file_stem().unwrap_or_default().to_string_lossy().into_owned()))
        .collect::<std::io::Result<Vec<_>>>()?;
    // those that need no tensor library first: they are built in a fraction of the time
    names.sort_by_key(|name| (OF_NETWORKS.contains(&name.as_str()), name.clone()));
    for name in names {
        let corpus = built.join("corpus").join(&name);
        std::fs::create_dir_all(&corpus).with_context(|| format!("cannot make the folder {}", corpus.display()))?;
        let mut line = CommandLine::new("rustup", ["run", "nightly", "cargo", "fuzz", "run", "--fuzz-dir"]);
        line.arguments.extend([folder.clone().into(), "--target-dir".into(), built.clone().into()]);
        if OF_NETWORKS.contains(&name.as_str()) {
            // a tensor library with it takes 7 GB of memory to build, and what is tried here has no unsafe code
            line.arguments.extend(["--sanitizer".into(), "none".into()]);
        } else {
            line.arguments.push("--no-default-features".into());
        }
        line.arguments.extend([name.clone().into(), corpus.into(), folder.join("seeds").join(&name).into()]);
        let limits =
            format!("-- -max_total_time={seconds} -timeout=30 -rss_limit_mb=4096 -verbosity=0 -print_final_stats=1");
        line.arguments.extend(limits.split(' ').map(OsString::from));
        eprintln!("$ {line}");
        succeed(&line, root).with_context(|| format!("the target {name} found something, or did not build"))?;
    }
    Ok(())
}

/// Runs the test that reads event files with TensorBoard, which is installed from PyPI.
fn read_events(root: &Path) -> anyhow::Result<()> {
    let packages = install(&target_folder()?.join("tensorboard"), &[TENSORBOARD], &[])?;
    let arguments = "test --workspace --test tensorboard -- --ignored";
    let line = CommandLine::new("cargo", arguments.split(' ')).with_variable("TENSORBOARD_PACKAGES", packages);
    eprintln!("$ {line}");
    succeed(&line, root)
}

/// Builds `diffuse` for CUDA with LLVM from PyPI, and runs it: on a machine without a GPU it has to refuse in words.
fn link_cuda(root: &Path) -> anyhow::Result<()> {
    let folder = target_folder()?.join("cuda-link");
    let data_home = install_llvm(&folder)?;
    let line = CommandLine::new("cargo", ["build", "--package", "cli", "--bin", "diffuse", "--features", "cuda"])
        .with_variable("XDG_DATA_HOME", &data_home)
        .with_variable(CUDA_VERSION.0, CUDA_VERSION.1);
    eprintln!("$ {line}");
    let program = match cargo::build(&line, root, "diffuse")? {
        Built::Program(program) => program,
        Built::Failed(status) => bail!("the command ended with {status}"),
    };
    eprintln!("$ {} train --device cuda --dry-run", program.display());
    let output = Command::new(&program)
        .args(["train", "--device", "cuda", "--dry-run"])
        .current_dir(root)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let message = String::from_utf8_lossy(&output.stderr);
    eprint!("{message}");
    judge_refusal(output.status.code(), &message, Path::new("/dev/nvidiactl").exists())
}

/// Whether this is how `diffuse train --device cuda --dry-run` should end, with or without a GPU.
fn judge_refusal(code: Option<i32>, message: &str, with_gpu: bool) -> anyhow::Result<()> {
    if message.contains("panicked at") {
        bail!("it panicked, instead of saying in one message that there is no CUDA device");
    }
    if with_gpu && code == Some(0) {
        return Ok(());
    }
    if code != Some(1) {
        bail!("it ended with {code:?}, not with 1");
    }
    if !message.to_lowercase().contains("cuda") {
        bail!("its message does not name cuda");
    }
    Ok(())
}

/// Puts the LLVM packages where the CUDA backend's build looks for them and returns that data home.
///
/// It looks in `$XDG_DATA_HOME/tracel/tracel-llvm-…` and takes what lies there as complete if it holds a certain empty
/// file; else it would download its own bundle. A private data home leaves the user's alone.
fn install_llvm(folder: &Path) -> anyhow::Result<PathBuf> {
    let llvm = install(folder, &LLVM_PACKAGES, &["--no-deps"])?.join("mlc_llvm_static").join("static");
    if !llvm.is_dir() {
        bail!("{} was not installed by {}; have the packages changed?", llvm.display(), LLVM_PACKAGES.join(", "));
    }
    let complete = llvm.join(".tracel-llvm-installed");
    std::fs::write(&complete, "").with_context(|| format!("cannot write {}", complete.display()))?;
    let data_home = folder.join("data-home");
    let link = data_home.join("tracel").join(LLVM_FOLDER);
    let parent = link.parent().unwrap_or(&data_home);
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make the folder {}", parent.display()))?;
    link_folder(&llvm, &link).with_context(|| format!("cannot link {} to {}", link.display(), llvm.display()))?;
    Ok(data_home)
}

/// Installs packages from PyPI into a folder of their own below `folder`, unless they are there, and returns it.
fn install(folder: &Path, packages: &[&str], options: &[&str]) -> anyhow::Result<PathBuf> {
    let to = folder.join(packages[0].replace("==", "-"));
    let complete = to.join(".installed");
    if complete.is_file() {
        return Ok(to);
    }
    if to.exists() {
        // An installation that was cut off: pip would not repair it.
        std::fs::remove_dir_all(&to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    let mut line = CommandLine::new("python3", ["-m", "pip", "install", "--quiet"]);
    line.arguments.extend(options.iter().map(OsString::from));
    line.arguments.extend(["--target".into(), to.clone().into()]);
    line.arguments.extend(packages.iter().map(OsString::from));
    eprintln!("$ {line}");
    succeed(&line, Path::new("."))
        .with_context(|| format!("{} comes from PyPI: this needs python3 with pip, and the network", packages[0]))?;
    std::fs::write(&complete, "").with_context(|| format!("cannot write {}", complete.display()))?;
    Ok(to)
}

/// Makes `link` a symbolic link to the folder `to`, whatever link was there.
#[cfg(unix)]
fn link_folder(to: &Path, link: &Path) -> std::io::Result<()> {
    if link.is_symlink() {
        std::fs::remove_file(link)?;
    }
    std::os::unix::fs::symlink(to, link)
}

#[cfg(not(unix))]
fn link_folder(_to: &Path, _link: &Path) -> std::io::Result<()> {
    Err(std::io::Error::other("this step runs on Linux only; choose others with --only"))
}

/// Where cargo builds: this program lies in a folder of it. Absolute.
fn target_folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find out where this program lies")?;
    program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .map(Path::to_path_buf)
        .with_context(|| format!("{} does not lie in a target directory; run it as `cargo xtask`", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(arguments: &[&str]) -> Result<Request, String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        request(&arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn all_steps_run_in_their_order_unless_some_are_chosen() {
        let all = [
            "format",
            "clippy",
            "docs",
            "tests",
            "avx2",
            "scalar",
            "wgpu",
            "tensorboard",
            "mpi",
            "cuda-check",
            "cuda-link",
            "licenses",
        ];
        assert_eq!(requested(&[]), Ok(Request::Run(all.to_vec())));
        let two = Ok(Request::Run(vec!["format", "docs"]));
        assert_eq!(requested(&["--only", "docs,format"]), two);
        assert_eq!(requested(&["--only=docs", "--only", "format"]), two);
        assert_eq!(requested(&["--only", "miri"]), Ok(Request::Run(vec!["miri"])));
        assert_eq!(requested(&["--list"]), Ok(Request::List));
    }

    #[test]
    fn wrong_requests_name_what_there_is() {
        let message = requested(&["--only", "formt"]).unwrap_err();
        assert!(message.contains("did you mean `format`?") && message.contains("licenses"), "{message}");
        assert!(requested(&["--only"]).unwrap_err().contains("cuda-link"));
        assert!(requested(&["--olny"]).unwrap_err().contains("did you mean `--only`?"));
        assert!(requested(&["--only", ""]).unwrap_err().contains("there is no step ``"));
    }

    #[test]
    fn steps_are_shown_as_they_can_be_repeated() {
        let shown: Vec<String> = steps()
            .iter()
            .filter_map(|step| match &step.action {
                Action::Run(line) => Some(line.to_string()),
                Action::Fuzz | Action::ReadEvents | Action::LinkCuda => None,
            })
            .collect();
        assert!(shown.contains(&"RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps".to_owned()));
        assert!(shown.contains(&"cargo clippy --workspace --all-targets -- -D warnings".to_owned()));
    }

    #[test]
    fn only_a_clear_refusal_passes() {
        let fine = "error: no CUDA device was found; use --device flex";
        assert!(judge_refusal(Some(1), fine, false).is_ok());
        assert!(judge_refusal(Some(0), "", true).is_ok());
        assert!(judge_refusal(Some(0), "", false).is_err());
        assert!(judge_refusal(Some(2), fine, false).is_err());
        assert!(judge_refusal(None, fine, false).is_err());
        assert!(judge_refusal(Some(1), "error: something failed", false).is_err());
        assert!(judge_refusal(Some(1), "thread 'main' panicked at src/x.rs: cuda", false).is_err());
    }

    #[test]
    fn a_failing_or_missing_command_is_an_error() {
        let here = Path::new(".");
        assert!(succeed(&CommandLine::new("cargo", ["--version"]), here).is_ok());
        let error = succeed(&CommandLine::new("cargo", ["no-such-subcommand"]), here).unwrap_err();
        assert!(error.to_string().contains("ended with"), "{error}");
        let error = succeed(&CommandLine::new("no-such-program", [""; 0]), here).unwrap_err();
        assert!(error.to_string().contains("cannot start `no-such-program`"), "{error}");
    }
}
