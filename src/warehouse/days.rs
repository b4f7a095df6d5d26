//! Which rows go to which day's partition.
//!
//! Times before 2000 or more than two days ahead go to the default partition, as they do in the archive: garbage
//! dates shall not make thousands of tables. Deliberately absent: the limit of new days per commit, which needs
//! to know what a commit holds so far.
use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::{Array, TimestampMicrosecondArray};

use super::copy::Rows;
use crate::model::{FIRST_DAY, FUTURE_DAYS, MICROS_PER_DAY};

/// The rows of one day, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DayRows {
    /// They are neighbours: what nearly every batch has.
    Run(Range<usize>),
    /// They stand apart.
    Picked(Vec<u32>),
}

impl DayRows {
    /// The same, to be encoded.
    pub fn rows(&self) -> Rows<'_> {
        match self {
            Self::Run(rows) => Rows::Run(rows.clone()),
            Self::Picked(rows) => Rows::Picked(rows),
        }
    }
}

/// The rows of each day, as days since 1970-01-01, in ascending order; first of all, under `None`, the rows
/// without a time or with one outside 2000-01-01 to two days after `today`.
pub fn split_by_day(times: &TimestampMicrosecondArray, today: i32) -> Vec<(Option<i32>, DayRows)> {
    let mut days: BTreeMap<Option<i32>, Vec<Range<usize>>> = BTreeMap::new();
    let mut start = 0;
    while start < times.len() {
        let (day, end) = run_from(times, start, today.saturating_add(FUTURE_DAYS));
        days.entry(day).or_default().push(start..end);
        start = end;
    }
    days.into_iter().map(|(day, runs)| (day, day_rows(runs))).collect()
}

/// The day of the row `start`, and the end of a run of rows of that day.
fn run_from(times: &TimestampMicrosecondArray, start: usize, last_day: i32) -> (Option<i32>, usize) {
    let values = &times.values()[start..];
    let in_range = FIRST_DAY..=last_day;
    let day = times.is_valid(start).then(|| values[0].div_euclid(MICROS_PER_DAY) as i32);
    let Some(day) = day.filter(|day| in_range.contains(day)) else { return (None, start + 1) };
    let first_micro = i64::from(day) * MICROS_PER_DAY;
    // a value under a NULL may be anything, so without NULLs the values alone decide: a subtraction each
    let is_other = |micros: i64| micros.wrapping_sub(first_micro).cast_unsigned() >= MICROS_PER_DAY as u64;
    let end = match times.nulls() {
        None => values.iter().position(|micros| is_other(*micros)),
        Some(nulls) => {
            (1..values.len()).find(|offset| nulls.is_null(start + offset) || is_other(values[*offset]))
        }
    };
    (Some(day), start + end.unwrap_or(values.len()))
}

fn day_rows(mut runs: Vec<Range<usize>>) -> DayRows {
    // rows of the default partition come one by one
    runs.dedup_by(|next, run| {
        let is_adjacent = run.end == next.start;
        if is_adjacent {
            run.end = next.end;
        }
        is_adjacent
    });
    match &runs[..] {
        [run] => DayRows::Run(run.clone()),
        _ => DayRows::Picked(runs.into_iter().flatten().map(|row| row as u32).collect()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TODAY: i32 = 19_737;

    fn day(times: &TimestampMicrosecondArray, row: usize) -> Option<i32> {
        let day = times.is_valid(row).then(|| times.value(row).div_euclid(MICROS_PER_DAY))?;
        (10_957..=i64::from(TODAY) + 2).contains(&day).then_some(day as i32)
    }

    fn times() -> impl Strategy<Value = TimestampMicrosecondArray> {
        let near = (TODAY - 2..TODAY + 4, 0..MICROS_PER_DAY)
            .prop_map(|(day, micros)| i64::from(day) * MICROS_PER_DAY + micros);
        let first = (10_956i64..10_959).prop_map(|day| day * MICROS_PER_DAY);
        let time = prop_oneof![8 => near.boxed(), 1 => first.boxed(), 1 => any::<i64>().boxed()];
        let rows = prop::collection::vec((time, 1usize..20, prop::bool::weighted(0.9)), 0..20);
        rows.prop_map(|rows| {
            let rows = rows
                .into_iter()
                .flat_map(|(time, repeats, is_valid)| std::iter::repeat_n(is_valid.then_some(time), repeats));
            rows.collect()
        })
    }

    proptest! {
        #[test]
        fn every_row_goes_to_its_day_once_and_in_order(times in times(), skip in 0usize..5) {
            let times = times.slice(skip.min(times.len()), times.len() - skip.min(times.len()));
            let split = split_by_day(&times, TODAY);
            prop_assert!(split.is_sorted_by(|one, other| one.0 < other.0));
            let mut seen = vec![0; times.len()];
            for (of, rows) in &split {
                let rows: Vec<_> = match rows.rows() {
                    Rows::Run(rows) => rows.collect(),
                    Rows::Picked(rows) => rows.iter().map(|row| *row as usize).collect(),
                };
                prop_assert!(!rows.is_empty() && rows.is_sorted());
                for row in rows {
                    prop_assert_eq!(day(&times, row), *of);
                    seen[row] += 1;
                }
            }
            prop_assert!(seen.iter().all(|count| *count == 1));
        }
    }

    #[test]
    fn sorted_times_make_one_run_per_day() {
        let at = |day: i32, micros: i64| Some(i64::from(day) * MICROS_PER_DAY + micros);
        let times = [None, at(-1, 5), at(TODAY, 0), at(TODAY, MICROS_PER_DAY - 1), at(TODAY + 1, 0)];
        assert_eq!(
            split_by_day(&times.into_iter().collect(), TODAY),
            [
                (None, DayRows::Run(0..2)),
                (Some(TODAY), DayRows::Run(2..4)),
                (Some(TODAY + 1), DayRows::Run(4..5)),
            ]
        );
    }

    #[test]
    fn days_out_of_order_are_picked() {
        let times: TimestampMicrosecondArray = [TODAY, TODAY - 1, TODAY, TODAY + 3]
            .into_iter()
            .map(|day| Some(i64::from(day) * MICROS_PER_DAY))
            .collect();
        assert_eq!(
            split_by_day(&times, TODAY),
            [
                (None, DayRows::Run(3..4)),
                (Some(TODAY - 1), DayRows::Run(1..2)),
                (Some(TODAY), DayRows::Picked(vec![0, 2])),
            ]
        );
    }
}
