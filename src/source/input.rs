//! What the given paths stand for: files, folders, globs, objects of a store, standard input and pipes.
//!
//! A folder stands for its log files, sorted by name: `*.log`, `*.log.gz`, `*.log.zst`, and rotated ones
//! (`app.log.1`, `app.log-20240131`), whose last lines may have been written after the last run. Rotated and
//! then compressed ones are left out: their content was most likely read before under another inode, and
//! would be read twice; a glob takes them. A folder is not searched deeper (a glob with `**` does that);
//! hidden files are left out, as a shell would; pipes are read only when named. A path that exists is never
//! taken for a glob. Deliberately absent: opening anything, and deciding whether two paths are one file (see
//! `identity`).
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use super::object::{self, Object, is_object_url};
use super::{SourceError, Stat};
use crate::client::redacted;

/// One thing to read.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Standard input (`-`).
    Stdin,
    /// A named pipe or a device: read once, to its end.
    Pipe(PathBuf),
    /// A regular file, by its absolute path.
    File(PathBuf, Stat),
    /// An object of a store.
    Object(Object),
}

impl Input {
    /// The path or URL; `-` is standard input.
    pub fn name(&self) -> String {
        match self {
            Self::Stdin => "-".to_owned(),
            Self::Pipe(path) | Self::File(path, _) => path.display().to_string(),
            Self::Object(object) => object.url(),
        }
    }
}

/// What the given paths stand for now.
#[derive(Debug, Default)]
pub struct Listing {
    /// In the order given; of a folder or glob, sorted by name.
    pub inputs: Vec<Input>,
    /// Paths, as given, that stand for nothing, and why.
    pub failures: Vec<(String, SourceError)>,
}

/// Lists what `paths` stand for. Blocking; for objects on a thread that belongs to a runtime.
pub fn list(paths: &[PathBuf]) -> Listing {
    list_some(paths, usize::MAX)
}

/// The same with at most so many objects of each URL: listing all of a large bucket takes minutes.
pub fn list_some(paths: &[PathBuf], num_objects: usize) -> Listing {
    let mut listing = Listing::default();
    for path in paths {
        let added = match is_object_url(path) {
            true => listing.add_objects(&path.to_string_lossy(), num_objects),
            false => listing.add(path),
        };
        if let Err(error) = added {
            listing.failures.push((redacted(&path.to_string_lossy()), error));
        }
    }
    listing
}

impl Listing {
    fn add(&mut self, path: &Path) -> Result<(), SourceError> {
        let name = path.to_string_lossy();
        if name == "-" {
            self.inputs.push(Input::Stdin);
            return Ok(());
        }
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => match self.add_folder(path)? {
                0 => Err(SourceError::EmptyFolder { path: name.into_owned() }),
                _ => Ok(()),
            },
            Ok(metadata) => self.add_file(path, &metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.contains(['*', '?', '[']) => {
                self.add_glob(&name)
            }
            Err(error) => Err(SourceError::io("find", &name, error)),
        }
    }

    fn add_objects(&mut self, location: &str, at_most: usize) -> Result<(), SourceError> {
        self.inputs.extend(object::list(location, at_most)?.into_iter().map(Input::Object));
        Ok(())
    }

    fn add_folder(&mut self, folder: &Path) -> Result<usize, SourceError> {
        let failed = |error| SourceError::io("list", &folder.display().to_string(), error);
        let entries =
            fs::read_dir(folder).map_err(failed)?.collect::<io::Result<Vec<_>>>().map_err(failed)?;
        let mut paths: Vec<_> =
            entries.into_iter().map(|entry| entry.path()).filter(|path| is_log(path)).collect();
        paths.sort_unstable();
        Ok(paths.iter().filter(|path| self.add_found(path, false)).count())
    }

    fn add_glob(&mut self, pattern: &str) -> Result<(), SourceError> {
        let paths = glob::glob(pattern).map_err(|error| SourceError::BadPattern {
            pattern: pattern.to_owned(),
            reason: error.to_string(),
        })?;
        let mut matched = false;
        for entry in paths {
            let found = entry.map_err(|error| {
                let path = error.path().display().to_string();
                SourceError::io("list", &path, error.into())
            });
            match found {
                Ok(path) => matched |= self.add_found(&path, true),
                Err(error) => self.failures.push((pattern.to_owned(), error)),
            }
        }
        match matched {
            true => Ok(()),
            false => Err(SourceError::NoMatch { pattern: pattern.to_owned() }),
        }
    }

