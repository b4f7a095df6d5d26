//! What an archive takes, and what the six questions take of it when DataFusion answers them.
//!
//! Each answer is by a new session, so that it pays for footers too. CPU is this process's: it should do nothing else.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use object_store::ObjectStore;
use serde::{Deserialize, Serialize};

use super::process::{ProcStat, mean_cpu_seconds};
use super::{BenchError, Question};
use crate::lake::Archive;
use crate::ledger::CHUNKS;
use crate::log_type::LogTypes;
use crate::query::{CountedStore, Counter, QueryError, Session};

/// What is in an archive.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ArchiveSize {
    /// Bytes of every file, logs and ledger included.
    pub bytes: u64,
    /// Commits of lines.
    pub groups: u64,
    /// Tables that hold rows, the ledger included.
    pub tables: u64,
    /// Live data files.
    pub data_files: u64,
}

/// What it took to answer once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AnswerUse {
    /// The question.
    pub name: String,
    /// Rows of the answer.
    pub rows: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Requests to the object store.
    pub requests: u64,
    /// CPU of all threads.
    pub cpu_seconds: f64,
}

/// Looks at the archive in this folder.
pub async fn archive_size(folder: &Path) -> Result<ArchiveSize, BenchError> {
    let tables = Archive::open(&folder.to_string_lossy()).await?.tables().await?;
    let ledger = tables.iter().find(|table| table.name == CHUNKS);
    Ok(ArchiveSize {
        bytes: bytes_below(folder)?,
        // version 0 makes the table
        groups: ledger.map_or(0, |table| u64::try_from(table.version).unwrap_or_default()),
        tables: tables.iter().filter(|table| !table.files.is_empty()).count() as u64,
        data_files: tables.iter().map(|table| table.files.len() as u64).sum(),
    })
}

/// Asks the archive at `location` each question.
pub async fn ask_archive(
    location: &str,
    types: &LogTypes,
    questions: &[Question],
) -> Result<Vec<AnswerUse>, BenchError> {
    let archive = Archive::open(location).await?;
    let tables = archive.tables().await?;
    let names: BTreeMap<_, _> =
        types.iter().map(|of| (of.name().to_owned(), of.table.name.clone())).collect();
    let counter = Arc::new(Counter::default());
    let store: Arc<dyn ObjectStore> = Arc::new(CountedStore::new(
        Arc::clone(archive.store()),
        archive.url().as_str(),
        Arc::clone(&counter),
    ));
    let mut used = Vec::new();
    for question in questions {
        let ask = async || {
            let session = Session::try_new(Arc::clone(&store), &tables, &names)?;
            let mut answer = session.sql(question.sql.trim_end().trim_end_matches(';')).await?;
            let mut rows = 0;
            while let Some(batch) = answer.next().await {
                rows += batch.map_err(QueryError::from)?.num_rows() as u64;
            }
            Ok::<u64, BenchError>(rows)
        };
        // the files are in memory then, whatever was asked before
        ask().await?;
        counter.take();
        let rows = ask().await?;
        let (bytes, requests) = counter.take();
        let cpu_seconds = mean_cpu_seconds(own_cpu_seconds, async || ask().await.map(drop)).await?;
        used.push(AnswerUse { name: question.name.to_owned(), rows, bytes, requests, cpu_seconds });
    }
    Ok(used)
}

fn own_cpu_seconds() -> Result<f64, BenchError> {
    ProcStat::read(std::process::id()).map(|stat| stat.own_cpu_seconds).ok_or(BenchError::NoClock {
        of: "this program",
        remedy: "the system must have a /proc with process times",
    })
}

/// Bytes of all files below a folder.
fn bytes_below(folder: &Path) -> Result<u64, BenchError> {
    let fail = || BenchError::io(format!("list {}", folder.display()));
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(fail())? {
        let entry = entry.map_err(fail())?;
        let found = entry.metadata().map_err(fail())?;
        bytes += if found.is_dir() { bytes_below(&entry.path())? } else { found.len() };
    }
    Ok(bytes)
}
