//! How rows land exactly once, though Delta has no transaction across tables.
//!
//! ```text
//! 1  files    put, fsynced                      nothing refers to them yet
//! 2  chunks   version v+1 by exclusive put      THE COMMIT: ranges, counts, and what step 3 will do
//! 3  tables   one commit each, txn = group v+1  replayable from the ledger by anyone
//! ```
//!
//! - A group's number is the version of `chunks` that it is committed at, so groups are ordered. Before step 2
//!   the writer knows every entry up to v and checks that no range overlaps; if v+1 is taken it reads on and
//!   checks again. Two writers can thus never commit one byte twice.
//! - Step 3 is idempotent: a table's transaction version is the last group applied to it, and a commit that
//!   raises it is exclusive. Groups are applied to a table in order, because whoever applies group g has
//!   first seen to it that all before g are applied.
//! - `chunks` itself carries a transaction version: the last group that its writer knew to be applied to all
//!   tables. Only groups after it can be pending, so an opener rereads few, however rarely a table changes.
//!
//! A crash before 2 leaves files that nothing refers to (see `orphans`), after 2 a group that the next opener
//! finishes. Deliberately absent: conflict resolution, which would merge what must be checked.
use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::LakeError;
use super::archive::Archive;
use super::delta::{LiveFile, TableState, applied_action};
use super::entries::actions_of_rows;
use super::read::{columns, read_file};
use super::schema::Layout;

/// What a group does to each table: `add` and `remove` actions.
pub(super) type Actions = BTreeMap<String, Vec<Value>>;
/// Groups that are committed but perhaps not applied to every table.
pub(super) type Pending = BTreeMap<i64, Actions>;
/// Version and last applied group of tables, as last seen. A stale one costs a failed commit, nothing more.
pub(super) type Positions = HashMap<String, (u64, i64)>;

impl Archive {
    /// Groups of `chunks` that may have to be applied.
    pub(super) async fn pending(&self, chunks: &TableState) -> Result<Pending, LakeError> {
        let schema = columns(&Layout::chunks().schema, &["group", "actions"]);
        let mut pending = Pending::new();
        for live in chunks.files.iter().filter(|live| live.max_group > Some(chunks.applied)) {
            for rows in read_file(self.store(), &live.file, &schema, None).await? {
                for (group, actions) in actions_of_rows(&rows) {
                    let parsed = serde_json::from_str(&actions);
                    let parsed = parsed.map_err(|cause| LakeError::corrupt(&live.file.path, cause))?;
                    pending.insert(group, parsed);
                }
            }
        }
        pending.retain(|group, _| *group > chunks.applied);
        Ok(pending)
    }

    /// Applies what is pending as of `chunks`.
    pub(super) async fn finish_pending(&self, chunks: &TableState) -> Result<(), LakeError> {
        let mut positions = Positions::new();
        for (group, actions) in self.pending(chunks).await? {
            self.apply(group, &actions, &mut positions).await?;
        }
        Ok(())
    }

    /// Applies one group to its tables. All groups before it must have been applied.
    pub(super) async fn apply(
        &self,
        group: i64,
        actions: &Actions,
        positions: &mut Positions,
    ) -> Result<(), LakeError> {
        for (table, of_table) in actions {
            let log = self.log(table)?;
            let mut entry = vec![applied_action(group)];
            entry.extend_from_slice(of_table);
            loop {
                let (version, applied) = match positions.get(table) {
                    Some(position) => *position,
                    None => {
                        let state = log.load().await?;
                        let state =
                            state.ok_or_else(|| LakeError::corrupt(&log.location, "the table is gone"))?;
                        (state.version, state.applied)
                    }
                };
                if applied >= group {
                    positions.insert(table.clone(), (version, applied));
                    break;
                }
                if log.commit(version + 1, &entry).await? {
                    positions.insert(table.clone(), (version + 1, group));
                    break;
                }
                positions.remove(table);
            }
        }
        Ok(())
    }
}

/// Shows a table as it will be once `pending` is applied to it.
pub(super) fn overlay(state: &mut TableState, pending: &Pending) -> Result<(), LakeError> {
    for (_, actions) in pending.range(state.applied + 1..) {
        let Some(of_table) = actions.get(&state.layout.name) else { continue };
        let removed: HashSet<_> =
            of_table.iter().filter_map(|action| action["remove"]["path"].as_str()).collect();
        state.files.retain(|live| !removed.contains(live.path.as_str()));
        for add in of_table.iter().map(|action| &action["add"]).filter(|add| !add.is_null()) {
            let live = LiveFile::of_add(&state.layout, add);
            state
                .files
                .push(live.ok_or_else(|| LakeError::corrupt("table chunks", "an entry's action is broken"))?);
        }
    }
    Ok(())
}
