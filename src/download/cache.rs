//! Files on their way and files that wait to be processed, in one folder.
//!
//! ```text
//! KEY-name         all of it, on disk: it was synced before it got this name
//! KEY-name.part    the beginning of it; locked by the process that writes it
//! KEY-name.meta    what the server said of it, so that the rest can be asked for after a restart
//! KEY.unpacked     a folder for what stages make of it
//! .locks           a byte of it per key is locked by whoever uses any of these, from before the download until the
//!                  file is removed
//! ```
//! A file that comes in one go has no `.meta` unless it stays: making and removing one takes longer than the file.
//! Invariants: a part is continued only if it is known to be of the same content as the rest; one from before a restart
//! of the machine is not, for its bytes may never have reached the disk. Every call blocks.
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::item::hex;
use super::lock::{Locks, SlotLock, is_at, open_locked};
use super::{DownloadError, FileItem};

/// What tells one content of a URL from another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Validators {
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    /// Length of the whole.
    pub(super) total: Option<u64>,
}

impl Validators {
    /// What `If-Range` takes: a strong ETag, else the time of the last change.
    pub(super) fn if_range(&self) -> Option<&str> {
        let strong = self.etag.as_deref().filter(|etag| etag.starts_with('"'));
        strong.or(self.last_modified.as_deref())
    }

    /// Whether these are of another content than `known`. Several servers of one file may differ in its time.
    pub(super) fn is_other_than(&self, known: &Self) -> bool {
        match (&self.etag, &known.etag) {
            (Some(etag), Some(known)) if etag == known && etag.starts_with('"') => false,
            (Some(etag), known) if known.as_ref() != Some(etag) => true,
            _ => {
                self.last_modified.is_some()
                    && known.last_modified.is_some()
                    && self.last_modified != known.last_modified
            }
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    #[serde(flatten)]
    validators: Validators,
    /// Of the machine's run in which the part was written.
    boot: String,
}

impl Meta {
    /// Torn by a kill it is not understood, and the part starts anew.
    fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec(self)?)
    }
}

/// The folder.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    locks: Arc<Locks>,
    boot: String,
}

impl Cache {
    /// Opens or makes the folder, for this user alone. Refuses one that others can change.
    pub fn try_open(folder: &Path) -> Result<Self, DownloadError> {
        let failed = |operation| DownloadError::disk(folder, operation);
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(folder).map_err(failed("make the folder"))?;
        let metadata = fs::symlink_metadata(folder).map_err(failed("read the folder"))?;
        // what this process makes has its own owner
        let probe = folder.join(format!(".probe-{}", uuid::Uuid::now_v7()));
        let owner = File::create_new(&probe).and_then(|file| file.metadata()).map(|made| made.uid());
        fs::remove_file(&probe).map_err(failed("write to the folder"))?;
        let owner = owner.map_err(failed("write to the folder"))?;
        let is_sticky = metadata.mode() & 0o1000 != 0;
        if metadata.is_symlink() || metadata.uid() != owner || (metadata.mode() & 0o022 != 0 && !is_sticky) {
            return Err(DownloadError::Untrusted { path: folder.to_owned() });
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let locks = Locks::try_open(folder.join(".locks")).map_err(failed("open the locks"))?;
        Ok(Self { folder: folder.to_owned(), locks: Arc::new(locks), boot: boot.trim().to_owned() })
    }

    /// Where an item's file is, or will be.
    #[must_use]
    pub fn slot(&self, item: &FileItem) -> Slot {
        let key = item.key();
        let path = self.folder.join(format!("{key}-{}", item.file_name()));
        let beside = |suffix: &str| {
            let mut name = path.clone().into_os_string();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (part, meta) = (beside(".part"), beside(".meta"));
        let unpacked = self.folder.join(format!("{key}.unpacked"));
        let (locks, boot) = (Arc::clone(&self.locks), self.boot.clone());
        Slot { path, unpacked, part, meta, key, locks, held: None, boot }
    }
}

/// The places of one item.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The whole file.
    pub path: PathBuf,
    /// A folder for what is made of it.
    pub unpacked: PathBuf,
    part: PathBuf,
    meta: PathBuf,
    key: String,
    locks: Arc<Locks>,
    /// By all clones.
    held: Option<Arc<Held>>,
    boot: String,
}

#[derive(Debug)]
struct Held {
    lock: SlotLock,
    /// Of a file that came in one go: written only if the file stays.
    unwritten: Mutex<Option<(PathBuf, Meta)>>,
}

impl Held {
    fn set_unwritten(&self, meta: Option<(PathBuf, Meta)>) {
        *self.unwritten.lock().unwrap_or_else(PoisonError::into_inner) = meta;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let unwritten = self.unwritten.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((path, meta)) = unwritten
            && let Err(error) = meta.write(&path)
        {
            // without it the file is still used, but not revalidated
            tracing::warn!("{}: cannot be written: {error}", path.display());
        }
    }
}

/// What there is of a file.
#[derive(Debug)]
pub(super) enum Here {
    /// All of it, its length, and what the server said of it.
    Whole(u64, Validators),
    /// A part, perhaps an empty one.
    Part(Part),
}

impl Slot {
    /// For this holder and its clones alone; `None` where another run has it.
    pub(super) fn try_locked(mut self) -> Result<Option<Self>, DownloadError> {
        let failed = DownloadError::disk(&self.path, "lock it");
        let Some(lock) = self.locks.try_take(&self.key).map_err(failed)? else { return Ok(None) };
        self.held = Some(Arc::new(Held { lock, unwritten: Mutex::default() }));
        Ok(Some(self))
    }

