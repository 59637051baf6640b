//! Commands that do not inherit the variables of `cargo run`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;

const CANNOT_START: &str = "cannot start cargo; is it installed and on the PATH?";

/// A command without the variables in which `cargo run` describes this package: build scripts that read them, such as
/// the one of `ring`, would run again, and with them the build of what depends on it.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.to_string_lossy().starts_with(start)) {
            command.env_remove(name);
        }
    }
    command
}

/// The subcommand of cargo for this workspace; the current directory stays that of the user, from which cargo looks up its
/// configuration and programs look up files.
pub fn subcommand(name: &str) -> Command {
    let mut command = command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    command.arg(name).arg("--manifest-path").arg(workspace_root().join("Cargo.toml"));
    command
}

/// The root of the workspace, in which the folder of this package is.
pub fn workspace_root() -> PathBuf {
    // cargo tells it at run time, so that a moved checkout is found
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&package).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Runs cargo in place of this program, so that exit code and signals pass through; on other systems than Unix, waits for it.
pub fn replace_with(cargo: &mut Command) -> anyhow::Result<ExitCode> {
    #[cfg(unix)]
    return Err(std::os::unix::process::CommandExt::exec(cargo)).context(CANNOT_START);
    #[cfg(not(unix))]
    {
        let code = cargo.status().context(CANNOT_START)?.code();
        Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_found() {
        assert!(workspace_root().join("xtask/src/main.rs").is_file());
    }

    #[test]
    fn the_variables_of_this_package_are_not_inherited() {
        let removed: Vec<_> =
            command("true").get_envs().map(|(name, value)| (name.to_owned(), value.is_some())).collect();
        assert!(removed.contains(&("CARGO_PKG_NAME".into(), false)), "{removed:?}");
        assert!(removed.contains(&("CARGO_MANIFEST_DIR".into(), false)), "{removed:?}");
    }
}
