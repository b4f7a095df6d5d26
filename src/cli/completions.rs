//! `pipeline completions`: completion scripts.
use std::io::{self, Write};

use clap::{Args, Command};
use clap_complete::Shell;

use super::Exit;

/// Print a shell's completion script
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints it.
pub(super) fn run(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<Exit> {
    // it panics where it cannot write: a reader may be content with the first lines
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "pipeline", &mut script);
    io::stdout().write_all(&script)?;
    Ok(Exit::DONE)
}
