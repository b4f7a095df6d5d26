//! Rows of the archive's table `chunks`: ledger entries, with their group and what it does to the other tables.
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;

use super::LakeError;
use super::schema::Layout;
use crate::ledger::{self, CHUNKS};
use crate::model::ChunkRecord;

/// What the rows of one group have in common.
#[derive(Debug)]
pub(super) struct GroupEntry<'a> {
    /// Version of `chunks` that it is committed at.
    pub(super) group: i64,
    /// Microseconds since the epoch.
    pub(super) committed_at: i64,
    pub(super) writer: &'a str,
    /// What the group does to each table, kept on its first row.
    pub(super) actions: &'a str,
}

/// The rows of a group, in the columns of [`Layout::chunks`].
pub(super) fn to_rows(entry: &GroupEntry<'_>, records: &[ChunkRecord]) -> Result<RecordBatch, LakeError> {
    let failed = |cause| LakeError::encode(CHUNKS, cause);
    let entries = ledger::to_rows(records, entry.committed_at, entry.writer).map_err(failed)?;
    let actions = std::iter::once(Some(entry.actions)).chain(std::iter::repeat(None)).take(records.len());
    let group: ArrayRef = Arc::new(Int64Array::from(vec![entry.group; records.len()]));
    let actions: ArrayRef = Arc::new(actions.collect::<StringArray>());
    let columns = std::iter::once(group).chain(entries.columns().iter().cloned()).chain([actions]);
    RecordBatch::try_new(Layout::chunks().schema, columns.collect()).map_err(failed)
}

/// The entries of `rows`, with their group, in stored order.
pub(super) fn of_rows(rows: &RecordBatch) -> Result<Vec<(i64, ChunkRecord)>, LakeError> {
    let corrupt = |cause| LakeError::corrupt("table chunks", cause);
    let records = ledger::of_rows(rows).map_err(corrupt)?;
    let groups =
        groups(rows).ok_or_else(|| LakeError::corrupt("table chunks", "there is no column group"))?;
    Ok(groups.values().iter().copied().zip(records).collect())
}

/// What each group of `rows` does to the tables.
pub(super) fn actions_of_rows(rows: &RecordBatch) -> Vec<(i64, String)> {
    let actions = rows.column_by_name("actions").and_then(|column| column.as_string_opt::<i32>());
    let (Some(groups), Some(actions)) = (groups(rows), actions) else { return Vec::new() };
    let of_row = |row| actions.is_valid(row).then(|| (groups.value(row), actions.value(row).to_owned()));
    (0..rows.num_rows()).filter_map(of_row).collect()
}

fn groups(rows: &RecordBatch) -> Option<&Int64Array> {
    rows.column_by_name("group")?.as_primitive_opt::<Int64Type>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::record;

    #[test]
    fn entries_come_back_with_their_group_and_its_actions_once() {
        let records = [record(1, 0, 10), record(1, 10, 20)];
        let entry = GroupEntry { group: 12, committed_at: 5, writer: "w", actions: "{}" };
        let rows = to_rows(&entry, &records).unwrap();
        assert_eq!(of_rows(&rows).unwrap(), records.map(|record| (12, record)));
        assert_eq!(actions_of_rows(&rows), [(12, "{}".to_owned())]);
    }
}
