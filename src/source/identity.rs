//! Decides which source a file is: one the ledger knows, a new generation of its path, or a new one.
//!
//! | the file has | it is |
//! |---|---|
//! | a known inode, and that source's content, at any path | that source: unchanged, grown, renamed or rotated |
//! | a known path, and that source's content, which no other file here is | that source: moved between disks |
//! | a known path, other content or fewer bytes than are committed | a new generation of that path |
//! | nothing known | a new source, be its content known or not |
//!
//! *That source's content*: the same head over the length known of it and, where bytes can be had at any place
//! (not compressed), at least the bytes committed and the newest committed chunk unchanged. Equal content at
//! two paths is two sources: a copy, and a rotated file compressed into another file, are read again.
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::encoding::Decoded;
use super::file::read_head;
use super::{Encoding, SourceError};
use crate::model::{KnownSource, Ledger, RawChunk, Source};

mod named;
mod object;

pub use object::IdentifiedObject;
pub(super) use object::with_length;

/// Device and inode: what two names of one file share.
pub type Place = (u64, u64);

/// What the file system says of a file. Equal if the file has not been written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Device and inode.
    pub place: Place,
    /// Bytes as stored.
    pub size_bytes: u64,
    /// Last write, microseconds since the epoch.
    pub modified_micros: i64,
}

impl Stat {
    /// Takes what is needed of the file system's answer.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            place: (metadata.dev(), metadata.ino()),
            size_bytes: metadata.size(),
            modified_micros: metadata.mtime().saturating_mul(1_000_000) + metadata.mtime_nsec() / 1_000,
        }
    }
}

/// What identity is decided by, gathered from one open file.
#[derive(Debug)]
pub struct FileFacts {
    path: PathBuf,
    stat: Stat,
    encoding: Encoding,
    head_len_bytes: u32,
    head_hash: u64,
    /// The known source with this inode and content.
    same_place: Option<u64>,
    /// Known sources with this path and content.
    same_path: Vec<u64>,
}

impl FileFacts {
    /// Makes the file a new generation, whatever it resembles.
    pub fn as_new_content(self) -> Self {
        Self { same_place: None, same_path: Vec::new(), ..self }
    }
}

/// A file and the source that it is.
#[derive(Debug, Clone)]
pub struct IdentifiedFile {
    /// Where to open it.
    pub path: PathBuf,
    /// What it was when it was identified.
    pub stat: Stat,
    /// How it is stored.
    pub encoding: Encoding,
    /// Its source.
    pub source: Arc<Source>,
    /// Ranges not to read, ascending.
    pub committed: Vec<(u64, u64)>,
}

impl IdentifiedFile {
    /// Bytes to read from disk.
    pub fn unread_bytes(&self) -> u64 {
        match self.encoding {
            Encoding::Plain => {
                let committed: u64 = self.committed.iter().map(|(first, end)| end - first).sum();
                self.stat.size_bytes.saturating_sub(committed)
            }
            Encoding::Gzip | Encoding::Zstd => self.stat.size_bytes,
        }
    }
}

/// Every source known: by the ledger, and what was shipped since.
#[derive(Debug, Default)]
pub struct Catalogue {
    sources: BTreeMap<u64, KnownSource>,
    by_place: HashMap<Place, Vec<u64>>,
    by_path: HashMap<String, Vec<u64>>,
    /// The file that each source was found to be; another file is not the same source.
    found: HashMap<u64, Place>,
}

impl Catalogue {
    /// Starts from what is committed.
    pub fn new(ledger: Ledger) -> Self {
        let mut catalogue = Self::default();
        for (_, known) in ledger.sources {
            catalogue.insert(known);
        }
        catalogue
    }

    /// Gathers what identity is decided by. Blocking: reads the head, and the newest committed chunk.
    pub fn inspect(&self, path: &Path, file: &Arc<File>) -> Result<FileFacts, SourceError> {
        let failed = |error| SourceError::io("read", &path.display().to_string(), error);
        let stat = Stat::of(&file.metadata().map_err(failed)?);
        let (encoding, head) = read_head(path, file)?;
        let matches = |id: &u64| holds(path, file, stat, encoding, &head, &self.sources[id]);
        let candidates = |ids: Option<&Vec<u64>>| {
            let mut ids = ids.cloned().unwrap_or_default();
            ids.sort_unstable_by_key(|id| std::cmp::Reverse(self.sources[id].source.generation));
            ids.into_iter()
        };
        let same_place = candidates(self.by_place.get(&stat.place)).find(matches);
        let same_path = match same_place {
            Some(_) => Vec::new(),
            None => candidates(self.by_path.get(&*path.to_string_lossy())).filter(matches).collect(),
        };
        Ok(FileFacts {
            path: path.to_owned(),
            stat,
            encoding,
            head_len_bytes: head.len() as u32,
            head_hash: Source::hash_head(&head),
            same_place,
            same_path,
        })
    }

