//! `diffuse man`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Command, CommandFactory};
use files::{create_folder, write_atomically};

use crate::{Arguments, print_result};

#[derive(Args)]
pub struct ManArguments {
    /// The folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub fn run(arguments: ManArguments) -> anyhow::Result<()> {
    create_folder(&arguments.folder)?;
    let mut program = Arguments::command();
    program.build();
    write_pages(&program, &arguments.folder)
}

/// Writes the page of a command and those of its subcommands.
fn write_pages(command: &Command, folder: &Path) -> anyhow::Result<()> {
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