    /// Removes all of it, unless another run uses it.
    pub fn remove(&self) -> io::Result<()> {
        let _lock = match &self.held {
            Some(_) => None,
            None if self.is_empty() => return Ok(()),
            None => match self.locks.try_take(&self.key)? {
                Some(lock) => Some(lock),
                None => return Ok(()),
            },
        };
        self.forget_unwritten();
        gone(fs::remove_dir_all(&self.unpacked))?;
        for path in [&self.part, &self.path, &self.meta] {
            gone(fs::remove_file(path))?;
        }
        Ok(())
    }

    fn forget_unwritten(&self) {
        if let Some(held) = &self.held {
            held.set_unwritten(None);
        }
    }

    fn is_empty(&self) -> bool {
        let places = [&self.path, &self.part, &self.meta, &self.unpacked];
        places.iter().all(|path| fs::symlink_metadata(path).is_err())
    }

    /// Removes a part that holds nothing and that nobody writes.
    pub(super) fn remove_if_empty(&self) -> io::Result<()> {
        if fs::symlink_metadata(&self.part).is_ok_and(|metadata| metadata.len() == 0)
            && let Some(held) = open_locked(&self.part)?
            && held.metadata()?.len() == 0
        {
            self.forget_unwritten();
            fs::remove_file(&self.part)?;
            if fs::symlink_metadata(&self.path).is_err() {
                gone(fs::remove_file(&self.meta))?;
            }
        }
        Ok(())
    }

    /// What there is of the file, of which this is known. A whole one that is another is removed.
    pub(super) fn look(&self, size: Option<u64>, sha256: Option<&[u8; 32]>) -> Result<Here, DownloadError> {
        if let Some((found, validators)) = self.complete()
            && size.is_none_or(|size| size == found)
            && sha256.map_or(Ok(true), |sha256| self.keeps_if(sha256))?
        {
            return Ok(Here::Whole(found, validators));
        }
        self.open_part().map(Here::Part)
    }

    /// Whether the whole file has this hash; if not it is removed.
    fn keeps_if(&self, sha256: &[u8; 32]) -> Result<bool, DownloadError> {
        let failed = |operation| DownloadError::disk(&self.path, operation);
        let found = File::open(&self.path).and_then(|mut file| hash(&mut file)).map_err(failed("read it"))?;
        if found == *sha256 {
            return Ok(true);
        }
        fs::remove_file(&self.path).map_err(failed("remove it"))?;
        Ok(false)
    }

    /// Removes the whole file, whose content is not the server's any more.
    pub(super) fn remove_whole(&self) -> Result<(), DownloadError> {
        fs::remove_file(&self.path).map_err(DownloadError::disk(&self.path, "remove it"))
    }

