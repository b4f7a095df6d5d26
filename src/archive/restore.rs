//! Writes the sources back as files, byte for byte.
//!
//! A file has its name only once all of its bytes are written and compared with the hashes taken when they were
//! read; until then, and for good where they differ, it is `<name>.partial`. Compressed sources come back
//! decompressed, without their `.gz` or `.zst`. Deliberately absent: times, owners and permissions.
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Component, Path, PathBuf};

use super::{ArchiveError, Finding, LineFilter, OfArchive, SourceChunks, content};
use crate::lake::Archive;
use crate::model::Source;

/// A source and the file it came back as.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoredFile {
    /// The source.
    pub source: Source,
    /// The file. It exists if `findings` is empty.
    pub path: PathBuf,
    /// Bytes written.
    pub len_bytes: u64,
    /// Why it is not whole.
    pub findings: Vec<Finding>,
}

/// Writes every source that `is_wanted` below `out`, at its path relative to the folder that all of them share: all of
/// its lines, or those that `filter` wants, one after the other; a source without such a line is left out.
/// Nothing is written when a file is there already, unless `force`.
pub async fn restore(
    archive: &Archive,
    out: &Path,
    force: bool,
    filter: &LineFilter,
    is_wanted: impl Fn(&Source) -> bool,
) -> Result<Vec<RestoredFile>, ArchiveError> {
    // beside a writer whose last line grows, rows read later than the ledger would be others
    let holdings = OfArchive::at(archive, archive.moment().await?);
    let mut sources = SourceChunks::read(&holdings).await?;
    sources.retain(|of| is_wanted(&of.source));
    if let Some(part) = sources.iter().flat_map(|of| &of.chunks).find(|chunk| !chunk.is_whole()) {
        return Err(ArchiveError::Part {
            path: part.source.path.clone(),
            first_byte: part.range.first_byte,
            tables: part.parts_elsewhere().collect::<Vec<_>>().join(", "),
        });
    }
    let mut files: Vec<_> = sources
        .iter()
        .zip(file_names(&sources.iter().map(|of| &of.source).collect::<Vec<_>>()))
        .map(|(of, name)| RestoredFile {
            source: of.source.clone(),
            path: out.join(name),
            len_bytes: 0,
            findings: of.range_findings(),
        })
        .collect();
    if let Some(file) = files.iter().find(|file| !force && file.path.symlink_metadata().is_ok()) {
        return Err(ArchiveError::Exists { path: file.path.clone() });
    }
    let positions: HashMap<u64, usize> =
        sources.iter().enumerate().map(|(position, of)| (of.source.id, position)).collect();
    let whole = sources.iter().zip(&files).filter(|(_, file)| file.findings.is_empty());
    let records: Vec<_> = whole.flat_map(|(of, _)| &of.chunks).collect();
    let mut current: Option<(usize, PartialFile)> = None;
    content::each_chunk_of(&holdings, &records, filter, |record, bytes, is_same| {
        let position = positions[&record.range.source_id];
        if let Some((_, partial)) = current.take_if(|(open, _)| *open != position) {
            partial.finish()?;
        }
        let file = &mut files[position];
        let (_, partial) = match &mut current {
            Some(current) => current,
            None => current.insert((position, PartialFile::create(&file.path)?)),
        };
        partial.write(bytes)?;
        file.len_bytes += bytes.len() as u64;
        if !is_same {
            let (first_byte, end_byte) = (record.range.first_byte, record.range.end_byte);
            file.findings.push(Finding::Content { first_byte, end_byte });
            partial.is_whole = false;
        }
        Ok(())
    })
    .await?;
    if let Some((_, partial)) = current {
        partial.finish()?;
    }
    if !filter.wants_all() {
        files.retain(|file| file.len_bytes > 0 || !file.findings.is_empty());
    }
    Ok(files)
}

/// A file that does not have its name yet.
struct PartialFile {
    path: PathBuf,
    partial_path: PathBuf,
    file: BufWriter<File>,
    is_whole: bool,
}

impl PartialFile {
    fn create(path: &Path) -> Result<Self, ArchiveError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(failed("make the folder", folder))?;
        let mut partial_path = path.as_os_str().to_owned();
        partial_path.push(".partial");
        let partial_path = PathBuf::from(partial_path);
        let file = File::create(&partial_path).map_err(failed("write", &partial_path))?;
        Ok(Self { path: path.to_owned(), partial_path, file: BufWriter::new(file), is_whole: true })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.file.write_all(bytes).map_err(failed("write", &self.partial_path))
    }

    fn finish(self) -> Result<(), ArchiveError> {
        let failed = |source| failed("write", &self.partial_path)(source);
        let file = self.file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        if self.is_whole {
            fs::rename(&self.partial_path, &self.path).map_err(failed)?;
        }
        Ok(())
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError::Io { operation, path, source }
}

