//! Chunks of which a place keeps a part: the rows of some tables, while others go to other places.
//!
//! Every place has an entry of every chunk all the same, with the counts of all of it, and the names of the tables
//! that went elsewhere. Those who hold the parts of a chunk have decoded it alike: their entries name every log type
//! that there was, by the hash of its file. Deliberately absent: which places those are.
use std::collections::{BTreeMap, BTreeSet};

use super::{BLANKS, REJECTS};
use crate::model::{ChunkRecord, DecodedBatch, TypeRows};

impl ChunkRecord {
    /// Whether other places were to have some of its tables, be there rows for them or not.
    pub fn is_part(&self) -> bool {
        !self.elsewhere.is_empty()
    }

    /// Lines that were decoded as rows of a log type, as rejects or as blanks, wherever they went.
    pub fn decoded(&self, table: &str) -> u64 {
        match table {
            REJECTS => {
                let refused: u64 = self.types.values().map(|of_type| of_type.refused).sum();
                self.num_rejects.saturating_sub(refused)
            }
            BLANKS => self.num_blanks,
            log_type => self.types.get(log_type).map_or(0, |of_type| of_type.rows + of_type.refused),
        }
    }

    /// Rows of it that the table must hold here. Of a reject that is kept in pieces the first is one.
    pub fn rows_in(&self, table: &str) -> u64 {
        let is_here = !self.elsewhere.contains(table);
        match table {
            // what was refused here is kept here
            REJECTS if is_here => self.num_rejects,
            REJECTS => self.num_rejects.saturating_sub(self.decoded(REJECTS)),
            _ if !is_here => 0,
            BLANKS => self.num_blanks,
            log_type => self.types.get(log_type).map_or(0, |of_type| of_type.rows),
        }
    }

    /// Whether the table's rows of it were to be here; a log type that there was not has none anywhere.
    pub fn is_to_have(&self, table: &str) -> bool {
        let is_known = [REJECTS, BLANKS].contains(&table) || self.types.contains_key(table);
        is_known && !self.elsewhere.contains(table)
    }

    /// Whether the table has something of it somewhere. A continuing piece of an over-long line is no reject of its
    /// own, and is kept among them.
    pub fn has(&self, table: &str) -> bool {
        self.decoded(table) > 0 || (table == REJECTS && self.piece.is_some())
    }

    /// The tables elsewhere that have something of it.
    pub fn parts_elsewhere(&self) -> impl Iterator<Item = &str> {
        self.elsewhere.iter().map(String::as_str).filter(|table| self.has(table))
    }

    /// Whether all of it is here.
    pub fn is_whole(&self) -> bool {
        self.parts_elsewhere().next().is_none()
    }

    /// The file of every log type that there was when it was decoded, by its hash.
    pub fn type_files(&self) -> BTreeMap<&str, &str> {
        self.types.iter().map(|(name, of_type)| (name.as_str(), of_type.hash.as_str())).collect()
    }
}

/// How chunks were split.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Split {
    /// Tables that went elsewhere.
    pub elsewhere: BTreeSet<String>,
    /// Log types that there were.
    pub types: BTreeSet<String>,
}

impl Split {
    /// As an entry has it.
    pub fn of(record: &ChunkRecord) -> Self {
        Self { elsewhere: record.elsewhere.clone(), types: record.types.keys().cloned().collect() }
    }
}

/// What a place is to keep of every chunk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    elsewhere: BTreeSet<String>,
    /// Hash of the file of every log type, by name.
    types: BTreeMap<String, String>,
}

impl Share {
    /// All but what goes `elsewhere`; `types` are the hashes of all log types' files, by name.
    pub fn new(elsewhere: BTreeSet<String>, types: BTreeMap<String, String>) -> Self {
        Self { elsewhere, types }
    }

    /// Tables that go to other places.
    pub fn elsewhere(&self) -> &BTreeSet<String> {
        &self.elsewhere
    }

    /// Whether the place keeps all.
    pub fn is_all(&self) -> bool {
        self.elsewhere.is_empty()
    }

    /// The place's part of a chunk.
    pub fn keep(&self, mut batch: DecodedBatch) -> DecodedBatch {
        batch.types.retain(|rows| !self.elsewhere.contains(&rows.table.log_type));
        if self.elsewhere.contains(REJECTS) {
            batch.rejects.clear();
        }
        if self.elsewhere.contains(BLANKS) {
            batch.blanks.clear();
        }
        let record = &mut batch.record;
        record.elsewhere.clone_from(&self.elsewhere);
        for (name, hash) in &self.types {
            let none = || TypeRows { rows: 0, hash: hash.clone(), refused: 0 };
            record.types.entry(name.clone()).or_insert_with(none);
        }
        batch
    }

    /// A table that chunks which were split so have here and should not, or have not and should; and whether they have
    /// it. A log type that there was not, or is not any more, is neither.
    pub fn disagreement(&self, split: &Split) -> Option<(String, bool)> {
        let types = self.types.keys().filter(|name| split.types.contains(*name)).map(String::as_str);
        let mut tables = types.chain([REJECTS, BLANKS]);
        let differs = |name: &&str| self.elsewhere.contains(*name) != split.elsewhere.contains(*name);
        let table = tables.find(differs)?;
        Some((table.to_owned(), !split.elsewhere.contains(table)))
    }

