//! Undoes gzip, zstd, zip and tar in gzip, recognised by first bytes: one file becomes those that are in it.
//!
//! Invariants: nothing is written outside of the folder, whatever an archive calls its files; what is unpacked is bounded
//! in bytes, in files and in proportion to what was packed, so that a bomb ends as an error. Links, devices and folders
//! of an archive are left out. Every call blocks.
use std::cell::Cell;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::read::MultiGzDecoder;
use thiserror::Error;

use super::name::safe_name;

/// A ratio says nothing of a small file.
const RATIO_FROM_BYTES: u64 = 16 << 20;
/// Where the letters `ustar` are in a tar.
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");
const TAR_BLOCK: usize = 512;
/// Long names and other attributes of one entry, which are kept in memory.
const MAX_TAR_HEADERS: u64 = 256 << 10;

/// What an archive may become.
#[derive(Debug, Clone, Copy)]
pub struct UnpackLimits {
    /// Bytes in all.
    pub max_bytes: u64,
    /// Times the packed bytes, from 16 MiB on.
    pub max_ratio: u64,
    /// Files.
    pub max_files: usize,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        // repetitive logs come to 50 or 100, a bomb of zeros in gzip to 1000
        Self { max_bytes: 64 << 30, max_ratio: 250, max_files: 10_000 }
    }
}

/// Why a file cannot be unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// It is damaged, or uses what is not supported.
    #[error("{0}; download it again, or check it with its own program")]
    Damaged(String),
    /// It would become too much.
    #[error("it unpacks to more than {0}")]
    TooMuch(String),
    /// The disk.
    #[error("{}: cannot be written", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Unpacks `file`, called `name`, into the new folder `into`. `None` where it is not packed.
pub fn unpack(
    file: &Path,
    name: &str,
    into: &Path,
    limits: UnpackLimits,
) -> Result<Option<Vec<PathBuf>>, UnpackError> {
    let disk = |path: &Path| {
        let path = path.to_owned();
        move |source| UnpackError::Disk { path, source }
    };
    let mut start = [0; 4];
    let mut opened = File::open(file).map_err(disk(file))?;
    let metadata = opened.metadata().map_err(disk(file))?;
    let (packed_bytes, modified) = (metadata.len(), metadata.modified().map_err(disk(file))?);
    let len = read_full(&mut opened, &mut start).map_err(disk(file))?;
    let mut packed = File::open(file).map_err(disk(file))?;
    let kind = match &start[..len] {
        [0x1f, 0x8b, 0x08, ..] => Kind::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Kind::Zstd,
        [b'P', b'K', 3, 4] | [b'P', b'K', 5, 6] => Kind::Zip,
        _ => return Ok(None),
    };
    match std::fs::remove_dir_all(into) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk(into)(error)),
        _ => std::fs::create_dir_all(into).map_err(disk(into))?,
    }
    let guard = Guard { limits, packed_bytes, read: Cell::new(0), headers: Cell::new(None) };
    let mut out =
        Unpacked { into, modified, guard: &guard, bytes: 0, files: Vec::new(), names: HashSet::new() };
    if let Err(error) = unpack_as(kind, &mut packed, name, &mut out) {
        // what is there of it would only be in the way
        let _removed = std::fs::remove_dir_all(into);
        return Err(guard.excess(guard.read.get()).map_or(error, UnpackError::TooMuch));
    }
    Ok(Some(out.files))
}

fn unpack_as(kind: Kind, packed: &mut File, name: &str, out: &mut Unpacked<'_>) -> Result<(), UnpackError> {
    match kind {
        Kind::Gzip => {
            let content = MultiGzDecoder::new(BufReader::with_capacity(64 << 10, packed));
            out.stream(content, &without(name, &[".gz", ".gzip"]))?;
        }
        Kind::Zstd => {
            let content = zstd::stream::read::Decoder::new(packed).map_err(damaged)?;
            out.stream(content, &without(name, &[".zst", ".zstd"]))?;
        }
        Kind::Zip => {
            let mut zip = zip::ZipArchive::new(packed).map_err(damaged)?;
            for index in 0..zip.len() {
                let mut entry = zip.by_index(index).map_err(damaged)?;
                if entry.is_file() && !entry.is_symlink() {
                    let name = entry.name().map_err(damaged)?.into_owned();
                    out.file(&mut entry, &name)?;
                }
            }
        }
    }
    Ok(())
}

enum Kind {
    Gzip,
    Zstd,
    Zip,
}

fn damaged(cause: impl std::fmt::Display) -> UnpackError {
    UnpackError::Damaged(cause.to_string())
}

