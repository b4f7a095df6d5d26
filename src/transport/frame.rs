//! The wire: a chunk as one block of bytes and back. Pure.
//!
//! Invariants: no input makes [`parse`] panic or allocate more than [`MAX_PAYLOAD_BYTES`]; what [`parse`]
//! accepts is what [`encode`] was given, because one checksum covers header and payload. Nothing in the payload is
//! re-encoded. Deliberately absent: an older version (this is the first; [`parse`] chooses by version, so that the
//! next one reads this one too), and knowledge of streams: who moves a frame names the entry.
//!
//! All numbers are little-endian.
//!
//! ```text
//! offset size
//!      0    4  magic "PLFR"
//!      4    1  version = 1
//!      5    1  flags: bits 0-1 compression (0 none, 1 lz4 block, 2 zstd); 2 is a piece of an over-long line;
//!              3 is that line's last piece; 4 last line still open; the others are 0
//!      6    2  t: length of the trace context, 0 or 25
//!      8    4  H: length of the header = 124 + n + t
//!     12    4  n: length of the path
//!     16    4  p: length of the payload
//!     20    4  length of the payload when decompressed, at least 1
//!     24    4  number of lines: newlines, and one more if the last line has none
//!     28    4  index of the piece, else 0
//!     32    4  source: generation
//!     36    4  source: how many bytes the head hash covers
//!     40    8  source: head hash
//!     48    8  source: id
//!     56    8  source: device
//!     64    8  source: inode
//!     72    8  offset of the first byte in the source
//!     80    8  reference time, microseconds since the epoch
//!     88   32  SHA-256 of the decompressed payload
//!    120    n  source: path, UTF-8
//!  120+n    t  trace id (16), span id (8), trace flags (1)
//!    H-4    4  CRC32C of everything else: the header before this field, then the payload
//!      H    p  payload
//! ```
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::model::{Piece, RawChunk, Source};

/// Largest chunk that travels, in decompressed bytes.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 20;
/// Paths end at 4 KiB on every system; the name of a stream may be longer, within reason.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// Largest frame. What does not shrink is sent as it is, so that compression makes none larger.
pub const MAX_FRAME_BYTES: usize = MAX_HEADER_BYTES + MAX_PAYLOAD_BYTES;

const MAGIC: [u8; 4] = *b"PLFR";
const VERSION: u8 = 1;
const FIXED_BYTES: usize = 120;
const CHECKSUM_BYTES: usize = 4;
const TRACE_BYTES: usize = 25;

const COMPRESSION: u8 = 0b11;
const PIECE: u8 = 1 << 2;
const LAST_PIECE: u8 = 1 << 3;
const OPEN: u8 = 1 << 4;

/// How a payload is compressed on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Compression {
    /// Fastest where Redis is near.
    #[default]
    None,
    /// About a third of the bytes for little work.
    Lz4,
    /// Zstandard level 1: about a sixth of the bytes.
    Zstd,
}

/// The trace that a chunk belongs to, as in W3C Trace Context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The whole trace.
    pub trace_id: [u8; 16],
    /// The span that shipped the chunk.
    pub span_id: [u8; 8],
    /// Bit 0: sampled.
    pub flags: u8,
}

/// A frame taken apart.
#[derive(Debug, Clone)]
pub struct Frame {
    /// What was shipped.
    pub chunk: RawChunk,
    /// Newlines in the chunk, and one more if its last line has none.
    pub num_lines: u32,
    /// Where the chunk was shipped from.
    pub trace: Option<TraceContext>,
}

/// A frame to be written: header, then payload, which is the chunk's own bytes unless they are compressed.
#[derive(Debug, Clone)]
pub struct EncodedFrame {
    /// Everything before the payload.
    pub header: Bytes,
    /// What follows it.
    pub payload: Bytes,
}

impl EncodedFrame {
    /// Length of both.
    pub fn len_bytes(&self) -> usize {
        self.header.len() + self.payload.len()
    }
}

