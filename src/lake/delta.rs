//! One Delta table: load its state, commit one version, checkpoint.
//!
//! A commit is one exclusive put of exactly the version that the caller names, with no conflict resolution:
//! whoever loses looks again. That, and actions that are prepared before the commit that applies them, is why
//! the log entries are written here as JSON and not by deltalake's transaction builder; snapshots, checkpoints
//! and log clean-up are deltalake's.
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use deltalake_core::kernel::{EagerSnapshot, LogicalFileView};
use deltalake_core::logstore::{LogStoreRef, StorageConfig, logstore_with};
use deltalake_core::{DeltaTable, checkpoints};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode};
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use super::schema::{DAY, Layout};
use super::{DataFile, LakeError};

/// Versions between checkpoints.
const CHECKPOINT_INTERVAL: u64 = 100;
/// Puts of one commit when the answers get lost.
const COMMIT_ATTEMPTS: u32 = 3;
/// Application of the transaction that a table's version carries: the last group applied to it.
pub(super) const APP_ID: &str = "pipeline";

/// A table of the archive, by its folder.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub(super) name: String,
    store: Arc<dyn ObjectStore>,
    log_store: LogStoreRef,
    /// For messages.
    pub(super) location: String,
}

/// A table at one version.
#[derive(Debug, Clone)]
pub(super) struct TableState {
    pub(super) version: u64,
    pub(super) layout: Layout,
    /// Last group applied, -1 if none. For `chunks`: last group known to be applied everywhere.
    pub(super) applied: i64,
    pub(super) files: Vec<LiveFile>,
    id: String,
    created_time: i64,
}

/// A live file as the log knows it.
#[derive(Debug, Clone)]
pub(super) struct LiveFile {
    pub(super) file: DataFile,
    /// Path within the table.
    pub(super) path: String,
    /// Highest group in a file of `chunks`.
    pub(super) max_group: Option<i64>,
}

impl Log {
    pub(super) fn open(store: &Arc<dyn ObjectStore>, archive: &Url, name: &str) -> Result<Self, LakeError> {
        let location = format!("{}{name}", archive.as_str());
        // The store is rooted at the archive. Under this scheme deltalake takes paths as they are and trusts
        // the order of listings, which a file:// URL would not allow.
        let table_url = Url::parse(&format!("memory:///{name}/"))
            .map_err(|cause| LakeError::corrupt(&location, cause))?;
        let log_store = logstore_with(Arc::clone(store), &table_url, StorageConfig::default())
            .map_err(|cause| LakeError::of_delta(&location, cause))?;
        Ok(Self { name: name.to_owned(), store: Arc::clone(store), log_store, location })
    }

    fn log_folder(&self) -> Path {
        Path::from_iter([self.name.as_str(), "_delta_log"])
    }

    /// Where the entry of a version is.
    pub(super) fn entry_path(&self, version: u64) -> Path {
        self.log_folder().join(format!("{version:020}.json"))
    }

    /// Its present state, or `None` if it was never created.
    pub(super) async fn load(&self) -> Result<Option<TableState>, LakeError> {
        let listed = self.store.list_with_delimiter(Some(&self.log_folder())).await;
        let listed = listed.map_err(LakeError::storage("list", &self.location))?;
        if !listed.objects.iter().any(|entry| entry.location.as_ref().ends_with(".json")) {
            return Ok(None);
        }
        let of_delta = |cause| LakeError::of_delta(&self.location, cause);
        let snapshot = EagerSnapshot::try_new(&self.log_store, None).await.map_err(of_delta)?;
        let applied = snapshot.transaction_version(&self.log_store, APP_ID).await.map_err(of_delta)?;
        let log_data = snapshot.try_log_data().map_err(of_delta)?;
        let metadata = snapshot.metadata();
        let setting = |name: &str| metadata.configuration().get(name).cloned().unwrap_or_default();
        let arrow_schema = snapshot.arrow_schema();
        let stored = arrow_schema.fields().iter().filter(|field| field.name() != DAY).cloned();
        let layout = Layout {
            name: self.name.clone(),
            schema: Arc::new(arrow::datatypes::Schema::new(stored.collect::<Vec<_>>())),
            timestamp: Some(setting("pipeline.timestamp")).filter(|name| !name.is_empty()),
            indexed: setting("pipeline.indexed")
                .split(',')
                .filter(|name| !name.is_empty())
                .map(Into::into)
                .collect(),
        };
        let files = log_data.iter().map(|view| self.live_file(&layout, &view)).collect::<Result<_, _>>()?;
        Ok(Some(TableState {
            version: snapshot.version(),
            layout,
            applied: applied.unwrap_or(-1),
            files,
            id: metadata.id().to_owned(),
            created_time: metadata.created_time().unwrap_or_default(),
        }))
    }

    fn live_file(&self, layout: &Layout, view: &LogicalFileView) -> Result<LiveFile, LakeError> {
        let action = json!({
            "path": view.path(),
            "size": view.size(),
            "partitionValues": view.partition_values_map(),
            "stats": view.stats(),
        });
        LiveFile::of_add(layout, &action).ok_or_else(|| {
            LakeError::corrupt(&self.location, format!("file {} has no row count", view.path()))
        })
    }

