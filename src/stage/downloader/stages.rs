//! What may be done with a file once it is here: three traits, which a library's user implements and the registry names.
use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::client::with_causes;
use crate::download::{FileItem, Slot};

/// Why a stage did not take a file. One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageError(String);

impl StageError {
    /// Says what is wrong, in lower case, and what to do about it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for StageError {
    fn from(error: E) -> Self {
        Self(with_causes(&error))
    }
}

/// Where something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Reading the item's entry.
    Manifest,
    /// Getting the file.
    Download,
    /// [`PreProcessor`].
    PreProcess,
    /// [`Processor`].
    Process,
    /// [`PostProcessor`].
    PostProcess,
}

impl Stage {
    /// As errors and states name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Download => "download",
            Self::PreProcess => "pre_process",
            Self::Process => "process",
            Self::PostProcess => "post_process",
        }
    }
}

/// A file on its way through the stages.
#[derive(Debug)]
pub struct FetchedFile {
    /// What the manifest says, and what stages added to its `fields`.
    pub item: FileItem,
    /// The file as it was downloaded. It is removed once all stages took it.
    pub path: PathBuf,
    /// The files to process: the one downloaded, or those that were in it.
    pub files: Vec<PathBuf>,
    /// Bytes downloaded.
    pub size: u64,
    pub(super) slot: Slot,
}

impl FetchedFile {
    /// A folder for what a stage makes of the file; removed with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.slot.unpacked
    }
}

/// How an item ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Every stage took it.
    Done,
    /// A stage did not.
    Failed,
    /// It was done by an earlier run.
    Skipped,
    /// A request to stop came first.
    NotStarted,
}

impl Status {
    /// As reports write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::NotStarted => "not_started",
        }
    }
}

/// What became of one item; a line of a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ItemReport {
    /// As in the manifest.
    pub id: Value,
    /// As in the manifest.
    pub name: String,
    /// Without query and credentials.
    pub url: String,
    /// How it ended.
    pub status: Status,
    /// Where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Length of the file.
    pub bytes: u64,
    /// Attempts to download it; 0 where it was in the cache.
    pub attempts: u32,
    /// From the first attempt until here.
    pub seconds: f64,
    /// What the processor said.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub result: Value,
    /// The manifest's other fields, and what stages added.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

/// Runs before the processor: unpacks, checks, adds fields.
///
/// Each worker has an instance of its own. An error fails the item at stage `pre_process`; so does a panic.
///
/// ```
/// use async_trait::async_trait;
/// use pipeline::stage::downloader::{FetchedFile, PreProcessor, StageError};
///
/// struct RefuseEmpty;
///
/// #[async_trait]
/// impl PreProcessor for RefuseEmpty {
///     async fn pre_process(&mut self, file: &mut FetchedFile) -> Result<(), StageError> {
///         if file.size == 0 {
///             return Err(StageError::new("the file is empty; ask its owner"));
///         }
///         file.item.fields.insert("checked".to_owned(), true.into());
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait PreProcessor: Send {
    /// Takes one file.
    async fn pre_process(&mut self, file: &mut FetchedFile) -> Result<(), StageError>;
}

/// Does the work.
///
/// Each worker has an instance of its own. An item is processed again where the run was killed before its state was
/// kept, so what has effects elsewhere must bear that; `ingest` does.
///
/// ```
/// use async_trait::async_trait;
/// use pipeline::stage::downloader::{FetchedFile, Processor, StageError};
/// use serde_json::{Value, json};
///
/// struct CountLines;
///
/// #[async_trait]
/// impl Processor for CountLines {
///     async fn process(&mut self, file: &mut FetchedFile) -> Result<Value, StageError> {
///         let text = std::fs::read_to_string(&file.path)?;
///         Ok(json!({ "lines": text.lines().count() }))
///     }
/// }
/// ```
#[async_trait]
pub trait Processor: Send {
    /// Takes one file; what is returned becomes the `result` of its report.
    async fn process(&mut self, file: &mut FetchedFile) -> Result<Value, StageError>;
}

/// Sees every item at its end, failed ones too.
///
/// There is one instance, which sees one item after the other. An error fails an item that was well until here.
///
/// ```
/// use async_trait::async_trait;
/// use pipeline::stage::downloader::{FetchedFile, ItemReport, PostProcessor, StageError, Status};
///
/// struct Complain;
///
/// #[async_trait]
/// impl PostProcessor for Complain {
///     async fn post_process(
///         &mut self,
///         report: &mut ItemReport,
///         _file: Option<&FetchedFile>,
///     ) -> Result<(), StageError> {
///         if report.status == Status::Failed {
///             eprintln!("{}: {}", report.name, report.error.as_deref().unwrap_or_default());
///         }
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait PostProcessor: Send {
    /// Takes one item, with its file where there is one.
    async fn post_process(
        &mut self,
        report: &mut ItemReport,
        file: Option<&FetchedFile>,
    ) -> Result<(), StageError>;

    /// Comes behind some items and before their ends are kept: what must be on disk by then can be put there at once.
    /// An error fails those of them that were well until here.
    async fn flush(&mut self) -> Result<(), StageError> {
        Ok(())
    }
}

/// Takes every file, and does nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

#[async_trait]
impl PreProcessor for Nothing {
    async fn pre_process(&mut self, _file: &mut FetchedFile) -> Result<(), StageError> {
        Ok(())
    }
}

#[async_trait]
impl Processor for Nothing {
    async fn process(&mut self, _file: &mut FetchedFile) -> Result<Value, StageError> {
        Ok(Value::Null)
    }
}

#[async_trait]
impl PostProcessor for Nothing {
    async fn post_process(
        &mut self,
        _report: &mut ItemReport,
        _file: Option<&FetchedFile>,
    ) -> Result<(), StageError> {
        Ok(())
    }
}
