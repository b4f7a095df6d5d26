//! The page of `pipeline serve`, alone (`--no-webhook`) or beside the webhook.
use std::path::Path;

use clap::Args;

use super::{Global, UsageError};
use crate::page::PageState;
use crate::task::TaskStore;

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

impl PageArgs {
    /// The page over an archive, and the tasks and windows of `tasks`; with a token file, for those only who know the
    /// token.
    pub(super) fn state(
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
