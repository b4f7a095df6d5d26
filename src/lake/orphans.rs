//! Removes files that nothing refers to: left by a writer that died before its group was committed, or replaced.
//!
//! A file may be the work of a living writer, whose group will name it soon. Only files older than [`LEASE`]
//! are taken for garbage, and a writer discards a group older than half of that instead of committing it.
//! A file that was replaced stays as long for the sake of readers that began before.
use std::collections::HashSet;
use std::time::Duration;

use chrono::Utc;
use futures_util::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::LakeError;
use super::archive::Archive;
use crate::client::STAGED_PREFIX;
use crate::ledger::CHUNKS;

/// How long a file may wait to be committed.
pub(super) const LEASE: Duration = Duration::from_secs(3600);

/// Removes unreferenced data files and staged objects older than `lease`; returns how many. All committed groups
/// must have been applied.
pub(super) async fn remove_orphans(archive: &Archive, lease: Duration) -> Result<usize, LakeError> {
    let mut live = HashSet::new();
    let mut tables = HashSet::new();
    for name in archive.table_names().await?.into_iter().chain([CHUNKS.to_owned()]) {
        // a folder without a log is not ours, nor is what it holds
        if let Some(state) = archive.log(&name)?.load().await? {
            live.extend(state.files.into_iter().map(|file| file.file.path));
            tables.insert(name);
        }
    }
    let is_garbage = |path: &str| {
        let Some((table, within)) = path.split_once('/') else { return false };
        if path.rsplit('/').next().is_some_and(|name| name.starts_with(STAGED_PREFIX)) {
            return true;
        }
        let is_data = within.ends_with(".parquet") && !within.starts_with('_');
        tables.contains(table) && is_data && !live.contains(path)
    };
    let listed = archive.store().list(None).try_filter_map(|object| async move {
        let age = Utc::now().signed_duration_since(object.last_modified);
        Ok((age.to_std().is_ok_and(|age| age >= lease)).then_some(object.location))
    });
    let old: Vec<_> = listed.try_collect().await.map_err(LakeError::storage("list", archive.url()))?;
    let mut garbage: Vec<_> = old.iter().filter(|path| is_garbage(path.as_ref())).collect();
    let table_of = |path: &&Path| path.as_ref().split_once('/').map(|(table, _)| table.to_owned());
    for table in garbage.iter().filter_map(table_of).collect::<HashSet<_>>() {
        let recent = archive.log(&table)?.removed_within(lease).await?;
        garbage.retain(|path| {
            let within = path.as_ref().strip_prefix(&*table).and_then(|path| path.strip_prefix('/'));
            within.is_none_or(|within| !recent.contains(within))
        });
    }
    let mut removed = 0;
    for path in garbage {
        match archive.store().delete(path).await {
            Ok(()) => removed += 1,
            Err(object_store::Error::NotFound { .. }) => {}
            Err(cause) => return Err(LakeError::storage("remove", path)(cause)),
        }
    }
    Ok(removed)
}
