//! `aggregated_data` in a database of its own, opened at the first delivery.
use std::path::PathBuf;

use async_trait::async_trait;

use super::{WindowSink, WindowSinkError};
use crate::client::PgConfig;
use crate::model::WindowRow;
use crate::store::windows::outbox::Entry;
use crate::store::{PostgresStore, SqliteStore};

/// The newest state of each row: what is later in `entries` wins.
fn newest(entries: &[Entry]) -> Vec<WindowRow> {
    let mut rows: std::collections::HashMap<_, &WindowRow> = std::collections::HashMap::new();
    for Entry { row, .. } in entries {
        rows.insert((row.start_ms, row.end_ms, row.event_type.as_str()), row);
    }
    rows.into_values().cloned().collect()
}

/// A schema of Postgres.
#[derive(Debug)]
pub struct PostgresWindows {
    name: String,
    config: PgConfig,
    schema: String,
    store: Option<PostgresStore>,
}

impl PostgresWindows {
    /// Connects at the first delivery, so that a server that is away holds up nobody else.
    #[must_use]
    pub fn new(config: PgConfig, schema: &str) -> Self {
        let name = format!("{config}#{schema}");
        Self { name, config, schema: schema.to_owned(), store: None }
    }
}

#[async_trait]
impl WindowSink for PostgresWindows {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_table(&self) -> bool {
        true
    }

    async fn deliver(&mut self, entries: &[Entry]) -> Result<(), WindowSinkError> {
        let store = match &self.store {
            Some(store) => store,
            None => {
                let store = PostgresStore::try_open(self.config.clone(), &self.schema).await?;
                self.store.insert(store)
            }
        };
        Ok(store.upsert_windows(&newest(entries)).await?)
    }
}

/// A file of SQLite.
#[derive(Debug)]
pub struct SqliteWindows {
    name: String,
    path: PathBuf,
    store: Option<SqliteStore>,
}

impl SqliteWindows {
    /// Opens at the first delivery.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { name: format!("sqlite://{}", path.display()), path, store: None }
    }
}

#[async_trait]
impl WindowSink for SqliteWindows {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_table(&self) -> bool {
        true
    }

    async fn deliver(&mut self, entries: &[Entry]) -> Result<(), WindowSinkError> {
        let store = match &self.store {
            Some(store) => store,
            None => {
                let store = SqliteStore::try_open(&self.path).await?;
                self.store.insert(store)
            }
        };
        Ok(store.upsert_windows(&newest(entries)).await?)
    }
}
