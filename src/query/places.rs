//! The places that a session reads, and what of each row is read where.
//!
//! A line may lie in several places: in Postgres and in the archive, and in the raw file as well. It is read from the
//! first that has it: archives in the order given, then databases, then raw input (see [`ledger::divide`]). An
//! archive's entry of the ledger stands for all rows of its range, always; Postgres' ledger keeps its entry when a day
//! of its rows is taken away. So Postgres gives only what no archive holds. Of chunks that were split by log type, each
//! place gives the tables that it has.
//!
//! Consistency: a statement sees each place at one moment, databases first. What is moved to an archive while it
//! looks is in the archive's later moment, and then Postgres' rows are left out; or it is not, and then Postgres'
//! earlier moment has them, and the lock of the snapshot keeps their leaf. The other way round, rows that were moved
//! and dropped in between would be in neither.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::prelude::SessionContext;
use tokio::task::spawn_blocking;

use super::postgres::{Given, PostgresTable};
use super::raw::{RawTable, list_files};
use super::report::Notes;
use super::table::LakeTable;
use super::union::UnionTable;
use super::{LogsBranch, QueryError, logs};
use crate::archive::{ArchiveError, Holdings, OfArchive, each_chunk};
use crate::client::{PgConfig, is_postgres, redacted};
use crate::lake::{Archive, TableSnapshot};
use crate::ledger::{self, BLANKS, CHUNKS, Counted, Division, REJECTS, Uncounted, Undivided};
use crate::log_type::{LogType, LogTypes};
use crate::model::ChunkRecord;
use crate::source::Catalogue;
use crate::warehouse::{Snapshot, Warehouse, WarehouseError};

mod archive;
mod versions;

use archive::ArchivePlace;

/// Tables that are not of a log type.
const OWN_TABLES: [&str; 3] = [REJECTS, BLANKS, CHUNKS];

/// A table of one place, by its log type or own name.
type NamedTable = (String, Arc<dyn TableProvider>);

/// Places, opened.
#[derive(Debug)]
pub struct Places {
    declared: LogTypes,
    archives: Vec<ArchivePlace>,
    databases: Vec<Arc<Warehouse>>,
    /// Paths and URLs of raw logs.
    raw: Vec<String>,
    /// Types by the hash of their file.
    compiled: HashMap<String, Arc<LogType>>,
    /// Whether plans go to other processes.
    pub(super) is_of_cluster: bool,
    /// What the session's catalog holds now.
    registered: Vec<String>,
    /// Places and tables of which it was said that parts are not read.
    warned: BTreeSet<(String, String)>,
    pub(super) notes: Notes,
}

/// Keeps a statement's moments until it is planned; its scans keep what they need.
#[derive(Debug)]
pub(super) struct Held {
    _snapshots: Vec<Arc<Snapshot>>,
}

impl Places {
    /// Opens every location: an archive's path or URL, a database's, or `raw:` and a path. `schema` is that of
    /// databases; `declared` are the types that raw lines are read with.
    pub async fn open(from: &[String], schema: &str, declared: &LogTypes) -> Result<Self, QueryError> {
        let mut places = Self {
            declared: declared.clone(),
            archives: Vec::new(),
            databases: Vec::new(),
            raw: Vec::new(),
            compiled: HashMap::new(),
            is_of_cluster: false,
            registered: Vec::new(),
            warned: BTreeSet::new(),
            notes: Notes::default(),
        };
        for location in from {
            if let Some(path) = location.strip_prefix("raw:") {
                if path.is_empty() {
                    let reason = "raw: names no path; write raw:PATH, such as raw:/var/log/fw.log";
                    return Err(QueryError::Output(reason.to_owned()));
                }
                places.raw.push(path.to_owned());
            } else if is_postgres(location) {
                let config =
                    PgConfig::parse(location).map_err(WarehouseError::from).map_err(ArchiveError::from)?;
                let warehouse = Warehouse::open(config, schema).await.map_err(ArchiveError::from)?;
                places.databases.push(Arc::new(warehouse));
            } else {
                let archive = Archive::open(location).await.map_err(ArchiveError::from)?;
                let location = redacted(location);
                places.archives.push(ArchivePlace {
                    location,
                    archive,
                    moment: None,
                    stores: HashMap::new(),
                });
            }
        }
        places.warn_of_moved_days().await?;
        Ok(places)
    }

    /// Names the archives that hold days of the databases and are not read.
    async fn warn_of_moved_days(&self) -> Result<(), QueryError> {
        for database in &self.databases {
            for (archive, days) in database.moved_to().await.map_err(ArchiveError::from)? {
                if !self.archives.iter().any(|place| place.archive.url().as_str() == archive) {
                    let address = database.address();
                    tracing::warn!(
                        "{days} days of {address} moved to {archive}; read them too with --from {archive}"
                    );
                }
            }
        }
        Ok(())
    }

