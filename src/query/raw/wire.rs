//! Scans of raw logs on their way to other processes: dealt to tasks, and as bytes.
//!
//! Invariants: each range is in one task; a file is read only where it still is the one that was listed. Devices are
//! numbered by each machine for itself, so that a file is known again by its inode.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::common::internal_datafusion_err;
use datafusion::error::Result;
use serde::{Deserialize, Serialize};

use super::{Content, Range, RawFile, RawPart, RawTable, Rows};
use crate::ledger::{BLANKS, CHUNKS, REJECTS};
use crate::log_type::{LogType, LogTypes};
use crate::model::Source;
use crate::query::cluster::Reads;
use crate::query::error::external;
use crate::query::report::{Counter, Notes};
use crate::query::scan::{Part, ScanExec};
use crate::source::{Buckets, Encoding, ObjectFacts, SourceError, Stat};

#[derive(Serialize, Deserialize)]
struct WireScan {
    /// A log type, or the name of another table.
    rows: String,
    /// The files of the log types that lines are read with, in their order.
    types: Vec<String>,
    columns: Vec<String>,
    detail: String,
    texts: Option<Vec<Vec<u8>>>,
    files: Vec<WireFile>,
    parts: Vec<Vec<Range>>,
}

#[derive(Serialize, Deserialize)]
struct WireFile {
    path: String,
    device: u64,
    inode: u64,
    generation: u32,
    head_len_bytes: u32,
    head_hash: u64,
    id: u64,
    size_bytes: u64,
    encoding: WireEncoding,
    reference_time: i64,
    committed: Vec<(u64, u64)>,
    content: WireContent,
}

#[derive(Serialize, Deserialize)]
enum WireEncoding {
    Plain,
    Gzip,
    Zstd,
}

#[derive(Serialize, Deserialize)]
enum WireContent {
    File { path: PathBuf, inode: u64 },
    Object(ObjectFacts),
}

/// The ranges of a scan of raw logs.
pub(in crate::query) fn num_ranges(scan: &ScanExec) -> Option<usize> {
    Some(scan.parts::<RawPart>()?.iter().map(|part| part.ranges.len()).sum())
}

/// The scan as so many, which have its ranges between them, each with as many parts.
pub(in crate::query) fn dealt(scan: &ScanExec, tasks: usize) -> Option<Vec<ScanExec>> {
    let parts = scan.parts::<RawPart>()?;
    let first = (*parts.first()?).clone();
    let mut dealt: Vec<Vec<Range>> = vec![Vec::new(); tasks * parts.len()];
    for (index, range) in parts.iter().flat_map(|part| &part.ranges).enumerate() {
        let place = index % dealt.len();
        dealt[place].push(*range);
    }
    let scan = |dealt: &[Vec<Range>]| {
        let part = |ranges: &Vec<Range>| {
            Arc::new(RawPart { ranges: ranges.clone(), ..first.clone() }) as Arc<dyn Part>
        };
        let parts = dealt.iter().map(part).collect();
        ScanExec::new("RawExec", scan.detail().to_owned(), Arc::clone(&first.wanted), parts)
    };
    Some(dealt.chunks(parts.len()).map(scan).collect())
}

/// The scan as bytes; nothing where it is not of raw logs.
pub(in crate::query) fn encoded(scan: &ScanExec) -> Result<Option<Vec<u8>>> {
    let Some(parts) = scan.parts::<RawPart>() else { return Ok(None) };
    let Some(first) = parts.first() else { return Ok(None) };
    // of many files a task reads few
    let mut positions = BTreeMap::new();
    for (file, _) in parts.iter().flat_map(|part| &part.ranges) {
        let next = positions.len();
        positions.entry(*file).or_insert(next);
    }
    let mut files: Vec<(usize, usize)> =
        positions.iter().map(|(file, position)| (*position, *file)).collect();
    files.sort_unstable();
    let table = &first.table;
    let scan = WireScan {
        rows: table.name().to_owned(),
        types: table.types.iter().map(|log_type| log_type.table.text.clone()).collect(),
        columns: first.wanted.fields().iter().map(|field| field.name().clone()).collect(),
        detail: scan.detail().to_owned(),
        texts: first.texts.clone(),
        files: files.into_iter().map(|(_, file)| WireFile::of(&table.files[file])).collect::<Result<_>>()?,
        parts: parts
            .iter()
            .map(|part| part.ranges.iter().map(|(file, range)| (positions[file], *range)).collect())
            .collect(),
    };
    Ok(Some(serde_json::to_vec(&scan).map_err(external)?))
}

