//! One moment of a schema, for a reader: its tables, its ledger, and rows over as many connections as are asked for.
//!
//! Invariants: all connections see the same moment (REPEATABLE READ, one exported snapshot); no leaf that was there
//! at that moment is dropped before the reader is done with it, because the tables are locked first: taking a leaf
//! away needs its table alone. Rows stream: a reader that stops taking stops the server.
//! Deliberately absent: writing, and any knowledge of SQL that comes from outside.
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use futures_util::TryStreamExt;
use tokio_postgres::{Client, CopyOutStream};

use super::copy::{CopyDecoder, PgType};
use super::error::WarehouseError;
use super::state::{rows, text};
use super::{Warehouse, ledger};
use crate::ledger::{BLANKS, CHUNKS, REJECTS};
use crate::log_type::ddl::{self, literal, qualified};
use crate::model::ChunkRecord;

/// A version of a type file that rows were read with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeFile {
    /// Log type.
    pub name: String,
    /// Hash of the file.
    pub hash: String,
    /// Its table.
    pub table: String,
}

/// A table as it was at a moment.
#[derive(Debug, Clone)]
pub struct HeldTable {
    /// Log type, or `rejects`, `blanks`, `chunks`.
    pub name: String,
    /// Its name in SQL, quoted, with its schema.
    pub qualified: String,
    /// Columns, nullable all.
    pub schema: SchemaRef,
    /// Type of each column.
    pub types: Vec<PgType>,
    /// Leaves by day, with the bytes of each; none for tables that are not partitioned.
    pub days: BTreeMap<i32, u64>,
    /// Object id of the leaf for rows whose day has none.
    pub default_leaf: Option<u32>,
    /// Bytes of all of it.
    pub size_bytes: u64,
}

/// One moment of a schema.
pub struct Snapshot {
    warehouse: Arc<Warehouse>,
    /// Its name on the server, for other connections.
    id: String,
    /// Holds the moment, and the locks.
    holder: Option<Client>,
    /// Connections that are at this moment and free.
    free: Mutex<Vec<Client>>,
    /// Every version of every type, the earliest first.
    pub types: Vec<TypeFile>,
    /// Log types by name, then `rejects`, `blanks`, `chunks`.
    pub tables: Vec<HeldTable>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Snapshot").field("id", &self.id).field("of", &self.warehouse).finish()
    }
}

impl Warehouse {
    /// The place, for messages.
    pub fn address(&self) -> String {
        self.config.to_string()
    }

