//! Proves that nothing is lost and nothing is there twice.
//!
//! First that an archive's files are those that were committed, by their hashes. Then by the ledger alone: ranges
//! follow each other from the first byte, lines are rows + rejects + blanks.
//! Counting and comparing content read the tables too, each once. A writer may commit between the two: what
//! the tables have more, or have in a longer form, is held against the ledger as it is then.
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{ArchiveError, Finding, Holdings, SourceChunks, content};
use crate::lake::LakeError;
use crate::model::{ByteRange, Source};

/// What to check besides the ledger.
#[derive(Debug, Clone, Copy, Default)]
pub struct Checks {
    /// Count the rows of every table by chunk.
    pub count: bool,
    /// Render every line and compare the hash of every chunk.
    pub content: bool,
}

/// A file as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenFile {
    /// Its path.
    pub path: String,
    /// The source it is.
    pub source_id: u64,
    /// Its (decompressed) bytes that the ledger lacks.
    pub unread_bytes: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Sources by path; only those of the given files, if files were given.
    pub sources: Vec<SourceReport>,
    /// What belongs to none of them.
    pub findings: Vec<Finding>,
    /// Chunks whose content is not checked here, because rows of theirs moved to an archive.
    pub moved: u64,
    /// Chunks of which there is a part here, and the rows, rejects and blanks of them that are elsewhere.
    pub parts: (u64, u64),
}

impl Report {
    /// Whether all is as it must be.
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty() && self.sources.iter().all(|source| source.findings.is_empty())
    }

    /// Chunks whose content was to be compared and was not, because lines of theirs are elsewhere.
    pub fn parts_not_compared(&self) -> u64 {
        self.sources.iter().map(|source| source.parts_not_compared).sum()
    }
}

/// The account of one source.
#[derive(Debug, Default, PartialEq)]
pub struct SourceReport {
    /// Its identity; 0 if nothing of it is held.
    pub source_id: u64,
    /// Its path, or the name of a stream.
    pub path: String,
    /// Counts the contents that one path has had.
    pub generation: u32,
    /// Committed chunks.
    pub chunks: u64,
    /// Committed (decompressed) bytes.
    pub len_bytes: u64,
    /// Lines, which are rows + rejects + blanks.
    pub lines: u64,
    /// Lines that became rows.
    pub rows: u64,
    /// Lines that no log type accepts.
    pub rejects: u64,
    /// Lines of white space only.
    pub blanks: u64,
    /// Rows by log type.
    pub types: BTreeMap<String, u64>,
    /// Chunks whose content was to be compared and was not, because lines of theirs are elsewhere.
    pub parts_not_compared: u64,
    /// What is not as it must be.
    pub findings: Vec<Finding>,
}

/// Checks what is held: all of it, or of `files` only.
pub async fn verify(
    holdings: &dyn Holdings,
    files: Option<&[GivenFile]>,
    checks: Checks,
) -> Result<Report, ArchiveError> {
    let damage = holdings.audit().await?;
    let findings: Vec<_> = damage.into_iter().map(Finding::Damage).collect();
    let mut report = Report { findings, ..Report::default() };
    let mut sources = match SourceChunks::read(holdings).await {
        // the ledger itself is damaged, which is said already; nothing goes by it
        Err(_) if !report.is_whole() => return Ok(report),
        read => read?,
    };
    let mut counted: HashMap<u64, Vec<Finding>> = HashMap::new();
    if checks.count {
        report.findings.extend(count(holdings, &sources, &mut counted).await?);
    }
    if let Some(files) = files {
        let ids: BTreeSet<u64> = files.iter().map(|file| file.source_id).collect();
        sources.retain(|of| ids.contains(&of.source.id));
    }
    report.sources = sources.iter().map(account).collect();
    for chunk in sources.iter().flat_map(|of| &of.chunks).filter(|chunk| chunk.is_part()) {
        report.parts.0 += 1;
        report.parts.1 += chunk.parts_elsewhere().map(|table| chunk.decoded(table)).sum::<u64>();
    }
    let positions: HashMap<u64, usize> =
        sources.iter().enumerate().map(|(position, of)| (of.source.id, position)).collect();
    for (id, position) in &positions {
        report.sources[*position].findings.extend(counted.remove(id).unwrap_or_default());
    }
    if checks.content {
        let moved = holdings.moved_chunks().await?;
        let chunks = sources.iter().flat_map(|of| &of.chunks);
        let records: Vec<_> =
            chunks.filter(|chunk| !moved.contains(&chunk.chunk_id) && chunk.is_whole()).collect();
        report.moved = moved.len() as u64;
        for (source, of) in report.sources.iter_mut().zip(&sources) {
            source.parts_not_compared = of.chunks.iter().filter(|chunk| !chunk.is_whole()).count() as u64;
        }
        let mut differing = Vec::new();
        let read = content::each_chunk(holdings, &records, |record, _, is_same| {
            differing.extend((!is_same).then_some(record.range));
            Ok(())
        });
        match read.await {
            // type files that are missing or changed are named already
            Err(error) if !report.findings.is_empty() && is_damage(&error) => {}
            read => read?,
        }
        if !differing.is_empty() {
            let (_, now) = committed_now(holdings).await?;
            for range in differing.into_iter().filter(|range| now.contains(range)) {
                let finding = Finding::Content { first_byte: range.first_byte, end_byte: range.end_byte };
                report.sources[positions[&range.source_id]].findings.push(finding);
            }
        }
    }
    for file in files.unwrap_or_default() {
        match positions.get(&file.source_id) {
            _ if file.unread_bytes == 0 => {}
            Some(position) => {
                report.sources[*position].findings.push(Finding::Unread { len_bytes: file.unread_bytes });
            }
            None => report.sources.push(SourceReport {
                path: file.path.clone(),
                findings: vec![Finding::NotArchived],
                ..SourceReport::default()
            }),
        }
    }
    Ok(report)
}

