//! The tasks of the project: `cargo xtask help` lists them.
//!
//! They start cargo and other programs; without heavy dependencies, so that this compiles in seconds.

mod cargo;
mod ci;
mod cuda;
mod dist;
mod gpu_kit;
mod run;

use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// The commands of `diffuse` that xtask builds and runs, and what they do.
const COMMANDS: [(&str, &str); 16] = [
    ("train", "train a model; without an argument, on handwritten digits"),
    ("doctor", "predict problems, time and memory of a training"),
    ("sample", "draw pictures from a trained model"),
    ("edit", "interpolate, vary or inpaint pictures"),
    ("evaluate", "judge quality, variety and novelty of a model's pictures"),
    ("nll", "measure the likelihood of pictures under a model"),
    ("plan", "find the best sampler within a time"),
    ("average", "make a longer or shorter average of a run's weights"),
    ("classifier", "train a classifier of noised images, for guidance"),
    ("import", "make a model of a file of another system"),
    ("export", "write a model in a format of another system"),
    ("config", "show where each value of a configuration comes from; begin a file"),
    ("completions", "print the completions of a shell"),
    ("man", "write manual pages"),
    ("data", "fetch or inspect a dataset"),
    ("schedule", "draw or print noise schedules"),
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
        eprint!("{}", usage());
        return Ok(ExitCode::from(2));
    }
    let task = arguments.remove(0);
    match task.to_string_lossy().as_ref() {
        "test" => run::test(arguments),
        "bench" => run::bench(arguments),
        "ci" => ci::main(&arguments),
        "dist" => dist::main(&arguments),
        "gpu-kit" => gpu_kit::main(&arguments),
        "help" | "--help" | "-h" => print(&usage()),
        task => {
            let commands = COMMANDS.map(|(name, _)| name);
            let tasks = [&commands[..], &["generate", "test", "bench", "ci", "dist", "gpu-kit", "help"]].concat();
            run::diffuse(known("task", task, &tasks)?, arguments)
        }
    }
}

fn usage() -> String {
    let commands: String = COMMANDS.iter().map(|(name, about)| format!("  cargo xtask {name:<13}{about}\n")).collect();
    format!(
        "\
The tasks of the project.

Build and run `diffuse` (its arguments follow; add --help to see them):
{commands}      --backend flex|wgpu|vulkan|metal|cuda|rocm compiles a backend in, besides flex (the CPU), and is the --device
      of the commands that have one, if none is given.

Work on the project:
  cargo xtask test         run every test (cargo test --workspace)
  cargo xtask bench NAME   run a benchmark, such as quality or ops
  cargo xtask ci           run the checks of continuous integration; --list lists them, --only NAME[,NAME] chooses
  cargo xtask dist         pack `diffuse` as a wheel, an archive and a Debian package (--profile, --out FOLDER)
  cargo xtask gpu-kit      pack checks and measurements of a GPU for another machine (--backend, --out FOLDER)
  cargo xtask help         print this
"
    )
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// A name or an option that does not exist; the exit code is 2.
#[derive(Debug)]
struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// The one of `names` that is `name`; `kind` is what they are, in the singular.
///
/// # Errors
/// An unknown name; the message has the nearest one.
fn known(kind: &str, name: &str, names: &[&'static str]) -> Result<&'static str, UsageError> {
    if let Some(known) = names.iter().find(|known| **known == name) {
        return Ok(known);
    }
    let typo = |known: &&&str| strsim::osa_distance(name, known);
    let nearest = names.iter().min_by_key(typo).filter(|known| typo(known) <= name.chars().count().max(2) / 2);
    let guess = nearest.map(|known| format!(" did you mean `{known}`?")).unwrap_or_default();
    Err(UsageError(format!("there is no {kind} `{name}`;{guess} the {kind}s are {}", names.join(", "))))
}

/// The options of a task, as in `--name value` or `--name=value`; a value that is missing is empty.
///
/// # Errors
/// An option that is not among `names`.
fn options(arguments: &[OsString], names: &[&'static str]) -> Result<Vec<(&'static str, String)>, UsageError> {
    let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
    let mut options = Vec::new();
    while let Some(argument) = arguments.next() {
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) => (option, value.to_owned()),
            None => (&argument[..], arguments.next().unwrap_or_default()),
        };
        options.push((known("option", option, names)?, value));
    }
    Ok(options)
}

/// The values of `option`, one of `choices` (the first if it is not given), and of `--out`; `kind` is what the choices are, in the
/// singular.
fn choice_and_folder(
    arguments: &[OsString],
    option: &'static str,
    kind: &str,
    choices: &[&'static str],
) -> Result<(&'static str, Option<PathBuf>), UsageError> {
    let (mut choice, mut out) = (choices[0], None);
    for (name, value) in options(arguments, &[option, "--out"])? {
        match name {
            "--out" if value.is_empty() => return Err(UsageError("--out needs a folder".to_owned())),
            "--out" => out = Some(value.into()),
            _ => choice = known(kind, &value, choices)?,
        }
    }
    Ok((choice, out))
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
        assert!(error.to_string().contains("train, doctor, sample"), "{error}");
    }

    #[test]
    fn only_names_within_half_of_the_letters_are_near() {
        let guess = |name: &str| known("name", name, &["train", "test", "sample"]).unwrap_err().to_string();
        assert!(guess("trian").contains("`train`?") && guess("tast").contains("`test`?"));
        assert!(!guess("xyz").contains("did you mean"));
        assert_eq!(known("name", "test", &["train", "test"]).unwrap(), "test");
    }

    #[test]
    fn the_usage_names_every_backend_and_fits_a_terminal() {
        let usage = usage();
        for name in run::BACKENDS {
            assert!(usage.contains(name), "{name}");
        }
        assert!(usage.lines().all(|line| line.len() <= 120));
    }
}
