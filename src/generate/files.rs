//! Writes a run of generated lines to files `logs_0000.log ..`.
//!
//! Invariants: nothing is written when a file would be overwritten without `force`; a file gets its final
//! name only when it is whole, so a killed run leaves `.partial` files and no half file that looks whole.
//! Deliberately absent: fsync. These are test data, made again with the same seed.
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{GenerateError, Generator};

/// Bytes handed to the operating system at once.
const WRITE_BYTES: usize = 1 << 20;

/// Where a run goes, and how long it is.
#[derive(Debug, Clone)]
pub struct FileSet {
    /// Folder, made if need be.
    pub out: PathBuf,
    /// Number of files.
    pub files: u32,
    /// Lines in each file.
    pub lines_per_file: u64,
    /// Replace files that exist.
    pub force: bool,
}

/// What a run wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generated {
    /// Files.
    pub num_files: u32,
    /// Lines in all.
    pub num_lines: u64,
    /// Bytes in all.
    pub len_bytes: u64,
}

impl FileSet {
    /// Writes the generator's next lines to the files.
    pub fn write(&self, generator: &mut Generator) -> Result<Generated, GenerateError> {
        let paths: Vec<PathBuf> =
            (0..self.files).map(|n| self.out.join(format!("logs_{n:04}.log"))).collect();
        if !self.force
            && let Some(path) = paths.iter().find(|path| path.exists())
        {
            return Err(GenerateError::Exists { path: path.clone() });
        }
        fs::create_dir_all(&self.out).map_err(|source| io("create folder", &self.out, source))?;
        let mut len_bytes = 0;
        for path in &paths {
            len_bytes += self.write_file(path, generator)?;
        }
        let num_lines = u64::from(self.files) * self.lines_per_file;
        Ok(Generated { num_files: self.files, num_lines, len_bytes })
    }

    fn write_file(&self, path: &Path, generator: &mut Generator) -> Result<u64, GenerateError> {
        let partial = path.with_extension("log.partial");
        let written =
            File::create(&partial).and_then(|file| write_lines(file, self.lines_per_file, generator));
        written
            .map_err(|source| io("write", &partial, source))
            .and_then(|bytes| match fs::rename(&partial, path) {
                Ok(()) => Ok(bytes),
                Err(source) => Err(io("rename the finished file to", path, source)),
            })
            .inspect_err(|_| {
                // The first error is the one to report; a file left behind does not look whole.
                let _ = fs::remove_file(&partial);
            })
    }
}

fn write_lines(mut file: File, lines: u64, generator: &mut Generator) -> std::io::Result<u64> {
    let mut len_bytes = 0;
    let mut buffer = Vec::with_capacity(WRITE_BYTES + 64 * 1024);
    for line in 1..=lines {
        generator.next_line(&mut buffer);
        if buffer.len() >= WRITE_BYTES || line == lines {
            file.write_all(&buffer)?;
            len_bytes += buffer.len() as u64;
            buffer.clear();
        }
    }
    Ok(len_bytes)
}

fn io(operation: &'static str, path: &Path, source: std::io::Error) -> GenerateError {
    GenerateError::Io { operation, path: path.to_owned(), source }
}
