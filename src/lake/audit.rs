//! Whether the archive's files are the ones that its ledger says.
//!
//! Three records are held against each other: the ledger, whose entries are chained (see `chain`) and say what each
//! group added and removed; the tables' logs; and what is in storage, whose every byte is read once, for the name of a
//! file says its hash. Bounded: a few ranges of [`RANGE_BYTES`] at once. Deliberately absent: signatures. Who may
//! write every file of an archive can write another history of it.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use sha2::{Digest, Sha256};

use super::archive::{Archive, type_path};
use super::chain::link;
use super::commit::{Pending, overlay};
use super::data_file_name::{base64url, hash_in_name};
use super::delta::TableState;
use super::entries::{actions_of_rows, groups, links_of_rows, of_rows};
use super::read::read_file;
use super::schema::Layout;
use super::{DataFile, LakeError};
use crate::log_type::text_hash;
use crate::model::ChunkRecord;

const RANGE_BYTES: u64 = 4 << 20;
/// Files that are read at once.
const FILES_AT_ONCE: usize = 4;

/// What is not as it was committed. Its text names the file or the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// The group's entries are not what its link says, or one before it is gone.
    Ledger {
        /// The group.
        group: i64,
    },
    /// A live file, or a type file that rows were read with, is not in storage.
    Missing {
        /// Relative to the archive.
        path: String,
    },
    /// A file's bytes are not those that were written.
    Changed {
        /// Relative to the archive.
        path: String,
    },
    /// A table's log lacks a file that the ledger added.
    Unlisted {
        /// Relative to the archive.
        path: String,
    },
    /// A table's log holds a file that no group of the ledger added.
    Added {
        /// Relative to the archive.
        path: String,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ledger { group } => {
                write!(
                    out,
                    "the ledger's entries of group {group} were changed, or entries before it are gone"
                )
            }
            Self::Missing { path } => write!(out, "{path} is missing; restore it from a copy"),
            Self::Changed { path } => {
                write!(out, "{path} is not as it was written; restore it from a copy")
            }
            Self::Unlisted { path } => {
                write!(out, "{path} is in the ledger, but the log of its table does not name it")
            }
            Self::Added { path } => {
                write!(out, "{path} is in the log of its table, but no group of the ledger added it")
            }
        }
    }
}

impl Archive {
    /// Looks at every file of the archive; reads all of their bytes.
    pub async fn audit(&self) -> Result<Vec<Damage>, LakeError> {
        // the tables first: whatever is applied to them by then the ledger has when it is read
        let mut tables = Vec::new();
        for name in self.table_names().await? {
            tables.extend(self.log(&name)?.load().await?);
        }
        let chunks = self.chunks_state().await?;
        let mut damage = Vec::new();
        let LedgerAudit { actions, broken, type_hashes } = self.audit_ledger(&chunks, &mut damage).await?;
        damage.extend(broken.into_iter().map(|group| Damage::Ledger { group }));
        let added = live_by_ledger(&actions);
        let mut live: BTreeMap<String, DataFile> = BTreeMap::new();
        for mut table in tables {
            overlay(&mut table, &actions)?;
            live.extend(table.files.into_iter().map(|file| (file.file.path.clone(), file.file)));
        }
        let unlisted = added.iter().filter(|path| !live.contains_key(*path));
        damage.extend(unlisted.map(|path| Damage::Unlisted { path: path.clone() }));
        let unknown = live.keys().filter(|path| added.binary_search(path).is_err());
        damage.extend(unknown.map(|path| Damage::Added { path: path.clone() }));
        damage.extend(self.audit_files(live.into_values().collect()).await?);
        for hash in &type_hashes {
            damage.extend(self.audit_type(hash).await?);
        }
        Ok(damage)
    }

    /// Whether the type file that rows were read with is kept as it was.
    async fn audit_type(&self, hash: &str) -> Result<Option<Damage>, LakeError> {
        let path = type_path(hash);
        let bytes = match self.store().get(&path).await {
            Ok(found) => found.bytes().await.map_err(LakeError::storage("read", &path))?,
            Err(object_store::Error::NotFound { .. }) => {
                return Ok(Some(Damage::Missing { path: path.to_string() }));
            }
            Err(cause) => return Err(LakeError::storage("read", &path)(cause)),
        };
        let is_same = text_hash(&bytes) == hash;
        Ok((!is_same).then(|| Damage::Changed { path: path.to_string() }))
    }

