//! Reads a file as chunks: only what is not committed, up to the size it had when it was identified.
//!
//! Stopping at that size ends a run over a file that grows faster than it is read. Plain files are read at
//! explicit offsets, so that one handle serves several passes. Deliberately absent: following a file that
//! grows (`stage::reader` makes another pass).
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use memchr::memrchr;
use sha2::{Digest, Sha256};

use super::encoding::Decoded;
use super::{Chunker, CutOptions, Encoding, End, IdentifiedFile, SourceError, Stat};
use crate::model::{RawChunk, Source};

/// Opens a file for reading. Blocking.
pub fn open(path: &Path) -> Result<Arc<File>, SourceError> {
    match File::open(path) {
        Ok(file) => Ok(Arc::new(file)),
        Err(error) => Err(SourceError::io("open", &path.display().to_string(), error)),
    }
}

/// Whether an open file has no name any more.
pub fn is_deleted(path: &Path, file: &File) -> Result<bool, SourceError> {
    match file.metadata() {
        Ok(metadata) => Ok(metadata.nlink() == 0),
        Err(error) => Err(SourceError::io("read", &path.display().to_string(), error)),
    }
}

/// One pass over a file. Every call blocks.
pub struct FileReader {
    source: Arc<Source>,
    reference_time: i64,
    content: Content,
    chunker: Chunker,
    /// How the chunks end; set once there is nothing more to read.
    end: Option<End>,
    /// What the pass ends with, after the whole lines before it.
    failure: Option<SourceError>,
    tail: End,
    /// All committed ranges end before this byte, or the content is another one.
    committed_end: u64,
    raw_bytes_reported: u64,
}

enum Content {
    Plain { file: Arc<File>, offset: u64, size_bytes: u64, bytes_read: u64 },
    Compressed(Box<Decoded>),
}

impl FileReader {
    /// Starts a pass. `tail` says how to cut the last line of a plain file; a compressed one has a definite end.
    pub fn try_new(
        file: Arc<File>,
        identified: &IdentifiedFile,
        options: CutOptions,
        tail: End,
    ) -> Result<Self, SourceError> {
        let path = &identified.source.path;
        let failed = |error| SourceError::io("read", path, error);
        let stat = Stat::of(&file.metadata().map_err(failed)?);
        if stat.place != identified.stat.place {
            return Err(SourceError::Replaced { path: path.clone() });
        }
        let (content, tail) = match identified.encoding {
            Encoding::Plain => {
                let size_bytes = identified.stat.size_bytes;
                (Content::Plain { file, offset: 0, size_bytes, bytes_read: 0 }, tail)
            }
            Encoding::Gzip | Encoding::Zstd => {
                let input = Box::new(FromStart { file, offset: 0 });
                (Content::Compressed(Box::new(Decoded::try_new(input).map_err(failed)?)), End::Final)
            }
        };
        Ok(Self {
            source: Arc::clone(&identified.source),
            reference_time: stat.modified_micros,
            content,
            chunker: Chunker::new(options, identified.committed.clone()),
            end: None,
            failure: None,
            tail,
            committed_end: identified.committed.last().map_or(0, |range| range.1),
            raw_bytes_reported: 0,
        })
    }

    /// The next chunk, or `None` at the end. An error comes after all whole lines before it.
    pub fn next_chunk(&mut self) -> Result<Option<RawChunk>, SourceError> {
        loop {
            if let Some(cut) = self.chunker.next_cut(self.end.unwrap_or(End::More)) {
                return Ok(Some(RawChunk {
                    source: Arc::clone(&self.source),
                    first_byte: cut.first_byte,
                    content_sha256: Sha256::digest(&cut.bytes).into(),
                    bytes: cut.bytes,
                    reference_time: self.reference_time,
                    piece: cut.piece,
                    open: cut.open,
                }));
            }
            if self.end.is_some() {
                return self.failure.take().map_or(Ok(None), Err);
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => self.end = Some(self.tail),
                Err(error) => {
                    self.failure = Some(error);
                    self.end = Some(End::Pause);
                }
            }
        }
    }

