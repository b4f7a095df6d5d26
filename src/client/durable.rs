//! A local folder as an object store whose writes are atomic and survive a power cut.
//!
//! A put is acknowledged once the object's bytes, its name and the names of its new folders are fsynced; a
//! reader sees all of an object or nothing. `PutMode::Create` is exclusive between processes (hard link).
//! `object_store`'s own `LocalFileSystem`, which reads and lists here, does neither.
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Attributes, CopyMode, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result, UploadPart,
};

/// Name prefix of an object that is being written. One that is left behind by a dead process is garbage.
pub const STAGED_PREFIX: &str = "_staged_";

/// Reads of up to this size are done by the thread that asks.
const READ_AT_ONCE_BYTES: u64 = 1 << 20;

/// See the module.
#[derive(Debug, Clone)]
pub struct DurableStore {
    root: Arc<PathBuf>,
    // opened on first use: the folder may not exist yet
    inner: Arc<OnceLock<LocalFileSystem>>,
}

impl DurableStore {
    /// The store rooted at `root`, which is created by the first put.
    pub fn new(root: PathBuf) -> Self {
        Self { root: Arc::new(root), inner: Arc::new(OnceLock::new()) }
    }

    fn inner(&self) -> Result<&LocalFileSystem> {
        if let Some(inner) = self.inner.get() {
            return Ok(inner);
        }
        let cannot_open = |cause| generic(&self.root, cause);
        self.root.metadata().map_err(cannot_open)?;
        let inner = LocalFileSystem::new_with_prefix(self.root.as_path())?;
        Ok(self.inner.get_or_init(|| inner))
    }

    /// The file of an object, if so few bytes are wanted of it that they are read here and now: a hand-over to a
    /// thread that may block costs more than they do. What cannot be read so is for `LocalFileSystem` to name.
    fn open_for(&self, location: &Path, len_bytes: u64) -> Option<File> {
        let path =
            (len_bytes <= READ_AT_ONCE_BYTES).then(|| self.inner().ok())??.path_to_filesystem(location);
        File::open(path.ok()?).ok()
    }

    async fn put(&self, location: &Path, payload: PutPayload, mode: PutMode) -> Result<PutResult> {
        let path = self.root.join(location.as_ref());
        let exclusive = match mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "conditional update".into(),
                    implementer: self.to_string(),
                });
            }
        };
        tokio::task::spawn_blocking(move || {
            put_durably(&path, &payload, exclusive).map_err(|cause| generic(&path, cause))
        })
        .await??;
        Ok(PutResult { e_tag: None, version: None })
    }
}

/// No condition on the object and no other version of it.
fn is_only_range(options: &GetOptions) -> bool {
    !options.head
        && options.version.is_none()
        && (&options.if_match, &options.if_none_match) == (&None, &None)
        && (options.if_modified_since, options.if_unmodified_since) == (None, None)
}

/// The bytes of a range that lies within the file.
fn read_at(file: &File, range: &Range<u64>) -> Option<Bytes> {
    let mut bytes = vec![0; usize::try_from(range.end.checked_sub(range.start)?).ok()?];
    file.read_exact_at(&mut bytes, range.start).ok()?;
    Some(bytes.into())
}

fn put_durably(path: &FsPath, payload: &PutPayload, exclusive: bool) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    create_folder_durably(folder)?;
    let staged = staged_in(folder);
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).open(&staged)?;
        payload.iter().try_for_each(|bytes| file.write_all(bytes))?;
        file.sync_all()?;
        if exclusive { fs::hard_link(&staged, path) } else { fs::rename(&staged, path) }
    })();
    if exclusive || written.is_err() {
        let _swept_up_later = fs::remove_file(&staged);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn staged_in(folder: &FsPath) -> PathBuf {
    folder.join(format!("{STAGED_PREFIX}{}", uuid::Uuid::new_v4().simple()))
}

fn create_folder_durably(folder: &FsPath) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().ok_or(io::ErrorKind::InvalidInput)?;
    create_folder_durably(parent)?;
    match fs::create_dir(folder) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => return Err(cause),
        _ => {}
    }
    File::open(parent)?.sync_all()
}

