//! Downloads and processing by chance: delays and failures without a network, the same for the same seed.
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::stages::StageError;
use crate::download::{DownloadError, Downloaded, Failed, FileItem, Slot};

/// A download takes from the first to the second of these, in milliseconds.
const DOWNLOAD_MILLIS: (u64, u64) = (1000, 3000);
/// Processing takes from the first to the second of these, in milliseconds.
const PROCESS_MILLIS: (u64, u64) = (5000, 10_000);

/// How to simulate.
#[derive(Debug, Clone, Copy)]
pub struct Simulation {
    /// Decides every delay and failure, whatever the order of items.
    pub seed: u64,
    /// From 0 to 1: how many items fail, half of them at the download.
    pub failures: f64,
    /// Whether to skip the delays.
    pub no_sleep: bool,
}

impl Simulation {
    /// From 0 to 1.
    fn chance(self, item: &FileItem, what: &str) -> f64 {
        let hash = Sha256::new().chain_update(self.seed.to_le_bytes()).chain_update(what);
        let hash: [u8; 32] = hash.chain_update(item.key()).finalize().into();
        f64::from(u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])) / f64::from(u32::MAX)
    }

    fn delay(self, item: &FileItem, what: &str, (least, most): (u64, u64)) -> Duration {
        match self.no_sleep {
            true => Duration::ZERO,
            false => Duration::from_millis(least + ((most - least) as f64 * self.chance(item, what)) as u64),
        }
    }

    fn fails_at(self, item: &FileItem) -> Option<&'static str> {
        let fails = self.chance(item, "fails") < self.failures;
        let is_early = self.chance(item, "where") < 0.5;
        fails.then_some(if is_early { "download" } else { "process" })
    }

    /// A small file after a while.
    pub(super) async fn download(self, slot: &Slot, item: &FileItem) -> Result<Downloaded, Failed> {
        let failed = |error| Failed { error, again_in: None };
        tokio::time::sleep(self.delay(item, "download", DOWNLOAD_MILLIS)).await;
        if self.fails_at(item) == Some("download") {
            return Err(failed(DownloadError::Source {
                reason: "a simulated failure".to_owned(),
                is_retriable: false,
            }));
        }
        let content = format!("simulated {}\n", item.id_text());
        let written = std::fs::write(&slot.path, &content);
        written.map_err(|source| {
            failed(DownloadError::Disk {
                path: slot.path.clone(),
                operation: "write a simulated file",
                source,
            })
        })?;
        Ok(Downloaded { slot: slot.clone(), size: content.len() as u64, etag: None })
    }

    /// Waits, and fails if that is its lot.
    pub(super) async fn process(self, item: &FileItem) -> Result<(), StageError> {
        tokio::time::sleep(self.delay(item, "process", PROCESS_MILLIS)).await;
        match self.fails_at(item) {
            Some("process") => Err(StageError::new("a simulated failure")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_and_the_share_of_failures_is_what_was_asked() {
        let simulation = Simulation { seed: 42, failures: 0.1, no_sleep: false };
        let items: Vec<_> =
            (0..1000).map(|number| FileItem::try_new(&format!("http://h/{number}")).unwrap()).collect();
        let failures = items.iter().filter(|item| simulation.fails_at(item).is_some()).count();
        assert!((70..130).contains(&failures), "{failures}");
        for item in &items {
            let delay = simulation.delay(item, "download", DOWNLOAD_MILLIS);
            assert!((1000..=3000).contains(&delay.as_millis()));
            assert_eq!(delay, simulation.delay(item, "download", DOWNLOAD_MILLIS));
        }
        let other = Simulation { seed: 43, ..simulation };
        assert!(items.iter().any(|item| simulation.fails_at(item) != other.fails_at(item)));
    }
}
