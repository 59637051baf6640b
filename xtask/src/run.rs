//! Building and running `diffuse`; tests and benchmarks.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::cargo::{self, Built, CommandLine};
use crate::{UsageError, unknown_name};

/// What `--backend` may be; `flex` is in the default build.
pub const BACKENDS: [&str; 6] = ["flex", "wgpu", "vulkan", "metal", "cuda", "rocm"];

/// `cargo xtask train|sample|…`: builds `diffuse` with the backend asked for and becomes it.
pub fn diffuse(task: &str, arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(task, arguments)?;
    let root = cargo::workspace_root()?;
    // The user's directory stays the current one, for cargo (its configuration and a relative target directory are
    // looked up from here) and for `diffuse` (paths among the arguments).
    match cargo::build(&plan.build(&root), Path::new("."), "diffuse")? {
        Built::Program(program) => cargo::become_program(Command::new(program).args(&plan.arguments)),
        Built::Failed(status) => Ok(cargo::exit_code(status)),
    }
}

/// `cargo xtask test`: every test of the workspace.
pub fn test(arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let root = cargo::workspace_root()?;
    let mut line = CommandLine::new("cargo", ["test", "--workspace"]);
    line.arguments.extend(manifest(&root));
    line.arguments.extend(arguments);
    cargo::become_program(&mut line.command())
}

/// `cargo xtask bench`: the program `bench` with these arguments.
pub fn bench(mut arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    if times_steps(&arguments) {
        arguments.insert(0, "step".into());
    }
    let root = cargo::workspace_root()?;
    // with `cli` beside it, cargo chooses the same features for the dependencies as everywhere else, and need not build
    // burn anew
    let packages = ["build", "--package", "cli", "--package", "bench", "--bin", "bench"];
    let mut line = CommandLine::new("cargo", packages);
    line.arguments.extend(manifest(&root));
    // it starts processes by mpirun, but for what it can say without
    if arguments.first().is_some_and(|name| name == "scaling") && !arguments.iter().any(|one| one == "--plan") {
        line.arguments.extend(["--features".into(), "bench/mpi".into()]);
    }
    match cargo::build(&line, Path::new("."), "bench")? {
        Built::Program(program) => cargo::become_program(Command::new(program).args(arguments)),
        Built::Failed(status) => Ok(cargo::exit_code(status)),
    }
}

/// Whether no benchmark is named, but the option that only `bench step` has.
fn times_steps(arguments: &[OsString]) -> bool {
    let text = |argument: &OsString| argument.to_string_lossy().into_owned();
    arguments.first().is_some_and(|first| text(first).starts_with("--"))
        && arguments.iter().any(|argument| text(argument).starts_with("--against-torch"))
}

fn manifest(root: &Path) -> [OsString; 2] {
    ["--manifest-path".into(), root.join("Cargo.toml").into()]
}

/// What to build, and what to tell `diffuse`.
#[derive(Debug, PartialEq)]
struct Plan {
    /// The cargo feature to add to the default ones.
    feature: Option<&'static str>,
    /// All arguments of `diffuse`, the command first.
    arguments: Vec<OsString>,
}

impl Plan {
    fn new(task: &str, arguments: Vec<OsString>) -> Result<Self, UsageError> {
        let (backend, rest) = split_backend(arguments)?;
        let mut arguments = vec![OsString::from(task)];
        let device = backend
            .filter(|_| !matches!(task, "config" | "generate" | "data" | "schedule") && !names_a_device(&rest))
            .map(|backend| [OsString::from("--device"), backend.into()]);
        // `edit` has commands of its own, which take the device
        let place = usize::from(task == "edit").min(rest.len());
        arguments.extend_from_slice(&rest[..place]);
        arguments.extend(device.into_iter().flatten());
        arguments.extend_from_slice(&rest[place..]);
        Ok(Self { feature: backend.filter(|backend| *backend != "flex"), arguments })
    }

    fn build(&self, root: &Path) -> CommandLine {
        let mut line = CommandLine::new("cargo", ["build", "--package", "cli", "--bin", "diffuse"]);
        line.arguments.extend(manifest(root));
        if let Some(feature) = self.feature {
            line.arguments.extend(["--features".into(), feature.into()]);
        }
        line
    }
}

/// Takes `--backend VALUE` or `--backend=VALUE` out of the arguments; what follows `--` is left alone.
fn split_backend(arguments: Vec<OsString>) -> Result<(Option<&'static str>, Vec<OsString>), UsageError> {
    let (mut backend, mut rest) = (None, vec![]);
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            rest.push(argument);
            rest.extend(arguments);
            break;
        }
        let value = if argument == "--backend" {
            let missing = || UsageError(format!("--backend needs a value: one of {}", BACKENDS.join(", ")));
            arguments.next().ok_or_else(missing)?.to_string_lossy().into_owned()
        } else if let Some(value) = argument.to_str().and_then(|text| text.strip_prefix("--backend=")) {
            value.to_owned()
        } else {
            rest.push(argument);
            continue;
        };
        let known = known_backend(&value)?;
        if let Some(earlier) = backend.replace(known) {
            return Err(UsageError(format!("--backend was given twice, as {earlier} and as {known}; give it once")));
        }
    }
    Ok((backend, rest))
}

