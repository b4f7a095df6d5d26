//! Declared kinds of line. From one TOML file come the decoder's line program, the schemas, the DDL, the
//! renderer and the generator's lines.
//!
//! Extension point: a built-in type is one `.toml` file here and one line in [`BUILT_IN`]; a site's types are
//! files in a folder. Pure: the only file access is [`LogTypes::load`].
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::model::Table;

mod column;
pub mod ddl;
pub mod program;
pub mod propose;
pub mod render;
pub mod spec;
pub mod template;
pub mod timestamp;

pub use column::{Column, ColumnType, timestamp_type};
use program::{KEY_VALUE_VARIANT, KeyValue, MAX_SLOTS, MAX_VARIANTS, Node};
use spec::{Example, Format, LineSpec, Spec};
use template::Part;

/// The types that need no file, in name order.
const BUILT_IN: &[(&str, &str)] = &[
    ("auth", include_str!("auth.toml")),
    ("dns", include_str!("dns.toml")),
    ("firewall", include_str!("firewall.toml")),
];

/// Folders in the archive that are not log types.
const RESERVED: &[&str] = &["blanks", "chunks", "logs", "rejects", "tasks"];

/// Columns that every log type's table has behind its own.
const SYSTEM_COLUMNS: &[&str] = &["chunk_id", "line", "form", "raw", "extra", "day"];

/// A type file that cannot be used.
#[derive(Debug, Error)]
#[error("log type {origin}: {reason}")]
pub struct LogTypeError {
    /// File, or name of a built-in type.
    pub origin: String,
    /// What is wrong with it, where.
    pub reason: String,
}

/// One way a line of the type can be written: parser and renderer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Its parts, prefix included.
    pub parts: Vec<Part>,
    /// Columns whose value the variant alone tells.
    pub set: Vec<(u16, String)>,
}

/// A compiled log type.
#[derive(Debug, Clone)]
pub struct LogType {
    /// Name, tables and schema, as sinks see them.
    pub table: Arc<Table>,
    /// What such lines are.
    pub doc: String,
    /// Where the type was read from.
    pub origin: String,
    /// Declared columns.
    pub columns: Vec<Column>,
    /// Position of the event time among them.
    pub timestamp_column: usize,
    /// Names captured but not declared: keys in `extra`.
    pub undeclared: Vec<String>,
    /// All variants; a row's form holds its number.
    pub variants: Vec<Variant>,
    /// The variants as a tree.
    pub program: Vec<Node>,
    /// The pairs that are accepted in any order.
    pub key_value: Option<KeyValue>,
    /// Indexes of several columns that its leaves in Postgres have, by name.
    pub postgres_indexes: Vec<Vec<String>>,
    /// The type's own tests.
    pub examples: Vec<Example>,
    /// The `[generate]` section.
    pub generate: Option<toml::Table>,
}

impl LogType {
    /// Name of the type.
    #[expect(clippy::misnamed_getters, reason = "`Table::name` is the name of the table")]
    pub fn name(&self) -> &str {
        &self.table.log_type
    }

    /// Compiles a type file's text.
    pub fn try_new(origin: &str, text: &str) -> Result<Self, LogTypeError> {
        Self::compile(origin, text).map_err(|reason| LogTypeError { origin: origin.into(), reason })
    }

