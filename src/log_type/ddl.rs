//! Postgres DDL of a log type: its table by day, the leaves and their indexes, and the view over all types.
//!
//! Invariants: every name is quoted and fits Postgres' 63 bytes; one input gives one text. Indexes belong to
//! leaves, never to the partitioned table: an index there would be made with every new leaf, and a leaf loads
//! faster without. Deliberately absent: connections (`warehouse`), and what is the same for every type (`sql/`).
use std::fmt::Write;

use xxhash_rust::xxh3::xxh3_64;

use super::timestamp::{date_from_days, days_from_date};
use super::{ColumnType, LogType};

mod view;

pub use view::{TypeVersions, logs_view};

/// What the comment on each table and view of ours starts with: what lacks it is never touched.
pub const OURS: &str = "made by pipeline: ";

/// Longest identifier, bytes (`NAMEDATALEN` - 1). Postgres cuts longer ones without an error.
const MAX_NAME_BYTES: usize = 63;

/// Columns behind the type's own, as DDL.
const SYSTEM_COLUMNS: &[(&str, &str, bool)] = &[
    ("chunk_id", "bigint", true),
    ("line", "integer", true),
    ("form", "smallint", true),
    ("raw", "bytea", false),
    ("extra", "jsonb", false),
];

/// An index of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafIndex {
    /// Name, unique in the schema.
    pub name: String,
    /// Access method.
    pub method: &'static str,
    /// Indexed columns.
    pub columns: Vec<String>,
}

/// Name and Postgres type of every column of the type's table, in order.
pub fn columns(log_type: &LogType) -> Vec<(String, &'static str)> {
    let declared =
        log_type.columns.iter().map(|column| (column.name.clone(), column.column_type.postgres_type()));
    let system = SYSTEM_COLUMNS.iter().map(|(name, kind, _)| ((*name).to_owned(), *kind));
    declared.chain(system).collect()
}

/// The statements that create the table and its default leaf in `schema`; running them twice changes nothing.
pub fn table(log_type: &LogType, schema: &str) -> String {
    let name = &log_type.table.name;
    let table = qualified(schema, name);
    let mut out = format!("CREATE TABLE IF NOT EXISTS {table} (\n");
    for (name, kind) in columns(log_type) {
        let required = SYSTEM_COLUMNS.iter().any(|system| system.0 == name && system.2);
        let constraint = if required { " NOT NULL" } else { "" };
        // writing to memory cannot fail
        let _infallible = writeln!(out, "    {:<16} {kind}{constraint},", quoted(&name));
    }
    out.truncate(out.len() - 2);
    out.push_str("\n) PARTITION BY RANGE (\"timestamp\");\n");
    let default = qualified(schema, &default_leaf(name));
    let _infallible = write!(
        out,
        "COMMENT ON TABLE {table} IS {};\n\
         CREATE TABLE IF NOT EXISTS {default} PARTITION OF {table} DEFAULT;\n\
         COMMENT ON TABLE {default} IS {};\n",
        literal(&table_comment(log_type)),
        literal(&format!("{OURS}rows of {name} whose day has no table")),
    );
    out
}

/// The comment by which the type's table is known.
pub fn table_comment(log_type: &LogType) -> String {
    format!("{OURS}rows of log type {}", log_type.name())
}

/// Name of the leaf for rows whose day has none.
pub fn default_leaf(table: &str) -> String {
    joined(table, "default")
}

/// Name of the leaf for one day, counted from 1970-01-01.
pub fn day_leaf(table: &str, day: i32) -> String {
    let (year, month, day) = date_from_days(i64::from(day));
    joined(table, &format!("{year:04}{month:02}{day:02}"))
}

/// The day whose leaf of a table this is.
pub fn day_of_leaf(table: &str, leaf: &str) -> Option<i32> {
    let date = leaf.rsplit('_').next().filter(|date| date.len() == 8)?;
    let number = |digits: std::ops::Range<usize>| date.get(digits)?.parse::<i64>().ok();
    let day = days_from_date(number(0..4)?, number(4..6)?, number(6..8)?) as i32;
    (day_leaf(table, day) == leaf).then_some(day)
}

/// The indexes that a leaf of the type has once it is filled: one per column with `index = true`, those that its
/// `[postgres]` section lists, and the time.
///
/// A B-tree on the column alone keeps each value once, with a list of rows, which one that has the time beside the
/// column cannot: it is built in 0.6 x the time and is 0.23 x the size. What it lacks, a BRIN on the time adds for
/// 1/8 of that time: rows lie nearly in order of time. JSON has no order, so no index.
pub fn leaf_indexes(log_type: &LogType, leaf: &str) -> Vec<LeafIndex> {
    let indexed = log_type.table.indexed_columns.iter().map(|position| &log_type.columns[*position]);
    let trees = indexed
        .filter(|column| column.column_type != ColumnType::Json)
        .map(|column| ("btree", vec![column.name.clone()]));
    let listed = log_type.postgres_indexes.iter().map(|columns| ("btree", columns.clone()));
    let time = &log_type.columns[log_type.timestamp_column];
    let time = (!time.index).then(|| ("brin", vec![time.name.clone()]));
    let index = |(method, columns): (&'static str, Vec<String>)| LeafIndex {
        name: joined(leaf, &format!("{}_idx", columns.join("_"))),
        method,
        columns,
    };
    trees.chain(listed).chain(time).map(index).collect()
}

