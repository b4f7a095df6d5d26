//! The compiled generator: templates and choosers become a flat list of pieces per type.
//!
//! Invariant: per line the stream gives one number for the type, one for the milliseconds, then one per
//! capture in template order; so a seed's bytes change only when a type file does.
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use chrono::{DateTime, Datelike};

use super::random::Random;
use super::{Chooser, GenerateError, GenerateSpec};
use crate::log_type::LogType;
use crate::log_type::template::to_text;

/// 2024-01-15T00:00:00Z, the time of line 0, in seconds since the epoch.
const BASE_SECONDS: u64 = 1_705_276_800;
const SECONDS_PER_DAY: u64 = 86_400;
const EXTERNAL_ADDRESSES: usize = 500;
/// An address range or numbered name up to this many values is rendered once, not once per line.
const RENDERED_AHEAD: u64 = 65_536;

/// A log type as the generator needs it.
#[derive(Debug, Clone)]
pub struct LineType {
    /// Its name, for messages and `--types`.
    pub name: String,
    /// Its canonical line template: captures as `{column}` or `{column*}`, `{ }` for a space. `{timestamp}`
    /// gets the line's time as RFC 3339 with milliseconds in UTC.
    pub template: String,
    /// Its `[generate]` table.
    pub spec: GenerateSpec,
}

impl LineType {
    /// A declared type, if it has a `[generate]` table.
    pub fn of(log_type: &LogType) -> Option<Result<Self, GenerateError>> {
        let generate = log_type.generate.clone()?;
        Some(Self::try_new(log_type.name(), &to_text(&log_type.variants[0].parts), generate))
    }

    /// Reads the `[generate]` table of a type file.
    pub fn try_new(name: &str, template: &str, generate: toml::Table) -> Result<Self, GenerateError> {
        let spec = generate.try_into().map_err(|error: toml::de::Error| GenerateError::BadSpec {
            log_type: name.to_owned(),
            reason: error.message().replace('\n', ", "),
        })?;
        Ok(Self { name: name.to_owned(), template: template.to_owned(), spec })
    }
}

/// An endless run of lines: line `i` has the time 2024-01-15T00:00:00Z + `i` seconds + 0..999 ms.
#[derive(Debug)]
pub struct Generator {
    random: Random,
    types: Vec<Vec<Piece>>,
    /// For each unit of weight, the type that it falls to.
    type_of_weight: Vec<usize>,
    clock: Clock,
}

#[derive(Debug)]
enum Piece {
    Literal(Vec<u8>),
    Time,
    /// One of these, each as often as it stands here.
    Text(Vec<Vec<u8>>),
    Int {
        first: u64,
        count: u64,
    },
    Ip {
        first: u32,
        count: u64,
    },
}

impl Generator {
    /// Compiles the types; their order does not matter. Fails where a `[generate]` table does not fit its
    /// template.
    pub fn try_new(types: &[LineType], seed: u64) -> Result<Self, GenerateError> {
        let mut types: Vec<&LineType> = types.iter().collect();
        types.sort_by(|a, b| a.name.cmp(&b.name));
        let mut random = Random::new(seed);
        let external = external_addresses(&mut random);
        let mut type_of_weight = Vec::new();
        let mut compiled = Vec::with_capacity(types.len());
        for (index, log_type) in types.iter().enumerate() {
            let bad = |reason| GenerateError::BadSpec { log_type: log_type.name.clone(), reason };
            if !(1..=10_000).contains(&log_type.spec.weight) {
                return Err(bad("weight must be 1 to 10000".to_owned()));
            }
            type_of_weight.extend(std::iter::repeat_n(index, log_type.spec.weight as usize));
            compiled.push(compile(log_type, &external).map_err(bad)?);
        }
        if type_of_weight.is_empty() {
            return Err(GenerateError::NoTypes);
        }
        Ok(Self { random, types: compiled, type_of_weight, clock: Clock::new() })
    }

    /// Appends the next line, with its newline, to `out`.
    pub fn next_line(&mut self, out: &mut Vec<u8>) {
        let random = &mut self.random;
        let log_type = self.type_of_weight[random.below(self.type_of_weight.len() as u64) as usize];
        self.clock.set_milliseconds(random.below(1000));
        for piece in &self.types[log_type] {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text),
                Piece::Time => out.extend_from_slice(&self.clock.text),
                Piece::Text(texts) => {
                    out.extend_from_slice(&texts[random.below(texts.len() as u64) as usize]);
                }
                Piece::Int { first, count } => push_int(out, first + random.below(*count)),
                Piece::Ip { first, count } => push_ip(out, first + random.below(*count) as u32),
            }
        }
        out.push(b'\n');
        self.clock.next_second();
    }
}

fn external_addresses(random: &mut Random) -> Vec<Vec<u8>> {
    let mut addresses = Vec::with_capacity(EXTERNAL_ADDRESSES);
    while addresses.len() < EXTERNAL_ADDRESSES {
        let (a, b, c) = (random.below(256) as u8, random.below(256) as u8, 1 + random.below(254) as u8);
        let text = Ipv4Addr::new(10, a, b, c).to_string().into_bytes();
        if !addresses.contains(&text) {
            addresses.push(text);
        }
    }
    addresses
}