    /// Whether the chunk was decoded with the very log types that there are now.
    pub fn is_decoded_alike(&self, record: &ChunkRecord) -> bool {
        let own = self.types.iter().map(|(name, hash)| (name.as_str(), hash.as_str()));
        record.type_files() == own.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::record;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn of_types(types: &[(&str, u64, u64)], num_rejects: u64, elsewhere: &[&str]) -> ChunkRecord {
        let types = types.iter().map(|(name, rows, refused)| {
            let of_type = TypeRows { rows: *rows, hash: format!("{name} file"), refused: *refused };
            ((*name).to_owned(), of_type)
        });
        ChunkRecord {
            types: types.collect(),
            num_rejects,
            num_blanks: 2,
            elsewhere: names(elsewhere),
            ..record(1, 0, 10)
        }
    }

    #[test]
    fn a_table_must_hold_what_did_not_go_elsewhere_and_what_was_refused_here() {
        let whole = of_types(&[("dns", 4, 0), ("firewall", 5, 1)], 3, &[]);
        let rows = |record: &ChunkRecord| {
            ["dns", "firewall", "auth", REJECTS, BLANKS].map(|table| record.rows_in(table))
        };
        assert_eq!(rows(&whole), [4, 5, 0, 3, 2]);
        let part = ChunkRecord { elsewhere: names(&["dns", REJECTS, BLANKS]), ..whole.clone() };
        assert_eq!(rows(&part), [0, 5, 0, 1, 0]);
        for record in [&whole, &part] {
            let decoded = ["dns", "firewall", "auth", REJECTS, BLANKS].map(|table| record.decoded(table));
            assert_eq!(decoded, [4, 6, 0, 2, 2]);
        }
        assert!(whole.is_whole() && !part.is_whole());
        assert_eq!(part.parts_elsewhere().collect::<Vec<_>>(), ["blanks", "dns", "rejects"]);
        assert_eq!(
            ["dns", "firewall", "auth", REJECTS].map(|table| part.is_to_have(table)),
            [false, true, false, false]
        );
    }

    #[test]
    fn a_chunk_whose_other_tables_have_nothing_of_it_is_whole() {
        let part = ChunkRecord {
            num_blanks: 0,
            ..of_types(&[("dns", 4, 0), ("auth", 0, 0)], 0, &["auth", REJECTS])
        };
        assert!(part.is_part() && part.is_whole());
        let piece = crate::model::Piece { index: 1, last: false };
        assert!(!ChunkRecord { piece: Some(piece), ..part }.is_whole());
    }

    #[test]
    fn another_split_is_told_by_a_table_that_both_know() {
        let types = BTreeMap::from([("auth", "a"), ("dns", "d"), ("new", "n")]);
        let types = types.into_iter().map(|(name, hash)| (name.to_owned(), hash.to_owned())).collect();
        let share = Share::new(names(&["dns", "new", REJECTS]), types);
        let split =
            |elsewhere: &[&str], types: &[&str]| Split { elsewhere: names(elsewhere), types: names(types) };
        // `new` came later, and `old` is gone
        assert_eq!(share.disagreement(&split(&["dns", "old", REJECTS], &["auth", "dns", "old"])), None);
        let differs = |elsewhere: &[&str]| share.disagreement(&split(elsewhere, &["auth", "dns"]));
        assert_eq!(differs(&["auth", "dns", REJECTS]), Some(("auth".to_owned(), false)));
        assert_eq!(differs(&[REJECTS]), Some(("dns".to_owned(), true)));
        assert_eq!(differs(&["dns", REJECTS, BLANKS]), Some((BLANKS.to_owned(), false)));
        let everything = Share::new(BTreeSet::new(), [("dns".to_owned(), "d".to_owned())].into());
        assert_eq!(everything.disagreement(&split(&["dns"], &["dns"])), Some(("dns".to_owned(), false)));
        assert!(everything.is_all() && !share.is_all());
    }

    #[test]
    fn decoded_alike_is_with_the_same_files_of_all_types() {
        let types = |types: &[(&str, &str)]| {
            types.iter().map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned())).collect()
        };
        let entry = of_types(&[("dns", 4, 0), ("firewall", 0, 0)], 0, &["dns"]);
        let share = |of: &[(&str, &str)]| Share::new(names(&["dns"]), types(of));
        assert!(share(&[("dns", "dns file"), ("firewall", "firewall file")]).is_decoded_alike(&entry));
        for other in [
            &[("dns", "dns file")][..],
            &[("dns", "dns file"), ("firewall", "other")],
            &[("dns", "dns file"), ("firewall", "firewall file"), ("new", "n")],
        ] {
            assert!(!share(other).is_decoded_alike(&entry), "{other:?}");
        }
    }
}
