//! The tasks of the project: `cargo xtask help` lists them.
//!
//! It spawns cargo and the programs that cargo built, and knows no heavy dependency, so that it compiles in a second.

mod cargo;
mod ci;
mod names;
mod run;

use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;

const USAGE: &str = "\
The tasks of the project.

Build and run `diffuse` (arguments that are not listed here go to it; add --help to see its own):
  cargo xtask train     [--backend BACKEND] [...]   train a model; without an argument, on handwritten digits
  cargo xtask doctor    [--backend BACKEND] [...]   what will go wrong in a training, and how long it takes
  cargo xtask sample    [--backend BACKEND] [...]   draw pictures from a trained model
  cargo xtask edit      [--backend BACKEND] [...]   interpolate, vary or inpaint pictures
  cargo xtask evaluate  [--backend BACKEND] [...]   how good, varied and new a model's pictures are
  cargo xtask nll       [--backend BACKEND] [...]   how likely pictures are under a model
  cargo xtask plan      [--backend BACKEND] [...]   find the best sampler within a time
  cargo xtask average   [--backend BACKEND] [...]   a longer or shorter average of a run's weights
  cargo xtask classifier [--backend BACKEND] [...]  train a classifier of noised images, to guide with
  cargo xtask config    [...]                       where each value of a configuration comes from; begin a file
  cargo xtask generate  [...]                       completions of a shell, manual pages
  cargo xtask data      [--backend BACKEND] [...]   fetch or inspect a data set
  cargo xtask schedule  [--backend BACKEND] [...]   draw or print noise schedules
      BACKEND is flex (the CPU; default), wgpu, vulkan, metal, cuda or rocm: it is compiled in, and train, doctor,
      sample, edit, evaluate, nll, plan, average and classifier use it unless --device says otherwise.

Work on the project:
  cargo xtask test  [...]                run every test (cargo test --workspace)
  cargo xtask bench NAME [...]           run a benchmark, such as quality or ops
  cargo xtask ci [--only NAME[,NAME]]    run the checks of continuous integration, stopping at the first failure
  cargo xtask ci --list                  print their names
  cargo xtask help                       print this
";

const TASKS: [&str; 17] = [
    "train",
    "doctor",
    "sample",
    "edit",
    "evaluate",
    "nll",
    "plan",
    "average",
    "classifier",
    "config",
    "generate",
    "data",
    "schedule",
    "test",
    "bench",
    "ci",
    "help",
];

fn main() -> ExitCode {
    match dispatch(std::env::args_os().skip(1).collect()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<UsageError>() { 2 } else { 1 })
        }
    }
}

fn dispatch(mut arguments: Vec<OsString>) -> anyhow::Result<ExitCode> {
    if arguments.is_empty() {
        eprint!("{USAGE}");
        return Ok(ExitCode::from(2));
    }
    let task = arguments.remove(0);
    match task.to_string_lossy().as_ref() {
        task @ ("train" | "doctor" | "sample" | "edit" | "evaluate" | "nll" | "plan" | "average" | "classifier"
        | "config" | "generate" | "data" | "schedule") => run::diffuse(task, arguments),
        "test" => run::test(arguments),
        "bench" => run::bench(arguments),
        "ci" => ci::main(&arguments),
        "help" | "--help" | "-h" => {
            cargo::print(USAGE)?;
            Ok(ExitCode::SUCCESS)
        }
        unknown => Err(unknown_name("task", unknown, &TASKS, "`cargo xtask help` lists them").into()),
    }
}

/// The user asked for something that does not exist; the exit code is 2.
#[derive(Debug)]
struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// "there is no task `tarin`; did you mean `train`? ..."
fn unknown_name(what: &str, unknown: &str, known: &[&str], advice: &str) -> UsageError {
    let nearest: Vec<String> = names::nearest(unknown, known).into_iter().map(|name| format!("`{name}`")).collect();
    let guess = if nearest.is_empty() { String::new() } else { format!(" did you mean {}?", nearest.join(" or ")) };
    UsageError(format!("there is no {what} `{unknown}`;{guess} {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(arguments: &[&str]) -> anyhow::Error {
        dispatch(arguments.iter().map(OsString::from).collect()).unwrap_err()
    }

    #[test]
    fn an_unknown_task_names_the_nearest() {
        let error = error_of(&["tarin"]);
        assert!(error.is::<UsageError>());
        assert!(error.to_string().contains("there is no task `tarin`; did you mean `train`?"), "{error}");
        let error = error_of(&["xylophone"]);
        assert!(!error.to_string().contains("did you mean"), "{error}");
        assert!(error.to_string().contains("cargo xtask help"), "{error}");
    }

    #[test]
    fn the_usage_names_every_task_and_backend() {
        for name in TASKS.iter().chain(run::BACKENDS.iter()) {
            assert!(USAGE.contains(name), "{name}");
        }
        assert!(USAGE.lines().all(|line| line.len() <= 120));
    }
}