    fn compile(origin: &str, text: &str) -> Result<Self, String> {
        let spec: Spec = spec::read(text)?;
        let table_name = spec.table.clone().unwrap_or_else(|| format!("{}_logs", spec.name));
        for name in [&spec.name, &table_name] {
            if !template::is_name(name) {
                return Err(format!("\"{name}\" is not a name (lowercase letters, digits, `_`)"));
            }
            if RESERVED.contains(&name.as_str()) || name.starts_with('_') {
                return Err(format!("the name {name} is reserved; choose another"));
            }
        }
        let columns = columns(&spec, text)?;
        let timestamp_column = columns
            .iter()
            .position(|column| column.name == "timestamp" && column.column_type == ColumnType::Timestamp)
            .ok_or("it needs a column `timestamp = { type = \"timestamp\" }`, the event time")?;
        let mut undeclared = Vec::new();
        let mut slot_of = |name: &str| -> Option<u16> {
            let declared = columns.iter().position(|column| column.name == name);
            match declared {
                Some(position) if position == timestamp_column => None,
                Some(position) => Some(position as u16),
                None => {
                    let position = undeclared.iter().position(|known| known == name).unwrap_or_else(|| {
                        undeclared.push(name.to_owned());
                        undeclared.len() - 1
                    });
                    Some((columns.len() + position) as u16)
                }
            }
        };
        let postgres_indexes = postgres_indexes(&spec, &columns)?;
        let variants = variants(&spec, &columns)?;
        let key_value = match spec.format {
            Some(Format::KeyValue) => Some(KeyValue::try_new(&variants[0].parts, &mut slot_of)?),
            None => None,
        };
        let is_word = |slot: u16| columns.get(usize::from(slot)).is_some_and(|column| column.word);
        let mut program = Vec::new();
        for (number, variant) in variants.iter().enumerate() {
            let separator = key_value.as_ref().filter(|_| number == 0).map(|pairs| pairs.separator);
            program::insert(&mut program, number as u16, &variant.parts, separator, &mut slot_of, &is_word)
                .map_err(|reason| format!("template \"{}\": {reason}", template::to_text(&variant.parts)))?;
        }
        if columns.len() + undeclared.len() > MAX_SLOTS {
            return Err(format!("more than {MAX_SLOTS} columns and captures"));
        }
        let table = Table {
            log_type: spec.name,
            name: table_name,
            schema: Arc::new(schema(&columns)),
            postgres_types: (columns.iter().map(|column| column.column_type.postgres_type()))
                .chain(["bigint", "integer", "smallint", "bytea", "jsonb"])
                .collect(),
            timestamp_column,
            indexed_columns: (0..columns.len()).filter(|position| columns[*position].index).collect(),
            hash: text_hash(text.as_bytes()),
            text: text.into(),
        };
        Ok(Self {
            table: Arc::new(table),
            doc: spec.doc,
            origin: origin.into(),
            columns,
            timestamp_column,
            undeclared,
            variants,
            program,
            key_value,
            postgres_indexes,
            examples: spec.examples,
            generate: spec.generate,
        })
    }
}

/// A row's form: which variant, and which timestamp form.
pub fn form(variant: u16, timestamp_form: u16) -> i16 {
    (variant << 9 | timestamp_form) as i16
}

/// Inverse of [`form`].
pub fn split_form(form: i16) -> (u16, u16) {
    let form = form as u16;
    (form >> 9, form & (timestamp::FORMS - 1))
}

const _: () = assert!(MAX_VARIANTS <= KEY_VALUE_VARIANT as usize && KEY_VALUE_VARIANT < 64);

fn columns(spec: &Spec, text: &str) -> Result<Vec<Column>, String> {
    spec.columns
        .iter()
        .map(|(name, value)| {
            if !template::is_name(name) || SYSTEM_COLUMNS.contains(&name.as_str()) {
                return Err(format!(
                    "\"{name}\" cannot name a column (lowercase letters, digits, `_`; not {})",
                    SYSTEM_COLUMNS.join(" ")
                ));
            }
            let column = spec::read_column(name, value, text)?;
            Ok(Column {
                name: name.clone(),
                column_type: column.column_type,
                index: column.index,
                required: column.required,
                word: column.word,
                doc: column.doc,
            })
        })
        .collect()
}

/// The indexes of several columns, none of them twice or of a column that cannot be in one.
fn postgres_indexes(spec: &Spec, columns: &[Column]) -> Result<Vec<Vec<String>>, String> {
    let indexes = &spec.postgres.indexes;
    for (position, names) in indexes.iter().enumerate() {
        let index = format!("postgres index [{}]", names.join(", "));
        if names.len() < 2 {
            return Err(format!("{index}: it has fewer than two columns; for one, set index = true there"));
        }
        for (number, name) in names.iter().enumerate() {
            match columns.iter().find(|column| column.name == *name) {
                None => return Err(format!("{index}: there is no column {name}")),
                Some(column) if column.column_type == ColumnType::Json => {
                    return Err(format!("{index}: {name} is JSON, which has no order"));
                }
                Some(_) if names[..number].contains(name) => {
                    return Err(format!("{index}: {name} is there twice"));
                }
                Some(_) => {}
            }
        }
        if indexes[..position].contains(names) {
            return Err(format!("{index} is there twice"));
        }
    }
    Ok(indexes.clone())
}

