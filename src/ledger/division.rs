//! Which of several places each committed byte is read from, table by table, so that no row is read twice.
//!
//! Places come in an order, and a byte belongs to the first place whose ledger has it: what a later place has of it
//! is left out there. Cuts may differ from place to place. Where a later place has lacking and held bytes in one
//! chunk, lines are left out by their numbers, which the line counts of all ledgers tell: each entry says how many
//! lines lie between two bytes. Where they do not, the caller counts them in the chunk itself.
//!
//! Of chunks that were split by log type, each table of a byte belongs to the first place that was to have it. A place
//! that has all of a byte comes before those that have parts: these were decoded alike, and might not have been as the
//! whole was, so that a line taken from both could be there twice, or not at all.
//!
//! Deliberately absent: storage, and any preference but the order.
use std::collections::{BTreeMap, BTreeSet, HashSet};

use self::lines::Lines;
use super::{BLANKS, CHUNKS, Committed, REJECTS};
use crate::model::ChunkRecord;

mod lines;

/// What a place must not give of a table, because another place does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Chunks of which it gives nothing.
    pub chunks: BTreeSet<i64>,
    /// Chunks of which it gives only these lines, (first, end), ascending.
    pub parts: BTreeMap<i64, Vec<(u64, u64)>>,
}

impl LeftOut {
    /// Whether the place gives all it has.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.parts.is_empty()
    }

    /// What it says of a chunk.
    fn of_chunk(&self, chunk_id: i64) -> (bool, Option<&Vec<(u64, u64)>>) {
        (self.chunks.contains(&chunk_id), self.parts.get(&chunk_id))
    }
}

/// What a place must not give of its tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOutOfPlace {
    /// Of the tables that some chunk was split by, and of the ledger.
    tables: BTreeMap<String, LeftOut>,
    /// Of every other table.
    others: LeftOut,
    /// Entries of chunks of which it gives nothing at all.
    entries: LeftOut,
}

impl LeftOutOfPlace {
    /// Of a log type's table, or of rejects, blanks or chunks.
    pub fn of(&self, table: &str) -> &LeftOut {
        self.tables.get(table).unwrap_or(&self.others)
    }

    /// Of the ledger, for those who look up the entries of rows: one is there if any row is. Where chunks were split,
    /// [`Self::of`] has each byte once, and so an entry less.
    pub fn of_entries(&self) -> &LeftOut {
        &self.entries
    }

    /// Leaves a chunk out of everything.
    pub fn leave_out(&mut self, chunk_id: i64) {
        for left_out in self.tables.values_mut().chain([&mut self.others, &mut self.entries]) {
            left_out.chunks.insert(chunk_id);
        }
    }
}

/// How places share what is committed.
#[derive(Debug)]
pub struct Division {
    /// By place.
    pub left_out: Vec<LeftOutOfPlace>,
    /// What all places together hold, be it in part.
    pub committed: Committed,
    /// Last lines without a newline that a place gives something of.
    pub open: Vec<OpenLine>,
    /// Tables that went to none of the places, by a place that lacks them.
    pub lacking: BTreeMap<usize, BTreeSet<String>>,
}

/// A committed last line that may still be growing.
#[derive(Debug, Clone)]
pub struct OpenLine {
    /// The place that gives it.
    pub place: usize,
    /// Its entry.
    pub record: ChunkRecord,
}

/// Bytes within a chunk whose lines no ledger tells.
#[derive(Debug, Clone, PartialEq)]
pub struct Uncounted {
    /// The place that has the chunk.
    pub place: usize,
    /// The chunk.
    pub record: ChunkRecord,
    /// Where other places begin or end within it.
    pub bytes: BTreeSet<u64>,
}

/// That so many lines begin in a source from one byte up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Identity of the source.
    pub source_id: u64,
    /// Offset of the first byte.
    pub first_byte: u64,
    /// Offset behind the last byte.
    pub end_byte: u64,
    /// Lines that begin there.
    pub lines: u64,
}

