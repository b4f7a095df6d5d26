//! Reads what is stored back: entries, rows of chunks, counts, type files.
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use tokio_postgres::Client;

use super::copy::PgType;
use super::error::WarehouseError;
use super::{Warehouse, kept, ledger};
use crate::client::PgConfig;
use crate::ledger::{BLANKS, REJECTS};
use crate::log_type::LogTypes;
use crate::log_type::ddl::quoted;
use crate::model::ChunkRecord;

impl Warehouse {
    /// Opens a schema to be read as it is; it must have been written to.
    pub async fn open(config: PgConfig, schema: &str) -> Result<Self, WarehouseError> {
        let client = config.connect_at_start().await?;
        let warehouse = Self::new(config, schema, &LogTypes::new(Vec::new()));
        let chunks = warehouse.table(crate::ledger::CHUNKS);
        let found = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&chunks]).await;
        match found.map_err(WarehouseError::of("look for the ledger"))?.get(0) {
            true => Ok(warehouse),
            false => Err(WarehouseError::Unsupported(format!(
                "schema {schema} of {} holds no ledger; write one with `pipeline run --into`, or name the schema with --schema",
                warehouse.config
            ))),
        }
    }

    /// The entries that an SQL condition on `chunks` selects, by source and first byte.
    pub async fn records(&self, condition: &str) -> Result<Vec<ChunkRecord>, WarehouseError> {
        ledger::records(&self.config.connect().await?, self, condition).await
    }

    /// The log types that rows were loaded of, and the tables of rejects and blanks.
    pub async fn tables(&self) -> Result<Vec<String>, WarehouseError> {
        let client = self.config.connect().await?;
        let sql = format!("SELECT DISTINCT name FROM {} ORDER BY 1", self.table("log_types"));
        let rows = client.query(&sql, &[]).await.map_err(WarehouseError::of("list the log types"))?;
        let mut names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        names.extend([REJECTS, BLANKS].map(str::to_owned));
        Ok(names)
    }

    /// Rows of a log type, of rejects or of blanks per chunk, those that moved to an archive among them. Of a reject
    /// kept in pieces only the first counts.
    pub async fn count_by_chunk(&self, name: &str) -> Result<HashMap<i64, u64>, WarehouseError> {
        let client = self.config.connect().await?;
        let Some(table) = self.table_of(&client, name).await? else { return Ok(HashMap::new()) };
        let condition = if name == REJECTS { "piece = 0" } else { "true" };
        let sql = format!("SELECT chunk_id, count(*) FROM {table} WHERE {condition} GROUP BY 1");
        let rows = client.query(&sql, &[]).await.map_err(WarehouseError::of(format!("count {name}")))?;
        let mut counts = self.moved_rows(Some(name)).await?;
        for row in &rows {
            *counts.entry(row.get(0)).or_default() += row.get::<_, i64>(1).cast_unsigned();
        }
        Ok(counts)
    }

    /// Rows of a log type, of rejects or of blanks that belong to `chunk_ids`, with event times in `time_range`.
    pub async fn rows(
        &self,
        name: &str,
        chunk_ids: &HashSet<i64>,
        time_range: Option<(i64, i64)>,
    ) -> Result<Vec<RecordBatch>, WarehouseError> {
        let client = self.config.connect().await?;
        let Some(table) = self.table_of(&client, name).await? else { return Ok(Vec::new()) };
        let (schema, types) = columns(&client, &table).await?;
        let names: Vec<String> = schema.fields().iter().map(|field| quoted(field.name())).collect();
        let ids: Vec<String> = chunk_ids.iter().map(ToString::to_string).collect();
        let is_in_time = match time_range.filter(|_| ![REJECTS, BLANKS].contains(&name)) {
            Some((first, last)) => format!("\"timestamp\" BETWEEN {} AND {}", time(first), time(last)),
            None => "true".to_owned(),
        };
        let query = format!(
            "SELECT {} FROM {table} WHERE {is_in_time} AND chunk_id = ANY (ARRAY[{}]::bigint[])",
            names.join(", "),
            ids.join(", ")
        );
        ledger::read(&client, &query, Arc::new(schema), &types).await
    }

    /// The kept text of a type file.
    pub async fn type_text(&self, hash: &str) -> Result<Arc<str>, WarehouseError> {
        let client = self.config.connect().await?;
        let sql = format!("SELECT text FROM {} WHERE hash = $1", self.table("log_types"));
        let row = client.query_opt(&sql, &[&hash]).await.map_err(WarehouseError::of("read a type file"))?;
        let text = row.map(|row| Arc::from(row.get::<_, &str>(0)));
        text.ok_or_else(|| {
            WarehouseError::Rows(format!("type file {hash} is not in table log_types any more"))
        })
    }

    /// Takes chunks away, and rows of chunks that the ledger does not have, so that their bytes can be loaded again.
    /// What a loader changed since it was looked at stays.
    pub async fn take_away(&self, chunks: &[ChunkRecord], strays: &[i64]) -> Result<(), WarehouseError> {
        let tables = self.tables().await?;
        let client = self.config.connect().await?;
        let execute = async |sql: &str| client.batch_execute(sql).await.map_err(WarehouseError::of(sql));
        execute("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        // as every loader does before it looks at the ledger; whose chunks the strays were is not known
        let sources: Vec<i64> = chunks.iter().map(|chunk| chunk.range.source_id.cast_signed()).collect();
        let lock =
            format!("SELECT FROM {} WHERE $1 OR id = ANY ($2) ORDER BY id FOR UPDATE", self.table("sources"));
        let locked = client.execute(&lock, &[&!strays.is_empty(), &sources]).await;
        locked.map_err(WarehouseError::of("lock the sources"))?;
        let ids = |ids: &mut dyn Iterator<Item = i64>| {
            let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
            format!("chunk_id = ANY (ARRAY[{}]::bigint[])", ids.join(", "))
        };
        let of_chunks = ids(&mut chunks.iter().map(|chunk| chunk.chunk_id));
        let now = ledger::records(&client, self, &of_chunks).await?;
        let is_as_seen = |record: &&ChunkRecord| {
            let content = |of: &ChunkRecord| (of.range, of.content_sha256);
            chunks.iter().any(|seen| content(seen) == content(record))
        };
        let unchanged: Vec<ChunkRecord> = now.iter().filter(is_as_seen).cloned().collect();
        kept::delete_chunks(&client, self, &unchanged).await?;
        let loaded = ledger::records(&client, self, &ids(&mut strays.iter().copied())).await?;
        let loaded: HashSet<i64> = loaded.iter().map(|record| record.chunk_id).collect();
        let strays: Vec<i64> = strays.iter().copied().filter(|id| !loaded.contains(id)).collect();
        for name in tables.iter().filter(|_| !strays.is_empty()) {
            let Some(table) = self.table_of(&client, name).await? else { continue };
            let sql = format!("DELETE FROM {table} WHERE chunk_id = ANY ($1)");
            client.execute(&sql, &[&strays]).await.map_err(WarehouseError::of(sql.as_str()))?;
        }
        execute("COMMIT").await
    }

    /// The quoted table of a log type, or of rejects or blanks.
    async fn table_of(&self, client: &Client, name: &str) -> Result<Option<String>, WarehouseError> {
        if [REJECTS, BLANKS].contains(&name) {
            return Ok(Some(self.table(name)));
        }
        let sql = format!(
            "SELECT table_name FROM {} WHERE name = $1 ORDER BY first_seen DESC LIMIT 1",
            self.table("log_types")
        );
        let row = client.query_opt(&sql, &[&name]).await.map_err(WarehouseError::of("find a table"))?;
        Ok(row.map(|row| self.table(row.get(0))))
    }
}

/// A point in time as SQL says it.
pub(super) fn time(micros: i64) -> String {
    // a float holds every microsecond of some 140 years around 1970 only, two integers hold all
    let (seconds, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    format!("(to_timestamp({seconds}) + interval '{micros} microseconds')")
}

/// A table's columns, in their order.
async fn columns(client: &Client, table: &str) -> Result<(Schema, Vec<PgType>), WarehouseError> {
    let sql = "SELECT attname::text, atttypid FROM pg_attribute
               WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let rows = client.query(sql, &[&table]).await.map_err(WarehouseError::of("read a table's columns"))?;
    let (mut fields, mut types) = (Vec::new(), Vec::new());
    for row in rows {
        // a column that somebody added is not ours to read
        let Ok(pg_type) = PgType::from_oid(row.get(1)) else { continue };
        fields.push(Field::new(row.get::<_, String>(0), pg_type.arrow_type(), true));
        types.push(pg_type);
    }
    Ok((Schema::new(fields), types))
}
