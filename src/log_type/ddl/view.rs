//! The view `logs`: every row of every log type as the single table that the old design had.
//!
//! Invariants: a row's `raw_line` is its line, rendered by the version of the type that read it; its columns are
//! those of the archive's view (`query/logs.rs`). The functions it calls are made by `sql/0003_text.sql`.
//!
//! Each branch reads one table alone, and looks the ledger up per row that shows a file name: so the planner takes
//! the leaves of all types as one list, leaves out the types that a query does not ask for, and the columns too.
use std::fmt::Write;
use std::sync::Arc;

use super::{OURS, literal, qualified, quoted};
use crate::log_type::template::Part;
use crate::log_type::timestamp::OTHER;
use crate::log_type::{Column, ColumnType, LogType};

/// All versions of one log type that rows of a schema were read with.
#[derive(Debug, Clone)]
pub struct TypeVersions {
    /// The version seen last.
    pub newest: Arc<LogType>,
    /// Earlier ones.
    pub earlier: Vec<Arc<LogType>>,
}

/// What the comment on the view starts with.
const COMMENT: &str = "every row of every log type as one table";

/// The statement that makes the view in `schema`, or makes it anew, and its comment, which tells by a hash whether
/// it is this very view. `None` without types.
pub fn logs_view(types: &[TypeVersions], schema: &str) -> Option<(String, String)> {
    let branches: Vec<_> = types.iter().map(|versions| branch(versions, schema)).collect();
    let select = branches.join("\nUNION ALL\n");
    let hash = xxhash_rust::xxh3::xxh3_64(select.as_bytes());
    let statement = format!("CREATE OR REPLACE VIEW {} AS\n{select};\n", qualified(schema, "logs"));
    let comment = format!("{OURS}{COMMENT} (definition {hash:016x})");
    (!branches.is_empty()).then_some((statement, comment))
}

fn branch(versions: &TypeVersions, schema: &str) -> String {
    let newest = &versions.newest;
    let function = |name: &str| qualified(schema, name);
    let chunks = qualified(schema, "chunks");
    let of_chunk =
        |value: &str| format!("(SELECT {value} FROM {chunks} AS c WHERE c.chunk_id = f.chunk_id LIMIT 1)");
    let time = format!(
        "CASE f.form & {OTHER} WHEN {OTHER} \
         THEN coalesce({}(f.raw, f.\"timestamp\"), {}(f.\"timestamp\")) \
         ELSE {}(f.\"timestamp\", f.form & {OTHER}) END",
        function("pipeline_kept_time_text"),
        function("pipeline_plain_time_text"),
        function("pipeline_time_text"),
    );
    let rendered = match versions.earlier.as_slice() {
        [] => rendered(newest, schema),
        earlier => {
            let hash = of_chunk(&format!("c.types -> {} ->> 'hash'", literal(newest.name())));
            let mut cases = format!("CASE {hash}");
            for version in earlier {
                let _infallible = write!(
                    cases,
                    "\n            WHEN {} THEN {}",
                    literal(&version.table.hash),
                    rendered(version, schema)
                );
            }
            let _infallible = write!(cases, "\n            ELSE {} END", rendered(newest, schema));
            cases
        }
    };
    format!(
        "SELECT f.chunk_id # f.line::bigint AS id,\n    \
         {}::text AS log_type,\n    \
         CASE WHEN f.raw IS NOT NULL THEN {}(f.raw) ELSE {rendered} END AS raw_line,\n    \
         {time} AS \"timestamp\",\n    \
         {} AS source_file,\n    \
         {} AS parsed_data,\n    \
         {} AS indexed_at\n\
         FROM {} AS f",
        literal(newest.name()),
        function("pipeline_line_text"),
        of_chunk("regexp_replace(c.file, '^.*/', '')"),
        parsed_data(versions, schema, &time),
        of_chunk("c.committed_at"),
        qualified(schema, &newest.table.name),
    )
}

/// The line of a row without `raw`, as the templates of one version render it.
fn rendered(log_type: &LogType, schema: &str) -> String {
    let lines: Vec<_> =
        log_type.variants.iter().map(|variant| line(log_type, &variant.parts, schema)).collect();
    let mut out = "CASE f.form >> 9".to_owned();
    for (number, line) in lines.iter().enumerate() {
        let _infallible = write!(out, "\n            WHEN {number} THEN {line}");
    }
    out.push_str(" END");
    out
}

fn line(log_type: &LogType, parts: &[Part], schema: &str) -> String {
    let pieces = parts.iter().filter_map(|part| match part {
        Part::Literal(bytes) => Some(literal(&String::from_utf8_lossy(bytes))),
        Part::Spaces => Some("' '".to_owned()),
        Part::Capture { name, .. } => {
            let position = log_type.columns.iter().position(|column| column.name == *name)?;
            Some(match position == log_type.timestamp_column {
                // a row without `raw` has a form that says how its time was written
                true => {
                    format!("{}(f.\"timestamp\", f.form & {OTHER})", qualified(schema, "pipeline_time_text"))
                }
                false => value(&log_type.columns[position], schema),
            })
        }
    });
    format!("concat({})", pieces.collect::<Vec<_>>().join(", "))
}

/// `log_type`, `timestamp` and every key that the line has, as strings.
fn parsed_data(versions: &TypeVersions, schema: &str, time: &str) -> String {
    let mut keys = vec!["'log_type'".to_owned(), "'timestamp'".to_owned()];
    let mut values = vec![literal(versions.newest.name()), time.to_owned()];
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
        let alone = TypeVersions { newest: Arc::clone(&old), earlier: Vec::new() };
        let (view, comment) = logs_view(&[alone], "s").unwrap();
        assert!(view.starts_with("CREATE OR REPLACE VIEW \"s\".\"logs\" AS\nSELECT "), "{view}");
        assert!(view.contains("' it''s ', \"s\".\"pipeline_ip_text\"(f.\"a\"))"), "{view}");
        assert!(!view.contains("'hash'"), "{view}");
        let both = TypeVersions { newest: Arc::clone(&new), earlier: vec![Arc::clone(&old)] };
        let (view, changed) = logs_view(&[both], "s").unwrap();
        assert!(view.contains(&format!("WHEN '{}' THEN CASE f.form >> 9", old.table.hash)), "{view}");
        assert!(view.contains("ARRAY['log_type', 'timestamp', 'b', 'a']"), "{view}");
        assert_ne!(comment, changed);
        assert_eq!(logs_view(&[], "s"), None);
    }
}
