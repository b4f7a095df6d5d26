//! Objects of a store (`s3://`, `gs://`, `az://`): which of them a URL stands for, and their bytes at any place.
//!
//! Invariants: all bytes are of the content that was listed (each request is conditional on its ETag); a listing holds
//! about 200 bytes per object, and a reader of one at most one block of it. What a store's client does is done on the
//! runtime's threads; every function here blocks the caller's. Deliberately absent: retries, which are the client's, and
//! following: an object never grows.
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::ready;
use futures_util::{StreamExt, TryStreamExt};
use memchr::memchr;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::input::is_log;
use super::{Encoding, ReadAt, SourceError};
use crate::client::{ClientError, StorageFault, open_store, redacted};
use crate::model::Source;

/// Bytes that one request asks for: a few tenths of a second of one connection.
const BLOCK_BYTES: u64 = 4 << 20;
/// The same where the end of a line is looked for.
const LOOK_BYTES: u64 = 64 << 10;

/// Whether a path names objects, and no file.
pub fn is_object_url(path: &FilePath) -> bool {
    let scheme = path.to_str().and_then(|path| path.split_once("://"));
    scheme.is_some_and(|(scheme, _)| matches!(scheme, "s3" | "gs" | "az"))
}

/// An object as it was when it was listed.
#[derive(Debug, Clone)]
pub struct Object {
    bucket: Arc<Bucket>,
    key: Path,
    size_bytes: u64,
    modified_micros: i64,
    e_tag: Option<String>,
}

#[derive(Debug)]
struct Bucket {
    store: Arc<dyn ObjectStore>,
    /// `s3://bucket`
    url: String,
    /// Where requests run.
    runtime: Handle,
}

/// The objects that `location` stands for, sorted by key, at most so many: one object by its name, those below a folder
/// whose names are those of logs, or those that a glob matches. Blocking, on a thread that belongs to a runtime.
pub(super) fn list(location: &str, at_most: usize) -> Result<Vec<Object>, SourceError> {
    let rest = location.split_once("://").map_or("", |(_, rest)| rest);
    let root_len = location.len() - rest.len() + rest.find('/').unwrap_or(rest.len());
    let (root, path) = location.split_at(root_len);
    let bucket = Arc::new(Bucket::open(root)?);
    let path = path.trim_start_matches('/').to_owned();
    let listing = Arc::clone(&bucket).list(path, at_most);
    let listed = bucket.wait(listing).map_err(|error| SourceError::io("list", location, error))?;
    let mut objects = listed?;
    if objects.is_empty() {
        return Err(SourceError::NoObject { location: redacted(location) });
    }
    objects.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    Ok(objects)
}

/// What another process has to know of an object, to read the same content of it with credentials of its own.
#[derive(Debug, Serialize, Deserialize)]
pub struct ObjectFacts {
    /// `s3://bucket`
    bucket: String,
    key: String,
    size_bytes: u64,
    modified_micros: i64,
    e_tag: Option<String>,
}

impl ObjectFacts {
    /// The object's name.
    pub fn url(&self) -> String {
        format!("{}/{}", self.bucket, self.key)
    }
}

/// The buckets of objects that another process listed.
#[derive(Debug, Default)]
pub struct Buckets(HashMap<String, Arc<Bucket>>);

impl Buckets {
    /// The object of these facts; nothing is asked of its store. On a thread that belongs to a runtime.
    pub fn object(&mut self, facts: ObjectFacts) -> Result<Object, SourceError> {
        let key = Path::parse(&facts.key).map_err(|error| ClientError::BadUrl {
            location: redacted(&facts.url()),
            reason: error.to_string().to_lowercase(),
        })?;
        let ObjectFacts { bucket, size_bytes, modified_micros, e_tag, .. } = facts;
        let bucket = match self.0.get(&bucket) {
            Some(bucket) => Arc::clone(bucket),
            None => {
                let opened = Arc::new(Bucket::open(&bucket)?);
                self.0.insert(bucket, Arc::clone(&opened));
                opened
            }
        };
        Ok(Object { bucket, key, size_bytes, modified_micros, e_tag })
    }
}

