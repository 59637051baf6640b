//! The checks of continuous integration, one after another.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

use crate::{UsageError, cargo, cuda, dist, gpu_kit, known, options, print};

/// The reader of event files, from PyPI.
const TENSORBOARD: &str = "tensorboard==2.21.0";
/// The libraries that models are exchanged with, from PyPI; torch brings 3 GB of CUDA, without which it cannot be imported.
const PEERS: &str = "denoising-diffusion-pytorch==2.3.4 ema-pytorch==0.8.3 torch==2.15.0 safetensors==0.8.0 diffusers==0.42.1 \
                     onnx==1.23.2 onnxruntime==1.32.0 tract==0.23.9";
/// The packages of the default build when they were last counted. A newcomer waits for each of them.
const PACKAGES: usize = 339;
/// Targets of `tests/fuzz` that need its feature `networks`, and with it burn.
const NETWORK_TARGETS: [&str; 5] = ["classifier", "config", "diffusers", "model", "torch_file"];

/// Steps that run only if they are named, because they need more than most machines have, or long.
const ON_DEMAND: [&str; 8] = ["neon", "sanitizer", "miri", "fuzz", "hosts", "gpu-kit", "page", "cuda-link"];

/// A check: its name, a description, and how it is done.
struct Step(&'static str, &'static str, Action);

