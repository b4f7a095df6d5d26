//! Walks a log type's line program along the lines of a block: which variant takes each, and where its values are.
//!
//! A step is taken by all lines of the block before the next step is, so that what a step needs stays in registers
//! and its branches go one way. Invariant: what comes out for a line is as if it had walked alone: the first
//! variant, in declaration order, that takes the whole line wins. A capture goes to the first (or last) occurrence
//! of what follows it and is never retried further on. Deliberately absent: the values themselves; `column` reads
//! them later, a column at a time.
use std::mem;

use super::scan::Window;
#[cfg(target_arch = "x86_64")]
use super::vectors::Avx2;
use crate::log_type::program::{Node, Step, Stop};
use crate::log_type::timestamp::{Parser, Timestamp};

mod diagnosis;
mod track;

pub(super) use track::Track;

/// Lines of a block: few enough that they, their places and their values' places stay in the second-level cache, and
/// as many as a byte can count, which then needs no check as an index.
pub(super) const BLOCK_LINES: usize = 256;

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

/// The variant that took a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    variant: u16,
    /// Padding was single spaces, as a rendered line has it.
    exact: bool,
}

/// How far a line has walked.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    at: u32,
    line: u8,
    exact: bool,
}

const NOWHERE: Cursor = Cursor { at: 0, line: 0, exact: false };

/// What was read as the event time at a place, which types share.
#[derive(Debug, Clone, Copy)]
struct TimeRead {
    micros: i64,
    at: u32,
    form: u16,
    /// 0: there is none.
    len_bytes: u16,
}

impl TimeRead {
    fn of(at: u32, timestamp: Option<Timestamp>) -> Self {
        match timestamp {
            Some(Timestamp { micros, form, len_bytes }) => {
                Self { micros, at, form, len_bytes: len_bytes as u16 }
            }
            None => Self { at, ..NOTHING_READ },
        }
    }
}

type ByLine<T> = Box<[T; BLOCK_LINES]>;

const NOTHING_READ: TimeRead = TimeRead { micros: 0, at: u32::MAX, form: 0, len_bytes: 0 };

/// Walks programs; holds what was found on the way, by line of the block.
#[derive(Debug)]
pub(super) struct Matcher {
    /// In the window.
    starts: ByLine<u32>,
    ends: ByLine<u32>,
    /// By slot. Slots that the variant of a line does not capture hold leftovers.
    spans: Vec<[Span; BLOCK_LINES]>,
    taken: ByLine<Option<Taken>>,
    times: ByLine<TimeRead>,
    /// Lines that have come to a branch, by how many branches there were before.
    at_branch: Vec<Vec<Cursor>>,
    spare: Vec<Cursor>,
    /// Where the window begins in the chunk.
    base: u32,
    parser: Parser,
    reference_time: i64,
    /// If the processor has it.
    #[cfg(target_arch = "x86_64")]
    avx2: Option<Avx2>,
}

impl Matcher {
    /// For programs of types with at most `num_slots` slots.
    pub(super) fn new(num_slots: usize) -> Self {
        Self {
            starts: Box::new([0; BLOCK_LINES]),
            ends: Box::new([0; BLOCK_LINES]),
            spans: vec![[Span::NULL; BLOCK_LINES]; num_slots],
            taken: Box::new([None; BLOCK_LINES]),
            times: Box::new([NOTHING_READ; BLOCK_LINES]),
            at_branch: Vec::new(),
            spare: Vec::new(),
            base: 0,
            parser: Parser::default(),
            reference_time: 0,
            #[cfg(target_arch = "x86_64")]
            avx2: Avx2::detect(),
        }
    }

    /// For tests: as on a processor that has nothing but the least.
    #[cfg(all(test, target_arch = "x86_64"))]
    pub(super) fn forgo_avx2(&mut self) {
        self.avx2 = None;
    }

    /// Dates without a year are read relative to this time.
    pub(super) fn set_reference_time(&mut self, micros: i64) {
        self.reference_time = micros;
    }

    /// Begins a block: at most [`BLOCK_LINES`] lines by first and end byte of the chunk, in a window that begins at
    /// `base` of the chunk.
    pub(super) fn begin_block(&mut self, lines: impl Iterator<Item = (u32, u32)>, base: u32) {
        self.base = base;
        let places = self.starts.iter_mut().zip(self.ends.iter_mut());
        for ((first, last), (start, end)) in places.zip(lines) {
            (*first, *last) = (start - base, end - base);
        }
        self.taken.fill(None);
        self.times.fill(NOTHING_READ);
    }

    /// Looks which variants of `program` take which of these lines, which none took before.
    pub(super) fn walk(&mut self, program: &[Node], window: Window<'_>, lines: &[u8]) {
        let mut cursors = mem::take(self.branch(0));
        cursors.clear();
        let starts = &self.starts;
        cursors.extend(lines.iter().map(|line| Cursor {
            line: *line,
            exact: true,
            at: starts[usize::from(*line)],
        }));
        *self.branch(0) = cursors;
        self.walk_branch(program, window, 0);
    }