impl Bucket {
    fn open(url: &str) -> Result<Self, ClientError> {
        let (store, _) = open_store(&format!("{url}/"))?;
        Ok(Self { store, url: url.to_owned(), runtime: Handle::current() })
    }

    async fn list(self: Arc<Self>, path: String, at_most: usize) -> Result<Vec<Object>, SourceError> {
        let location = format!("{}/{path}", self.url);
        let fixed = path.find(['*', '?', '[']).map_or(&*path, |at| &path[..at]);
        let is_glob = fixed.len() < path.len();
        // a store lists what is below a folder, at any depth; it has no folders to walk
        let folder = match is_glob {
            true => fixed.rsplit_once('/').map_or("", |(folder, _)| folder),
            false => path.trim_end_matches('/'),
        };
        let folder = Path::parse(folder).map_err(|error| ClientError::BadUrl {
            location: redacted(&location),
            reason: error.to_string().to_lowercase(),
        })?;
        if !is_glob && !path.is_empty() && !path.ends_with('/') {
            match self.store.head(&folder).await {
                Ok(found) => return Ok(vec![Object::new(&self, found)]),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(SourceError::storage("find", &location, error)),
            }
        }
        let pattern = glob::Pattern::new(&path).map_err(|error| SourceError::BadPattern {
            pattern: redacted(&location),
            reason: error.to_string(),
        })?;
        let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
        let is_wanted = |key: &Path| match is_glob {
            true => pattern.matches_with(key.as_ref(), options),
            false => is_log(FilePath::new(key.as_ref())),
        };
        let found = self.store.list(Some(&folder)).try_filter(|found| ready(is_wanted(&found.location)));
        let objects = found.map_ok(|found| Object::new(&self, found)).take(at_most).try_collect();
        objects.await.map_err(|error| SourceError::storage("list", &location, error))
    }

    /// Waits for a request, which runs on the runtime: to wait for the runtime itself is a panic once the program ends.
    fn wait<T: Send + 'static>(&self, request: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
        let (sender, came) = oneshot::channel();
        self.runtime.spawn(async move { sender.send(request.await) });
        came.blocking_recv().map_err(io::Error::other)
    }
}

impl Object {
    fn new(bucket: &Arc<Bucket>, found: ObjectMeta) -> Self {
        Self {
            bucket: Arc::clone(bucket),
            key: found.location,
            size_bytes: found.size,
            modified_micros: found.last_modified.timestamp_micros(),
            e_tag: found.e_tag,
        }
    }

    /// What another process has to know of it.
    pub fn facts(&self) -> ObjectFacts {
        ObjectFacts {
            bucket: self.bucket.url.clone(),
            key: self.key.to_string(),
            size_bytes: self.size_bytes,
            modified_micros: self.modified_micros,
            e_tag: self.e_tag.clone(),
        }
    }

    /// Its name: no credentials are in it.
    pub fn url(&self) -> String {
        format!("{}/{}", self.bucket.url, self.key)
    }

    /// Its bucket and key.
    pub fn name(&self) -> (&str, &str) {
        (&self.bucket.url, self.key.as_ref())
    }

    /// Bytes as stored.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// When it was put, microseconds since the epoch.
    pub fn modified_micros(&self) -> i64 {
        self.modified_micros
    }

    /// Tells its content from any other under the same name: a hash of ETag and size. A store that gives no ETag is
    /// taken by the time of the put.
    pub(super) fn fingerprint(&self) -> u64 {
        let content = match &self.e_tag {
            // one answer of a store has the quotes, another one lacks them
            Some(e_tag) => e_tag.trim_start_matches("W/").trim_matches('"').to_owned(),
            None => self.modified_micros.to_string(),
        };
        Source::hash_head(format!("{content} {}", self.size_bytes).as_bytes())
    }