    /// Decides for all files of a scan at once, so that a file renamed within it is known by its inode before
    /// the file that took its path is known by that path.
    pub fn resolve(&mut self, files: Vec<FileFacts>) -> Vec<IdentifiedFile> {
        for file in &files {
            if let Some(id) = file.same_place {
                self.found.insert(id, file.stat.place);
            }
        }
        files.into_iter().map(|file| self.identify(file)).collect()
    }

    fn identify(&mut self, file: FileFacts) -> IdentifiedFile {
        let place = file.stat.place;
        let is_free = |id: &u64| self.found.get(id).is_none_or(|found| *found == place);
        let known = file.same_place.or_else(|| file.same_path.iter().copied().find(is_free));
        let path = file.path.to_string_lossy().into_owned();
        let (id, generation) = match known {
            Some(id) => (id, self.sources[&id].source.generation),
            None => self.next_generation(&path, place),
        };
        self.found.insert(id, place);
        let source = Source {
            path,
            device: place.0,
            inode: place.1,
            generation,
            head_len_bytes: file.head_len_bytes,
            head_hash: file.head_hash,
            id,
        };
        let mut committed = self.update(source.clone());
        if let Some(open) = self.sources[&id].open
            && file.encoding == Encoding::Plain
            && file.stat.size_bytes <= open.1
        {
            // the last line has not grown: there is nothing to supersede it with
            committed.push(open);
            committed.sort_unstable();
        }
        let FileFacts { path, stat, encoding, .. } = file;
        IdentifiedFile { path, stat, encoding, source: Arc::new(source), committed }
    }

    /// The source that a stream is, and its committed ranges. Without a name it is a new one each time.
    pub fn resolve_stream(
        &mut self,
        name: Option<&str>,
        path: &str,
        head: &[u8],
    ) -> (Arc<Source>, Vec<(u64, u64)>) {
        let known = self.streams(name).find(|known| {
            let head_len = known.source.head_len_bytes as usize;
            head.len() >= head_len && Source::hash_head(&head[..head_len]) == known.source.head_hash
        });
        let (id, generation) = match (known, name) {
            (Some(known), _) => (known.source.id, known.source.generation),
            (None, Some(name)) => self.next_generation(name, (0, 0)),
            // the low half of a version 7 uuid is random
            (None, None) => (uuid::Uuid::now_v7().as_u64_pair().1, 0),
        };
        let source = Source {
            path: name.unwrap_or(path).to_owned(),
            device: 0,
            inode: 0,
            generation,
            head_len_bytes: head.len().min(Source::HEAD_BYTES) as u32,
            head_hash: Source::hash_head(head),
            id,
        };
        let committed = self.update(source.clone());
        (Arc::new(source), committed)
    }

    /// How many first bytes of a stream with this name decide which source it is.
    pub fn stream_head_bytes(&self, name: Option<&str>) -> usize {
        let heads = self.streams(name).map(|known| known.source.head_len_bytes as usize);
        // an object of that name has all of its content for a head
        heads.max().unwrap_or(0).min(Source::HEAD_BYTES)
    }

    fn streams(&self, name: Option<&str>) -> impl Iterator<Item = &KnownSource> {
        let ids = name.and_then(|name| self.by_path.get(name)).into_iter().flatten();
        ids.rev()
            .map(|id| &self.sources[id])
            .filter(|known| (known.source.device, known.source.inode) == (0, 0))
    }

    /// Records a chunk as if it were committed already: within one run nothing is shipped twice.
    pub fn record_shipped(&mut self, chunk: &RawChunk) {
        let Some(known) = self.sources.get_mut(&chunk.source.id) else { return };
        let range = (chunk.first_byte, chunk.range().end_byte);
        known.last_chunk = (range.0, range.1, chunk.content_sha256);
        if chunk.open {
            known.open = Some(range);
            return;
        }
        known.open = known.open.filter(|open| open.0 >= range.1 || open.1 <= range.0);
        known.committed.push(range);
        known.committed.sort_unstable();
        known.committed.dedup_by(|next, merged| {
            let touches = next.0 <= merged.1;
            if touches {
                merged.1 = merged.1.max(next.1);
            }
            touches
        });
    }