fn generic(path: &FsPath, cause: io::Error) -> Error {
    let path = path.display().to_string();
    match cause.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path, source: cause.into() },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: cause.into() },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: cause.into() },
        _ => Error::Generic { store: "local", source: cause.into() },
    }
}

impl fmt::Display for DurableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableStore({})", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.put(location, payload, opts.mode).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let path = self.root.join(location.as_ref());
        let upload = tokio::task::spawn_blocking(move || {
            StagedUpload::try_new(path.clone()).map_err(|cause| generic(&path, cause))
        });
        Ok(Box::new(upload.await??))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some(GetRange::Bounded(range)) = &options.range
            && is_only_range(&options)
            && let Some(file) = self.open_for(location, range.end - range.start)
            && let Some(bytes) = read_at(&file, range)
            && let Ok(metadata) = file.metadata()
            && let Ok(modified) = metadata.modified()
        {
            return Ok(GetResult {
                range: range.clone(),
                payload: GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed()),
                meta: ObjectMeta {
                    location: location.clone(),
                    last_modified: modified.into(),
                    size: metadata.len(),
                    e_tag: None,
                    version: None,
                },
                attributes: Attributes::default(),
            });
        }
        self.inner()?.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if let Some(file) = self.open_for(location, ranges.iter().map(|range| range.end - range.start).sum())
            && let Some(read) = ranges.iter().map(|range| read_at(&file, range)).collect()
        {
            return Ok(read);
        }
        self.inner()?.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.inner() {
            Ok(inner) => inner.delete_stream(locations),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.inner() {
            Ok(inner) => in_name_order(inner.list(prefix)),
            Err(Error::NotFound { .. }) => stream::empty().boxed(),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.inner() {
            Ok(inner) => in_name_order(inner.list_with_offset(prefix, offset)),
            Err(Error::NotFound { .. }) => stream::empty().boxed(),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        match self.inner() {
            Ok(inner) => inner.list_with_delimiter(prefix).await,
            Err(Error::NotFound { .. }) => {
                Ok(ListResult { common_prefixes: Vec::new(), objects: Vec::new() })
            }
            Err(error) => Err(error),
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let bytes = self.get(from).await?.bytes().await?;
        let mode = match options.mode {
            CopyMode::Create => PutMode::Create,
            CopyMode::Overwrite => PutMode::Overwrite,
        };
        self.put(to, bytes.into(), mode).await.map(|_| ())
    }
}

/// Readers of the Delta log expect the order that cloud stores list in.
fn in_name_order(entries: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
    let sorted = entries.try_collect::<Vec<_>>().map_ok(|mut entries| {
        entries.sort_unstable_by(|a, b| a.location.cmp(&b.location));
        stream::iter(entries.into_iter().map(Ok))
    });
    sorted.try_flatten_stream().boxed()
}

/// Parts are written to their places in a staged file, which gets its name in `complete`. Dropped before, it stays as
/// garbage.
#[derive(Debug)]
struct StagedUpload {
    staged: PathBuf,
    path: PathBuf,
    file: Arc<File>,
    len_bytes: u64,
}

impl StagedUpload {
    fn try_new(path: PathBuf) -> io::Result<Self> {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        create_folder_durably(folder)?;
        let staged = staged_in(folder);
        let file = Arc::new(File::options().write(true).create_new(true).open(&staged)?);
        Ok(Self { staged, path, file, len_bytes: 0 })
    }
}

#[async_trait]
impl MultipartUpload for StagedUpload {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        let (file, path) = (Arc::clone(&self.file), self.path.clone());
        let mut offset = self.len_bytes;
        self.len_bytes += part.content_length() as u64;
        let write = move || {
            let written = part.iter().try_for_each(|bytes| {
                file.write_all_at(bytes, offset)?;
                offset += bytes.len() as u64;
                Ok(())
            });
            written.map_err(|cause| generic(&path, cause))
        };
        async { tokio::task::spawn_blocking(write).await? }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (file, staged, path) = (Arc::clone(&self.file), self.staged.clone(), self.path.clone());
        let complete = move || {
            file.sync_all()?;
            fs::rename(&staged, &path)?;
            File::open(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?.sync_all()
        };
        let completed = tokio::task::spawn_blocking(complete).await?;
        completed.map_err(|cause| generic(&self.path, cause))?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        fs::remove_file(&self.staged).map_err(|cause| generic(&self.staged, cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_many_exclusive_puts_to_one_name_exactly_one_wins() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableStore::new(folder.path().join("new/deep"));
        let name = Path::from("a/00.json");
        let puts = (0..16u8).map(|writer| {
            let (store, name) = (store.clone(), name.clone());
            tokio::spawn(async move {
                store.put_opts(&name, vec![writer; 1000].into(), PutMode::Create.into()).await
            })
        });
        let outcomes: Vec<_> =
            futures_util::future::join_all(puts).await.into_iter().map(|joined| joined.unwrap()).collect();
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(Error::AlreadyExists { .. }))));
        let winner = outcomes.iter().position(|outcome| outcome.is_ok()).unwrap();
        let bytes = store.get(&name).await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes, vec![winner as u8; 1000]);
        let names: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert_eq!(names.len(), 1, "nothing staged is left: {names:?}");
    }

    #[tokio::test]
    async fn ranges_are_the_objects_bytes_and_what_is_behind_its_end_is_judged_as_ever() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableStore::new(folder.path().to_owned());
        let (name, absent) = (Path::from("a/numbers"), Path::from("a/absent"));
        let content: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
        ObjectStoreExt::put(&store, &name, content.clone().into()).await.unwrap();
        for range in [0..4, 250..260, 0..2 << 20, (3 << 20) - 1..3 << 20] {
            let wanted = &content[range.start as usize..range.end as usize];
            assert_eq!(store.get_range(&name, range.clone()).await.unwrap(), wanted);
            assert_eq!(store.get_ranges(&name, &[range.clone(), 7..9]).await.unwrap(), [wanted, &[7, 8]]);
        }
        let at_end = GetOptions::new().with_range(Some((3 << 20) - 2..(3 << 20) + 2));
        let short = store.get_opts(&name, at_end).await.unwrap();
        assert_eq!((short.meta.size, short.bytes().await.unwrap().len()), (3 << 20, 2));
        assert!(store.get_range(&name, 4 << 20..5 << 20).await.is_err());
        assert!(matches!(store.get_range(&absent, 0..4).await, Err(Error::NotFound { .. })));
        assert!(matches!(store.get_ranges(&absent, &[0..4, 8..9]).await, Err(Error::NotFound { .. })));
    }

    #[tokio::test]
    async fn listings_are_in_name_order_and_empty_before_the_first_put() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableStore::new(folder.path().join("later"));
        assert!(store.list(None).try_collect::<Vec<_>>().await.unwrap().is_empty());
        for name in ["b/2", "a/1", "b/1", "c"] {
            ObjectStoreExt::put(&store, &Path::from(name), vec![0].into()).await.unwrap();
        }
        let names: Vec<_> =
            store.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
        assert_eq!(names, ["a/1", "b/1", "b/2", "c"]);
    }

    #[tokio::test]
    async fn parts_that_are_written_in_any_order_become_one_object_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableStore::new(folder.path().join("later"));
        let name = Path::from("a/big");
        let mut upload = store.put_multipart(&name).await.unwrap();
        let mut parts: Vec<_> =
            (0..4u8).map(|part| upload.put_part(vec![part; 1000 + usize::from(part)].into())).collect();
        parts.reverse();
        futures_util::future::try_join_all(parts).await.unwrap();
        assert!(matches!(store.get(&name).await, Err(Error::NotFound { .. })));
        upload.complete().await.unwrap();
        let expected: Vec<u8> = (0..4u8).flat_map(|part| vec![part; 1000 + usize::from(part)]).collect();
        assert_eq!(store.get(&name).await.unwrap().bytes().await.unwrap(), expected);
        store.put_multipart(&name).await.unwrap().abort().await.unwrap();
        assert_eq!(store.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 1);
    }
}
