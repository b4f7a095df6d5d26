//! The decoder against its naive twin: every line, and every input cut in every way, gives the same outcome.
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int16Type, Int32Type, Int64Type};
use bytes::Bytes;
use proptest::prelude::*;

use super::naive::{self, Outcome, Row};
use super::*;
use crate::log_type::ColumnType;
use crate::log_type::LogType;
use crate::log_type::render::Renderer;
use crate::log_type::template::Part;
use crate::model::{Piece, Source};

/// 2024-06-01T00:00:00Z
const REFERENCE_TIME: i64 = 1_717_200_000_000_000;

#[test]
fn the_examples_of_every_built_in_type_hold() {
    for log_type in LogTypes::load(None).unwrap().iter() {
        assert_eq!(examples::check(log_type), Vec::<String>::new(), "{}", log_type.name());
    }
}

/// Types with what the built-in ones do not use.
const TEST_TYPES: [&str; 3] = [
    r#"
name  = "app"
lines = [
  "{timestamp} [{level}] {?user={user*} ?}took{ }{duration}ms ok={ok} n={count} b={small}{?: {note}?}",
  { line = "<{timestamp}> {{{seen}}} {body}", set = { level = "json" } },
  "={timestamp}{body}",
  "{level}{ }{ratio}{ }{user*} at {timestamp}",
]
[columns]
level     = { type = "string", index = true }
timestamp = { type = "timestamp" }
user      = { type = "string" }
duration  = { type = "f64" }
ok        = { type = "bool" }
count     = { type = "i64" }
small     = { type = "u8" }
seen      = { type = "timestamp" }
body      = { type = "json" }
"#,
    r#"
name   = "pairs"
lines  = ["{timestamp};{host};level={level};n={count};from={peer};tag={tag}", "{timestamp};{host}; {level*};"]
format = "key_value"
[columns]
timestamp = { type = "timestamp" }
host      = { type = "string" }
level     = { type = "string", required = true }
count     = { type = "u32" }
peer      = { type = "ip" }
"#,
    r#"
name   = "words"
prefix = "{timestamp}{ }{host} "
lines  = ["a{ }{x}{ }z", "a {x} y", "{? ?}b{x*}", "{y}c{x}c"]
[columns]
timestamp = { type = "timestamp" }
host      = { type = "string" }
x         = { type = "string" }
y         = { type = "u64" }
"#,
];

fn built_in_types() -> LogTypes {
    LogTypes::load(None).unwrap()
}

fn all_types() -> LogTypes {
    let tests = TEST_TYPES.iter().map(|text| Arc::new(LogType::try_new("test", text).unwrap()));
    LogTypes::new(built_in_types().iter().cloned().chain(tests).collect())
}

fn chunk(bytes: Bytes, first_byte: u64) -> RawChunk {
    let source = Source {
        path: "/logs/a.log".into(),
        device: 1,
        inode: 2,
        generation: 0,
        head_len_bytes: 0,
        head_hash: 0,
        id: 3,
    };
    RawChunk {
        source: Arc::new(source),
        first_byte,
        bytes,
        content_sha256: [0; 32],
        reference_time: REFERENCE_TIME,
        piece: None,
        open: false,
    }
}

