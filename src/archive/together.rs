//! Proves that places which keep parts of the same chunks have each part once between them.
//!
//! Entries that share bytes are held against each other: what one says went elsewhere has to be in exactly one other,
//! unless some place has all of those bytes; all must have read the same bytes and decoded them alike. Cuts may differ from
//! place to place: then what is compared reaches from one border that all have to the next. Content is put together
//! line by line (`compare`). Deliberately absent: what a place says of itself (`verify`).
use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{ArchiveError, Finding, Holdings};
use crate::ledger::{BLANKS, Committed, REJECTS};
use crate::model::{ByteRange, ChunkRecord, Source};

mod compare;

use compare::{Differing, Entry, Run, Wholes, compare};

/// What was found of places taken together.
#[derive(Debug, Default)]
pub struct Together {
    /// Runs of bytes of which places have parts: chunks, where all cut alike.
    pub chunks: u64,
    /// Of these, the ones whose lines were put together and compared,
    pub compared: u64,
    /// and those that were to be compared and could not: lines are lacking, or cannot be told by their numbers.
    pub not_compared: u64,
    /// What is not as it must be, each with the path of its source.
    pub findings: Vec<(String, Finding)>,
}

/// Looks at what the places, each with its name, have parts of: of all sources, or of these.
pub async fn verify_together(
    places: &[(String, &dyn Holdings)],
    sources: Option<&BTreeSet<u64>>,
    is_content_wanted: bool,
) -> Result<Together, ArchiveError> {
    let look = async || {
        let mut ledgers = Vec::with_capacity(places.len());
        for (_, holdings) in places {
            let mut records = holdings.records().await?;
            records.retain(|record| sources.is_none_or(|ids| ids.contains(&record.range.source_id)));
            ledgers.push(records);
        }
        Ok::<_, ArchiveError>(ledgers)
    };
    let names: Vec<&str> = places.iter().map(|(name, _)| name.as_str()).collect();
    let ledgers = look().await?;
    let whole = whole(&ledgers);
    let clusters = clusters(&ledgers);
    let mut together = Together { chunks: clusters.len() as u64, ..Together::default() };
    let mut sound = Vec::new();
    for cluster in &clusters {
        let findings = cluster.findings(&names, &whole);
        if findings.is_empty() {
            sound.push(cluster);
        }
        let path = &cluster.source.path;
        together.findings.extend(findings.into_iter().map(|finding| (path.clone(), finding)));
    }
    let mut differing = Vec::new();
    if is_content_wanted {
        let wholes = Wholes::of(places, &ledgers).await?;
        let runs: Vec<_> = sound.into_iter().filter_map(|cluster| Run::of(cluster, &wholes)).collect();
        (together.compared, differing) = compare(places, &runs).await?;
        together.not_compared = together.chunks - together.compared;
    }
    if !together.findings.is_empty() || !differing.is_empty() {
        // places are not looked at in one moment: what was only being committed is there now
        let ledgers = look().await?;
        let (whole, clusters) = (self::whole(&ledgers), self::clusters(&ledgers));
        let now: Vec<Finding> =
            clusters.iter().flat_map(|cluster| cluster.findings(&names, &whole)).collect();
        together.findings.retain(|(_, finding)| now.contains(finding));
        // a last line that grew was compared with what came in its place
        let of_places = ledgers.iter().enumerate();
        let entries: HashSet<Entry> = of_places
            .flat_map(|(place, records)| records.iter().map(move |record| (place, record.range)))
            .collect();
        differing.retain(|of: &Differing| of.entries.iter().all(|entry| entries.contains(entry)));
        together.findings.extend(differing.into_iter().map(|of| (of.path, of.finding)));
    }
    Ok(together)
}

/// The bytes that some place has all of.
fn whole(ledgers: &[Vec<ChunkRecord>]) -> Committed {
    let mut whole = Committed::default();
    ledgers.iter().flatten().filter(|record| !record.is_part()).for_each(|record| whole.insert(record));
    whole
}

/// Entries of parts that share bytes, over a run of bytes at whose borders no place's entry reaches across.
#[derive(Debug)]
struct Cluster<'a> {
    source: &'a Source,
    range: ByteRange,
    /// By place, ascending.
    entries: BTreeMap<usize, Vec<&'a ChunkRecord>>,
}

fn clusters(ledgers: &[Vec<ChunkRecord>]) -> Vec<Cluster<'_>> {
    let of_places = ledgers.iter().enumerate();
    let all = of_places.flat_map(|(place, records)| records.iter().map(move |record| (place, record)));
    let mut parts: Vec<(usize, &ChunkRecord)> = all.filter(|(_, record)| record.is_part()).collect();
    parts.sort_by_key(|(place, record)| (record.range, *place));
    let mut clusters: Vec<Cluster<'_>> = Vec::new();
    for (place, record) in parts {
        match clusters.last_mut().filter(|cluster| cluster.range.overlaps(&record.range)) {
            Some(cluster) => {
                cluster.range.end_byte = cluster.range.end_byte.max(record.range.end_byte);
                cluster.entries.entry(place).or_default().push(record);
            }
            None => clusters.push(Cluster {
                source: &record.source,
                range: record.range,
                entries: BTreeMap::from([(place, vec![record])]),
            }),
        }
    }
    clusters
}