/// The scan that was made bytes, of files that `reads` lets be read. Blocking, for as long as files are looked at.
pub(in crate::query) fn decoded(bytes: &[u8], reads: &Reads) -> Result<ScanExec> {
    let scan: WireScan = serde_json::from_slice(bytes).map_err(external)?;
    let compiled = scan.types.iter().map(|text| LogType::try_new("sent with a query", text).map(Arc::new));
    let types = LogTypes::new(compiled.collect::<Result<_, _>>().map_err(external)?);
    let rows = match scan.rows.as_str() {
        REJECTS => Rows::Rejects,
        BLANKS => Rows::Blanks,
        CHUNKS => Rows::Chunks,
        name => match types.get(name) {
            Some(log_type) => Rows::Type(Arc::clone(log_type)),
            None => return Err(internal_datafusion_err!("log type {name} did not come with its query")),
        },
    };
    let mut buckets = Buckets::default();
    let files = scan.files.into_iter().map(|file| file.opened(reads, &mut buckets));
    let files: Arc<Vec<RawFile>> = Arc::new(files.collect::<Result<_>>()?);
    let is_known = |range: &Range| range.0 < files.len();
    if !scan.parts.iter().flatten().all(is_known) {
        return Err(internal_datafusion_err!("a range of raw logs is of no file"));
    }
    let table = RawTable::new(rows, "raw", &files, &types, &Notes::default());
    let columns = scan.columns.iter().map(|name| table.schema.index_of(name));
    let wanted = Arc::new(table.schema.project(&columns.collect::<Result<Vec<_>, _>>()?)?);
    let part = |ranges: Vec<Range>| {
        let (table, wanted, texts) = (table.clone(), Arc::clone(&wanted), scan.texts.clone());
        Arc::new(RawPart { table, wanted, ranges, texts, counter: Arc::<Counter>::default() })
            as Arc<dyn Part>
    };
    let parts = scan.parts.into_iter().map(part).collect();
    Ok(ScanExec::new("RawExec", scan.detail, Arc::clone(&wanted), parts))
}

impl WireFile {
    fn of(file: &RawFile) -> Result<Self> {
        let Source { path, device, inode, generation, head_len_bytes, head_hash, id } =
            (*file.source).clone();
        let content = match &file.content {
            Content::File(path, (_, inode)) => {
                WireContent::File { path: std::path::absolute(path)?, inode: *inode }
            }
            Content::Object(object) => WireContent::Object(object.facts()),
        };
        let encoding = match file.encoding {
            Encoding::Plain => WireEncoding::Plain,
            Encoding::Gzip => WireEncoding::Gzip,
            Encoding::Zstd => WireEncoding::Zstd,
        };
        let (size_bytes, reference_time, committed) =
            (file.size_bytes, file.reference_time, file.committed.clone());
        Ok(Self {
            path,
            device,
            inode,
            generation,
            head_len_bytes,
            head_hash,
            id,
            size_bytes,
            encoding,
            reference_time,
            committed,
            content,
        })
    }

    fn opened(self, reads: &Reads, buckets: &mut Buckets) -> Result<RawFile> {
        let Self { path, device, inode, generation, head_len_bytes, head_hash, id, .. } = self;
        let content = match self.content {
            WireContent::File { path, inode } => {
                let real = reads.check_file(&path)?;
                let metadata = std::fs::metadata(&real)?;
                let place = Stat::of(&metadata).place;
                if place.1 != inode {
                    return Err(external(SourceError::Replaced { path: path.display().to_string() }));
                }
                Content::File(real, place)
            }
            WireContent::Object(facts) => {
                reads.check_object(&facts.url())?;
                Content::Object(buckets.object(facts).map_err(external)?)
            }
        };
        let source = Source { path, device, inode, generation, head_len_bytes, head_hash, id };
        Ok(RawFile {
            source: Arc::new(source),
            size_bytes: self.size_bytes,
            encoding: match self.encoding {
                WireEncoding::Plain => Encoding::Plain,
                WireEncoding::Gzip => Encoding::Gzip,
                WireEncoding::Zstd => Encoding::Zstd,
            },
            reference_time: self.reference_time,
            committed: self.committed,
            content,
        })
    }
}