/// What the decoder made of a chunk, line by line; every line must be there once. Checks on the way what must
/// hold of any decoded chunk: the accounting, the order, and that its lines give back its bytes.
fn outcomes(types: &LogTypes, decoded: &DecodedBatch) -> Vec<Outcome> {
    let mut lines: BTreeMap<u32, (Outcome, Vec<u8>, &[u8])> = BTreeMap::new();
    let mut enter = |line: u32, outcome: Outcome, bytes: &[u8], ending: &'static [u8]| {
        assert!(
            lines.insert(line, (outcome, bytes.to_vec(), ending)).is_none(),
            "line {line} is there twice"
        );
    };
    let ending: &'static [u8] = match decoded.record.line_ending {
        LineEnding::Lf => b"\n",
        LineEnding::CrLf => b"\r\n",
    };
    let mut time_range: Option<(i64, i64)> = None;
    for rows in &decoded.types {
        let log_type = types.get(&rows.table.log_type).unwrap();
        let renderer = Renderer::try_new(log_type, &rows.batch).unwrap();
        let column = |name: &str| rows.batch.column_by_name(name).unwrap();
        let (line, form) =
            (column("line").as_primitive::<Int32Type>(), column("form").as_primitive::<Int16Type>());
        let (raw, extra) = (column("raw").as_binary::<i32>(), column("extra").as_string::<i32>());
        assert_eq!(decoded.record.types[log_type.name()].rows, rows.batch.num_rows() as u64);
        assert_eq!(decoded.record.types[log_type.name()].hash, log_type.table.hash);
        assert!(line.values().is_sorted());
        let chunk_ids = column("chunk_id").as_primitive::<Int64Type>();
        assert!(chunk_ids.values().iter().all(|id| *id == decoded.record.chunk_id));
        let times = column("timestamp").as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        for time in times.values() {
            let (first, last) = time_range.unwrap_or((*time, *time));
            time_range = Some((first.min(*time), last.max(*time)));
        }
        for row in 0..rows.batch.num_rows() {
            let values = (0..log_type.columns.len()).map(|column| {
                let mut text = Vec::new();
                renderer.value_text(column, row, &mut text).then(|| String::from_utf8(text).unwrap())
            });
            let outcome = Outcome::Row(Row {
                log_type: log_type.name().into(),
                form: form.value(row),
                values: values.collect(),
                raw: raw.is_valid(row).then(|| raw.value(row).to_vec()),
                extra: extra.is_valid(row).then(|| extra.value(row).to_owned()),
            });
            let mut bytes = Vec::new();
            let is_kept = renderer.line(row, &mut bytes);
            enter(line.value(row) as u32, outcome, &bytes, if is_kept { b"\n" } else { ending });
        }
    }
    let kept = |span: (u32, u32)| &decoded.bytes[span.0 as usize..span.1 as usize];
    for reject in &decoded.rejects {
        enter(reject.line, Outcome::Reject(reject.reason.clone()), kept(reject.span), b"\n");
        assert_eq!(reject.piece, 0);
        assert!(reject.column <= reject.span.1 - reject.span.0);
    }
    for blank in &decoded.blanks {
        enter(blank.line, Outcome::Blank, kept(blank.span), b"\n");
    }
    let record = &decoded.record;
    assert_eq!(record.num_lines, record.num_rows + record.num_rejects + record.num_blanks);
    assert_eq!(record.num_rows, record.types.values().map(|of_type| of_type.rows).sum::<u64>());
    assert_eq!(record.num_rejects, decoded.rejects.len() as u64);
    assert_eq!(record.num_blanks, decoded.blanks.len() as u64);
    assert_eq!(record.time_range, time_range);
    assert_eq!(lines.keys().copied().collect::<Vec<_>>(), (0..record.num_lines as u32).collect::<Vec<_>>());
    if let Some(mut last) = lines.last_entry()
        && !record.final_newline
    {
        last.get_mut().2 = b"";
    }
    let restored =
        lines.values().map(|(_, bytes, ending)| [bytes.as_slice(), ending].concat()).collect::<Vec<_>>();
    let restored = restored.concat();
    assert_eq!(restored.escape_ascii().to_string(), decoded.bytes.escape_ascii().to_string());
    lines.into_values().map(|(outcome, ..)| outcome).collect()
}

/// Cuts `text` behind every `lines_per_chunk`th line.
fn cuts(text: &[u8], lines_per_chunk: usize) -> Vec<Range<usize>> {
    let ends = memchr::memchr_iter(b'\n', text).map(|at| at + 1);
    let mut borders: Vec<_> = ends.skip(lines_per_chunk - 1).step_by(lines_per_chunk).collect();
    if borders.last() != Some(&text.len()) && !text.is_empty() {
        borders.push(text.len());
    }
    let starts = std::iter::once(0).chain(borders.iter().copied());
    starts.zip(borders.iter().copied()).map(|(start, end)| start..end).collect()
}

