//! Whether two ledgers say the same of the same bytes: not only that they hold them, but as how many rows of which
//! types, rejects and blanks. A replay changes that in one place and not in the other.
//!
//! Chunks that are cut differently are compared over the next borders that both have. Deliberately absent: values.
//! Both render the bytes that were read, so a type's rows can differ only by being another type's.
use std::collections::BTreeMap;

use crate::ledger::{BLANKS, REJECTS};
use crate::model::ChunkRecord;

/// Rows by type; rejects and blanks are types here.
type Counts<'a> = BTreeMap<&'a str, u64>;

/// What differs about the bytes of `record`, in words; `here` and `there` are sorted entries of its source or of all.
pub(super) fn disagreement(
    record: &ChunkRecord,
    here: &[ChunkRecord],
    there: &[ChunkRecord],
) -> Option<String> {
    let (mut first, mut end) = (record.range.first_byte, record.range.end_byte);
    loop {
        let reach = |(first, end): (u64, u64), of: &ChunkRecord| {
            (first.min(of.range.first_byte), end.max(of.range.end_byte))
        };
        let both = within(record, here, first, end).chain(within(record, there, first, end));
        let wider = both.fold((first, end), reach);
        if wider == (first, end) {
            break;
        }
        (first, end) = wider;
    }
    let place = format!("bytes {first} to {end} of {}", record.source.path);
    for (of, name) in [(here, "postgres"), (there, "the archive")] {
        let held: u64 = within(record, of, first, end).map(|held| held.range.len_bytes()).sum();
        if held < end - first {
            return Some(format!("{name} lacks some of {place}, which are cut differently there"));
        }
    }
    let (here, there) = (counts(within(record, here, first, end)), counts(within(record, there, first, end)));
    (here != there).then(|| {
        format!(
            "{place} are {} in postgres and {} in the archive, as after a replay; export to a new archive",
            words(&here),
            words(&there)
        )
    })
}

/// The entries of the record's source that share a byte with these.
fn within<'a>(
    record: &ChunkRecord,
    sorted: &'a [ChunkRecord],
    first: u64,
    end: u64,
) -> impl Iterator<Item = &'a ChunkRecord> {
    let source_id = record.range.source_id;
    let is_before = |of: &ChunkRecord| (of.range.source_id, of.range.end_byte) <= (source_id, first);
    sorted[sorted.partition_point(is_before)..]
        .iter()
        .take_while(move |of| of.range.source_id == source_id && of.range.first_byte < end)
}

fn counts<'a>(records: impl Iterator<Item = &'a ChunkRecord>) -> Counts<'a> {
    let mut counts = Counts::new();
    for record in records {
        for (name, of_type) in &record.types {
            *counts.entry(name).or_default() += of_type.rows;
        }
        *counts.entry(REJECTS).or_default() += record.num_rejects;
        *counts.entry(BLANKS).or_default() += record.num_blanks;
    }
    counts.retain(|_, rows| *rows > 0);
    counts
}

fn words(counts: &Counts<'_>) -> String {
    let words: Vec<_> = counts.iter().map(|(name, rows)| format!("{rows} {name}")).collect();
    words.join(" + ")
}