/// Why a chunk does not fit in a frame, or bytes are not one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Longer than may travel.
    #[error(
        "{what} of {len_bytes} bytes is longer than the {max_bytes} bytes that may travel; use a smaller --chunk-size"
    )]
    TooLarge {
        /// Header, payload or frame.
        what: &'static str,
        /// Its length, as found or as claimed.
        len_bytes: u64,
        /// The limit.
        max_bytes: usize,
    },
    /// Something else.
    #[error("not a frame: it begins with {found:02x?}; only pipeline may write to this stream")]
    Magic {
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// Written by a later program.
    #[error("frame version {found} is not known here, only version {VERSION}; update this processor first")]
    Version {
        /// The version it claims.
        found: u8,
    },
    /// Cut off, or with lengths that contradict each other.
    #[error("torn frame: {expected} bytes expected, {found} found; its chunk has to be shipped again")]
    Torn {
        /// How long it should be, as far as can be told.
        expected: u64,
        /// How long it is.
        found: usize,
    },
    /// Changed on the way.
    #[error(
        "damaged frame: its checksum is {found:08x}, not {expected:08x}; its chunk has to be shipped again"
    )]
    Checksum {
        /// As the frame says.
        expected: u32,
        /// As its bytes are.
        found: u32,
    },
    /// Flags that no writer sets.
    #[error("the frame has unknown flags {0:#04x}; update this processor first")]
    Flags(u8),
    /// The path is not text that every sink takes: Postgres has no NUL.
    #[error("the frame's source path is not UTF-8, or holds a NUL; its chunk has to be shipped again")]
    Path,
    /// No bytes, or bytes beyond the last offset that every sink takes: ledgers count in signed numbers.
    #[error(
        "the frame's range of {len_bytes} bytes at {first_byte} cannot be; its chunk has to be shipped again"
    )]
    Range {
        /// Offset.
        first_byte: u64,
        /// Length.
        len_bytes: u32,
    },
    /// Not what it says it is when decompressed.
    #[error("the frame's payload does not decompress to {0} bytes; its chunk has to be shipped again")]
    Decompressed(u32),
}

/// Puts a chunk in a frame. A payload that compression does not shrink is sent as it is.
pub fn encode(
    chunk: &RawChunk,
    compression: Compression,
    trace: Option<&TraceContext>,
) -> Result<EncodedFrame, FrameError> {
    let source = &*chunk.source;
    let raw_len = within("chunk", chunk.bytes.len(), MAX_PAYLOAD_BYTES)?;
    let trace_len = trace.map_or(0, |_| TRACE_BYTES);
    let header_len = FIXED_BYTES + source.path.len() + trace_len + CHECKSUM_BYTES;
    within("header", header_len, MAX_HEADER_BYTES)?;
    let (compression, payload) = compress(&chunk.bytes, compression);
    let flags = compression
        | chunk.piece.map_or(0, |piece| if piece.last { PIECE | LAST_PIECE } else { PIECE })
        | if chunk.open { OPEN } else { 0 };

    let mut header = Vec::with_capacity(header_len);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&[VERSION, flags]);
    header.extend_from_slice(&(trace_len as u16).to_le_bytes());
    let piece_index = chunk.piece.map_or(0, |piece| piece.index);
    for number in [
        header_len as u32,
        source.path.len() as u32,
        payload.len() as u32,
        raw_len,
        num_lines(&chunk.bytes),
        piece_index,
        source.generation,
        source.head_len_bytes,
    ] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    for number in [source.head_hash, source.id, source.device, source.inode, chunk.first_byte] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    header.extend_from_slice(&chunk.reference_time.to_le_bytes());
    header.extend_from_slice(&chunk.content_sha256);
    header.extend_from_slice(source.path.as_bytes());
    if let Some(trace) = trace {
        header.extend_from_slice(&trace.trace_id);
        header.extend_from_slice(&trace.span_id);
        header.push(trace.flags);
    }
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&header), &payload);
    header.extend_from_slice(&checksum.to_le_bytes());
    Ok(EncodedFrame { header: header.into(), payload })
}

fn within(what: &'static str, len_bytes: usize, max_bytes: usize) -> Result<u32, FrameError> {
    if len_bytes > max_bytes {
        return Err(FrameError::TooLarge { what, len_bytes: len_bytes as u64, max_bytes });
    }
    Ok(len_bytes as u32)
}

fn num_lines(bytes: &[u8]) -> u32 {
    let is_unended = bytes.last().is_some_and(|last| *last != b'\n');
    memchr::memchr_iter(b'\n', bytes).count() as u32 + u32::from(is_unended)
}

/// The flag bits of what was done, and the payload.
fn compress(bytes: &Bytes, compression: Compression) -> (u8, Bytes) {
    let (flag, compressed) = match compression {
        Compression::None => (0, None),
        Compression::Lz4 => (1, Some(lz4_flex::block::compress(bytes))),
        Compression::Zstd => (2, zstd::bulk::compress(bytes, 1).ok()),
    };
    match compressed.filter(|compressed| compressed.len() < bytes.len()) {
        Some(compressed) => (flag, compressed.into()),
        None => (0, bytes.clone()),
    }
}