/// Decodes `text` cut in every way, and compares every chunk with the twin, line by line.
fn check(types: &LogTypes, text: &[u8]) -> Vec<Outcome> {
    let text = Bytes::copy_from_slice(text);
    // one decoder for all chunks, for nothing of a chunk may be left to the next one
    let mut decoder = Decoder::new(types);
    let mut plain_decoder = Decoder::new(types);
    #[cfg(target_arch = "x86_64")]
    plain_decoder.matcher.forgo_avx2();
    let mut read = |range: Range<usize>| {
        let bytes = text.slice(range.clone());
        let chunk = chunk(bytes.clone(), range.start as u64);
        let found = outcomes(types, &decoder.decode(&chunk));
        // on a processor that has nothing but the least
        assert_eq!(outcomes(types, &plain_decoder.decode(&chunk)), found);
        let expected = naive::decode(types, &bytes, REFERENCE_TIME);
        let lines = bytes.split(|byte| *byte == b'\n').map(|line| line.escape_ascii().to_string());
        for ((found, expected), line) in found.iter().zip(&expected).zip(lines) {
            assert_eq!(found, expected, "{line}");
        }
        assert_eq!(found.len(), expected.len());
        found
    };
    let whole = read(0..text.len());
    // a chunk's first line decides what its lines end with, so a cut through mixed endings may keep more
    let lines = || text.split_inclusive(|byte| *byte == b'\n');
    let is_uniform =
        lines().all(|line| !line.ends_with(b"\r\n")) || lines().all(|line| line.ends_with(b"\r\n"));
    for lines_per_chunk in [1, 3, 5] {
        let parts: Vec<_> = cuts(&text, lines_per_chunk).into_iter().flat_map(&mut read).collect();
        assert!(!is_uniform || parts == whole, "cut every {lines_per_chunk} lines");
    }
    whole
}

/// Numbers from a seed (splitmix64), so that a line is one number to proptest.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, number: usize) -> bool {
        self.below(number) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

const TIMES: [&str; 24] = [
    "2024-01-15T00:00:03.731Z",
    "2024-01-15T00:00:03.731Z",
    "2024-01-16T23:59:59.999Z",
    "2024-01-15T00:00:03Z",
    "2024-01-15T02:00:03.123456+02:00",
    "2024-01-15T02:00:03.1234567Z",
    "2024-01-15 02:00:03.123",
    "2024-01-15 02:00:03,5Z",
    "2023-12-31T23:59:60Z",
    "2024-02-29T00:00:00+0000",
    "Jan  5 10:11:12",
    "Jun 01 10:11:12",
    "Jun  3 10:11:12",
    "Feb 29 23:59:59",
    "Dec 31 23:59:59.5",
    "10/Oct/2000:13:55:36 -0700",
    "1705276803",
    "1705276803.731",
    "1705276803731",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
    "2024-02-30T00:00:00Z",
    "not a time",
    "",
];
const WORDS: [&str; 20] = [
    "root",
    "TCP",
    "accept",
    "web_access",
    "NOERROR",
    "A",
    "password",
    "github.com",
    "www.sub-domain.example.org",
    "admin user",
    "x from 10.0.0.1 port 1 ssh2",
    " padded ",
    "",
    "é",
    "a=b",
    "{\"a\":[1,2]}",
    "y",
    "c",
    "\"",
    "user= ",
];
const NUMBERS: [&str; 18] = [
    "0",
    "1",
    "80",
    "255",
    "256",
    "39933",
    "65535",
    "65536",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "99999999999999999999999",
    "00080",
    "+5",
    "-1",
    " 7 ",
    "12x",
];
const ADDRESSES: [&str; 12] = [
    "192.168.1.45",
    "10.51.194.72",
    "8.8.8.8",
    "255.255.255.255",
    "2001:db8::1",
    "::1",
    "2001:DB8:0::1",
    "::ffff:10.0.0.1",
    "256.1.1.1",
    "010.0.0.1",
    " 10.0.0.1",
    "unknown",
];
const FLOATS: [&str; 9] = ["1.5", "0", "-0", "1e3", "1.50", "1e999", "nan", "0.1", "123456789012345680"];
const BOOLEANS: [&str; 6] = ["true", "false", "TRUE", "no", "1", "maybe"];
const JSON: [&str; 9] =
    ["{\"a\": [1, null]}", "[]", "\"\\u00e9\"", "\"\\u0000\"", "\"\\ud800\"", "{a}", "1e400", "12", " true "];