fn without(name: &str, extensions: &[&str]) -> String {
    let tar = [(".tgz", ".tar"), (".tzst", ".tar")];
    if let Some((stem, extension)) =
        tar.iter().find_map(|(packed, plain)| Some((name.strip_suffix(packed)?, plain)))
    {
        return format!("{stem}{extension}");
    }
    extensions.iter().find_map(|extension| name.strip_suffix(extension)).unwrap_or(name).to_owned()
}

fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match from.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(came) => len += came,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// What is allowed, and what was read of it.
struct Guard {
    limits: UnpackLimits,
    packed_bytes: u64,
    read: Cell<u64>,
    /// Bytes until the next entry of a tar has to begin.
    headers: Cell<Option<u64>>,
}

impl Guard {
    /// What so many bytes are more than.
    fn excess(&self, bytes: u64) -> Option<String> {
        let UnpackLimits { max_bytes, max_ratio, .. } = self.limits;
        let by_ratio = self.packed_bytes.saturating_mul(max_ratio).max(RATIO_FROM_BYTES);
        if bytes > max_bytes {
            return Some(format!("{max_bytes} bytes; if it is no bomb, raise --max-unpacked-gib"));
        }
        (bytes > by_ratio)
            .then(|| format!("{max_ratio} times its size; if it is no bomb, raise --max-unpack-ratio"))
    }
}

/// A decompressed stream that ends as an error where it becomes too much, whoever reads it.
struct Guarded<'a, R> {
    inner: R,
    guard: &'a Guard,
}

impl<R: Read> Read for Guarded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        let read = self.guard.read.get() + len as u64;
        self.guard.read.set(read);
        if let Some(excess) = self.guard.excess(read) {
            return Err(io::Error::other(format!("more than {excess}")));
        }
        if let Some(left) = self.guard.headers.get() {
            let left = left.checked_sub(len as u64);
            self.guard
                .headers
                .set(Some(left.ok_or_else(|| io::Error::other("an entry of the tar has too long a name"))?));
        }
        Ok(len)
    }
}

struct Unpacked<'a> {
    /// Of the packed file.
    modified: SystemTime,
    into: &'a Path,
    guard: &'a Guard,
    bytes: u64,
    files: Vec<PathBuf>,
    names: HashSet<String>,
}

