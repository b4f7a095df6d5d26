//! An archive opened at one place: what it holds, and reading it back.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use url::Url;

use super::commit::overlay;
use super::delta::{Log, TableState};
use super::read::{FileRows, columns, read_file};
use super::schema::Layout;
use super::{LakeError, TableSnapshot, TypeText, entries};
use crate::client::open_store;
use crate::ledger::{BLANKS, CHUNK_ID, CHUNKS, Committed, REJECTS, newest};
use crate::model::{ChunkRecord, Ledger};

/// Folder of the log type files, by their hash.
const TYPES: &str = "_types";

/// Entries of a file of the ledger, each with its group; and the link of each group.
type Entries = (Vec<(i64, ChunkRecord)>, Vec<(i64, String)>);

/// An archive, for reading. Each call sees what is committed at that moment.
#[derive(Debug, Clone)]
pub struct Archive {
    store: Arc<dyn ObjectStore>,
    url: Url,
    pub(super) chunks: Log,
}

impl Archive {
    /// Opens the archive at `location`, a path or URL. Finishes what a dead writer left half applied, where it
    /// may write; elsewhere [`Archive::tables`] shows it as finished all the same.
    pub async fn open(location: &str) -> Result<Self, LakeError> {
        let (store, url) = open_store(location)?;
        Self::open_in(store, url).await
    }

    /// Opens the archive at `location`, and creates it if there is none.
    pub async fn open_or_create(location: &str) -> Result<Self, LakeError> {
        let (store, url) = open_store(location)?;
        Self::open_or_create_in(store, url).await
    }

    pub(super) async fn open_in(store: Arc<dyn ObjectStore>, url: Url) -> Result<Self, LakeError> {
        let archive = Self::new(store, url)?;
        let Some(state) = archive.chunks.load().await? else {
            return Err(LakeError::NotFound { url: display_name(&archive.url) });
        };
        if let Err(cause) = archive.finish_pending(&state).await {
            tracing::debug!(archive = %archive.url, %cause, "groups stay pending");
        }
        Ok(archive)
    }

    pub(super) async fn open_or_create_in(store: Arc<dyn ObjectStore>, url: Url) -> Result<Self, LakeError> {
        let archive = Self::new(store, url)?;
        // Group numbers start anew with the ledger: the tables would take new groups for old ones.
        if archive.chunks.load().await?.is_none() {
            for name in archive.table_names().await? {
                let state = archive.log(&name)?.load().await?;
                if state.is_some_and(|state| !state.files.is_empty()) {
                    let place = display_name(&archive.url);
                    let reason = format!("the table {name} holds rows, but the ledger `chunks` is gone");
                    return Err(LakeError::corrupt(place, reason));
                }
            }
        }
        // `chunks` comes last: an archive exists once it does.
        for layout in [Layout::rejects(), Layout::blanks(), Layout::chunks()] {
            archive.log(&layout.name)?.ensure(&layout).await?;
        }
        Ok(archive)
    }

    fn new(store: Arc<dyn ObjectStore>, url: Url) -> Result<Self, LakeError> {
        let chunks = Log::open(&store, &url, CHUNKS)?;
        Ok(Self { store, url, chunks })
    }