/// Why places cannot be divided.
#[derive(Debug, PartialEq)]
pub enum Undivided {
    /// Lines of these chunks have to be counted first.
    Uncounted(Vec<Uncounted>),
    /// A place has a part of this chunk, and the lines that other places give of it cannot be told from the rest.
    Torn {
        /// The place.
        place: usize,
        /// The chunk.
        record: Box<ChunkRecord>,
    },
}

/// Divides what `places` hold, each given as its ledger. `counted` is what was counted of chunks that an earlier
/// call could not place.
pub fn divide(places: &[&[ChunkRecord]], counted: &[Counted]) -> Result<Division, Undivided> {
    let of_all =
        || places.iter().enumerate().flat_map(|(place, records)| records.iter().map(move |of| (place, of)));
    let parts = || of_all().filter(|(_, record)| record.is_part());
    let mut names: BTreeSet<&str> =
        parts().flat_map(|(_, record)| record.types.keys()).map(String::as_str).collect();
    let mut outgrown = HashSet::new();
    if parts().next().is_some() {
        names.extend([REJECTS, BLANKS]);
        outgrown = outgrown_lines(of_all());
    }
    let of_table =
        |keeps: &dyn Fn(&ChunkRecord) -> bool| OfTable::new(places.len(), layers(places, &outgrown, keeps));
    let others = of_table(&|_| false);
    let ledger = (!names.is_empty()).then(|| of_table(&|_| true));
    let tables: BTreeMap<&str, OfTable<'_>> =
        (names.iter()).map(|name| (*name, of_table(&|record| record.is_to_have(name)))).collect();
    let every = || tables.values().chain([&others]).chain(&ledger);
    let torn: HashSet<u64> =
        every().flat_map(|of| &of.partial).map(|(_, record, _)| record.range.source_id).collect();
    let lines = Lines::new(places, counted, &torn);
    let mut uncounted: BTreeMap<(usize, i64), Uncounted> = BTreeMap::new();
    let mut left_out_of = |of: &OfTable<'_>| {
        let mut left_out = of.left_out.clone();
        for (place, record, parts) in &of.partial {
            match lines.of_parts(record, parts) {
                Ok(parts) => {
                    left_out[*place].parts.insert(record.chunk_id, parts);
                }
                Err(bytes) => {
                    let none =
                        || Uncounted { place: *place, record: (*record).clone(), bytes: BTreeSet::new() };
                    uncounted.entry((*place, record.chunk_id)).or_insert_with(none).bytes.extend(bytes);
                }
            }
        }
        left_out
    };
    let (of_others, of_ledger) = (left_out_of(&others), ledger.as_ref().map(&mut left_out_of));
    let of_tables: BTreeMap<&str, Vec<LeftOut>> =
        tables.iter().map(|(name, of)| (*name, left_out_of(of))).collect();
    if let Some(of) = uncounted.values().find(|of| !of.record.is_whole()) {
        return Err(Undivided::Torn { place: of.place, record: Box::new(of.record.clone()) });
    }
    if !uncounted.is_empty() {
        return Err(Undivided::Uncounted(uncounted.into_values().collect()));
    }
    let of_place = |place: usize| {
        let mut tables: BTreeMap<String, LeftOut> =
            of_tables.iter().map(|(name, of)| ((*name).to_owned(), of[place].clone())).collect();
        tables.extend(of_ledger.iter().map(|of| (CHUNKS.to_owned(), of[place].clone())));
        LeftOutOfPlace { tables, others: of_others[place].clone(), entries: of_others[place].clone() }
    };
    let mut left_out: Vec<LeftOutOfPlace> = (0..places.len()).map(of_place).collect();
    for (place, chunk_id) in &outgrown {
        left_out[*place].leave_out(*chunk_id);
    }
    if !names.is_empty() {
        for (place, record) in of_all() {
            let of = &mut left_out[place];
            of.place_refused(record)
                .map_err(|()| Undivided::Torn { place, record: Box::new(record.clone()) })?;
            if record.is_part() && !names.iter().any(|table| of.gives(record, table)) {
                of.entries.chunks.insert(record.chunk_id);
            }
        }
    }
    let mut lacking: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for (place, record) in parts().filter(|(place, record)| !outgrown.contains(&(*place, record.chunk_id))) {
        let is_nowhere = |table: &&str| !tables[table].committed.lacking(&record.range).is_empty();
        lacking
            .entry(place)
            .or_default()
            .extend(record.parts_elsewhere().filter(is_nowhere).map(str::to_owned));
    }
    lacking.retain(|_, tables| !tables.is_empty());
    let open = every().flat_map(|of| of.open.values()).cloned().collect();
    let committed = ledger.unwrap_or(others).committed;
    Ok(Division { left_out, committed, open, lacking })
}

