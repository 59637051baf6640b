//! Calling cargo, and becoming another program.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, bail};

/// A program with its arguments and environment, which can be run, and shown as a line for a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// Variables set for this program only.
    pub environment: Vec<(OsString, OsString)>,
    /// The program; `cargo` stands for the cargo that runs this task.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl CommandLine {
    /// `program` with `arguments`.
    pub fn new<Argument: Into<OsString>>(
        program: impl Into<OsString>,
        arguments: impl IntoIterator<Item = Argument>,
    ) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { environment: vec![], program: program.into(), arguments }
    }

    /// The same with a variable set.
    pub fn with_variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The command, ready to run in the current directory; cargo is the one named by `$CARGO`.
    pub fn command(&self) -> Command {
        let program = if self.program == "cargo" { cargo() } else { self.program.clone() };
        let mut command = Command::new(program);
        command.args(&self.arguments);
        if self.program == "cargo" {
            // What `cargo run` told this program about itself is not for the packages built from here.
            for (name, _) in std::env::vars_os() {
                let shown = name.to_string_lossy();
                if shown.starts_with("CARGO_PKG_") || shown.starts_with("CARGO_MANIFEST_") || shown == "OUT_DIR" {
                    command.env_remove(&name);
                }
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl fmt::Display for CommandLine {
    /// As one would type it into a shell.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.environment {
            write!(formatter, "{}={} ", name.to_string_lossy(), quoted(value))?;
        }
        formatter.write_str(&quoted(&self.program))?;
        for argument in &self.arguments {
            write!(formatter, " {}", quoted(argument))?;
        }
        Ok(())
    }
}

/// `word` in quotes where a shell would otherwise change it.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./=:,@+%".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The cargo that runs this task.
fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The root of the workspace: where this package's folder lies.
pub fn workspace_root() -> anyhow::Result<PathBuf> {
    // At run time from cargo, so that a moved checkout is found; else as it was compiled.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let root = Path::new(&package).parent().map(Path::to_path_buf).unwrap_or_default();
    if !root.join("Cargo.toml").is_file() {
        bail!("there is no Cargo.toml in {}; run this task as `cargo xtask` in the project", root.display());
    }
    Ok(root)
}

/// What came of a build.
pub enum Built {
    /// The program's path.
    Program(PathBuf),
    /// Cargo failed, and has said why.
    Failed(ExitStatus),
}

/// Runs `build`, a `cargo build` without `--message-format`, and returns where it put the program `name`.
/// Cargo's progress and messages go to stderr.
pub fn build(build: &CommandLine, directory: &Path, name: &str) -> anyhow::Result<Built> {
    let mut build = build.clone();
    build.arguments.push("--message-format=json-render-diagnostics".into());
    let mut child = build
        .command()
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{build}`; is cargo installed and on the PATH?"))?;
    let mut program = None;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line.with_context(|| format!("cannot read what `{build}` says"))?;
            program = executable(&line, name).or(program);
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{build}`"))?;
    if !status.success() {
        return Ok(Built::Failed(status));
    }
    match program {
        Some(program) => Ok(Built::Program(program)),
        None => bail!("`{build}` did not say where it put `{name}`; run it by hand to see why"),
    }
}

/// The path of the program `name`, if this line of cargo's JSON messages says where it is.
fn executable(line: &str, name: &str) -> Option<PathBuf> {
    if !line.contains(r#""reason":"compiler-artifact""#) {
        return None;
    }
    let path = string_after(line, r#""executable":""#)?;
    let stem = Path::new(&path).file_stem()?;
    (stem == name).then(|| PathBuf::from(&path))
}

/// The JSON string that begins after `key` (which ends with the opening quote), without its escapes.
fn string_after(line: &str, key: &str) -> Option<String> {
    let start = line.find(key)? + key.len();
    let mut letters = line[start..].chars();
    let mut text = String::new();
    loop {
        match letters.next()? {
            '"' => return Some(text),
            '\\' => match letters.next()? {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'b' => text.push('\u{8}'),
                'f' => text.push('\u{c}'),
                'u' => {
                    let digits: String = letters.by_ref().take(4).collect();
                    text.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                }
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
}

/// Runs the command in place of this program, or, where the system cannot do that, waits for it: its exit code is ours,
/// and signals and Ctrl-C reach it.
pub fn become_program(command: &mut Command) -> anyhow::Result<ExitCode> {
    let shown = command.get_program().to_string_lossy().into_owned();
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        Err(anyhow::Error::from(command.exec()).context(format!("cannot start {shown}")))
    }
    #[cfg(not(unix))]
    {
        let status = command.status().with_context(|| format!("cannot start {shown}"))?;
        Ok(exit_code(status))
    }
}

/// A program's exit code as ours; 128 + the signal's number where a signal ended it, as shells say it.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    ExitCode::from(exit_number(status))
}

fn exit_number(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        if let Some(signal) = status.signal() {
            return u8::try_from(128 + signal).unwrap_or(1);
        }
    }
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Writes `text` to stdout; a reader that has gone away is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_a_shell_takes_it() {
        let line =
            CommandLine::new("cargo", ["clippy", "--", "-D", "it's here", ""]).with_variable("RUSTDOCFLAGS", "-D x");
        assert_eq!(line.to_string(), r"RUSTDOCFLAGS='-D x' cargo clippy -- -D 'it'\''s here' ''");
    }

    #[test]
    fn the_program_is_found_in_cargos_messages() {
        let line = |executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///a#cli@0.1.0","target":{{"kind":["bin"],"name":"diffuse"}},"filenames":["/a"],"executable":{executable},"fresh":true}}"#
            )
        };
        let found = |executable: &str| executable_path(&line(executable));
        fn executable_path(line: &str) -> Option<PathBuf> {
            executable(line, "diffuse")
        }
        assert_eq!(found(r#""/target dir/debug/diffuse""#), Some(PathBuf::from("/target dir/debug/diffuse")));
        assert_eq!(found(r#""/a\\b\"\u00e9/diffuse""#), Some(PathBuf::from("/a\\b\"é/diffuse")));
        assert_eq!(found(r#""/target/debug/build-script""#), None);
        assert_eq!(found("null"), None);
        assert_eq!(found(r#""/target/debug/diffuse"#), None, "cut off");
        assert_eq!(executable_path(r#"{"reason":"build-finished","success":true}"#), None);
        let other = line(r#""/target/debug/diffuse""#).replace("compiler-artifact", "compiler-message");
        assert_eq!(executable_path(&other), None);
    }

    #[cfg(unix)]
    #[test]
    fn exit_codes_pass_through() {
        for (script, expected) in [("exit 0", 0), ("exit 3", 3), ("exit 130", 130), ("kill -TERM $$", 143)] {
            let status = Command::new("sh").args(["-c", script]).status().unwrap();
            assert_eq!(exit_number(status), expected, "{script}");
        }
    }

    #[test]
    fn the_workspace_is_found() {
        assert!(workspace_root().unwrap().join("xtask/src/main.rs").is_file());
    }
}
