//! Takes the rows of superseded open lines out of the tables: the files that hold them are written anew without
//! them, as part of the group that holds the longer line.
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::LakeError;
use super::archive::{Archive, may_hold};
use super::commit::Actions;
use super::encode::remove_action;
use super::lane::NewFile;
use super::merge::{MergeOptions, merge};
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
        let actions = rewrites.actions.entry(table.to_owned()).or_default();
        actions.push(remove_action(&state.layout, &live.path, &live.file));
        let without = MergeOptions { without: Some(ids), ..MergeOptions::default() };
        let (day, file) = (live.file.day, std::slice::from_ref(live));
        if let Some(stored) = merge(archive, &state.layout, day, file, &without).await? {
            actions.push(stored.add.clone());
            rewrites.files.push(stored);
        }
    }
    Ok(())
}
