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
        Self::from_bytes(text.as_bytes())
    }

    /// The same of bytes, of which some lines may be no text.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii();
        if text.starts_with(b"[") {
            let entries: Vec<Value> =
                serde_json::from_slice(text).map_err(|error| ManifestError(error.to_string()))?;
            return Ok(Self::of(entries.into_iter().map(Ok)));
        }
        // objects over several lines too
        let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_slice(text).into_iter().collect();
        let entries: Vec<Result<Value, ItemFault>> = match values {
            Ok(entries) => entries.into_iter().map(Ok).collect(),
            Err(_) => {
                let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
                let line = |line| {
                    serde_json::from_slice(line).map_err(|error| ItemFault {
                        field: "entry".to_owned(),
                        reason: format!("is no JSON: {error}"),
                    })
                };
                lines.filter(|line| !line.is_empty()).map(line).collect()
            }
        };
        let is_object = |entry: &Result<Value, _>| entry.as_ref().is_ok_and(Value::is_object);
        if !entries.is_empty() && !entries.iter().any(is_object) {
            return Err(ManifestError("it holds no object".to_owned()));
        }
        Ok(Self::of(entries.into_iter()))
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
        let manifest =
            Manifest::from_bytes(b"# files\n{\"url\": \"http://h/a\"}\n{\"url\": \"http://h/\xff\"}")
                .unwrap();
        let bad: Vec<_> = manifest.faults.iter().map(|fault| fault.index).collect();
        assert_eq!((manifest.items.len(), bad), (1, vec![0, 2]));
        for text in ["[{\"url\": \"http://h/a\"}", "url", "\"text\""] {
            assert!(Manifest::parse(text).is_err(), "{text}");
        }
        assert_eq!(Manifest::parse("{\n \"url\": \"http://h/a\"\n}").unwrap().items.len(), 1);
        assert!(Manifest::parse(" \n").unwrap().items.is_empty());
    }
}