    /// Adds what a folder or a glob came upon; says whether it is something to read.
    fn add_found(&mut self, path: &Path, by_glob: bool) -> bool {
        let added = match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() && by_glob => match self.add_folder(path) {
                Ok(count) => return count > 0,
                Err(error) => Err(error),
            },
            Ok(metadata) if !metadata.is_file() => return false,
            Ok(metadata) => self.add_file(path, &metadata),
            // gone since it was listed
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => return false,
            Err(error) => Err(SourceError::io("find", &path.display().to_string(), error)),
        };
        if let Err(error) = added {
            self.failures.push((path.display().to_string(), error));
        }
        true
    }

    fn add_file(&mut self, path: &Path, metadata: &Metadata) -> Result<(), SourceError> {
        let path = std::path::absolute(path)
            .map_err(|error| SourceError::io("find", &path.display().to_string(), error))?;
        self.inputs.push(match metadata.is_file() {
            true => Input::File(path, Stat::of(metadata)),
            false => Input::Pipe(path),
        });
        Ok(())
    }
}

/// Whether a folder's entry is a log file by its name.
pub(super) fn is_log(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let rotated = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let current = match rotated.len() < name.len() {
        true => rotated.strip_suffix(['.', '-']).unwrap_or(&name),
        false => name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name),
    };
    current.ends_with(".log") && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(listing: &Listing) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        let inputs = listing.inputs.iter().map(|input| match input {
            Input::File(path, _) | Input::Pipe(path) => name(path),
            Input::Object(object) => object.url(),
            Input::Stdin => "-".to_owned(),
        });
        inputs.collect()
    }

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_is_its_log_files_sorted_compressed_and_rotated_ones_too() {
        let logs = ["a.log", "a.log-20240131", "a.log.1", "b.log.gz", "c.log.zst", "d-1.log"];
        let others =
            [".hidden.log", "a.txt", "deeper/x.log", "log", "a.log.bak", "a.log.2.gz", "1", "a.log1"];
        let folder = folder(&[&others[..], &logs[..]].concat());
        fs::create_dir(folder.path().join("folder.log")).unwrap();
        let listing = list(&[folder.path().to_owned()]);
        assert_eq!(names(&listing), logs);
        assert!(listing.failures.is_empty());
    }

    #[test]
    fn a_glob_takes_what_it_matches_and_a_path_that_exists_is_not_a_glob() {
        let folder = folder(&["a.txt", "b.txt", "[ab].txt", "deep/er/c.log", "deep/er/d.txt"]);
        let at = |name: &str| folder.path().join(name);
        assert_eq!(names(&list(&[at("?.txt"), "-".into()])), ["a.txt", "b.txt", "-"]);
        assert_eq!(names(&list(&[at("[ab].txt")])), ["[ab].txt"]);
        assert_eq!(names(&list(&[at("**/*.log")])), ["c.log"]);
        assert_eq!(names(&list(&[at("deep/*")])), ["c.log"], "a folder that a glob matches is its log files");
    }

    #[test]
    fn what_stands_for_nothing_is_named_with_the_remedy_and_does_not_stop_the_others() {
        let folder = folder(&["a.log", "empty/x.txt"]);
        std::os::unix::fs::symlink("nowhere", folder.path().join("dangling.log")).unwrap();
        std::os::unix::fs::symlink("loop.log", folder.path().join("loop.log")).unwrap();
        let at = |name: &str| folder.path().join(name);
        let listing = list(&[at("missing"), at("*.gz"), at("empty"), at("a[.log"), folder.path().to_owned()]);
        assert_eq!(names(&listing), ["a.log"]);
        let errors: Vec<_> = listing.failures.iter().map(|(_, error)| error.to_string()).collect();
        let expected = [
            "does not exist; check the path",
            "no file matches",
            "holds no *.log",
            "is not a glob",
            "dangling.log does not exist",
            "cannot find",
        ];
        assert_eq!(errors.len(), expected.len(), "{errors:?}");
        for (error, expected) in errors.iter().zip(expected) {
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_pipe_is_not_a_file() {
        let listing = list(&["/dev/null".into()]);
        assert_eq!(listing.inputs, [Input::Pipe("/dev/null".into())]);
    }
}