    /// Looks at every place, and brings the tables of `context` to what they hold now.
    pub(super) async fn look(&mut self, context: &SessionContext) -> Result<Held, QueryError> {
        let mut snapshots = Vec::new();
        for database in &self.databases {
            snapshots.push(Arc::new(database.snapshot().await.map_err(ArchiveError::from)?));
        }
        let mut is_unchanged = snapshots.is_empty() && self.raw.is_empty() && !self.registered.is_empty();
        for place in &mut self.archives {
            let is_newest = match &place.moment {
                Some(moment) => place.archive.is_newest(moment.version).await.map_err(ArchiveError::from)?,
                None => false,
            };
            if !is_newest {
                is_unchanged = false;
                place.moment = Some(place.archive.moment().await.map_err(ArchiveError::from)?);
            }
        }
        if !is_unchanged {
            self.register(context, &snapshots).await?;
        }
        Ok(Held { _snapshots: snapshots })
    }

    async fn register(
        &mut self,
        context: &SessionContext,
        snapshots: &[Arc<Snapshot>],
    ) -> Result<(), QueryError> {
        let of_databases = self.records_of(snapshots).await?;
        let of_archives = self.archives.iter().filter_map(|place| place.moment.as_ref());
        let records: Vec<&[ChunkRecord]> = of_archives
            .map(|moment| &moment.records[..])
            .chain(of_databases.iter().map(|records| &records[..]))
            .collect();
        let mut division = self.divide(&records).await?;
        let not_read = self.parts_not_read(&division)?;
        let of_raw = self.raw_tables(&mut division).await?;
        let left_out = division.left_out;
        let mut versions = Self::versions(&records, &left_out);
        for (place, snapshot) in (self.archives.len()..).zip(snapshots) {
            for file in &snapshot.types {
                // of a type that has one version, the ledger was not read
                let of_type = versions.entry(file.name.clone()).or_default();
                of_type.by_hash.entry(file.hash.clone()).or_insert((place, Vec::new()));
                of_type.newest = std::mem::take(&mut of_type.newest).max((i64::MIN, file.hash.clone()));
            }
        }
        let versions = self.compiled(versions).await?;
        self.warn_of_parts(not_read);
        let mut tables: BTreeMap<String, Vec<Arc<dyn TableProvider>>> = versions
            .keys()
            .map(String::as_str)
            .chain(OWN_TABLES)
            .map(|name| (name.to_owned(), Vec::new()))
            .collect();
        let mut entries: Vec<Arc<dyn TableProvider>> = Vec::new();
        for (place, left_out) in self.archives.iter_mut().zip(&left_out) {
            for (name, table) in place.tables(context, left_out, &self.notes)? {
                tables.entry(name).or_default().push(table);
            }
            entries.extend(place.entries(left_out, &self.notes));
        }
        let of_databases = of_databases.iter().zip(&left_out[self.archives.len()..]);
        for (snapshot, (records, left_out)) in snapshots.iter().zip(of_databases) {
            for held in &snapshot.tables {
                let is_log_type = !OWN_TABLES.contains(&held.name.as_str());
                let table = |left_out| {
                    let given = Given::new(&held.name, is_log_type, records, left_out);
                    Arc::new(PostgresTable::new(snapshot, held, given, &self.notes))
                };
                tables.entry(held.name.clone()).or_default().push(table(left_out.of(&held.name)));
                if held.name == CHUNKS {
                    entries.push(table(left_out.of_entries()));
                }
            }
        }
        for (name, table) in of_raw {
            if name == CHUNKS {
                entries.push(Arc::clone(&table));
            }
            tables.entry(name).or_default().push(table);
        }
        for name in std::mem::take(&mut self.registered) {
            context.deregister_table(name.as_str())?;
        }
        for (name, mut parts) in tables {
            let newest = versions.get(&name).map(|of_type| &of_type.newest);
            if let (Some(newest), true) = (newest, parts.is_empty()) {
                let empty = TableSnapshot::empty(&newest.table).map_err(ArchiveError::from)?;
                let nowhere = (ObjectStoreUrl::local_filesystem(), Arc::default());
                parts.push(Arc::new(LakeTable::new(nowhere, "no place", &empty, &self.notes)));
            }
            let sql_name = newest.map_or(name.as_str(), |newest| newest.table.name.as_str()).to_owned();
            context.register_table(sql_name.as_str(), UnionTable::of(&sql_name, parts)?)?;
            self.registered.push(sql_name);
        }
        let branch = |versions| match self.is_of_cluster {
            true => LogsBranch::carried(&versions),
            false => Ok(LogsBranch::new(versions)),
        };
        let branches = versions.into_values().map(branch).collect::<Result<Vec<_>, _>>()?;
        let entries = UnionTable::of(CHUNKS, entries)?;
        context.register_table("logs", logs::plan(context, entries, &branches).await?)?;
        self.registered.push("logs".to_owned());
        Ok(())
    }

