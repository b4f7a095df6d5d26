//! What verify and restore need of a place that logs are stored in, be it an archive or Postgres.
//!
//! Tables are named as the ledger names them: a log type, `rejects` or `blanks`. Deliberately absent: writing.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::ArchiveError;
use crate::lake::{Archive, Damage, Moment, TableSnapshot};
use crate::model::{ChunkRecord, Ledger};
use crate::warehouse::Warehouse;

/// Something that holds rows and the ledger of them.
#[async_trait]
pub trait Holdings: Sync {
    /// Looks whether what is stored is what was committed. Files that are not are left out of what the other methods
    /// read from then on.
    async fn audit(&self) -> Result<Vec<Damage>, ArchiveError> {
        Ok(Vec::new())
    }

    /// Every committed chunk, by source and first byte.
    async fn records(&self) -> Result<Vec<ChunkRecord>, ArchiveError>;

    /// The same folded, with the newest record of each source.
    async fn ledger(&self) -> Result<Ledger, ArchiveError>;

    /// The tables that exist.
    async fn tables(&self) -> Result<Vec<String>, ArchiveError>;

    /// Rows of a table per chunk. Of a reject that is kept in pieces only the first counts.
    async fn count_by_chunk(&self, table: &str) -> Result<HashMap<i64, u64>, ArchiveError>;

    /// Rows of a table that belong to `chunk_ids`, with event times in `time_range`; none where there is no such
    /// table.
    async fn rows(
        &self,
        table: &str,
        chunk_ids: &HashSet<i64>,
        time_range: Option<(i64, i64)>,
    ) -> Result<Vec<RecordBatch>, ArchiveError>;

    /// Chunks that are not whole here, because rows of theirs moved to an archive.
    async fn moved_chunks(&self) -> Result<HashSet<i64>, ArchiveError> {
        Ok(HashSet::new())
    }

    /// The kept text of a type file.
    async fn type_text(&self, hash: &str) -> Result<Arc<str>, ArchiveError>;
}

/// An archive, whose tables are looked at once, when the first is asked for.
#[derive(Debug)]
pub struct OfArchive<'a> {
    archive: &'a Archive,
    /// The ledger, if it is that of one moment with the tables.
    records: Option<Vec<ChunkRecord>>,
    tables: OnceCell<BTreeMap<String, TableSnapshot>>,
    /// Paths of files that are missing or changed, once that was looked at.
    damaged: OnceLock<HashSet<String>>,
}

impl<'a> OfArchive<'a> {
    /// Looks at nothing yet.
    pub fn new(archive: &'a Archive) -> Self {
        Self { archive, records: None, tables: OnceCell::new(), damaged: OnceLock::new() }
    }

    /// As it was at `moment`, whatever is committed since.
    pub fn at(archive: &'a Archive, moment: Moment) -> Self {
        let tables = moment.tables.into_iter().map(|table| (table.name.clone(), table)).collect();
        let (records, tables) = (Some(moment.records), OnceCell::new_with(Some(tables)));
        Self { archive, records, tables, damaged: OnceLock::new() }
    }

    async fn snapshots(&self) -> Result<&BTreeMap<String, TableSnapshot>, ArchiveError> {
        let read = async {
            let mut tables = self.archive.tables().await?;
            if let Some(damaged) = self.damaged.get() {
                for table in &mut tables {
                    table.files.retain(|file| !damaged.contains(&file.path));
                }
            }
            Ok(tables.into_iter().map(|table| (table.name.clone(), table)).collect())
        };
        self.tables.get_or_try_init(|| read).await
    }
}

#[async_trait]
impl Holdings for OfArchive<'_> {
    async fn audit(&self) -> Result<Vec<Damage>, ArchiveError> {
        let damage = self.archive.audit().await?;
        let paths = damage.iter().filter_map(|damage| match damage {
            Damage::Missing { path } | Damage::Changed { path } => Some(path.clone()),
            _ => None,
        });
        self.damaged.get_or_init(|| paths.collect());
        Ok(damage)
    }

    async fn records(&self) -> Result<Vec<ChunkRecord>, ArchiveError> {
        match &self.records {
            Some(records) => Ok(records.clone()),
            None => Ok(self.archive.records().await?),
        }
    }

    async fn ledger(&self) -> Result<Ledger, ArchiveError> {
        Ok(self.archive.ledger().await?)
    }

    async fn tables(&self) -> Result<Vec<String>, ArchiveError> {
        Ok(self.snapshots().await?.keys().cloned().collect())
    }

    async fn count_by_chunk(&self, table: &str) -> Result<HashMap<i64, u64>, ArchiveError> {
        match self.snapshots().await?.get(table) {
            Some(table) => Ok(self.archive.count_by_chunk(table).await?),
            None => Ok(HashMap::new()),
        }
    }

    async fn rows(
        &self,
        table: &str,
        chunk_ids: &HashSet<i64>,
        time_range: Option<(i64, i64)>,
    ) -> Result<Vec<RecordBatch>, ArchiveError> {
        match self.snapshots().await?.get(table) {
            Some(table) => Ok(self.archive.read_rows(table, chunk_ids, time_range).await?),
            None => Ok(Vec::new()),
        }
    }

    async fn type_text(&self, hash: &str) -> Result<Arc<str>, ArchiveError> {
        Ok(self.archive.type_text(hash).await?)
    }
}

#[async_trait]
impl Holdings for Warehouse {
    async fn records(&self) -> Result<Vec<ChunkRecord>, ArchiveError> {
        Ok(self.records("true").await?)
    }

    async fn ledger(&self) -> Result<Ledger, ArchiveError> {
        Ok(self.committed().await?.ledger().clone())
    }

    async fn tables(&self) -> Result<Vec<String>, ArchiveError> {
        Ok(self.tables().await?)
    }

    async fn count_by_chunk(&self, table: &str) -> Result<HashMap<i64, u64>, ArchiveError> {
        Ok(self.count_by_chunk(table).await?)
    }

    async fn rows(
        &self,
        table: &str,
        chunk_ids: &HashSet<i64>,
        time_range: Option<(i64, i64)>,
    ) -> Result<Vec<RecordBatch>, ArchiveError> {
        Ok(self.rows(table, chunk_ids, time_range).await?)
    }

    async fn moved_chunks(&self) -> Result<HashSet<i64>, ArchiveError> {
        Ok(self.moved_rows(None).await?.into_keys().collect())
    }

    async fn type_text(&self, hash: &str) -> Result<Arc<str>, ArchiveError> {
        Ok(self.type_text(hash).await?)
    }
}
