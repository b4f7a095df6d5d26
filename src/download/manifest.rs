//! The list of what is wanted: a JSON array, or JSON objects one after the other.
//!
//! A bad entry is named by its index and field and does not stop the others. Deliberately absent: reading it (a file,
//! standard input), and what to do about bad entries.
use std::collections::HashMap;
use std::fmt;

use serde_json::Value;
use thiserror::Error;

use super::{FileItem, ItemFault};

/// Why nothing of a manifest can be used.
#[derive(Debug, Error)]
#[error("the manifest is no JSON array of {{\"url\": ..}} and no such objects line by line: {0}")]
pub struct ManifestError(String);

/// An entry that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct ManifestFault {
    /// Counts entries from 0.
    pub index: usize,
    /// What is wrong with which field.
    pub fault: ItemFault,
}

impl fmt::Display for ManifestFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "entry {}: {}", self.index, self.fault)
    }
}

/// What a manifest says.
#[derive(Debug, Default)]
pub struct Manifest {
    /// Entries that can be used, in its order.
    pub items: Vec<FileItem>,
    /// Those that cannot.
    pub faults: Vec<ManifestFault>,
}

impl Manifest {
    /// Reads the text of a manifest. An empty one wants nothing.
    ///
    /// ```
    /// use pipeline::download::Manifest;
    ///
    /// let manifest = Manifest::parse(r#"[{"url": "https://example.org/a.log"}, {"id": 1}]"#).unwrap();
    /// assert_eq!(manifest.items[0].name, "a");
    /// assert_eq!(manifest.faults[0].to_string(), "entry 1: url: is missing");
    /// ```
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let text = text.trim_start_matches('\u{feff}').trim();
        let failed = |error: serde_json::Error| ManifestError(error.to_string());
        if text.is_empty() {
            return Ok(Self::default());
        }
        if text.starts_with('[') {
            let entries: Vec<Value> = serde_json::from_str(text).map_err(failed)?;
            return Ok(Self::of(entries.into_iter().map(Ok)));
        }
        if !text.starts_with('{') {
            return Err(ManifestError("it starts with neither [ nor {".to_owned()));
        }
        // objects over several lines too
        let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
        Ok(match values {
            Ok(entries) => Self::of(entries.into_iter().map(Ok)),
            Err(_) => {
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                Self::of(lines.map(|line| {
                    serde_json::from_str(line).map_err(|error| ItemFault {
                        field: "entry".to_owned(),
                        reason: format!("is no JSON: {error}"),
                    })
                }))
            }
        })
    }

    fn of(entries: impl Iterator<Item = Result<Value, ItemFault>>) -> Self {
        let (mut manifest, mut seen) = (Self::default(), HashMap::new());
        for (index, entry) in entries.enumerate() {
            let item = entry.and_then(FileItem::from_json).and_then(|item| {
                match *seen.entry(item.key()).or_insert(index) {
                    first if first != index => Err(ItemFault {
                        field: "id".to_owned(),
                        reason: format!("id and url are those of entry {first}; give it another id"),
                    }),
                    _ => Ok(item),
                }
            });
            match item {
                Ok(item) => manifest.items.push(item),
                Err(fault) => manifest.faults.push(ManifestFault { index, fault }),
            }
        }
        manifest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_and_lines_say_the_same() {
        let array = r#"[{"url": "http://h/a"}, 5, {"url": "http://h/b", "id": 2}, {"url": "http://h/a"}]"#;
        let lines = "{\"url\": \"http://h/a\"}\n5\n\n{\"url\": \"http://h/b\", \"id\": 2}\n{\"url\": \"http://h/a\"}\n";
        for text in [array, lines] {
            let manifest = Manifest::parse(text).unwrap();
            let names: Vec<_> = manifest.items.iter().map(|item| item.name.as_str()).collect();
            assert_eq!(names, ["a", "b"]);
            let faults: Vec<_> = manifest.faults.iter().map(ToString::to_string).collect();
            assert_eq!(faults.len(), 2, "{faults:?}");
            assert!(faults[0].starts_with("entry 1: entry: is no object"), "{faults:?}");
            assert_eq!(faults[1], "entry 3: id: id and url are those of entry 0; give it another id");
        }
    }

    #[test]
    fn a_torn_line_is_one_bad_entry_and_a_torn_array_is_no_manifest() {
        let manifest = Manifest::parse("{\"url\": \"http://h/a\"}\n{\"url\": \"htt").unwrap();
        assert_eq!((manifest.items.len(), manifest.faults.len()), (1, 1));
        for text in ["[{\"url\": \"http://h/a\"}", "url", "\"text\""] {
            assert!(Manifest::parse(text).is_err(), "{text}");
        }
        assert_eq!(Manifest::parse("{\n \"url\": \"http://h/a\"\n}").unwrap().items.len(), 1);
        assert!(Manifest::parse(" \n").unwrap().items.is_empty());
    }
}
