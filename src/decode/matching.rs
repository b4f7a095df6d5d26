//! Walks a log type's line program along one line: which variant, and where its values are.
//!
//! Invariant: the first variant, in declaration order, that takes the whole line wins. A capture goes to the
//! first (or last) occurrence of what follows it and is never retried further on. Deliberately absent: the
//! values themselves; `column` reads them later, a column at a time.
use super::scan::Line;
use crate::log_type::program::{MAX_SLOTS, Node, Step, Stop};
use crate::log_type::timestamp::{Parser, Timestamp};

/// Where a value is: bytes of the chunk, or of the decoder's constants, or nowhere (NULL).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) len_bytes: u32,
}

impl Span {
    /// No value.
    pub(super) const NULL: Span = Span { start: u32::MAX, len_bytes: 0 };
    /// Set in `start` when the span is of the constants. Chunks are smaller than 2 GiB.
    pub(super) const CONSTANT: u32 = 1 << 31;
}

/// A line that a variant took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) variant: u16,
    pub(super) timestamp: Timestamp,
    /// Padding was single spaces, as a rendered line has it.
    pub(super) exact: bool,
}

/// Walks programs; holds what was captured on the way.
#[derive(Debug)]
pub(super) struct Matcher {
    /// By slot. Slots that the matched variant does not capture hold leftovers.
    pub(super) spans: [Span; MAX_SLOTS],
    /// Where the line starts in the chunk.
    offset: u32,
    parser: Parser,
    reference_time: i64,
    /// What the event time of this line was read as, from where: types share their first capture.
    timestamp_memo: Option<(usize, Option<Timestamp>)>,
    timestamp: Option<Timestamp>,
}

impl Matcher {
    pub(super) fn new() -> Self {
        Self {
            spans: [Span::NULL; MAX_SLOTS],
            offset: 0,
            parser: Parser::default(),
            reference_time: 0,
            timestamp_memo: None,
            timestamp: None,
        }
    }

    /// Dates without a year are read relative to this time.
    pub(super) fn set_reference_time(&mut self, micros: i64) {
        self.reference_time = micros;
    }

    /// Call before a new line, which starts at `offset` of the chunk.
    #[inline]
    pub(super) fn next_line(&mut self, offset: u32) {
        self.offset = offset;
        self.timestamp_memo = None;
    }

    /// Which variant of `program` takes `line`, if any.
    #[inline]
    pub(super) fn matches(&mut self, program: &[Node], line: Line<'_>) -> Option<Match> {
        self.timestamp = None;
        let (variant, exact) = self.walk(program, line, 0, true)?;
        Some(Match { variant, timestamp: self.timestamp?, exact })
    }

    fn walk(
        &mut self,
        mut nodes: &[Node],
        line: Line<'_>,
        mut at: usize,
        mut exact: bool,
    ) -> Option<(u16, bool)> {
        // most nodes have one successor: those are walked without a call each
        while let [node] = nodes {
            at = self.step(&node.step, line, at, &mut exact)?;
            match node.accept {
                Some(variant) if at == line.len_bytes() => return Some((variant, exact)),
                _ => nodes = &node.next,
            }
        }
        for node in nodes {
            let found = self.walk(std::slice::from_ref(node), line, at, exact);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Where `step` ends when it stands at `at`.
    #[inline(always)]
    fn step(&mut self, step: &Step, line: Line<'_>, at: usize, exact: &mut bool) -> Option<usize> {
        match step {
            Step::Literal(literal) => line.has(literal, at).then(|| at + literal.bytes.len()),
            Step::Spaces => skip_spaces(line, at, exact),
            Step::Timestamp => {
                let timestamp = self.read_timestamp(line, at)?;
                self.timestamp = Some(timestamp);
                Some(at + timestamp.len_bytes)
            }
            Step::Capture { slot, word, stop } => {
                let (end, after) = match stop {
                    Stop::Literal { literal, last } => {
                        let end = if *last { line.find_last(literal, at) } else { line.find(literal, at) }?;
                        (end, end + literal.bytes.len())
                    }
                    Stop::Spaces => {
                        let end = line.find_space(at)?;
                        (end, skip_spaces(line, end, exact)?)
                    }
                    Stop::Separator(literal) => {
                        let end = line.find_byte(literal.bytes[0], at, line.len_bytes())?;
                        (end, line.has(literal, end).then(|| end + literal.bytes.len())?)
                    }
                    Stop::End => (line.len_bytes(), line.len_bytes()),
                    Stop::EndWithout(byte) => match line.find_byte(*byte, at, line.len_bytes()) {
                        Some(_) => return None,
                        None => (line.len_bytes(), line.len_bytes()),
                    },
                };
                if *word && line.has_space(at, end) {
                    return None;
                }
                self.spans[usize::from(*slot)] =
                    Span { start: self.offset + at as u32, len_bytes: (end - at) as u32 };
                Some(after)
            }
        }
    }

    #[inline]
    pub(super) fn read_timestamp(&mut self, line: Line<'_>, at: usize) -> Option<Timestamp> {
        match self.timestamp_memo {
            Some((position, timestamp)) if position == at => timestamp,
            _ => {
                let timestamp = self.parser.parse(line.from(at), self.reference_time);
                self.timestamp_memo = Some((at, timestamp));
                timestamp
            }
        }
    }

    /// How far `program` gets along a line that it does not take, and whether it would take it with a
    /// readable event time.
    pub(super) fn diagnose(&mut self, program: &[Node], line: Line<'_>) -> Diagnosis {
        let mut diagnosis = Diagnosis { reached: 0, timestamp: false };
        self.explore(program, line, 0, false, &mut diagnosis);
        diagnosis
    }

    fn explore(
        &mut self,
        nodes: &[Node],
        line: Line<'_>,
        at: usize,
        guessed: bool,
        diagnosis: &mut Diagnosis,
    ) {
        for node in nodes {
            if let Some(at) = self.step(&node.step, line, at, &mut true) {
                if !guessed {
                    diagnosis.reached = diagnosis.reached.max(at as u32);
                }
                diagnosis.timestamp |= guessed && node.accept.is_some() && at == line.len_bytes();
                self.explore(&node.next, line, at, guessed, diagnosis);
            }
            if node.step == Step::Timestamp {
                // as if anything were a time; also where one can be read but goes on, as in `..Zjunk`
                diagnosis.timestamp |= node.accept.is_some();
                for next in &node.next {
                    let after = match &next.step {
                        Step::Literal(literal) => line.find(literal, at),
                        _ => line.find_space(at),
                    };
                    if let Some(after) = after {
                        self.explore(std::slice::from_ref(next), line, after, true, diagnosis);
                    }
                }
            }
        }
    }
}

/// Why a program did not take a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Diagnosis {
    /// Bytes of the line that it could read.
    pub(super) reached: u32,
    /// Only the event time is in the way.
    pub(super) timestamp: bool,
}

#[inline(always)]
fn skip_spaces(line: Line<'_>, at: usize, exact: &mut bool) -> Option<usize> {
    let spaces = line.count_spaces(at);
    *exact &= spaces == 1;
    (spaces > 0).then_some(at + spaces)
}
