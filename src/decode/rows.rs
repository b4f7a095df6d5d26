//! The rows of one log type while a chunk is read: where their values are; then the batch they become.
//!
//! Deliberately absent: reading lines (`mod`) and values (`column`).
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int16Array, Int32Array, Int64Array, NullArray, RecordBatch, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::Schema;

use super::column::{self, Outcome, Spans, Text};
use super::dictionary::Dictionary;
use super::key_value;
use super::matching::{Match, Matcher, Span};
use super::scan::Line;
use crate::log_type::program::KEY_VALUE_VARIANT;
use crate::log_type::template::Part;
use crate::log_type::{LogType, form, timestamp};
use crate::model::RawChunk;

/// The rows of one log type, as places, until the chunk is read.
#[derive(Debug)]
pub(super) struct TypeRowsBuilder {
    pub(super) log_type: Arc<LogType>,
    /// The columns of its table that are made, by position; `None`: all.
    wanted: Option<Vec<usize>>,
    /// Columns, then captures that are not declared.
    pub(super) num_slots: usize,
    /// By variant: what the slots get that it does not capture.
    unset: Vec<Vec<(usize, Span)>>,
    /// Texts that templates set.
    constants: Vec<u8>,
    /// Slots that a `key_value` line must have.
    pub(super) required: Vec<u16>,
    pub(super) line: Vec<i32>,
    form: Vec<i16>,
    pub(super) timestamp: Vec<i64>,
    /// The whole line, as `raw` keeps it.
    whole: Vec<(u32, u32)>,
    keep_raw: Vec<bool>,
    /// By row, then slot.
    spans: Vec<Span>,
    /// (row, key, value) of pairs whose key is unknown.
    unknown: Vec<(u32, Span, Span)>,
    dictionaries: Vec<Dictionary>,
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
        let unset = log_type
            .variants
            .iter()
            .map(|variant| {
                // `None`: the variant captures it
                let mut unset = vec![Some(Span::NULL); num_slots];
                for part in &variant.parts {
                    if let Part::Capture { name, .. } = part
                        && let Some(slot) = slot_of(name)
                    {
                        unset[slot] = None;
                    }
                }
                for (slot, text) in &variant.set {
                    let start = constants.len() as u32 | Span::CONSTANT;
                    unset[usize::from(*slot)] = Some(Span { start, len_bytes: text.len() as u32 });
                    constants.extend_from_slice(text.as_bytes());
                }
                unset.into_iter().enumerate().filter_map(|(slot, span)| Some((slot, span?))).collect()
            })
            .collect();
        let required = (0..log_type.columns.len())
            .filter(|slot| log_type.columns[*slot].required && *slot != log_type.timestamp_column)
            .map(|slot| slot as u16)
            .collect();
        let dictionaries = log_type.columns.iter().map(|_| Dictionary::new()).collect();
        Self {
            num_slots,
            unset,
            constants,
            required,
            line: Vec::new(),
            form: Vec::new(),
            timestamp: Vec::new(),
            whole: Vec::new(),
            keep_raw: Vec::new(),
            spans: Vec::new(),
            unknown: Vec::new(),
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

    #[inline]
    pub(super) fn push(
        &mut self,
        number: u32,
        whole: (u32, u32),
        found: Match,
        exact: bool,
        matcher: &Matcher,
    ) {
        if self.is_forgotten() {
            return;
        }
        self.push_row(
            number,
            whole,
            form(found.variant, found.timestamp.form),
            found.timestamp,
            exact && found.exact,
        );
        let row = self.spans.len();
        self.spans.extend_from_slice(&matcher.spans[..self.num_slots]);
        for (slot, span) in &self.unset[usize::from(found.variant)] {
            self.spans[row + slot] = *span;
        }
    }

    #[inline]
    fn push_row(
        &mut self,
        number: u32,
        whole: (u32, u32),
        form: i16,
        timestamp: timestamp::Timestamp,
        exact: bool,
    ) {
        self.line.push(number as i32);
        self.form.push(form);
        self.timestamp.push(timestamp.micros);
        self.whole.push(whole);
        self.keep_raw.push(!exact || timestamp.form == timestamp::OTHER);
    }

    /// Whether the line is one of `key=value` pairs of this type, and so a row.
    pub(super) fn push_pairs(
        &mut self,
        number: u32,
        whole: (u32, u32),
        offset: u32,
        line: Line<'_>,
        matcher: &mut Matcher,
    ) -> bool {
        let Some(format) = &self.log_type.key_value else { return false };
        let Ok(pairs) = key_value::read(format, self.num_slots, &self.required, line, matcher) else {
            return false;
        };
        if self.is_forgotten() {
            return true;
        }
        let row = self.line.len() as u32;
        let absolute = |span: Span| match span {
            Span::NULL => span,
            span => Span { start: span.start + offset, ..span },
        };
        self.push_row(number, whole, form(KEY_VALUE_VARIANT, pairs.timestamp.form), pairs.timestamp, false);
        self.spans.extend(pairs.values.into_iter().map(absolute));
        self.unknown
            .extend(pairs.unknown.into_iter().map(|(key, value)| (row, absolute(key), absolute(value))));
        true
    }

    /// The rows as a batch; the builder is empty afterwards.
    pub(super) fn finish(&mut self, chunk: &RawChunk, is_clean: bool) -> RecordBatch {
        let num_rows = self.line.len();
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
                let values = std::mem::take(&mut self.timestamp);
                arrays.push(Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")));
                continue;
            }
            let mut outcome =
                Outcome { keep_raw: &mut self.keep_raw, misfits: &mut misfits, column: position as u16 };
            let dictionary = &mut self.dictionaries[position];
            arrays.push(column::build(
                column.column_type,
                Spans { table: &self.spans, num_columns: self.num_slots, column: position },
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
        arrays.push(Arc::new(Int32Array::from(std::mem::take(&mut self.line))));
        arrays.push(Arc::new(Int16Array::from(std::mem::take(&mut self.form))));
        arrays.push(self.raw(bytes));
        arrays.push(extra);
        self.spans.clear();
        self.whole.clear();
        self.keep_raw.clear();
        self.unknown.clear();
        self.timestamp.clear();
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
        let mut raw = BinaryBuilder::with_capacity(self.keep_raw.len(), 0);
        for (keep, (start, end)) in self.keep_raw.iter().zip(&self.whole) {
            raw.append_option(keep.then(|| &bytes[*start as usize..*end as usize]));
        }
        Arc::new(raw.finish())
    }

    /// What no column holds: values that do not fit, captures and keys that are not declared; and the rows
    /// that have any.
    fn extra(&self, text: Text<'_>, misfits: &[(u32, u16, Span)]) -> (ArrayRef, Vec<u32>) {
        let num_rows = self.line.len();
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
            let spans = Spans { table: &self.spans, num_columns: self.num_slots, column: slot };
            for (row, span) in spans.iter().enumerate().filter(|(_, span)| *span != Span::NULL) {
                enter(row as u32, name.clone(), span);
            }
        }
        for (row, column, span) in misfits {
            enter(*row, self.log_type.columns[usize::from(*column)].name.clone(), *span);
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
