//! A log type file as written: TOML, unknown keys refused, mistakes named with their line.
use serde::{Deserialize, Serialize};

use super::column::ColumnType;

/// The file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Name of the type, and its folder in the archive.
    pub name: String,
    /// Table in SQL; `<name>_logs` if absent.
    pub table: Option<String>,
    /// What such lines are, for people.
    #[serde(default)]
    pub doc: String,
    /// Template text that every line starts with; matched before what follows it is looked at.
    #[serde(default)]
    pub prefix: String,
    /// Line templates; the first is the canonical one.
    pub lines: Vec<LineSpec>,
    /// Besides the templates, accept `key=value` pairs in any order.
    pub format: Option<Format>,
    /// Columns, in order.
    pub columns: toml::Table,
    /// What only its table in Postgres has.
    #[serde(default)]
    pub postgres: PostgresSpec,
    /// Lines with the rows they must become: the type's own tests.
    #[serde(default)]
    pub examples: Vec<Example>,
    /// How `pipeline generate` makes such lines.
    pub generate: Option<toml::Table>,
}

/// A template, alone or with the columns that its form alone tells.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum LineSpec {
    /// A template.
    Line(String),
    /// A template that also sets columns.
    WithSet {
        /// The template.
        line: String,
        /// Column -> text of its value.
        set: std::collections::BTreeMap<String, String>,
    },
}

/// A format besides templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The canonical template's pairs in any order, some missing, others unknown.
    KeyValue,
}

/// A column as declared.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnSpec {
    /// Its type.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// Looked up by value.
    #[serde(default)]
    pub index: bool,
    /// A `key_value` line must have it.
    #[serde(default)]
    pub required: bool,
    /// A template in which its value has a space does not match: another one may.
    #[serde(default)]
    pub word: bool,
    /// What it holds.
    #[serde(default)]
    pub doc: String,
}

/// What the archive has no counterpart of.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresSpec {
    /// Indexes of several columns, each a list of their names.
    #[serde(default)]
    pub indexes: Vec<Vec<String>>,
}

/// A line and the row it must become.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// The line, without its ending.
    pub line: String,
    /// Expected values by column; a column not named must be NULL. `timestamp` as RFC 3339.
    #[serde(default)]
    pub row: toml::Table,
    /// The line must not be of this type.
    #[serde(default)]
    pub reject: bool,
    /// Dates without a year are read relative to this time (RFC 3339).
    pub reference_time: Option<String>,
}

/// Reads the file; the error is one line that names the line of the file.
pub fn read(text: &str) -> Result<Spec, String> {
    toml::from_str(text).map_err(|error| one_line(&error, text))
}

/// Reads one column.
pub fn read_column(name: &str, value: &toml::Value, text: &str) -> Result<ColumnSpec, String> {
    value
        .clone()
        .try_into()
        .map_err(|error: toml::de::Error| format!("column {name}: {}", one_line(&error, text)))
}

fn one_line(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().replace('\n', ", ");
    match error.span() {
        Some(span) => {
            let line = text.get(..span.start).unwrap_or(text).matches('\n').count() + 1;
            format!("line {line}: {message}")
        }
        None => message,
    }
}
