//! The versions of log types that the places' rows were read with, from the files that the places keep.
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Places;
use crate::archive::ArchiveError;
use crate::ledger::LeftOutOfPlace;
use crate::log_type::LogType;
use crate::model::{ChunkRecord, TypeRows};
use crate::query::{QueryError, TypeVersions};

/// A log type as the places' rows were read with.
#[derive(Debug)]
pub(super) struct Versions {
    /// Reference time and hash of the newest.
    pub(super) newest: (i64, String),
    /// By hash: the place that keeps the file, and the chunks.
    pub(super) by_hash: BTreeMap<String, (usize, Vec<i64>)>,
}

impl Default for Versions {
    /// Older than any version, one that no chunk names included.
    fn default() -> Self {
        Self { newest: (i64::MIN, String::new()), by_hash: BTreeMap::new() }
    }
}

impl Places {
    /// Which version of its type read each chunk, of the place that gives it.
    pub(super) fn versions(
        records: &[&[ChunkRecord]],
        left_out: &[LeftOutOfPlace],
    ) -> BTreeMap<String, Versions> {
        let mut versions: BTreeMap<String, Versions> = BTreeMap::new();
        for (place, (records, left_out)) in records.iter().zip(left_out).enumerate() {
            for record in *records {
                let is_given = |(name, of_type): &(&String, &TypeRows)| {
                    of_type.rows > 0
                        && !record.elsewhere.contains(*name)
                        && !left_out.of(name).chunks.contains(&record.chunk_id)
                };
                for (name, of_type) in record.types.iter().filter(is_given) {
                    let known = versions.entry(name.clone()).or_default();
                    let latest = (record.reference_time, of_type.hash.clone());
                    known.newest = std::mem::take(&mut known.newest).max(latest);
                    let (_, chunks) =
                        known.by_hash.entry(of_type.hash.clone()).or_insert((place, Vec::new()));
                    chunks.push(record.chunk_id);
                }
            }
        }
        versions
    }

    pub(super) async fn compiled(
        &mut self,
        versions: BTreeMap<String, Versions>,
    ) -> Result<BTreeMap<String, TypeVersions>, QueryError> {
        let mut compiled = BTreeMap::new();
        for (name, Versions { newest: (_, newest), by_hash }) in versions {
            let (mut earlier, mut earlier_chunks) = (Vec::new(), HashMap::new());
            // raw lines are read with what is declared now
            let mut of_newest = self.declared.get(&name).filter(|_| !self.raw.is_empty()).map(Arc::clone);
            let newest = of_newest.as_ref().map_or(newest, |declared| declared.table.hash.clone());
            for (hash, (place, chunk_ids)) in by_hash {
                let log_type = self.compile(place, &hash).await?;
                if hash == newest {
                    of_newest = Some(log_type);
                } else if !chunk_ids.is_empty() {
                    earlier_chunks.extend(chunk_ids.into_iter().map(|chunk_id| (chunk_id, earlier.len())));
                    earlier.push(log_type);
                }
            }
            if let Some(newest) = of_newest {
                compiled.insert(name, TypeVersions { newest, earlier, earlier_chunks });
            }
        }
        for log_type in self.declared.iter() {
            let declared = || TypeVersions {
                newest: Arc::clone(log_type),
                earlier: Vec::new(),
                earlier_chunks: HashMap::new(),
            };
            compiled.entry(log_type.name().to_owned()).or_insert_with(declared);
        }
        Ok(compiled)
    }

    /// A version of a type, from the file that a place keeps.
    async fn compile(&mut self, place: usize, hash: &str) -> Result<Arc<LogType>, QueryError> {
        if let Some(known) = self.compiled.get(hash) {
            return Ok(Arc::clone(known));
        }
        let (text, origin) = match self.archives.get(place) {
            Some(of_archive) => {
                let text = of_archive.archive.type_text(hash).await.map_err(ArchiveError::from)?;
                (text, "kept in the archive")
            }
            None => {
                let database = &self.databases[place - self.archives.len()];
                (database.type_text(hash).await.map_err(ArchiveError::from)?, "kept in the database")
            }
        };
        let log_type = LogType::try_new(&format!("{hash} ({origin})"), &text).map_err(ArchiveError::from)?;
        let log_type = Arc::new(log_type);
        self.compiled.insert(hash.to_owned(), Arc::clone(&log_type));
        Ok(log_type)
    }
}