    /// The ledgers of databases; empty where nothing depends on them: one place alone, with all of its chunks, one version
    /// of each type.
    async fn records_of(&self, snapshots: &[Arc<Snapshot>]) -> Result<Vec<Vec<ChunkRecord>>, QueryError> {
        let mut records = Vec::with_capacity(snapshots.len());
        for snapshot in snapshots {
            let names: BTreeSet<&str> = snapshot.types.iter().map(|file| file.name.as_str()).collect();
            let is_plain = names.len() == snapshot.types.len();
            let is_alone = self.archives.len() + self.databases.len() + self.raw.len() == 1;
            records.push(
                match is_alone && is_plain && !snapshot.has_parts().await.map_err(ArchiveError::from)? {
                    true => Vec::new(),
                    false => snapshot.records().await.map_err(ArchiveError::from)?,
                },
            );
        }
        Ok(records)
    }

    /// Divides what the places hold. Where cuts share no byte that ledgers know, the lines of a chunk are counted.
    async fn divide(&self, records: &[&[ChunkRecord]]) -> Result<Division, QueryError> {
        let mut counted = Vec::new();
        loop {
            let uncounted = match ledger::divide(records, &counted) {
                Ok(division) => return Ok(division),
                Err(Undivided::Uncounted(uncounted)) => uncounted,
                Err(Undivided::Torn { place, record }) => {
                    return Err(QueryError::Torn {
                        place: self.name_of(place),
                        file: record.source.path.clone(),
                        first_byte: record.range.first_byte,
                    });
                }
            };
            for Uncounted { place, record, bytes } in &uncounted {
                match self.archives.get(*place) {
                    Some(of_archive) => {
                        count(&OfArchive::new(&of_archive.archive), record, bytes, &mut counted).await?;
                    }
                    None => {
                        let database = &self.databases[place - self.archives.len()];
                        count(&**database, record, bytes, &mut counted).await?;
                    }
                }
            }
        }
    }

    fn name_of(&self, place: usize) -> String {
        match self.archives.get(place) {
            Some(of_archive) => of_archive.location.clone(),
            None => self.databases[place - self.archives.len()].address(),
        }
    }

    /// Places, each with the tables that went to others which are not read. A raw file holds them too, but not apart from
    /// what the places have of it.
    fn parts_not_read(&self, division: &Division) -> Result<Vec<(String, String)>, QueryError> {
        let of_place = |(place, tables): (&usize, &BTreeSet<String>)| {
            (self.name_of(*place), tables.iter().cloned().collect::<Vec<_>>().join(", "))
        };
        let not_read: Vec<_> = division.lacking.iter().map(of_place).collect();
        match not_read.first() {
            Some((place, tables)) if !self.raw.is_empty() => {
                Err(QueryError::PartBesideRaw { place: place.clone(), tables: tables.clone() })
            }
            _ => Ok(not_read),
        }
    }

    /// Says it once.
    fn warn_of_parts(&mut self, not_read: Vec<(String, String)>) {
        for (place, tables) in not_read {
            if self.warned.insert((place.clone(), tables.clone())) {
                tracing::warn!(
                    "{place} has parts of chunks whose {tables} went to places that are not read, or are only being \
                     committed there; read them too, one --from each"
                );
            }
        }
    }

    /// The tables of raw input, without what the other places hold.
    async fn raw_tables(&self, division: &mut Division) -> Result<Vec<NamedTable>, QueryError> {
        let mut tables = Vec::new();
        let mut met = BTreeSet::new();
        for path in &self.raw {
            let paths = vec![PathBuf::from(path.trim_start_matches("file://"))];
            let ledger = division.committed.ledger().clone();
            let listed = spawn_blocking(move || list_files(&paths, Catalogue::new(ledger))).await;
            let mut files = listed.map_err(|error| QueryError::Sql(error.to_string()))??;
            files.retain(|file| met.insert(file.source_id()));
            for (line, file) in
                division.open.iter().flat_map(|line| files.iter().map(move |file| (line, file)))
            {
                let range = line.record.range;
                if file.source_id() == range.source_id && file.reads_beyond(range.first_byte, range.end_byte)
                {
                    division.left_out[line.place].leave_out(line.record.chunk_id);
                }
            }
            let place = format!("raw:{path}");
            tables.extend(RawTable::all(&place, &Arc::new(files), &self.declared, &self.notes));
        }
        Ok(tables)
    }
}

/// Counts the lines of a chunk up to each of `bytes`.
async fn count(
    holdings: &dyn Holdings,
    record: &ChunkRecord,
    bytes: &BTreeSet<u64>,
    counted: &mut Vec<Counted>,
) -> Result<(), QueryError> {
    let range = record.range;
    each_chunk(holdings, &[record], |record, content, is_same| {
        if !is_same {
            tracing::warn!(
                file = record.source.path,
                first_byte = range.first_byte,
                "does not give its bytes back; lines that two places hold may be counted wrongly, see `pipeline verify`"
            );
        }
        for end_byte in bytes {
            let len = content.len().min((end_byte - range.first_byte) as usize);
            let lines = memchr::memchr_iter(b'\n', &content[..len]).count() as u64;
            let (source_id, first_byte) = (range.source_id, range.first_byte);
            counted.push(Counted { source_id, first_byte, end_byte: *end_byte, lines });
        }
        Ok(())
    })
    .await?;
    Ok(())
}
