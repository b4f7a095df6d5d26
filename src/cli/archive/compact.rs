//! `pipeline archive compact`: few large files in the place of many small ones.
use std::io::{self, Write};

use clap::Args;
use serde_json::json;

use super::super::columns::aligned;
use super::super::units::{bytes_text, with_commas};
use super::super::{DEFAULT_ARCHIVE, Exit, Global};
use super::{ListFormat, day_text};
use crate::lake::{Archive, ArchiveWriter, Compaction};

/// Flags of `compact`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CompactArgs {
    /// Archive to compact: a folder, s3://, gs:// or az://
    #[arg(long, value_name = "URL", default_value = DEFAULT_ARCHIVE)]
    pub(super) archive: String,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Form of the list
    #[arg(long, value_enum, default_value_t)]
    output: ListFormat,
}

/// Runs it.
pub(super) async fn run(args: &CompactArgs, global: &Global) -> anyhow::Result<Exit> {
    // nothing is created where there is no archive
    let archive = Archive::open(&args.archive).await?;
    let mut done = Vec::new();
    if args.dry_run {
        done = archive.plan_compaction().await?;
    } else {
        ArchiveWriter::try_new(&args.archive).await?.compact(|compaction| done.push(compaction)).await?;
    }
    let mut out = io::stdout().lock();
    match args.output {
        ListFormat::Json => {
            let done: Vec<_> = done.iter().map(to_json).collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&done)?)?;
        }
        ListFormat::Table if global.quiet => {}
        ListFormat::Table if done.is_empty() => writeln!(out, "nothing to compact")?,
        ListFormat::Table => write!(out, "{}", table(&done, args.dry_run))?,
    }
    Ok(Exit::DONE)
}

fn to_json(of: &Compaction) -> serde_json::Value {
    json!({
        "table": of.table,
        "day": of.day.map(day_text),
        "files": of.files,
        "rows": of.rows,
        "bytes": of.bytes,
        "bytes_after": of.bytes_after,
    })
}

fn table(done: &[Compaction], is_plan: bool) -> String {
    let head = ["table", "day", "files", "rows", "bytes", "after"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(done.iter().map(|of| {
        let after = match of.bytes_after {
            Some(bytes) => bytes_text(bytes),
            None if is_plan => String::new(),
            None => "left: another writer replaced some of them".to_owned(),
        };
        let day = of.day.map(day_text).unwrap_or_default();
        let files = with_commas(of.files as u64);
        vec![of.table.clone(), day, files, with_commas(of.rows), bytes_text(of.bytes), after]
    }));
    aligned(&rows)
}