impl<'a> Cluster<'a> {
    fn all(&self) -> impl Iterator<Item = (usize, &'a ChunkRecord)> {
        self.entries.iter().flat_map(|(place, records)| records.iter().map(|record| (*place, *record)))
    }

    fn tables(&self) -> BTreeSet<&'a str> {
        self.all()
            .flat_map(|(_, record)| record.types.keys().map(String::as_str))
            .chain([REJECTS, BLANKS])
            .collect()
    }

    /// What is committed of a table, by the places that were to have it.
    fn held(&self, table: &str) -> Committed {
        let mut held = Committed::default();
        self.all().filter(|(_, record)| record.is_to_have(table)).for_each(|(_, record)| held.insert(record));
        held
    }

    /// Whether all that it has of any table is there.
    fn is_complete(&self) -> bool {
        let has = |table: &&str| self.all().any(|(_, record)| record.has(table));
        self.tables().into_iter().filter(has).all(|table| self.held(table).lacking(&self.range).is_empty())
    }

    fn findings(&self, names: &[&str], whole: &Committed) -> Vec<Finding> {
        let mut findings = Vec::new();
        for table in self.tables() {
            let held = self.held(table);
            let lacking = (self.all())
                .filter(|(_, record)| record.elsewhere.contains(table) && record.has(table))
                .filter(|(_, record)| !whole.lacking(&record.range).is_empty())
                .find_map(|(place, record)| Some((place, *held.lacking(&record.range).first()?)));
            if let Some((place, (first_byte, end_byte))) = lacking {
                let (table, place) = (table.to_owned(), names[place].to_owned());
                findings.push(Finding::PartMissing { table, first_byte, end_byte, place });
            }
            let holders: Vec<_> = self.all().filter(|(_, of)| of.is_to_have(table)).collect();
            let twice = holders.iter().enumerate().find_map(|(at, (place, record))| {
                let other = holders[..at].iter().find(|(_, of)| of.range.overlaps(&record.range));
                other.map(|(other, _)| (*other, *place, record.range))
            });
            if let Some((one, other, range)) = twice {
                let places = (names[one].to_owned(), names[other].to_owned());
                let (first_byte, end_byte) = (range.first_byte, range.end_byte);
                findings.push(Finding::PartTwice { table: table.to_owned(), first_byte, end_byte, places });
            }
        }
        findings.extend(self.disagreement(names));
        findings
    }

    /// What two places that both have all of the bytes say differently of them.
    fn disagreement(&self, names: &[&str]) -> Option<Finding> {
        let len =
            |records: &[&ChunkRecord]| records.iter().map(|record| record.range.len_bytes()).sum::<u64>();
        let mut covering = self.entries.iter().filter(|(_, records)| len(records) == self.range.len_bytes());
        let (one, of_one) = covering.next()?;
        for (other, of_other) in covering {
            let (here, there) = (Account::of(of_one), Account::of(of_other));
            let is_cut_alike = of_one.iter().map(|of| of.range).eq(of_other.iter().map(|of| of.range));
            let hashes = |records: &[&ChunkRecord]| -> Vec<[u8; 32]> {
                records.iter().map(|record| record.content_sha256).collect()
            };
            let what = if here.types != there.types {
                "were decoded with different log types"
            } else if here.counts != there.counts {
                "became different numbers of rows, rejects or blanks"
            } else if is_cut_alike && hashes(of_one) != hashes(of_other) {
                "were not the same bytes"
            } else {
                continue;
            };
            return Some(Finding::PartsDiffer {
                first_byte: self.range.first_byte,
                end_byte: self.range.end_byte,
                what,
                places: (names[*one].to_owned(), names[*other].to_owned()),
            });
        }
        None
    }
}

/// What a place's entries say of their bytes.
#[derive(Debug)]
struct Account<'a> {
    types: BTreeSet<BTreeMap<&'a str, &'a str>>,
    counts: BTreeMap<&'a str, u64>,
}

impl<'a> Account<'a> {
    fn of(records: &[&'a ChunkRecord]) -> Self {
        let mut counts = BTreeMap::new();
        for record in records {
            for table in record.types.keys().map(String::as_str).chain([REJECTS, BLANKS]) {
                *counts.entry(table).or_default() += record.decoded(table);
            }
        }
        Self { types: records.iter().map(|record| record.type_files()).collect(), counts }
    }
}
