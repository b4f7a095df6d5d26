//! What is fed to the pipeline: the standard generated lines in a folder of their own, or files that are named.
use std::fs;
use std::path::{Path, PathBuf};

use super::BenchError;
use crate::generate::{FileSet, Generator, LineType};
use crate::log_type::LogTypes;

/// The seed of the standard data.
pub const SEED: u64 = 42;
/// The lines are spread over at most so many files.
const MAX_FILES: u64 = 8;

/// Files to read; a folder that was made for them is removed when this is dropped.
pub struct Input {
    paths: Vec<PathBuf>,
    folder: Option<PathBuf>,
    total_bytes: Option<u64>,
}

impl Input {
    /// Generated lines of the types that have a `[generate]` table among `names`, in a new folder below `parent`.
    pub fn generate(types: &LogTypes, names: &[&str], lines: u64, parent: &Path) -> Result<Self, BenchError> {
        let line_types: Result<Vec<_>, _> =
            names.iter().filter_map(|name| LineType::of(types.get(name)?)).collect();
        let mut generator = Generator::try_new(&line_types?, SEED)?;
        let folder = parent.join(format!("pipeline-bench-{}", std::process::id()));
        // made first, so that it is removed whatever happens then
        let mut input = Self { paths: vec![folder.clone()], folder: Some(folder.clone()), total_bytes: None };
        let files = (1..=MAX_FILES).rev().find(|files| lines.is_multiple_of(*files)).unwrap_or(1);
        let set = FileSet {
            out: folder,
            files: u32::try_from(files).unwrap_or(1),
            lines_per_file: lines / files,
            force: true,
        };
        input.total_bytes = Some(set.write(&mut generator)?.len_bytes);
        Ok(input)
    }

    /// These files and folders, as `pipeline run` takes them.
    pub fn named(paths: Vec<PathBuf>) -> Self {
        let lengths = paths.iter().map(|path| fs::metadata(path).ok().filter(|file| file.is_file()));
        // of folders, globs and compressed files the length is known when they are read
        let total_bytes = lengths
            .zip(&paths)
            .map(|(file, path)| {
                let is_plain = path.extension().is_some_and(|extension| extension == "log");
                file.filter(|_| is_plain).map(|file| file.len())
            })
            .sum();
        Self { paths, folder: None, total_bytes }
    }

    /// What to give to a reader.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Bytes in all, where they are known.
    pub fn total_bytes(&self) -> Option<u64> {
        self.total_bytes
    }

    /// The first `count` lines, with the name of their file.
    pub fn first_lines(&self, count: usize) -> Result<Vec<(String, String)>, BenchError> {
        let mut files = Vec::new();
        for path in &self.paths {
            match path.is_dir() {
                true => {
                    let entries =
                        fs::read_dir(path).map_err(BenchError::io(format!("list {}", path.display())))?;
                    let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
                    found.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
                    found.sort();
                    files.extend(found);
                }
                false => files.push(path.clone()),
            }
        }
        let mut lines = Vec::new();
        for path in files {
            if lines.len() >= count {
                break;
            }
            let bytes = fs::read(&path).map_err(BenchError::io(format!("read {}", path.display())))?;
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let whole = text.lines().filter(|line| !line.trim().is_empty());
            lines.extend(whole.take(count - lines.len()).map(|line| (name.clone(), line.to_owned())));
        }
        match lines.is_empty() {
            true => Err(BenchError::NoLines { path: self.paths.first().cloned().unwrap_or_default() }),
            false => Ok(lines),
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            // a folder of temporary files that stays is no reason to fail
            let _removed = fs::remove_dir_all(folder);
        }
    }
}