/// Everything about one type, for people to read and to run.
pub fn postgres(log_type: &LogType, schema: &str) -> String {
    let mut out = table(log_type, schema);
    let table = &log_type.table.name;
    let default = default_leaf(table);
    for index in leaf_indexes(log_type, &default) {
        let _infallible = writeln!(out, "{}", create_index(schema, &default, &index));
    }
    let leaf = format!("{table}_YYYYMMDD");
    let _infallible = writeln!(out, "-- one table per day of rows, {leaf}; its indexes, once it is filled:");
    for index in leaf_indexes(log_type, &leaf) {
        let _infallible = writeln!(out, "-- {}", create_index(schema, &leaf, &index));
    }
    out
}

fn create_index(schema: &str, leaf: &str, index: &LeafIndex) -> String {
    let LeafIndex { name, method, columns } = index;
    let leaf = qualified(schema, leaf);
    let columns: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    // as `pipeline_build_index` does it
    let options = if *method == "brin" { " WITH (pages_per_range = 32, autosummarize = on)" } else { "" };
    format!(
        "CREATE INDEX IF NOT EXISTS {} ON {leaf} USING {method} ({}){options};",
        quoted(name),
        columns.join(", ")
    )
}

/// `<name>_<ending>`; where that is too long, a hash stands for the end of `name`, so that names stay different.
fn joined(name: &str, ending: &str) -> String {
    let whole = format!("{name}_{ending}");
    if whole.len() <= MAX_NAME_BYTES {
        return whole;
    }
    let hash = format!("{:08x}", xxh3_64(whole.as_bytes()) as u32);
    // the ending is ours, short, and tells people what it is; a column's is not always
    let ending = &ending[ending.len().saturating_sub(30)..];
    let kept = MAX_NAME_BYTES - hash.len() - ending.len() - 2;
    format!("{}_{hash}_{ending}", &name[..kept.min(name.len())])
}

/// A name as SQL.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's name with its schema, as SQL.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(name))
}

/// A text as SQL, with `standard_conforming_strings` on or off.
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    match doubled.contains('\\') {
        true => format!("E'{}'", doubled.replace('\\', "\\\\")),
        false => format!("'{doubled}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::LogTypes;
    use super::*;

    #[test]
    fn every_column_and_index_of_the_type_is_in_its_table() {
        let types = LogTypes::load(None).unwrap();
        let ddl = postgres(types.get("dns").unwrap(), "public");
        assert_eq!(
            ddl,
            r#"CREATE TABLE IF NOT EXISTS "public"."dns_logs" (
    "timestamp"      timestamptz,
    "client_ip"      inet,
    "query_domain"   text,
    "query_type"     text,
    "server_ip"      inet,
    "response_code"  text,
    "chunk_id"       bigint NOT NULL,
    "line"           integer NOT NULL,
    "form"           smallint NOT NULL,
    "raw"            bytea,
    "extra"          jsonb
) PARTITION BY RANGE ("timestamp");
COMMENT ON TABLE "public"."dns_logs" IS 'made by pipeline: rows of log type dns';
CREATE TABLE IF NOT EXISTS "public"."dns_logs_default" PARTITION OF "public"."dns_logs" DEFAULT;
COMMENT ON TABLE "public"."dns_logs_default" IS 'made by pipeline: rows of dns_logs whose day has no table';
CREATE INDEX IF NOT EXISTS "dns_logs_default_client_ip_idx" ON "public"."dns_logs_default" USING btree ("client_ip");
CREATE INDEX IF NOT EXISTS "dns_logs_default_query_domain_idx" ON "public"."dns_logs_default" USING btree ("query_domain");
CREATE INDEX IF NOT EXISTS "dns_logs_default_timestamp_idx" ON "public"."dns_logs_default" USING brin ("timestamp") WITH (pages_per_range = 32, autosummarize = on);
-- one table per day of rows, dns_logs_YYYYMMDD; its indexes, once it is filled:
-- CREATE INDEX IF NOT EXISTS "dns_logs_YYYYMMDD_client_ip_idx" ON "public"."dns_logs_YYYYMMDD" USING btree ("client_ip");
-- CREATE INDEX IF NOT EXISTS "dns_logs_YYYYMMDD_query_domain_idx" ON "public"."dns_logs_YYYYMMDD" USING btree ("query_domain");
-- CREATE INDEX IF NOT EXISTS "dns_logs_YYYYMMDD_timestamp_idx" ON "public"."dns_logs_YYYYMMDD" USING brin ("timestamp") WITH (pages_per_range = 32, autosummarize = on);
"#
        );
    }

    #[test]
    fn names_say_the_day_fit_postgres_and_stay_different() {
        assert_eq!(day_leaf("firewall_logs", 19_737), "firewall_logs_20240115");
        assert_eq!(day_of_leaf("firewall_logs", "firewall_logs_20240115"), Some(19_737));
        for other in ["firewall_logs_default", "firewall_logs_20241301", "dns_logs_20240115", "20240115"] {
            assert_eq!(day_of_leaf("firewall_logs", other), None, "{other}");
        }
        let long = "a".repeat(63);
        let names: std::collections::BTreeSet<_> = [
            day_leaf(&long, 19_737),
            day_leaf(&long, 19_738),
            day_leaf(&format!("{}b", &long[1..]), 19_737),
            default_leaf(&long),
            joined(&long, &format!("{long}_idx")),
            joined(&long, &format!("b{}_idx", &long[1..])),
        ]
        .into();
        assert_eq!(names.len(), 6);
        assert!(names.iter().all(|name| name.len() <= 63), "{names:?}");
        assert!(names.iter().any(|name| name.ends_with("_20240115")), "{names:?}");
    }

    #[test]
    fn no_text_ends_its_literal() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r"E'a\\''b'");
        assert_eq!(qualified("a\"b", "c"), "\"a\"\"b\".\"c\"");
    }
}
