//! `pipeline archive`: what an archive holds, and its sources written back as files.
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::columns::aligned;
use super::export::ExportArgs;
use super::places::expect_no_types;
use super::units::{bytes_text, parse_time, with_commas};
use super::{Exit, Global, UsageError};
use crate::archive::{ArchiveError, LineFilter, restore};
use crate::lake::{Archive, TableSnapshot};
use crate::model::Source;

mod compact;

/// What to do with an archive.
#[derive(Debug, Subcommand)]
pub(super) enum ArchiveCommand {
    /// List the tables: files, bytes, rows, bytes per line, days
    List(ListArgs),
    /// Make few large files of many small ones, beside readers and writers
    Compact(compact::CompactArgs),
    /// Copy sealed days from Postgres, prove them, and drop them there if asked to
    Export(ExportArgs),
    /// Write the sources back as files, byte for byte (compressed ones decompressed)
    Restore(RestoreArgs),
}

/// Flags of `list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Archive to read: a folder, s3://, gs:// or az://
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
#[command(
    after_help = "With --type, --from or --to a file holds only the lines asked for, as they were and in \
their order; without, it is the original byte for byte. Either way every byte read is compared with its hash first."
)]
pub(super) struct RestoreArgs {
    /// Only the sources with this path, or in this folder [default: all]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Archive to read: a folder, s3://, gs:// or az://
    #[arg(long, value_name = "URL", default_value = super::DEFAULT_ARCHIVE)]
    archive: String,
    /// Folder to write to; files keep their place below the folder that all of them share
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
    /// Only the lines of this log type; rejects and blanks are types here. Several times for several
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only the lines with event times from here on (RFC 3339, or a day)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<DateTime<Utc>>,
    /// Only the lines with event times before this (RFC 3339, or a day)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<DateTime<Utc>>,
}

impl RestoreArgs {
    fn filter(&self) -> anyhow::Result<LineFilter> {
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from >= to
        {
            return Err(UsageError(format!("--from {from} is not before --to {to}")).into());
        }
        let micros = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp_micros());
        let times = (self.from.is_some() || self.to.is_some())
            .then_some((micros(self.from).unwrap_or(i64::MIN), micros(self.to).unwrap_or(i64::MAX)));
        let types = (!self.types.is_empty()).then(|| self.types.iter().cloned().collect());
        Ok(LineFilter { types, times })
    }
}

/// Runs it.
pub(super) async fn run(command: ArchiveCommand, global: &Global) -> anyhow::Result<Exit> {
    let (ArchiveCommand::List(ListArgs { archive, .. })
    | ArchiveCommand::Compact(compact::CompactArgs { archive, .. })
    | ArchiveCommand::Export(ExportArgs { archive, .. })
    | ArchiveCommand::Restore(RestoreArgs { archive, .. })) = &command;
    expect_no_types("--archive", archive)?;
    match command {
        ArchiveCommand::List(args) => list(&args).await,
        ArchiveCommand::Compact(args) => compact::run(&args, global).await,
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
                    "bytes_per_line": bytes_per_line(table),
                    "days": num_days(table),
                    "first_day": days(table).map(|(first, _)| first),
                    "last_day": days(table).map(|(_, last)| last),
                })
            })
            .collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&tables)?)?;
        return Ok(Exit::DONE);
    }
    let head = ["table", "files", "bytes", "rows", "bytes/line", "days", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(tables.iter().map(|table| {
        let range = match days(table) {
            Some((first, last)) if first == last => first,
            Some((first, last)) => format!("{first} to {last}"),
            None => String::new(),
        };
        vec![
            table.name.clone(),
            with_commas(table.files.len() as u64),
            bytes_text(len_bytes(table)),
            with_commas(num_rows(table)),
            bytes_per_line(table).map(|bytes| format!("{bytes:.2}")).unwrap_or_default(),
            with_commas(num_days(table) as u64),
            range,
        ]
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

/// Bytes of its files per row; a row is a line.
fn bytes_per_line(table: &TableSnapshot) -> Option<f64> {
    (num_rows(table) > 0).then(|| len_bytes(table) as f64 / num_rows(table) as f64)
}

/// Distinct days of its partitions.
fn num_days(table: &TableSnapshot) -> usize {
    table.files.iter().filter_map(|file| file.day).collect::<BTreeSet<_>>().len()
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
    let filter = args.filter()?;
    let archive = Archive::open(&args.archive).await?;
    let tables = archive.tables().await?;
    if let Some(unknown) = args.types.iter().find(|name| !tables.iter().any(|table| table.name == **name)) {
        let names: Vec<_> =
            tables.iter().map(|table| table.name.as_str()).filter(|n| *n != "chunks").collect();
        let names = names.join(", ");
        return Err(UsageError(format!("the archive holds no type {unknown}; it holds {names}")).into());
    }
    let wanted_source = |source: &Source| is_wanted(Path::new(&source.path));
    let restored = restore(&archive, &args.out, args.force, &filter, wanted_source).await;
    let files = restored.map_err(unwrapped)?;
    if files.is_empty() {
        ensure!(filter.wants_all(), "the archive holds no such line; look with `pipeline query`");
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
