//! Reads `src/` and holds it to the shape that ARCHITECTURE.md describes.
//!
//! Deliberately absent: a parser of Rust. The source is formatted and says `crate::module` in full, so its text
//! is enough.
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::support::{Site, repository};

/// From top to bottom: a module imports from the layers below its own, never from a sibling.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["config"],
    &["page", "bench"],
    &["task"],
    &["stage", "query"],
    &[
        "source",
        "transport",
        "decode",
        "sink",
        "archive",
        "cost",
        "generate",
        "webhook",
        "window",
        "download",
    ],
    &["lake", "warehouse", "store"],
    &["log_type", "client", "ledger"],
    &["telemetry"],
    &["model"],
];

/// No async, no file, no socket. `log_type/mod.rs` is the one that loads a site's folder of types.
const PURE: &[&str] = &[
    "cost/",
    "decode/",
    "log_type/",
    "model/",
    "transport/frame.rs",
    "warehouse/copy/",
    "warehouse/days.rs",
    "window/",
];
const LOADS_TYPES: &str = "log_type/mod.rs";
const IMPURE: &[&str] = &["tokio", "async fn", "std::fs", "File", "TcpStream", "TcpListener", "UdpSocket"];

const MAX_LINES: usize = 400;

struct Source {
    /// Relative to `src/`.
    name: String,
    text: String,
}

impl Source {
    /// The text before the tests, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
        let lines = lines.map(|(index, line)| (index + 1, line));
        let code = lines.filter(|(_, line)| !line.trim_start().starts_with("//"));
        code.take(if self.is_tests() { 0 } else { usize::MAX })
    }

    fn is_tests(&self) -> bool {
        self.name.ends_with("tests.rs") || self.name.contains("/tests/") || self.name == "decode/naive.rs"
    }

    fn module(&self) -> &str {
        self.name.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }
}

fn sources() -> Vec<Source> {
    let root = repository("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    let mut sources: Vec<_> = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| Source {
            name: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(),
            text: fs::read_to_string(path).unwrap(),
        })
        .collect();
    sources.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(sources.len() > 50, "src was not found");
    sources
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, paths) } else { paths.push(path) }
    }
}

/// Words of identifiers: `File` is not in `FileReader`.
fn has_word(line: &str, word: &str) -> bool {
    let is_inside = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let (before, after) = (&line[..start], &line[start + word.len()..]);
        !before.ends_with(is_inside) && !after.starts_with(is_inside)
    })
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[track_caller]
fn expect_none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn imports_only_go_down_and_siblings_never_meet() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| source.name != "lib.rs") {
        let module = source.module();
        let Some(own) = layer(module) else {
            problems.push(format!("src/{}: {module} is in no layer; give it one in LAYERS", source.name));
            continue;
        };
        for (number, line) in source.code() {
            if line.contains("crate::{") {
                problems.push(format!(
                    "src/{}:{number}: one `use` per module, so that this test can read it",
                    source.name
                ));
            }
            for path in line.split("crate::").skip(1) {
                let name: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if name != module && layer(&name).is_some_and(|of_name| of_name <= own) {
                    problems.push(format!("src/{}:{number}: {module} must not import {name}", source.name));
                }
            }
        }
    }
    expect_none(&problems);
}

#[test]
fn every_module_is_on_the_map_in_lib_rs() {
    let sources = sources();
    let modules: BTreeSet<_> =
        sources.iter().map(Source::module).filter(|module| !["main", "lib"].contains(module)).collect();
    let lib = &sources.iter().find(|source| source.name == "lib.rs").unwrap().text;
    for module in modules {
        assert!(lib.contains(&format!("pub mod {module};")), "{module} is not declared");
    }
}

#[test]
fn the_pure_core_has_no_async_no_file_and_no_socket() {
    let mut problems = Vec::new();
    for source in &sources() {
        if !PURE.iter().any(|folder| source.name.starts_with(folder)) {
            continue;
        }
        for (number, line) in source.code() {
            let found = IMPURE.iter().filter(|word| has_word(line, word));
            let found = found.filter(|word| source.name != LOADS_TYPES || **word != "std::fs");
            problems.extend(found.map(|word| format!("src/{}:{number}: {word}", source.name)));
        }
    }
    expect_none(&problems);
}

#[test]
fn every_file_opens_with_its_duty() {
    let missing = sources().into_iter().filter(|source| !source.text.starts_with("//! "));
    expect_none(&missing.map(|source| format!("src/{}: no `//!` line", source.name)).collect::<Vec<_>>());
}

#[test]
fn no_file_is_longer_than_a_person_reads() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| !source.is_tests()) {
        let lines = source.text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        if lines > MAX_LINES {
            problems.push(format!("src/{}: {lines} lines before its tests", source.name));
        }
    }
    expect_none(&problems);
}

#[test]
fn nothing_is_left_for_later() {
    let words = ["todo!", "unimplemented!", "dbg!", "TODO", "FIXME", "XXX"];
    let mut problems = Vec::new();
    for source in &sources() {
        for (index, line) in source.text.lines().enumerate() {
            let found = words.iter().filter(|word| line.contains(**word));
            problems.extend(found.map(|word| format!("src/{}:{}: {word}", source.name, index + 1)));
        }
    }
    expect_none(&problems);
}

#[test]
fn every_log_type_file_is_registered_under_its_name() {
    let list: serde_json::Value =
        serde_json::from_str(&Site::new().ok(&["types", "list", "--output", "json"])).unwrap();
    let registered: BTreeSet<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|log_type| log_type["name"].as_str().unwrap().to_owned())
        .collect();
    let mut paths = Vec::new();
    walk(&repository("src/log_type"), &mut paths);
    let files = paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let files: BTreeSet<_> =
        files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(registered, files);
}
