//! `pipeline verify --repair`: reads again from the files what a database lost or holds wrongly.
//!
//! Invariant: nothing is taken away unless the file still has the bytes that were read. Deliberately absent: repair of
//! an archive's data files, which are never changed; what an archive lacks altogether is shipped to it.
use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::Context;
use memchr::memchr_iter;
use sha2::{Digest, Sha256};

use super::run::ship;
use super::storage::{StorageArgs, is_postgres};
use super::{Global, print_error};
use crate::archive::{Finding, Report};
use crate::client::PgConfig;
use crate::model::{ChunkRecord, chunk_id};
use crate::source::CutOptions;
use crate::stage::processor::DecoderPool;
use crate::stage::reader::ReadOptions;
use crate::stage::shutdown::Shutdown;
use crate::warehouse::Warehouse;

/// Mends what `report` found, as far as the files at `paths` allow.
pub(super) async fn repair(
    location: &str,
    schema: &str,
    paths: &[PathBuf],
    report: &Report,
    global: &Global,
) -> anyhow::Result<()> {
    let types = global.log_types()?;
    if is_postgres(location) {
        let warehouse = Warehouse::try_new(PgConfig::parse(location)?, schema, &types).await?;
        let records = warehouse.records("true").await?;
        let (chunks, strays) = tokio::task::spawn_blocking({
            let (damaged, gaps, unknown) = (damaged(report, records), gaps(report), unknown(report));
            move || (readable(damaged), strays(&gaps, &unknown))
        })
        .await
        .context("read the files")?;
        for lost in &chunks.1 {
            print_error(&format!(
                "{}: bytes {} to {} are not in the file any more as they were read; they stay as they are",
                lost.source.path, lost.range.first_byte, lost.range.end_byte
            ))?;
        }
        warehouse.take_away(&chunks.0, &strays).await?;
    }
    let storage = StorageArgs::for_repair(schema);
    let mut sinks = storage.open(&[location.to_owned()], &types).await?;
    let decoders = DecoderPool::new(types, storage.workers());
    let options = ReadOptions { cut: CutOptions::default(), ..ReadOptions::default() };
    ship(paths, &options, &decoders, &mut sinks, &Shutdown::new()).await?;
    for sink in &mut sinks {
        sink.finish().await?;
    }
    Ok(())
}

/// The chunks whose rows are not what the ledger says.
fn damaged(report: &Report, records: Vec<ChunkRecord>) -> Vec<ChunkRecord> {
    let places: HashSet<(u64, u64)> = (report.sources.iter())
        .flat_map(|source| source.findings.iter().map(move |finding| (source.source_id, finding)))
        .filter_map(|(id, finding)| match finding {
            Finding::Count { first_byte, .. }
            | Finding::Content { first_byte, .. }
            | Finding::Accounting { first_byte, .. } => Some((id, *first_byte)),
            _ => None,
        })
        .collect();
    let is_damaged =
        |record: &ChunkRecord| places.contains(&(record.range.source_id, record.range.first_byte));
    records.into_iter().filter(is_damaged).collect()
}

/// Path, source and bytes that no chunk holds.
fn gaps(report: &Report) -> Vec<(PathBuf, u64, u64, u64)> {
    let of_sources = report.sources.iter().flat_map(|source| {
        let path = PathBuf::from(&source.path);
        let gaps = source.findings.iter().filter_map(move |finding| match finding {
            Finding::Gap { first_byte, end_byte } => {
                Some((path.clone(), source.source_id, *first_byte, *end_byte))
            }
            // what follows the last chunk
            Finding::Unread { len_bytes } => {
                let first = source.len_bytes;
                Some((path.clone(), source.source_id, first, first + len_bytes))
            }
            _ => None,
        });
        gaps.collect::<Vec<_>>()
    });
    of_sources.collect()
}

fn unknown(report: &Report) -> HashSet<i64> {
    let ids = report.findings.iter().filter_map(|finding| match finding {
        Finding::UnknownChunk { chunk_id, .. } => Some(*chunk_id),
        _ => None,
    });
    ids.collect()
}

/// Chunks that the files still have, and those they have not. Blocking.
fn readable(chunks: Vec<ChunkRecord>) -> (Vec<ChunkRecord>, Vec<ChunkRecord>) {
    chunks.into_iter().partition(|chunk| {
        let range = chunk.range;
        let bytes = read(&PathBuf::from(&chunk.source.path), range.first_byte, range.end_byte);
        bytes.is_some_and(|bytes| *Sha256::digest(bytes) == chunk.content_sha256)
    })
}

/// Rows of a chunk without an entry belong to a gap if the chunk starts with one of the gap's lines. Blocking.
fn strays(gaps: &[(PathBuf, u64, u64, u64)], unknown: &HashSet<i64>) -> Vec<i64> {
    let mut strays = Vec::new();
    for (path, source_id, first, end) in gaps.iter().filter(|_| !unknown.is_empty()) {
        let Some(bytes) = read(path, *first, *end) else { continue };
        let starts = memchr_iter(b'\n', &bytes).map(|newline| first + newline as u64 + 1);
        let ids = std::iter::once(*first).chain(starts).map(|start| chunk_id(*source_id, start));
        strays.extend(ids.filter(|id| unknown.contains(id)));
    }
    strays
}

fn read(path: &PathBuf, first_byte: u64, end_byte: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(end_byte - first_byte).ok()?];
    File::open(path).ok()?.read_exact_at(&mut bytes, first_byte).ok()?;
    Some(bytes)
}
