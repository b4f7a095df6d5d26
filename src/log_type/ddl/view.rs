//! The view `logs`: every row of every log type as the single table that the old design had.
//!
//! Invariants: a row's `raw_line` is its line, rendered by the version of the type that read it; its columns are
//! those of the archive's view (`query/logs.rs`). The functions it calls are made by `sql/0003_text.sql`.
//!
//! Each branch reads one table alone, and looks the ledger up per row that shows a file name: so the planner takes
//! the leaves of all types as one list, leaves out the types that a query does not ask for, and the columns too.
//! Expressions are kept short, for they are prepared anew for each leaf of each query.
use std::fmt::Write;
use std::sync::Arc;

use super::{OURS, joined, literal, qualified, quoted};
use crate::log_type::template::Part;
use crate::log_type::{Column, ColumnType, LogType};

/// All versions of one log type that rows of a schema were read with.
#[derive(Debug, Clone)]
pub struct TypeVersions {
    /// The version seen last.
    pub newest: Arc<LogType>,
    /// Earlier ones.
    pub earlier: Vec<Arc<LogType>>,
}

impl TypeVersions {
    /// Of a type that has had but this one.
    pub fn alone(newest: Arc<LogType>) -> Self {
        Self { newest, earlier: Vec::new() }
    }
}

/// What the comment on the view starts with.
const COMMENT: &str = "every row of every log type as one table";

/// The statements that make the view in `schema`, or make it anew, and its comment, which tells by a hash whether
/// it is this very view. `None` without types.
pub fn logs_view(types: &[TypeVersions], schema: &str) -> Option<(String, String)> {
    let functions: String = types.iter().filter_map(|versions| line_function(versions, schema)).collect();
    let branches: Vec<_> = types.iter().map(|versions| branch(versions, schema)).collect();
    let view = qualified(schema, "logs");
    let statement =
        format!("{functions}CREATE OR REPLACE VIEW {view} AS\n{};\n", branches.join("\nUNION ALL\n"));
    let hash = xxhash_rust::xxh3::xxh3_64(statement.as_bytes());
    let comment = format!("{OURS}{COMMENT} (definition {hash:016x})");
    (!branches.is_empty()).then_some((statement, comment))
}

fn branch(versions: &TypeVersions, schema: &str) -> String {
    let newest = &versions.newest;
    let chunks = qualified(schema, "chunks");
    let of_chunk =
        |value: &str| format!("(SELECT {value} FROM {chunks} AS c WHERE c.chunk_id = f.chunk_id LIMIT 1)");
    // one version's first template, which is the canonical one, needs no call
    let canonical = match versions.earlier.as_slice() {
        [] => format!(" WHEN f.form >> 9 = 0 THEN {}", line(newest, &newest.variants[0].parts, schema)),
        _ => String::new(),
    };
    let others = line_function(versions, schema).map_or(String::new(), |_| {
        let version = match versions.earlier.as_slice() {
            [] => "NULL".to_owned(),
            _ => of_chunk(&format!("c.types -> {} ->> 'hash'", literal(newest.name()))),
        };
        format!(" ELSE {}(f, {version})", line_function_name(newest, schema))
    });
    format!(
        "SELECT f.chunk_id # f.line::bigint AS id,\n    \
         {}::text AS log_type,\n    \
         CASE WHEN f.raw IS NOT NULL THEN {}(f.raw){canonical}{others} END AS raw_line,\n    \
         {} AS \"timestamp\",\n    \
         {} AS source_file,\n    \
         {} AS parsed_data,\n    \
         {} AS indexed_at\n\
         FROM {} AS f",
        literal(newest.name()),
        qualified(schema, "pipeline_line_text"),
        time(schema),
        of_chunk("split_part(c.file, '/', -1)"),
        parsed_data(versions, schema),
        of_chunk("c.committed_at"),
        qualified(schema, &newest.table.name),
    )
}

fn line_function_name(log_type: &LogType, schema: &str) -> String {
    qualified(schema, &joined("pipeline_line", &log_type.table.name))
}

/// The function that renders a row without `raw` by the version with this hash, NULL or unknown being the newest;
/// `None` where there is but one template. It is a function, for a view with all templates of a type in it takes
/// seconds to prepare.
fn line_function(versions: &TypeVersions, schema: &str) -> Option<String> {
    let newest = &versions.newest;
    if versions.earlier.is_empty() && newest.variants.len() == 1 {
        return None;
    }
    let mut body = "BEGIN\n".to_owned();
    for version in &versions.earlier {
        let hash = literal(&version.table.hash);
        let _infallible = write!(body, "IF version = {hash} THEN\n{}END IF;\n", rendered(version, schema));
    }
    let _infallible = write!(body, "{}END", rendered(newest, schema));
    let table = qualified(schema, &newest.table.name);
    Some(format!(
        "CREATE OR REPLACE FUNCTION {}(f {table}, version text) RETURNS text\n\
         LANGUAGE plpgsql STABLE PARALLEL SAFE COST 1 AS {};\n",
        line_function_name(newest, schema),
        literal(&body)
    ))
}

