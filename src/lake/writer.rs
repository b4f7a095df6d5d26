//! The writing side: takes decoded chunks into an open group, and commits it when it is full or old.
//!
//! A chunk's rows go to the lanes at once; its ledger entry waits in the group. Memory is bounded by the lanes
//! and by the group's limits here. A group that cannot be committed is discarded with its files; whoever ships
//! chunks asks the ledger again.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use chrono::Utc;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::LakeError;
use super::archive::Archive;
use super::commit::{Actions, Positions};
use super::delta::applied_action;
use super::encode::encode;
use super::entries::{GroupEntry, links_of_rows, to_rows};
use super::lane::{Lane, NewFile, put};
use super::orphans::{LEASE, remove_orphans};

use super::schema::Layout;
use super::supersede::{Rewrites, rewrite_without};
use crate::client::open_store;
use crate::ledger::{self, BLANKS, Committed, REJECTS, Verdict};
use crate::model::{ChunkRecord, CommitReceipt, DecodedBatch, Ledger, Table};

/// A group closes at this many lines,
const GROUP_LINES: u64 = 1 << 20;
/// or with this many Arrow bytes waiting in all lanes,
const GROUP_BYTES: usize = 64 << 20;
/// or at this age.
const GROUP_AGE: Duration = Duration::from_secs(10);

/// Writes to an archive. One per process and archive is enough; several are safe.
#[derive(Debug)]
pub struct ArchiveWriter {
    archive: Archive,
    /// Names this writer in the ledger.
    name: String,
    /// Version of `chunks` up to which `committed` is complete.
    version: u64,
    committed: Committed,
    /// Link of the last group in it.
    link: String,
    /// All groups up to this one are applied to all tables.
    applied: i64,
    positions: Positions,
    lanes: HashMap<String, Lane>,
    buffered: Arc<AtomicUsize>,
    kept_types: HashSet<String>,
    group: Option<Group>,
}

/// Chunks that wait for one commit.
#[derive(Debug)]
struct Group {
    opened: SystemTime,
    records: Vec<ChunkRecord>,
    num_lines: u64,
}

impl ArchiveWriter {
    /// Opens the archive at `location` for writing, creating it if there is none. Finishes what a dead writer
    /// left half done and removes what it left behind.
    pub async fn try_new(location: &str) -> Result<Self, LakeError> {
        let (store, url) = open_store(location)?;
        Self::try_new_in(store, url).await
    }

    pub(super) async fn try_new_in(store: Arc<dyn ObjectStore>, url: Url) -> Result<Self, LakeError> {
        let mut writer = Self {
            archive: Archive::open_or_create_in(store, url).await?,
            name: Uuid::now_v7().to_string(),
            version: 0,
            committed: Committed::default(),
            link: String::new(),
            applied: 0,
            positions: Positions::new(),
            lanes: HashMap::new(),
            buffered: Arc::default(),
            kept_types: HashSet::new(),
            group: None,
        };
        writer.catch_up().await?;
        let removed = remove_orphans(&writer.archive, LEASE).await?;
        if removed > 0 {
            tracing::info!(archive = %writer.archive.url(), removed, "files of a writer that died are removed");
        }
        Ok(writer)
    }

    /// The archive it writes to.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// What is committed now, by any writer.
    pub async fn ledger(&mut self) -> Result<Ledger, LakeError> {
        self.catch_up().await?;
        Ok(self.committed.ledger().clone())
    }

    /// What is committed, as far as this writer has seen.
    pub fn committed(&self) -> &Committed {
        &self.committed
    }

    /// Version of the ledger up to which that is.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Takes a chunk into the open group. Returns a receipt when that committed a group, which need not hold
    /// the chunk. After an error the open group is discarded.
    pub async fn write(&mut self, batch: DecodedBatch) -> Result<Option<CommitReceipt>, LakeError> {
        let outcome = self.take(batch).await;
        if outcome.is_err() {
            self.discard().await;
        }
        outcome
    }

    /// Commits the open group, if any. After an error the group is discarded, or committed: the ledger knows.
    pub async fn flush(&mut self) -> Result<Option<CommitReceipt>, LakeError> {
        let Some(group) = self.group.take() else { return Ok(None) };
        let files = self.close_lanes().await?;
        self.commit(&group, files).await.map(Some)
    }

