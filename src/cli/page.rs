//! The page of `pipeline serve`, alone (`--no-webhook`) or beside the webhook.
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use clap::Args;

use super::{Global, UsageError};
use crate::page::PageState;
use crate::store::{Database, DatabaseLocation, SqliteStore};
use crate::task::TaskStore;

/// So long the start waits for the database whose tasks the page shows.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the page shows besides the database of state.
#[derive(Debug, Args)]
#[command(next_help_heading = "Page")]
pub(super) struct PageArgs {
    /// Metrics of another process that the page adds up, http://HOST:PORT/metrics (repeatable)
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    metrics_from: Vec<String>,
}

fn parse_url(text: &str) -> Result<String, String> {
    match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(text.to_owned()),
        _ => Err("write http://HOST:PORT/metrics".to_owned()),
    }
}

/// What of the receiver's own flags the page goes by.
pub(super) struct PageOf<'a> {
    pub(super) listen: &'a str,
    /// The one whose tasks are shown.
    pub(super) database: Option<&'a str>,
    pub(super) schema: &'a str,
    pub(super) archive: Option<&'a str>,
    pub(super) token_file: Option<&'a Path>,
    /// Whether senders have to sign.
    pub(super) wants_signatures: bool,
}

impl PageArgs {
    /// The page, with the tasks of the database; of the file of state where that one does not answer.
    pub(super) async fn router(
        &self,
        receiver: PageOf<'_>,
        state: &SqliteStore,
        global: &Global,
    ) -> anyhow::Result<Router> {
        let PageOf { listen, database, schema, archive, token_file, wants_signatures } = receiver;
        if token_file.is_none() {
            if wants_signatures {
                tracing::warn!("the page is not served: it wants --token-file where senders have to sign");
                return Ok(Router::new());
            }
            let is_open = |address: SocketAddr| !address.ip().is_loopback();
            if tokio::net::lookup_host(listen).await.is_ok_and(|mut found| found.any(is_open)) {
                tracing::warn!("whoever reaches {listen} sees log lines and tasks; name a --token-file");
            }
        }
        let of_state = || TaskStore::new(Database::Sqlite(state.clone()));
        let tasks = match database.map(DatabaseLocation::parse).transpose()? {
            Some(location @ DatabaseLocation::Postgres(_)) => {
                // events are taken whether or not it answers
                match tokio::time::timeout(PATIENCE, TaskStore::try_open(&location, schema)).await {
                    Ok(Ok(tasks)) => tasks,
                    failed => {
                        let why = failed.map_or("it does not answer".to_owned(), |opened| {
                            opened.err().map(|error| error.to_string()).unwrap_or_default()
                        });
                        tracing::warn!(
                            "the page shows no tasks of {location}: {why}; start again once it is there"
                        );
                        of_state()
                    }
                }
            }
            Some(DatabaseLocation::Sqlite(_)) | None => of_state(),
        };
        Ok(crate::page::router(self.state(archive, tasks, token_file, global)?))
    }

    /// The page over an archive, and the tasks and windows of `tasks`; with a token file, for those only who know the
    /// token.
    fn state(
        &self,
        archive: Option<&str>,
        tasks: TaskStore,
        token_file: Option<&Path>,
        global: &Global,
    ) -> anyhow::Result<PageState> {
        let state = PageState::new(
            archive.unwrap_or(super::DEFAULT_ARCHIVE),
            global.log_types()?,
            tasks,
            self.metrics_from.clone(),
        );
        let Some(path) = token_file else { return Ok(state) };
        let token = std::fs::read_to_string(path)
            .map_err(|error| UsageError(format!("{}: the token cannot be read: {error}", path.display())))?;
        if token.trim().is_empty() {
            return Err(UsageError(format!(
                "{}: the token is empty; write one into the file",
                path.display()
            ))
            .into());
        }
        Ok(state.with_token(&token))
    }
}
