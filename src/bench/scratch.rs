//! The schema that is measured: reset, watched, sized.
//!
//! Invariant: only a schema that carries the mark of a bench, or holds nothing, is dropped.
use serde::Serialize;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::BenchError;
use crate::log_type::ddl::{literal, qualified, quoted};

/// The comment by which a bench knows a schema that it may drop.
const MARK: &str = "made by pipeline bench, which drops it when it runs again";

/// A schema of one database, and a connection to look at it with.
pub struct Schema {
    client: Client,
    name: String,
}

/// What the ledger says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LedgerCounts {
    /// Chunks committed.
    pub chunks: u64,
    /// Lines in them.
    pub lines: u64,
    /// Lines that became rows.
    pub rows: u64,
    /// Bytes of input in them.
    pub bytes: u64,
}

impl LedgerCounts {
    /// What came after `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            chunks: self.chunks.saturating_sub(before.chunks),
            lines: self.lines.saturating_sub(before.lines),
            rows: self.rows.saturating_sub(before.rows),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
}

/// Bytes that the rows take in the database.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct StoredSize {
    /// Tables, with what is kept out of line.
    pub table_bytes: u64,
    /// Their indexes.
    pub index_bytes: u64,
}

impl Schema {
    /// Looks at a schema that somebody else fills.
    pub fn of(client: Client, name: &str) -> Self {
        Self { client, name: name.to_owned() }
    }

    /// Drops what an earlier bench left, and makes the schema anew, empty.
    pub async fn reset(client: Client, name: &str) -> Result<Self, BenchError> {
        let schema = Self::of(client, name);
        let sql = format!(
            "SELECT obj_description(oid, 'pg_namespace'),
                    (SELECT count(*) FROM pg_class WHERE relnamespace = namespace.oid)
             FROM pg_namespace AS namespace WHERE nspname = {}",
            literal(name)
        );
        if let Some(found) = schema.rows(&sql).await?.first() {
            let is_empty = found[1].as_deref() == Some("0");
            if !is_empty && found[0].as_deref() != Some(MARK) {
                return Err(BenchError::NotScratch { schema: name.to_owned() });
            }
            schema.drop_all().await?;
        }
        let name = quoted(name);
        let sql = format!("CREATE SCHEMA {name}; COMMENT ON SCHEMA {name} IS {}", literal(MARK));
        schema.execute(&sql).await?;
        Ok(schema)
    }

    /// The connection.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A name in it, for SQL.
    pub(super) fn qualified(&self, name: &str) -> String {
        qualified(&self.name, name)
    }

    /// Drops it with all that it holds. Table by table: one lock is held for each leaf and index that a
    /// transaction drops, and a server has room for so many.
    pub async fn drop_all(&self) -> Result<(), BenchError> {
        let sql = format!(
            "SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
             WHERE nspname = {} AND relkind IN ('r', 'p') ORDER BY relispartition DESC, relname",
            literal(&self.name)
        );
        for row in self.rows(&sql).await? {
            let table = self.qualified(row[0].as_deref().unwrap_or_default());
            self.execute(&format!("DROP TABLE IF EXISTS {table} CASCADE")).await?;
        }
        self.execute(&format!("DROP SCHEMA {} CASCADE", quoted(&self.name))).await
    }

    /// What is committed; nothing where there is no ledger yet.
    pub async fn committed(&self) -> Result<LedgerCounts, BenchError> {
        let sql = format!(
            "SELECT count(*), coalesce(sum(lines), 0), coalesce(sum(rows), 0),
                    coalesce(sum(end_byte - first_byte), 0)
             FROM {}",
            self.qualified("chunks")
        );
        let answer = match self.client.simple_query(&sql).await {
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                return Ok(LedgerCounts::default());
            }
            answer => answer.map_err(BenchError::postgres("read the ledger"))?,
        };
        let rows = texts(answer);
        let number = |column: usize| {
            let text = rows.first().and_then(|row| row.get(column)?.as_deref());
            text.and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        Ok(LedgerCounts { chunks: number(0), lines: number(1), rows: number(2), bytes: number(3) })
    }