    /// Bytes taken from disk since the last call.
    pub fn take_raw_bytes(&mut self) -> u64 {
        let raw_bytes = match &self.content {
            Content::Plain { bytes_read, .. } => *bytes_read,
            Content::Compressed(decoded) => decoded.raw_bytes(),
        };
        raw_bytes - std::mem::replace(&mut self.raw_bytes_reported, raw_bytes)
    }

    fn fill(&mut self) -> Result<bool, SourceError> {
        let path = &self.source.path;
        let failed = |error| SourceError::io("read", path, error);
        let wanted = self.chunker.wanted_bytes();
        let came = match &mut self.content {
            Content::Plain { file, offset, size_bytes, bytes_read } => {
                if let Some(to) = self.chunker.skippable_to() {
                    *offset = to.min(*size_bytes);
                    self.chunker.skip_to(*offset, line_start(file, *offset).map_err(failed)?);
                }
                let wanted = wanted.min(usize::try_from(*size_bytes - *offset).unwrap_or(wanted));
                if wanted == 0 {
                    return Ok(false);
                }
                let came =
                    self.chunker.fill(wanted, |buffer| read_at(file, buffer, *offset)).map_err(failed)?;
                *offset += came as u64;
                *bytes_read += came as u64;
                if came == 0 {
                    return Err(SourceError::Shrunk { path: path.clone() });
                }
                came
            }
            Content::Compressed(decoded) => {
                let came = self.chunker.fill(wanted, |buffer| decoded.read(buffer));
                let came = came.map_err(|error| decoded.explain(path, error))?;
                if came == 0 && self.chunker.end_byte() < self.committed_end {
                    return Err(SourceError::Shrunk { path: path.clone() });
                }
                came
            }
        };
        Ok(came > 0)
    }
}

/// The encoding of a file and its first decompressed bytes. Damage ends the head, and is reported by the pass.
pub(super) fn read_head(path: &Path, file: &Arc<File>) -> Result<(Encoding, Vec<u8>), SourceError> {
    let failed = |error| SourceError::io("read", &path.display().to_string(), error);
    let mut head = Vec::with_capacity(Source::HEAD_BYTES);
    let start = FromStart { file: Arc::clone(file), offset: 0 };
    start.take(Source::HEAD_BYTES as u64).read_to_end(&mut head).map_err(failed)?;
    let encoding = Encoding::detect(&head);
    if encoding != Encoding::Plain {
        head.clear();
        let input = Box::new(FromStart { file: Arc::clone(file), offset: 0 });
        let decoded = Decoded::try_new(input).map_err(failed)?;
        match decoded.take(Source::HEAD_BYTES as u64).read_to_end(&mut head) {
            Err(error) if error.raw_os_error().is_some() => return Err(failed(error)),
            _ => {}
        }
    }
    Ok((encoding, head))
}

/// Where the line that holds byte `offset` begins.
fn line_start(file: &File, offset: u64) -> io::Result<u64> {
    let (mut buffer, mut behind) = (vec![0; 4 << 10], offset);
    while behind > 0 {
        let first = behind.saturating_sub(buffer.len() as u64);
        let window = &mut buffer[..(behind - first) as usize];
        file.read_exact_at(window, first)?;
        if let Some(newline) = memrchr(b'\n', window) {
            return Ok(first + newline as u64 + 1);
        }
        behind = first;
        // the first look is at a line's end in almost every case; an over-long line wants larger steps
        buffer.resize(256 << 10, 0);
    }
    Ok(0)
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            came => return came,
        }
    }
}

/// A file as a stream from its first byte, whatever else reads the same handle.
struct FromStart {
    file: Arc<File>,
    offset: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let came = self.file.read_at(buffer, self.offset)?;
        self.offset += came as u64;
        Ok(came)
    }
}