    /// Takes a snapshot of what is committed now.
    pub async fn snapshot(self: &Arc<Self>) -> Result<Snapshot, WarehouseError> {
        let client = match self.idle_reader() {
            Some(client) => client,
            None => self.config.connect().await?,
        };
        let types = self.type_files(&client).await?;
        let mut names: BTreeMap<String, String> =
            types.iter().map(|file| (file.name.clone(), file.table.clone())).collect();
        names.extend([REJECTS, BLANKS, CHUNKS].map(|name| (name.to_owned(), name.to_owned())));
        let tables: Vec<String> = names.values().map(|name| qualified(&self.schema, name)).collect();
        // the locks come before the moment: a leaf that goes away has gone before it, or stays until the end
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL TimeZone = 'UTC';
             LOCK TABLE ONLY {} IN ACCESS SHARE MODE; SELECT pg_export_snapshot() AS id",
            tables.join(", ONLY ")
        );
        let exported = rows(&client, &begin).await.map_err(WarehouseError::of("take a snapshot"))?;
        let id = exported.first().map(|row| text(row, "id")).unwrap_or_default();
        let tables = self.held_tables(&client, &names).await?;
        let warehouse = Arc::clone(self);
        Ok(Snapshot { warehouse, id, holder: Some(client), free: Mutex::default(), types, tables })
    }

    async fn type_files(&self, client: &Client) -> Result<Vec<TypeFile>, WarehouseError> {
        let sql = format!(
            "SELECT name, hash, table_name FROM {} ORDER BY first_seen, hash",
            qualified(&self.schema, "log_types")
        );
        let found = rows(client, &sql).await.map_err(WarehouseError::of("list the log types"))?;
        let file = |row| TypeFile {
            name: text(row, "name"),
            hash: text(row, "hash"),
            table: text(row, "table_name"),
        };
        Ok(found.iter().map(file).collect())
    }

    async fn held_tables(
        &self,
        client: &Client,
        names: &BTreeMap<String, String>,
    ) -> Result<Vec<HeldTable>, WarehouseError> {
        let tables: Vec<String> = names.values().map(|name| literal(name)).collect();
        let sql = format!(
            "SELECT class.relname AS name, attribute.attname AS leaf, attribute.atttypid AS oid, 'column' AS kind,
                    pg_relation_size(class.oid) AS size
             FROM pg_class AS class
             JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace AND namespace.nspname = {schema}
             JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid AND attnum > 0 AND NOT attisdropped
             WHERE class.relname IN ({tables})
             UNION ALL
             SELECT parent.relname, leaf.relname, leaf.oid, 'leaf', coalesce(pg_relation_size(leaf.oid), 0)
             FROM pg_inherits AS inherits
             JOIN pg_class AS parent ON parent.oid = inherits.inhparent
             JOIN pg_namespace AS namespace ON namespace.oid = parent.relnamespace AND namespace.nspname = {schema}
             JOIN pg_class AS leaf ON leaf.oid = inherits.inhrelid
             WHERE parent.relname IN ({tables})",
            schema = literal(&self.schema),
            tables = tables.join(", ")
        );
        let found = rows(client, &sql).await.map_err(WarehouseError::of("read the tables' columns"))?;
        let held = |(name, table): (&String, &String)| {
            let of_table = || found.iter().filter(|row| row.get("name") == Some(table.as_str()));
            let of_kind = |kind| of_table().filter(move |row| row.get("kind") == Some(kind));
            let oid = |row| text(row, "oid").parse().unwrap_or(0);
            let size = |row| text(row, "size").parse().unwrap_or(0);
            let (mut fields, mut types) = (Vec::new(), Vec::new());
            let mut held = HeldTable {
                name: name.clone(),
                qualified: qualified(&self.schema, table),
                schema: Arc::new(Schema::empty()),
                types: Vec::new(),
                days: BTreeMap::new(),
                default_leaf: None,
                size_bytes: 0,
            };
            for row in of_kind("column") {
                held.size_bytes = size(row);
                let column = text(row, "leaf");
                let pg_type = match PgType::from_oid(oid(row)) {
                    Ok(pg_type) => pg_type,
                    Err(_) if table == CHUNKS && column == ledger::ELSEWHERE => PgType::Names,
                    // a column that somebody added is not ours to read
                    Err(_) => continue,
                };
                fields.push(Field::new(column, pg_type.arrow_type(), true));
                types.push(pg_type);
            }
            for row in of_kind("leaf") {
                let leaf = text(row, "leaf");
                held.size_bytes += size(row);
                if leaf == ddl::default_leaf(table) {
                    held.default_leaf = Some(oid(row));
                } else if let Some(day) = ddl::day_of_leaf(table, &leaf) {
                    held.days.insert(day, size(row));
                }
            }
            (held.schema, held.types) = (Arc::new(Schema::new(fields)), types);
            held
        };
        let is_log_type = |name: &str| ![REJECTS, BLANKS, CHUNKS].contains(&name);
        let types = names.iter().filter(|(name, _)| is_log_type(name)).map(held);
        let own = [REJECTS, BLANKS, CHUNKS].map(str::to_owned);
        Ok(types.chain(own.iter().map(|name| held((name, name)))).collect())
    }

    fn idle_reader(&self) -> Option<Client> {
        let mut idle = self.idle_readers.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(client) = idle.pop() {
            if !client.is_closed() {
                return Some(client);
            }
        }
        None
    }

    /// Keeps a connection for the next snapshot, once its transaction is over.
    fn release(self: &Arc<Self>, client: Client) {
        let warehouse = Arc::clone(self);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if client.batch_execute("ROLLBACK").await.is_ok() {
                warehouse.idle_readers.lock().unwrap_or_else(PoisonError::into_inner).push(client);
            }
        });
    }
}