    fn branch(&mut self, depth: usize) -> &mut Vec<Cursor> {
        if self.at_branch.len() <= depth {
            self.at_branch.resize_with(depth + 1, Vec::new);
        }
        &mut self.at_branch[depth]
    }

    /// Walks on with the lines that are at the branch of this depth.
    fn walk_branch(&mut self, mut nodes: &[Node], window: Window<'_>, depth: usize) {
        let mut cursors = mem::take(self.branch(depth));
        // most nodes have one successor
        while let [node] = nodes
            && !cursors.is_empty()
        {
            let mut stepped = mem::take(&mut self.spare);
            self.step(node, window, &cursors, &mut stepped);
            self.spare = mem::replace(&mut cursors, stepped);
            nodes = &node.next;
        }
        for node in nodes {
            if cursors.is_empty() {
                break;
            }
            let mut stepped = mem::take(self.branch(depth + 1));
            self.step(node, window, &cursors, &mut stepped);
            let is_over = stepped.is_empty();
            *self.branch(depth + 1) = stepped;
            if !is_over {
                self.walk_branch(&node.next, window, depth + 1);
            }
            let taken = &self.taken;
            cursors.retain(|cursor| taken[usize::from(cursor.line)].is_none());
        }
        *self.branch(depth) = cursors;
    }

    /// Takes a step with each of `cursors`; those that can go on are in `stepped`. Lines that end here are taken.
    fn step(&mut self, node: &Node, window: Window<'_>, cursors: &[Cursor], stepped: &mut Vec<Cursor>) {
        self.advance(&node.step, window, cursors, stepped);
        if let Some(variant) = node.accept {
            let Self { ends, taken, .. } = self;
            stepped.retain(|cursor| {
                let line = usize::from(cursor.line);
                let is_over = cursor.at == ends[line];
                if is_over {
                    taken[line] = Some(Taken { variant, exact: cursor.exact });
                }
                !is_over
            });
        }
    }

    fn advance(&mut self, step: &Step, window: Window<'_>, cursors: &[Cursor], stepped: &mut Vec<Cursor>) {
        let Self { ends, spans, times, parser, reference_time, base, .. } = self;
        let ends = &**ends;
        match step {
            Step::Literal(literal) => {
                let len_bytes = literal.bytes.len() as u32;
                filter_map(cursors, stepped, |cursor| {
                    let end = ends[usize::from(cursor.line)] as usize;
                    let is_there = window.has(literal, cursor.at as usize, end);
                    (Cursor { at: cursor.at + len_bytes, ..cursor }, is_there)
                });
            }
            Step::Spaces => filter_map(cursors, stepped, |cursor| {
                let end = ends[usize::from(cursor.line)] as usize;
                let spaces = window.count_spaces(cursor.at as usize, end);
                let exact = cursor.exact & (spaces == 1);
                (Cursor { at: cursor.at + spaces as u32, exact, ..cursor }, spaces > 0)
            }),
            Step::Timestamp => filter_map(cursors, stepped, |cursor| {
                let line = usize::from(cursor.line);
                let read = &mut times[line];
                if read.at != cursor.at {
                    let text = window.slice(cursor.at as usize, ends[line] as usize);
                    *read = TimeRead::of(cursor.at, parser.parse(text, *reference_time));
                }
                let len_bytes = u32::from(read.len_bytes);
                (Cursor { at: cursor.at + len_bytes, ..cursor }, len_bytes > 0)
            }),
            Step::Capture { slot, word, stop } => {
                let spans = &mut spans[usize::from(*slot)];
                let capture = Capture { window, base: *base, word: *word, ends, spans };
                match stop {
                    Stop::Literal { literal, last: false } => capture.all(cursors, stepped, |at, end, _| {
                        let stop = window.find(literal, at, end)?;
                        Some((stop, stop + literal.bytes.len()))
                    }),
                    Stop::Literal { literal, last: true } => capture.all(cursors, stepped, |at, end, _| {
                        let stop = window.find_last(literal, at, end)?;
                        Some((stop, stop + literal.bytes.len()))
                    }),
                    Stop::Separator(literal) => capture.all(cursors, stepped, |at, end, _| {
                        let stop = window.find_byte(literal.bytes[0], at, end)?;
                        window.has(literal, stop, end).then(|| (stop, stop + literal.bytes.len()))
                    }),
                    Stop::Spaces => capture.all(cursors, stepped, |at, end, exact| {
                        let stop = window.find_byte(b' ', at, end)?;
                        Some((stop, skip_spaces(window, stop, end, exact)?))
                    }),
                    Stop::End => capture.all(cursors, stepped, |_, end, _| Some((end, end))),
                    Stop::EndWithout(byte) => capture.all(cursors, stepped, |at, end, _| {
                        window.find_byte(*byte, at, end).is_none().then_some((end, end))
                    }),
                }
            }
        }
    }