fn variants(spec: &Spec, columns: &[Column]) -> Result<Vec<Variant>, String> {
    let prefixes = if spec.prefix.is_empty() { vec![Vec::new()] } else { template::parse(&spec.prefix)? };
    let mut variants = Vec::new();
    for line in &spec.lines {
        let (text, set) = match line {
            LineSpec::Line(line) => (line, None),
            LineSpec::WithSet { line, set } => (line, Some(set)),
        };
        let mut constants = Vec::new();
        for (name, value) in set.into_iter().flatten() {
            let column = columns
                .iter()
                .position(|column| column.name == *name && column.column_type == ColumnType::String)
                .ok_or_else(|| format!("template \"{text}\" sets {name}, which is not a string column"))?;
            constants.push((column as u16, value.clone()));
        }
        for body in template::parse(text)? {
            for prefix in &prefixes {
                let parts = [prefix.as_slice(), &body].concat();
                let captures = |name: &str| {
                    parts
                        .iter()
                        .any(|part| matches!(part, Part::Capture { name: captured, .. } if captured == name))
                };
                if !captures("timestamp") {
                    return Err(format!("template \"{text}\" does not capture {{timestamp}}"));
                }
                if let Some((column, _)) =
                    constants.iter().find(|(column, _)| captures(&columns[usize::from(*column)].name))
                {
                    return Err(format!(
                        "template \"{text}\" both sets and captures {}",
                        columns[usize::from(*column)].name
                    ));
                }
                variants.push(Variant { parts, set: constants.clone() });
            }
        }
    }
    match variants.len() {
        0 => Err("it has no line template".into()),
        number if number > MAX_VARIANTS => {
            Err(format!("its templates have {number} variants; at most {MAX_VARIANTS} are possible"))
        }
        _ => Ok(variants),
    }
}

fn schema(columns: &[Column]) -> Schema {
    let declared =
        columns.iter().map(|column| Field::new(&column.name, column.column_type.arrow_type(), true));
    let system = [
        Field::new("chunk_id", DataType::Int64, false),
        Field::new("line", DataType::Int32, false),
        Field::new("form", DataType::Int16, false),
        Field::new("raw", DataType::Binary, true),
        Field::new("extra", DataType::Utf8, true),
    ];
    Schema::new(declared.chain(system).collect::<Vec<_>>())
}

/// The log types in the order they are tried: a site's own first, then the built-in ones, each by name.
#[derive(Debug, Clone)]
pub struct LogTypes(Vec<Arc<LogType>>);

impl LogTypes {
    /// From compiled types, in the order they are to be tried.
    pub fn new(types: Vec<Arc<LogType>>) -> Self {
        Self(types)
    }

    /// The built-in types and, before them, the `*.toml` files of `folder`. A site's type replaces a
    /// built-in one of the same name.
    pub fn load(folder: Option<&Path>) -> Result<Self, LogTypeError> {
        let mut types: Vec<Arc<LogType>> = Vec::new();
        for path in folder.map_or(Ok(Vec::new()), type_files)? {
            let origin = path.display().to_string();
            let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&origin, &error))?;
            types.push(Arc::new(LogType::try_new(&origin, &text)?));
        }
        types.sort_by(|one, other| one.name().cmp(other.name()));
        let site: BTreeSet<String> = types.iter().map(|log_type| log_type.name().to_owned()).collect();
        for (name, text) in BUILT_IN {
            if !site.contains(*name) {
                types.push(Arc::new(LogType::try_new(name, text)?));
            }
        }
        let mut seen = BTreeSet::new();
        for log_type in &types {
            for name in [format!("type {}", log_type.name()), format!("table {}", log_type.table.name)] {
                if !seen.insert(name.clone()) {
                    let reason = format!("another file declares the {name} too; rename one");
                    return Err(LogTypeError { origin: log_type.origin.clone(), reason });
                }
            }
        }
        Ok(Self(types))
    }

    /// In the order they are tried.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<LogType>> {
        self.0.iter()
    }

    /// By name.
    pub fn get(&self, name: &str) -> Option<&Arc<LogType>> {
        self.0.iter().find(|log_type| log_type.name() == name)
    }
}

fn type_files(folder: &Path) -> Result<Vec<PathBuf>, LogTypeError> {
    let origin = format!("folder {}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| unreadable(&origin, &error))? {
        let path = entry.map_err(|error| unreadable(&origin, &error))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The name under which an archive keeps a type file's text: its SHA-256 in hexadecimal.
pub fn text_hash(text: &[u8]) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unreadable(origin: &str, error: &std::io::Error) -> LogTypeError {
    LogTypeError {
        origin: origin.into(),
        reason: format!("cannot be read ({error}); check the path and its permissions"),
    }
}

#[cfg(test)]
mod tests;
