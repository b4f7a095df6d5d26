//! Spans -> one Arrow column, by a loop chosen once per column and chunk.
//!
//! A value that the column's type cannot hold is NULL; its text goes to `extra` and its line to `raw`.
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int16Array, Int32Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::Int32Type;

use super::dictionary::{Dictionary, Entry};
use super::matching::Span;
use super::value;
use crate::log_type::{ColumnType, timestamp};

/// What the spans of a chunk point into.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) bytes: &'a [u8],
    /// Texts that a template sets.
    pub(super) constants: &'a [u8],
    /// All of `bytes` is UTF-8 without NUL.
    pub(super) is_clean: bool,
    pub(super) reference_time: i64,
}

impl<'a> Text<'a> {
    pub(super) fn of(self, span: Span) -> &'a [u8] {
        let (bytes, start) = self.place(span);
        &bytes[start as usize..][..span.len_bytes as usize]
    }

    fn place(self, span: Span) -> (&'a [u8], u32) {
        match span.start & Span::CONSTANT {
            0 => (self.bytes, span.start),
            _ => (self.constants, span.start & !Span::CONSTANT),
        }
    }
}

/// What became of the rows besides their values.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    /// Rows that must carry their original line.
    pub(super) keep_raw: &'a mut [bool],
    /// (row, column, text) of values that their column cannot hold.
    pub(super) misfits: &'a mut Vec<(u32, u16, Span)>,
    /// Number of the column being made.
    pub(super) column: u16,
}

impl Outcome<'_> {
    /// Notes what became of a value; gives the value to store.
    #[inline(always)]
    fn take<V>(&mut self, row: usize, span: Span, read: Option<(V, bool)>) -> Option<V> {
        match read {
            Some((value, true)) => Some(value),
            Some((value, false)) => {
                self.keep_raw[row] = true;
                Some(value)
            }
            None => {
                self.misfit(row, span);
                None
            }
        }
    }

    #[cold]
    fn misfit(&mut self, row: usize, span: Span) {
        self.keep_raw[row] = true;
        self.misfits.push((row as u32, self.column, span));
    }
}

/// Makes the column of `column_type` from where its values are.
pub(super) fn build(
    column_type: ColumnType,
    spans: &[Span],
    text: Text<'_>,
    dictionary: &mut Dictionary,
    outcome: &mut Outcome<'_>,
) -> ArrayRef {
    let (max, signed) = (column_type.integer_max().unwrap_or(0), column_type == ColumnType::I64);
    let integer = |span: Span| {
        let (bytes, start) = text.place(span);
        value::integer(bytes, start as usize, span.len_bytes as usize, max, signed)
    };
    match column_type {
        ColumnType::String => strings(spans, text, dictionary, outcome, |bytes, out| {
            let fits = text.is_clean || is_text(bytes);
            fits.then(|| {
                out.extend_from_slice(bytes);
                true
            })
        }),
        ColumnType::Ip => strings(spans, text, dictionary, outcome, value::address),
        ColumnType::Json => json(spans, text, outcome),
        ColumnType::U8 => {
            let (values, nulls) =
                scalars(spans, outcome, |span| integer(span).map(|(value, exact)| (value as i16, exact)));
            Arc::new(Int16Array::new(values, nulls))
        }
        ColumnType::U16 => {
            let (values, nulls) =
                scalars(spans, outcome, |span| integer(span).map(|(value, exact)| (value as i32, exact)));
            Arc::new(Int32Array::new(values, nulls))
        }
        ColumnType::U32 | ColumnType::U64 | ColumnType::I64 => {
            let (values, nulls) = scalars(spans, outcome, integer);
            Arc::new(Int64Array::new(values, nulls))
        }
        ColumnType::F64 => {
            let (values, nulls) = scalars(spans, outcome, |span| value::float(text.of(span)));
            Arc::new(Float64Array::new(values, nulls))
        }
        ColumnType::Bool => {
            let (values, nulls) = scalars(spans, outcome, |span| {
                value::boolean(text.of(span)).map(|(value, exact)| (u8::from(value), exact))
            });
            let values: BooleanBuffer = values.iter().map(|value| *value == 1).collect();
            Arc::new(BooleanArray::new(values, nulls))
        }
        ColumnType::Timestamp => {
            let mut parser = timestamp::Parser::default();
            let (values, nulls) =
                scalars(spans, outcome, |span| value::time(text.of(span), text.reference_time, &mut parser));
            Arc::new(TimestampMicrosecondArray::new(values, nulls).with_timezone("UTC"))
        }
    }
}

/// Whether every store can hold it as text.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    simdutf8::basic::from_utf8(bytes).is_ok() && memchr::memchr(0, bytes).is_none()
}

fn scalars<V: arrow::datatypes::ArrowNativeType>(
    spans: &[Span],
    outcome: &mut Outcome<'_>,
    mut read: impl FnMut(Span) -> Option<(V, bool)>,
) -> (ScalarBuffer<V>, Option<NullBuffer>) {
    let mut nulls = Nulls::default();
    let values: Vec<V> = spans
        .iter()
        .enumerate()
        .map(|(row, &span)| {
            let value = match span {
                Span::NULL => None,
                span => {
                    let read = read(span);
                    outcome.take(row, span, read)
                }
            };
            value.unwrap_or_else(|| {
                nulls.note(row);
                V::default()
            })
        })
        .collect();
    (values.into(), nulls.finish(spans.len()))
}

