//! Files that go by a name of their own, wherever they are: a download is the same source in every cache.
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::super::file::read_head;
use super::super::{Encoding, SourceError};
use super::{Catalogue, IdentifiedFile, Stat, holds};
use crate::model::Source;

impl Catalogue {
    /// Says which source a file is whose content goes by `name`: the newest known one of that name whose committed content
    /// it still has, else a new generation. Blocking.
    pub fn resolve_named(
        &mut self,
        name: &str,
        path: &Path,
        file: &Arc<File>,
    ) -> Result<IdentifiedFile, SourceError> {
        let failed = |error| SourceError::io("read", &path.display().to_string(), error);
        let stat = Stat::of(&file.metadata().map_err(failed)?);
        let (encoding, head) = read_head(path, file)?;
        let known = self.streams(Some(name)).find(|known| holds(path, file, stat, encoding, &head, known));
        let (id, generation) = match known {
            Some(known) => (known.source.id, known.source.generation),
            None => self.next_generation(name, (0, 0)),
        };
        let source = Source {
            path: name.to_owned(),
            device: 0,
            inode: 0,
            generation,
            head_len_bytes: head.len() as u32,
            head_hash: Source::hash_head(&head),
            id,
        };
        let mut committed = self.update(source.clone());
        if let Some(open) = self.sources[&id].open
            && encoding == Encoding::Plain
            && stat.size_bytes <= open.1
        {
            committed.push(open);
            committed.sort_unstable();
        }
        Ok(IdentifiedFile { path: path.to_owned(), stat, encoding, source: Arc::new(source), committed })
    }
}
