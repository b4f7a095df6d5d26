//! Who may use the places of an item: one task of one process at a time, by a locked byte of one file in the folder.
//!
//! Invariant: what is locked is the file that is at the path. It is one for all items and stays: a file system may take
//! long to make files where others were just removed.
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// The locks of a folder.
#[derive(Debug)]
pub(super) struct Locks {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: Arc<File>,
    /// By this process, to which the system gives a byte as often as it asks.
    held: HashSet<i64>,
}

impl Locks {
    pub(super) fn try_open(path: PathBuf) -> io::Result<Self> {
        let state = State { file: Arc::new(open(&path, OWN)?), held: HashSet::new() };
        Ok(Self { path, state: Mutex::new(state) })
    }

    /// `None` where another holds the lock of this key.
    pub(super) fn try_take(self: &Arc<Self>, key: &str) -> io::Result<Option<SlotLock>> {
        let place = place(key);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.held.contains(&place) {
            return Ok(None);
        }
        loop {
            let locked = match set(&state.file, libc::F_WRLCK, place) {
                Ok(()) => true,
                Err(Errno::EAGAIN | Errno::EACCES) => false,
                Err(error) => return Err(error.into()),
            };
            match is_at(&state.file, &self.path) {
                true if locked => break,
                true => return Ok(None),
                // somebody cleared the folder, and others lock another file
                false => state.file = Arc::new(open(&self.path, OWN)?),
            }
        }
        state.held.insert(place);
        Ok(Some(SlotLock { locks: Arc::clone(self), file: Arc::clone(&state.file), place }))
    }
}

/// A lock; let go when dropped.
#[derive(Debug)]
pub(super) struct SlotLock {
    locks: Arc<Locks>,
    file: Arc<File>,
    place: i64,
}

impl SlotLock {
    /// Whether others still see it: somebody may clear the folder.
    pub(super) fn is_seen(&self) -> bool {
        is_at(&self.file, &self.locks.path)
    }
}

impl Drop for SlotLock {
    fn drop(&mut self) {
        let mut state = self.locks.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = set(&self.file, libc::F_UNLCK, self.place) {
            tracing::warn!("{}: a lock stays until this program ends: {error}", self.locks.path.display());
        }
        state.held.remove(&self.place);
    }
}

/// Where in the file a key, of hexadecimal digits, is locked. Two that meet there wait for one another.
fn place(key: &str) -> i64 {
    let digits = key.chars().take(15).filter_map(|digit| digit.to_digit(16));
    digits.fold(0, |place, digit| place << 4 | i64::from(digit))
}

/// Of the open file, not of the process: threads and other openings exclude each other too.
fn set(file: &File, kind: i32, place: i64) -> Result<(), Errno> {
    let range = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: place,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&range)).map(|_| ())
}

/// Whoever can open a file can lock it.
const OWN: u32 = 0o600;
/// As the user's umask says: it may be kept elsewhere.
const USUAL: u32 = 0o666;

/// Opens or makes a file, never what a link in the folder leads to.
fn open(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(mode);
    options.custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Opens or makes a file, for this holder alone; `None` where another has it.
pub(super) fn open_locked(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = open(path, USUAL)?;
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
    fn one_holds_a_key_and_others_hold_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks");
        let [one, other] = [(); 2].map(|()| Arc::new(Locks::try_open(path.clone()).unwrap()));
        let held = one.try_take("0a").unwrap().unwrap();
        let beside = other.try_take("0b").unwrap().unwrap();
        for locks in [&one, &other] {
            assert!(locks.try_take("0a").unwrap().is_none());
            assert!(locks.try_take("0b").unwrap().is_none());
        }
        drop(held);
        let held = other.try_take("0a").unwrap().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!held.is_seen() && !beside.is_seen());
        let next = one.try_take("0a").unwrap().unwrap();
        assert!(next.is_seen());
        assert!(other.try_take("0a").unwrap().is_none(), "within a process a cleared folder changes nothing");
        drop(held);
        assert!(other.try_take("0a").unwrap().is_none(), "what is another's is not let go");
    }
}
