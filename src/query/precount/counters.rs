//! A counter for each combination of entries of dictionaries that stay the same, which is as long as a file is read.
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, RecordBatch};
use arrow::datatypes::Int32Type;
use datafusion::common::{Result, internal_err};

/// As many counters as a batch has rows: beyond, most would stay at zero.
const MAX_COMBINATIONS: usize = 8192;

/// Rows counted by the dictionaries of some columns.
pub(super) struct Counters {
    /// Of each column.
    dictionaries: Vec<ArrayRef>,
    /// By combination: the first column's key plus the number of its keys times the second's, and so on; the last
    /// key of a column stands for NULL. Empty where there would be too many.
    by_combination: Vec<i64>,
}

impl Counters {
    /// The columns of `batch` at `positions`, which are dictionaries.
    pub(super) fn columns<'a>(
        batch: &'a RecordBatch,
        positions: &[usize],
    ) -> Result<Vec<&'a DictionaryArray<Int32Type>>> {
        let columns = positions.iter().map(|position| batch.column(*position).as_dictionary_opt());
        match columns.collect() {
            Some(columns) => Ok(columns),
            None => internal_err!("a column to count by is no dictionary"),
        }
    }

    /// Counters for the dictionaries of `columns`.
    pub(super) fn new(columns: &[&DictionaryArray<Int32Type>]) -> Self {
        let mut combinations = columns.iter().map(|column| column.values().len() + 1);
        let combinations = combinations.try_fold(1usize, usize::checked_mul).unwrap_or(usize::MAX);
        let num_counters = if combinations <= MAX_COMBINATIONS { combinations } else { 0 };
        Self {
            dictionaries: columns.iter().map(|column| Arc::clone(column.values())).collect(),
            by_combination: vec![0; num_counters],
        }
    }

    /// Whether the dictionaries are those of `columns`.
    pub(super) fn are_of(&self, columns: &[&DictionaryArray<Int32Type>]) -> bool {
        let mut pairs = columns.iter().zip(&self.dictionaries);
        pairs.all(|(column, held)| Arc::ptr_eq(column.values(), held))
    }

    /// Counts the rows of `columns`. `false`: there are too many combinations.
    pub(super) fn add(&mut self, columns: &[&DictionaryArray<Int32Type>]) -> bool {
        if self.by_combination.is_empty() {
            return false;
        }
        if let [column] = columns
            && column.null_count() == 0
        {
            // a key beyond its dictionary is no array that can be made
            column.keys().values().iter().for_each(|key| self.by_combination[*key as usize] += 1);
            return true;
        }
        for row in 0..columns[0].len() {
            let (mut combination, mut stride) = (0, 1);
            for column in columns {
                let len = column.values().len();
                combination += stride * column.key(row).unwrap_or(len);
                stride *= len + 1;
            }
            self.by_combination[combination] += 1;
        }
        true
    }

    /// The combinations that rows have, each with the number of its rows.
    pub(super) fn counted(&self) -> impl Iterator<Item = (usize, i64)> {
        self.by_combination.iter().copied().enumerate().filter(|(_, count)| *count > 0)
    }

    /// The key of each column in `combination`; the number of keys that the column has stands for NULL.
    pub(super) fn keys(&self, combination: usize) -> impl Iterator<Item = usize> {
        let mut left = combination;
        self.dictionaries.iter().map(move |dictionary| {
            let num_keys = dictionary.len() + 1;
            let key = left % num_keys;
            left /= num_keys;
            key
        })
    }

    /// Of each column.
    pub(super) fn dictionaries(&self) -> &[ArrayRef] {
        &self.dictionaries
    }
}
