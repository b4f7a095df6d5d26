//! Reads the ledger: all of it, what of it meets a group's ranges, and any rows by binary COPY.
use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures_util::TryStreamExt;
use tokio_postgres::Client;

use super::Warehouse;
use super::copy::{CopyDecoder, PgType};
use super::error::WarehouseError;
use crate::ledger::{self, CHUNKS, Committed, Split};
use crate::model::{ByteRange, ChunkRecord, DecodedBatch, KnownSource, Source};

/// The column of the tables whose rows are in other places, which a schema did not have at first.
pub(super) const ELSEWHERE: &str = "elsewhere";

/// In the order of [`ledger::columns`].
pub(super) const LEDGER_TYPES: [PgType; 27] = [
    PgType::Int8,
    PgType::Int8,
    PgType::Text,
    PgType::Int8,
    PgType::Int8,
    PgType::Int4,
    PgType::Int4,
    PgType::Int8,
    PgType::Int8,
    PgType::Int8,
    PgType::Text,
    PgType::Int8,
    PgType::Int8,
    PgType::Int8,
    PgType::Int8,
    PgType::Jsonb,
    PgType::Timestamptz,
    PgType::Timestamptz,
    PgType::Text,
    PgType::Bool,
    PgType::Int4,
    PgType::Bool,
    PgType::Bool,
    PgType::Timestamptz,
    PgType::Timestamptz,
    PgType::Text,
    PgType::Names,
];

/// The rows of a query, by binary COPY.
pub(super) async fn read(
    client: &Client,
    query: &str,
    schema: SchemaRef,
    types: &[PgType],
) -> Result<Vec<RecordBatch>, WarehouseError> {
    let failed = || WarehouseError::of("read rows");
    let sql = format!("COPY ({query}) TO STDOUT (FORMAT binary)");
    let stream = client.copy_out(&sql).await.map_err(failed())?;
    let mut stream = std::pin::pin!(stream);
    let mut decoder = CopyDecoder::try_new(schema, types.to_vec()).map_err(WarehouseError::group)?;
    let mut batches = Vec::new();
    while let Some(bytes) = stream.try_next().await.map_err(failed())? {
        decoder.push(&bytes).map_err(WarehouseError::group)?;
        batches.extend(std::iter::from_fn(|| decoder.next_batch()));
    }
    batches.extend(decoder.flush().map_err(WarehouseError::group)?);
    Ok(batches)
}

/// The entries that `condition` selects, by source and first byte.
pub(super) async fn records(
    client: &Client,
    warehouse: &Warehouse,
    condition: &str,
) -> Result<Vec<ChunkRecord>, WarehouseError> {
    let schema = ledger::columns();
    let is_known = warehouse.knows_elsewhere(client).await?;
    let column = |name: &str| match name {
        ELSEWHERE if !is_known => format!("'{{}}'::text[] AS {ELSEWHERE}"),
        name => format!("\"{name}\""),
    };
    let names: Vec<String> = schema.fields().iter().map(|field| column(field.name())).collect();
    let query = format!(
        "SELECT {} FROM {} WHERE {condition} ORDER BY source_id, first_byte",
        names.join(", "),
        warehouse.table(CHUNKS)
    );
    let mut records = Vec::new();
    for rows in read(client, &query, schema, &LEDGER_TYPES).await? {
        records.extend(ledger::of_rows(&rows).map_err(WarehouseError::group)?);
    }
    Ok(records)
}

/// What is committed, of all sources or of these: ranges, newest chunks and open lines as of one moment.
pub(super) async fn committed(
    client: &Client,
    warehouse: &Warehouse,
    sources: Option<&[u64]>,
) -> Result<Committed, WarehouseError> {
    let failed = || WarehouseError::of("read the ledger");
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed())?;
    let committed = committed_now(client, warehouse, sources).await;
    let ended = client.batch_execute("COMMIT").await.map_err(failed());
    let committed = committed?;
    ended?;
    Ok(committed)
}