/// Chunks of a place, which share no byte.
type Layer<'a> = (usize, Vec<&'a ChunkRecord>);

/// The chunks in the order in which bytes are given to them: all places' that are whole, then the parts that `keeps`
/// wants.
fn layers<'a>(
    places: &[&'a [ChunkRecord]],
    outgrown: &HashSet<(usize, i64)>,
    keeps: &dyn Fn(&ChunkRecord) -> bool,
) -> Vec<Layer<'a>> {
    let mut layers = Vec::new();
    for is_part in [false, true] {
        for (place, records) in places.iter().enumerate() {
            let is_wanted = |record: &&ChunkRecord| {
                record.is_part() == is_part
                    && (!is_part || keeps(record))
                    && !outgrown.contains(&(place, record.chunk_id))
            };
            layers.push((place, records.iter().filter(is_wanted).collect()));
        }
    }
    layers
}

/// Open lines of which another place has a longer form, be it another part of it.
fn outgrown_lines<'a>(
    records: impl Iterator<Item = (usize, &'a ChunkRecord)> + Clone,
) -> HashSet<(usize, i64)> {
    let mut open: BTreeMap<(u64, u64), Vec<(usize, &ChunkRecord)>> = BTreeMap::new();
    for (place, record) in records.clone().filter(|(_, record)| record.open) {
        open.entry((record.range.source_id, record.range.first_byte)).or_default().push((place, record));
    }
    let mut outgrown = HashSet::new();
    for (place, record) in records {
        let range = record.range;
        let within = open.range((range.source_id, range.first_byte)..(range.source_id, range.end_byte));
        for (of, line) in within.flat_map(|(_, lines)| lines) {
            if *of != place && line.range.end_byte < range.end_byte {
                outgrown.insert((*of, line.chunk_id));
            }
        }
    }
    outgrown
}

impl LeftOutOfPlace {
    /// Rows that the place refused to store are among its rejects, and go with the table that they were to be in.
    fn place_refused(&mut self, record: &ChunkRecord) -> Result<(), ()> {
        let id = record.chunk_id;
        let refused = record.types.iter().filter(|(_, of)| of.refused > 0).map(|(name, _)| name.as_str());
        let own = (!record.elsewhere.contains(REJECTS) && record.has(REJECTS)).then_some(REJECTS);
        let of_refused: Vec<&str> = refused.collect();
        let Some(first) = of_refused.first() else { return Ok(()) };
        let (is_left_out, parts) = self.of(first).of_chunk(id);
        if of_refused
            .iter()
            .copied()
            .chain(own)
            .any(|table| self.of(table).of_chunk(id) != (is_left_out, parts))
        {
            return Err(());
        }
        let parts = parts.cloned();
        let rejects = self.tables.entry(REJECTS.to_owned()).or_default();
        rejects.parts.remove(&id);
        rejects.chunks.remove(&id);
        if is_left_out {
            rejects.chunks.insert(id);
        }
        rejects.parts.extend(parts.map(|parts| (id, parts)));
        Ok(())
    }

    /// Whether it gives rows of a chunk in a table.
    fn gives(&self, record: &ChunkRecord, table: &str) -> bool {
        let is_piece = table == REJECTS && record.piece.is_some() && !record.elsewhere.contains(table);
        (record.rows_in(table) > 0 || is_piece) && !self.of(table).chunks.contains(&record.chunk_id)
    }
}