impl Unpacked<'_> {
    /// A decompressed stream: a tar if it looks like one, else a file.
    fn stream(&mut self, content: impl Read, name: &str) -> Result<(), UnpackError> {
        let mut content = Guarded { inner: content, guard: self.guard };
        let mut start = [0; TAR_BLOCK];
        let len = read_full(&mut content, &mut start).map_err(damaged)?;
        let is_tar = len == TAR_BLOCK && start[TAR_MAGIC.0..].starts_with(TAR_MAGIC.1);
        let mut content = io::Cursor::new(start).take(len as u64).chain(content);
        if !is_tar {
            return self.file(&mut content, name);
        }
        let mut tar = tar::Archive::new(content);
        let mut entries = tar.entries().map_err(damaged)?;
        loop {
            // all that is read until there is an entry is kept in memory
            self.guard.headers.set(Some(MAX_TAR_HEADERS));
            let entry = entries.next();
            self.guard.headers.set(None);
            let Some(entry) = entry else { break };
            let mut entry = entry.map_err(damaged)?;
            let kind = entry.header().entry_type();
            if kind.is_file() || kind.is_gnu_sparse() {
                let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                self.file(&mut entry, &name)?;
            } else {
                io::copy(&mut entry, &mut io::sink()).map_err(damaged)?;
            }
        }
        // a tar ends before its stream does, and the stream's checksum is at its end
        io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(damaged)?;
        Ok(())
    }

    fn file(&mut self, content: &mut impl Read, name: &str) -> Result<(), UnpackError> {
        let max_files = self.guard.limits.max_files;
        if self.files.len() >= max_files {
            return Err(UnpackError::TooMuch(format!(
                "{max_files} files; if it is no bomb, unpack it by exec"
            )));
        }
        let path = self.into.join(self.free_name(name));
        let disk = |source| UnpackError::Disk { path: path.clone(), source };
        let mut file = File::create_new(&path).map_err(disk)?;
        let mut buffer = vec![0; 128 << 10];
        loop {
            let len = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(damaged(error)),
            };
            self.bytes += len as u64;
            if let Some(excess) = self.guard.excess(self.bytes) {
                return Err(UnpackError::TooMuch(excess));
            }
            file.write_all(&buffer[..len]).map_err(disk)?;
        }
        // times without a year are read by it
        file.set_modified(self.modified).map_err(disk)?;
        self.files.push(path);
        Ok(())
    }

    /// Two folders of an archive may hold files of one name.
    fn free_name(&mut self, name: &str) -> String {
        let safe = safe_name(name);
        let numbered = (1..).map(|number| format!("{number}-{safe}"));
        let free = std::iter::once(safe.clone()).chain(numbered).find(|name| !self.names.contains(name));
        let free = free.unwrap_or(safe);
        self.names.insert(free.clone());
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            // as an attacker writes it: the builder would refuse
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpacked(packed: &[u8], name: &str, limits: UnpackLimits) -> Result<Vec<(String, Vec<u8>)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("packed");
        std::fs::write(&file, packed).unwrap();
        let into = folder.path().join("out");
        let files =
            unpack(&file, name, &into, limits).map_err(|error| error.to_string())?.unwrap_or_default();
        Ok(files
            .into_iter()
            .map(|path| {
                assert_eq!(path.parent().unwrap(), into);
                (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap())
            })
            .collect())
    }

    #[test]
    fn every_kind_gives_back_what_was_packed() {
        let limits = UnpackLimits::default();
        let one = vec![("a.log".to_owned(), b"line\n".to_vec())];
        let twice = [gzip(b"li"), gzip(b"ne\n")].concat();
        assert_eq!(unpacked(&twice, "a.log.gz", limits).unwrap(), one);
        let zstd = zstd::encode_all(&b"line\n"[..], 1).unwrap();
        assert_eq!(unpacked(&zstd, "a.log.zst", limits).unwrap(), one);
        let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        zip.start_file("../a.log", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(b"line\n").unwrap();
        let zip = zip.finish().unwrap().into_inner();
        assert_eq!(unpacked(&zip, "x.zip", limits).unwrap(), one);
        let tar = gzip(&tar_of(&[("../../a.log", b"line\n"), ("/etc/a.log", b"2"), ("..", b"3")]));
        let names: Vec<_> =
            unpacked(&tar, "x.tgz", limits).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a.log", "1-a.log", "file"]);
        assert!(unpacked(b"plain", "a.log", limits).unwrap().is_empty());
    }

    #[test]
    fn bombs_and_damage_are_errors() {
        let bomb = gzip(&vec![0; 40 << 20]);
        let error = unpacked(&bomb, "a.gz", UnpackLimits::default()).unwrap_err();
        assert!(error.contains("more than 250 times its size"), "{error}");
        let small = UnpackLimits { max_bytes: 3, ..UnpackLimits::default() };
        assert!(unpacked(&gzip(b"line\n"), "a.gz", small).unwrap_err().contains("more than 3 bytes"));
        let few = UnpackLimits { max_files: 1, ..UnpackLimits::default() };
        let two = gzip(&tar_of(&[("a", b"1"), ("b", b"2")]));
        assert!(unpacked(&two, "a.tgz", few).unwrap_err().contains("more than 1 files"));
        let mut damaged = gzip(&tar_of(&[("a", b"1")]));
        let checksum = damaged.len() - 8;
        damaged[checksum] ^= 1;
        assert!(unpacked(&damaged, "a.tgz", UnpackLimits::default()).is_err(), "a tar's checksum counts too");
        let cut = gzip(b"line\n");
        assert!(unpacked(&cut[..cut.len() - 9], "a.gz", UnpackLimits::default()).is_err());
    }
    #[test]
    fn a_name_without_end_is_refused_and_a_long_one_is_not() {
        let long_name = |len: usize| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::GNULongName);
            header.set_size(len as u64);
            header.set_cksum();
            let mut bytes = header.as_bytes().to_vec();
            bytes.resize(TAR_BLOCK + len.next_multiple_of(TAR_BLOCK), b'n');
            bytes.extend(tar_of(&[("a", b"1")]));
            gzip(&bytes)
        };
        assert_eq!(unpacked(&long_name(300), "a.tgz", UnpackLimits::default()).unwrap().len(), 1);
        let error = unpacked(&long_name(1 << 20), "a.tgz", UnpackLimits::default()).unwrap_err();
        assert!(error.contains("too long a name"), "{error}");
    }

    #[test]
    fn what_is_unpacked_is_as_old_as_its_archive() {
        let folder = tempfile::tempdir().unwrap();
        let (path, into) = (folder.path().join("a.gz"), folder.path().join("out"));
        std::fs::write(&path, gzip(b"line\n")).unwrap();
        let modified = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_559_347_200);
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        let files = unpack(&path, "a.gz", &into, UnpackLimits::default()).unwrap().unwrap();
        assert_eq!(std::fs::metadata(&files[0]).unwrap().modified().unwrap(), modified);
    }

    #[test]
    fn what_failed_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (file, into) = (folder.path().join("a.gz"), folder.path().join("out"));
        let packed = gzip(&vec![7; 1 << 20]);
        std::fs::write(&file, &packed[..packed.len() - 4]).unwrap();
        assert!(unpack(&file, "a.gz", &into, UnpackLimits::default()).is_err());
        assert!(!into.exists());
    }
}
