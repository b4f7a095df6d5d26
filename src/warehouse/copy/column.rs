//! One encoder per column, chosen once per batch: how its values become fields.
//!
//! A block of rows is written column by column, so that the inner loops know their type; each row has a cursor
//! that says where its next field goes. Invariant: a field may be written together with some bytes behind it, as
//! long as those belong to later fields of the same row, which are written later: then a copy of a few bytes
//! has a length known to the compiler. `room` says how many bytes that allows.
use std::fmt::Debug;

use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::ArrowNativeType;

use super::encode::Rows;
use super::{JSONB_VERSION, NULL, POSTGRES_EPOCH};

/// What a column does for a block of rows.
pub(super) trait ColumnEncoder: Debug + Send + Sync {
    /// Bytes of the shortest field, and whether every field is that long.
    fn min_len(&self) -> (usize, bool);

    /// Adds the length of each row's field to the row's entry.
    fn add_lens(&self, rows: &Rows<'_>, lens: &mut [usize]);

    /// Writes each row's field at the row's cursor and moves the cursor behind it. `room`: bytes from the
    /// field's start to its row's end, at least.
    fn write(&self, rows: &Rows<'_>, cursors: &mut [usize], room: usize, out: &mut [u8]);
}

/// The same for either kind of rows. They come as an iterator, not as calls of a closure per row: a closure with
/// two callers the compiler leaves out of line.
trait Column: Debug + Send + Sync {
    fn min_len(&self) -> (usize, bool);
    fn add_lens(&self, rows: impl Iterator<Item = usize>, lens: &mut [usize]);
    fn write(&self, rows: impl Iterator<Item = usize>, cursors: &mut [usize], room: usize, out: &mut [u8]);
}

impl<T: Column> ColumnEncoder for T {
    fn min_len(&self) -> (usize, bool) {
        Column::min_len(self)
    }

    fn add_lens(&self, rows: &Rows<'_>, lens: &mut [usize]) {
        match rows {
            Rows::Run(rows) => Column::add_lens(self, rows.clone(), lens),
            Rows::Picked(rows) => Column::add_lens(self, rows.iter().map(|row| *row as usize), lens),
        }
    }

    fn write(&self, rows: &Rows<'_>, cursors: &mut [usize], room: usize, out: &mut [u8]) {
        match rows {
            Rows::Run(rows) => Column::write(self, rows.clone(), cursors, room, out),
            Rows::Picked(rows) => {
                Column::write(self, rows.iter().map(|row| *row as usize), cursors, room, out);
            }
        }
    }
}

/// A copy of a length known to the compiler. The assignment of an array: `copy_from_slice` was left a call, which
/// cost five times as much as the copy.
#[inline(always)]
fn put<const LEN: usize>(out: &mut [u8], at: usize, bytes: &[u8; LEN]) {
    match out[at..].first_chunk_mut() {
        Some(place) => *place = *bytes,
        None => panic!("a field does not fit its row: the lengths added up before are wrong"),
    }
}

/// The same bytes in every row: the number of fields, columns without any value.
#[derive(Debug)]
pub(super) struct Constant(pub(super) Vec<u8>);

impl Constant {
    fn write_sized<const LEN: usize>(&self, cursors: &mut [usize], out: &mut [u8]) {
        let Some(bytes) = self.0.first_chunk::<LEN>() else { return };
        for cursor in cursors {
            put(out, *cursor, bytes);
            *cursor += LEN;
        }
    }
}

impl Column for Constant {
    fn min_len(&self) -> (usize, bool) {
        (self.0.len(), true)
    }

    fn add_lens(&self, _rows: impl Iterator<Item = usize>, lens: &mut [usize]) {
        lens.iter_mut().for_each(|len| *len += self.0.len());
    }

    fn write(&self, _rows: impl Iterator<Item = usize>, cursors: &mut [usize], _room: usize, out: &mut [u8]) {
        match self.0.len() {
            2 => self.write_sized::<2>(cursors, out),
            4 => self.write_sized::<4>(cursors, out),
            8 => self.write_sized::<8>(cursors, out),
            len => {
                for cursor in cursors {
                    out[*cursor..*cursor + len].copy_from_slice(&self.0);
                    *cursor += len;
                }
            }
        }
    }
}

/// A type whose values have one length. `FIELD`: bytes of a field, which is the value behind its length.
pub(super) trait Wire<const FIELD: usize>: Debug + Send + Sync {
    type Native: ArrowNativeType;
    fn field(value: Self::Native) -> [u8; FIELD];
}

#[inline(always)]
fn field<const VALUE: usize, const FIELD: usize>(value: [u8; VALUE]) -> [u8; FIELD] {
    const { assert!(FIELD == VALUE + NULL.len()) };
    let mut field = [0; FIELD];
    put(&mut field, 0, &(VALUE as i32).to_be_bytes());
    put(&mut field, NULL.len(), &value);
    field
}

macro_rules! wire {
    ($name:ident, $native:ty, $field_bytes:literal, $to_wire:expr) => {
        #[derive(Debug)]
        pub(super) struct $name;

        impl Wire<$field_bytes> for $name {
            type Native = $native;

            #[inline(always)]
            fn field(value: $native) -> [u8; $field_bytes] {
                field($to_wire(value))
            }
        }
    };
}

wire!(Bool, u8, 5, u8::to_be_bytes);
wire!(Int2, i16, 6, i16::to_be_bytes);
wire!(Int4, i32, 8, i32::to_be_bytes);
wire!(Int8, i64, 12, i64::to_be_bytes);
wire!(Float8, f64, 12, f64::to_be_bytes);
wire!(Timestamptz, i64, 12, |micros: i64| (micros.wrapping_sub(POSTGRES_EPOCH)).to_be_bytes());

/// A column of values of one length.
#[derive(Debug)]
pub(super) struct Fixed<T: Wire<FIELD>, const FIELD: usize> {
    values: ScalarBuffer<T::Native>,
    nulls: Option<NullBuffer>,
}

impl<T: Wire<FIELD>, const FIELD: usize> Fixed<T, FIELD> {
    pub(super) fn new(values: ScalarBuffer<T::Native>, nulls: Option<&NullBuffer>) -> Self {
        Self { values, nulls: nulls.filter(|nulls| nulls.null_count() > 0).cloned() }
    }
}

impl<T: Wire<FIELD>, const FIELD: usize> Column for Fixed<T, FIELD> {
    fn min_len(&self) -> (usize, bool) {
        if self.nulls.is_some() { (NULL.len(), false) } else { (FIELD, true) }
    }

    fn add_lens(&self, rows: impl Iterator<Item = usize>, lens: &mut [usize]) {
        let Some(nulls) = &self.nulls else {
            return lens.iter_mut().for_each(|len| *len += FIELD);
        };
        for (len, row) in lens.iter_mut().zip(rows) {
            *len += if nulls.is_valid(row) { FIELD } else { NULL.len() };
        }
    }

    fn write(&self, rows: impl Iterator<Item = usize>, cursors: &mut [usize], room: usize, out: &mut [u8]) {
        let values = &self.values[..];
        let rows = cursors.iter_mut().zip(rows);
        let Some(nulls) = &self.nulls else {
            for (cursor, row) in rows {
                put(out, *cursor, &T::field(values[row]));
                *cursor += FIELD;
            }
            return;
        };
        if room >= FIELD {
            // a NULL is written with whatever its value is behind it: no branch to be mispredicted
            for (cursor, row) in rows {
                let (mut field, is_valid) = (T::field(values[row]), nulls.is_valid(row));
                let len = (FIELD - NULL.len()) as i32;
                put(&mut field, 0, &(if is_valid { len } else { -1 }).to_be_bytes());
                put(out, *cursor, &field);
                *cursor += if is_valid { FIELD } else { NULL.len() };
            }
            return;
        }
        for (cursor, row) in rows {
            if nulls.is_valid(row) {
                put(out, *cursor, &T::field(values[row]));
                *cursor += FIELD;
            } else {
                put(out, *cursor, &NULL);
                *cursor += NULL.len();
            }
        }
    }
}

/// A column of text or bytes; with `PREFIX` 1, each value has jsonb's version in front.
#[derive(Debug)]
pub(super) struct Varlen<const PREFIX: usize> {
    offsets: OffsetBuffer<i32>,
    values: Buffer,
    nulls: Option<NullBuffer>,
}

impl<const PREFIX: usize> Varlen<PREFIX> {
    pub(super) fn new(offsets: &OffsetBuffer<i32>, values: &Buffer, nulls: Option<&NullBuffer>) -> Self {
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0).cloned();
        Self { offsets: offsets.clone(), values: values.clone(), nulls }
    }

    #[inline(always)]
    fn value(&self, row: usize) -> Option<&[u8]> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return None;
        }
        Some(&self.values[self.offsets[row] as usize..self.offsets[row + 1] as usize])
    }
}

