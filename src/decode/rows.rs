//! The rows of one log type while a chunk is read: where their values are; then the batch they become.
//!
//! Deliberately absent: reading lines (`mod`) and values (`column`).
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BinaryBuilder, Int16Array, Int32Array, Int64Array, NullArray, RecordBatch,
    StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::Schema;

use super::BlockLine;
use super::column::{self, Outcome, Text};
use super::dictionary::Dictionary;
use super::key_value;
use super::matching::{Matcher, Span, Track};
use super::scan::Window;
use crate::log_type::program::KEY_VALUE_VARIANT;
use crate::log_type::template::Part;
use crate::log_type::{LogType, form, split_form, timestamp};
use crate::model::RawChunk;

/// The rows of one log type, as places, until the chunk is read.
#[derive(Debug)]
pub(super) struct TypeRowsBuilder {
    pub(super) log_type: Arc<LogType>,
    pub(super) track: Track,
    /// The columns of its table that are made, by position; `None`: all.
    wanted: Option<Vec<usize>>,
    /// Columns, then captures that are not declared.
    pub(super) num_slots: usize,
    slots: Vec<Slot>,
    /// Texts that templates set.
    constants: Vec<u8>,
    /// Slots that a `key_value` line must have.
    pub(super) required: Vec<u16>,
    // by row: event time, line, form,
    micros: Vec<i64>,
    numbers: Vec<i32>,
    forms: Vec<i16>,
    /// the whole line, as `raw` keeps it,
    whole: Vec<(u32, u32)>,
    /// and whether it carries its line.
    keep_raw: Vec<bool>,
    /// By slot, then row. NULL from where it ends.
    spans: Vec<Vec<Span>>,
    /// (row, key, value) of pairs whose key is unknown.
    unknown: Vec<(u32, Span, Span)>,
    /// The same of the block's lines, before they are rows.
    unknown_of_block: Vec<(u8, Span, Span)>,
    dictionaries: Vec<Dictionary>,
}

/// What a value comes from, by variant. Sets of variants are a bit each.
#[derive(Debug)]
struct Slot {
    captured_by: u64,
    /// By a text that the template gives.
    set_by: u64,
    /// Of variants that do not capture it.
    unset: [Span; 64],
}

impl TypeRowsBuilder {
    pub(super) fn new(log_type: Arc<LogType>) -> Self {
        let num_slots = log_type.columns.len() + log_type.undeclared.len();
        let mut constants = Vec::new();
        let slot_of = |name: &str| {
            let declared = log_type.columns.iter().position(|column| column.name == name);
            let undeclared = || log_type.undeclared.iter().position(|known| known == name);
            declared.or_else(|| undeclared().map(|position| log_type.columns.len() + position))
        };
        // rows of pairs have a value or NULL for every slot
        let of_pairs = 1 << KEY_VALUE_VARIANT;
        let slot = || Slot { captured_by: of_pairs, set_by: 0, unset: [Span::NULL; 64] };
        let mut slots: Vec<_> = (0..num_slots).map(|_| slot()).collect();
        for (number, variant) in log_type.variants.iter().enumerate() {
            for part in &variant.parts {
                if let Part::Capture { name, .. } = part
                    && let Some(slot) = slot_of(name)
                {
                    slots[slot].captured_by |= 1 << number;
                }
            }
            for (slot, text) in &variant.set {
                let slot = &mut slots[usize::from(*slot)];
                let start = constants.len() as u32 | Span::CONSTANT;
                slot.set_by |= 1 << number;
                slot.unset[number] = Span { start, len_bytes: text.len() as u32 };
                constants.extend_from_slice(text.as_bytes());
            }
        }
        // a column of its own
        slots[log_type.timestamp_column] = Slot { captured_by: 0, ..slot() };
        let required = (0..log_type.columns.len())
            .filter(|slot| log_type.columns[*slot].required && *slot != log_type.timestamp_column)
            .map(|slot| slot as u16)
            .collect();
        let dictionaries = log_type.columns.iter().map(|_| Dictionary::new()).collect();
        Self {
            track: Track::of(&log_type),
            num_slots,
            slots,
            constants,
            required,
            micros: Vec::new(),
            numbers: Vec::new(),
            forms: Vec::new(),
            whole: Vec::new(),
            keep_raw: Vec::new(),
            spans: vec![Vec::new(); num_slots],
            unknown: Vec::new(),
            unknown_of_block: Vec::new(),
            dictionaries,
            wanted: None,
            log_type,
        }
    }