    /// Leaves that lack an index which another leaf of their table has, or have one that is not valid.
    pub async fn unindexed_leaves(&self) -> Result<u64, BenchError> {
        let sql = format!(
            "WITH leaf AS (
                SELECT inherits.inhparent AS parent, count(*) FILTER (WHERE index.indisvalid) AS valid
                FROM pg_namespace AS namespace
                JOIN pg_class AS class ON class.relnamespace = namespace.oid AND class.relkind = 'r'
                JOIN pg_inherits AS inherits ON inherits.inhrelid = class.oid
                LEFT JOIN pg_index AS index ON index.indrelid = class.oid
                WHERE namespace.nspname = {} GROUP BY inherits.inhparent, class.oid
             )
             SELECT count(*) FROM leaf AS one
             WHERE valid < (SELECT greatest(max(valid), 1) FROM leaf AS other WHERE other.parent = one.parent)",
            literal(&self.name)
        );
        let rows = self.rows(&sql).await?;
        Ok(rows.first().and_then(|row| row[0].as_deref()?.parse().ok()).unwrap_or_default())
    }

    /// What the tables of log types take, ledger and rejects apart.
    pub async fn stored_size(&self) -> Result<StoredSize, BenchError> {
        let sql = format!(
            "SELECT coalesce(sum(pg_table_size(class.oid)), 0), coalesce(sum(pg_indexes_size(class.oid)), 0)
             FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
             WHERE namespace.nspname = {} AND class.relkind = 'r' AND class.relispartition",
            literal(&self.name)
        );
        Ok(sizes(&self.rows(&sql).await?))
    }

    /// Bytes that the server has logged since it was made.
    pub async fn wal_bytes(&self) -> Result<u64, BenchError> {
        let rows = self.rows("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')").await?;
        Ok(rows.first().and_then(|row| row[0].as_deref()?.parse().ok()).unwrap_or_default())
    }

    /// What one table takes.
    pub(super) async fn table_size(&self, table: &str) -> Result<StoredSize, BenchError> {
        let table = literal(&self.qualified(table));
        let sql = format!("SELECT pg_table_size({table}), pg_indexes_size({table})");
        Ok(sizes(&self.rows(&sql).await?))
    }

    /// Statistics and visibility, as autovacuum would have brought them in a while.
    pub async fn vacuum(&self) -> Result<(), BenchError> {
        let sql = format!(
            "SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
             WHERE nspname = {} AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY relname",
            literal(&self.name)
        );
        for row in self.rows(&sql).await? {
            let table = self.qualified(row[0].as_deref().unwrap_or_default());
            self.execute(&format!("VACUUM (ANALYZE) {table}")).await?;
        }
        Ok(())
    }

    /// Runs statements for their effect.
    pub(super) async fn execute(&self, sql: &str) -> Result<(), BenchError> {
        self.client
            .batch_execute(sql)
            .await
            .map_err(BenchError::postgres(format!("use schema {}", self.name)))
    }

    async fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, BenchError> {
        let answer = self.client.simple_query(sql).await;
        answer.map(texts).map_err(BenchError::postgres(format!("look into schema {}", self.name)))
    }
}

/// Of one row: bytes of tables, bytes of indexes.
fn sizes(rows: &[Vec<Option<String>>]) -> StoredSize {
    let number =
        |column: usize| rows.first().and_then(|row| row[column].as_deref()?.parse().ok()).unwrap_or_default();
    StoredSize { table_bytes: number(0), index_bytes: number(1) }
}

/// Every row's values as Postgres writes them.
pub(super) fn texts(answer: Vec<SimpleQueryMessage>) -> Vec<Vec<Option<String>>> {
    let rows = answer.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
        }
        _ => None,
    });
    rows.collect()
}