impl Snapshot {
    /// The place, for messages.
    pub fn address(&self) -> String {
        self.warehouse.address()
    }

    /// Every committed chunk at this moment, by source and first byte.
    pub async fn records(&self) -> Result<Vec<ChunkRecord>, WarehouseError> {
        match &self.holder {
            Some(client) => ledger::records(client, &self.warehouse, "true").await,
            None => Ok(Vec::new()),
        }
    }

    /// Whether there are chunks at this moment of which other places have parts.
    pub async fn has_parts(&self) -> Result<bool, WarehouseError> {
        match &self.holder {
            Some(client) => Ok(!ledger::splits(client, &self.warehouse, "true").await?.is_empty()),
            None => Ok(false),
        }
    }

    /// The place it is of.
    pub fn warehouse(&self) -> &Arc<Warehouse> {
        &self.warehouse
    }

    /// Starts a query, whose columns are of `types` and become those of `schema`.
    pub async fn rows(
        self: &Arc<Self>,
        query: &str,
        schema: SchemaRef,
        types: Vec<PgType>,
    ) -> Result<RowStream, WarehouseError> {
        let decoder = CopyDecoder::try_new(schema, types).map_err(WarehouseError::group)?;
        let client = self.connection().await?;
        let sql = format!("COPY ({query}) TO STDOUT (FORMAT binary)");
        let stream = client.copy_out(&sql).await.map_err(WarehouseError::of("read rows"))?;
        let stream = Some(Box::pin(stream));
        Ok(RowStream { snapshot: Arc::clone(self), client: Some(client), stream, decoder, len_bytes: 0 })
    }

    async fn connection(&self) -> Result<Client, WarehouseError> {
        let free = self.free().pop();
        if let Some(client) = free.filter(|client| !client.is_closed()) {
            return Ok(client);
        }
        let client = match self.warehouse.idle_reader() {
            Some(client) => client,
            None => self.warehouse.config.connect().await?,
        };
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {};
             SET LOCAL TimeZone = 'UTC'",
            literal(&self.id)
        );
        client.batch_execute(&begin).await.map_err(WarehouseError::of("share a snapshot"))?;
        Ok(client)
    }

    fn free(&self) -> MutexGuard<'_, Vec<Client>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let free = std::mem::take(&mut *self.free());
        for client in free.into_iter().chain(self.holder.take()) {
            self.warehouse.release(client);
        }
    }
}

/// Rows of a query, as they come. Dropped before its end, it has the server stop.
pub struct RowStream {
    snapshot: Arc<Snapshot>,
    client: Option<Client>,
    /// `None` behind the end.
    stream: Option<Pin<Box<CopyOutStream>>>,
    decoder: CopyDecoder,
    /// Bytes that came.
    pub len_bytes: u64,
}

impl std::fmt::Debug for RowStream {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("RowStream").field("len_bytes", &self.len_bytes).finish_non_exhaustive()
    }
}

impl RowStream {
    /// The next rows; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, WarehouseError> {
        loop {
            if let Some(batch) = self.decoder.next_batch() {
                return Ok(Some(batch));
            }
            let Some(stream) = &mut self.stream else { return Ok(None) };
            match stream.try_next().await.map_err(WarehouseError::of("read rows"))? {
                Some(bytes) => {
                    self.len_bytes += bytes.len() as u64;
                    self.decoder.push(&bytes).map_err(WarehouseError::group)?;
                }
                None => {
                    self.stream = None;
                    self.snapshot.free().extend(self.client.take());
                    return self.decoder.flush().map_err(WarehouseError::group);
                }
            }
        }
    }
}

impl Drop for RowStream {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (token, config) = (client.cancel_token(), self.snapshot.warehouse.config.clone());
            runtime.spawn(async move { config.cancel(token).await });
        }
    }
}