/// Takes a frame apart. The chunk's bytes are the frame's own unless they were compressed.
pub fn parse(frame: Bytes) -> Result<Frame, FrameError> {
    within("frame", frame.len(), MAX_FRAME_BYTES)?;
    let mut fields = Fields { rest: &frame, len_bytes: frame.len() };
    if !frame.starts_with(&MAGIC) {
        return Err(FrameError::Magic { found: frame[..frame.len().min(MAGIC.len())].to_vec() });
    }
    fields.take::<4>()?;
    match fields.take()? {
        [VERSION] => parse_version_1(&frame, fields),
        [found] => Err(FrameError::Version { found }),
    }
}

fn parse_version_1(frame: &Bytes, mut fields: Fields<'_>) -> Result<Frame, FrameError> {
    let [flags] = fields.take()?;
    let trace_len = usize::from(u16::from_le_bytes(fields.take()?));
    let [header_len, path_len, payload_len, raw_len, num_lines, piece_index, generation, head_len_bytes] =
        fields.numbers(u32::from_le_bytes)?;
    let [head_hash, id, device, inode, first_byte] = fields.numbers(u64::from_le_bytes)?;
    let reference_time = i64::from_le_bytes(fields.take()?);
    let content_sha256 = fields.take()?;

    within("header", header_len as usize, MAX_HEADER_BYTES)?;
    within("chunk", raw_len as usize, MAX_PAYLOAD_BYTES)?;
    let torn = |expected| FrameError::Torn { expected, found: frame.len() };
    let named = FIXED_BYTES as u64 + u64::from(path_len) + trace_len as u64 + CHECKSUM_BYTES as u64;
    let expected = u64::from(header_len) + u64::from(payload_len);
    if named != u64::from(header_len) || ![0, TRACE_BYTES].contains(&trace_len) {
        return Err(torn(named + u64::from(payload_len)));
    }
    if expected != frame.len() as u64 {
        return Err(torn(expected));
    }
    let path = fields.slice(path_len as usize)?;
    let trace = match trace_len {
        0 => None,
        _ => {
            let (trace_id, span_id, [flags]) = (fields.take()?, fields.take()?, fields.take()?);
            Some(TraceContext { trace_id, span_id, flags })
        }
    };
    let checksum = u32::from_le_bytes(fields.take()?);
    let (covered, payload) =
        (&frame[..header_len as usize - CHECKSUM_BYTES], frame.slice(header_len as usize..));
    let found = crc32c::crc32c_append(crc32c::crc32c(covered), &payload);
    if checksum != found {
        return Err(FrameError::Checksum { expected: checksum, found });
    }

    // from here on it is what some writer meant
    if flags & !(COMPRESSION | PIECE | LAST_PIECE | OPEN) != 0 {
        return Err(FrameError::Flags(flags));
    }
    let end_byte = first_byte.checked_add(u64::from(raw_len));
    if raw_len == 0 || end_byte.is_none_or(|end| i64::try_from(end).is_err()) {
        return Err(FrameError::Range { first_byte, len_bytes: raw_len });
    }
    let path = std::str::from_utf8(path).ok().filter(|path| !path.contains('\0'));
    let path = path.ok_or(FrameError::Path)?.to_owned();
    let bytes = decompress(payload, flags, raw_len)?;
    let piece = Piece { index: piece_index, last: flags & LAST_PIECE != 0 };
    let source = Source { path, device, inode, generation, head_len_bytes, head_hash, id };
    let chunk = RawChunk {
        source: Arc::new(source),
        first_byte,
        bytes,
        content_sha256,
        reference_time,
        piece: (flags & PIECE != 0).then_some(piece),
        open: flags & OPEN != 0,
    };
    Ok(Frame { chunk, num_lines, trace })
}

/// `raw_len` is within its limit.
fn decompress(payload: Bytes, flags: u8, raw_len: u32) -> Result<Bytes, FrameError> {
    let capacity = raw_len as usize;
    let bytes = match flags & COMPRESSION {
        0 => Some(payload),
        1 => lz4_flex::block::decompress(&payload, capacity).ok().map(Bytes::from),
        2 => zstd::bulk::decompress(&payload, capacity).ok().map(Bytes::from),
        _ => return Err(FrameError::Flags(flags)),
    };
    bytes.filter(|bytes| bytes.len() == capacity).ok_or(FrameError::Decompressed(raw_len))
}

struct Fields<'a> {
    rest: &'a [u8],
    len_bytes: usize,
}

