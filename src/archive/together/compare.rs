//! Puts the lines of parts together, and compares them with what was read.
//!
//! A line is told by its number in a run of bytes. Lines that no part has are taken from a place that has all of the
//! run, if what that place has is what it read; then every part has to give as many lines as its ledger says.
//! Invariant: memory holds one batch of runs, about [`BATCH_BYTES`] of source bytes, and as much of whole places.
use std::collections::{BTreeMap, HashMap, HashSet};

use memchr::memchr_iter;
use sha2::{Digest, Sha256};

use super::super::content::{BATCH_BYTES, Content, Lines};
use super::super::verify::is_damage;
use super::super::{ArchiveError, Finding, Holdings, LineFilter};
use super::Cluster;
use crate::ledger::{BLANKS, REJECTS};
use crate::model::{ByteRange, ChunkRecord, LineEnding};

/// An entry of a place's ledger: the place, and the bytes.
pub(super) type Entry = (usize, ByteRange);

/// What places have all of and can give back, by place, ascending.
#[derive(Debug)]
pub(super) struct Wholes<'a>(Vec<Vec<&'a ChunkRecord>>);

impl<'a> Wholes<'a> {
    pub(super) async fn of(
        places: &[(String, &dyn Holdings)],
        ledgers: &'a [Vec<ChunkRecord>],
    ) -> Result<Self, ArchiveError> {
        let mut wholes = Vec::with_capacity(places.len());
        for ((_, holdings), records) in places.iter().zip(ledgers) {
            let moved = holdings.moved_chunks().await?;
            let is_whole = |record: &&ChunkRecord| !record.is_part() && !moved.contains(&record.chunk_id);
            let mut of_place: Vec<&ChunkRecord> = records.iter().filter(is_whole).collect();
            of_place.sort_by_key(|record| record.range);
            wholes.push(of_place);
        }
        Ok(Self(wholes))
    }

    /// The entries that have all of `range`, of the first place that has.
    fn over(&self, range: &ByteRange) -> Option<Vec<(usize, &'a ChunkRecord)>> {
        self.0.iter().enumerate().find_map(|(place, records)| {
            let is_before = |record: &&ChunkRecord| {
                (record.range.source_id, record.range.end_byte) <= (range.source_id, range.first_byte)
            };
            let behind = &records[records.partition_point(is_before)..];
            let over: Vec<_> = behind.iter().take_while(|record| record.range.overlaps(range)).collect();
            let is_from_start = over.first()?.range.first_byte <= range.first_byte;
            let is_to_end = over.last()?.range.end_byte >= range.end_byte;
            let has_no_gap = over.windows(2).all(|pair| pair[0].range.end_byte == pair[1].range.first_byte);
            (is_from_start && is_to_end && has_no_gap)
                .then(|| over.into_iter().map(|record| (place, *record)).collect())
        })
    }
}

/// Entries whose lines can be put together.
#[derive(Debug)]
pub(super) struct Run<'a> {
    cluster: &'a Cluster<'a>,
    /// Entries of a place that has all of it; none where the parts do.
    whole: Vec<(usize, &'a ChunkRecord)>,
}

impl<'a> Run<'a> {
    /// `None` where lines are lacking, or cannot be told by their numbers.
    pub(super) fn of(cluster: &'a Cluster<'a>, wholes: &Wholes<'a>) -> Option<Self> {
        let whole = match cluster.is_complete() {
            true => Vec::new(),
            false => wholes.over(&cluster.range)?,
        };
        let is_piece = cluster.all().any(|(_, record)| record.piece.is_some());
        let is_cut_alike = cluster.all().all(|(_, record)| record.range == cluster.range);
        // without the bytes, lines are counted from the start
        let are_numbered = !whole.is_empty()
            || cluster.entries.values().all(|records| {
                let ends = records.iter().map(|record| record.range.end_byte);
                let starts = std::iter::once(cluster.range.first_byte).chain(ends);
                records.iter().map(|record| record.range.first_byte).eq(starts.take(records.len()))
            });
        // pieces of over-long lines count no lines
        ((!is_piece || is_cut_alike) && are_numbered).then_some(Self { cluster, whole })
    }

    /// The bytes of it, of the entries of the whole place.
    fn bytes(&self, wholes: &BTreeMap<Entry, Vec<u8>>) -> Option<Vec<u8>> {
        let range = &self.cluster.range;
        let mut bytes = Vec::with_capacity(range.len_bytes() as usize);
        for (place, record) in &self.whole {
            let of = record.range;
            let at = |byte: u64| (byte.clamp(of.first_byte, of.end_byte) - of.first_byte) as usize;
            let of_entry = wholes.get(&(*place, of))?;
            bytes.extend_from_slice(of_entry.get(at(range.first_byte)..at(range.end_byte))?);
        }
        Some(bytes)
    }

