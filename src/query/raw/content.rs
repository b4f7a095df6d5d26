//! Where raw bytes are: a file of this machine, or an object of a store.
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::Source;
use crate::source::{self, CutOptions, Encoding, Object, Place, ReadAt, SourceError};

/// A file of raw lines and the source that it is.
#[derive(Debug, Clone)]
pub(in crate::query) struct RawFile {
    pub(super) source: Arc<Source>,
    /// Bytes as stored.
    pub(super) size_bytes: u64,
    pub(super) encoding: Encoding,
    pub(super) reference_time: i64,
    /// Ranges that another place gives.
    pub(super) committed: Vec<(u64, u64)>,
    pub(super) content: Content,
}

#[derive(Debug, Clone)]
pub(in crate::query) enum Content {
    /// By path, and the place on disk that it must still be.
    File(PathBuf, Place),
    Object(Object),
}

impl RawFile {
    /// Identity of its source.
    pub(in crate::query) fn source_id(&self) -> u64 {
        self.source.id
    }

    /// Whether it reads a byte range that begins at `first_byte`, beyond `end_byte`.
    pub(in crate::query) fn reads_beyond(&self, first_byte: u64, end_byte: u64) -> bool {
        let is_committed = self.committed.iter().any(|range| range.0 <= first_byte && first_byte < range.1);
        !is_committed && (self.encoding != Encoding::Plain || self.size_bytes > end_byte)
    }

    /// Opens it. Blocking.
    pub(super) fn open(&self) -> Result<Arc<dyn ReadAt>, SourceError> {
        match &self.content {
            Content::File(path, place) => {
                let file = source::open(path)?;
                let metadata = file.metadata();
                let path = || path.display().to_string();
                let metadata = metadata.map_err(|error| SourceError::io("read", &path(), error))?;
                match source::Stat::of(&metadata).place == *place {
                    true => Ok(file),
                    false => Err(SourceError::Replaced { path: path() }),
                }
            }
            Content::Object(object) => Ok(object.open(self.size_bytes)),
        }
    }

    /// The ranges that cores may read beside each other. Blocking.
    pub(super) fn ranges(&self, target_bytes: u64) -> Result<Vec<(u64, u64)>, SourceError> {
        // a compressed source's ranges are of its decompressed bytes
        let is_committed =
            self.encoding == Encoding::Plain && self.committed.first() == Some(&(0, self.size_bytes));
        if self.size_bytes == 0 || is_committed {
            return Ok(Vec::new());
        }
        if self.encoding != Encoding::Plain || !self.committed.is_empty() || self.size_bytes <= target_bytes {
            return Ok(vec![(0, self.size_bytes)]);
        }
        let ranges = source::split(&*self.open()?, self.size_bytes, CutOptions::default(), target_bytes);
        ranges.map_err(|error| SourceError::io("read", &self.source.path, error))
    }
}
