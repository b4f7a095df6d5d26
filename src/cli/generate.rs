//! `pipeline generate`: writes standard test data to files.
//!
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

use super::{Exit, Global};
use crate::generate::{FileSet, Generator, LineType, STANDARD_TYPES};

/// Write generated log lines to files logs_0000.log ..; the same seed gives the same bytes everywhere.
#[derive(Debug, Clone, Args)]
pub(super) struct GenerateArgs {
    /// Folder to write to; made if need be
    #[arg(long, value_name = "DIR", default_value = "data/logs")]
    pub(super) out: PathBuf,
    /// Number of files
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) files: u32,
    /// Lines in each file
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(super) lines: u64,
    /// Seed of the random stream
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(super) seed: u64,
    /// Log types to generate lines of [default: the built-in ones]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(super) types: Vec<String>,
    /// Replace files that exist
    #[arg(long)]
    pub(super) force: bool,
}

/// Writes the files.
pub(super) fn run(args: &GenerateArgs, global: &Global) -> anyhow::Result<Exit> {
    let log_types = global.log_types()?;
    let names: Vec<&str> = match args.types.is_empty() {
        true => STANDARD_TYPES.to_vec(),
        false => args.types.iter().map(String::as_str).collect(),
    };
    let mut types = Vec::with_capacity(names.len());
    for name in names {
        match log_types.get(name).and_then(|log_type| LineType::of(log_type)) {
            Some(line_type) => types.push(line_type?),
            None => {
                let with_table = log_types.iter().filter(|log_type| log_type.generate.is_some());
                let known: Vec<&str> = with_table.map(|log_type| log_type.name()).collect();
                bail!(
                    "--types {name}: no log type of that name has a [generate] table; there are {}",
                    known.join(", ")
                );
            }
        }
    }
    let mut generator = Generator::try_new(&types, args.seed)?;
    let set =
        FileSet { out: args.out.clone(), files: args.files, lines_per_file: args.lines, force: args.force };
    let generated = set.write(&mut generator).context("generate")?;
    tracing::info!(
        files = generated.num_files,
        lines = generated.num_lines,
        bytes = generated.len_bytes,
        out = %args.out.display(),
        "generated"
    );
    Ok(Exit::DONE)
}