    /// What is known of the whole file, if it is here.
    fn complete(&self) -> Option<(u64, Validators)> {
        let metadata = fs::symlink_metadata(&self.path).ok().filter(fs::Metadata::is_file)?;
        let validators = self.read_meta().map(|meta| meta.validators).unwrap_or_default();
        validators.total.is_none_or(|total| total == metadata.len()).then_some((metadata.len(), validators))
    }

    /// Opens the part, for this process alone.
    pub(super) fn open_part(&self) -> Result<Part, DownloadError> {
        let failed = |operation| DownloadError::disk(&self.part, operation);
        let file = open_locked(&self.part).map_err(failed("open the part"))?;
        let file = file.ok_or_else(|| DownloadError::Locked { path: self.part.clone() })?;
        let len = file.metadata().map_err(failed("read the part"))?.len();
        let meta = self.read_meta().filter(|meta| !self.boot.is_empty() && meta.boot == self.boot);
        let (len, validators) = match meta {
            Some(meta) if meta.validators.total.is_none_or(|total| len <= total) => (len, meta.validators),
            _ => (0, Validators::default()),
        };
        Ok(Part { slot: self.clone(), file, len, validators })
    }

    fn read_meta(&self) -> Option<Meta> {
        serde_json::from_slice(&fs::read(&self.meta).ok()?).ok()
    }
}

/// A part that this process writes.
#[derive(Debug)]
pub(super) struct Part {
    slot: Slot,
    file: File,
    /// Bytes that can be relied on.
    pub(super) len: u64,
    pub(super) validators: Validators,
}

impl Part {
    /// Continues at `offset` with content that `validators` tell from any other. All of the rest may be `in_hand`.
    pub(super) fn continue_at(
        &mut self,
        offset: u64,
        validators: Validators,
        in_hand: bool,
    ) -> Result<(), DownloadError> {
        let failed = |operation| DownloadError::disk(&self.slot.part, operation);
        self.file.set_len(offset).map_err(failed("cut the part"))?;
        self.file.seek(SeekFrom::Start(offset)).map_err(failed("write to the part"))?;
        self.len = offset;
        if self.validators != validators || offset == 0 {
            let (path, meta) =
                (&self.slot.meta, Meta { validators: validators.clone(), boot: self.slot.boot.clone() });
            match &self.slot.held {
                Some(held) if in_hand && fs::symlink_metadata(path).is_err() => {
                    held.set_unwritten(Some((path.clone(), meta)));
                }
                _ => meta.write(path).map_err(DownloadError::disk(path, "write"))?,
            }
            self.validators = validators;
        }
        Ok(())
    }

    /// Appends what comes, until nothing more comes.
    pub(super) fn append(mut self, mut blocks: mpsc::Receiver<Bytes>) -> Result<Self, DownloadError> {
        while let Some(block) = blocks.blocking_recv() {
            let written = self.file.write_all(&block);
            written.map_err(DownloadError::disk(&self.slot.part, "write to the part"))?;
            self.len += block.len() as u64;
        }
        Ok(self)
    }

    /// The SHA-256 of all of it.
    pub(super) fn sha256(&mut self) -> Result<[u8; 32], DownloadError> {
        let failed = |operation| DownloadError::disk(&self.slot.part, operation);
        self.file.seek(SeekFrom::Start(0)).map_err(failed("read the part"))?;
        hash(&mut self.file).map_err(failed("read the part"))
    }

    /// Gives the whole file its name, once it is on disk. Its time is that of the server's last change.
    pub(super) fn finish(self, modified: Option<SystemTime>) -> Result<(), DownloadError> {
        let failed = |operation| DownloadError::disk(&self.slot.part, operation);
        if let Some(modified) = modified {
            self.file.set_modified(modified).map_err(failed("set the time of the part"))?;
        }
        self.file.sync_all().map_err(failed("sync the part"))?;
        // a name leads to whatever file has it by now
        let is_ours = is_at(&self.file, &self.slot.part);
        if !is_ours || self.slot.held.as_ref().is_some_and(|held| !held.lock.is_seen()) {
            self.slot.forget_unwritten();
            return Err(DownloadError::Locked { path: self.slot.part.clone() });
        }
        // the folder is not synced: a name that a power cut takes back is that of a part, which starts anew
        fs::rename(&self.slot.part, &self.slot.path).map_err(failed("rename the part"))
    }