/// Mostly a line of one of the types; sometimes a damaged one, seldom anything.
fn line(types: &LogTypes, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let types: Vec<_> = types.iter().collect();
    let log_type = random.of(&types);
    let mut line = match random.below(20) {
        0 => random.of(&["", " ", "\t\t", "\r", "\x0b\x0c", "junk", "key=value", "|", "a=1|b=2"]).into(),
        _ => valid_line(log_type, &mut random),
    };
    if log_type.key_value.is_some() && random.one_in(2) {
        line = shuffled(log_type, line, &mut random);
    }
    while random.one_in(4) {
        mutate(&mut line, &mut random);
    }
    line
}

fn valid_line(log_type: &LogType, random: &mut Random) -> Vec<u8> {
    let mut line = Vec::new();
    // few lines hold many odd values
    let oddness = random.of(&[2, 10, 10, 1000]);
    for part in &log_type.variants[random.below(log_type.variants.len())].parts {
        match part {
            Part::Literal(bytes) => line.extend(bytes),
            Part::Spaces => line.extend(random.of(&[" ", " ", " ", " ", "  ", "     "]).bytes()),
            Part::Capture { name, .. } => {
                let column = log_type.columns.iter().find(|column| column.name == *name);
                let choices: &[&str] = match column.map(|column| column.column_type) {
                    Some(ColumnType::Timestamp) => &TIMES,
                    Some(ColumnType::Ip) => &ADDRESSES,
                    Some(ColumnType::F64) => &FLOATS,
                    Some(ColumnType::Bool) => &BOOLEANS,
                    Some(ColumnType::Json) => &JSON,
                    None | Some(ColumnType::String) => &WORDS,
                    Some(_) => &NUMBERS,
                };
                let text = match random.one_in(oddness) {
                    true => random.of(choices),
                    false => random.of(&choices[..2]),
                };
                line.extend(text.bytes());
            }
        }
    }
    line
}

/// The segments of a line of pairs in another order, some missing, doubled, unknown, padded.
fn shuffled(log_type: &LogType, line: Vec<u8>, random: &mut Random) -> Vec<u8> {
    let separator = log_type.key_value.as_ref().unwrap().separator;
    let mut segments: Vec<Vec<u8>> = line.split(|byte| *byte == separator).map(<[u8]>::to_vec).collect();
    for _ in 0..random.below(6) {
        let (one, other) = (random.below(segments.len()), random.below(segments.len()));
        let unknown = random.of(&[
            "zone=dmz",
            "zone=",
            "=x",
            "loose",
            "",
            " level = a ",
            "n= 7",
            "src=::2",
            "a=b=c",
            "_=1",
        ]);
        match random.below(5) {
            0 if segments.len() > 1 => _ = segments.remove(one),
            1 => segments.swap(one, other),
            2 => segments.push(segments[one].clone()),
            3 => segments[one] = [b" ", segments[one].as_slice(), b"\t"].concat(),
            _ => segments.insert(one, unknown.into()),
        }
    }
    segments.join(&separator)
}