    async fn take(&mut self, batch: DecodedBatch) -> Result<Option<CommitReceipt>, LakeError> {
        let range = batch.record.range;
        let touches = |group: &Group| group.records.iter().any(|record| record.range.overlaps(&range));
        // A longer form of an open line that waits in this very group: commit first, so that it can be superseded.
        let before = if self.group.as_ref().is_some_and(touches) { self.flush().await? } else { None };
        if self.committed.verdict(&range) == Verdict::Overlaps {
            return Err(LakeError::Overlap);
        }
        self.store_rows(&batch).await?;
        let opened = SystemTime::now();
        let group = self.group.get_or_insert_with(|| Group { opened, records: Vec::new(), num_lines: 0 });
        group.num_lines += batch.record.num_lines;
        group.records.push(batch.record);
        let is_full = group.num_lines >= GROUP_LINES
            || self.buffered.load(Ordering::Relaxed) >= GROUP_BYTES
            || group.opened.elapsed().is_ok_and(|age| age >= GROUP_AGE);
        let after = if is_full { self.flush().await? } else { None };
        Ok(match (before, after) {
            (Some(mut receipt), Some(after)) => {
                receipt.merge(after);
                Some(receipt)
            }
            (before, after) => before.or(after),
        })
    }

    async fn store_rows(&mut self, batch: &DecodedBatch) -> Result<(), LakeError> {
        for rows in &batch.types {
            self.lane_of_type(&rows.table).await?.write(rows.batch.clone()).await?;
        }
        if !batch.rejects.is_empty() {
            let rows = ledger::reject_rows(batch).map_err(|cause| LakeError::encode(REJECTS, cause))?;
            self.lane(Layout::rejects(), HashSet::new()).write(rows).await?;
        }
        if !batch.blanks.is_empty() {
            let rows = ledger::blank_rows(batch).map_err(|cause| LakeError::encode(BLANKS, cause))?;
            self.lane(Layout::blanks(), HashSet::new()).write(rows).await?;
        }
        Ok(())
    }

    async fn lane_of_type(&mut self, table: &Table) -> Result<&Lane, LakeError> {
        if self.kept_types.contains(&table.hash) && self.lanes.contains_key(&table.log_type) {
            return Ok(&self.lanes[&table.log_type]);
        }
        let layout = Layout::of_type(table)?;
        self.archive.keep_type(&table.hash, &table.text).await?;
        let state = self.archive.log(&layout.name)?.ensure(&layout).await?;
        self.kept_types.insert(table.hash.clone());
        let known_days = state.files.iter().filter_map(|live| live.file.day).collect();
        Ok(self.lane(layout, known_days))
    }

    fn lane(&mut self, layout: Layout, known_days: HashSet<i32>) -> &Lane {
        let (store, buffered) = (self.archive.store(), &self.buffered);
        self.lanes
            .entry(layout.name.clone())
            .or_insert_with(|| Lane::start(layout, known_days, Arc::clone(store), Arc::clone(buffered)))
    }

    /// The files of the open group, by table, once all are stored.
    async fn close_lanes(&mut self) -> Result<BTreeMap<String, Vec<NewFile>>, LakeError> {
        let closing =
            self.lanes.iter().map(|(table, lane)| async move { (table.clone(), lane.close().await) });
        let mut files = BTreeMap::new();
        let mut failure = None;
        for (table, closed) in futures_util::future::join_all(closing).await {
            match closed {
                Ok(of_table) if of_table.is_empty() => {}
                Ok(of_table) => {
                    files.insert(table, of_table);
                }
                Err(cause) => failure = Some(cause),
            }
        }
        self.buffered.store(0, Ordering::Relaxed);
        match failure {
            None => Ok(files),
            Some(cause) => {
                self.remove(files.values().flatten()).await;
                Err(cause)
            }
        }
    }

    async fn discard(&mut self) {
        self.group = None;
        if let Ok(files) = self.close_lanes().await {
            self.remove(files.values().flatten()).await;
        }
    }

    /// Removes files that will not be committed. What stays is removed as orphans later.
    pub(super) async fn remove(&self, files: impl Iterator<Item = &NewFile>) {
        for file in files {
            if let Err(cause) = self.archive.store().delete(&Path::from(file.path.as_str())).await {
                tracing::debug!(path = %file.path, %cause, "file stays until it is old enough");
            }
        }
    }