    /// Which entries of parts the lines, given for each in the order of the cluster, are not the bytes of; with the bytes
    /// of the run, where a whole place gives those.
    fn differing(&self, lines: Vec<Lines>, bytes: Option<&[u8]>) -> Vec<Finding> {
        let cluster = self.cluster;
        let (mut all, mut entries) = (Vec::new(), Vec::new());
        let mut ends: HashMap<usize, u64> = HashMap::new();
        for ((place, record), lines) in cluster.all().zip(lines) {
            let first = match bytes {
                None => ends.get(&place).copied().unwrap_or(0),
                Some(bytes) => {
                    let before = (record.range.first_byte - cluster.range.first_byte) as usize;
                    memchr_iter(b'\n', &bytes[..before]).count() as u64
                }
            };
            let end = first + record.num_lines;
            ends.insert(place, end);
            let is_crlf = record.line_ending == LineEnding::CrLf;
            let before = all.len();
            for (line, bytes, is_kept) in lines.each() {
                all.push((first + u64::from(line.cast_unsigned()), bytes.to_vec(), is_crlf && !is_kept));
            }
            // what is lost here would be filled up
            let has_all = bytes.is_none() || (all.len() - before) as u64 == num_kept(record);
            entries.push((record, first..end, has_all));
        }
        if let Some(bytes) = bytes {
            let given: HashSet<u64> = all.iter().map(|(line, ..)| *line).collect();
            let of_run = (0..).zip(bytes.split_inclusive(|byte| *byte == b'\n'));
            let lacking = of_run.filter(|(line, _)| !given.contains(line));
            all.extend(
                lacking
                    .map(|(line, bytes)| (line, bytes.strip_suffix(b"\n").unwrap_or(bytes).to_vec(), false)),
            );
        }
        all.sort_by_key(|(line, ..)| *line);
        let ends = cluster.all().find(|(_, record)| record.range.end_byte == cluster.range.end_byte);
        let has_final_newline = ends.is_none_or(|(_, record)| record.final_newline);
        let last = all.len().saturating_sub(1);
        for (position, (_, bytes, is_crlf)) in all.iter_mut().enumerate() {
            if position < last || has_final_newline {
                bytes.extend_from_slice(if *is_crlf { b"\r\n" } else { b"\n" });
            }
        }
        let mut findings = Vec::new();
        for (record, lines, has_all) in entries {
            let ByteRange { first_byte, end_byte, .. } = record.range;
            // a piece of an over-long line is an entry by itself, and may count no line
            let is_of = |line: u64| record.range == cluster.range || lines.contains(&line);
            let mut hash = Sha256::new();
            all.iter().filter(|(line, ..)| is_of(*line)).for_each(|(_, bytes, _)| hash.update(bytes));
            let finding = Finding::Content { first_byte, end_byte };
            let is_same = has_all && <[u8; 32]>::from(hash.finalize()) == record.content_sha256;
            if !is_same && !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        findings
    }

    fn entries(&self) -> Vec<Entry> {
        let all = self.cluster.all().chain(self.whole.iter().copied());
        all.map(|(place, record)| (place, record.range)).collect()
    }
}

/// Lines of a part's chunk that its place keeps.
fn num_kept(record: &ChunkRecord) -> u64 {
    match record.piece {
        Some(_) => u64::from(record.is_to_have(REJECTS)),
        None => {
            let tables = record.types.keys().map(String::as_str).chain([REJECTS, BLANKS]);
            tables.map(|table| record.rows_in(table)).sum()
        }
    }
}

/// A part that is not what was read.
#[derive(Debug)]
pub(super) struct Differing {
    /// Its source.
    pub(super) path: String,
    pub(super) finding: Finding,
    /// What it was put together from.
    pub(super) entries: Vec<Entry>,
}

/// Puts the lines of runs together, some at once, and compares them with what was read. Returns how many it could
/// compare, and what differs.
pub(super) async fn compare(
    places: &[(String, &dyn Holdings)],
    runs: &[Run<'_>],
) -> Result<(u64, Vec<Differing>), ArchiveError> {
    let filter = LineFilter::default();
    let mut contents: Vec<Content<'_>> = (places.iter())
        .map(|(_, holdings)| Content { holdings: *holdings, filter: &filter, types: HashMap::new() })
        .collect();
    let (mut compared, mut differing) = (0, Vec::new());
    let mut rest = runs;
    while !rest.is_empty() {
        let mut len_bytes = 0;
        let fits = rest.iter().take_while(|run| {
            len_bytes += run.cluster.range.len_bytes();
            len_bytes <= BATCH_BYTES
        });
        let (batch, behind) = rest.split_at(fits.count().max(1));
        rest = behind;
        let mut lines: BTreeMap<Entry, Lines> = BTreeMap::new();
        let mut wholes: BTreeMap<Entry, Vec<u8>> = BTreeMap::new();
        for (place, content) in contents.iter_mut().enumerate() {
            let of_place = batch.iter().flat_map(|run| run.cluster.entries.get(&place));
            let records: Vec<&ChunkRecord> = of_place.flatten().copied().collect();
            let of_records = content.lines(&records, None).await?;
            lines.extend(records.iter().map(|record| (place, record.range)).zip(of_records));
            // one may be of several runs
            let of_place = batch.iter().flat_map(|run| &run.whole).filter(|(of, _)| *of == place);
            let records: BTreeMap<ByteRange, &ChunkRecord> =
                of_place.map(|(_, record)| (record.range, *record)).collect();
            let records: Vec<&ChunkRecord> = records.into_values().collect();
            let of_records = match content.lines(&records, None).await {
                // which is found where that place is looked at by itself
                Err(error) if is_damage(&error) => continue,
                read => read?,
            };
            for (record, lines) in records.into_iter().zip(of_records) {
                let (bytes, _all) = lines.into_bytes(record);
                if *Sha256::digest(&bytes) == record.content_sha256 {
                    wholes.insert((place, record.range), bytes);
                }
            }
        }
        for run in batch {
            let bytes = match run.whole.is_empty() {
                true => None,
                false => match run.bytes(&wholes) {
                    Some(bytes) => Some(bytes),
                    None => continue,
                },
            };
            let keys = run.cluster.all().map(|(place, record)| (place, record.range));
            let of_run = keys.map(|key| lines.remove(&key).unwrap_or_default()).collect();
            compared += 1;
            differing.extend(run.differing(of_run, bytes.as_deref()).into_iter().map(|finding| Differing {
                path: run.cluster.source.path.clone(),
                finding,
                entries: run.entries(),
            }));
        }
    }
    Ok((compared, differing))
}