    /// Its place, ending in a slash.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The storage it is in, rooted at the archive: paths of [`super::DataFile`] are locations in it.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    pub(super) fn log(&self, table: &str) -> Result<Log, LakeError> {
        Log::open(&self.store, &self.url, table)
    }

    pub(super) async fn chunks_state(&self) -> Result<TableState, LakeError> {
        self.chunks.load().await?.ok_or_else(|| LakeError::NotFound { url: display_name(&self.url) })
    }

    /// What is committed, folded per source.
    pub async fn ledger(&self) -> Result<Ledger, LakeError> {
        let mut committed = Committed::default();
        self.fold_into(&mut committed, &self.chunks_state().await?, 0).await?;
        Ok(committed.ledger().clone())
    }

    /// Adds the groups of `chunks` after the group `after`. Returns the link of the last of them.
    pub(super) async fn fold_into(
        &self,
        committed: &mut Committed,
        chunks: &TableState,
        after: i64,
    ) -> Result<Option<String>, LakeError> {
        let mut files: Vec<_> = chunks.files.iter().filter(|live| live.max_group > Some(after)).collect();
        files.sort_by_key(|live| live.max_group);
        let mut last = None;
        for live in files {
            let (entries, links) = self.entries(&live.file).await?;
            for (_, record) in entries.iter().filter(|(group, _)| *group > after) {
                committed.insert(record);
            }
            last = links.into_iter().max().into_iter().chain(last).max();
        }
        Ok(last.map(|(_, link)| link))
    }

    /// Every committed chunk, sorted by source and first byte; superseded open lines left out.
    pub async fn records(&self) -> Result<Vec<ChunkRecord>, LakeError> {
        self.records_of(&self.chunks_state().await?).await
    }

    async fn records_of(&self, chunks: &TableState) -> Result<Vec<ChunkRecord>, LakeError> {
        let mut entries = Vec::new();
        for live in &chunks.files {
            entries.extend(self.entries(&live.file).await?.0);
        }
        Ok(newest(entries))
    }

    async fn entries(&self, file: &super::DataFile) -> Result<Entries, LakeError> {
        let layout = Layout::chunks();
        let names: Vec<_> = layout.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let without_actions: Vec<_> = names.into_iter().filter(|name| *name != "actions").collect();
        let schema = columns(&layout.schema, &without_actions);
        let batches = read_file(&self.store, file, &schema, None).await?;
        let records = batches.iter().map(entries::of_rows).collect::<Result<Vec<_>, _>>()?.concat();
        Ok((records, batches.iter().flat_map(entries::links_of_rows).collect()))
    }

    /// Every table: log types by name, then `rejects`, `blanks`, `chunks`. What is committed but not yet
    /// applied to a table is shown as applied.
    pub async fn tables(&self) -> Result<Vec<TableSnapshot>, LakeError> {
        Ok(self.tables_of(self.chunks_state().await?).await?.0)
    }

    /// The tables as of `chunks`, and whether none of them is newer.
    async fn tables_of(&self, chunks: TableState) -> Result<(Vec<TableSnapshot>, bool), LakeError> {
        let pending = self.pending(&chunks).await?;
        let (mut tables, mut is_of_one_moment) = (Vec::new(), true);
        for name in self.table_names().await? {
            if let Some(mut state) = self.log(&name)?.load().await? {
                is_of_one_moment &= state.applied <= chunks.version.cast_signed();
                overlay(&mut state, &pending)?;
                tables.push(state.into_snapshot());
            }
        }
        tables.push(chunks.into_snapshot());
        Ok((tables, is_of_one_moment))
    }

    /// The tables, and the ledger of exactly what they hold.
    pub async fn moment(&self) -> Result<Moment, LakeError> {
        let mut before = None;
        loop {
            let chunks = self.chunks_state().await?;
            let (version, records) = (chunks.version, self.records_of(&chunks).await?);
            // a table that was read after another group had been applied to it holds more than the ledger says
            if let (tables, true) = self.tables_of(chunks).await? {
                return Ok(Moment { version, tables, records });
            }
            // groups are in the ledger before they are applied, so it has grown, or something was taken from it
            if before.replace(version) == Some(version) {
                let reason = format!(
                    "it ends at version {version}, and a table has later groups; run `pipeline verify`"
                );
                return Err(LakeError::corrupt("chunks", reason));
            }
        }
    }

    /// Whether nothing was committed after `version` of the ledger. One request.
    pub async fn is_newest(&self, version: u64) -> Result<bool, LakeError> {
        let next = self.chunks.entry_path(version + 1);
        match self.store.head(&next).await {
            Ok(_) => Ok(false),
            Err(object_store::Error::NotFound { .. }) => Ok(true),
            Err(cause) => Err(LakeError::storage("read", &next)(cause)),
        }
    }

    /// Folders that may hold a table, `chunks` left out.
    pub(super) async fn table_names(&self) -> Result<Vec<String>, LakeError> {
        let listed = self.store.list_with_delimiter(None).await;
        let listed = listed.map_err(LakeError::storage("list", display_name(&self.url)))?;
        let folders = listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned));
        let ours = [REJECTS, BLANKS];
        let mut names: Vec<_> = folders
            .filter(|name| !name.starts_with(['_', '.']) && name != CHUNKS && !ours.contains(&name.as_str()))
            .collect();
        names.sort();
        names.extend(ours.map(str::to_owned));
        Ok(names)
    }

    /// The log type file with this hash, as it was when rows were read with it.
    pub async fn type_text(&self, hash: &str) -> Result<TypeText, LakeError> {
        let path = type_path(hash);
        let found = self.store.get(&path).await.map_err(LakeError::storage("read", &path))?;
        let bytes = found.bytes().await.map_err(LakeError::storage("read", &path))?;
        std::str::from_utf8(&bytes).map(TypeText::from).map_err(|cause| LakeError::corrupt(&path, cause))
    }

    /// Keeps a log type file. Its name is its content, so whoever was first has written the same.
    pub(super) async fn keep_type(&self, hash: &str, text: &str) -> Result<(), LakeError> {
        let path = type_path(hash);
        let stored = self.store.put(&path, text.as_bytes().to_vec().into()).await;
        stored.map(|_| ()).map_err(LakeError::storage("write", &path))
    }

    /// Rows of `table` that belong to `chunk_ids`, from files that may hold event times of `time_range`.
    pub async fn read_rows(
        &self,
        table: &TableSnapshot,
        chunk_ids: &HashSet<i64>,
        time_range: Option<(i64, i64)>,
    ) -> Result<Vec<RecordBatch>, LakeError> {
        let chunk_ids = Arc::new(chunk_ids.clone());
        let mut rows = Vec::new();
        for file in table.files.iter().filter(|file| may_hold(file.time_range, time_range)) {
            rows.extend(read_file(&self.store, file, &table.schema, Some(&chunk_ids)).await?);
        }
        Ok(rows)
    }

    /// Rows of `table` per chunk, counted. Of a reject that is kept in pieces only the first counts.
    pub async fn count_by_chunk(&self, table: &TableSnapshot) -> Result<HashMap<i64, u64>, LakeError> {
        let schema = match table.name.as_str() {
            REJECTS => columns(&table.schema, &[CHUNK_ID, "piece"]),
            _ => columns(&table.schema, &[CHUNK_ID]),
        };
        let mut counts = HashMap::new();
        for file in &table.files {
            let mut file_rows = FileRows::open(&self.store, file, &schema, None).await?;
            while let Some(rows) = file_rows.next().await? {
                let ids = rows.column(0).as_primitive::<Int64Type>();
                let pieces = rows.column_by_name("piece").map(|column| column.as_primitive::<Int32Type>());
                for (row, id) in ids.values().iter().enumerate() {
                    if pieces.is_none_or(|pieces| pieces.value(row) == 0) {
                        *counts.entry(*id).or_default() += 1;
                    }
                }
            }
        }
        Ok(counts)
    }
}

