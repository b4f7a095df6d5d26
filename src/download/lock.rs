//! Who may use the places of an item: one task of one process at a time, by a locked file beside them.
//!
//! Invariant: what is held is the file that is at the path. Who holds it removes it, so that none are left but by a kill.
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A lock; let go when dropped.
#[derive(Debug)]
pub(super) struct SlotLock {
    path: PathBuf,
    file: File,
}

impl SlotLock {
    /// `None` where another holds it.
    pub(super) fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let file = open_locked(path)?;
        Ok(file.map(|file| Self { path: path.to_owned(), file }))
    }

    /// Whether others still see it: somebody may clear the folder.
    pub(super) fn is_seen(&self) -> bool {
        is_at(&self.file, &self.path)
    }
}

impl Drop for SlotLock {
    fn drop(&mut self) {
        if self.is_seen() {
            // one that stays is taken over by the next run
            let _removed = fs::remove_file(&self.path);
        }
    }
}

/// Opens or makes a file, for this holder alone; `None` where another has it.
pub(super) fn open_locked(path: &Path) -> io::Result<Option<File>> {
    loop {
        let mut options = OpenOptions::new();
        // never what a link in the folder leads to
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // between the two, who held it may have removed or renamed it: then the next one to come would lock another
        if is_at(&file, path) {
            return Ok(Some(file));
        }
    }
}

/// Whether the open file is the one that is at this path.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_nothing_is_left_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.lock");
        let held = SlotLock::try_take(&path).unwrap().unwrap();
        assert!(SlotLock::try_take(&path).unwrap().is_none());
        fs::remove_file(&path).unwrap();
        assert!(!held.is_seen());
        let next = SlotLock::try_take(&path).unwrap().unwrap();
        drop(held);
        assert!(next.is_seen(), "what is another's is not removed");
        drop(next);
        assert!(!path.exists());
    }
}