enum Action {
    /// A line for the shell, which succeeds.
    Line(&'static str),
    /// A function of the root of the workspace.
    Function(fn(&Path) -> anyhow::Result<()>),
}
use Action::{Function, Line};

/// The steps, in the order in which they run.
const STEPS: [Step; 22] = [
    Step("format", "the code is formatted", Line("cargo fmt --all --check")),
    Step(
        "packages",
        "the default build has hardly more packages than when they were counted",
        Function(count_packages),
    ),
    // with the operations on GPUs and the Hub, which no build without these features compiles
    Step("clippy", "no warnings", Line("cargo clippy --workspace --all-targets --features wgpu,hf -- -D warnings")),
    Step(
        "docs",
        "the documentation builds and its links lead somewhere",
        Line("RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps"),
    ),
    Step("tests", "every test, on the CPU", Line("cargo test --workspace")),
    Step(
        "avx2",
        "the native operations without AVX-512",
        Line(
            "KERNELS_INSTRUCTION_SET=avx2 cargo test --workspace --test convolution --test operations --test pointwise",
        ),
    ),
    Step(
        "scalar",
        "the native operations without vectors",
        Line(
            "KERNELS_INSTRUCTION_SET=scalar cargo test --workspace --test convolution --test operations --test pointwise",
        ),
    ),
    Step(
        "neon",
        "the native operations on ARM, emulated (if named; needs qemu-user, gcc-aarch64-linux-gnu, the target)",
        Line(
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
             CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER='qemu-aarch64 -L /usr/aarch64-linux-gnu' \
             cargo test --package kernels --target aarch64-unknown-linux-gnu --test convolution --test pointwise",
        ),
    ),
    Step(
        "sanitizer",
        "the native operations under AddressSanitizer (if named; needs a nightly toolchain)",
        Line(
            "RUSTFLAGS=-Zsanitizer=address rustup run nightly cargo test --package kernels \
             --target x86_64-unknown-linux-gnu --test convolution --test operations --test pointwise",
        ),
    ),
    // the interpreter is some thousand times slower: only tests without random cases, over plain slices
    Step(
        "miri",
        "the native operations under Miri, few cases (if named; needs a nightly toolchain with Miri)",
        Line(
            "MIRIFLAGS='-Zmiri-disable-isolation -Zmiri-tree-borrows -Zmiri-permissive-provenance -Zmiri-ignore-leaks' \
             rustup run nightly cargo miri test --package kernels --test convolution --test pointwise -- \
             non_finite below_its",
        ),
    ),
    Step(
        "fuzz",
        "each reader with made-up bytes for $FUZZ_SECONDS, 60 if not given (if named; needs a nightly toolchain and cargo-fuzz)",
        Function(fuzz),
    ),
    Step(
        "wgpu",
        "network, training and sampling on a Vulkan device",
        Line(
            "cargo test --workspace --features wgpu --test wgpu --test cube --test cube_attention --test cube_tensor_cores --test golden_cube",
        ),
    ),
    Step(
        "gpu-kit",
        "the kit for machines with a GPU, packed and run on a Vulkan device (if named; needs xz and strip)",
        Function(gpu_kit::check),
    ),
    Step(
        "dist",
        "the packages for pip, Debian and others are made, and draw digits (needs strip, dpkg-deb and pip)",
        Function(dist::check),
    ),
    Step("tensorboard", "TensorBoard reads what a run writes", Function(read_events)),
    Step(
        "interchange",
        "models are exchanged with the Python libraries, both ways (4 GB from PyPI)",
        Function(exchange_models),
    ),
    Step(
        "page",
        "an exported page draws in headless Chromium (if named; needs chromium, node, npm and python3)",
        Line(
            "cargo build --workspace --bin diffuse && node crates/interchange/tests/peers/page.mjs \
             \"${CARGO_TARGET_DIR:-target}/debug/diffuse\"",
        ),
    ),
    Step(
        "mpi",
        "training in several processes (needs libopenmpi-dev, openmpi-bin, libclang-dev)",
        Line("cargo test --workspace --features mpi --test mpi"),
    ),
    Step(
        "hosts",
        "training on two hosts, namespaces of this one (if named; needs root, iproute2 and what mpi needs)",
        Line("cargo test --workspace --features mpi --test mpi -- --ignored"),
    ),
    Step(
        "cuda-check",
        "the CUDA backend compiles",
        Line("DOCS_RS=1 CUDARC_CUDA_VERSION=13000 cargo check --package cli --features cuda"),
    ),
    Step(
        "cuda-link",
        "the CUDA backend links, and says so where there is no GPU (if named; takes half an hour)",
        Function(link_cuda),
    ),
    Step(
        "licenses",
        "dependencies, their licenses and sources (cargo-deny)",
        Line("cargo deny check licenses bans sources"),
    ),
];

/// `cargo xtask ci [--only NAME[,NAME]] [--list]`.
pub fn main(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    if arguments.iter().any(|argument| argument == "--list") {
        return print(&STEPS.map(|Step(name, about, _)| format!("{name:<12}{about}\n")).concat());
    }
    run(&chosen(arguments)?)
}

/// The names of the steps that `--only` chooses, or of all that need not be named.
fn chosen(arguments: &[OsString]) -> Result<Vec<&'static str>, UsageError> {
    let all = STEPS.map(|step| step.0);
    let mut only = vec![];
    for (_, names) in options(arguments, &["--only", "--list"])? {
        for name in names.split(',') {
            only.push(known("step", name, &all)?);
        }
    }
    let is_chosen = |name: &&str| if only.is_empty() { !ON_DEMAND.contains(name) } else { only.contains(name) };
    Ok(all.into_iter().filter(is_chosen).collect())
}