fn compile(log_type: &LineType, external: &[Vec<u8>]) -> Result<Vec<Piece>, String> {
    let spec = &log_type.spec;
    let mut unused: BTreeSet<&str> = spec.columns.keys().map(String::as_str).collect();
    let mut pieces = Vec::new();
    let mut rest = spec.line.as_deref().unwrap_or(&log_type.template);
    while let Some((literal, behind)) = rest.split_once('{') {
        let (capture, behind) =
            behind.split_once('}').ok_or_else(|| format!("template: `{{{behind}` lacks its `}}`"))?;
        let column = capture.strip_suffix('*').unwrap_or(capture);
        push_literal(&mut pieces, literal);
        match column {
            "timestamp" => pieces.push(Piece::Time),
            " " => push_literal(&mut pieces, " "),
            _ => {
                let chooser = spec.columns.get(column).ok_or_else(|| {
                    format!("column {column} is in the template but not here; add it, or a simpler template as `line`")
                })?;
                pieces.push(compile_chooser(chooser, external).map_err(|e| format!("column {column}: {e}"))?);
            }
        }
        unused.remove(column);
        rest = behind;
    }
    push_literal(&mut pieces, rest);
    match unused.first() {
        Some(column) => Err(format!("column {column} is not in the template; remove it")),
        None => Ok(pieces),
    }
}

fn push_literal(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Literal(text.as_bytes().to_vec()));
    }
}

fn compile_chooser(chooser: &Chooser, external: &[Vec<u8>]) -> Result<Piece, String> {
    let piece = match chooser {
        Chooser::OneOf(texts) => Piece::Text(texts.iter().map(|t| t.clone().into_bytes()).collect()),
        Chooser::Weighted(texts) => {
            if texts.iter().any(|(_, weight)| *weight > 10_000) {
                return Err("a weight must be at most 10000".to_owned());
            }
            let repeat = |(text, weight): &(String, u32)| vec![text.clone().into_bytes(); *weight as usize];
            Piece::Text(texts.iter().flat_map(repeat).collect())
        }
        Chooser::Int([first, last]) => Piece::Int { first: *first, count: count_of(*first, *last)? },
        Chooser::IpRange([first, last]) => {
            let (first, last) = (first.to_bits(), last.to_bits());
            let count = count_of(first.into(), last.into())?;
            if count <= RENDERED_AHEAD {
                let render = |bits| Ipv4Addr::from_bits(bits).to_string().into_bytes();
                Piece::Text((first..=last).map(render).collect())
            } else {
                Piece::Ip { first, count }
            }
        }
        Chooser::ExternalIp(count) => {
            let addresses = external
                .get(..*count as usize)
                .ok_or_else(|| format!("external_ip must be 1 to {EXTERNAL_ADDRESSES}"))?;
            Piece::Text(addresses.to_vec())
        }
        Chooser::Numbered(numbered) => {
            let [first, last] = numbered.range;
            let digits = usize::from(numbered.digits);
            if count_of(first, last)? > RENDERED_AHEAD {
                return Err(format!("range must hold at most {RENDERED_AHEAD} numbers"));
            }
            let render = |n| format!("{}{n:0digits$}", numbered.prefix).into_bytes();
            Piece::Text((first..=last).map(render).collect())
        }
    };
    match &piece {
        Piece::Text(texts) if texts.is_empty() => Err("there is nothing to choose from".to_owned()),
        _ => Ok(piece),
    }
}

fn count_of(first: u64, last: u64) -> Result<u64, String> {
    let count = last.checked_sub(first).and_then(|span| span.checked_add(1));
    count.ok_or_else(|| format!("range {first} to {last} is empty or too large; give the least value first"))
}

fn push_int(out: &mut Vec<u8>, mut number: u64) {
    let mut text = [0; 20];
    let mut start = text.len();
    loop {
        start -= 1;
        text[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[start..]);
}

fn push_ip(out: &mut Vec<u8>, bits: u32) {
    for (index, octet) in bits.to_be_bytes().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        push_int(out, octet.into());
    }
}

/// The current line's time, kept as text: only the digits that change are written.
#[derive(Debug)]
struct Clock {
    seconds: u64,
    /// `2024-01-15T00:00:00.000Z`
    text: [u8; 24],
}

impl Clock {
    fn new() -> Self {
        let mut clock = Self { seconds: BASE_SECONDS, text: *b"2024-01-15T00:00:00.000Z" };
        clock.set_day();
        clock
    }

    fn set_milliseconds(&mut self, milliseconds: u64) {
        self.text[20] = b'0' + (milliseconds / 100) as u8;
        self.set_pair(21, milliseconds % 100);
    }

    fn next_second(&mut self) {
        self.seconds += 1;
        let of_day = self.seconds % SECONDS_PER_DAY;
        self.set_pair(17, of_day % 60);
        if of_day.is_multiple_of(60) {
            self.set_pair(14, of_day / 60 % 60);
            self.set_pair(11, of_day / 3600);
        }
        if of_day == 0 {
            self.set_day();
        }
    }

    fn set_day(&mut self) {
        let date = DateTime::from_timestamp(self.seconds as i64, 0).unwrap_or_default();
        let year = date.year() as u64;
        self.set_pair(0, year / 100);
        self.set_pair(2, year % 100);
        self.set_pair(5, date.month().into());
        self.set_pair(8, date.day().into());
    }

    fn set_pair(&mut self, at: usize, number: u64) {
        self.text[at] = b'0' + (number / 10) as u8;
        self.text[at + 1] = b'0' + (number % 10) as u8;
    }
}