    /// Makes these columns only; of none, lines are matched and forgotten.
    pub(super) fn set_wanted(&mut self, columns: Vec<usize>) {
        self.wanted = Some(columns);
    }

    fn is_forgotten(&self) -> bool {
        self.wanted.as_ref().is_some_and(Vec::is_empty)
    }

    /// Takes those of `lines` that are pairs of this type, which none of its templates took.
    pub(super) fn match_pairs(&mut self, lines: &[u8], window: Window<'_>, matcher: &mut Matcher) {
        let Some(format) = &self.log_type.key_value else { return };
        for &line in lines {
            if matcher.is_taken(line) {
                continue;
            }
            let text = matcher.text(window, line);
            let Ok(pairs) = key_value::read(format, self.num_slots, &self.required, text, matcher) else {
                continue;
            };
            matcher.take(line, KEY_VALUE_VARIANT, pairs.timestamp, &pairs.values);
            let unknown = pairs.unknown.into_iter();
            self.unknown_of_block.extend(
                unknown
                    .map(|(key, value)| (line, matcher.absolute(line, key), matcher.absolute(line, value))),
            );
        }
    }

    /// Adds the rows that these lines of the block, ascending, are.
    pub(super) fn push(&mut self, taken: &[u8], lines: &[BlockLine], matcher: &Matcher) {
        if self.is_forgotten() {
            self.unknown_of_block.clear();
            return;
        }
        let first = self.micros.len();
        let mut variants = 0u64;
        self.micros.extend(taken.iter().map(|line| matcher.time(*line).0));
        self.forms.extend(taken.iter().map(|line| {
            let variant = matcher.variant(*line);
            variants |= 1 << (variant % 64);
            form(variant, matcher.time(*line).1)
        }));
        self.numbers.extend(taken.iter().map(|line| lines[usize::from(*line)].number as i32));
        self.whole.extend(taken.iter().map(|line| lines[usize::from(*line)].whole));
        self.keep_raw.extend(taken.iter().map(|line| {
            let is_exact = matcher.is_exact(*line) & lines[usize::from(*line)].exact;
            !is_exact | (matcher.time(*line).1 == timestamp::OTHER)
        }));
        let num_rows = self.micros.len();
        for (slot, column) in self.spans.iter_mut().enumerate() {
            let Slot { captured_by, set_by, unset } = &self.slots[slot];
            if variants & (captured_by | set_by) == 0 {
                continue;
            }
            column.resize(first, Span::NULL);
            let spans = matcher.spans(slot);
            match taken {
                _ if variants & captured_by == 0 => column.resize(num_rows, Span::NULL),
                // all of the block, or one run of it
                [from, .., to] if usize::from(to - from) + 1 == taken.len() => {
                    column.extend_from_slice(&spans[usize::from(*from)..=usize::from(*to)]);
                }
                _ => column.extend(taken.iter().map(|line| spans[usize::from(*line)])),
            }
            if variants & !captured_by != 0 {
                for (span, form) in column[first..].iter_mut().zip(&self.forms[first..]) {
                    let variant = split_form(*form).0 % 64;
                    if captured_by >> variant & 1 == 0 {
                        *span = unset[usize::from(variant)];
                    }
                }
            }
        }
        for (line, key, value) in self.unknown_of_block.drain(..) {
            let row = first + taken.partition_point(|taken| *taken < line);
            self.unknown.push((row as u32, key, value));
        }
    }

    pub(super) fn num_rows(&self) -> usize {
        self.micros.len()
    }

    /// First and last event time.
    pub(super) fn time_range(&self) -> Option<(i64, i64)> {
        let first = *self.micros.first()?;
        let widen =
            |(earliest, latest): (i64, i64), micros: &i64| (earliest.min(*micros), latest.max(*micros));
        Some(self.micros.iter().fold((first, first), widen))
    }

