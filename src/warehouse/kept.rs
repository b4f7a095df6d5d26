//! What a commit writes besides rows: the sources' newest records, ledger entries, rejects and blanks; and what it
//! takes away: the rows of superseded open lines.
use std::collections::BTreeMap;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use tokio_postgres::Client;

use super::Warehouse;
use super::copy::{CopyEncoder, PgType};
use super::error::WarehouseError;
use super::ledger::LEDGER_TYPES;
use super::moved::MOVED;
use crate::ledger::{self, BLANKS, CHUNKS, REJECTS};
use crate::model::{ChunkRecord, DecodedBatch, Source};

/// In the order of [`ledger::reject_columns`].
pub(super) const REJECT_TYPES: [PgType; 9] = [
    PgType::Int8,
    PgType::Int4,
    PgType::Int4,
    PgType::Int8,
    PgType::Text,
    PgType::Int4,
    PgType::Text,
    PgType::Text,
    PgType::Bytea,
];
/// In the order of [`ledger::blank_columns`].
pub(super) const BLANK_TYPES: [PgType; 3] = [PgType::Int8, PgType::Int4, PgType::Bytea];

/// Records the sources, and holds them until the transaction ends. Every loader takes them in the order of their
/// ids, so that no two wait for each other.
pub(super) async fn lock_sources(
    client: &Client,
    warehouse: &Warehouse,
    group: &[DecodedBatch],
) -> Result<(), WarehouseError> {
    let mut sources: BTreeMap<i64, &Source> = BTreeMap::new();
    for chunk in group {
        let source = &*chunk.record.source;
        let known = sources.entry(source.id.cast_signed()).or_insert(source);
        if source.head_len_bytes >= known.head_len_bytes {
            *known = source;
        }
    }
    let table = warehouse.table("sources");
    let sql = format!(
        "INSERT INTO {table} AS known (id, file, device, inode, generation, head_len, head_hash)
         SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::int[], $6::int[], $7::bigint[])
         ON CONFLICT (id) DO UPDATE SET file = excluded.file, device = excluded.device, inode = excluded.inode,
             head_len = excluded.head_len, head_hash = excluded.head_hash
         WHERE excluded.head_len >= known.head_len AND (known.file, known.device, known.inode, known.head_len)
             IS DISTINCT FROM (excluded.file, excluded.device, excluded.inode, excluded.head_len)"
    );
    let long = |value: fn(&Source) -> u64| -> Vec<i64> {
        sources.values().map(|source| value(source).cast_signed()).collect()
    };
    let int = |value: fn(&Source) -> u32| -> Vec<i32> {
        sources.values().map(|source| value(source).cast_signed()).collect()
    };
    let files: Vec<&str> = sources.values().map(|source| source.path.as_str()).collect();
    client
        .execute(
            &sql,
            &[
                &long(|source| source.id),
                &files,
                &long(|source| source.device),
                &long(|source| source.inode),
                &int(|source| source.generation),
                &int(|source| source.head_len_bytes),
                &long(|source| source.head_hash),
            ],
        )
        .await
        .map_err(WarehouseError::of("lock the sources"))?;
    Ok(())
}

/// The COPY statements of the group's rejects and blanks, where it has any, and their rows.
pub(super) fn copies(
    warehouse: &Warehouse,
    group: &[DecodedBatch],
) -> Result<Vec<(String, CopyEncoder)>, WarehouseError> {
    let mut copies = Vec::new();
    let rejects = group.iter().filter(|chunk| !chunk.rejects.is_empty()).map(ledger::reject_rows);
    let rejects = rejects.collect::<Result<Vec<_>, _>>().map_err(WarehouseError::group)?;
    if !rejects.is_empty() {
        copies.push(copy(warehouse, REJECTS, &ledger::reject_columns(), &rejects, &REJECT_TYPES)?);
    }
    let blanks = group.iter().filter(|chunk| !chunk.blanks.is_empty()).map(ledger::blank_rows);
    let blanks = blanks.collect::<Result<Vec<_>, _>>().map_err(WarehouseError::group)?;
    if !blanks.is_empty() {
        copies.push(copy(warehouse, BLANKS, &ledger::blank_columns(), &blanks, &BLANK_TYPES)?);
    }
    Ok(copies)
}

/// The COPY statement of the group's ledger entries, and their rows.
pub(super) fn entries(
    warehouse: &Warehouse,
    group: &[DecodedBatch],
) -> Result<(String, CopyEncoder), WarehouseError> {
    let records: Vec<ChunkRecord> = group.iter().map(|chunk| chunk.record.clone()).collect();
    let now = chrono::Utc::now().timestamp_micros();
    let rows = ledger::to_rows(&records, now, &warehouse.writer).map_err(WarehouseError::group)?;
    copy(warehouse, CHUNKS, &ledger::columns(), &[rows], &LEDGER_TYPES)
}

fn copy(
    warehouse: &Warehouse,
    table: &str,
    schema: &arrow::datatypes::SchemaRef,
    rows: &[RecordBatch],
    types: &[PgType],
) -> Result<(String, CopyEncoder), WarehouseError> {
    let rows = concat_batches(schema, rows).map_err(WarehouseError::group)?;
    let columns: Vec<(PgType, &ArrayRef)> = types.iter().copied().zip(rows.columns()).collect();
    let encoder = CopyEncoder::try_new(&columns).map_err(WarehouseError::group)?;
    let names = schema.fields().iter().map(|field| field.name().as_str());
    Ok((warehouse.copy_statement(&warehouse.table(table), names), encoder))
}

/// Takes chunks away: their rows, rejects, blanks and entries.
pub(super) async fn delete_chunks(
    client: &Client,
    warehouse: &Warehouse,
    chunks: &[ChunkRecord],
) -> Result<(), WarehouseError> {
    for chunk in chunks {
        let id = chunk.chunk_id;
        if let Some((first, last)) = chunk.time_range {
            for table in tables_of(client, warehouse, chunk).await? {
                let sql = format!(
                    "DELETE FROM {} WHERE chunk_id = $1 AND \"timestamp\" BETWEEN $2 AND $3",
                    warehouse.table(&table)
                );
                let time = |micros| chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
                let deleted = client.execute(&sql, &[&id, &time(first), &time(last)]).await;
                deleted.map_err(WarehouseError::of("take away the rows of an open line"))?;
            }
        }
        for table in [REJECTS, BLANKS, MOVED] {
            let sql = format!("DELETE FROM {} WHERE chunk_id = $1", warehouse.table(table));
            client.execute(&sql, &[&id]).await.map_err(WarehouseError::of(sql.as_str()))?;
        }
        let sql = format!("DELETE FROM {} WHERE source_id = $1 AND first_byte = $2", warehouse.table(CHUNKS));
        let source_id = chunk.range.source_id.cast_signed();
        let first_byte = chunk.range.first_byte.cast_signed();
        let deleted = client.execute(&sql, &[&source_id, &first_byte]).await;
        deleted.map_err(WarehouseError::of(sql.as_str()))?;
    }
    Ok(())
}

/// The tables that hold rows of a chunk.
async fn tables_of(
    client: &Client,
    warehouse: &Warehouse,
    chunk: &ChunkRecord,
) -> Result<Vec<String>, WarehouseError> {
    let names: Vec<&str> = chunk.types.keys().map(String::as_str).collect();
    let log_types = warehouse.table("log_types");
    let sql = format!("SELECT DISTINCT table_name FROM {log_types} WHERE name = ANY ($1)");
    let rows = client.query(&sql, &[&names]).await.map_err(WarehouseError::of(sql.as_str()))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