/// An archive at one version of its ledger.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Version of `chunks`.
    pub version: u64,
    /// As [`Archive::tables`] gives them.
    pub tables: Vec<TableSnapshot>,
    /// As [`Archive::records`] gives them.
    pub records: Vec<ChunkRecord>,
}

impl TableState {
    fn into_snapshot(self) -> TableSnapshot {
        let by_path: BTreeMap<_, _> = self.files.into_iter().map(|live| (live.path, live.file)).collect();
        TableSnapshot {
            name: self.layout.name,
            schema: self.layout.schema,
            partitioned: self.layout.timestamp.is_some(),
            version: self.version.cast_signed(),
            files: by_path.into_values().collect(),
        }
    }
}

/// Whether a file with event times of `held` can hold one of `wanted`.
pub(super) fn may_hold(held: Option<(i64, i64)>, wanted: Option<(i64, i64)>) -> bool {
    match (held, wanted) {
        (Some(held), Some(wanted)) => held.0 <= wanted.1 && wanted.0 <= held.1,
        _ => true,
    }
}

/// Where the type file of this hash is kept.
pub(super) fn type_path(hash: &str) -> Path {
    Path::from_iter([TYPES, &format!("{hash}.toml")])
}

/// The archive as a user would write it.
fn display_name(url: &Url) -> String {
    match url.to_file_path() {
        Ok(path) => path.display().to_string().trim_end_matches('/').to_owned(),
        Err(()) => url.as_str().trim_end_matches('/').to_owned(),
    }
}
