//! What comes with the program: `decompress` and `checksum` before, `report` and `keep` after the work.
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::Value;

use super::stages::{FetchedFile, ItemReport, PostProcessor, PreProcessor, StageError, Status};
use crate::download::{self, UnpackLimits, safe_name};

/// Where lines go, shared by whoever writes some.
pub type SharedWriter = Arc<Mutex<dyn Write + Send>>;

/// Undoes gzip, zstd, zip and tar.gz; what is none of them stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Decompress {
    /// So that a bomb is an error.
    pub limits: UnpackLimits,
}

#[async_trait]
impl PreProcessor for Decompress {
    async fn pre_process(&mut self, file: &mut FetchedFile) -> Result<(), StageError> {
        let (path, into, limits) = (file.path.clone(), file.folder().to_owned(), self.limits);
        let name = file.item.file_name();
        let unpacked = blocking(move || Ok(download::unpack(&path, &name, &into, limits)?)).await?;
        if let Some(files) = unpacked {
            file.item.fields.insert("unpacked_files".to_owned(), files.len().into());
            file.files = files;
        }
        Ok(())
    }
}

/// Adds the field `sha256` to the item. That the manifest's is the file's, the download has made sure of already.
#[derive(Debug, Clone, Copy, Default)]
pub struct Checksum;

#[async_trait]
impl PreProcessor for Checksum {
    async fn pre_process(&mut self, file: &mut FetchedFile) -> Result<(), StageError> {
        let path = file.path.clone();
        let sha256 = blocking(move || Ok(download::sha256_of(&path)?)).await?;
        if let Some(expected) = file.item.sha256_text().filter(|expected| *expected != sha256) {
            return Err(StageError::new(format!("sha256 {sha256} instead of {expected}; fetch it again")));
        }
        file.item.fields.insert("sha256".to_owned(), sha256.into());
        Ok(())
    }
}

/// Writes what became of each item as a line of JSON.
#[derive(Clone)]
pub struct ReportLines {
    out: SharedWriter,
    /// Nobody reads them any more, which is no item's fault.
    unread: bool,
}

impl ReportLines {
    /// Writes to `out`.
    pub fn new(out: SharedWriter) -> Self {
        Self { out, unread: false }
    }
}

#[async_trait]
impl PostProcessor for ReportLines {
    async fn post_process(
        &mut self,
        report: &mut ItemReport,
        _file: Option<&FetchedFile>,
    ) -> Result<(), StageError> {
        if self.unread {
            return Ok(());
        }
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        match out.write_all(&line).and_then(|()| out.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                tracing::warn!("nobody reads the report any more; the items go on");
                self.unread = true;
                Ok(())
            }
            written => written.map_err(|error| {
                StageError::new(format!("the report cannot be written: {error}; check its disk"))
            }),
        }
    }
}

/// Keeps the files of items that went well in a folder.
#[derive(Debug, Clone)]
pub struct Keep {
    folder: PathBuf,
    /// Whether it has names that a power cut may take back.
    is_unsynced: bool,
}

impl Keep {
    /// In this folder, which is made when there is something to keep.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), is_unsynced: false }
    }

    fn failed(&self, error: &StageError) -> StageError {
        StageError::new(format!(
            "{}: the file cannot be kept: {error}; check the folder",
            self.folder.display()
        ))
    }
}

#[async_trait]
impl PostProcessor for Keep {
    async fn post_process(
        &mut self,
        report: &mut ItemReport,
        file: Option<&FetchedFile>,
    ) -> Result<(), StageError> {
        let Some(file) = file.filter(|_| report.status == Status::Done) else { return Ok(()) };
        let (folder, key, files) = (self.folder.clone(), file.item.key(), file.files.clone());
        let is_itself = files == [file.path.clone()];
        let name = file.item.file_name();
        let kept = blocking(move || {
            std::fs::create_dir_all(&folder)?;
            let mut kept = Vec::new();
            for path in &files {
                let name = match is_itself {
                    true => name.clone(),
                    false => safe_name(&path.file_name().unwrap_or_default().to_string_lossy()),
                };
                kept.push(Value::from(keep(path, &folder, &name, &key)?.display().to_string()));
            }
            Ok(kept)
        })
        .await
        .map_err(|error| self.failed(&error))?;
        self.is_unsynced = true;
        report.fields.insert("kept".to_owned(), kept.into());
        Ok(())
    }

    /// Syncs the folder, which costs as much for one name as for many.
    async fn flush(&mut self) -> Result<(), StageError> {
        if self.is_unsynced {
            let folder = self.folder.clone();
            let synced = blocking(move || Ok(std::fs::File::open(&folder)?.sync_all()?)).await;
            synced.map_err(|error| self.failed(&error))?;
            self.is_unsynced = false;
        }
        Ok(())
    }
}

/// Under its name, or with the key in it where another file has that name. The file stays where it was too, until its
/// end is kept: a kill in between costs nothing.
fn keep(path: &Path, folder: &Path, name: &str, key: &str) -> Result<PathBuf, StageError> {
    let (plain, keyed) = (folder.join(name), folder.join(format!("{key}-{name}")));
    let to = match std::fs::symlink_metadata(&plain) {
        Ok(_) if !is_same(path, &plain)? => keyed,
        _ => plain,
    };
    let staged = folder.join(format!(".{key}-{name}.part"));
    match std::fs::remove_file(&staged) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    // the cache may be on another disk
    let is_synced = path.parent().is_some_and(|of| !of.ends_with(format!("{key}.unpacked")));
    let is_linked = std::fs::hard_link(path, &staged).is_ok();
    if !is_linked {
        std::fs::copy(path, &staged)?;
    }
    // what was downloaded is on disk already, what was unpacked or copied is not
    if !(is_linked && is_synced) {
        std::fs::File::open(&staged)?.sync_all()?;
    }
    std::fs::rename(&staged, &to)?;
    // renaming one link of a file to another does nothing
    let _unless_renamed = std::fs::remove_file(&staged);
    Ok(to)
}

fn is_same(one: &Path, other: &Path) -> Result<bool, StageError> {
    let (of_one, of_other) = (std::fs::metadata(one)?, std::fs::symlink_metadata(other)?);
    let may_be = of_other.is_file() && of_one.len() == of_other.len();
    Ok(may_be && download::sha256_of(one)? == download::sha256_of(other)?)
}

/// Runs what blocks off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StageError> + Send + 'static,
) -> Result<T, StageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
        Err(_cancelled) => Err(StageError::new("the program is ending")),
    }
}
