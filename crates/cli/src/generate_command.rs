//! `diffuse generate`: completions and manual pages.

use std::path::PathBuf;

use anyhow::Context;
use clap::{CommandFactory, Subcommand};
use clap_complete::Shell;
use files::{create_folder, write_atomically};

use crate::{Arguments, print_result};

#[derive(Subcommand)]
pub enum GenerateCommand {
    /// Print the completions of a shell, as in: diffuse generate completions bash > ~/.local/share/bash-completion/completions/diffuse
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write a manual page for each command, as in: diffuse generate man ~/.local/share/man/man1
    Man {
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

pub fn run(command: GenerateCommand) -> anyhow::Result<()> {
    let mut program = Arguments::command();
    match command {
        GenerateCommand::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut program, "diffuse", &mut script);
            print_result(String::from_utf8_lossy(&script).trim_end())
        }
        GenerateCommand::Man { folder } => {
            create_folder(&folder)?;
            program.build();
            write_pages(&program, &folder)
        }
    }
}

/// The page of a command and those of the commands below it.
fn write_pages(command: &clap::Command, folder: &std::path::Path) -> anyhow::Result<()> {
    let page = clap_mangen::Man::new(command.clone());
    let path = folder.join(page.get_filename());
    let mut text = Vec::new();
    page.render(&mut text).context("cannot make the manual page")?;
    write_atomically(&path, &text)?;
    print_result(path.display())?;
    command
        .get_subcommands()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help")
        .try_for_each(|command| write_pages(command, folder))
}