    /// Its bytes from `offset` on, for one who reads up to `end_byte`.
    pub fn open(&self, end_byte: u64) -> Arc<dyn ReadAt> {
        Arc::new(Blocks { object: self.clone(), end_byte, block: Mutex::new((0, Bytes::new())) })
    }

    /// How it is stored, by its first bytes.
    pub fn encoding(&self) -> Result<Encoding, SourceError> {
        let first = self.size_bytes.min(Encoding::MAGIC_BYTES as u64);
        let start = if first == 0 { Ok(Bytes::new()) } else { self.get(0..first) };
        start.map(|start| Encoding::detect(&start)).map_err(|error| self.failed(error))
    }

    /// Where the first line begins that begins at `at` or behind it, if that is before `limit`; else `limit` or a
    /// place behind it. A line begins behind a newline, so the byte before `at` is looked at too.
    pub(super) fn line_at(&self, at: u64, limit: u64) -> Result<u64, SourceError> {
        if at == 0 || at >= limit {
            return Ok(at.min(limit));
        }
        let (mut from, mut len) = (at - 1, LOOK_BYTES);
        while from < limit {
            let end = (from + len).min(limit);
            let looked_at = self.get(from..end).map_err(|error| self.failed(error))?;
            if let Some(newline) = memchr(b'\n', &looked_at) {
                return Ok(from + newline as u64 + 1);
            }
            // a line that is longer than this is long
            (from, len) = (end, BLOCK_BYTES);
        }
        Ok(limit)
    }

    fn failed(&self, error: io::Error) -> SourceError {
        SourceError::io("read", &self.url(), error)
    }

    fn get(&self, range: Range<u64>) -> io::Result<Bytes> {
        let e_tag = self.e_tag.clone().map(|e_tag| match self.bucket.url.starts_with("az:") {
            // its lists leave the quotes out that a condition must have
            true if !e_tag.contains('"') => format!("\"{e_tag}\""),
            _ => e_tag,
        });
        let options =
            GetOptions { range: Some(GetRange::Bounded(range)), if_match: e_tag, ..GetOptions::default() };
        let (store, key, size_bytes) = (Arc::clone(&self.bucket.store), self.key.clone(), self.size_bytes);
        let got = self.bucket.wait(async move {
            let got = store.get_opts(&key, options).await?;
            match got.meta.size == size_bytes {
                true => got.bytes().await.map(Some),
                false => Ok(None),
            }
        });
        let path = || self.url();
        let error = match got? {
            Ok(Some(bytes)) => return Ok(bytes),
            Ok(None) | Err(object_store::Error::Precondition { .. }) => {
                SourceError::Overwritten { path: path() }
            }
            Err(error @ object_store::Error::NotFound { .. }) if StorageFault::of(&error).is_none() => {
                SourceError::Missing { path: path() }
            }
            Err(error) => SourceError::storage("read", &path(), error),
        };
        Err(io::Error::other(error))
    }
}

/// Equal if nothing was put in between.
impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        (self.name(), self.fingerprint()) == (other.name(), other.fingerprint())
    }
}

/// An object, read in blocks.
struct Blocks {
    object: Object,
    end_byte: u64,
    /// The block that was read last, and where it begins.
    block: Mutex<(u64, Bytes)>,
}

impl ReadAt for Blocks {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        // a store refuses what begins behind the end
        if offset >= self.end_byte {
            return Ok(0);
        }
        let mut block = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        let is_within = |block: &(u64, Bytes)| (block.0..block.0 + block.1.len() as u64).contains(&offset);
        if !is_within(&block) {
            // the next one takes its place
            block.1 = Bytes::new();
            *block = (offset, self.object.get(offset..(offset + BLOCK_BYTES).min(self.end_byte))?);
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
mod tests;