fn mutate(line: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(line.len() + 1);
    let odd: &[u8] = random.of(&[
        b"\0",
        b"\xff",
        b"\xc3\x28",
        b"\r",
        b"\t",
        b" ",
        b"  ",
        b"=",
        b"|",
        b" from ",
        b" port ",
        b"\"",
        b"\x0b",
        b"99999999999999999999",
        b"\xe2\x82",
        b"\\",
        b";",
        b"z",
    ]);
    match random.below(8) {
        0 if at < line.len() => _ = line.remove(at),
        1 if at < line.len() => line[at] = random.next() as u8,
        2 => line.truncate(at),
        3 => _ = line.drain(..at),
        4 => line.push(b'\r'),
        5 => *line = [b" \t", line.as_slice(), b" "].concat(),
        _ => _ = line.splice(at..at, odd.iter().copied()),
    }
    // a line is one line
    line.retain(|byte| *byte != b'\n');
}

/// What templates of random types are made of.
const TEMPLATE_PARTS: [&str; 19] = [
    "{timestamp}",
    "{a}",
    "{a*}",
    "{b}",
    "{c*}",
    "{d}",
    "{other}",
    "{ }",
    " ",
    "|",
    "|",
    "|x={a}",
    "|y={b}",
    "|z={other}",
    "{? {c}?}",
    "{?|?}",
    "x",
    "ab",
    "=",
];
const TEMPLATE_COLUMNS: &str = r#"
[columns]
a = { type = "string" }
timestamp = { type = "timestamp" }
b = { type = "u16", required = true }
c = { type = "ip" }
d = { type = "string" }
"#;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_decoder_and_its_twin_agree_and_cuts_make_no_difference(
        seeds in proptest::collection::vec(any::<u64>(), 0..40),
        ending in 0..4,
        final_newline: bool,
    ) {
        let types = all_types();
        let mut text = Vec::new();
        for seed in seeds {
            text.extend(line(&types, seed));
            // all the same, or mixed
            let is_crlf = ending == 1 || (ending == 2 && seed % 2 == 0);
            text.extend_from_slice(if is_crlf { b"\r\n" } else { b"\n" });
        }
        if !final_newline {
            text.pop();
        }
        check(&types, &text);
    }

    #[test]
    fn twins_agree_on_any_type_that_compiles(
        templates in proptest::collection::vec(proptest::collection::vec(0..TEMPLATE_PARTS.len(), 1..9), 1..5),
        is_key_value: bool,
        seeds in proptest::collection::vec(any::<u64>(), 1..20),
    ) {
        let type_of = |templates: &[String], format: &str| {
            let text = format!("name = \"any\"\nlines = {templates:?}\n{format}\n{TEMPLATE_COLUMNS}");
            LogType::try_new("any", &text).ok()
        };
        let mut templates: Vec<String> = templates
            .iter()
            .map(|parts| parts.iter().map(|part| TEMPLATE_PARTS[*part]).collect::<String>())
            .map(|template| if template.contains("{timestamp}") { template } else { format!("{{timestamp}}{template}") })
            .collect();
        templates.retain(|template| type_of(std::slice::from_ref(template), "").is_some());
        let key_value = is_key_value.then(|| type_of(&templates, "format = \"key_value\"")).flatten();
        if let Some(log_type) = key_value.or_else(|| type_of(&templates, "")) {
            let types = LogTypes::new(vec![Arc::new(log_type)]);
            let text: Vec<u8> = seeds.iter().flat_map(|seed| [line(&types, *seed), b"\n".to_vec()].concat()).collect();
            check(&types, &text);
        }
    }

    #[test]
    fn any_bytes_are_rows_rejects_and_blanks(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        check(&all_types(), &text);
    }
}

