//! The values of a column chunk that are there, one behind the other, and apart from them which rows have one.
//!
//! Most columns have no nulls: theirs are a plain slice, which the loops that count and pack them take fast.
use arrow::array::NullBufferBuilder;
use arrow::buffer::NullBuffer;

/// Values of some rows.
#[derive(Debug)]
pub(super) struct Present<T> {
    values: Vec<T>,
    nulls: NullBufferBuilder,
}

impl<T: Copy> Present<T> {
    pub(super) fn with_capacity(num_rows: usize) -> Self {
        Self { values: Vec::with_capacity(num_rows), nulls: NullBufferBuilder::new(num_rows) }
    }

    /// Appends those of `rows` that are not null.
    pub(super) fn extend(&mut self, rows: impl ExactSizeIterator<Item = T>, nulls: Option<&NullBuffer>) {
        match nulls.filter(|nulls| nulls.null_count() > 0) {
            None => {
                self.nulls.append_n_non_nulls(rows.len());
                self.values.extend(rows);
            }
            Some(nulls) => {
                self.nulls.append_buffer(nulls);
                self.values.extend(rows.zip(nulls).filter_map(|(value, is_there)| is_there.then_some(value)));
            }
        }
    }

    /// Appends rows without a value.
    pub(super) fn extend_nulls(&mut self, num_rows: usize) {
        self.nulls.append_n_nulls(num_rows);
    }

    /// `values`, one for each that is there, of the same rows.
    pub(super) fn with<U>(self, values: Vec<U>) -> Present<U> {
        Present { values, nulls: self.nulls }
    }

    /// Without the nulls.
    pub(super) fn values(&self) -> &[T] {
        &self.values
    }

    pub(super) fn null_count(&self) -> u64 {
        (self.nulls.len() - self.values.len()) as u64
    }

    /// The rows in runs of at most `max_rows`.
    pub(super) fn pages(&self, max_rows: usize) -> Vec<PageRows<'_, T>> {
        let nulls = self.nulls.finish_cloned();
        let mut values = self.values.as_slice();
        let page = |first: usize| {
            let num_rows = max_rows.min(self.nulls.len() - first);
            let nulls = nulls.as_ref().map(|nulls| nulls.slice(first, num_rows));
            let num_values = num_rows - nulls.as_ref().map_or(0, NullBuffer::null_count);
            let of_page = values.split_off(..num_values).unwrap_or_default();
            PageRows { values: of_page, nulls, num_rows }
        };
        (0..self.nulls.len()).step_by(max_rows).map(page).collect()
    }
}

/// Rows of one page.
#[derive(Debug)]
pub(super) struct PageRows<'a, T> {
    /// Without the nulls.
    pub(super) values: &'a [T],
    pub(super) nulls: Option<NullBuffer>,
    pub(super) num_rows: usize,
}
