//! Runs `diffuse`, the tests and the benchmarks.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use crate::{UsageError, cargo, known};

/// The values of `--backend`; `flex` is in the default build.
pub const BACKENDS: [&str; 6] = ["flex", "wgpu", "vulkan", "metal", "cuda", "rocm"];

/// `cargo xtask train|sample|…`: builds `diffuse` with the backend of `--backend` and becomes it.
pub fn diffuse(task: &str, arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let (backend, arguments) = with_device(task, arguments)?;
    let mut run = cargo::subcommand("run");
    run.args(["--package", "cli", "--bin", "diffuse", "--features", backend, "--", task]);
    cargo::replace_with(run.args(arguments))
}

/// `cargo xtask test`: every test of the workspace.
pub fn test(arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    cargo::replace_with(cargo::subcommand("test").arg("--workspace").args(arguments))
}

/// `cargo xtask bench`: the program `bench` with these arguments.
pub fn bench(arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    cargo::replace_with(&mut benchmark(arguments))
}

fn benchmark(mut arguments: Vec<OsString>) -> Command {
    let is_option = |argument: &OsString| argument.to_string_lossy().starts_with("--");
    if arguments.first().is_some_and(is_option) && place(&arguments, "--against-torch").is_some() {
        arguments.insert(0, "step".into());
    }
    let mut run = cargo::subcommand("run");
    run.args(["--package", "bench", "--bin", "bench"]);
    // it starts processes with mpirun, except for its plan
    if arguments.first().is_some_and(|name| name == "scaling") && place(&arguments, "--plan").is_none() {
        run.args(["--features", "mpi"]);
    }
    run.arg("--").args(arguments);
    run
}

/// Takes `--backend VALUE` or `--backend=VALUE` out of the arguments of a command of `diffuse`, and returns it with the
/// others, to which `--device VALUE` is added if the command has that option and the user gave none.
fn with_device(task: &str, mut arguments: Vec<OsString>) -> Result<(&'static str, Vec<OsString>), UsageError> {
    let Some(at) = place(&arguments, "--backend") else { return Ok(("flex", arguments)) };
    let option = arguments.remove(at).to_string_lossy().into_owned();
    let value = match option.split_once('=') {
        Some((_, value)) => value.to_owned(),
        None if at < arguments.len() => arguments.remove(at).to_string_lossy().into_owned(),
        None => String::new(),
    };
    let backend = known("backend", &value, &BACKENDS)?;
    if place(&arguments, "--backend").is_some() {
        return Err(UsageError("--backend is given twice; give it once".to_owned()));
    }
    let has_device = !matches!(task, "config" | "completions" | "man" | "data" | "schedule");
    if has_device && place(&arguments, "--device").is_none() {
        let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
        arguments.splice(end..end, ["--device".into(), backend.into()]);
    }
    Ok((backend, arguments))
}

/// The index of the option `name`, alone or with `=VALUE`, among the arguments before `--`.
fn place(arguments: &[OsString], name: &str) -> Option<usize> {
    let mut options =
        arguments.iter().map(|argument| argument.to_string_lossy()).take_while(|argument| argument != "--");
    options.position(|argument| argument.split('=').next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    /// The backend, and the arguments of `diffuse`.
    fn passed(task: &str, arguments: &str) -> Result<(&'static str, String), String> {
        let (backend, arguments) = with_device(task, words(arguments)).map_err(|error| error.to_string())?;
        Ok((backend, arguments.join(&OsString::from(" ")).into_string().unwrap()))
    }

    #[test]
    fn without_a_backend_every_argument_goes_to_diffuse() {
        assert_eq!(passed("train", ""), Ok(("flex", String::new())));
        let arguments = "--steps 5 --help -x";
        assert_eq!(passed("sample", arguments), Ok(("flex", arguments.to_owned())));
    }

    #[test]
    fn a_backend_adds_a_feature_and_a_device() {
        for backend in BACKENDS {
            for arguments in [format!("--backend {backend} --steps 5"), format!("--steps 5 --backend={backend}")] {
                let expected = Ok((backend, format!("--steps 5 --device {backend}")));
                assert_eq!(passed("train", &arguments), expected);
            }
        }
    }

    #[test]
    fn the_device_goes_to_the_command_of_edit() {
        let expected = Ok(("wgpu", "vary run x --device wgpu".to_owned()));
        assert_eq!(passed("edit", "--backend wgpu vary run x"), expected);
    }

    #[test]
    fn a_device_of_the_user_stays() {
        for device in ["--device cuda:1", "--device=flex"] {
            assert_eq!(passed("train", &format!("--backend cuda {device}")), Ok(("cuda", device.to_owned())));
        }
    }

    #[test]
    fn commands_without_a_device_get_none() {
        for task in ["data", "schedule", "config", "completions", "man"] {
            assert_eq!(passed(task, "--backend wgpu x"), Ok(("wgpu", "x".to_owned())));
        }
    }

    #[test]
    fn arguments_after_two_dashes_are_unchanged() {
        let arguments = "-- --backend nonsense";
        assert_eq!(passed("train", arguments), Ok(("flex", arguments.to_owned())));
        let expected = Ok(("wgpu", "--device wgpu -- --device".to_owned()));
        assert_eq!(passed("train", "--backend wgpu -- --device"), expected);
    }

    #[test]
    fn wrong_backends_are_errors_that_list_the_six() {
        for arguments in ["--backend opengl", "--backend=opengl", "--backend", "--backend="] {
            let message = passed("train", arguments).unwrap_err();
            assert!(message.contains("flex, wgpu, vulkan, metal, cuda, rocm"), "{message}");
        }
        let message = passed("train", "--backend wpgu").unwrap_err();
        assert!(message.contains("there is no backend `wpgu`; did you mean `wgpu`?"), "{message}");
        let message = passed("train", "--backend wgpu --backend=cuda").unwrap_err();
        assert!(message.contains("twice"), "{message}");
    }

    #[test]
    fn benchmarks_that_need_mpi_or_a_name_get_it() {
        let line = |arguments: &str| {
            let run = benchmark(words(arguments));
            let arguments: Vec<_> = run.get_args().skip(3).map(|one| one.to_string_lossy()).collect();
            arguments.join(" ")
        };
        let program = "--package bench --bin bench";
        assert_eq!(line("ops --json"), format!("{program} -- ops --json"));
        assert_eq!(line("scaling"), format!("{program} --features mpi -- scaling"));
        assert_eq!(line("scaling --plan"), format!("{program} -- scaling --plan"));
        assert_eq!(line("--json --against-torch=python"), format!("{program} -- step --json --against-torch=python"));
        assert_eq!(line("step --against-torch python"), format!("{program} -- step --against-torch python"));
    }
}