    /// Writes `actions` as exactly `version`. `false`: another commit has that version.
    pub(super) async fn commit(&self, version: u64, actions: &[Value]) -> Result<bool, LakeError> {
        // The id makes each commit's bytes its own.
        let mut entry = json!({"commitInfo": {
            "timestamp": Utc::now().timestamp_millis(),
            "operation": "WRITE",
            "operationParameters": {},
            "engineInfo": concat!("pipeline/", env!("CARGO_PKG_VERSION")),
            "txnId": Uuid::new_v4().to_string(),
        }})
        .to_string();
        for action in actions {
            entry.push('\n');
            entry.push_str(&action.to_string());
        }
        let path = self.entry_path(version);
        let entry = Bytes::from(entry);
        for attempt in 1.. {
            let put = self.store.put_opts(&path, entry.clone().into(), PutMode::Create.into()).await;
            let failure = match put {
                Ok(_) => break,
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => None,
                Err(cause) => Some(cause),
            };
            // What is there may be this very commit: a store that retries by itself meets its own first attempt, and
            // an answer may be lost on its way. Only the content can tell.
            match (self.stored(&path).await?, failure) {
                (Some(stored), _) if stored == entry => break,
                (Some(_), _) | (None, None) => return Ok(false),
                (None, Some(_)) if attempt < COMMIT_ATTEMPTS => {}
                (None, Some(cause)) => return Err(LakeError::storage("commit to", &self.location)(cause)),
            }
        }
        if version > 0 && version.is_multiple_of(CHECKPOINT_INTERVAL) {
            self.checkpoint().await;
        }
        Ok(true)
    }

    async fn stored(&self, path: &Path) -> Result<Option<Bytes>, LakeError> {
        let read = async { self.store.get(path).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(cause) => Err(LakeError::storage("commit to", &self.location)(cause)),
        }
    }

    /// Bounds what a reader has to replay. The commits are the truth, so a failure costs time only.
    pub(super) async fn checkpoint(&self) {
        let mut table = DeltaTable::new(Arc::clone(&self.log_store));
        let done = async {
            table.load().await?;
            checkpoints::create_checkpoint(&table, None).await?;
            checkpoints::cleanup_metadata(&table, None).await
        };
        if let Err(cause) = done.await {
            tracing::warn!(table = %self.location, %cause, "no checkpoint written; the next one makes up for it");
        }
    }

    /// Paths within the table of files that commits of the last `time` took out of it. The log keeps commits for longer.
    pub(super) async fn removed_within(&self, time: Duration) -> Result<HashSet<String>, LakeError> {
        let failed = |cause| LakeError::storage("read", &self.location)(cause);
        let listed = self.store.list_with_delimiter(Some(&self.log_folder())).await.map_err(failed)?;
        let is_recent = |written: DateTime<Utc>| {
            Utc::now().signed_duration_since(written).to_std().is_ok_and(|age| age < time)
        };
        let commits = listed
            .objects
            .into_iter()
            .filter(|object| object.location.as_ref().ends_with(".json") && is_recent(object.last_modified));
        let mut removed = HashSet::new();
        for commit in commits {
            let Some(bytes) = self.stored(&commit.location).await? else { continue };
            let actions = bytes.split(|byte| *byte == b'\n');
            let actions = actions.filter_map(|action| serde_json::from_slice::<Value>(action).ok());
            removed.extend(actions.filter_map(|action| Some(action["remove"]["path"].as_str()?.to_owned())));
        }
        Ok(removed)
    }

    /// Creates the table, or adds the columns it lacks. Returns its state.
    pub(super) async fn ensure(&self, wanted: &Layout) -> Result<TableState, LakeError> {
        loop {
            let (version, actions) = match self.load().await? {
                None => {
                    let protocol = json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}});
                    let metadata =
                        wanted.metadata(&Uuid::new_v4().to_string(), Utc::now().timestamp_millis());
                    (0, vec![protocol, metadata])
                }
                Some(state) => match state.layout.evolved_to(wanted)? {
                    None => return Ok(state),
                    Some(layout) => (state.version + 1, vec![layout.metadata(&state.id, state.created_time)]),
                },
            };
            self.commit(version, &actions).await?;
        }
    }
}

impl LiveFile {
    /// From the fields of an `add` action.
    pub(super) fn of_add(layout: &Layout, action: &Value) -> Option<Self> {
        let table = &layout.name;
        let timestamp = layout.timestamp.as_deref().unwrap_or_default();
        let path = action["path"].as_str()?.to_owned();
        let stats: Value = serde_json::from_str(action["stats"].as_str()?).ok()?;
        let time = |end: &str| stats[end][timestamp].as_str().and_then(parse_time);
        let day = action["partitionValues"][DAY].as_str().and_then(|day| day.parse::<NaiveDate>().ok());
        Some(Self {
            file: DataFile {
                path: format!("{table}/{path}"),
                size_bytes: action["size"].as_u64()?,
                day: day.map(|day| day.to_epoch_days()),
                num_rows: stats["numRecords"].as_u64()?,
                time_range: time("minValues").zip(time("maxValues")),
            },
            path,
            max_group: stats["maxValues"]["group"].as_i64(),
        })
    }
}

fn parse_time(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros())
}

/// A time as Delta statistics hold it.
pub(super) fn format_time(micros: i64) -> Option<String> {
    DateTime::from_timestamp_micros(micros)
        .map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))
}

/// The `txn` action that says that `group` is applied.
pub(super) fn applied_action(group: i64) -> Value {
    json!({"txn": {"appId": APP_ID, "version": group, "lastUpdated": Utc::now().timestamp_millis()}})
}