    /// Moves the lines that are taken from `left` to `taken`, which loses what it held. Both stay ascending.
    pub(super) fn part(&self, left: &mut Vec<u8>, taken: &mut Vec<u8>) {
        taken.clear();
        taken.resize(left.len(), 0);
        let (mut num_taken, mut num_left) = (0, 0);
        // no branch: as in `filter_map`
        for position in 0..left.len() {
            let line = left[position];
            let is_taken = self.is_taken(line);
            (left[num_left], taken[num_taken]) = (line, line);
            num_taken += usize::from(is_taken);
            num_left += usize::from(!is_taken);
        }
        taken.truncate(num_taken);
        left.truncate(num_left);
    }

    pub(super) fn is_taken(&self, line: u8) -> bool {
        self.taken[usize::from(line)].is_some()
    }

    /// The variant that took a line.
    #[inline(always)]
    pub(super) fn variant(&self, line: u8) -> u16 {
        self.taken[usize::from(line)].map_or(0, |taken| taken.variant)
    }

    /// Whether all padding of a line that is taken was single spaces.
    #[inline(always)]
    pub(super) fn is_exact(&self, line: u8) -> bool {
        self.taken[usize::from(line)].is_some_and(|taken| taken.exact)
    }

    /// The event time of a line that is taken: microseconds and form.
    #[inline(always)]
    pub(super) fn time(&self, line: u8) -> (i64, u16) {
        let TimeRead { micros, form, .. } = self.times[usize::from(line)];
        (micros, form)
    }

    /// By line, where the values of this slot are.
    pub(super) fn spans(&self, slot: usize) -> &[Span; BLOCK_LINES] {
        &self.spans[slot]
    }

    /// Notes a line that was read otherwise: its values by slot, relative to the line.
    pub(super) fn take(&mut self, line: u8, variant: u16, timestamp: Timestamp, values: &[Span]) {
        let position = usize::from(line);
        self.taken[position] = Some(Taken { variant, exact: false });
        self.times[position] = TimeRead::of(u32::MAX, Some(timestamp));
        for (slot, span) in values.iter().enumerate() {
            self.spans[slot][position] = self.absolute(line, *span);
        }
    }

    /// A place in the chunk, from one relative to a line.
    pub(super) fn absolute(&self, line: u8, span: Span) -> Span {
        match span {
            Span::NULL => span,
            span => Span { start: span.start + self.starts[usize::from(line)] + self.base, ..span },
        }
    }

    /// The text of a line.
    pub(super) fn text<'a>(&self, window: Window<'a>, line: u8) -> &'a [u8] {
        let line = usize::from(line);
        window.slice(self.starts[line] as usize, self.ends[line] as usize)
    }

    /// The event time at the start of a text.
    pub(super) fn read_timestamp(&mut self, text: &[u8]) -> Option<Timestamp> {
        self.parser.parse(text, self.reference_time)
    }
}

/// What a capture step needs.
struct Capture<'a> {
    window: Window<'a>,
    base: u32,
    word: bool,
    ends: &'a [u32; BLOCK_LINES],
    spans: &'a mut [Span; BLOCK_LINES],
}

impl Capture<'_> {
    /// `stop` says where the value that begins at a place ends, and where to go on; it is given the line's end, too.
    #[inline(always)]
    fn all(
        self,
        cursors: &[Cursor],
        stepped: &mut Vec<Cursor>,
        stop: impl Fn(usize, usize, &mut bool) -> Option<(usize, usize)>,
    ) {
        let Self { window, base, word, ends, spans } = self;
        filter_map(cursors, stepped, |cursor| {
            let (line, at, mut exact) = (usize::from(cursor.line), cursor.at as usize, cursor.exact);
            match stop(at, ends[line] as usize, &mut exact) {
                Some((end, after)) if !word || window.find_byte(b' ', at, end).is_none() => {
                    spans[line] = Span { start: base + at as u32, len_bytes: (end - at) as u32 };
                    (Cursor { at: after as u32, line: cursor.line, exact }, true)
                }
                _ => (cursor, false),
            }
        });
    }
}

/// `stepped` becomes what `step` makes of `cursors`, of those that it says can go on. No branch depends on that:
/// which of mixed lines go on, no processor foretells.
#[inline(always)]
fn filter_map(cursors: &[Cursor], stepped: &mut Vec<Cursor>, mut step: impl FnMut(Cursor) -> (Cursor, bool)) {
    stepped.resize(cursors.len(), NOWHERE);
    let mut num_stepped = 0;
    for cursor in cursors {
        let (cursor, goes_on) = step(*cursor);
        if let Some(place) = stepped.get_mut(num_stepped) {
            *place = cursor;
        }
        num_stepped += usize::from(goes_on);
    }
    stepped.truncate(num_stepped);
}

#[inline(always)]
fn skip_spaces(window: Window<'_>, at: usize, end: usize, exact: &mut bool) -> Option<usize> {
    let spaces = window.count_spaces(at, end);
    *exact &= spaces == 1;
    (spaces > 0).then_some(at + spaces)
}
