//! Why a worker gave no answer, as all processes of a statement say it.
//!
//! Between processes an error is its text: what one worker says of another comes back as that text, and is read here.
use std::error::Error;
use std::fmt;

use datafusion::error::DataFusionError;

use crate::client::StorageFault;

/// A worker that is not there, or does not do what it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerFailure {
    /// Its address.
    pub worker: String,
    /// What is wrong with it.
    pub trouble: WorkerTrouble,
    /// Why.
    pub reason: String,
}

/// What is wrong with a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerTrouble {
    /// It does not answer any more: another worker may.
    Lost,
    /// It would refuse again.
    Refuses,
    /// The storage that it reads gives it no answer, or is busy.
    Starves,
}

const NOUN: &str = "worker ";

impl WorkerTrouble {
    const ALL: [Self; 3] = [Self::Lost, Self::Refuses, Self::Starves];

    fn verb(self) -> &'static str {
        match self {
            Self::Lost => " is lost: ",
            Self::Refuses => " refuses: ",
            Self::Starves => " lacks its storage: ",
        }
    }
}

/// How what the layers below put before a message ends.
const LAYER: &str = "rror: ";

impl WorkerFailure {
    /// It does not answer any more.
    pub(super) fn lost(worker: &str, reason: impl Into<String>) -> Self {
        Self { worker: worker.to_owned(), trouble: WorkerTrouble::Lost, reason: reason.into() }
    }

    /// It would refuse again.
    pub(super) fn refused(worker: &str, reason: impl Into<String>) -> Self {
        Self { worker: worker.to_owned(), trouble: WorkerTrouble::Refuses, reason: reason.into() }
    }

    /// Its storage is away, if that is what an error's text says.
    pub(super) fn starved(worker: &str, text: &str) -> Option<Self> {
        let fault = StorageFault::told(text).filter(|fault| fault.is_passing())?;
        let start = text.find(fault.remedy()).and_then(|remedy| text[..remedy].rfind(LAYER));
        let reason = start.map_or(text, |start| &text[start + LAYER.len()..]).to_owned();
        Some(Self { worker: worker.to_owned(), trouble: WorkerTrouble::Starves, reason })
    }

    /// The failure that an error is of, wherever it was met.
    pub(in crate::query) fn of(error: &DataFusionError) -> Option<Self> {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(this) = cause {
            if let Some(failure) = this.downcast_ref::<Self>() {
                return Some(failure.clone());
            }
            cause = this.source();
        }
        Self::parse(&error.to_string())
    }

    fn parse(text: &str) -> Option<Self> {
        WorkerTrouble::ALL.into_iter().find_map(|trouble| {
            let (before, reason) = text.split_once(trouble.verb())?;
            let (_, worker) = before.rsplit_once(NOUN)?;
            let is_address = !worker.is_empty() && !worker.contains(char::is_whitespace);
            is_address.then(|| Self { worker: worker.to_owned(), trouble, reason: reason.to_owned() })
        })
    }
}

impl fmt::Display for WorkerFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{NOUN}{}{}{}", self.worker, self.trouble.verb(), self.reason)
    }
}

impl Error for WorkerFailure {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::error::external;

    #[test]
    fn a_failure_is_known_again_after_it_travelled_as_text() {
        for failure in [
            WorkerFailure::lost("127.0.0.1:5001", "connection refused"),
            WorkerFailure::refused("[::1]:5001", "the token is wrong"),
            WorkerFailure::starved("[::1]:5001", StorageFault::Busy.remedy()).unwrap(),
        ] {
            let near = external(failure.clone());
            assert_eq!(WorkerFailure::of(&near), Some(failure.clone()));
            let far = DataFusionError::Execution(format!("stage 2: {failure}"));
            assert_eq!(WorkerFailure::of(&far), Some(failure));
        }
        assert_eq!(WorkerFailure::of(&DataFusionError::Execution("all is lost: all".into())), None);
    }

    #[test]
    fn a_worker_whose_storage_is_away_says_so_without_the_layers_between() {
        let said = format!("read s3://logs/a/b.parquet: {}", StorageFault::Unreachable.remedy());
        let text = format!("Object Store error: Generic query error: {said}");
        let failure = WorkerFailure::starved("127.0.0.1:5001", &text).unwrap();
        assert_eq!(failure.to_string(), format!("worker 127.0.0.1:5001 lacks its storage: {said}"));
        for text in ["Execution error: divide by zero", StorageFault::Denied.remedy()] {
            assert_eq!(WorkerFailure::starved("127.0.0.1:5001", text), None);
        }
    }
}
