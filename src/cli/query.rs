//! `pipeline query`: SQL over the archive, results on standard output.
//!
//! The log types come from the archive itself, which keeps the files that its rows were read with.
use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufWriter, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;

use super::{Exit, Global};
use crate::lake::{Archive, TableSnapshot};
use crate::log_type::{LogType, LogTypes};
use crate::query::{LogsBranch, OutputFormat, ResultPrinter, Session, TypeVersions};

/// Bytes of a result that are handed to standard output at once.
const WRITE_BYTES: usize = 64 * 1024;

/// Run SQL that reads the archive: one table per log type, rejects, blanks, chunks, and the view logs.
#[derive(Debug, Clone, Args)]
pub(super) struct QueryArgs {
    /// The statement, or several with `;` between them
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub(super) sql: Option<String>,
    /// Read the statements from this file (`-`: standard input)
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Archive to read
    #[arg(long, value_name = "URL", default_value = "./pipeline-data/archive")]
    pub(super) from: String,
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: OutputFormat,
}

impl QueryArgs {
    /// The SQL to run, before anything is opened for it.
    pub(super) fn text(&self) -> anyhow::Result<String> {
        match (&self.sql, &self.file) {
            (Some(sql), _) => Ok(sql.clone()),
            (None, Some(path)) if path == Path::new("-") => {
                let mut text = String::new();
                io::stdin().read_to_string(&mut text).context("cannot read SQL from standard input")?;
                Ok(text)
            }
            (None, Some(path)) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read SQL from {}", path.display())),
            (None, None) => {
                bail!("no SQL given; write `pipeline query \"SELECT ..\"` or `pipeline query -f FILE`")
            }
        }
    }
}

/// Runs the statements in order and prints each result. A reader that goes away ends it quietly.
pub(super) async fn run(args: QueryArgs, global: &Global) -> anyhow::Result<Exit> {
    let text = args.text()?;
    let session = open(&args.from, &global.log_types()?).await?;
    let queries = session.statements(&text)?;
    let stdout = io::stdout();
    if args.output == OutputFormat::Parquet {
        if stdout.is_terminal() {
            bail!("--output parquet is not for a terminal; redirect it to a file with `> FILE`");
        }
        if queries.len() > 1 {
            bail!("--output parquet takes one statement, there are {}; run them one by one", queries.len());
        }
    }
    let mut printer = ResultPrinter::new(args.output, BufWriter::with_capacity(WRITE_BYTES, stdout));
    for query in &queries {
        if !printer.print(session.run(query).await?).await? {
            break;
        }
    }
    Ok(Exit::DONE)
}

/// A session over the archive: a table per log type that it holds or that is declared, and the view `logs`.
async fn open(location: &str, declared: &LogTypes) -> anyhow::Result<Session> {
    let archive = Archive::open(location).await?;
    let mut tables = archive.tables().await?;
    let mut types = versions(&archive).await?;
    for log_type in declared.iter() {
        if !types.contains_key(log_type.name()) {
            let newest = Arc::clone(log_type);
            let versions = TypeVersions { newest, earlier: Vec::new(), earlier_chunks: HashMap::new() };
            types.insert(log_type.name().to_owned(), versions);
        }
        if !tables.iter().any(|table| table.name == log_type.name()) {
            tables.push(TableSnapshot::empty(&log_type.table)?);
        }
    }
    let sql_names =
        types.iter().map(|(name, of_type)| (name.clone(), of_type.newest.table.name.clone())).collect();
    let session = Session::try_new(Arc::clone(archive.store()), &tables, &sql_names)?;
    let branches: Vec<_> = types.into_values().map(LogsBranch::new).collect();
    session.define_logs(&branches).await?;
    Ok(session)
}

/// The log types that the archive's rows were read with, by name.
async fn versions(archive: &Archive) -> anyhow::Result<BTreeMap<String, TypeVersions>> {
    let mut chunks: BTreeMap<(String, String), Vec<i64>> = BTreeMap::new();
    let mut newest: BTreeMap<String, (i64, String)> = BTreeMap::new();
    for record in archive.records().await? {
        for (name, of_type) in record.types {
            chunks.entry((name.clone(), of_type.hash.clone())).or_default().push(record.chunk_id);
            let latest = newest.entry(name).or_insert((i64::MIN, String::new()));
            *latest = std::mem::take(latest).max((record.reference_time, of_type.hash));
        }
    }
    let mut versions: BTreeMap<String, TypeVersions> = BTreeMap::new();
    for (name, (_, hash)) in &newest {
        let newest = compile(archive, hash).await?;
        let of_type = TypeVersions { newest, earlier: Vec::new(), earlier_chunks: HashMap::new() };
        versions.insert(name.clone(), of_type);
    }
    for ((name, hash), chunk_ids) in chunks {
        if let Some(of_type) = versions.get_mut(&name)
            && of_type.newest.table.hash != hash
        {
            let version = of_type.earlier.len();
            of_type.earlier.push(compile(archive, &hash).await?);
            of_type.earlier_chunks.extend(chunk_ids.into_iter().map(|chunk_id| (chunk_id, version)));
        }
    }
    Ok(versions)
}

async fn compile(archive: &Archive, hash: &str) -> anyhow::Result<Arc<LogType>> {
    let text = archive.type_text(hash).await?;
    Ok(Arc::new(LogType::try_new(&format!("{hash} (kept in the archive)"), &text)?))
}
