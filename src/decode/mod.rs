//! Chunk -> one Arrow batch per log type, rejects and blanks. Pure, and never fails: what cannot be decoded
//! is a reject.
//!
//! Two passes. The first goes along the lines, a block of them at a time, and notes where their values are: most lines of
//! a type take a short way, one by one (`matching::track`), the others walk the type's program together. The second
//! goes down the columns: one loop per column turns places into values. So nothing is allocated per line, and no choice
//! of type is made per value.
//!
//! Invariants: rows + rejects + blanks = lines; where a chunk is cut between lines makes no difference to them;
//! a row without `raw` renders to its line. `naive` (tests only) says what is right.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use memchr::memchr_iter;

use crate::log_type::LogTypes;
use crate::model::{
    Blank, ChunkRecord, DecodedBatch, LineEnding, RawChunk, Reject, RejectReason, TypeBatch, TypeRows,
};

mod column;
mod dictionary;
pub mod examples;
mod key_value;
mod matching;
#[cfg(test)]
mod naive;
mod needles;
mod rows;
mod scan;
mod value;
mod vectors;

use key_value::KeyValueError;
use matching::{BLOCK_LINES, Matcher};
pub use needles::Needles;
use rows::TypeRowsBuilder;
use scan::{Newlines, PADDING, Window};

/// Turns chunks into batches; keeps its buffers from one to the next.
#[derive(Debug)]
pub struct Decoder {
    types: Vec<TypeRowsBuilder>,
    matcher: Matcher,
    /// Lines that are not matched yet.
    block: Vec<BlockLine>,
    /// Of the block: lines that no type has taken, those that the last one took, and those that it had to look at closely.
    left: Vec<u8>,
    taken: Vec<u8>,
    walkers: Vec<u8>,
    /// The end of a chunk, copied to where it has padding behind it.
    tail: Vec<u8>,
}

/// A line of a block, by its places in the chunk.
#[derive(Debug, Clone, Copy)]
struct BlockLine {
    number: u32,
    /// Without its newline.
    whole: (u32, u32),
    /// Without white space around it.
    text: (u32, u32),
    /// Both are the same, but for what all lines end with.
    exact: bool,
}

impl Decoder {
    /// A decoder for lines of these types.
    pub fn new(types: &LogTypes) -> Self {
        let types: Vec<_> = types.iter().map(|log_type| TypeRowsBuilder::new(Arc::clone(log_type))).collect();
        let num_slots = types.iter().map(|builder| builder.num_slots).max();
        Self {
            types,
            matcher: Matcher::new(num_slots.unwrap_or(0)),
            block: Vec::with_capacity(BLOCK_LINES),
            left: Vec::new(),
            taken: Vec::new(),
            walkers: Vec::new(),
            tail: Vec::new(),
        }
    }

    /// A decoder that makes the rows of one log type only, and of them the columns at these positions of its table,
    /// at least one; or no rows, for rejects and blanks alone. Lines are taken by the same types as by [`Self::new`].
    pub fn only(types: &LogTypes, wanted: Option<(&str, Vec<usize>)>) -> Self {
        let mut decoder = Self::new(types);
        for builder in &mut decoder.types {
            builder.set_wanted(match &wanted {
                Some((name, columns)) if *name == builder.log_type.name() => columns.clone(),
                _ => Vec::new(),
            });
        }
        decoder
    }

    /// The rows of one chunk, of a decoder that makes those of one type; `None` where there is none. Where `needles`
    /// are given, lines that hold none of them are not looked at.
    pub fn decode_rows(&mut self, chunk: &RawChunk, needles: Option<&Needles>) -> Option<RecordBatch> {
        match needles {
            _ if chunk.piece.is_some() => {}
            Some(needles) => self.read_found_lines(chunk, needles),
            None => {
                self.read_lines(chunk, &mut Lines::default());
            }
        }
        let builder = self.types.iter_mut().find(|builder| builder.num_rows() > 0)?;
        Some(builder.finish(chunk, column::is_text(&chunk.bytes)))
    }