impl<'a> Fields<'a> {
    fn slice(&mut self, len_bytes: usize) -> Result<&'a [u8], FrameError> {
        let Some((field, rest)) = self.rest.split_at_checked(len_bytes) else {
            let read = self.len_bytes - self.rest.len();
            return Err(FrameError::Torn { expected: (read + len_bytes) as u64, found: self.len_bytes });
        };
        self.rest = rest;
        Ok(field)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let mut field = [0; N];
        field.copy_from_slice(self.slice(N)?);
        Ok(field)
    }

    fn numbers<const WIDTH: usize, const N: usize, T: Copy + Default>(
        &mut self,
        number: fn([u8; WIDTH]) -> T,
    ) -> Result<[T; N], FrameError> {
        let mut numbers = [T::default(); N];
        for field in &mut numbers {
            *field = number(self.take()?);
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunk(bytes: &[u8]) -> RawChunk {
        let source = Source {
            path: "/var/log/ä.log".into(),
            device: 1,
            inode: 2,
            generation: 3,
            head_len_bytes: 4,
            head_hash: 5,
            id: 6,
        };
        RawChunk {
            source: Arc::new(source),
            first_byte: 7,
            bytes: Bytes::copy_from_slice(bytes),
            content_sha256: [8; 32],
            reference_time: -9,
            piece: None,
            open: false,
        }
    }

    fn bytes_of(frame: &EncodedFrame) -> Vec<u8> {
        [&frame.header[..], &frame.payload[..]].concat()
    }

    fn encoded(chunk: &RawChunk, compression: Compression) -> Vec<u8> {
        bytes_of(&encode(chunk, compression, None).unwrap())
    }

    /// Makes the checksum right again, so that what is behind it is reached.
    fn checksummed(mut frame: Vec<u8>) -> Bytes {
        let header_len = u32::from_le_bytes(frame[8..12].try_into().unwrap()) as usize;
        let end = header_len - CHECKSUM_BYTES;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&frame[..end]), &frame[header_len..]);
        frame[end..header_len].copy_from_slice(&checksum.to_le_bytes());
        frame.into()
    }

    fn changed(at: usize, to: &[u8]) -> Bytes {
        let mut frame = encoded(&chunk(&b"a\n".repeat(100)), Compression::Lz4);
        frame[at..at + to.len()].copy_from_slice(to);
        checksummed(frame)
    }

    fn compressions() -> impl Strategy<Value = Compression> {
        prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)]
    }

    prop_compose! {
        fn chunks()(
            (path, device, inode, generation) in ("[^\0]*", any::<u64>(), any::<u64>(), any::<u32>()),
            (head_len_bytes, head_hash, id) in (any::<u32>(), any::<u64>(), any::<u64>()),
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'a'), any::<u8>()], 1..2000),
            first_byte in 0..i64::MAX as u64 - 2000,
            (content_sha256, reference_time, open) in (any::<[u8; 32]>(), any::<i64>(), any::<bool>()),
            piece in proptest::option::of((any::<u32>(), any::<bool>())),
        ) -> RawChunk {
            let source = Source { path, device, inode, generation, head_len_bytes, head_hash, id };
            let piece = piece.map(|(index, last)| Piece { index, last });
            let (source, bytes) = (Arc::new(source), Bytes::from(bytes));
            RawChunk { source, first_byte, bytes, content_sha256, reference_time, piece, open }
        }
    }

    proptest! {
        #[test]
        fn what_is_parsed_is_what_was_encoded(
            chunk in chunks(),
            compression in compressions(),
            trace in proptest::option::of((any::<[u8; 16]>(), any::<[u8; 8]>(), any::<u8>())),
        ) {
            let trace = trace.map(|(trace_id, span_id, flags)| TraceContext { trace_id, span_id, flags });
            let frame = encode(&chunk, compression, trace.as_ref()).unwrap();
            let parsed = parse(bytes_of(&frame).into()).unwrap();
            prop_assert_eq!(format!("{:?}", parsed.chunk), format!("{chunk:?}"));
            prop_assert_eq!(parsed.trace, trace);
            let lines = chunk.bytes.split_inclusive(|byte| *byte == b'\n').count();
            prop_assert_eq!(parsed.num_lines as usize, lines);
        }

        #[test]
        fn a_frame_that_is_cut_or_changed_is_never_taken_for_one(
            chunk in chunks(),
            compression in compressions(),
            at in any::<prop::sample::Index>(),
            bit in 0..8u32,
        ) {
            let frame = encoded(&chunk, compression);
            let at = at.index(frame.len());
            prop_assert!(parse(frame[..at].to_vec().into()).is_err());
            let mut flipped = frame;
            flipped[at] ^= 1u8 << bit;
            prop_assert!(parse(flipped.into()).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), version in any::<u8>()) {
            let _refused = parse(bytes.clone().into());
            let _refused = parse([&MAGIC[..], &[version], &bytes].concat().into());
        }

        #[test]
        fn no_field_panics_behind_a_right_checksum(at in 12..FIXED_BYTES - 8, to in any::<[u8; 8]>()) {
            let _outcome = parse(changed(at, &to));
        }
    }

    #[test]
    fn bytes_are_neither_copied_nor_compressed_where_that_does_not_pay() {
        let one = chunk(b"ab");
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            assert_eq!(encode(&one, compression, None).unwrap().payload.as_ptr(), one.bytes.as_ptr());
        }
        let frame = Bytes::from(encoded(&one, Compression::None));
        let payload = frame[frame.len() - 2..].as_ptr();
        assert_eq!(parse(frame).unwrap().chunk.bytes.as_ptr(), payload);
    }

    #[test]
    fn compression_makes_lines_smaller() {
        let lines = chunk(&b"2024-01-15T00:00:03Z|action=reject\n".repeat(100));
        for compression in [Compression::Lz4, Compression::Zstd] {
            assert!(encode(&lines, compression, None).unwrap().payload.len() < lines.bytes.len() / 10);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let frame = encoded(&chunk(b"a\n"), Compression::None);
        let len_bytes = frame.len();
        let changed_at = |at: usize, to: u8| {
            let mut frame = frame.clone();
            frame[at] = to;
            parse(frame.into()).unwrap_err()
        };
        assert_eq!(parse(Bytes::new()).unwrap_err(), FrameError::Magic { found: vec![] });
        assert_eq!(changed_at(0, b'Q'), FrameError::Magic { found: b"QLFR".to_vec() });
        assert_eq!(changed_at(4, 2), FrameError::Version { found: 2 });
        let torn = FrameError::Torn { expected: len_bytes as u64, found: len_bytes - 1 };
        assert_eq!(parse(frame[..len_bytes - 1].to_vec().into()).unwrap_err(), torn);
        assert!(matches!(changed_at(len_bytes - 1, b'b'), FrameError::Checksum { .. }));
        assert_eq!(parse(changed(5, &[0b0010_0001])).unwrap_err(), FrameError::Flags(0b0010_0001));
        assert_eq!(parse(changed(5, &[0b0000_0011])).unwrap_err(), FrameError::Flags(0b0000_0011));
        assert_eq!(parse(changed(FIXED_BYTES, &[0xff])).unwrap_err(), FrameError::Path);
        let beyond = FrameError::Range { first_byte: u64::MAX, len_bytes: 200 };
        assert_eq!(parse(changed(72, &[0xff; 8])).unwrap_err(), beyond);
        assert_eq!(parse(changed(FIXED_BYTES + 1, b"\0")).unwrap_err(), FrameError::Path);
        // the chunk has 200 bytes
        assert!(parse(changed(72, &(i64::MAX - 200).to_le_bytes())).is_ok());
        let beyond = FrameError::Range { first_byte: i64::MAX as u64 - 199, len_bytes: 200 };
        assert_eq!(parse(changed(72, &(i64::MAX - 199).to_le_bytes())).unwrap_err(), beyond);
        assert_eq!(parse(changed(20, &[199, 0])).unwrap_err(), FrameError::Decompressed(199));
        assert_eq!(parse(changed(20, &[201, 0])).unwrap_err(), FrameError::Decompressed(201));
        assert!(matches!(parse(changed(20, &[0; 4])).unwrap_err(), FrameError::Range { len_bytes: 0, .. }));
    }

    #[test]
    fn what_is_too_large_is_refused_before_anything_is_allocated() {
        let claimed = parse(changed(20, &u32::MAX.to_le_bytes())).unwrap_err();
        assert!(matches!(claimed, FrameError::TooLarge { what: "chunk", .. }), "{claimed}");
        let large = chunk(&vec![b'a'; MAX_PAYLOAD_BYTES + 1]);
        let refused = encode(&large, Compression::Zstd, None).unwrap_err();
        assert!(matches!(refused, FrameError::TooLarge { what: "chunk", .. }), "{refused}");
        assert!(refused.to_string().ends_with("use a smaller --chunk-size"));
    }
}
