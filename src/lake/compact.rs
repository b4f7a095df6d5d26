//! Makes few large files of many small ones, per table and day, beside readers and writers.
//!
//! New files are written first and count for nothing. Then one group of the ledger takes the small ones out and puts
//! the large ones in, as every other change is committed (see `commit`): readers see all of it or nothing, a killed
//! compaction leaves orphans only, and a second one finds less to do. Whoever replaced one of the small files
//! meanwhile was first: its large file is then discarded. The ledger's own small files come last; what they hold does
//! not change, so that is no group but one commit to `chunks`.
//!
//! Files that were replaced stay for [`LEASE`] (see `orphans`), for readers that know no other. Deliberately absent:
//! another target size: it is what readers of Parquet do best with.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::LakeError;
use super::archive::Archive;
use super::commit::Actions;
use super::delta::{LiveFile, TableState};
use super::encode::remove_action;
use super::lane::NewFile;
use super::merge::{MergeOptions, merge};
use super::orphans::{LEASE, remove_orphans};
use super::schema::Layout;
use super::writer::ArchiveWriter;
use crate::ledger::CHUNKS;

/// A file closes once its small files have this many bytes.
const TARGET_BYTES: u64 = 256 << 20;
/// A file with fewer bytes is a small one.
const SMALL_BYTES: u64 = 128 << 20;
/// What was written is committed once it has this many bytes, or is this old: kept short of the lease, after which
/// it would be taken for garbage.
const COMMIT_BYTES: u64 = 1 << 30;
const COMMIT_AGE: Duration = Duration::from_secs(LEASE.as_secs() / 6);

/// Small files of one table and day, and the one that takes their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compaction {
    /// The table.
    pub table: String,
    /// Days since the epoch; `None` for rows without a usable day and for tables without days.
    pub day: Option<i32>,
    /// Small files.
    pub files: usize,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the file in their place; `None` if it is not written, because this is a plan, or because another writer
    /// replaced some of the small files first.
    pub bytes_after: Option<u64>,
}

/// Small files that become one.
struct Bin {
    layout: Layout,
    day: Option<i32>,
    files: Vec<LiveFile>,
}

impl Bin {
    fn report(&self, bytes_after: Option<u64>) -> Compaction {
        Compaction {
            table: self.layout.name.clone(),
            day: self.day,
            files: self.files.len(),
            rows: self.files.iter().map(|live| live.file.num_rows).sum(),
            bytes: self.files.iter().map(|live| live.file.size_bytes).sum(),
            bytes_after,
        }
    }

    /// Rows stay what they are, which tells other readers of the log that nothing is new.
    fn actions(&self, merged: &NewFile) -> Vec<serde_json::Value> {
        let removes = self.files.iter().map(|live| remove_action(&self.layout, &live.path, &live.file));
        let mut actions: Vec<_> = removes.chain([merged.add.clone()]).collect();
        for action in &mut actions {
            for kind in ["add", "remove"] {
                if !action[kind].is_null() {
                    action[kind]["dataChange"] = false.into();
                }
            }
        }
        actions
    }
}

/// The bins of a table.
fn bins(state: &TableState) -> Vec<Bin> {
    let mut of_days: BTreeMap<Option<i32>, Vec<&LiveFile>> = BTreeMap::new();
    for live in state.files.iter().filter(|live| live.file.size_bytes < SMALL_BYTES) {
        of_days.entry(live.file.day).or_default().push(live);
    }
    let mut bins = Vec::new();
    for (day, mut files) in of_days {
        // names are in the order of writing
        files.sort_by(|one, other| {
            let key = |of: &LiveFile| (of.max_group, of.file.time_range);
            key(one).cmp(&key(other)).then_with(|| one.path.cmp(&other.path))
        });
        let mut files = files.into_iter().peekable();
        while files.peek().is_some() {
            let mut bin = Bin { layout: state.layout.clone(), day, files: Vec::new() };
            let mut len_bytes = 0;
            while let Some(live) = files.next_if(|_| len_bytes < TARGET_BYTES) {
                len_bytes += live.file.size_bytes;
                bin.files.push(live.clone());
            }
            bins.extend((bin.files.len() > 1).then_some(bin));
        }
    }
    bins
}

impl Archive {
    /// What a compaction would do now.
    pub async fn plan_compaction(&self) -> Result<Vec<Compaction>, LakeError> {
        let mut planned = self.bins().await?;
        planned.extend(bins(&self.chunks_state().await?));
        Ok(planned.iter().map(|bin| bin.report(None)).collect())
    }

    async fn bins(&self) -> Result<Vec<Bin>, LakeError> {
        let mut found = Vec::new();
        for name in self.table_names().await? {
            let state = self.log(&name)?.load().await?;
            found.extend(state.iter().flat_map(bins));
        }
        Ok(found)
    }