#[test]
fn most_generated_lines_are_rows_of_every_type_so_that_the_twins_meet_where_it_counts() {
    let types = all_types();
    let text: Vec<u8> = (0..4000).flat_map(|seed| [line(&types, seed), b"\n".to_vec()].concat()).collect();
    let outcomes = check(&types, &text);
    let mut rows: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for outcome in &outcomes {
        if let Outcome::Row(row) = outcome {
            let (plain, kept) = rows.entry(&row.log_type).or_default();
            *(if row.raw.is_none() { plain } else { kept }) += 1;
        }
    }
    let num_rows: usize = rows.values().map(|(plain, kept)| plain + kept).sum();
    assert!(num_rows > outcomes.len() / 2 && num_rows < outcomes.len(), "{num_rows} {rows:?}");
    assert_eq!(rows.len(), types.iter().len());
    assert!(rows.values().all(|(plain, kept)| *plain > 20 && *kept > 20), "{rows:?}");
}

/// Scenario: lines that are near to what a type's lines mostly look like, and are taken or refused nevertheless.
/// Guarantees: the short way along a line takes and refuses nothing that the program would not.
#[test]
fn the_short_way_gives_what_the_long_way_gives() {
    let columns = "[columns]\ntimestamp = { type = \"timestamp\" }\na = { type = \"string\" }\nb = { type = \"string\" }";
    let time = "2024-01-15T00:00:03.731Z";
    for (templates, rests) in [
        // the stop of a value stands in it, too
        (vec!["{timestamp}{a}||z={b}"], vec!["x|||z=1", "x||z=1", "||z=", "x|y||z=||z="]),
        // padding, and none
        (
            vec!["{timestamp}{ }{a}{ }x[{b}]"],
            vec![" h x[1]", "  h  x[1]", " h  y[1]", " h y[1]", "h x[1]", " h x[1"],
        ),
        // a value that the last of its stops ends
        (
            vec!["{timestamp} for {a*} from {b} port 1"],
            vec![
                " for x from y port 1",
                " for x from y from z port 1",
                " for x from from port 1",
                " for  from  port 1",
                " for x from f port 1",
            ],
        ),
        (vec!["{timestamp} {a*}|{b}{ }x{c}"], vec![" 1|2 3|4 x5", " 1|2 x3", " 1|2 y3"]),
        // a variant that could take what a later one is the way for
        (
            vec!["{timestamp} in {a} of b {b}", "{timestamp} in {a} {b}"],
            vec![" in x of b y", " in x y", " in x y of b z", " in of b", " in x of b"],
        ),
        (vec!["{timestamp} {a} x", "{timestamp} {a} xy"], vec![" 1 x", " 1 xy", " 1 x x", " 1 xyz", " 1"]),
        // texts of more than what is compared at once, and values of more than what is looked at at once
        (
            vec!["{timestamp} 0123456789abcdefghij {a};{b}"],
            vec![
                " 0123456789abcdefghij 1;2",
                " 0123456789abcdefghi! 1;2",
                " 0123456789abcdefghij",
                " 0123456789abcdefghij 0123456789abcdefghij0123456789abcdefghij;0123456789abcdefghij0123456789abcdefghij",
            ],
        ),
    ] {
        let text = format!("name = \"near\"\nlines = {templates:?}\n{columns}");
        let types = LogTypes::new(vec![Arc::new(LogType::try_new("near", &text).unwrap())]);
        let lines: Vec<String> = rests.iter().map(|rest| format!("{time}{rest}\n")).collect();
        check(&types, lines.concat().as_bytes());
    }
}

#[test]
fn a_piece_of_an_over_long_line_is_a_reject_that_counts_its_line_once() {
    let mut decoder = Decoder::new(&built_in_types());
    let mut piece = |index, last, bytes: &'static [u8]| {
        let piece = Some(Piece { index, last });
        decoder.decode(&RawChunk { piece, ..chunk(Bytes::from_static(bytes), 0) })
    };
    let pieces = [piece(0, false, b"xxxx"), piece(1, false, b"yyyy"), piece(2, true, b"z\r\n")];
    let counts = pieces.each_ref().map(|decoded| (decoded.record.num_lines, decoded.record.num_rejects));
    assert_eq!(counts, [(1, 1), (0, 0), (0, 0)]);
    for (index, decoded) in pieces.iter().enumerate() {
        let [reject] = decoded.rejects.as_slice() else { panic!("{decoded:?}") };
        assert_eq!((reject.piece, reject.reason.clone()), (index as u32, RejectReason::TooLong));
    }
    assert_eq!(pieces[2].rejects[0].span, (0, 2));
    assert!(pieces[2].record.final_newline && !pieces[1].record.final_newline);
}

