//! What is known of a file before it is here, and holding it against that. Blocks.
use std::time::SystemTime;

use super::cache::Part;
use super::item::hex;
use super::{DownloadError, FileItem};

/// Length, hash and time.
pub(super) struct Known {
    size: Option<u64>,
    sha256: Option<[u8; 32]>,
    modified: Option<SystemTime>,
}

impl Known {
    /// By the manifest and by what the server says of its last change.
    pub(super) fn of(item: &FileItem, modified: Option<SystemTime>) -> Self {
        Self { size: item.size, sha256: item.sha256, modified }
    }

    /// Holds the whole against it, and gives it its name.
    pub(super) fn finish(self, mut part: Part) -> Result<(u64, Option<String>), DownloadError> {
        let (size, etag) = (part.len, part.validators.etag.clone());
        if let Some(expected) = self.size.filter(|expected| *expected != size) {
            part.discard()?;
            return Err(DownloadError::Size { expected, received: size });
        }
        if let Some(expected) = self.sha256 {
            let received = part.sha256()?;
            if received != expected {
                part.discard()?;
                let (expected, received) = (hex(&expected), hex(&received));
                return Err(DownloadError::Checksum { expected, received });
            }
        }
        part.finish(self.modified)?;
        Ok((size, etag))
    }
}
