//! Names of tasks and the functions behind them.
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::spec::TaskSpec;
use super::{NewTask, Parameters, TaskContext, TaskError};

/// Why a function did not return a result. `?` makes one of any error, with its causes; it is tried again.
#[derive(Debug)]
pub enum TaskFailure {
    /// Another attempt may go well.
    Failed(String),
    /// Another attempt would fail too.
    Permanent(String),
    /// Steps are to run first; returned by the context, handed on by `?`.
    Waiting,
}

impl TaskFailure {
    /// One that another attempt would not mend.
    pub fn permanent(error: impl fmt::Display) -> Self {
        Self::Permanent(error.to_string())
    }
}

impl<E: std::error::Error> From<E> for TaskFailure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let said = inner.to_string();
            if !text.contains(&said) {
                text = format!("{text}: {said}");
            }
            cause = inner.source();
        }
        Self::Failed(text)
    }
}

/// What a function returns.
pub(super) type Outcome = Result<Json, TaskFailure>;
type Function = Arc<dyn Fn(TaskContext, Parameters) -> BoxFuture<'static, Outcome> + Send + Sync>;
type Check = Arc<dyn Fn(&Parameters) -> Result<(), String> + Send + Sync>;

/// A name with what it takes and what it does.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) spec: TaskSpec,
    pub(super) function: Function,
    check: Check,
}

/// Maps names to functions; cheap to clone.
#[derive(Clone, Default)]
pub struct Registry {
    entries: Arc<BTreeMap<String, Entry>>,
    /// Log types of the site, for the jobs of this program.
    log_types: Option<Arc<Path>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.entries.keys()).finish()
    }
}

impl Registry {
    /// Knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, where jobs of this program read lines with the log types of this folder too.
    #[must_use]
    pub fn with_log_types(self, folder: Option<&Path>) -> Self {
        Self { log_types: folder.map(Arc::from), ..self }
    }

    pub(super) fn log_types(&self) -> Option<&Path> {
        self.log_types.as_deref()
    }

    /// The same with one more task. Its parameters are those that `P` is made of; what is not is refused when the
    /// task is submitted.
    #[must_use]
    pub fn with<P, R, F, Fut>(self, name: &str, function: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        F: Fn(TaskContext, P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, TaskFailure>> + Send + 'static,
    {
        self.with_spec(TaskSpec::new(name), function)
    }

    /// The same, with what people are told about it, declared parameters, attempts and a time limit.
    #[must_use]
    pub fn with_spec<P, R, F, Fut>(mut self, spec: TaskSpec, function: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        F: Fn(TaskContext, P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, TaskFailure>> + Send + 'static,
    {
        let call = move |context: TaskContext, parameters: Parameters| {
            let called = typed::<P>(&parameters).map(|typed| function(context, typed));
            async move {
                let returned = called.map_err(TaskFailure::Permanent)?.await?;
                serde_json::to_value(returned).map_err(TaskFailure::permanent)
            }
            .boxed()
        };
        let check: Check = Arc::new(|parameters| typed::<P>(parameters).map(drop));
        let entry = Entry { spec, function: Arc::new(call), check };
        Arc::make_mut(&mut self.entries).insert(entry.spec.name.clone(), entry);
        self
    }

    /// What is known of every task, by name.
    pub fn specs(&self) -> impl Iterator<Item = &TaskSpec> {
        self.entries.values().map(|entry| &entry.spec)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// The task with checked parameters, and with what its spec says of attempts and time.
    pub fn check(&self, mut new: NewTask) -> Result<NewTask, TaskError> {
        let entry = self.entries.get(&new.name).ok_or_else(|| self.unknown(&new.name))?;
        let fail = |reason| TaskError::Parameters { name: new.name.clone(), reason };
        let parameters = entry.spec.check(&new.parameters).map_err(fail)?;
        (entry.check)(&parameters).map_err(fail)?;
        new.parameters = parameters;
        new.max_attempts = entry.spec.max_attempts;
        new.backoff = entry.spec.backoff;
        new.timeout = new.timeout.or(entry.spec.timeout);
        Ok(new)
    }

    fn unknown(&self, name: &str) -> TaskError {
        let mut near: Vec<_> = self
            .entries
            .keys()
            .map(|known| (distance(name, known), known))
            .filter(|(d, _)| *d <= 1 + name.len() / 4)
            .collect();
        near.sort();
        let contained = self.entries.keys().filter(|known| known.contains(name) && !name.is_empty());
        let mut names: Vec<String> = near.into_iter().map(|(_, known)| known.clone()).collect();
        names.extend(contained.cloned());
        names.dedup();
        names.truncate(3);
        TaskError::Unknown { name: name.to_owned(), near: names }
    }
}

fn typed<P: DeserializeOwned>(parameters: &Parameters) -> Result<P, String> {
    serde_json::from_value(Json::Object(parameters.clone())).map_err(|error| error.to_string())
}

/// Letters to insert, remove or change to make one word the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, of_other) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *of_other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered() {
        for (one, other, expected) in [("", "abc", 3), ("ping", "ping", 0), ("pnig", "ping", 2)] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
        let registry =
            Registry::new().with("verify", |_, _: Parameters| async { Ok::<_, TaskFailure>(Json::Null) });
        let error = registry.check(NewTask::new("verfy")).unwrap_err().to_string();
        assert!(error.contains("no task named verfy (near: verify)"), "{error}");
    }
}
