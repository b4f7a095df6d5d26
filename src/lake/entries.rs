//! Rows of the archive's table `chunks`: ledger entries, with their group and what it does to the other tables.
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{filter_record_batch, is_not_null};
use arrow::datatypes::{Field, Int64Type, Schema};
use arrow::error::ArrowError;

use super::LakeError;
use super::chain::{CHAIN, link};
use super::schema::Layout;
use crate::ledger::{self, CHUNK_ID, CHUNKS};
use crate::model::ChunkRecord;

/// What the rows of one group have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupEntry<'a> {
    /// Version of `chunks` that it is committed at.
    pub(super) group: i64,
    /// Microseconds since the epoch.
    pub(super) committed_at: i64,
    pub(super) writer: &'a str,
    /// What the group does to each table, kept on its first row.
    pub(super) actions: &'a str,
}

/// The rows of a group, in the columns of [`Layout::chunks`]; `before` is the link of the group before it. A group
/// without chunks, which changes files and no rows, has one row that names no chunk.
pub(super) fn to_rows(
    entry: &GroupEntry<'_>,
    records: &[ChunkRecord],
    before: &str,
) -> Result<RecordBatch, LakeError> {
    let failed = |cause| LakeError::encode(CHUNKS, cause);
    let num_rows = records.len().max(1);
    let entries = match records {
        [] => without_chunk(entry).map_err(failed)?,
        records => {
            let rows = ledger::to_rows(records, entry.committed_at, entry.writer);
            rows.and_then(|rows| without_empty(&rows, "elsewhere")).map_err(failed)?
        }
    };
    let on_first_row = |text: &str| -> ArrayRef {
        let values = std::iter::once(Some(text)).chain(std::iter::repeat(None)).take(num_rows);
        Arc::new(values.collect::<StringArray>())
    };
    let group: ArrayRef = Arc::new(Int64Array::from(vec![entry.group; num_rows]));
    let actions = on_first_row(entry.actions);
    let columns = std::iter::once(group).chain(entries.columns().iter().cloned()).chain([actions]);
    let mut columns: Vec<_> = columns.collect();
    let schema = Layout::chunks().schema;
    let linked = Arc::new(Schema::new(&schema.fields()[..columns.len()]));
    let linked = RecordBatch::try_new(linked, columns.clone()).map_err(failed)?;
    columns.push(on_first_row(&link(before, &linked)));
    RecordBatch::try_new(schema, columns).map_err(failed)
}

/// Empty texts of a column become NULL: a link does not cover those, and earlier versions have no such column.
fn without_empty(rows: &RecordBatch, column: &str) -> Result<RecordBatch, ArrowError> {
    let position = rows.schema().index_of(column)?;
    let mut columns = rows.columns().to_vec();
    let texts = rows.column(position).as_string::<i32>().iter();
    columns[position] =
        Arc::new(texts.map(|text| text.filter(|text| !text.is_empty())).collect::<StringArray>());
    RecordBatch::try_new(rows.schema(), columns)
}

fn without_chunk(entry: &GroupEntry<'_>) -> Result<RecordBatch, ArrowError> {
    let schema = ledger::columns();
    let column = |field: &Arc<Field>| -> ArrayRef {
        match field.name().as_str() {
            "committed_at" => {
                Arc::new(TimestampMicrosecondArray::from(vec![entry.committed_at]).with_timezone("UTC"))
            }
            "writer" => Arc::new(StringArray::from(vec![entry.writer])),
            _ => new_null_array(field.data_type(), 1),
        }
    };
    let columns = schema.fields().iter().map(column).collect();
    RecordBatch::try_new(schema, columns)
}

/// The entries of `rows`, with their group, in stored order.
pub(super) fn of_rows(rows: &RecordBatch) -> Result<Vec<(i64, ChunkRecord)>, LakeError> {
    let is_chunk = rows.column_by_name(CHUNK_ID).map(|ids| is_not_null(ids)).transpose();
    let rows = &match is_chunk.map_err(|cause| LakeError::corrupt("table chunks", cause))? {
        Some(is_chunk) => {
            let chunks = filter_record_batch(rows, &is_chunk);
            chunks.map_err(|cause| LakeError::corrupt("table chunks", cause))?
        }
        None => rows.clone(),
    };
    let corrupt = |cause| LakeError::corrupt("table chunks", cause);
    let records = ledger::of_rows(rows).map_err(corrupt)?;
    let groups =
        groups(rows).ok_or_else(|| LakeError::corrupt("table chunks", "there is no column group"))?;
    Ok(groups.values().iter().copied().zip(records).collect())
}

/// What each group of `rows` does to the tables.
pub(super) fn actions_of_rows(rows: &RecordBatch) -> Vec<(i64, String)> {
    texts_of_groups(rows, "actions")
}

/// The link of each group of `rows`.
pub(super) fn links_of_rows(rows: &RecordBatch) -> Vec<(i64, String)> {
    texts_of_groups(rows, CHAIN)
}

fn texts_of_groups(rows: &RecordBatch, column: &str) -> Vec<(i64, String)> {
    let texts = rows.column_by_name(column).and_then(|column| column.as_string_opt::<i32>());
    let (Some(groups), Some(texts)) = (groups(rows), texts) else { return Vec::new() };
    let of_row = |row| texts.is_valid(row).then(|| (groups.value(row), texts.value(row).to_owned()));
    (0..rows.num_rows()).filter_map(of_row).collect()
}

pub(super) fn groups(rows: &RecordBatch) -> Option<&Int64Array> {
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
        let rows = to_rows(&entry, &records, "").unwrap();
        assert_eq!(of_rows(&rows).unwrap(), records.map(|record| (12, record)));
        assert_eq!(actions_of_rows(&rows), [(12, "{}".to_owned())]);
        assert_eq!(links_of_rows(&rows), [(12, link("", &rows))]);
    }
}
