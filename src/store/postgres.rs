//! State in a schema of Postgres: one connection, made anew when it is lost.
//!
//! Tables are made under an advisory lock, so any number of processes may start at once. Deliberately absent: a
//! second try of a call that failed; who called knows whether it may be done twice.
use std::fmt;
use std::sync::Arc;

use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard, Notify};
use tokio_postgres::Client;

use super::{MIGRATIONS, StoreError};
use crate::client::PgConfig;

/// An open schema; clones share the connection.
#[derive(Clone)]
pub struct PostgresStore {
    config: Arc<PgConfig>,
    schema: String,
    client: Arc<Mutex<Option<Client>>>,
    notified: Arc<Notify>,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PostgresStore").field("config", &self.config).field("schema", &self.schema).finish()
    }
}

impl PostgresStore {
    /// Connects, waiting for a server that starts, and makes the tables that are missing in `schema`.
    pub async fn try_open(config: PgConfig, schema: &str) -> Result<Self, StoreError> {
        let notified = Arc::new(Notify::new());
        let config = config.with_notifications(notified.clone());
        let client = config.connect_at_start().await?;
        let store =
            Self { config: Arc::new(config), schema: schema.to_owned(), client: Arc::default(), notified };
        store.prepare(&client).await?;
        store.migrate(&client).await?;
        *store.client.lock().await = Some(client);
        Ok(store)
    }

    /// The connection, alone: connected anew if it was lost, with the schema first in `search_path`.
    pub async fn client(&self) -> Result<MappedMutexGuard<'_, Client>, StoreError> {
        let mut guard = self.client.lock().await;
        if guard.as_ref().is_none_or(Client::is_closed) {
            let client = self.config.connect().await?;
            self.prepare(&client).await?;
            *guard = Some(client);
        }
        MutexGuard::try_map(guard, Option::as_mut).map_err(|_| {
            // it was put there just now
            StoreError::Location(self.config.to_string())
        })
    }

    /// Woken when another session says that there is something new (`NOTIFY pipeline_state`).
    #[must_use]
    pub fn notified(&self) -> &Notify {
        &self.notified
    }

    /// An error that says what was tried; `operation` completes "cannot ..".
    pub fn failed(&self, operation: &str) -> impl FnOnce(tokio_postgres::Error) -> StoreError {
        let (address, operation) = (self.config.address(), operation.to_owned());
        move |source| StoreError::Postgres { address, operation, source }
    }

    async fn prepare(&self, client: &Client) -> Result<(), StoreError> {
        let schema = self.schema.replace('"', "\"\"");
        let sql =
            format!("SET search_path = \"{schema}\", pg_temp; SET timezone = 'UTC'; LISTEN pipeline_state");
        client.batch_execute(&sql).await.map_err(self.failed("set up a connection"))
    }

    async fn migrate(&self, client: &Client) -> Result<(), StoreError> {
        let schema = self.schema.replace('"', "\"\"");
        let failed = || self.failed("make the tables of state");
        let mut sql = format!(
            "BEGIN; SET LOCAL client_min_messages = warning;
             SELECT pg_advisory_xact_lock(hashtextextended('pipeline state', 0));
             CREATE SCHEMA IF NOT EXISTS \"{schema}\";
             CREATE TABLE IF NOT EXISTS store_migrations (name text PRIMARY KEY);"
        );
        client.batch_execute(&sql).await.map_err(failed())?;
        let applied = client.query("SELECT name FROM store_migrations", &[]).await.map_err(failed())?;
        let applied: Vec<String> = applied.iter().map(|row| row.get(0)).collect();
        sql.clear();
        for migration in
            MIGRATIONS.iter().filter(|migration| applied.iter().all(|name| name != migration.name))
        {
            sql += migration.postgres;
            sql += &format!("; INSERT INTO store_migrations VALUES ('{}');", migration.name);
        }
        sql += "COMMIT";
        client.batch_execute(&sql).await.map_err(failed())
    }
}
