//! The old design, to be compared with: a JSON message per line by LPUSH, one BRPOP, one INSERT with its commit.
//!
//! Faithful where it matters (one line, one message, one row, one commit, the old table with its three indexes) and
//! generous where it does not: compiled code in place of Python, a prepared statement, and a commit that is part of
//! the INSERT's own round trip. Reader and processor run at the same time. Lines are read before the clock starts.
use std::time::Instant;

use redis::AsyncCommands;
use serde::{Deserialize, Serialize};
use tokio_postgres::types::Json;

use super::old_line::{self, OldMessage};
use super::{BenchError, ProcessUse, Schema, StoredSize};
use crate::client::RedisConnection;

/// One message is awaited at most so long: the reader is at work meanwhile.
const PATIENCE_SECONDS: f64 = 60.0;

const TABLE_NAME: &str = "logs";
const TABLE: &str = "(
    id bigserial PRIMARY KEY, log_type text, raw_line text, \"timestamp\" text, source_file text,
    parsed_data jsonb, indexed_at timestamptz DEFAULT now()
)";

/// The single table of the old design, in a schema of its own.
pub struct OldTable(Schema);

impl OldTable {
    /// Makes it, with the indexes that such a team has.
    pub async fn make(schema: Schema) -> Result<Self, BenchError> {
        let table = Self(schema);
        table.0.execute(&format!("CREATE TABLE {} {TABLE}", table.name())).await?;
        table.index().await?;
        Ok(table)
    }

    /// The schema that it is in.
    pub fn schema(&self) -> &Schema {
        &self.0
    }

    /// Rows in it.
    pub async fn count(&self) -> Result<u64, BenchError> {
        let sql = format!("SELECT count(*) FROM {}", self.name());
        let row =
            self.0.client().query_one(&sql, &[]).await.map_err(BenchError::postgres("count the old rows"))?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or_default())
    }

    /// What it takes.
    pub async fn stored_size(&self) -> Result<StoredSize, BenchError> {
        self.0.table_size(TABLE_NAME).await
    }

    /// Fills it anew with every row of the view `logs` of `schema`: to load as many by its own way takes hours.
    pub async fn fill_from(&self, schema: &Schema) -> Result<(), BenchError> {
        let (table, view) = (self.name(), schema.qualified("logs"));
        self.0.execute(&format!("DROP TABLE {table}; CREATE TABLE {table} {TABLE}")).await?;
        let columns = "log_type, raw_line, \"timestamp\", source_file, parsed_data";
        // in the order of time, as they would have come
        let fill =
            format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM {view} ORDER BY \"timestamp\"");
        self.0.execute(&fill).await?;
        self.index().await
    }

    async fn index(&self) -> Result<(), BenchError> {
        let table = self.name();
        let sql = format!(
            "CREATE INDEX ON {table} (log_type); CREATE INDEX ON {table} (\"timestamp\");
             CREATE INDEX ON {table} USING gin (parsed_data)"
        );
        self.0.execute(&sql).await
    }

    fn name(&self) -> String {
        self.0.qualified(TABLE_NAME)
    }
}

/// What the old design took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct OldFigures {
    /// Lines pushed, popped and committed.
    pub lines: u64,
    /// From the first push to the last commit. Its indexes are there all the time.
    pub seconds: f64,
    /// Bytes of the messages.
    pub message_bytes: u64,
}

/// What the old design took.
#[derive(Debug, Clone, Serialize)]
pub struct OldMeasures {
    /// Its reader and processor.
    pub process: ProcessUse,
    /// What they did.
    pub old: OldFigures,
    /// CPU of Postgres meanwhile.
    pub postgres_cpu_seconds: Option<f64>,
    /// CPU of Redis meanwhile.
    pub redis_cpu_seconds: Option<f64>,
    /// Bytes that Postgres logged meanwhile.
    pub wal_bytes: u64,
    /// The old table with every row of the run.
    pub stored: StoredSize,
}

/// One run of the old design.
pub struct OldStyle {
    /// Lines with the name of their file.
    pub lines: Vec<(String, String)>,
    /// The list that messages wait in; nobody else uses it.
    pub list: String,
    /// The reader's connection.
    pub reader: RedisConnection,
    /// The processor's connection, which blocks.
    pub processor: RedisConnection,
}

impl OldStyle {
    /// Runs it into the table `logs` of `schema`.
    pub async fn run(self, schema: &Schema) -> Result<OldFigures, BenchError> {
        let Self { lines, list, mut reader, mut processor } = self;
        let started = Instant::now();
        let read = async {
            let mut message_bytes = 0;
            for (file, line) in &lines {
                let message = serde_json::to_string(&old_line::parse(line, file)).unwrap_or_default();
                message_bytes += message.len() as u64;
                let pushed: Result<u64, _> = reader.lpush(&list, message).await;
                pushed.map_err(BenchError::redis("push a message"))?;
            }
            Ok::<u64, BenchError>(message_bytes)
        };
        let process = async {
            let insert = format!(
                "INSERT INTO {} (log_type, raw_line, \"timestamp\", source_file, parsed_data)
                 VALUES ($1, $2, $3, $4, $5)",
                schema.qualified("logs")
            );
            let client = schema.client();
            let insert = client.prepare(&insert).await.map_err(BenchError::postgres("prepare the insert"))?;
            for _ in &lines {
                let popped: Option<(String, String)> = processor
                    .brpop(&list, PATIENCE_SECONDS)
                    .await
                    .map_err(BenchError::redis("take a message"))?;
                // the reader failed, and says why
                let Some((_, message)) = popped else { return Ok(()) };
                let message: OldMessage = serde_json::from_str(&message).map_err(|error| {
                    BenchError::Server { operation: "read a message".to_owned(), source: error.into() }
                })?;
                let OldMessage { log_type, raw_line, timestamp, source_file, parsed_data } = message;
                client
                    .execute(&insert, &[&log_type, &raw_line, &timestamp, &source_file, &Json(&parsed_data)])
                    .await
                    .map_err(BenchError::postgres("insert a row"))?;
            }
            Ok(())
        };
        let (message_bytes, ()) = tokio::try_join!(read, process)?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(OldFigures { lines: lines.len() as u64, seconds, message_bytes })
    }
}