    /// Starts from nothing the next time.
    pub(super) fn discard(self) -> Result<(), DownloadError> {
        let failed = |operation| DownloadError::disk(&self.slot.part, operation);
        self.file.set_len(0).map_err(failed("empty the part"))?;
        self.slot.forget_unwritten();
        gone(fs::remove_file(&self.slot.meta)).map_err(failed("forget the part"))
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn hash(file: &mut File) -> io::Result<[u8; 32]> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().into()),
            came => hash.update(&buffer[..came]),
        }
    }
}

/// The SHA-256 of a file.
pub fn sha256_of(path: &Path) -> io::Result<String> {
    Ok(hex(&hash(&mut File::open(path)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_continued_only_where_its_content_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::try_open(&folder.path().join("cache")).unwrap();
        let slot = cache.slot(&FileItem::try_new("http://h/../../a.log").unwrap());
        assert_eq!(slot.path.parent().unwrap(), folder.path().join("cache"));
        let known = Validators { etag: Some("\"1\"".to_owned()), total: Some(10), ..Validators::default() };
        let mut part = slot.open_part().unwrap();
        assert!(matches!(slot.open_part(), Err(DownloadError::Locked { .. })));
        part.continue_at(0, known.clone(), false).unwrap();
        part.file.write_all(b"12345").unwrap();
        drop(part);
        let part = slot.open_part().unwrap();
        assert_eq!((part.len, &part.validators), (5, &known));
        drop(part);
        let rebooted = Slot { boot: "another".to_owned(), ..slot.clone() };
        assert_eq!(rebooted.open_part().unwrap().len, 0);
        fs::write(&slot.meta, "{torn").unwrap();
        assert_eq!(slot.open_part().unwrap().len, 0);
        let mut part = slot.open_part().unwrap();
        part.continue_at(0, known, false).unwrap();
        slot.remove_if_empty().unwrap();
        assert!(slot.part.exists(), "an empty part that is written stays");
        fs::remove_file(&slot.part).unwrap();
        let others = slot.open_part().unwrap();
        assert!(matches!(part.finish(None), Err(DownloadError::Locked { .. })), "the name is another's");
        assert!(slot.part.exists() && !slot.path.exists());
        drop(others);
        let held = slot.clone().try_locked().unwrap().unwrap();
        assert!(slot.clone().try_locked().unwrap().is_none());
        slot.remove().unwrap();
        assert!(slot.part.exists(), "what another run uses is not removed");
        drop(held);
        slot.remove().unwrap();
        assert_eq!(names(&slot), [".locks"]);
    }

    fn names(slot: &Slot) -> Vec<String> {
        let entries = fs::read_dir(slot.path.parent().unwrap()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_the_server_said_is_written_where_a_file_in_one_go_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::try_open(&folder.path().join("cache")).unwrap();
        let item = FileItem::try_new("http://h/a.log").unwrap();
        let known = Validators { etag: Some("\"1\"".to_owned()), total: Some(5), ..Validators::default() };
        let name = format!("{}-a.log", item.key());
        for stays in [false, true] {
            let slot = cache.slot(&item).try_locked().unwrap().unwrap();
            let Here::Part(mut part) = slot.look(None, None).unwrap() else { panic!("nothing came yet") };
            part.continue_at(0, known.clone(), true).unwrap();
            part.file.write_all(b"12345").unwrap();
            part.finish(None).unwrap();
            assert_eq!(names(&slot), [".locks", name.as_str()]);
            if !stays {
                slot.remove().unwrap();
            }
        }
        let slot = cache.slot(&item).try_locked().unwrap().unwrap();
        assert_eq!(names(&slot), [".locks", name.as_str(), format!("{name}.meta").as_str()]);
        assert!(matches!(slot.look(Some(5), None).unwrap(), Here::Whole(5, found) if found == known));
        assert!(matches!(slot.look(Some(6), None).unwrap(), Here::Part(_)));
    }

    #[test]
    fn a_folder_that_others_can_change_and_a_link_are_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (open, link) = (folder.path().join("open"), folder.path().join("link"));
        fs::create_dir(&open).unwrap();
        std::os::unix::fs::symlink(&open, &link).unwrap();
        assert!(matches!(Cache::try_open(&link), Err(DownloadError::Untrusted { .. })));
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Cache::try_open(&open), Err(DownloadError::Untrusted { .. })));
    }
}