    /// Lets another file be this source; its own file is deleted.
    pub fn release(&mut self, source_id: u64) {
        self.found.remove(&source_id);
    }

    /// Offset behind the last byte shipped of a source.
    pub fn end_byte(&self, source_id: u64) -> u64 {
        self.sources.get(&source_id).map_or(0, |known| {
            let open = known.open.map_or(0, |open| open.1);
            known.committed.last().map_or(open, |range| range.1.max(open))
        })
    }

    fn next_generation(&self, path: &str, place: Place) -> (u64, u32) {
        let mut generation = self.newest_generation(path).map_or(0, |generation| generation + 1);
        loop {
            let id = Source::identity(path, place.0, place.1, generation);
            // taken by a source that was first seen here, on this inode, and has been renamed since
            if !self.sources.contains_key(&id) {
                return (id, generation);
            }
            generation += 1;
        }
    }

    fn newest_generation(&self, path: &str) -> Option<u32> {
        let known = self.by_path.get(path).into_iter().flatten();
        known.map(|id| self.sources[id].source.generation).max()
    }

    /// Takes a source's newest record; returns its committed ranges.
    fn update(&mut self, source: Source) -> Vec<(u64, u64)> {
        match self.sources.remove(&source.id) {
            Some(known) => {
                let committed = known.committed.clone();
                self.insert(KnownSource { source, ..known });
                committed
            }
            None => {
                self.insert(KnownSource {
                    source,
                    committed: Vec::new(),
                    open: None,
                    last_chunk: (0, 0, [0; 32]),
                });
                Vec::new()
            }
        }
    }

    fn insert(&mut self, known: KnownSource) {
        let source = &known.source;
        for ids in [
            self.by_place.entry((source.device, source.inode)).or_default(),
            self.by_path.entry(source.path.clone()).or_default(),
        ] {
            if !ids.contains(&source.id) {
                ids.push(source.id);
            }
        }
        self.sources.insert(source.id, known);
    }
}

/// Whether a file has a known source's content.
fn holds(path: &Path, file: &File, stat: Stat, encoding: Encoding, head: &[u8], known: &KnownSource) -> bool {
    let head_len = known.source.head_len_bytes as usize;
    head.len() >= head_len
        && Source::hash_head(&head[..head_len]) == known.source.head_hash
        && match encoding {
            Encoding::Plain => still_holds(file, stat.size_bytes, known),
            Encoding::Gzip | Encoding::Zstd => still_decodes_to(path, known),
        }
}

/// Whether a compressed file still has the newest committed chunk, at its place: a damaged file that was
/// replaced by a good copy starts with the same bytes. Decompresses all before it, as reading on does too.
fn still_decodes_to(path: &Path, known: &KnownSource) -> bool {
    let (first, end, sha256) = known.last_chunk;
    let found = || -> io::Result<Option<[u8; 32]>> {
        let mut decoded = Decoded::try_new(Box::new(File::open(path)?))?;
        if io::copy(&mut (&mut decoded).take(first), &mut io::sink())? < first {
            return Ok(None);
        }
        let (mut hash, mut buffer, mut left) = (Sha256::new(), vec![0; 64 << 10], end - first);
        while left > 0 {
            let len = buffer.len().min(left as usize);
            match decoded.read(&mut buffer[..len])? {
                0 => return Ok(None),
                came => {
                    hash.update(&buffer[..came]);
                    left -= came as u64;
                }
            }
        }
        Ok(Some(hash.finalize().into()))
    };
    first == end || matches!(found(), Ok(Some(found)) if found == sha256)
}

/// Whether a plain file has all committed bytes, and the newest committed chunk unchanged.
fn still_holds(file: &File, size_bytes: u64, known: &KnownSource) -> bool {
    let (first, end, sha256) = known.last_chunk;
    let committed_end = known.committed.last().map_or(end, |range| range.1.max(end));
    if size_bytes < committed_end.max(known.open.map_or(0, |open| open.1)) {
        return false;
    }
    let (mut hash, mut buffer, mut at) = (Sha256::new(), vec![0; 64 << 10], first);
    while at < end {
        let len = buffer.len().min((end - at) as usize);
        match file.read_at(&mut buffer[..len], at) {
            Ok(came) if came > 0 => hash.update(&buffer[..came]),
            _ => return false,
        }
        at += len as u64;
    }
    first == end || hash.finalize()[..] == sha256
}