/// The file of a real OpenSSH server is licensed for research and not part of the repository.
#[test]
fn lines_of_a_real_openssh_server_become_rows_and_hide_no_login() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/openssh_2k.log");
    let Ok(text) = std::fs::read(path) else { return };
    let types = built_in_types();
    let outcomes = check(&types, &text);
    let auth = types.get("auth").unwrap();
    let column = |name: &str| auth.columns.iter().position(|column| column.name == name).unwrap();
    let (mut num_rows, mut num_logins) = (0, 0);
    for (outcome, line) in outcomes.iter().zip(text.split(|byte| *byte == b'\n')) {
        let line = String::from_utf8_lossy(line);
        let is_login = [": Accepted ", ": Failed "].iter().any(|word| line.contains(word));
        if let Outcome::Row(row) = outcome {
            num_rows += 1;
            num_logins += usize::from(is_login);
            for name in ["username", "source_ip", "source_port"] {
                assert!(!is_login || row.values[column(name)].is_some(), "{name} of {line}");
            }
            assert!(row.values[column("event")].is_some(), "{line}");
        }
    }
    assert!(num_rows * 100 >= outcomes.len() * 99, "{num_rows} of {} lines are rows", outcomes.len());
    assert!(num_logins > 0);
}

/// `data/golden/<type>/<name>.log` becomes what `<name>.expected.json` says. `make golden` writes what is
/// missing or differs; a test never does.
#[test]
fn golden_lines_become_what_is_expected() {
    let write = std::env::var("PIPELINE_GOLDEN").is_ok_and(|mode| mode == "write");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden");
    let types = built_in_types();
    let mut seen = Vec::new();
    for type_folder in entries(&folder) {
        for log in entries(&type_folder).into_iter().filter(|path| path.extension() == Some("log".as_ref())) {
            let found = golden(&types, &check(&types, &std::fs::read(&log).unwrap()));
            let expected_path = log.with_extension("expected.json");
            if write {
                std::fs::write(&expected_path, &found).unwrap();
            }
            let expected = std::fs::read_to_string(&expected_path).unwrap_or_else(|error| {
                panic!("{}: {error}; write it with `make golden`", expected_path.display())
            });
            for (number, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
                assert_eq!(found, expected, "{} line {number}", log.display());
            }
            assert_eq!(found, expected, "{}", log.display());
            let is_this_type =
                |line: &str| line.contains(&format!("\"type\":{:?}", type_folder.file_name().unwrap()));
            assert!(found.lines().any(is_this_type), "{} has no row of its type", log.display());
        }
        seen.push(type_folder.file_name().unwrap().to_str().unwrap().to_owned());
    }
    let names: Vec<_> = types.iter().map(|log_type| log_type.name()).collect();
    assert_eq!(seen, names, "a golden folder per built-in type");
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// One JSON array, one line per log line.
fn golden(types: &LogTypes, outcomes: &[Outcome]) -> String {
    let lines: Vec<String> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Blank => serde_json::json!({"blank": true}).to_string(),
            Outcome::Reject(reason) => serde_json::json!({"reject": reason.as_str()}).to_string(),
            Outcome::Row(row) => {
                let columns = &types.get(&row.log_type).unwrap().columns;
                let values: BTreeMap<_, _> =
                    columns.iter().map(|column| &column.name).zip(&row.values).collect();
                let raw = row.raw.as_ref().map(|raw| raw.escape_ascii().to_string());
                serde_json::json!({
                    "type": row.log_type, "form": row.form, "row": values, "raw": raw, "extra": row.extra,
                })
                .to_string()
            }
        })
        .collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}
