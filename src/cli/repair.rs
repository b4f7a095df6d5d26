//! `pipeline verify --repair`: reads again from the files what a database lost or holds wrongly.
//!
//! Invariants: nothing is taken away unless a file given still has the bytes that were read; files are read in blocks,
//! however long a gap is. Deliberately absent: repair of
//! an archive's data files, which are never changed; what an archive lacks altogether is shipped to it.
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use anyhow::Context;
use memchr::memchr_iter;
use sha2::{Digest, Sha256};

use super::archive::unwrapped;
use super::places::Place;
use super::run::ship;
use super::storage::StorageArgs;
use super::verify::{Identified, identified};
use super::{Global, print_error};
use crate::archive::{Finding, Holdings, Report};
use crate::client::{ClientError, PgConfig, is_postgres, redacted};
use crate::lake::Archive;
use crate::model::{ByteRange, ChunkRecord, chunk_id};
use crate::source::{CutOptions, SourceError};
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
        expect_wholes(location, &records)?;
        let ledger = warehouse.ledger().await.map_err(unwrapped)?;
        let (chunks, strays) = tokio::task::spawn_blocking({
            let (damaged, gaps, unknown) = (damaged(report, records), gaps(report), unknown(report));
            let paths = paths.to_vec();
            move || {
                // what could not be read was said when it was verified
                let (files, _failures) = identified(&paths, ledger);
                (readable(&files, damaged), strays(&files, &gaps, &unknown))
            }
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
    } else {
        expect_wholes(location, &Archive::open(location).await?.records().await?)?;
    }
    let storage = StorageArgs::for_repair(schema);
    let mut sinks = storage.open(vec![Place::of_all(location, &types)], &types).await?;
    let decoders = DecoderPool::new(types, storage.workers());
    let options = ReadOptions { cut: CutOptions::default(), ..ReadOptions::default() };
    ship(paths, &options, &decoders, &mut sinks, &Shutdown::new()).await?;
    for sink in &mut sinks {
        sink.finish().await?;
    }
    Ok(())
}

/// An error if a place has parts of chunks: what of them was decoded elsewhere would be decoded twice.
fn expect_wholes(location: &str, records: &[ChunkRecord]) -> Result<(), ClientError> {
    let Some(part) = records.iter().find(|record| record.is_part()) else { return Ok(()) };
    let reason = format!(
        "holds parts of chunks, such as that at byte {} of {}, and parts are not repaired; whole chunks that a place \
         lacks come by `pipeline run` with the same --into and #types=; where rows are lost inside a chunk, write the files \
         to other places",
        part.range.first_byte, part.source.path
    );
    Err(ClientError::BadUrl { location: redacted(location), reason })
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

/// Bytes that no chunk holds.
fn gaps(report: &Report) -> Vec<ByteRange> {
    let of_sources = report.sources.iter().flat_map(|source| {
        let source_id = source.source_id;
        source.findings.iter().filter_map(move |finding| match finding {
            Finding::Gap { first_byte, end_byte } => {
                Some(ByteRange { source_id, first_byte: *first_byte, end_byte: *end_byte })
            }
            // what follows the last chunk
            Finding::Unread { len_bytes } => {
                let first_byte = source.len_bytes;
                Some(ByteRange { source_id, first_byte, end_byte: first_byte + len_bytes })
            }
            _ => None,
        })
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
fn readable(files: &[Identified], chunks: Vec<ChunkRecord>) -> (Vec<ChunkRecord>, Vec<ChunkRecord>) {
    let ranges: Vec<ByteRange> = chunks.iter().map(|chunk| chunk.range).collect();
    let mut hashes: HashMap<ByteRange, (u64, Sha256)> = HashMap::new();
    each_block(files, &ranges, |range, _, block| {
        let (len_bytes, hash) = hashes.entry(*range).or_default();
        *len_bytes += block.len() as u64;
        hash.update(block);
    });
    chunks.into_iter().partition(|chunk| {
        let found = hashes.remove(&chunk.range);
        found.is_some_and(|(len_bytes, hash)| {
            len_bytes == chunk.range.len_bytes() && *hash.finalize() == chunk.content_sha256
        })
    })
}

/// Rows of a chunk without an entry belong to a gap if the chunk starts with one of the gap's lines, or where one
/// would be cut. Blocking.
fn strays(files: &[Identified], gaps: &[ByteRange], unknown: &HashSet<i64>) -> Vec<i64> {
    let mut strays = Vec::new();
    if unknown.is_empty() {
        return strays;
    }
    each_block(files, gaps, |gap, first_byte, block| {
        let starts = memchr_iter(b'\n', block).map(|newline| first_byte + newline as u64 + 1);
        let ids = std::iter::once(first_byte).chain(starts).map(|start| chunk_id(gap.source_id, start));
        strays.extend(ids.filter(|id| unknown.contains(id)));
    });
    strays
}

/// Hands over the bytes of `ranges` as the files have them now, decompressed: block by block, each with the range
/// that it is of and the offset of its first byte. What cannot be read is left out. Blocking.
fn each_block(files: &[Identified], ranges: &[ByteRange], mut each: impl FnMut(&ByteRange, u64, &[u8])) {
    for file in files {
        let mut wanted: Vec<&ByteRange> =
            ranges.iter().filter(|range| range.source_id == file.source().id).collect();
        wanted.sort_unstable_by_key(|range| range.first_byte);
        let Some(end_byte) = wanted.last().map(|range| range.end_byte) else { continue };
        // the reader leaves out what is committed: here, what is not asked for
        let starts = wanted.iter().map(|range| range.first_byte);
        let ends = std::iter::once(0).chain(wanted.iter().map(|range| range.end_byte));
        let committed = ends.zip(starts).filter(|(end, start)| end < start).collect();
        let read = || -> Result<(), SourceError> {
            let Some(mut reader) = file.without(committed)? else { return Ok(()) };
            while let Some(chunk) = reader.next_chunk()?.filter(|chunk| chunk.first_byte < end_byte) {
                let of_chunk = chunk.range();
                for range in wanted.iter().take_while(|range| range.first_byte < of_chunk.end_byte) {
                    let first = range.first_byte.max(of_chunk.first_byte);
                    let end = range.end_byte.min(of_chunk.end_byte);
                    if first < end {
                        let at = |byte: u64| (byte - of_chunk.first_byte) as usize;
                        each(range, first, &chunk.bytes[at(first)..at(end)]);
                    }
                }
            }
            Ok(())
        };
        if let Err(error) = read() {
            tracing::warn!("what cannot be read is not repaired: {error}");
        }
    }
}