    /// The rows as a batch; the builder is empty afterwards.
    pub(super) fn finish(&mut self, chunk: &RawChunk, is_clean: bool) -> RecordBatch {
        let num_rows = self.micros.len();
        let bytes: &[u8] = &chunk.bytes;
        let text = Text { bytes, constants: &self.constants, is_clean, reference_time: chunk.reference_time };
        let mut misfits = Vec::new();
        let num_columns = self.log_type.columns.len();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(num_columns + 5);
        // what a row keeps besides its values depends on all of them
        let needs_all = self.is_wanted(num_columns + 3) || self.is_wanted(num_columns + 4);
        for (position, column) in self.log_type.columns.iter().enumerate() {
            if !needs_all && !self.is_wanted(position) {
                arrays.push(Arc::new(NullArray::new(num_rows)));
                continue;
            }
            if position == self.log_type.timestamp_column {
                let values = TimestampMicrosecondArray::from(self.micros.clone());
                arrays.push(Arc::new(values.with_timezone("UTC")));
                continue;
            }
            self.spans[position].resize(num_rows, Span::NULL);
            let mut outcome =
                Outcome { keep_raw: &mut self.keep_raw, misfits: &mut misfits, column: position as u16 };
            let dictionary = &mut self.dictionaries[position];
            arrays.push(column::build(
                column.column_type,
                &self.spans[position],
                text,
                dictionary,
                &mut outcome,
            ));
        }
        let (extra, with_extra) = self.extra(text, &misfits);
        for row in with_extra {
            self.keep_raw[row as usize] = true;
        }
        arrays.push(Arc::new(Int64Array::from(vec![chunk.chunk_id(); num_rows])));
        arrays.push(Arc::new(Int32Array::from(self.numbers.clone())));
        arrays.push(Arc::new(Int16Array::from(self.forms.clone())));
        arrays.push(self.raw(bytes));
        arrays.push(extra);
        self.micros.clear();
        self.numbers.clear();
        self.forms.clear();
        self.whole.clear();
        self.keep_raw.clear();
        self.spans.iter_mut().for_each(Vec::clear);
        self.unknown.clear();
        let schema = &self.log_type.table.schema;
        let (schema, arrays) = match &self.wanted {
            None => (Arc::clone(schema), arrays),
            Some(wanted) => {
                let fields: Vec<_> =
                    wanted.iter().map(|position| Arc::clone(&schema.fields()[*position])).collect();
                (
                    Arc::new(Schema::new(fields)),
                    wanted.iter().map(|position| Arc::clone(&arrays[*position])).collect(),
                )
            }
        };
        RecordBatch::try_new(schema, arrays)
            .expect("columns are built as the type's schema says, one value per row")
    }

    fn is_wanted(&self, position: usize) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.contains(&position))
    }

    fn raw(&self, bytes: &[u8]) -> ArrayRef {
        if !self.keep_raw.contains(&true) {
            return Arc::new(BinaryArray::new_null(self.keep_raw.len()));
        }
        let mut raw = BinaryBuilder::with_capacity(self.keep_raw.len(), 0);
        for (keep, (start, end)) in self.keep_raw.iter().zip(&self.whole) {
            raw.append_option(keep.then(|| &bytes[*start as usize..*end as usize]));
        }
        Arc::new(raw.finish())
    }

    /// What no column holds: values that do not fit, captures and keys that are not declared; and the rows
    /// that have any.
    fn extra(&self, text: Text<'_>, misfits: &[(u32, u16, Span)]) -> (ArrayRef, Vec<u32>) {
        let num_rows = self.micros.len();
        let mut entries: BTreeMap<u32, BTreeMap<String, String>> = BTreeMap::new();
        let storable = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}");
        let mut enter = |row: u32, key: String, span: Span| {
            entries.entry(row).or_default().insert(key, storable(text.of(span)));
        };
        for (row, key, value) in &self.unknown {
            let key = storable(text.of(*key));
            enter(*row, if key.is_empty() { "_".into() } else { key }, *value);
        }
        for (position, name) in self.log_type.undeclared.iter().enumerate() {
            let slot = self.log_type.columns.len() + position;
            let spans = self.spans[slot].iter().enumerate();
            for (row, span) in spans.filter(|(_, span)| **span != Span::NULL) {
                enter(row as u32, name.clone(), *span);
            }
        }
        for (row, column, span) in misfits {
            enter(*row, self.log_type.columns[usize::from(*column)].name.clone(), *span);
        }
        if entries.is_empty() {
            return (Arc::new(StringArray::new_null(num_rows)), Vec::new());
        }
        let mut extra = StringBuilder::new();
        let mut next = 0;
        for (row, entries) in &entries {
            extra.append_nulls(*row as usize - next);
            extra.append_value(serde_json::json!(entries).to_string());
            next = *row as usize + 1;
        }
        extra.append_nulls(num_rows - next);
        (Arc::new(extra.finish()), entries.into_keys().collect())
    }
}
