//! What a loader asks the ledger, waiting while Postgres is away.
use std::sync::Arc;

use tokio::time::{sleep, timeout};

use super::{FIRST_PAUSE, LAST_PAUSE, Loader};
use crate::client::with_causes;
use crate::ledger::Committed;
use crate::model::{ByteRange, ChunkRecord};
use crate::telemetry::tell_alive;
use crate::warehouse::{WarehouseError, ledger};

/// What the ledger is asked for.
#[derive(Clone, Copy)]
enum Question<'a> {
    All,
    OfSources(&'a [u64]),
    Within(&'a ByteRange),
}

impl Loader {
    /// All that is committed. Waits while Postgres is away.
    pub async fn committed(&mut self) -> Result<Committed, WarehouseError> {
        Ok(self.ask(Question::All).await?.0)
    }

    /// All that is committed of these sources. Waits while Postgres is away.
    pub async fn committed_of(&mut self, sources: &[u64]) -> Result<Committed, WarehouseError> {
        Ok(self.ask(Question::OfSources(sources)).await?.0)
    }

    /// What is committed of a range and nothing else, folded and as entries. Waits while Postgres is away.
    pub async fn committed_within(
        &mut self,
        range: &ByteRange,
    ) -> Result<(Committed, Vec<ChunkRecord>), WarehouseError> {
        self.ask(Question::Within(range)).await
    }

    async fn ask(&mut self, question: Question<'_>) -> Result<(Committed, Vec<ChunkRecord>), WarehouseError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let asked = timeout(self.patience, self.try_to_ask(question)).await;
            match asked.unwrap_or(Err(WarehouseError::Hangs)) {
                Err(failure) if failure.is_retriable() => {
                    if pause == FIRST_PAUSE {
                        tracing::warn!(
                            "postgres does not say what is committed; asking again: {}",
                            with_causes(&failure)
                        );
                    }
                    self.connection = None;
                    tell_alive();
                    sleep(pause).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                }
                answered => return answered,
            }
        }
    }

    async fn try_to_ask(
        &mut self,
        question: Question<'_>,
    ) -> Result<(Committed, Vec<ChunkRecord>), WarehouseError> {
        let warehouse = Arc::clone(&self.warehouse);
        let client = &self.connection().await?.client;
        match question {
            Question::All => Ok((ledger::committed(client, &warehouse, None).await?, Vec::new())),
            Question::OfSources(sources) => {
                Ok((ledger::committed(client, &warehouse, Some(sources)).await?, Vec::new()))
            }
            Question::Within(range) => {
                let records = ledger::records_within(client, &warehouse, range).await?;
                let mut committed = Committed::default();
                records.iter().for_each(|record| committed.insert(record));
                Ok((committed, records))
            }
        }
    }
}
