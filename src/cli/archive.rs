//! `pipeline archive`: what an archive holds, and its sources written back as files.
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::columns::aligned;
use super::export::ExportArgs;
use super::units::{bytes_text, with_commas};
use super::{Exit, Global};
use crate::archive::{ArchiveError, restore};
use crate::lake::{Archive, TableSnapshot};

/// What to do with an archive.
#[derive(Debug, Subcommand)]
pub(super) enum ArchiveCommand {
    /// List the tables: files, bytes, rows, days
    List(ListArgs),
    /// Copy sealed days from Postgres, prove them, and drop them there if asked to
    Export(ExportArgs),
    /// Write the sources back as files, byte for byte (compressed ones decompressed)
    Restore(RestoreArgs),
}

/// Flags of `list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Archive to read: a folder or file:// URL
    #[arg(long, value_name = "URL", default_value = super::DEFAULT_ARCHIVE)]
    archive: String,
    /// Form of the list
    #[arg(long, value_enum, default_value_t)]
    output: ListFormat,
}

/// Form of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum ListFormat {
    #[default]
    Table,
    Json,
}

/// Flags of `restore`.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// Only the sources with this path, or in this folder [default: all]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Archive to read: a folder or file:// URL
    #[arg(long, value_name = "URL", default_value = super::DEFAULT_ARCHIVE)]
    archive: String,
    /// Folder to write to; files keep their place below the folder that all of them share
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
}

/// Runs it.
pub(super) async fn run(command: ArchiveCommand, global: &Global) -> anyhow::Result<Exit> {
    match command {
        ArchiveCommand::List(args) => list(&args).await,
        ArchiveCommand::Export(args) => super::export::run(&args, global).await,
        ArchiveCommand::Restore(args) => write_back(&args, global).await,
    }
}

/// The archive's own errors decide the exit code.
pub(super) fn unwrapped(error: ArchiveError) -> anyhow::Error {
    match error {
        ArchiveError::Lake(error) => error.into(),
        ArchiveError::LogType(error) => error.into(),
        ArchiveError::Warehouse(error) => error.into(),
        other => other.into(),
    }
}

async fn list(args: &ListArgs) -> anyhow::Result<Exit> {
    let tables = Archive::open(&args.archive).await?.tables().await?;
    let mut out = io::stdout().lock();
    if args.output == ListFormat::Json {
        let tables: Vec<_> = tables
            .iter()
            .map(|table| {
                json!({
                    "table": table.name,
                    "files": table.files.len(),
                    "bytes": len_bytes(table),
                    "rows": num_rows(table),
                    "first_day": days(table).map(|(first, _)| first),
                    "last_day": days(table).map(|(_, last)| last),
                })
            })
            .collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&tables)?)?;
        return Ok(Exit::DONE);
    }
    let mut rows = vec![["table", "files", "bytes", "rows", "days"].map(str::to_owned).to_vec()];
    rows.extend(tables.iter().map(|table| {
        let days = match days(table) {
            Some((first, last)) if first == last => first,
            Some((first, last)) => format!("{first} to {last}"),
            None => String::new(),
        };
        let num_files = with_commas(table.files.len() as u64);
        vec![table.name.clone(), num_files, bytes_text(len_bytes(table)), with_commas(num_rows(table)), days]
    }));
    write!(out, "{}", aligned(&rows))?;
    Ok(Exit::DONE)
}

fn len_bytes(table: &TableSnapshot) -> u64 {
    table.files.iter().map(|file| file.size_bytes).sum()
}

fn num_rows(table: &TableSnapshot) -> u64 {
    table.files.iter().map(|file| file.num_rows).sum()
}

/// A day, counted from 1970-01-01, as people write it.
pub(super) fn day_text(day: i32) -> String {
    let (year, month, day) = crate::log_type::timestamp::date_from_days(day.into());
    format!("{year:04}-{month:02}-{day:02}")
}

/// First and last day of its partitions.
fn days(table: &TableSnapshot) -> Option<(String, String)> {
    let days = || table.files.iter().filter_map(|file| file.day);
    Some((day_text(days().min()?), day_text(days().max()?)))
}

async fn write_back(args: &RestoreArgs, global: &Global) -> anyhow::Result<Exit> {
    let wanted: Vec<PathBuf> = args.paths.iter().map(std::path::absolute).collect::<Result<_, _>>()?;
    let is_wanted = |path: &Path| {
        let named = args.paths.iter().any(|wanted| path == wanted);
        wanted.is_empty() || named || wanted.iter().any(|wanted| path.starts_with(wanted))
    };
    let archive = Archive::open(&args.archive).await?;
    let files = restore(&archive, &args.out, args.force, |source| is_wanted(Path::new(&source.path)))
        .await
        .map_err(unwrapped)?;
    if files.is_empty() {
        ensure!(
            !args.paths.is_empty(),
            "{}: the archive holds no source yet; fill it with `pipeline run`",
            args.archive
        );
        bail!(
            "{}: the archive holds no source of that path; list them with `pipeline verify`",
            args.paths[0].display()
        );
    }
    let mut exit = Exit::DONE;
    for file in &files {
        for finding in &file.findings {
            super::print_error(&format!(
                "{}: {finding}; {} is not written",
                file.source.path,
                file.path.display()
            ))?;
            exit = Exit::SOME_FAILED;
        }
    }
    if !global.quiet {
        let whole = || files.iter().filter(|file| file.findings.is_empty());
        let bytes = bytes_text(whole().map(|file| file.len_bytes).sum());
        let num_files = with_commas(whole().count() as u64);
        writeln!(io::stdout(), "restored {num_files} files, {bytes}, to {}", args.out.display())?;
    }
    Ok(exit)
}