/// A chunk of which a place gives only these bytes.
type Partial<'a> = (usize, &'a ChunkRecord, Vec<(u64, u64)>);

/// How places share one table.
struct OfTable<'a> {
    /// By place.
    left_out: Vec<LeftOut>,
    committed: Committed,
    open: BTreeMap<(u64, u64), OpenLine>,
    partial: Vec<Partial<'a>>,
}

impl<'a> OfTable<'a> {
    fn new(num_places: usize, layers: Vec<Layer<'a>>) -> Self {
        let mut left_out = vec![LeftOut::default(); num_places];
        let mut committed = Committed::default();
        let mut open: BTreeMap<(u64, u64), OpenLine> = BTreeMap::new();
        let mut partial = Vec::new();
        for (place, records) in layers {
            let mut given = Vec::with_capacity(records.len());
            for record in records {
                let range = record.range;
                let mut parts = committed.lacking(&range);
                for part in &mut parts {
                    let lines = |part: &(u64, u64)| (range.source_id, part.0)..(range.source_id, part.1);
                    while let Some((key, line)) = open.range(lines(part)).next() {
                        let key = *key;
                        if line.record.range.end_byte < part.1 {
                            // the line has grown: of it, the earlier place has a beginning only
                            left_out[line.place].chunks.insert(line.record.chunk_id);
                            open.remove(&key);
                        } else {
                            part.1 = key.1;
                        }
                    }
                }
                parts.retain(|(first, end)| first < end);
                if parts.is_empty() {
                    left_out[place].chunks.insert(record.chunk_id);
                    continue;
                }
                if parts != [(range.first_byte, range.end_byte)] {
                    partial.push((place, record, parts));
                }
                given.push(record);
            }
            // ranges of one place do not overlap each other
            for record in given {
                match record.open {
                    true => {
                        let line = OpenLine { place, record: record.clone() };
                        open.insert((record.range.source_id, record.range.first_byte), line);
                    }
                    false => committed.insert(record),
                }
            }
        }
        for line in open.values() {
            committed.insert(&line.record);
        }
        Self { left_out, committed, open, partial }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::tests::record;
    use crate::model::TypeRows;

    /// Ten bytes a line.
    fn lines(source: u64, first: u64, end: u64) -> ChunkRecord {
        let num_lines = (end - first) / 10;
        ChunkRecord { num_lines, chunk_id: chunk_id(source, first), ..record(source, first, end) }
    }

    fn chunk_id(source: u64, first: u64) -> i64 {
        crate::model::chunk_id(source, first)
    }

    fn left_out(places: &[&[ChunkRecord]]) -> Vec<LeftOut> {
        divide(places, &[]).unwrap().left_out.iter().map(|of| of.of(CHUNKS).clone()).collect()
    }

    #[test]
    fn a_chunk_that_an_earlier_place_holds_is_left_out_however_it_was_cut() {
        let one = [lines(1, 0, 100), lines(1, 100, 200), lines(2, 0, 50)];
        let other = [lines(1, 0, 50), lines(1, 50, 150), lines(1, 150, 200), lines(3, 0, 10)];
        let division = left_out(&[&one, &other]);
        assert!(division[0].is_empty());
        assert_eq!(division[1].chunks, [0, 50, 150].map(|byte| chunk_id(1, byte)).into());
        assert!(division[1].parts.is_empty());
        assert!(left_out(&[&one, &[]]).iter().all(LeftOut::is_empty));
    }

    #[test]
    fn of_a_chunk_held_in_part_the_lacking_lines_are_given() {
        let one = [lines(1, 0, 30), lines(1, 50, 70)];
        let other = [lines(1, 0, 100)];
        // what lies between 30 and 50 is not told by the first, but follows from the whole and the beginning
        let Err(Undivided::Uncounted(uncounted)) = divide(&[&one, &other], &[]) else {
            panic!("they are told")
        };
        assert_eq!(uncounted[0].bytes, [50, 70].into());
        let counted = Counted { source_id: 1, first_byte: 0, end_byte: 50, lines: 5 };
        let division = divide(&[&one, &other], &[counted]).unwrap();
        assert_eq!(division.left_out[1].of(CHUNKS).parts, [(chunk_id(1, 0), vec![(3, 5), (7, 10)])].into());
        assert!(division.left_out[1].of(CHUNKS).chunks.is_empty());
        assert_eq!(division.committed.ledger().sources[&1].committed, [(0, 100)]);
    }

    #[test]
    fn neighbours_tell_the_lines_of_a_chunk_whose_beginning_no_other_place_shares() {
        let one = [lines(1, 0, 70)];
        let other = [lines(1, 0, 40), lines(1, 40, 120)];
        let second = &left_out(&[&one, &other])[1];
        assert_eq!(second.chunks, [chunk_id(1, 0)].into());
        assert_eq!(second.parts, [(chunk_id(1, 40), vec![(3, 8)])].into());
    }

    #[test]
    fn a_line_that_has_grown_is_read_where_it_is_longest() {
        let open = ChunkRecord { open: true, num_lines: 1, ..lines(1, 90, 95) };
        let longer = lines(1, 90, 120);
        let grown = left_out(&[std::slice::from_ref(&open), std::slice::from_ref(&longer)]);
        assert_eq!(grown[0].chunks, [chunk_id(1, 90)].into());
        assert!(grown[1].is_empty());
        let grown = left_out(&[&[longer], &[open]]);
        assert!(grown[0].is_empty());
        assert_eq!(grown[1].chunks, [chunk_id(1, 90)].into());
    }

    #[test]
    fn a_line_that_has_grown_within_a_longer_chunk_is_read_there_too() {
        let open = ChunkRecord { open: true, num_lines: 1, ..lines(1, 90, 95) };
        let division = divide(&[&[lines(1, 0, 90), open.clone()], &[lines(1, 0, 120)]], &[]).unwrap();
        assert_eq!(division.left_out[0].of(CHUNKS).chunks, [chunk_id(1, 90)].into());
        assert_eq!(division.left_out[1].of(CHUNKS).parts, [(chunk_id(1, 0), vec![(9, 12)])].into());
        assert!(division.open.is_empty());
        // the same line in both places is the first's
        let both = [lines(1, 0, 90), open.clone()];
        let division = divide(&[&both, &[lines(1, 0, 90), open]], &[]).unwrap();
        assert!(division.left_out[0].of(CHUNKS).is_empty());
        assert_eq!(division.left_out[1].of(CHUNKS).chunks, [chunk_id(1, 0), chunk_id(1, 90)].into());
        assert_eq!(division.open.len(), 1);
    }

    #[test]
    fn a_third_place_gives_what_the_first_two_lack() {
        let (one, two) = ([lines(1, 0, 50)], [lines(1, 0, 100)]);
        let three = [lines(1, 0, 100), lines(1, 100, 150)];
        let division = left_out(&[&one, &two, &three]);
        assert_eq!(division[1].parts, [(chunk_id(1, 0), vec![(5, 10)])].into());
        assert_eq!(division[2].chunks, [chunk_id(1, 0)].into());
    }

    fn table_names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// With a row of each type and a reject, and the rest blank.
    fn part_of(source: u64, first: u64, end: u64, elsewhere: &[&str]) -> ChunkRecord {
        let of_type = || TypeRows { rows: 1, hash: String::new(), refused: 0 };
        let types = ["auth", "dns"].map(|name| (name.to_owned(), of_type()));
        let whole = lines(source, first, end);
        let num_blanks = whole.num_lines.saturating_sub(3);
        let elsewhere = table_names(elsewhere);
        ChunkRecord { types: types.into(), num_rows: 2, num_rejects: 1, num_blanks, elsewhere, ..whole }
    }

    #[test]
    fn parts_of_a_chunk_are_each_given_by_the_place_that_has_them() {
        let one = [part_of(1, 0, 100, &["dns"])];
        let other = [part_of(1, 0, 100, &["auth", "blanks", "rejects"])];
        for places in [[&one[..], &other], [&other, &one]] {
            let division = divide(&places, &[]).unwrap();
            assert!(division.lacking.is_empty());
            for (place, left_out) in division.left_out.iter().enumerate() {
                for table in ["auth", "dns", "rejects", "blanks"] {
                    assert!(left_out.of(table).is_empty(), "{table} of {place}");
                }
                assert_eq!(left_out.of(CHUNKS).is_empty(), place == 0, "each byte once");
                assert!(left_out.of_entries().is_empty());
            }
        }
        let alone = divide(&[&one], &[]).unwrap();
        assert_eq!(alone.lacking, [(0, table_names(&["dns"]))].into());
    }

    #[test]
    fn a_place_that_has_all_of_a_byte_comes_before_those_that_have_parts() {
        let one = [part_of(1, 0, 100, &["dns"])];
        let other = [part_of(1, 0, 100, &["auth", "blanks", "rejects"])];
        let whole = [part_of(1, 0, 100, &[])];
        let division = divide(&[&one, &other, &whole], &[]).unwrap();
        assert!(
            division.lacking.is_empty()
                && division.left_out[2]
                    == LeftOutOfPlace {
                        tables: division.left_out[2]
                            .tables
                            .keys()
                            .map(|name| (name.clone(), LeftOut::default()))
                            .collect(),
                        ..LeftOutOfPlace::default()
                    }
        );
        let chunk = chunk_id(1, 0);
        for (place, tables) in
            [(0, ["auth", "blanks", "rejects", CHUNKS]), (1, ["dns", "dns", "dns", CHUNKS])]
        {
            for table in tables {
                assert_eq!(division.left_out[place].of(table).chunks, [chunk].into(), "{table} of {place}");
            }
            assert_eq!(division.left_out[place].of_entries().chunks, [chunk].into());
        }
    }

    #[test]
    fn a_line_that_has_grown_in_one_place_is_not_read_short_in_another() {
        let open = |end, elsewhere: &[&str]| ChunkRecord {
            open: true,
            num_lines: 1,
            ..part_of(1, 90, end, elsewhere)
        };
        let short = [open(95, &["dns"])];
        let grown = [part_of(1, 90, 120, &["auth", "blanks", "rejects"])];
        for (places, of_short) in [([&short[..], &grown], 0), ([&grown[..], &short], 1)] {
            let division = divide(&places, &[]).unwrap();
            for table in ["auth", "rejects", "blanks", CHUNKS] {
                assert_eq!(division.left_out[of_short].of(table).chunks, [chunk_id(1, 90)].into(), "{table}");
            }
            assert!(division.left_out[1 - of_short].of("dns").is_empty());
        }
    }

    #[test]
    fn a_refused_row_goes_with_its_table_and_not_with_the_rejects() {
        let mut refusing = part_of(1, 0, 100, &["auth", "blanks", "rejects"]);
        if let Some(dns) = refusing.types.get_mut("dns") {
            *dns = TypeRows { rows: 0, refused: 1, hash: String::new() };
        }
        refusing.num_rejects += 1;
        let rest = [part_of(1, 0, 100, &["dns"])];
        let refusing = [refusing];
        let division = divide(&[&rest, &refusing], &[]).unwrap();
        assert!(division.left_out.iter().all(|left_out| left_out.of(REJECTS).is_empty()));
        // another place has its row: then it is no reject
        let dns = [part_of(1, 0, 100, &["auth", "blanks", "rejects"])];
        let division = divide(&[&rest, &dns, &refusing], &[]).unwrap();
        assert_eq!(division.left_out[2].of(REJECTS).chunks, [chunk_id(1, 0)].into());
        // it is among rejects that this place gives, and the table of its row is another's
        let mut mixed = refusing[0].clone();
        mixed.elsewhere = table_names(&["auth"]);
        let torn = divide(&[&dns, &[mixed.clone()]], &[]).unwrap_err();
        assert_eq!(torn, Undivided::Torn { place: 1, record: Box::new(mixed) });
    }

    /// A table, and a line of the source.
    type Row = (&'static str, u64);

    const TABLES: [&str; 4] = ["auth", "dns", REJECTS, BLANKS];
    const LINES: u64 = 12;

    /// What each place gives of the lines of a source: the naive twin, line by line.
    fn naive(places: &[Vec<ChunkRecord>]) -> Vec<BTreeSet<Row>> {
        let mut given = vec![BTreeSet::new(); places.len()];
        for (table, line) in TABLES.iter().flat_map(|table| (0..LINES).map(move |line| (*table, line))) {
            let holds = |records: &[ChunkRecord], is_part: bool| {
                records.iter().any(|record| {
                    (record.range.first_byte..record.range.end_byte).contains(&(line * 10))
                        && record.is_part() == is_part
                        && !record.elsewhere.contains(table)
                })
            };
            let first = |is_part| places.iter().position(|records| holds(records, is_part));
            if let Some(place) = first(false).or_else(|| first(true)) {
                given[place].insert((table, line));
            }
        }
        given
    }

    /// The same, as the division says.
    fn divided(places: &[Vec<ChunkRecord>], left_out: &[LeftOutOfPlace]) -> Vec<BTreeSet<Row>> {
        let of_place = |(records, left_out): (&Vec<ChunkRecord>, &LeftOutOfPlace)| {
            let mut given = BTreeSet::new();
            for (record, table) in records.iter().flat_map(|record| TABLES.map(|table| (record, table))) {
                if record.elsewhere.contains(table) || left_out.of(table).chunks.contains(&record.chunk_id) {
                    continue;
                }
                let first = record.range.first_byte / 10;
                let parts = left_out.of(table).parts.get(&record.chunk_id);
                let is_given =
                    |line: u64| parts.is_none_or(|parts| parts.iter().any(|of| (of.0..of.1).contains(&line)));
                given.extend(
                    (0..record.num_lines).filter(|line| is_given(*line)).map(|line| (table, first + line)),
                );
            }
            given
        };
        places.iter().zip(left_out).map(of_place).collect()
    }

    /// Chunks of one place: where each ends, whether it is there, and what went elsewhere.
    fn ledger() -> impl Strategy<Value = Vec<ChunkRecord>> {
        let elsewhere = prop::sample::subsequence(TABLES.to_vec(), 0..TABLES.len());
        prop::collection::vec((1..6u64, any::<bool>(), elsewhere), 1..6).prop_map(|chunks| {
            let (mut first, mut records) = (0, Vec::new());
            for (num_lines, is_there, elsewhere) in chunks {
                let end = (first + num_lines).min(LINES);
                if is_there && first < end {
                    records.push(part_of(1, first * 10, end * 10, &elsewhere));
                }
                first = end;
            }
            records
        })
    }

    proptest! {
        #[test]
        fn every_line_of_every_table_is_given_once_as_a_naive_division_says(
            places in prop::collection::vec(ledger(), 1..4),
        ) {
            let slices: Vec<&[ChunkRecord]> = places.iter().map(|records| &records[..]).collect();
            // what ledgers do not tell is counted, as a caller does
            let counted: Vec<Counted> = (0..LINES)
                .map(|line| Counted { source_id: 1, first_byte: line * 10, end_byte: line * 10 + 10, lines: 1 })
                .collect();
            let division = divide(&slices, &counted).unwrap();
            prop_assert_eq!(divided(&places, &division.left_out), naive(&places));
            // who joins rows with the ledger finds the entry of each
            for (records, left_out) in places.iter().zip(&division.left_out) {
                for record in records {
                    let gives = TABLES.iter().any(|table| {
                        record.rows_in(table) > 0 && !left_out.of(table).chunks.contains(&record.chunk_id)
                    });
                    prop_assert!(!gives || !left_out.of_entries().chunks.contains(&record.chunk_id));
                }
            }
        }
    }
}
