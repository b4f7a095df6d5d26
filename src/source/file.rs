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
use super::identity::with_length;
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

/// Bytes that can be had at any place: a file's, an object's in a store. Every call blocks.
pub trait ReadAt: Send + Sync {
    /// Reads bytes from `offset` on into the beginning of `buffer`; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

/// Part of an input that is read beside other parts.
pub struct Extent {
    /// The source that the input is.
    pub source: Arc<Source>,
    /// Its bytes as stored.
    pub content: Arc<dyn ReadAt>,
    /// How they are stored.
    pub encoding: Encoding,
    /// First byte, which begins a line, and the one behind the last. All of it where it is compressed.
    pub range: (u64, u64),
    /// Ranges not to read, ascending.
    pub committed: Vec<(u64, u64)>,
    /// Dates without a year are read relative to this time: microseconds since the epoch.
    pub reference_time: i64,
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
    /// Chunks carry the hash of their bytes, for a ledger.
    hashes: bool,
    /// The last chunk of a compressed one tells how long it is.
    tells_length: bool,
}

enum Content {
    Plain { file: Arc<dyn ReadAt>, offset: u64, size_bytes: u64, bytes_read: u64 },
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
            hashes: true,
            tells_length: false,
        })
    }

    /// Starts a pass over an object, or over lines of it, for a ledger.
    pub(super) fn of_object(extent: Extent, options: CutOptions) -> Result<Self, SourceError> {
        // what is put is whole: a last line without its newline will not grow
        Ok(Self { tail: End::Final, hashes: true, tells_length: true, ..Self::of_extent(extent, options)? })
    }

    /// Starts a pass over a part, for what it holds now and for no ledger: chunks carry no hash. They are those of a
    /// pass over all of it where the part is one of [`split`].
    pub fn of_extent(extent: Extent, options: CutOptions) -> Result<Self, SourceError> {
        let Extent {
            source,
            content: file,
            encoding,
            range: (offset, size_bytes),
            committed,
            reference_time,
        } = extent;
        let committed_end = committed.last().map_or(0, |range| range.1);
        let mut chunker = Chunker::new(options, committed);
        let (content, tail) = match encoding {
            Encoding::Plain => {
                if offset > 0 {
                    chunker.skip_to(offset, offset);
                }
                (Content::Plain { file, offset, size_bytes, bytes_read: 0 }, End::Open)
            }
            Encoding::Gzip | Encoding::Zstd => {
                let decoded = Decoded::try_new(Box::new(FromStart { file, offset: 0 }));
                let decoded = decoded.map_err(|error| SourceError::io("read", &source.path, error))?;
                (Content::Compressed(Box::new(decoded)), End::Final)
            }
        };
        Ok(Self {
            source,
            reference_time,
            content,
            chunker,
            end: None,
            failure: None,
            tail,
            committed_end,
            raw_bytes_reported: 0,
            hashes: false,
            tells_length: false,
        })
    }

    /// The next chunk, or `None` at the end. An error comes after all whole lines before it.
    pub fn next_chunk(&mut self) -> Result<Option<RawChunk>, SourceError> {
        loop {
            if let Some(cut) = self.chunker.next_cut(self.end.unwrap_or(End::More)) {
                return Ok(Some(RawChunk {
                    source: self.source_of_cut(),
                    first_byte: cut.first_byte,
                    content_sha256: match self.hashes {
                        true => Sha256::digest(&cut.bytes).into(),
                        false => [0; 32],
                    },
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

    /// The source as the chunk that was cut just now is to name it.
    fn source_of_cut(&self) -> Arc<Source> {
        let source = Arc::clone(&self.source);
        let is_last = self.end == Some(End::Final) && self.chunker.buffered().is_empty();
        match &self.content {
            Content::Compressed(_) if self.tells_length && is_last => {
                with_length(source, self.chunker.end_byte())
            }
            _ => source,
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
                    self.chunker.skip_to(*offset, line_start(&**file, *offset).map_err(failed)?);
                }
                let wanted = wanted.min(usize::try_from(*size_bytes - *offset).unwrap_or(wanted));
                if wanted == 0 {
                    return Ok(false);
                }
                let came =
                    self.chunker.fill(wanted, |buffer| read_at(&**file, buffer, *offset)).map_err(failed)?;
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
    let from_start = || FromStart { file: Arc::<File>::clone(file), offset: 0 };
    let mut head = Vec::with_capacity(Source::HEAD_BYTES);
    from_start().take(Source::HEAD_BYTES as u64).read_to_end(&mut head).map_err(failed)?;
    let encoding = Encoding::detect(&head);
    if encoding != Encoding::Plain {
        head.clear();
        let decoded = Decoded::try_new(Box::new(from_start())).map_err(failed)?;
        match decoded.take(Source::HEAD_BYTES as u64).read_to_end(&mut head) {
            Err(error) if error.raw_os_error().is_some() => return Err(failed(error)),
            _ => {}
        }
    }
    Ok((encoding, head))
}

/// Where the line that holds byte `offset` begins.
fn line_start(file: &dyn ReadAt, offset: u64) -> io::Result<u64> {
    let (mut buffer, mut behind) = (vec![0; 4 << 10], offset);
    while behind > 0 {
        let first = behind.saturating_sub(buffer.len() as u64);
        let window = &mut buffer[..(behind - first) as usize];
        fill(file, window, first)?;
        if let Some(newline) = memrchr(b'\n', window) {
            return Ok(first + newline as u64 + 1);
        }
        behind = first;
        // the first look is at a line's end in almost every case; an over-long line wants larger steps
        buffer.resize(256 << 10, 0);
    }
    Ok(0)
}

/// Cuts a plain input of this size between chunks, into ranges of about `target_bytes`. Looks at little more than the
/// cuts. Behind a line longer than a chunk all is one range.
pub fn split(
    content: &dyn ReadAt,
    size_bytes: u64,
    options: CutOptions,
    target_bytes: u64,
) -> io::Result<Vec<(u64, u64)>> {
    let chunk_size_bytes = options.chunk_size_bytes as u64;
    let (mut ranges, mut first, mut cut) = (Vec::new(), 0, 0);
    let mut buffer = Vec::new();
    while size_bytes - cut > chunk_size_bytes {
        // a chunk ends with the last newline of its size
        let end = cut + chunk_size_bytes;
        let (mut window_bytes, mut newline) = (4 << 10, None);
        while newline.is_none() && window_bytes / 2 < chunk_size_bytes {
            let start = end.saturating_sub(window_bytes).max(cut);
            buffer.resize((end - start) as usize, 0);
            fill(content, &mut buffer, start)?;
            newline = memrchr(b'\n', &buffer).map(|newline| start + newline as u64);
            window_bytes *= 2;
        }
        let Some(newline) = newline else { break };
        cut = newline + 1;
        if cut - first >= target_bytes {
            ranges.push((first, cut));
            first = cut;
        }
    }
    if first < size_bytes {
        ranges.push((first, size_bytes));
    }
    Ok(ranges)
}

fn fill(content: &dyn ReadAt, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match read_at(content, buffer, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            came => {
                buffer = &mut buffer[came..];
                offset += came as u64;
            }
        }
    }
    Ok(())
}

fn read_at(file: &dyn ReadAt, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            came => return came,
        }
    }
}

/// A file as a stream from its first byte, whatever else reads the same handle.
struct FromStart {
    file: Arc<dyn ReadAt>,
    offset: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let came = self.file.read_at(buffer, self.offset)?;
        self.offset += came as u64;
        Ok(came)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn chunks(file: &File, range: (u64, u64), options: CutOptions) -> Vec<(u64, Vec<u8>)> {
        let source = Source {
            path: "a.log".into(),
            device: 1,
            inode: 1,
            generation: 0,
            head_len_bytes: 0,
            head_hash: 0,
            id: 7,
        };
        let extent = Extent {
            source: Arc::new(source),
            content: Arc::new(file.try_clone().unwrap()),
            encoding: Encoding::Plain,
            range,
            committed: Vec::new(),
            reference_time: 0,
        };
        let mut reader = FileReader::of_extent(extent, options).unwrap();
        let next = || reader.next_chunk().unwrap().map(|chunk| (chunk.first_byte, chunk.bytes.to_vec()));
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn parts_give_the_chunks_of_the_whole() {
        for line_bytes in [1usize, 7, 90, 5_000, 9_999, 10_000, 10_001, 25_000] {
            for last in ["", "tail"] {
                let mut file = tempfile::tempfile().unwrap();
                let mut text = Vec::new();
                for number in 0..(400_000 / line_bytes) {
                    text.extend(vec![b'x'; (number * 31) % line_bytes + 1]);
                    text.push(b'\n');
                }
                text.extend_from_slice(last.as_bytes());
                file.write_all(&text).unwrap();
                let size = text.len() as u64;
                let options = CutOptions { chunk_size_bytes: 10_000, max_line_bytes: 10_000 };
                let whole = chunks(&file, (0, size), options);
                for target in [1, 30_000, 1 << 30] {
                    let ranges = split(&file, size, options, target).unwrap();
                    let parts: Vec<_> =
                        ranges.iter().flat_map(|range| chunks(&file, *range, options)).collect();
                    assert!(parts == whole, "{line_bytes} {target}");
                    assert!(
                        ranges.len() > 1 || size < target + 20_000 || line_bytes > 9_000,
                        "{line_bytes} {target}"
                    );
                }
            }
        }
        assert_eq!(split(&tempfile::tempfile().unwrap(), 0, CutOptions::default(), 1).unwrap(), []);
    }
}