async fn committed_now(
    client: &Client,
    warehouse: &Warehouse,
    sources: Option<&[u64]>,
) -> Result<Committed, WarehouseError> {
    let condition = |column: &str| match sources {
        None => "true".to_owned(),
        Some(ids) => {
            let ids: Vec<String> = ids.iter().map(|id| id.cast_signed().to_string()).collect();
            format!("{column} = ANY (ARRAY[{}]::bigint[])", ids.join(", "))
        }
    };
    let (chunks, of_chunks) = (warehouse.table(CHUNKS), condition("source_id"));
    let islands = format!(
        "SELECT source_id, min(first_byte), max(end_byte) FROM (
             SELECT source_id, first_byte, end_byte, count(*) FILTER (WHERE starts)
                 OVER (PARTITION BY source_id ORDER BY first_byte) AS island
             FROM (
                 SELECT source_id, first_byte, end_byte,
                     first_byte IS DISTINCT FROM lag(end_byte) OVER (PARTITION BY source_id ORDER BY first_byte) AS starts
                 FROM {chunks} WHERE NOT open AND {of_chunks}
             ) AS ranges
         ) AS islands GROUP BY source_id, island ORDER BY 1, 2"
    );
    let newest = format!(
        "SELECT DISTINCT ON (source_id) s.id, s.file, s.device, s.inode, s.generation, s.head_len, s.head_hash,
             c.first_byte, c.end_byte, c.content_sha256
         FROM {chunks} AS c JOIN {} AS s ON s.id = c.source_id WHERE {}
         ORDER BY source_id, committed_at DESC, end_byte DESC",
        warehouse.table("sources"),
        condition("c.source_id")
    );
    let failed = || WarehouseError::of("read the ledger");
    let mut ranges: HashMap<i64, Vec<(u64, u64)>> = HashMap::new();
    for row in client.query(&islands, &[]).await.map_err(failed())? {
        let range = (row.get::<_, i64>(1).cast_unsigned(), row.get::<_, i64>(2).cast_unsigned());
        ranges.entry(row.get(0)).or_default().push(range);
    }
    let mut known = Vec::new();
    for row in client.query(&newest, &[]).await.map_err(failed())? {
        let id: i64 = row.get(0);
        let bits = |column: usize| row.get::<_, i64>(column).cast_unsigned();
        let source = Source {
            path: row.get(1),
            device: bits(2),
            inode: bits(3),
            generation: row.get::<_, i32>(4).cast_unsigned(),
            head_len_bytes: row.get::<_, i32>(5).cast_unsigned(),
            head_hash: bits(6),
            id: id.cast_unsigned(),
        };
        let sha256 = ledger::unhex(row.get(9)).unwrap_or_default();
        known.push(KnownSource {
            source,
            committed: ranges.remove(&id).unwrap_or_default(),
            open: None,
            last_chunk: (bits(7), bits(8), sha256),
        });
    }
    let open = records(client, warehouse, &format!("open AND {of_chunks}")).await?;
    let splits = splits(client, warehouse, &of_chunks).await?;
    Ok(Committed::restore(known, open, splits))
}

/// How the chunks that `condition` selects were split, each way once.
pub(super) async fn splits(
    client: &Client,
    warehouse: &Warehouse,
    condition: &str,
) -> Result<BTreeSet<Split>, WarehouseError> {
    if !warehouse.knows_elsewhere(client).await? {
        return Ok(BTreeSet::new());
    }
    let sql = format!(
        "SELECT DISTINCT elsewhere, ARRAY(SELECT jsonb_object_keys(types)) FROM {}
         WHERE elsewhere <> '{{}}' AND {condition}",
        warehouse.table(CHUNKS)
    );
    let rows = client.query(&sql, &[]).await.map_err(WarehouseError::of("read how chunks were split"))?;
    let names = |names: Vec<String>| names.into_iter().collect();
    Ok(rows.iter().map(|row| Split { elsewhere: names(row.get(0)), types: names(row.get(1)) }).collect())
}