    /// Places of the chunks: by source, as its path is written, then by byte.
    async fn ranks(&self) -> Result<HashMap<i64, u32>, LakeError> {
        let mut records = self.records().await?;
        records.sort_by(|one, other| (&one.source.path, one.range).cmp(&(&other.source.path, other.range)));
        Ok(records.iter().map(|record| record.chunk_id).zip(0..).collect())
    }
}

/// A bin and its file, stored but not committed.
struct Merged {
    bin: Bin,
    file: NewFile,
}

impl ArchiveWriter {
    /// Compacts everything; `tell` hears of each file as it is committed.
    pub async fn compact(&mut self, mut tell: impl FnMut(Compaction)) -> Result<(), LakeError> {
        self.catch_up().await?;
        let bins = self.archive().bins().await?;
        let ranks = if bins.is_empty() { HashMap::new() } else { self.archive().ranks().await? };
        let options = MergeOptions { ranks: Some(Arc::new(ranks)), ..MergeOptions::default() };
        let mut touched = HashSet::new();
        let mut merged: Vec<Merged> = Vec::new();
        let mut since = Instant::now();
        for bin in bins {
            touched.insert(bin.layout.name.clone());
            let file = merge(self.archive(), &bin.layout, bin.day, &bin.files, &options).await?;
            merged.extend(file.map(|file| Merged { bin, file }));
            let len_bytes: u64 = merged.iter().map(|merged| merged.file.size_bytes).sum();
            if len_bytes >= COMMIT_BYTES || since.elapsed() >= COMMIT_AGE {
                self.commit_merged(std::mem::take(&mut merged), &mut tell).await?;
                since = Instant::now();
            }
        }
        self.commit_merged(merged, &mut tell).await?;
        self.compact_ledger(&mut touched, &mut tell).await?;
        for table in touched {
            self.archive().log(&table)?.checkpoint().await;
        }
        remove_orphans(self.archive(), LEASE).await?;
        Ok(())
    }

    async fn commit_merged(
        &mut self,
        mut merged: Vec<Merged>,
        tell: &mut impl FnMut(Compaction),
    ) -> Result<(), LakeError> {
        loop {
            self.catch_up().await?;
            let mut live: HashMap<String, HashSet<String>> = HashMap::new();
            for table in merged.iter().map(|merged| &merged.bin.layout.name).collect::<HashSet<_>>() {
                live.insert(table.clone(), self.live_paths(table).await?);
            }
            let is_live = |merged: &Merged| {
                let live = &live[&merged.bin.layout.name];
                merged.bin.files.iter().all(|file| live.contains(&file.path))
            };
            let (current, lost): (Vec<_>, Vec<_>) = merged.into_iter().partition(is_live);
            self.remove(lost.iter().map(|merged| &merged.file)).await;
            lost.iter().for_each(|merged| tell(merged.bin.report(None)));
            merged = current;
            if merged.is_empty() {
                return Ok(());
            }
            let mut actions = Actions::new();
            for Merged { bin, file } in &merged {
                actions.entry(bin.layout.name.clone()).or_default().extend(bin.actions(file));
            }
            if self.try_commit(&[], &actions).await?.is_some() {
                merged.iter().for_each(|of| tell(of.bin.report(Some(of.file.size_bytes))));
                return Ok(());
            }
        }
    }

    async fn live_paths(&self, table: &str) -> Result<HashSet<String>, LakeError> {
        let state = self.archive().log(table)?.load().await?;
        Ok(state.into_iter().flat_map(|state| state.files).map(|live| live.path).collect())
    }

    async fn compact_ledger(
        &mut self,
        touched: &mut HashSet<String>,
        tell: &mut impl FnMut(Compaction),
    ) -> Result<(), LakeError> {
        let state = self.archive().chunks_state().await?;
        for bin in bins(&state) {
            touched.insert(CHUNKS.to_owned());
            let merged =
                merge(self.archive(), &bin.layout, None, &bin.files, &MergeOptions::default()).await?;
            let Some(file) = merged else { continue };
            let merged = Merged { bin, file };
            loop {
                self.catch_up().await?;
                let live = self.live_paths(CHUNKS).await?;
                if !merged.bin.files.iter().all(|file| live.contains(&file.path)) {
                    self.remove([&merged.file].into_iter()).await;
                    tell(merged.bin.report(None));
                    break;
                }
                if self.try_commit_to_ledger(merged.bin.actions(&merged.file)).await? {
                    tell(merged.bin.report(Some(merged.file.size_bytes)));
                    break;
                }
            }
        }
        Ok(())
    }
}
