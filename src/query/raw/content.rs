//! Where raw bytes are: a file of this machine, or an object of a store.
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::client::{condensed, open_store, redacted};
use crate::lake::LakeError;
use crate::model::Source;
use crate::query::QueryError;
use crate::query::error::Lost;
use crate::source::{self, CutOptions, Encoding, Place, ReadAt, SourceError};

/// Bytes that one request to a store asks for.
const BLOCK_BYTES: u64 = 4 << 20;

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
    Object(Arc<dyn ObjectStore>, Path),
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
            Content::Object(store, path) => {
                Ok(Arc::new(Object::new(store, path, &self.source.path, self.size_bytes)))
            }
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

/// The objects that a URL stands for: one, those of a folder, or those that a glob matches; with `*.log`, `*.log.gz`
/// and `*.log.zst` in a folder, as on disk.
pub(in crate::query) async fn list_objects(location: &str) -> Result<Vec<RawFile>, QueryError> {
    let bad = |reason: String| QueryError::Sql(format!("raw:{}: {reason}", redacted(location)));
    let rest = location.split_once("://").map_or("", |(_, rest)| rest);
    let host_len = location.len() - rest.len() + rest.find('/').unwrap_or(rest.len());
    let (root, path) = location.split_at(host_len);
    let path = path.trim_start_matches('/');
    // what the glob begins in is listed; a store has no folders to walk
    let fixed = path.find(['*', '?', '[']).map_or(path, |at| &path[..at]);
    let folder = match path == fixed {
        true => path.trim_end_matches('/'),
        false => fixed.rsplit_once('/').map_or("", |(folder, _)| folder),
    };
    let (store, _) = open_store(&format!("{root}/"))?;
    let pattern = glob::Pattern::new(path).map_err(|error| bad(format!("it is not a glob: {error}")))?;
    let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
    let failed = |error| QueryError::Place(LakeError::storage("list", redacted(location))(error).into());
    let prefix = Path::from(folder);
    let is_log = |name: &str| {
        let plain = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name);
        plain.ends_with(".log") && !name.starts_with('.')
    };
    let is_wanted = |object: &Path| match path == fixed {
        true => match object.as_ref().strip_prefix(folder).unwrap_or_default().trim_start_matches('/') {
            "" => true,
            name => !name.contains('/') && is_log(name),
        },
        false => pattern.matches_with(object.as_ref(), options),
    };
    let mut objects = Vec::new();
    if let (true, Ok(object)) = (path == fixed && !folder.is_empty(), store.head(&prefix).await) {
        objects.push(object);
    } else {
        objects = store.list(Some(&prefix)).try_collect().await.map_err(failed)?;
        objects.retain(|object| is_wanted(&object.location));
    }
    if objects.is_empty() {
        return Err(bad("no object matches; check the bucket, the path and the pattern".to_owned()));
    }
    objects.sort_by(|one, other| one.location.cmp(&other.location));
    let listed = objects.into_iter().map(|object| {
        let path = format!("{root}/{}", object.location);
        let content: Arc<dyn ReadAt> = Arc::new(Object::new(&store, &object.location, &path, object.size));
        let store = Arc::clone(&store);
        move || -> Result<RawFile, SourceError> {
            let (encoding, head) = source::head(&path, &content)?;
            let source = Source {
                device: 0,
                inode: 0,
                generation: 0,
                head_len_bytes: head.len() as u32,
                head_hash: Source::hash_head(&head),
                id: Source::identity(&path, 0, 0, 0),
                path,
            };
            Ok(RawFile {
                source: Arc::new(source),
                size_bytes: object.size,
                encoding,
                reference_time: object.last_modified.timestamp_micros(),
                committed: Vec::new(),
                content: Content::Object(store, object.location),
            })
        }
    });
    let listed: Vec<_> = listed.collect();
    let files =
        tokio::task::spawn_blocking(|| listed.into_iter().map(|look| look()).collect::<Result<Vec<_>, _>>());
    Ok(files.await.map_err(|error| bad(error.to_string()))??)
}

/// An object, read in blocks from a thread that may wait.
struct Object {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// As messages name it.
    location: String,
    size_bytes: u64,
    runtime: Handle,
    /// The block that was read last, and where it begins.
    block: Mutex<(u64, Bytes)>,
}

impl Object {
    fn new(store: &Arc<dyn ObjectStore>, path: &Path, location: &str, size_bytes: u64) -> Self {
        let (block, location) = (Mutex::new((0, Bytes::new())), location.to_owned());
        let (store, path) = (Arc::clone(store), path.clone());
        Self { store, path, location, size_bytes, runtime: Handle::current(), block }
    }
}

impl ReadAt for Object {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        // a store refuses what begins behind the end
        if offset >= self.size_bytes {
            return Ok(0);
        }
        let mut block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        let is_within = |block: &(u64, Bytes)| (block.0..block.0 + block.1.len() as u64).contains(&offset);
        if !is_within(&block) {
            let range = offset..(offset + BLOCK_BYTES).min(self.size_bytes);
            let (store, path) = (Arc::clone(&self.store), self.path.clone());
            let (sender, came) = oneshot::channel();
            // to wait for the runtime itself is a panic once the program ends
            self.runtime.spawn(async move { sender.send(store.get_range(&path, range).await) });
            let came = came.blocking_recv().map_err(io::Error::other)?;
            let failed = |error| io::Error::other(Lost::or_storage(&self.location, condensed(error)));
            *block = (offset, came.map_err(failed)?);
        }
        if !is_within(&block) {
            return Ok(0);
        }
        let held = &block.1[(offset - block.0) as usize..];
        let len = held.len().min(buffer.len());
        buffer[..len].copy_from_slice(&held[..len]);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_url_stands_for_one_object_a_folder_or_what_a_glob_matches() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in
            [("a.log", "one\n"), ("b.log.gz", "x"), ("c.txt", ""), (".d.log", ""), ("deep/e.log", "")]
        {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = format!("file://{}", folder.path().canonicalize().unwrap().display());
        for (pattern, expected) in [
            ("", &["a.log", "b.log.gz"][..]),
            ("/", &["a.log", "b.log.gz"]),
            ("/*.log", &[".d.log", "a.log"]),
            ("/?.log", &["a.log"]),
            ("/**/*.log", &[".d.log", "a.log", "deep/e.log"]),
            ("/deep", &["deep/e.log"]),
            ("/c.txt", &["c.txt"]),
        ] {
            let files = list_objects(&format!("{root}{pattern}")).await.unwrap();
            let names: Vec<_> = files
                .iter()
                .map(|file| file.source.path.strip_prefix(&format!("{root}/")).unwrap())
                .collect();
            assert_eq!(names, expected, "{pattern}");
        }
        for pattern in ["/nothing", "/*.zip"] {
            let error = list_objects(&format!("{root}{pattern}")).await.unwrap_err().to_string();
            assert!(error.contains(pattern) && error.contains("no object matches"), "{error}");
        }
        let files = list_objects(&format!("{root}/a.log")).await.unwrap();
        let read = move || {
            let mut buffer = [0; 8];
            let content = files[0].open().unwrap();
            (content.read_at(&mut buffer, 1).unwrap(), content.read_at(&mut buffer, 4).unwrap(), buffer)
        };
        let (came, behind, buffer) = tokio::task::spawn_blocking(read).await.unwrap();
        assert_eq!((came, behind, &buffer[..3]), (3, 0, &b"ne\n"[..]));
    }
}