/// A relative path for each source, all different, none leading outside.
fn file_names(sources: &[&Source]) -> Vec<PathBuf> {
    // a bucket is a folder beside those of this machine
    let path_of = |source: &Source| match source.path.split_once("://") {
        Some((_, place)) => Path::new("/").join(place),
        None => PathBuf::from(&source.path),
    };
    let paths: Vec<PathBuf> = sources.iter().map(|source| path_of(source)).collect();
    let folders = paths.iter().filter_map(|path| path.parent());
    let shared = folders.filter(|folder| folder.is_absolute()).map(Path::to_owned).reduce(|one, other| {
        one.components()
            .zip(other.components())
            .take_while(|(one, other)| one == other)
            .map(|pair| pair.0)
            .collect()
    });
    let shared = shared.unwrap_or_default();
    let mut taken = HashSet::new();
    sources
        .iter()
        .zip(&paths)
        .map(|(source, path)| {
            let relative = path.strip_prefix(&shared).unwrap_or(path);
            let is_name = |component: &Component<'_>| matches!(component, Component::Normal(_));
            let mut name: PathBuf = relative.components().filter(is_name).collect();
            if name.extension().is_some_and(|extension| extension == "gz" || extension == "zst") {
                name.set_extension("");
            }
            if name.as_os_str().is_empty() || name == Path::new("-") {
                name = "stdin".into();
            }
            if source.generation > 0 {
                append(&mut name, &format!(".generation-{}", source.generation));
            }
            // streams without a name of their own, and a file beside its compressed copy
            if !taken.insert(name.clone()) {
                append(&mut name, &format!(".source-{:016x}", source.id));
                taken.insert(name.clone());
            }
            name
        })
        .collect()
}

fn append(path: &mut PathBuf, suffix: &str) {
    path.as_mut_os_string().push(suffix);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[(&str, u32)]) -> Vec<String> {
        let sources: Vec<_> = paths
            .iter()
            .enumerate()
            .map(|(index, (path, generation))| Source {
                path: (*path).into(),
                device: 1,
                inode: index as u64,
                generation: *generation,
                head_len_bytes: 0,
                head_hash: 0,
                id: index as u64,
            })
            .collect();
        let names = file_names(&sources.iter().collect::<Vec<_>>());
        names.into_iter().map(|name| name.display().to_string()).collect()
    }

    #[test]
    fn files_keep_their_place_below_the_folder_that_all_share() {
        assert_eq!(names(&[("/var/log/a.log", 0)]), ["a.log"]);
        assert_eq!(names(&[("/var/log/a.log", 0), ("/var/log/b.log", 0)]), ["a.log", "b.log"]);
        assert_eq!(names(&[("/var/log/x/a.log", 0), ("/var/log/y/a.log", 0)]), ["x/a.log", "y/a.log"]);
        assert_eq!(names(&[("/var/log/a.log", 0), ("/srv/a.log", 0)]), ["var/log/a.log", "srv/a.log"]);
    }

    #[test]
    fn objects_keep_their_place_in_the_bucket() {
        let of_one = [("s3://logs/fw/15/a.log", 0), ("s3://logs/fw/16/a.log.gz", 0)];
        assert_eq!(names(&of_one), ["15/a.log", "16/a.log"]);
        assert_eq!(names(&[("s3://logs/a.log", 0), ("/logs/b.log", 0)]), ["a.log", "b.log"]);
        assert_eq!(names(&[("gs://logs/a.log", 0), ("/var/b.log", 0)]), ["logs/a.log", "var/b.log"]);
        assert_eq!(names(&[("s3://logs/../a.log", 0), ("/var/b.log", 0)]), ["logs/a.log", "var/b.log"]);
    }

    #[test]
    fn no_two_sources_share_a_file_and_none_leads_outside() {
        assert_eq!(names(&[("/l/a.log", 0), ("/l/a.log", 1)]), ["a.log", "a.log.generation-1"]);
        assert_eq!(names(&[("/l/a.log", 0), ("/l/a.log.gz", 0)]), ["a.log", "a.log.source-0000000000000001"]);
        assert_eq!(
            names(&[("-", 0), ("../../etc/passwd", 0), ("", 0)]),
            ["stdin", "etc/passwd", "stdin.source-0000000000000002"]
        );
    }
}