impl<const PREFIX: usize> Column for Varlen<PREFIX> {
    fn min_len(&self) -> (usize, bool) {
        (NULL.len(), false)
    }

    fn add_lens(&self, rows: impl Iterator<Item = usize>, lens: &mut [usize]) {
        for (len, row) in lens.iter_mut().zip(rows) {
            *len += NULL.len() + self.value(row).map_or(0, |value| PREFIX + value.len());
        }
    }

    fn write(&self, rows: impl Iterator<Item = usize>, cursors: &mut [usize], _room: usize, out: &mut [u8]) {
        for (cursor, row) in cursors.iter_mut().zip(rows) {
            let Some(value) = self.value(row) else {
                put(out, *cursor, &NULL);
                *cursor += NULL.len();
                continue;
            };
            put(out, *cursor, &((PREFIX + value.len()) as u32).to_be_bytes());
            if PREFIX == 1 {
                out[*cursor + NULL.len()] = JSONB_VERSION;
            }
            let start = *cursor + NULL.len() + PREFIX;
            *cursor = start + value.len();
            out[start..*cursor].copy_from_slice(value);
        }
    }
}

/// Fields made beforehand, one behind the other.
#[derive(Debug)]
pub(super) struct Fields {
    bytes: Vec<u8>,
    /// Where each begins; at the end, where the last one ends.
    starts: Vec<usize>,
}

