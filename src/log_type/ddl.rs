//! Postgres DDL of a log type's table: partitioned by day, typed columns, indexes on `index = true`.
use std::fmt::Write;

use super::LogType;

/// The statements that create the table in `schema`; running them twice changes nothing.
pub fn postgres(log_type: &LogType, schema: &str) -> String {
    let table = format!("{}.{}", quoted(schema), quoted(&log_type.table.name));
    let mut out = format!("CREATE TABLE IF NOT EXISTS {table} (\n");
    let mut column = |name: &str, postgres_type: &str| {
        // writing to memory cannot fail
        let _infallible = writeln!(out, "    {:<16} {postgres_type},", quoted(name));
    };
    for declared in &log_type.columns {
        column(&declared.name, declared.column_type.postgres_type());
    }
    column("chunk_id", "bigint NOT NULL");
    column("line", "integer NOT NULL");
    column("form", "smallint NOT NULL");
    column("raw", "bytea");
    column("extra", "jsonb");
    out.truncate(out.len() - 2);
    out.push_str("\n) PARTITION BY RANGE (\"timestamp\");\n");
    let default = format!("{}.{}", quoted(schema), quoted(&format!("{}_default", log_type.table.name)));
    let _infallible = writeln!(out, "CREATE TABLE IF NOT EXISTS {default} PARTITION OF {table} DEFAULT;");
    for position in &log_type.table.indexed_columns {
        let name = &log_type.columns[*position].name;
        let index = format!("{}_{name}_timestamp", log_type.table.name);
        let _infallible = writeln!(
            out,
            "CREATE INDEX IF NOT EXISTS {} ON {table} ({}, \"timestamp\");",
            quoted(&index),
            quoted(name)
        );
    }
    out
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
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
CREATE TABLE IF NOT EXISTS "public"."dns_logs_default" PARTITION OF "public"."dns_logs" DEFAULT;
CREATE INDEX IF NOT EXISTS "dns_logs_client_ip_timestamp" ON "public"."dns_logs" ("client_ip", "timestamp");
CREATE INDEX IF NOT EXISTS "dns_logs_query_domain_timestamp" ON "public"."dns_logs" ("query_domain", "timestamp");
"#
        );
    }
}