    async fn commit(
        &mut self,
        group: &Group,
        files: BTreeMap<String, Vec<NewFile>>,
    ) -> Result<CommitReceipt, LakeError> {
        loop {
            let superseded = match self.superseded_by(group) {
                Ok(superseded) => superseded,
                Err(refusal) => {
                    self.remove(files.values().flatten()).await;
                    return Err(refusal);
                }
            };
            let rewrites = if superseded.is_empty() {
                Rewrites::default()
            } else {
                rewrite_without(&self.archive, &superseded).await?
            };
            let mut actions: Actions = rewrites.actions.clone();
            for (table, of_table) in &files {
                let adds = of_table.iter().map(|file| file.add.clone());
                actions.entry(table.clone()).or_default().extend(adds);
            }
            let Some(entry_file) = self.try_commit(&group.records, &actions).await? else {
                self.remove(rewrites.files.iter()).await;
                continue;
            };
            let stored = files.values().flatten().chain(&rewrites.files).chain([&entry_file]);
            return Ok(CommitReceipt {
                ranges: group.records.iter().map(|record| record.range).collect(),
                stored_bytes: stored.map(|file| file.size_bytes).sum(),
                ..CommitReceipt::default()
            });
        }
    }

    /// Commits the next group and applies it; returns the file of its entries. `None` if another writer committed
    /// first: what it did is known then, and `actions` may be good no more.
    pub(super) async fn try_commit(
        &mut self,
        records: &[ChunkRecord],
        actions: &Actions,
    ) -> Result<Option<NewFile>, LakeError> {
        let number = self.version + 1;
        let (entry_file, link) = self.store_entries(records, number.cast_signed(), actions).await?;
        let entry = [applied_action(self.applied), entry_file.add.clone()];
        // An error here leaves open whether the commit counts, so nothing is removed.
        if !self.archive.chunks.commit(number, &entry).await? {
            self.remove([&entry_file].into_iter()).await;
            self.catch_up().await?;
            return Ok(None);
        }
        (self.version, self.link) = (number, link);
        records.iter().for_each(|record| self.committed.insert(record));
        self.archive.apply(number.cast_signed(), actions, &mut self.positions).await?;
        self.applied = number.cast_signed();
        Ok(Some(entry_file))
    }

    /// Takes the place of small files of the ledger: a commit to `chunks` that is no group. All groups before it must
    /// have been applied. `false` if another writer committed first.
    pub(super) async fn try_commit_to_ledger(&mut self, actions: Vec<Value>) -> Result<bool, LakeError> {
        let entry: Vec<_> = std::iter::once(applied_action(self.applied)).chain(actions).collect();
        let is_committed = self.archive.chunks.commit(self.version + 1, &entry).await?;
        self.catch_up().await?;
        Ok(is_committed)
    }

    /// The open lines that the group takes the place of.
    fn superseded_by(&self, group: &Group) -> Result<Vec<ChunkRecord>, LakeError> {
        if group.opened.elapsed().is_ok_and(|age| age >= LEASE / 2) {
            return Err(LakeError::GroupExpired);
        }
        let mut superseded = Vec::new();
        for record in &group.records {
            match self.committed.verdict(&record.range) {
                Verdict::Free => {}
                Verdict::Supersedes(open) => superseded.push(open.clone()),
                Verdict::Overlaps => return Err(LakeError::Overlap),
            }
        }
        Ok(superseded)
    }

    async fn store_entries(
        &self,
        records: &[ChunkRecord],
        number: i64,
        actions: &Actions,
    ) -> Result<(NewFile, String), LakeError> {
        let layout = Layout::chunks();
        let actions =
            serde_json::to_string(actions).map_err(|cause| LakeError::encode(&layout.name, cause))?;
        let committed_at = Utc::now().timestamp_micros();
        let entry = GroupEntry { group: number, committed_at, writer: &self.name, actions: &actions };
        let rows = to_rows(&entry, records, &self.link)?;
        let link = links_of_rows(&rows).pop().map_or_else(String::new, |(_, link)| link);
        let file = encode(&layout, None, &[rows])?;
        Ok((put(Arc::clone(self.archive.store()), file).await?, link))
    }

    /// Learns what others committed, and finishes what they left pending.
    pub(super) async fn catch_up(&mut self) -> Result<(), LakeError> {
        let state = self.archive.chunks_state().await?;
        self.archive.finish_pending(&state).await?;
        let after = self.version.cast_signed();
        if let Some(link) = self.archive.fold_into(&mut self.committed, &state, after).await? {
            self.link = link;
        }
        self.version = state.version;
        self.applied = state.version.cast_signed();
        Ok(())
    }
}