impl Fields {
    pub(super) fn with_capacity(num_fields: usize, len_bytes: usize) -> Self {
        let mut starts = Vec::with_capacity(num_fields + 1);
        starts.push(0);
        Self { bytes: Vec::with_capacity(len_bytes), starts }
    }

    /// Appends a field whose value `write` appends; returns what `write` does.
    pub(super) fn push<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let start = self.bytes.len();
        self.bytes.extend(NULL);
        let written = write(&mut self.bytes);
        let len = (self.bytes.len() - start - NULL.len()) as u32;
        self.bytes[start..start + 4].copy_from_slice(&len.to_be_bytes());
        self.starts.push(self.bytes.len());
        written
    }

    /// Appends a NULL.
    pub(super) fn push_null(&mut self) {
        self.bytes.extend(NULL);
        self.starts.push(self.bytes.len());
    }

    fn lens(&self) -> impl Iterator<Item = usize> {
        self.starts.windows(2).map(|pair| pair[1] - pair[0])
    }
}

/// A column whose distinct fields were made beforehand: per row one copy.
#[derive(Debug)]
pub(super) struct Prepared {
    /// By row, a position in `fields`.
    slots: ScalarBuffer<i32>,
    fields: Fields,
    min_len: usize,
    max_len: usize,
}

impl Prepared {
    pub(super) fn new(slots: ScalarBuffer<i32>, mut fields: Fields) -> Self {
        let min_len = fields.lens().min().unwrap_or(NULL.len());
        let max_len = fields.lens().max().unwrap_or(NULL.len());
        // so that the last field, too, can be read together with bytes behind it
        fields.bytes.resize(fields.bytes.len() + LONG, 0);
        Self { slots, fields, min_len, max_len }
    }

    /// Copies `LEN` bytes of each field, whatever its length: what is too much is overwritten later. At least
    /// as many are there, see [`Prepared::new`].
    fn write_sized<const LEN: usize>(
        &self,
        rows: impl Iterator<Item = usize>,
        cursors: &mut [usize],
        out: &mut [u8],
    ) {
        let (slots, starts, bytes) = (&self.slots[..], &self.fields.starts[..], &self.fields.bytes[..]);
        for (cursor, row) in cursors.iter_mut().zip(rows) {
            let slot = slots[row] as usize;
            let (start, end) = (starts[slot], starts[slot + 1]);
            let Some(field) = bytes[start..].first_chunk::<LEN>() else { continue };
            put(out, *cursor, field);
            *cursor += end - start;
        }
    }
}

/// Lengths of copies that are one and two vector registers on every processor: an IPv4 address and most words
/// of a log fit the first, an IPv6 address and most names the second.
const SHORT: usize = 16;
const LONG: usize = 32;

impl Column for Prepared {
    fn min_len(&self) -> (usize, bool) {
        (self.min_len, self.min_len == self.max_len)
    }

    fn add_lens(&self, rows: impl Iterator<Item = usize>, lens: &mut [usize]) {
        let (slots, starts) = (&self.slots[..], &self.fields.starts[..]);
        for (len, row) in lens.iter_mut().zip(rows) {
            let slot = slots[row] as usize;
            *len += starts[slot + 1] - starts[slot];
        }
    }

    fn write(&self, rows: impl Iterator<Item = usize>, cursors: &mut [usize], room: usize, out: &mut [u8]) {
        if self.max_len <= SHORT && SHORT <= room {
            return self.write_sized::<SHORT>(rows, cursors, out);
        }
        if self.max_len <= LONG && LONG <= room {
            return self.write_sized::<LONG>(rows, cursors, out);
        }
        let (slots, starts, bytes) = (&self.slots[..], &self.fields.starts[..], &self.fields.bytes[..]);
        for (cursor, row) in cursors.iter_mut().zip(rows) {
            let slot = slots[row] as usize;
            let field = &bytes[starts[slot]..starts[slot + 1]];
            out[*cursor..*cursor + field.len()].copy_from_slice(field);
            *cursor += field.len();
        }
    }
}
