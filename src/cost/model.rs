//! The model's text, parsed: sections of rows, each with its formula. `model.toml` says what is reckoned.
use serde::Deserialize;

use super::CostError;
use super::formula::Formula;

const TEXT: &str = include_str!("model.toml");

/// Lines a day, with what a heading calls them.
pub(super) const VOLUMES: &[(&str, f64)] =
    &[("1 M", 1e6), ("10 M", 1e7), ("100 M", 1e8), ("1 B", 1e9), ("10 B", 1e10)];

/// What a message carries: a line of the old pipeline, ten in one batch, then chunks; lines and bytes of it as formulas.
pub(super) const PAYLOADS: &[(&str, &str, &str)] = &[
    ("1 line", "1", "run.old.message_bytes"),
    ("10 lines", "10", "10 * run.old.message_bytes"),
    ("4 KiB", "floor(4096 / run.queue.bytes_per_line)", "4096"),
    ("16 KiB", "floor(16384 / run.queue.bytes_per_line)", "16384"),
    ("64 KiB", "floor(65536 / run.queue.bytes_per_line)", "65536"),
    ("256 KiB", "floor(262144 / run.queue.bytes_per_line)", "262144"),
    ("1 MiB", "floor(1048576 / run.queue.bytes_per_line)", "1048576"),
    ("4 MiB", "floor(4194304 / run.queue.bytes_per_line)", "4194304"),
];

/// The parts of a total: rows `old_NAME_usd` and `new_NAME_usd`.
pub(super) const COMPONENTS: &[&str] = &["queue", "compute", "database", "storage", "archive"];

/// What the columns of a section are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Axis {
    Once,
    Volumes,
    Payloads,
    Questions,
}

/// A section of the model.
#[derive(Debug)]
pub(super) struct SectionModel {
    pub(super) name: String,
    pub(super) words: String,
    pub(super) axis: Axis,
    pub(super) rows: Vec<RowModel>,
}

/// A row of the model.
#[derive(Debug)]
pub(super) struct RowModel {
    pub(super) name: String,
    pub(super) what: String,
    /// The formula as it is printed, on one line.
    pub(super) text: String,
    pub(super) formula: Formula,
}

#[derive(Deserialize)]
struct ModelText {
    section: Vec<SectionText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SectionText {
    name: String,
    axis: Axis,
    words: String,
    rows: Vec<(String, String, String)>,
}

/// Every section, in the order of the report.
pub(super) fn sections() -> Result<Vec<SectionModel>, CostError> {
    let fail = |error: toml::de::Error| CostError::Unreadable {
        name: "model.toml".to_owned(),
        reason: error.to_string(),
    };
    let text: ModelText = toml::from_str(TEXT).map_err(fail)?;
    text.section.into_iter().map(SectionModel::of).collect()
}

impl SectionModel {
    fn of(text: SectionText) -> Result<Self, CostError> {
        let rows: Result<Vec<_>, _> = text.rows.into_iter().map(RowModel::of).collect();
        Ok(Self { name: text.name, words: one_line(&text.words), axis: text.axis, rows: rows? })
    }
}

impl RowModel {
    fn of((name, what, text): (String, String, String)) -> Result<Self, CostError> {
        let text = one_line(&text);
        let formula = Formula::parse(&text).map_err(|reason| CostError::Formula {
            row: name.clone(),
            reason: format!("is none: {reason}"),
        })?;
        Ok(Self { name, what, text, formula })
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
