//! Undoes the compression of an input, recognised by its first bytes and never by its name.
//!
//! Several gzip members or zstd frames in a row are one stream. Deliberately absent: other formats; what is
//! not recognised is read as it is.
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::GzDecoder;

use super::SourceError;

/// How an input's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Encoding {
    /// How many first bytes decide.
    pub const MAGIC_BYTES: usize = 4;

    /// Recognises the encoding by the first bytes of an input.
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // a skippable frame first: pzstd and seekable zstd write these
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "text",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Whether more bytes could still turn `start` into a compressed input.
    fn undecided(start: &[u8]) -> bool {
        match start {
            [] => true,
            [first] => matches!(first, 0x1f | 0x28 | 0x50..=0x5f),
            [first, second, ..] => {
                start.len() < Self::MAGIC_BYTES
                    && matches!((first, second), (0x1f, 0x8b) | (0x28, 0xb5) | (0x50..=0x5f, 0x2a))
            }
        }
    }
}

type Raw = BufReader<Counted>;

/// An input's decompressed bytes.
pub(super) struct Decoded {
    inner: Inner,
    /// Stored bytes taken from the input.
    raw_bytes: Arc<AtomicU64>,
    /// Decompressed bytes given.
    bytes: u64,
}

enum Inner {
    Plain(Counted),
    /// `None` only while one member's decoder is exchanged for the next.
    Gzip(Option<Box<GzDecoder<Raw>>>),
    Zstd(zstd::stream::read::Decoder<'static, Raw>),
}

impl Decoded {
    /// Recognises and undoes the encoding of `input`.
    pub(super) fn try_new(mut input: Box<dyn Read + Send>) -> io::Result<Self> {
        let (mut start, mut len) = ([0; Encoding::MAGIC_BYTES], 0);
        // a slow stream's first short line must not wait for bytes that decide nothing
        while Encoding::undecided(&start[..len]) {
            match input.read(&mut start[len..]) {
                Ok(0) => break,
                Ok(came) => len += came,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let raw_bytes = Arc::new(AtomicU64::new(0));
        let start_again = io::Cursor::new(start).take(len as u64);
        let counted = Counted { input: Box::new(start_again.chain(input)), count: Arc::clone(&raw_bytes) };
        let inner = match Encoding::detect(&start[..len]) {
            Encoding::Plain => Inner::Plain(counted),
            Encoding::Gzip => {
                Inner::Gzip(Some(Box::new(GzDecoder::new(BufReader::with_capacity(64 << 10, counted)))))
            }
            Encoding::Zstd => Inner::Zstd(zstd::stream::read::Decoder::with_buffer(
                BufReader::with_capacity(64 << 10, counted),
            )?),
        };
        Ok(Self { inner, raw_bytes, bytes: 0 })
    }

    /// Stored bytes taken from the input so far.
    pub(super) fn raw_bytes(&self) -> u64 {
        self.raw_bytes.load(Ordering::Relaxed)
    }

    fn encoding(&self) -> Encoding {
        match self.inner {
            Inner::Plain(_) => Encoding::Plain,
            Inner::Gzip(_) => Encoding::Gzip,
            Inner::Zstd(_) => Encoding::Zstd,
        }
    }

    /// Says what a failed read means.
    pub(super) fn explain(&self, path: &str, error: io::Error) -> SourceError {
        // the operating system's errors carry a number, the decompressors' do not
        let is_of_store = error.get_ref().is_some_and(|held| held.is::<SourceError>());
        if self.encoding() == Encoding::Plain || error.raw_os_error().is_some() || is_of_store {
            return SourceError::io("read", path, error);
        }
        let unread = match &self.inner {
            Inner::Gzip(Some(member)) => member.get_ref().buffer().len(),
            Inner::Zstd(decoder) => decoder.get_ref().buffer().len(),
            Inner::Plain(_) | Inner::Gzip(None) => 0,
        };
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
            _ => error.to_string(),
        };
        SourceError::Corrupt {
            path: path.to_owned(),
            encoding: self.encoding().name(),
            raw_byte: self.raw_bytes() - unread as u64,
            byte: self.bytes,
            reason,
        }
    }

    fn read_once(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let slot = match &mut self.inner {
            Inner::Plain(input) => return input.read(buffer),
            Inner::Zstd(decoder) => return decoder.read(buffer),
            Inner::Gzip(slot) => slot,
        };
        while let Some(member) = slot {
            let came = member.read(buffer)?;
            if came > 0 || buffer.is_empty() || !has_another_member(member.get_mut())? {
                return Ok(came);
            }
            *slot = slot.take().map(|member| Box::new(GzDecoder::new(member.into_inner())));
        }
        Ok(0)
    }
}

impl Read for Decoded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.read_once(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                came => {
                    self.bytes += *came.as_ref().unwrap_or(&0) as u64;
                    return came;
                }
            }
        }
    }
}

