//! `diffuse completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{Arguments, print_result};

#[derive(Args)]
pub struct CompletionsArguments {
    /// The shell
    shell: Shell,
}

pub fn run(arguments: CompletionsArguments) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "diffuse", &mut script);
    print_result(String::from_utf8_lossy(&script).trim_end())
}