fn run(names: &[&str]) -> anyhow::Result<ExitCode> {
    let root = cargo::workspace_root();
    let start = Instant::now();
    for Step(name, about, action) in STEPS.iter().filter(|step| names.contains(&step.0)) {
        let began = Instant::now();
        eprintln!("\n== {name}: {about}");
        let outcome = match action {
            Line(line) => shell(line, &root),
            Function(function) => function(&root),
        };
        let seconds = began.elapsed().as_secs_f64();
        if let Err(error) = outcome {
            eprintln!(
                "\n== {name}: FAILED after {seconds:.1} s: {error:#}\n   to repeat it: cargo xtask ci --only {name}"
            );
            return Ok(ExitCode::FAILURE);
        }
        eprintln!("== {name}: passed in {seconds:.1} s");
    }
    eprintln!("\n== {} of the steps passed in {:.1} s", names.len(), start.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

/// Runs a line of the shell in `directory`; anything but success is an error.
pub fn shell(line: &str, directory: &Path) -> anyhow::Result<()> {
    eprintln!("$ {line}");
    let mut shell = cargo::command("sh");
    let status =
        shell.args(["-c", line]).current_dir(directory).stdin(Stdio::null()).status().context("cannot start sh")?;
    if !status.success() {
        bail!("the command ended with {status}");
    }
    Ok(())
}

/// Runs each target of `tests/fuzz`. The corpus, which helps the next run, is kept beside the build.
fn fuzz(root: &Path) -> anyhow::Result<()> {
    let seconds = std::env::var("FUZZ_SECONDS").unwrap_or_else(|_| "60".to_owned());
    let seconds: u32 = seconds.parse().with_context(|| format!("FUZZ_SECONDS={seconds} is no number of seconds"))?;
    let (folder, built) = (root.join("tests/fuzz"), target_folder()?.join("fuzz"));
    let targets = folder.join("targets");
    let entries = std::fs::read_dir(&targets).with_context(|| format!("cannot list {}", targets.display()))?;
    let mut names = entries
        .map(|entry| Ok(entry?.path().file_stem().unwrap_or_default().to_string_lossy().into_owned()))
        .collect::<std::io::Result<Vec<_>>>()?;
    let needs_networks = |name: &str| NETWORK_TARGETS.contains(&name);
    // those without burn first, which are built in a fraction of the time
    names.sort_by_key(|name| (needs_networks(name), name.clone()));
    for name in names {
        // burn with a sanitizer takes 7 GB of memory to build, and the code that is tried with it has no unsafe
        let options = if needs_networks(&name) { "--sanitizer none" } else { "--no-default-features" };
        let (folder, built) = (folder.display(), built.display());
        let line = format!(
            "mkdir -p '{built}/corpus/{name}' && rustup run nightly cargo fuzz run --fuzz-dir '{folder}' --target-dir '{built}' \
             {options} {name} '{built}/corpus/{name}' '{folder}/seeds/{name}' -- -max_total_time={seconds} -timeout=30 \
             -rss_limit_mb=4096 -verbosity=0 -print_final_stats=1"
        );
        shell(&line, root).with_context(|| format!("the target {name} found something, or did not build"))?;
    }
    Ok(())
}

/// Counts the packages that `cargo xtask train` compiles.
fn count_packages(_root: &Path) -> anyhow::Result<()> {
    let mut tree = cargo::subcommand("tree");
    tree.args(["--package", "cli", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"]);
    let output = tree.output().context("cannot start cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    judge_packages(&String::from_utf8_lossy(&output.stdout))
}

/// Checks the number of packages in the lines of `cargo tree --prefix none`.
fn judge_packages(tree: &str) -> anyhow::Result<()> {
    let name_and_version = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let packages: BTreeSet<_> = tree.lines().filter(|line| !line.is_empty()).map(name_and_version).collect();
    eprintln!("{} packages; {PACKAGES} when they were last counted", packages.len());
    if packages.len() * 100 > PACKAGES * 105 {
        bail!(
            "the default build has {} packages, more than 5 % above {PACKAGES}; leave some out, or put them behind a feature, \
             or set PACKAGES in xtask/src/ci.rs if they are worth the wait of everyone who builds this",
            packages.len()
        );
    }
    Ok(())
}

/// Runs the test that reads event files with TensorBoard, which is installed from PyPI.
fn read_events(root: &Path) -> anyhow::Result<()> {
    let packages = install("tensorboard", TENSORBOARD)?;
    let test = "cargo test --workspace --test tensorboard -- --ignored";
    shell(&format!("TENSORBOARD_PACKAGES='{}' {test}", packages.display()), root)
}

/// Runs each script of `crates/interchange/tests/peers`, which exchanges models between a Python library and `diffuse`.
fn exchange_models(root: &Path) -> anyhow::Result<()> {
    let packages = install("interchange", PEERS)?;
    shell("cargo test --workspace --features hf --lib hub", root)?;
    shell("cargo build --workspace --bin diffuse --example from_noise", root)?;
    let program = std::env::current_exe()?.with_file_name("diffuse");
    let folder = root.join("crates/interchange/tests/peers");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut scripts = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "py"));
    scripts.sort();
    for script in scripts {
        let (packages, script, program) = (packages.display(), script.display(), program.display());
        shell(&format!("PYTHONPATH='{packages}' python3 '{script}' '{program}'"), root)?;
    }
    Ok(())
}

/// Builds `diffuse` for CUDA with LLVM from PyPI, and runs it: without a GPU it has to end with a clear message.
fn link_cuda(root: &Path) -> anyhow::Result<()> {
    let variables = cuda::variables(root)?;
    shell(&format!("{variables} cargo build --package cli --bin diffuse --features cuda"), root)?;
    let program = std::env::current_exe()?.with_file_name("diffuse");
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

/// Checks the end of `diffuse train --device cuda --dry-run`, with or without a GPU.
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

/// Installs `packages` (arguments of pip) from PyPI, unless they are there, and returns their folder, inside that of `name`.
pub fn install(name: &str, packages: &str) -> anyhow::Result<PathBuf> {
    let first = packages.split(' ').next().unwrap_or_default();
    let folder = target_folder()?.join(name).join(first.replace("==", "-"));
    if !folder.join(".installed").is_file() {
        let to = folder.display();
        // pip does not repair an installation that was interrupted
        let line = format!(
            "rm -rf '{to}' && python3 -m pip install --quiet --target '{to}' {packages} && touch '{to}/.installed'"
        );
        shell(&line, Path::new("."))
            .with_context(|| format!("{first} comes from PyPI: this needs python3 with pip, and the network"))?;
    }
    Ok(folder)
}

/// The target directory, in which this program is. Absolute.
pub fn target_folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file())
        .map(Path::to_path_buf)
        .with_context(|| format!("{} is not in a target directory; run it as `cargo xtask`", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requested(arguments: &[&str]) -> Result<Vec<&'static str>, String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        chosen(&arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn all_steps_run_in_their_order_unless_some_are_chosen() {
        let all = [
            "format",
            "packages",
            "clippy",
            "docs",
            "tests",
            "avx2",
            "scalar",
            "wgpu",
            "dist",
            "tensorboard",
            "interchange",
            "mpi",
            "cuda-check",
            "licenses",
        ];
        assert_eq!(requested(&[]), Ok(all.to_vec()));
        let two = Ok(vec!["format", "docs"]);
        assert_eq!(requested(&["--only", "docs,format"]), two);
        assert_eq!(requested(&["--only=docs", "--only", "format"]), two);
        assert_eq!(requested(&["--only", "miri"]), Ok(vec!["miri"]));
        assert!(ON_DEMAND.iter().all(|name| STEPS.iter().any(|step| step.0 == *name && step.1.contains("if named"))));
    }

    #[test]
    fn wrong_requests_list_the_names() {
        let message = requested(&["--only", "formt"]).unwrap_err();
        assert!(message.contains("did you mean `format`?") && message.contains("licenses"), "{message}");
        assert!(requested(&["--only"]).unwrap_err().contains("cuda-check"));
        assert!(requested(&["--olny"]).unwrap_err().contains("did you mean `--only`?"));
        assert!(requested(&["--only", ""]).unwrap_err().contains("there is no step ``"));
    }

    #[test]
    fn more_packages_are_refused() {
        let tree =
            |count: usize| (0..count).map(|number| format!("package{number} v1.0.0 (*)\n\n")).collect::<String>();
        assert!(judge_packages(&tree(PACKAGES)).is_ok());
        // a package that is listed twice is one
        assert!(judge_packages(&tree(PACKAGES).repeat(2)).is_ok());
        let message = judge_packages(&tree(PACKAGES + PACKAGES / 10)).unwrap_err().to_string();
        assert!(message.contains(&(PACKAGES + PACKAGES / 10).to_string()) && message.contains("PACKAGES"), "{message}");
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
        assert!(shell("VARIABLE='a b' cargo --version", here).is_ok());
        for line in ["cargo no-such-subcommand", "no-such-program"] {
            let error = shell(line, here).unwrap_err();
            assert!(error.to_string().contains("ended with"), "{error}");
        }
    }
}
