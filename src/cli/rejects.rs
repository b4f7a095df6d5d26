//! `pipeline rejects`: the lines that no log type accepts, and another try once a type does.
use std::collections::HashSet;
use std::io::{self, Write};

use anyhow::{Context, ensure};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use clap::{Args, Subcommand};
use serde_json::json;

use super::archive::{ListFormat, unwrapped};
use super::columns::aligned;
use super::replay::{PlaceArgs, replay_where};
use super::{Exit, Global, places};
use crate::archive::{Holdings, OfArchive};
use crate::client::{PgConfig, is_postgres, redacted};
use crate::lake::Archive;
use crate::ledger::REJECTS;
use crate::model::ChunkRecord;
use crate::warehouse::Warehouse;

/// Chunks whose rejects are read at once.
const CHUNKS_AT_ONCE: usize = 256;
/// Characters of a line that a list shows.
const SHOWN: usize = 60;

/// Look at lines that no log type accepts, or decode them anew
#[derive(Debug, Subcommand)]
pub(super) enum RejectsCommand {
    /// List rejects: where they are from, why they are none of any type's rows, how they begin
    List(ListArgs),
    /// Show one reject whole
    Show(ShowArgs),
    /// Decode the chunks that have rejects anew, with the log types as they are now
    Replay(PlaceArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Archive, or postgres://..
    #[arg(long, value_name = "URL", default_value = super::DEFAULT_ARCHIVE)]
    into: String,
    /// Schema of Postgres
    #[arg(long, value_name = "NAME", default_value = "public")]
    schema: String,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Form of the list
    #[arg(long, value_enum, default_value_t)]
    output: ListFormat,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// As `list` names it: chunk and line
    #[arg(value_name = "CHUNK:LINE", allow_hyphen_values = true, value_parser = parse_id)]
    reject: (i64, i32),
    /// Archive, or postgres://..
    #[arg(long, value_name = "URL", default_value = super::DEFAULT_ARCHIVE)]
    into: String,
    /// Schema of Postgres
    #[arg(long, value_name = "NAME", default_value = "public")]
    schema: String,
}

/// Runs it.
pub(super) async fn run(command: RejectsCommand, global: &Global) -> anyhow::Result<Exit> {
    match command {
        RejectsCommand::List(args) => list(&args).await,
        RejectsCommand::Show(args) => show(&args).await,
        RejectsCommand::Replay(place) => replay_where("rejects > 0", &place, "rejects replay", global).await,
    }
}

/// A row of the table `rejects`.
#[derive(Debug)]
struct Kept {
    id: (i64, i32),
    piece: i32,
    offset: i64,
    file: String,
    column: i32,
    log_type: Option<String>,
    reason: String,
    bytes: Vec<u8>,
}

async fn list(args: &ListArgs) -> anyhow::Result<Exit> {
    let rejects =
        read(&places::location(&args.into, "rejects list")?, &args.schema, None, args.limit).await?;
    let mut out = io::stdout().lock();
    if args.output == ListFormat::Json {
        let rejects: Vec<_> = rejects.iter().map(to_json).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&rejects)?)?;
        return Ok(Exit::DONE);
    }
    let head = ["reject", "file", "offset", "nearest", "reason", "line"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(rejects.iter().map(|reject| {
        let text = String::from_utf8_lossy(&reject.bytes).escape_debug().to_string();
        let shown: String = text.chars().take(SHOWN).collect();
        let (chunk_id, line) = reject.id;
        vec![
            format!("{chunk_id}:{line}"),
            reject.file.clone(),
            reject.offset.to_string(),
            reject.log_type.clone().unwrap_or_default(),
            reject.reason.clone(),
            shown,
        ]
    }));
    write!(out, "{}", aligned(&rows))?;
    Ok(Exit::DONE)
}