    /// Reads the ledger. Files of it that cannot be read are in `damage`.
    async fn audit_ledger(
        &self,
        chunks: &TableState,
        damage: &mut Vec<Damage>,
    ) -> Result<LedgerAudit, LakeError> {
        let files = chunks.files.iter().map(|live| live.file.clone()).collect();
        let found = self.audit_files(files).await?;
        let is_whole = |path: &str| {
            !found.iter().any(|found| {
                matches!(found, Damage::Missing { path: of } | Damage::Changed { path: of } if of == path)
            })
        };
        let mut of_groups: BTreeMap<i64, RecordBatch> = BTreeMap::new();
        let (mut actions, mut type_hashes) = (Pending::new(), BTreeSet::new());
        let schema = Layout::chunks().schema;
        for live in chunks.files.iter().filter(|live| is_whole(&live.file.path)) {
            for rows in read_file(self.store(), &live.file, &schema, None).await? {
                let corrupt = |cause: &dyn ToString| LakeError::corrupt(&live.file.path, cause.to_string());
                for (group, text) in actions_of_rows(&rows) {
                    actions.insert(group, serde_json::from_str(&text).map_err(|cause| corrupt(&cause))?);
                }
                // the file of a type is kept with its rows
                let types = of_rows(&rows)?.into_iter().flat_map(|(_, record)| {
                    let ChunkRecord { types, elsewhere, .. } = record;
                    types.into_iter().filter(move |(name, of)| of.rows > 0 && !elsewhere.contains(name))
                });
                type_hashes.extend(types.map(|(_, of_type)| of_type.hash));
                for (group, rows) in runs(&rows) {
                    let rows = match of_groups.remove(&group) {
                        Some(before) => {
                            concat_batches(&schema, [&before, &rows]).map_err(|cause| corrupt(&cause))?
                        }
                        None => rows,
                    };
                    of_groups.insert(group, rows);
                }
            }
        }
        damage.extend(found);
        let mut broken = Vec::new();
        let mut before = String::new();
        for (group, rows) in &of_groups {
            match links_of_rows(rows).pop() {
                Some((_, expected)) => {
                    if link(&before, rows) != expected {
                        broken.push(*group);
                    }
                    before = expected;
                }
                // groups of an archive that began before links were kept
                None if before.is_empty() => {}
                None => broken.push(*group),
            }
        }
        Ok(LedgerAudit { actions, broken, type_hashes })
    }

    /// Which of these files are not in storage as they were written.
    async fn audit_files(&self, files: Vec<DataFile>) -> Result<Vec<Damage>, LakeError> {
        let found = stream::iter(files).map(|file| async move {
            let is_whole = self.is_whole(&file).await?;
            let path = file.path;
            Ok::<_, LakeError>(match is_whole {
                Some(true) => None,
                Some(false) => Some(Damage::Changed { path }),
                None => Some(Damage::Missing { path }),
            })
        });
        let mut damage: Vec<_> = found
            .buffer_unordered(FILES_AT_ONCE)
            .try_filter_map(|found| async { Ok(found) })
            .try_collect()
            .await?;
        damage.sort_by_key(Damage::to_string);
        Ok(damage)
    }

    /// Whether the file's bytes are those that its name says; `None` if it is not there.
    async fn is_whole(&self, file: &DataFile) -> Result<Option<bool>, LakeError> {
        let path = Path::from(file.path.as_str());
        let failed = |cause| LakeError::storage("read", &file.path)(cause);
        match self.store().head(&path).await {
            Ok(meta) if meta.size != file.size_bytes => return Ok(Some(false)),
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(cause) => return Err(failed(cause)),
        }
        let Some(expected) = hash_in_name(&file.path) else { return Ok(Some(true)) };
        let mut hash = Sha256::new();
        for first in (0..file.size_bytes).step_by(RANGE_BYTES as usize) {
            let range = first..(first + RANGE_BYTES).min(file.size_bytes);
            let bytes = match self.store().get_range(&path, range).await {
                Ok(bytes) => bytes,
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(cause) => return Err(failed(cause)),
            };
            let hashed = tokio::task::spawn_blocking(move || {
                hash.update(&bytes);
                hash
            });
            hash = hashed.await.map_err(|cause| LakeError::corrupt(&file.path, cause))?;
        }
        Ok(Some(base64url(&hash.finalize()) == expected))
    }
}

/// What the ledger says.
struct LedgerAudit {
    /// What each group did.
    actions: Pending,
    /// Groups at which the chain is broken.
    broken: Vec<i64>,
    /// Of the type files that rows were read with.
    type_hashes: BTreeSet<String>,
}

/// Rows of one group that follow each other, with the group.
fn runs(rows: &RecordBatch) -> Vec<(i64, RecordBatch)> {
    let Some(groups) = groups(rows) else { return Vec::new() };
    let mut first = 0;
    let of_group = groups.values().chunk_by(|one, next| one == next).map(|run| {
        let slice = rows.slice(first, run.len());
        first += run.len();
        (run[0], slice)
    });
    of_group.collect()
}

/// Sorted paths, relative to the archive, of the files that the groups added and did not remove.
fn live_by_ledger(actions: &Pending) -> Vec<String> {
    let mut live = HashMap::new();
    for (table, action) in
        actions.values().flatten().flat_map(|(table, of)| of.iter().map(move |a| (table, a)))
    {
        for (kind, is_live) in [("remove", false), ("add", true)] {
            if let Some(path) = action[kind]["path"].as_str() {
                live.insert(format!("{table}/{path}"), is_live);
            }
        }
    }
    let mut live: Vec<_> = live.into_iter().filter(|(_, is_live)| *is_live).map(|(path, _)| path).collect();
    live.sort();
    live
}