/// Whether storage answers, and something is not there or not what it was.
pub(super) fn is_damage(error: &ArchiveError) -> bool {
    match error {
        ArchiveError::Lake(LakeError::Storage { source, .. }) => {
            matches!(source, object_store::Error::NotFound { .. })
        }
        ArchiveError::Lake(LakeError::Corrupt { .. }) | ArchiveError::LogType(_) => true,
        _ => false,
    }
}

/// What the ledger alone says of a source.
fn account(of: &SourceChunks) -> SourceReport {
    let Source { path, generation, .. } = of.source.clone();
    let mut report = SourceReport {
        source_id: of.source.id,
        path,
        generation,
        chunks: of.chunks.len() as u64,
        len_bytes: of.end_byte(),
        findings: of.range_findings(),
        ..SourceReport::default()
    };
    for chunk in &of.chunks {
        report.lines += chunk.num_lines;
        report.rows += chunk.num_rows;
        report.rejects += chunk.num_rejects;
        report.blanks += chunk.num_blanks;
        for (name, of_type) in &chunk.types {
            *report.types.entry(name.clone()).or_default() += of_type.rows;
        }
        let of_types: u64 = chunk.types.values().map(|of_type| of_type.rows).sum();
        for rows in BTreeSet::from([chunk.num_rows, of_types]) {
            let accounted = rows + chunk.num_rejects + chunk.num_blanks;
            if accounted != chunk.num_lines {
                let first_byte = chunk.range.first_byte;
                report.findings.push(Finding::Accounting { first_byte, lines: chunk.num_lines, accounted });
            }
        }
    }
    report
}

/// Compares every table's rows per chunk with the ledger; returns what no source can be blamed for.
async fn count(
    holdings: &dyn Holdings,
    sources: &[SourceChunks],
    findings: &mut HashMap<u64, Vec<Finding>>,
) -> Result<Vec<Finding>, ArchiveError> {
    let (mut differing, mut unknown) = (Vec::new(), Vec::new());
    let tables = holdings.tables().await?;
    let chunks = || sources.iter().flat_map(|of| &of.chunks);
    let types = chunks().flat_map(|chunk| chunk.types.keys().filter(|name| chunk.rows_in(name) > 0));
    let names: BTreeSet<&String> = types.chain(&tables).filter(|name| *name != "chunks").collect();
    for name in names {
        let mut counts = holdings.count_by_chunk(name).await?;
        for chunk in chunks() {
            let (expected, found) = (chunk.rows_in(name), counts.remove(&chunk.chunk_id).unwrap_or(0));
            if found != expected {
                let first_byte = chunk.range.first_byte;
                let finding = Finding::Count { table: name.clone(), first_byte, expected, found };
                differing.push((chunk.range, finding));
            }
        }
        let left: BTreeMap<i64, u64> = counts.into_iter().filter(|(_, rows)| *rows > 0).collect();
        unknown.extend(left.into_iter().map(|(chunk_id, rows)| (name, chunk_id, rows)));
    }
    if differing.is_empty() && unknown.is_empty() {
        return Ok(Vec::new());
    }
    let (ids_now, ranges_now) = committed_now(holdings).await?;
    for (range, finding) in differing.into_iter().filter(|(range, _)| ranges_now.contains(range)) {
        findings.entry(range.source_id).or_default().push(finding);
    }
    let unknown = unknown.into_iter().filter(|(_, chunk_id, _)| !ids_now.contains(chunk_id));
    Ok(unknown
        .map(|(table, chunk_id, rows)| Finding::UnknownChunk { table: table.clone(), chunk_id, rows })
        .collect())
}

/// Chunk ids and ranges of the ledger as it is now.
async fn committed_now(holdings: &dyn Holdings) -> Result<(HashSet<i64>, HashSet<ByteRange>), ArchiveError> {
    let records = holdings.records().await?;
    Ok(records.iter().map(|record| (record.chunk_id, record.range)).unzip())
}