async fn show(args: &ShowArgs) -> anyhow::Result<Exit> {
    let (chunk_id, line) = args.reject;
    let mut pieces =
        read(&places::location(&args.into, "rejects show")?, &args.schema, Some(chunk_id), usize::MAX)
            .await?;
    pieces.retain(|reject| reject.id == args.reject);
    pieces.sort_by_key(|reject| reject.piece);
    let first = pieces.first().with_context(|| {
        format!("there is no reject {chunk_id}:{line}; `pipeline rejects list` names those that there are")
    })?;
    let mut out = io::stdout().lock();
    writeln!(out, "file     {}", first.file)?;
    writeln!(out, "offset   {}", first.offset)?;
    writeln!(out, "reason   {}", first.reason)?;
    if let Some(log_type) = &first.log_type {
        writeln!(out, "nearest  {log_type}, which read up to byte {}", first.column)?;
    }
    out.write_all(b"line     ")?;
    for piece in &pieces {
        out.write_all(&piece.bytes)?;
    }
    writeln!(out)?;
    Ok(Exit::DONE)
}

async fn read(into: &str, schema: &str, chunk: Option<i64>, limit: usize) -> anyhow::Result<Vec<Kept>> {
    let place = &redacted(into);
    match is_postgres(into) {
        true => {
            let warehouse = Warehouse::open(PgConfig::parse(into)?, schema).await?;
            read_from(&warehouse, place, chunk, limit).await
        }
        false => read_from(&OfArchive::new(&Archive::open(into).await?), place, chunk, limit).await,
    }
}

async fn read_from(
    holdings: &dyn Holdings,
    place: &str,
    chunk: Option<i64>,
    limit: usize,
) -> anyhow::Result<Vec<Kept>> {
    let records = holdings.records().await.map_err(unwrapped)?;
    let is_asked_for = |record: &&ChunkRecord| chunk.is_none_or(|chunk| record.chunk_id == chunk);
    if records.iter().filter(is_asked_for).any(|of| of.parts_elsewhere().any(|table| table == REJECTS)) {
        tracing::warn!(
            "{place} has parts of chunks whose rejects went to another place; ask that one for them, with its --into"
        );
    }
    let with_rejects = records.iter().filter(|record| record.num_rejects > 0 || record.piece.is_some());
    let ids: Vec<i64> = match chunk {
        Some(chunk) => vec![chunk],
        None => with_rejects.map(|record| record.chunk_id).collect(),
    };
    let mut rejects = Vec::new();
    for ids in ids.chunks(CHUNKS_AT_ONCE) {
        let ids: HashSet<i64> = ids.iter().copied().collect();
        for rows in holdings.rows(REJECTS, &ids, None).await.map_err(unwrapped)? {
            rejects.extend((0..rows.num_rows()).filter_map(|row| kept(&rows, row)));
        }
        if rejects.len() >= limit {
            break;
        }
    }
    rejects.sort_by(|one, other| {
        (&one.file, one.offset, one.piece).cmp(&(&other.file, other.offset, other.piece))
    });
    rejects.truncate(limit);
    Ok(rejects)
}

fn kept(rows: &RecordBatch, row: usize) -> Option<Kept> {
    let int = |name: &str| Some(rows.column_by_name(name)?.as_primitive_opt::<Int32Type>()?.value(row));
    let long = |name: &str| Some(rows.column_by_name(name)?.as_primitive_opt::<Int64Type>()?.value(row));
    let text = |name: &str| {
        let column = rows.column_by_name(name)?.as_string_opt::<i32>()?;
        column.is_valid(row).then(|| column.value(row).to_owned())
    };
    Some(Kept {
        id: (long("chunk_id")?, int("line")?),
        piece: int("piece")?,
        offset: long("offset")?,
        file: text("file")?,
        column: int("column")?,
        log_type: text("log_type"),
        reason: text("reason")?,
        bytes: rows.column_by_name("bytes")?.as_binary_opt::<i32>()?.value(row).to_vec(),
    })
}

fn to_json(reject: &Kept) -> serde_json::Value {
    json!({
        "chunk_id": reject.id.0,
        "line": reject.id.1,
        "piece": reject.piece,
        "offset": reject.offset,
        "file": reject.file,
        "column": reject.column,
        "log_type": reject.log_type,
        "reason": reject.reason,
        "bytes": String::from_utf8_lossy(&reject.bytes),
    })
}

fn parse_id(text: &str) -> anyhow::Result<(i64, i32)> {
    let (chunk_id, line) =
        text.rsplit_once(':').context("write it as `pipeline rejects list` does, CHUNK:LINE")?;
    let (chunk_id, line) = (chunk_id.parse()?, line.parse()?);
    ensure!(line >= 0, "a line's number is not negative");
    Ok((chunk_id, line))
}