/// Whether a gzip member follows. Zeros behind the last one are padding, as `gzip -d` has it.
fn has_another_member(raw: &mut Raw) -> io::Result<bool> {
    loop {
        let rest = raw.fill_buf()?;
        match rest.iter().position(|&byte| byte != 0) {
            None if rest.is_empty() => return Ok(false),
            None => {
                let len = rest.len();
                raw.consume(len);
            }
            Some(0) if rest[0] == 0x1f => return Ok(true),
            Some(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "no gzip member follows the last one",
                ));
            }
        }
    }
}

struct Counted {
    input: Box<dyn Read + Send>,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let came = self.input.read(buffer)?;
        self.count.fetch_add(came as u64, Ordering::Relaxed);
        Ok(came)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    pub(in crate::source) fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn read_all(stored: Vec<u8>) -> (Vec<u8>, Option<SourceError>) {
        let mut decoded = Decoded::try_new(Box::new(io::Cursor::new(stored))).unwrap();
        let mut content = Vec::new();
        // small reads, so that members and frames end between and within them
        let mut buffer = [0; 7];
        loop {
            match decoded.read(&mut buffer) {
                Ok(0) => return (content, None),
                Ok(len) => content.extend_from_slice(&buffer[..len]),
                Err(error) => return (content, Some(decoded.explain("in", error))),
            }
        }
    }

    #[test]
    fn members_and_frames_in_a_row_are_one_stream() {
        let zstd = |content: &[u8]| zstd::encode_all(content, 1).unwrap();
        let padded = [gzip(b"one\n"), gzip(b""), gzip(b"two\n"), vec![0; 600]].concat();
        let skippable =
            [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9], &zstd(b"one\n")[..], &zstd(b"two\n")].concat();
        for stored in [padded, [zstd(b"one\n"), zstd(b"two\n")].concat(), skippable, b"one\ntwo\n".to_vec()] {
            let (content, error) = read_all(stored);
            assert!(error.is_none(), "{error:?}");
            assert_eq!(content, b"one\ntwo\n");
        }
    }

    #[test]
    fn short_and_odd_starts_are_plain() {
        for stored in [&b""[..], b"\x1f", b"\x1f\x8b", b"P", b"P*M", b"(\xb5/", b"x"] {
            let (content, error) = read_all(stored.to_vec());
            assert!(error.is_none());
            assert_eq!(content, stored);
        }
    }

    #[test]
    fn damage_is_reported_with_its_place_after_what_came_before() {
        let lines: String = (0..10_000).map(|number| format!("{number} line\n")).collect();
        let first = gzip(lines.as_bytes());
        let cases = [
            ([&first[..], &first[..first.len() / 2]].concat(), "ends too early"),
            ([&first[..], b"garbage"].concat(), "no gzip member"),
            (zstd::encode_all(lines.as_bytes(), 1).unwrap()[..4_000].to_vec(), "ends too early"),
        ];
        for (stored, reason) in cases {
            let (len, gzip) = (stored.len() as u64, stored[0] == 0x1f);
            let (content, error) = read_all(stored);
            let error = error.unwrap();
            let SourceError::Corrupt { raw_byte, byte, .. } = &error else { panic!("{error}") };
            assert_eq!(*byte, content.len() as u64);
            assert!(*raw_byte <= len);
            assert!(!gzip || (*raw_byte >= first.len() as u64 && content.starts_with(lines.as_bytes())));
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