/// The entries that share a byte with a range. Ranges do not overlap each other, so that before its first byte only the
/// nearest one can reach into it.
pub(super) async fn records_within(
    client: &Client,
    warehouse: &Warehouse,
    range: &ByteRange,
) -> Result<Vec<ChunkRecord>, WarehouseError> {
    let [source_id, first, end] =
        [range.source_id, range.first_byte, range.end_byte].map(|bits| bits.cast_signed());
    let condition = format!(
        "source_id = {source_id} AND first_byte < {end} AND end_byte > {first} AND first_byte >= coalesce(
             (SELECT max(first_byte) FROM {} WHERE source_id = {source_id} AND first_byte <= {first}), 0)",
        warehouse.table(CHUNKS)
    );
    records(client, warehouse, &condition).await
}

/// A chunk of a group that shares bytes with what is committed.
#[derive(Debug)]
pub(super) struct Overlapped {
    /// Its position in the group.
    pub(super) chunk: usize,
    /// Who committed.
    pub(super) writer: String,
    /// Whether the committed chunk is the very same range.
    pub(super) is_same_range: bool,
}

/// What the ledger has against a group.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    overlapped: BTreeMap<usize, Overlapped>,
    in_the_way: Vec<ChunkRecord>,
}

impl Conflicts {
    /// The chunks that cannot be committed, if there are any. Where the group replaces what is committed, the very
    /// same ranges are no conflict.
    pub(super) fn overlapped_by_others(&self, replaces: bool) -> Option<Vec<Overlapped>> {
        let overlapped = self.overlapped.values().filter(|of| !(replaces && of.is_same_range));
        let copies: Vec<_> = overlapped.map(|of| Overlapped { writer: of.writer.clone(), ..*of }).collect();
        (!copies.is_empty()).then_some(copies)
    }

    /// What has to go before the group: open lines that it supersedes, and the very same ranges.
    pub(super) fn in_the_way(&self) -> &[ChunkRecord] {
        &self.in_the_way
    }
}

/// Looks for committed ranges that share a byte with the group's. Ranges do not overlap each other, so that before
/// a range's first byte only the nearest one can reach into it.
pub(super) async fn conflicts(
    client: &Client,
    warehouse: &Warehouse,
    group: &[DecodedBatch],
) -> Result<Conflicts, WarehouseError> {
    let chunks = warehouse.table(CHUNKS);
    let columns = "c.source_id, c.first_byte, c.end_byte, c.open, c.writer";
    let sql = format!(
        "SELECT (r.n - 1)::int, {columns}
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS r (source_id, first_byte, end_byte, n)
         CROSS JOIN LATERAL (
             (SELECT {columns} FROM {chunks} AS c
              WHERE c.source_id = r.source_id AND c.first_byte < r.first_byte ORDER BY c.first_byte DESC LIMIT 1)
             UNION ALL
             SELECT {columns} FROM {chunks} AS c
             WHERE c.source_id = r.source_id AND c.first_byte >= r.first_byte AND c.first_byte < r.end_byte
         ) AS c
         WHERE c.end_byte > r.first_byte"
    );
    let ranges = group.iter().map(|chunk| chunk.record.range);
    let sources: Vec<i64> = ranges.clone().map(|range| range.source_id.cast_signed()).collect();
    let firsts: Vec<i64> = ranges.clone().map(|range| range.first_byte.cast_signed()).collect();
    let ends: Vec<i64> = ranges.map(|range| range.end_byte.cast_signed()).collect();
    let found = client.query(&sql, &[&sources, &firsts, &ends]).await;
    let mut conflicts = Conflicts::default();
    for row in found.map_err(WarehouseError::of("ask the ledger"))? {
        let chunk = usize::try_from(row.get::<_, i32>(0)).unwrap_or_default();
        let (first, end): (i64, i64) = (row.get(2), row.get(3));
        let supersedes = row.get(4) && first == firsts[chunk] && end < ends[chunk];
        let is_same_range = (first, end) == (firsts[chunk], ends[chunk]);
        if supersedes || is_same_range {
            let condition = format!("source_id = {} AND first_byte = {first}", sources[chunk]);
            conflicts.in_the_way.extend(records(client, warehouse, &condition).await?);
        }
        if !supersedes {
            conflicts.overlapped.insert(chunk, Overlapped { chunk, writer: row.get(5), is_same_range });
        }
    }
    Ok(conflicts)
}
