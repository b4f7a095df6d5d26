//! `pipeline completions`: completion scripts.
use std::io;

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
    clap_complete::generate(args.shell, &mut command, "pipeline", &mut io::stdout());
    Ok(Exit::DONE)
}