/// Rows that are NULL; costs nothing while there are none.
#[derive(Debug, Default)]
struct Nulls(Vec<u32>);

impl Nulls {
    #[cold]
    fn note(&mut self, row: usize) {
        self.0.push(row as u32);
    }

    fn finish(self, num_rows: usize) -> Option<NullBuffer> {
        if self.0.is_empty() {
            return None;
        }
        let mut valid = vec![true; num_rows];
        self.0.iter().for_each(|row| valid[*row as usize] = false);
        Some(NullBuffer::from(valid))
    }
}

/// After this many rows it is decided whether texts repeat.
const TRIAL_ROWS: usize = 1024;

/// `make` appends the text to store for a text that is seen first, and says whether both are the same.
fn strings(
    spans: &[Span],
    text: Text<'_>,
    dictionary: &mut Dictionary,
    outcome: &mut Outcome<'_>,
    mut make: impl FnMut(&[u8], &mut Vec<u8>) -> Option<bool>,
) -> ArrayRef {
    let mut keys = vec![0; spans.len()];
    let mut nulls = Nulls::default();
    let mut data = Vec::new();
    let mut offsets = vec![0];
    let mut enter = |bytes: &[u8], is_exact: bool| {
        let made = match is_exact {
            true => {
                data.extend_from_slice(bytes);
                Some(true)
            }
            false => make(bytes, &mut data),
        };
        match made {
            Some(exact) => {
                offsets.push(data.len() as i32);
                Entry::new(offsets.len() - 2, exact)
            }
            None => Entry::MISFIT,
        }
    };
    // by place; nothing else is a misfit and there
    let mut constants = vec![None; text.constants.len() + 1];
    let mut other = |dictionary: &mut Dictionary, row: usize, looks_up: bool| {
        let span = spans[row];
        let is_constant = span.start & Span::CONSTANT != 0;
        let entry = match span {
            Span::NULL => {
                nulls.note(row);
                return 0;
            }
            span if is_constant => {
                let entry = &mut constants[(span.start & !Span::CONSTANT) as usize];
                *entry.get_or_insert_with(|| enter(text.of(span), false))
            }
            span if looks_up => dictionary.get(text.bytes, span.start, span.len_bytes, &mut enter),
            span => enter(text.of(span), false),
        };
        if entry.exact_index() >= 0 {
            return entry.exact_index();
        }
        // a constant renders as what it is
        let read = entry.get().map(|(index, exact)| (index, exact || is_constant));
        outcome.take(row, span, read).unwrap_or_else(|| {
            nulls.note(row);
            0
        })
    };
    // NULL is none either
    let is_of_constants = spans.iter().all(|span| span.start & Span::CONSTANT != 0);
    let is_nowhere = is_of_constants && spans.iter().all(|span| *span == Span::NULL);
    let mut num_trial = 0;
    if !is_of_constants {
        dictionary.begin();
        num_trial = TRIAL_ROWS.min(spans.len());
        let (trial, rest) = keys.split_at_mut(num_trial);
        dictionary.keys(text.bytes, spans, trial, |dictionary, row| other(dictionary, row, true));
        if dictionary.repeats(TRIAL_ROWS) {
            let spans = &spans[num_trial..];
            dictionary
                .keys(text.bytes, spans, rest, |dictionary, row| other(dictionary, num_trial + row, true));
            num_trial = keys.len();
        }
    }
    if !is_nowhere {
        for (row, key) in keys.iter_mut().enumerate().skip(num_trial) {
            *key = other(dictionary, row, false);
        }
    }
    let nulls = if is_nowhere { Some(NullBuffer::new_null(spans.len())) } else { nulls.finish(spans.len()) };
    let values = string_array(offsets, data);
    let keys = Int32Array::new(keys.into(), nulls);
    let array = DictionaryArray::<Int32Type>::try_new(keys, Arc::new(values));
    Arc::new(array.expect("keys are indices of the values entered"))
}

fn json(spans: &[Span], text: Text<'_>, outcome: &mut Outcome<'_>) -> ArrayRef {
    let mut nulls = Nulls::default();
    let (mut data, mut offsets) = (Vec::new(), vec![0]);
    for (row, span) in spans.iter().copied().enumerate() {
        let value = match span {
            Span::NULL => None,
            span => {
                let bytes = text.of(span);
                let fits = (text.is_clean || is_text(bytes)) && value::is_json(bytes);
                outcome.take(row, span, fits.then_some((bytes, true)))
            }
        };
        if value.is_none() {
            nulls.note(row);
        }
        data.extend_from_slice(value.unwrap_or_default());
        offsets.push(data.len() as i32);
    }
    let nulls = nulls.finish(spans.len());
    let (offsets, values, _) = string_array(offsets, data).into_parts();
    Arc::new(StringArray::new(offsets, values, nulls))
}

/// Every text in `data` was checked to be UTF-8 when it was appended; arrow checks it again, at memory speed.
fn string_array(offsets: Vec<i32>, data: Vec<u8>) -> StringArray {
    let offsets = OffsetBuffer::new(offsets.into());
    StringArray::try_new(offsets, Buffer::from_vec(data), None)
        .expect("texts are checked when they are entered")
}