/// Returns the line of a row, as the templates of one version render it.
fn rendered(log_type: &LogType, schema: &str) -> String {
    let mut out = "CASE f.form >> 9\n".to_owned();
    for (number, variant) in log_type.variants.iter().enumerate() {
        let line = line(log_type, &variant.parts, schema);
        let _infallible = writeln!(out, "WHEN {number} THEN RETURN {line};");
    }
    out.push_str("ELSE RETURN NULL;\nEND CASE;\n");
    out
}

fn line(log_type: &LogType, parts: &[Part], schema: &str) -> String {
    let pieces = parts.iter().filter_map(|part| match part {
        Part::Literal(bytes) => Some(literal(&String::from_utf8_lossy(bytes))),
        Part::Spaces => Some("' '".to_owned()),
        Part::Capture { name, .. } => {
            let position = log_type.columns.iter().position(|column| column.name == *name)?;
            Some(match position == log_type.timestamp_column {
                true => time(schema),
                false => value(&log_type.columns[position], schema),
            })
        }
    });
    format!("concat({})", pieces.collect::<Vec<_>>().join(", "))
}

/// The event time as the line has it.
fn time(schema: &str) -> String {
    format!("{}(f.\"timestamp\", f.form, f.raw)", qualified(schema, "pipeline_line_time_text"))
}

/// `log_type`, `timestamp` and every key that the line has, as strings.
fn parsed_data(versions: &TypeVersions, schema: &str) -> String {
    let mut keys = vec!["'log_type'".to_owned(), "'timestamp'".to_owned()];
    let mut values = vec![literal(versions.newest.name()), time(schema)];
    let mut seen = vec!["log_type", "timestamp"];
    for column in
        std::iter::once(&versions.newest).chain(&versions.earlier).flat_map(|version| &version.columns)
    {
        if !seen.contains(&column.name.as_str()) {
            seen.push(&column.name);
            keys.push(literal(&column.name));
            values.push(value(column, schema));
        }
    }
    format!(
        "coalesce(f.extra, '{{}}') || jsonb_strip_nulls(jsonb_object(\n        \
         ARRAY[{}],\n        ARRAY[{}]))",
        keys.join(", "),
        values.join(", ")
    )
}

/// A column's value as text.
fn value(column: &Column, schema: &str) -> String {
    let name = format!("f.{}", quoted(&column.name));
    let call = |function: &str| format!("{}({name})", qualified(schema, function));
    match column.column_type {
        ColumnType::String => name,
        ColumnType::Ip => call("pipeline_ip_text"),
        ColumnType::F64 => call("pipeline_float_text"),
        ColumnType::Timestamp => call("pipeline_plain_time_text"),
        ColumnType::U8 | ColumnType::U16 | ColumnType::U32 | ColumnType::U64 | ColumnType::I64 => {
            format!("{name}::text")
        }
        ColumnType::Bool | ColumnType::Json => format!("{name}::text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(text: &str) -> Arc<LogType> {
        Arc::new(LogType::try_new("test", text).unwrap())
    }

    #[test]
    fn a_line_is_rendered_by_the_version_that_read_it() {
        let text = "name = \"x\"\nlines = [\"{timestamp} it's {a}\"]\n[columns]\ntimestamp = { type = \"timestamp\" }\na = { type = \"ip\" }\n";
        let old = compiled(text);
        let new = compiled(
            &text.replace("it's {a}", "{b}").replace("a = { type = \"ip\" }", "b = { type = \"u8\" }"),
        );
        let alone = TypeVersions::alone(Arc::clone(&old));
        let (view, comment) = logs_view(&[alone], "s").unwrap();
        assert!(view.starts_with("CREATE OR REPLACE VIEW \"s\".\"logs\" AS\nSELECT "), "{view}");
        assert!(view.contains("' it''s ', \"s\".\"pipeline_ip_text\"(f.\"a\"))"), "{view}");
        assert!(!view.contains("'hash'") && !view.contains("FUNCTION"), "{view}");
        let both = TypeVersions { newest: Arc::clone(&new), earlier: vec![Arc::clone(&old)] };
        let (view, changed) = logs_view(&[both], "s").unwrap();
        assert!(
            view.contains(&format!("IF version = ''{}'' THEN\nCASE f.form >> 9", old.table.hash)),
            "{view}"
        );
        assert!(view.contains("ARRAY['log_type', 'timestamp', 'b', 'a']"), "{view}");
        assert_ne!(comment, changed);
        assert_eq!(logs_view(&[], "s"), None);
    }
}
