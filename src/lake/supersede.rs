//! Takes the rows of superseded open lines out of the tables: the files that hold them are written anew without
//! them, as part of the group that holds the longer line.
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;

use super::LakeError;
use super::archive::{Archive, may_hold};
use super::commit::Actions;
use super::encode::{encode, remove_action};
use super::lane::{NewFile, put};
use super::read::{columns, read_file};
use crate::ledger::{BLANKS, CHUNK_ID, REJECTS};
use crate::model::ChunkRecord;

/// Replaced files, stored but not committed.
#[derive(Debug, Default)]
pub(super) struct Rewrites {
    pub(super) actions: Actions,
    pub(super) files: Vec<NewFile>,
}

/// Writes anew the live files that hold rows of `superseded`. All committed groups must have been applied, and
/// the result is good for the next group only: any group in between may have replaced the same files.
pub(super) async fn rewrite_without(
    archive: &Archive,
    superseded: &[ChunkRecord],
) -> Result<Rewrites, LakeError> {
    let mut of_tables: BTreeMap<&str, Vec<&ChunkRecord>> = BTreeMap::new();
    for record in superseded {
        let types =
            record.types.iter().filter(|(_, of_type)| of_type.rows > 0).map(|(name, _)| name.as_str());
        let rejects = (record.num_rejects > 0 || record.piece.is_some()).then_some(REJECTS);
        let blanks = (record.num_blanks > 0).then_some(BLANKS);
        for table in types.chain(rejects).chain(blanks) {
            of_tables.entry(table).or_default().push(record);
        }
    }
    let mut rewrites = Rewrites::default();
    for (table, records) in of_tables {
        rewrite_table(archive, table, &records, &mut rewrites).await?;
    }
    Ok(rewrites)
}

async fn rewrite_table(
    archive: &Archive,
    table: &str,
    records: &[&ChunkRecord],
    rewrites: &mut Rewrites,
) -> Result<(), LakeError> {
    let Some(state) = archive.log(table)?.load().await? else { return Ok(()) };
    let chunk_id = columns(&state.layout.schema, &[CHUNK_ID]);
    for live in &state.files {
        let may_be_here = records.iter().filter(|record| may_hold(live.file.time_range, record.time_range));
        let ids: Arc<HashSet<i64>> = Arc::new(may_be_here.map(|record| record.chunk_id).collect());
        if ids.is_empty() {
            continue;
        }
        let found = read_file(archive.store(), &live.file, &chunk_id, Some(&ids)).await?;
        if found.iter().all(|rows| rows.num_rows() == 0) {
            continue;
        }
        let mut kept = Vec::new();
        for rows in read_file(archive.store(), &live.file, &state.layout.schema, None).await? {
            let stays = |ids_here: &arrow::array::Int64Array| -> BooleanArray {
                ids_here.iter().map(|id| Some(!id.is_some_and(|id| ids.contains(&id)))).collect()
            };
            let of_rows =
                rows.column_by_name(CHUNK_ID).and_then(|column| column.as_primitive_opt::<Int64Type>());
            let of_rows =
                of_rows.ok_or_else(|| LakeError::corrupt(&live.file.path, "column chunk_id is missing"))?;
            let filtered = filter_record_batch(&rows, &stays(of_rows));
            kept.push(filtered.map_err(|cause| LakeError::encode(table, cause))?);
        }
        let actions = rewrites.actions.entry(table.to_owned()).or_default();
        actions.push(remove_action(&state.layout, &live.path, &live.file));
        if kept.iter().any(|rows| rows.num_rows() > 0) {
            let file = encode(&state.layout, live.file.day, &kept)?;
            let stored = put(Arc::clone(archive.store()), file).await?;
            actions.push(stored.add.clone());
            rewrites.files.push(stored);
        }
    }
    Ok(())
}
