//! Why a worker gave no answer, as all processes of a statement say it.
//!
//! Between processes an error is its text: what one worker says of another comes back as that text, and is read here.
use std::error::Error;
use std::fmt;

use datafusion::error::DataFusionError;

/// A worker that is not there, or does not do what it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerFailure {
    /// Its address.
    pub worker: String,
    /// Whether another worker may do better.
    pub is_lost: bool,
    /// Why.
    pub reason: String,
}

const NOUN: &str = "worker ";
const LOST: &str = " is lost: ";
const REFUSES: &str = " refuses: ";

impl WorkerFailure {
    /// It does not answer any more.
    pub(super) fn lost(worker: &str, reason: impl Into<String>) -> Self {
        Self { worker: worker.to_owned(), is_lost: true, reason: reason.into() }
    }

    /// It would refuse again.
    pub(super) fn refused(worker: &str, reason: impl Into<String>) -> Self {
        Self { worker: worker.to_owned(), is_lost: false, reason: reason.into() }
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
        [(LOST, true), (REFUSES, false)].into_iter().find_map(|(verb, is_lost)| {
            let (before, reason) = text.split_once(verb)?;
            let (_, worker) = before.rsplit_once(NOUN)?;
            let is_address = !worker.is_empty() && !worker.contains(char::is_whitespace);
            is_address.then(|| Self { worker: worker.to_owned(), is_lost, reason: reason.to_owned() })
        })
    }
}

impl fmt::Display for WorkerFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.is_lost { LOST } else { REFUSES };
        write!(out, "{NOUN}{}{verb}{}", self.worker, self.reason)
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
        ] {
            let near = external(failure.clone());
            assert_eq!(WorkerFailure::of(&near), Some(failure.clone()));
            let far = DataFusionError::Execution(format!("stage 2: {failure}"));
            assert_eq!(WorkerFailure::of(&far), Some(failure));
        }
        assert_eq!(WorkerFailure::of(&DataFusionError::Execution("all is lost: all".into())), None);
    }
}