fn known_backend(value: &str) -> Result<&'static str, UsageError> {
    BACKENDS.into_iter().find(|backend| *backend == value).ok_or_else(|| {
        let advice = format!("the backends are {}", BACKENDS.join(", "));
        unknown_name("backend", value, &BACKENDS, &advice)
    })
}

/// Whether the user chose the device: then the backend is only compiled in.
fn names_a_device(arguments: &[OsString]) -> bool {
    arguments
        .iter()
        .map(OsString::as_os_str)
        .take_while(|argument| *argument != OsStr::new("--"))
        .any(|argument| argument == "--device" || argument.to_string_lossy().starts_with("--device="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(task: &str, arguments: &[&str]) -> Result<(Option<&'static str>, Vec<String>), String> {
        Plan::new(task, arguments.iter().map(OsString::from).collect())
            .map(|plan| {
                let arguments = plan.arguments.into_iter().map(|one| one.into_string().unwrap()).collect();
                (plan.feature, arguments)
            })
            .map_err(|error| error.to_string())
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn without_a_backend_everything_goes_to_diffuse() {
        assert_eq!(plan("train", &[]), Ok((None, words("train"))));
        let arguments = ["--steps", "5", "--help", "-x"];
        assert_eq!(plan("sample", &arguments), Ok((None, words("sample --steps 5 --help -x"))));
    }

    #[test]
    fn a_backend_adds_a_feature_and_a_device() {
        let expected = Ok((Some("wgpu"), words("train --device wgpu --steps 5")));
        assert_eq!(plan("train", &["--backend", "wgpu", "--steps", "5"]), expected);
        assert_eq!(plan("train", &["--steps", "5", "--backend=wgpu"]), expected);
        for backend in &BACKENDS[1..] {
            let expected = Ok((Some(*backend), words(&format!("sample --device {backend} run"))));
            assert_eq!(plan("sample", &["run", "--backend", backend]), expected);
        }
        assert_eq!(plan("train", &["--backend", "flex"]), Ok((None, words("train --device flex"))));
    }

    #[test]
    fn the_device_goes_to_the_command_of_edit() {
        let expected = Ok((Some("wgpu"), words("edit vary --device wgpu run x")));
        assert_eq!(plan("edit", &["--backend", "wgpu", "vary", "run", "x"]), expected);
        assert_eq!(plan("edit", &["--backend", "wgpu"]), Ok((Some("wgpu"), words("edit --device wgpu"))));
    }

    #[test]
    fn a_comparison_with_torch_needs_no_name() {
        let asked = |arguments: &[&str]| times_steps(&arguments.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(asked(&["--against-torch", "python"]) && asked(&["--json", "--against-torch=python"]));
        assert!(!asked(&["step", "--against-torch", "python"]) && !asked(&["--help"]) && !asked(&[]));
    }

    #[test]
    fn a_device_of_the_user_stays() {
        let expected = Ok((Some("cuda"), words("train --device cuda:1")));
        assert_eq!(plan("train", &["--backend", "cuda", "--device", "cuda:1"]), expected);
        let expected = Ok((Some("cuda"), words("train --device=flex")));
        assert_eq!(plan("train", &["--device=flex", "--backend=cuda"]), expected);
    }

    #[test]
    fn commands_without_a_device_get_none() {
        for task in ["data", "schedule"] {
            assert_eq!(plan(task, &["--backend", "wgpu", "x"]), Ok((Some("wgpu"), words(&format!("{task} x")))));
        }
    }

    #[test]
    fn what_follows_two_dashes_is_left_alone() {
        let expected = Ok((None, words("train -- --backend nonsense")));
        assert_eq!(plan("train", &["--", "--backend", "nonsense"]), expected);
        let expected = Ok((Some("wgpu"), words("train --device wgpu -- --device")));
        assert_eq!(plan("train", &["--backend", "wgpu", "--", "--device"]), expected);
    }

    #[test]
    fn wrong_backends_are_errors_that_list_the_six() {
        for arguments in [&["--backend", "opengl"][..], &["--backend=opengl"], &["--backend"], &["--backend", ""]] {
            let message = plan("train", arguments).unwrap_err();
            assert!(message.contains("flex, wgpu, vulkan, metal, cuda, rocm"), "{message}");
        }
        let message = plan("train", &["--backend", "wpgu"]).unwrap_err();
        assert!(message.contains("there is no backend `wpgu`; did you mean `wgpu`?"), "{message}");
        let message = plan("train", &["--backend", "wgpu", "--backend=cuda"]).unwrap_err();
        assert!(message.contains("twice, as wgpu and as cuda"), "{message}");
    }

    #[test]
    fn the_build_names_the_workspace_and_the_feature() {
        let plan = Plan::new("train", vec!["--backend=rocm".into()]).unwrap();
        let expected = "cargo build --package cli --bin diffuse --manifest-path /project/Cargo.toml --features rocm";
        assert_eq!(plan.build(Path::new("/project")).to_string(), expected);
        let plan = Plan::new("train", vec!["--backend=flex".into()]).unwrap();
        assert!(!plan.build(Path::new("/project")).to_string().contains("--features"));
    }
}
