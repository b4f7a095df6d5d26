//! Objects of a store: a source is a name and a content, which the store tells by ETag and size.
//!
//! | the object has | it is |
//! |---|---|
//! | a known name and fingerprint | that source |
//! | a known name, another fingerprint | a new generation of that name |
//! | nothing known | a new source |
//!
//! Nothing is asked of the store for that. Its identity is a hash of name and fingerprint alone, so that readers that
//! list at different times, with an overwriting in between, never take two contents for one source. The same bytes put
//! again under another ETag (another size of parts, say) are a new generation too.
//!
//! The ledger keeps the fingerprint in the place of the head's hash, which covers all of the content, and as the
//! head's length that of the content. That of a compressed one is known only at its end, and comes with its last chunk.
use std::sync::Arc;

use super::super::object::Object;
use super::super::{CutOptions, Encoding, Extent, FileReader, SourceError};
use super::Catalogue;
use crate::model::Source;

/// An object and the source that it is.
#[derive(Debug, Clone)]
pub struct IdentifiedObject {
    /// The object.
    pub object: Object,
    /// Its source.
    pub source: Arc<Source>,
    /// Ranges not to read, ascending.
    pub committed: Vec<(u64, u64)>,
}

impl Catalogue {
    /// Says which source an object is.
    pub fn identify_object(&self, object: Object) -> IdentifiedObject {
        let (path, fingerprint) = (object.url(), object.fingerprint());
        let id = Source::identity(&path, 0, fingerprint, 0);
        let (source, committed) = match self.sources.get(&id) {
            Some(known) => (known.source.clone(), known.committed.clone()),
            None => {
                let generation = self.newest_generation(&path).map_or(0, |newest| newest + 1);
                let (head_len_bytes, head_hash) = (0, fingerprint);
                let source = Source { path, device: 0, inode: 0, generation, head_len_bytes, head_hash, id };
                (source, Vec::new())
            }
        };
        IdentifiedObject { object, source: Arc::new(source), committed }
    }
}

impl IdentifiedObject {
    /// Whether all of it is known to be committed; nothing is asked for that. Where `false`, reading it tells.
    pub fn is_complete(&self) -> bool {
        let len_bytes = u64::from(self.source.head_len_bytes);
        self.object.size_bytes() == 0 || (len_bytes > 0 && self.committed == [(0, len_bytes)])
    }

    /// Where readers may divide it: ranges of this size, whose lines are those that begin in them.
    pub fn parts(&self, split_size_bytes: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
        let (size_bytes, step) = (self.object.size_bytes(), split_size_bytes.max(1));
        let starts = (0..size_bytes.div_ceil(step)).map(move |number| number * step);
        starts.map(move |first| (first, (first + step).min(size_bytes)))
    }

    /// Reads what is not committed of the lines that begin within `part`; `None` if that is nothing. A compressed
    /// object is all in its first part. Blocking.
    pub fn reader(&self, part: (u64, u64), options: CutOptions) -> Result<Option<FileReader>, SourceError> {
        let (object, size_bytes) = (&self.object, self.object.size_bytes());
        let is_all = part == (0, size_bytes);
        let (mut content, mut range) = (object.open(size_bytes), part);
        let encoding = match is_all {
            // with the first block, which is all of most objects
            true => {
                let mut start = [0; Encoding::MAGIC_BYTES];
                let len = content.read_at(&mut start, 0);
                let len = len.map_err(|error| SourceError::io("read", &self.source.path, error))?;
                Encoding::detect(&start[..len])
            }
            false => object.encoding()?,
        };
        let mut source = Arc::clone(&self.source);
        match encoding {
            Encoding::Plain => {
                if !is_all {
                    let first = object.line_at(part.0, part.1)?;
                    if first >= part.1 {
                        return Ok(None);
                    }
                    range = (first, object.line_at(part.1, size_bytes)?);
                    content = object.open(range.1);
                }
                let is_committed = |of: &(u64, u64)| of.0 <= range.0 && range.1 <= of.1;
                if self.committed.iter().any(is_committed) {
                    return Ok(None);
                }
                source = with_length(source, size_bytes);
            }
            Encoding::Gzip | Encoding::Zstd if part.0 > 0 => return Ok(None),
            Encoding::Gzip | Encoding::Zstd => range = (0, size_bytes),
        }
        let extent = Extent {
            source,
            content,
            encoding,
            range,
            committed: self.committed.clone(),
            reference_time: object.modified_micros(),
        };
        FileReader::of_object(extent, options).map(Some)
    }

    /// Bytes to read, if it is not compressed.
    pub fn unread_bytes(&self) -> u64 {
        let committed: u64 = self.committed.iter().map(|(first, end)| end - first).sum();
        self.object.size_bytes().saturating_sub(committed)
    }
}

/// The source with its length, where that fits what ledgers keep of it (2 GiB); of a longer one, reading tells.
pub(in crate::source) fn with_length(source: Arc<Source>, len_bytes: u64) -> Arc<Source> {
    match i32::try_from(len_bytes) {
        Ok(len) if source.head_len_bytes == 0 => {
            Arc::new(Source { head_len_bytes: len.cast_unsigned(), ..(*source).clone() })
        }
        _ => source,
    }
}