    fn read_found_lines(&mut self, chunk: &RawChunk, needles: &Needles) {
        let bytes: &[u8] = &chunk.bytes;
        let (mut lines, mut counted) = (Lines::default(), 0);
        let line_ending = self.start(chunk);
        for (start, end) in needles.lines(bytes) {
            lines.count += memchr_iter(b'\n', &bytes[counted..start]).count() as u64;
            // as in `read_lines`
            let carriage_return = line_ending == LineEnding::CrLf && end < bytes.len();
            self.read_line(bytes, start, end, carriage_return, &mut lines);
            counted = (end + 1).min(bytes.len());
        }
        self.match_block(bytes, &mut lines);
    }

    /// Prepares for a chunk's lines, and says what they end with.
    fn start(&mut self, chunk: &RawChunk) -> LineEnding {
        let bytes: &[u8] = &chunk.bytes;
        self.matcher.set_reference_time(chunk.reference_time);
        match memchr::memchr(b'\n', bytes) {
            Some(end) if bytes[..end].ends_with(b"\r") => LineEnding::CrLf,
            _ => LineEnding::Lf,
        }
    }

    /// Decodes one chunk, which is smaller than 2 GiB.
    pub fn decode(&mut self, chunk: &RawChunk) -> DecodedBatch {
        let mut lines = Lines::default();
        let line_ending = match chunk.piece {
            Some(piece) => {
                let len_bytes = chunk.bytes.strip_suffix(b"\n").unwrap_or(&chunk.bytes).len() as u32;
                lines.count = u64::from(piece.index == 0);
                lines.rejects.push(Reject {
                    line: 0,
                    piece: piece.index,
                    span: (0, len_bytes),
                    log_type: None,
                    column: 0,
                    reason: RejectReason::TooLong,
                });
                LineEnding::Lf
            }
            None => self.read_lines(chunk, &mut lines),
        };
        let is_clean = column::is_text(&chunk.bytes);
        let mut types = Vec::new();
        let mut rows = BTreeMap::new();
        let mut time_range: Option<(i64, i64)> = None;
        for builder in self.types.iter_mut().filter(|builder| builder.num_rows() > 0) {
            let table = &builder.log_type.table;
            let type_rows =
                TypeRows { rows: builder.num_rows() as u64, hash: table.hash.clone(), refused: 0 };
            rows.insert(table.log_type.clone(), type_rows);
            if let Some((first, last)) = builder.time_range() {
                let (earliest, latest) = time_range.unwrap_or((first, last));
                time_range = Some((earliest.min(first), latest.max(last)));
            }
            let table = Arc::clone(table);
            let batch = builder.finish(chunk, is_clean);
            types.push(TypeBatch { table, batch });
        }
        let num_rows = rows.values().map(|of_type: &TypeRows| of_type.rows).sum();
        let record = ChunkRecord {
            source: Arc::clone(&chunk.source),
            chunk_id: chunk.chunk_id(),
            range: chunk.range(),
            content_sha256: chunk.content_sha256,
            num_lines: lines.count,
            num_rows,
            num_rejects: if chunk.piece.is_some() { lines.count } else { lines.rejects.len() as u64 },
            num_blanks: lines.blanks.len() as u64,
            types: rows,
            time_range,
            line_ending,
            final_newline: chunk.bytes.ends_with(b"\n"),
            piece: chunk.piece,
            open: chunk.open,
            reference_time: chunk.reference_time,
            elsewhere: BTreeSet::new(),
        };
        DecodedBatch {
            record,
            types,
            rejects: lines.rejects,
            blanks: lines.blanks,
            bytes: chunk.bytes.clone(),
        }
    }

    fn read_lines(&mut self, chunk: &RawChunk, lines: &mut Lines) -> LineEnding {
        let bytes: &[u8] = &chunk.bytes;
        let line_ending = self.start(chunk);
        let mut start = 0;
        for end in Newlines::new(bytes) {
            self.read_line(bytes, start, end, line_ending == LineEnding::CrLf, lines);
            start = end + 1;
        }
        if start < bytes.len() {
            // nothing is rendered behind a last line without a newline, so a carriage return there is kept
            self.read_line(bytes, start, bytes.len(), false, lines);
        }
        self.match_block(bytes, lines);
        line_ending
    }

    /// One line, `bytes[start..end]` without its newline. `carriage_return`: lines are rendered with one.
    fn read_line(
        &mut self,
        bytes: &[u8],
        start: usize,
        end: usize,
        carriage_return: bool,
        lines: &mut Lines,
    ) {
        let number = lines.count as u32;
        lines.count += 1;
        let mut text = &bytes[start..end];
        let mut exact = true;
        if carriage_return {
            match text.strip_suffix(b"\r") {
                Some(stripped) => text = stripped,
                None => exact = false,
            }
        }
        let mut offset = start;
        if let (Some(first), Some(last)) = (text.first(), text.last())
            && (is_space(*first) || is_space(*last))
        {
            let trimmed = trim(text);
            offset += trimmed.as_ptr() as usize - text.as_ptr() as usize;
            exact = false;
            text = trimmed;
        }
        let span = (start as u32, end as u32);
        if text.is_empty() {
            lines.blanks.push(Blank { line: number, span });
            return;
        }
        let text = (offset as u32, (offset + text.len()) as u32);
        self.block.push(BlockLine { number, whole: span, text, exact });
        if self.block.len() == BLOCK_LINES {
            self.match_block(bytes, lines);
        }
    }

    /// Makes rows and rejects of the lines that wait.
    fn match_block(&mut self, bytes: &[u8], lines: &mut Lines) {
        let Self { types, matcher, block, left, taken, walkers, tail } = self;
        let (Some(first), Some(last)) = (block.first(), block.last()) else { return };
        let (start, end) = (first.text.0 as usize, last.text.1 as usize);
        let (window, base) = if end + PADDING <= bytes.len() {
            (Window::new(bytes), 0)
        } else {
            tail.clear();
            tail.extend_from_slice(&bytes[start..end]);
            tail.resize(end - start + PADDING, 0);
            (Window::new(tail), start as u32)
        };
        matcher.begin_block(block.iter().map(|line| line.text), base);
        left.clear();
        left.extend((0..=u8::MAX).take(block.len()));
        for builder in types.iter_mut() {
            matcher.follow(&builder.track, window, left, walkers);
            matcher.walk(&builder.log_type.program, window, walkers);
            builder.match_pairs(left, window, matcher);
            matcher.part(left, taken);
            builder.push(taken, block, matcher);
            if left.is_empty() {
                break;
            }
        }
        for line in left.iter() {
            let BlockLine { number, whole, .. } = block[usize::from(*line)];
            lines.rejects.push(diagnose(types, matcher, window, *line, number, whole));
        }
        block.clear();
    }
}

/// The reject of a line that no type takes: names the type that came nearest and how far it came.
fn diagnose(
    types: &[TypeRowsBuilder],
    matcher: &mut Matcher,
    window: Window<'_>,
    line: u8,
    number: u32,
    span: (u32, u32),
) -> Reject {
    let mut reject =
        Reject { line: number, piece: 0, span, log_type: None, column: 0, reason: RejectReason::NoTemplate };
    for builder in types {
        let log_type = &builder.log_type;
        let diagnosis = matcher.diagnose(&log_type.program, window, line);
        if diagnosis.reached > reject.column {
            reject.column = diagnosis.reached;
            reject.log_type = Some(Arc::from(log_type.name()));
        }
        let pairs = log_type.key_value.as_ref().and_then(|format| {
            let text = matcher.text(window, line);
            key_value::read(format, builder.num_slots, &builder.required, text, matcher).err()
        });
        let reason = match pairs {
            Some(KeyValueError::RequiredKey) => RejectReason::RequiredKey,
            Some(KeyValueError::Timestamp) => RejectReason::Timestamp,
            _ if diagnosis.timestamp => RejectReason::Timestamp,
            _ => continue,
        };
        return Reject {
            log_type: Some(Arc::from(log_type.name())),
            column: diagnosis.reached,
            reason,
            ..reject
        };
    }
    reject
}

/// What a chunk holds besides rows.
#[derive(Debug, Default)]
struct Lines {
    count: u64,
    rejects: Vec<Reject>,
    blanks: Vec<Blank>,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c)
}

fn trim(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !is_space(*byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_space(*byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

#[cfg(test)]
mod tests;
