//! What Postgres needs to be to hold rows.
use tokio_postgres::{Client, Error};

use super::{Checks, now};
use crate::client::PgConfig;

const MIN_VERSION: i32 = 13_0000;
/// A load that fills it checkpoints: below this, several times in a minute.
const MIN_WAL_MIB: i64 = 2048;
/// A process takes one per worker, and people want some.
const MIN_FREE_CONNECTIONS: i64 = 10;

pub(super) async fn check(config: &PgConfig, schema: &str, tables: &[String], checks: &mut Checks) {
    let client = match config.connect().await {
        Ok(client) => client,
        Err(error) => return checks.error(error),
    };
    checks.ok(format!("{config} answers"));
    let looked = async {
        server(&client, checks).await?;
        durability(&client, checks).await?;
        permissions(&client, schema, checks).await?;
        relations(&client, schema, tables, checks).await?;
        clock(&client, checks).await
    };
    if let Err(error) = looked.await {
        let words = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
        checks.fail(format!("a look at it failed: {words}"), "grant the user SELECT on the catalogues");
    }
}

async fn server(client: &Client, checks: &mut Checks) -> Result<(), Error> {
    let sql = "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
               pg_is_in_recovery(), current_setting('server_encoding'),
               current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
               - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')";
    let row = client.query_one(sql, &[]).await?;
    let (number, version) = (row.get::<_, i32>(0), row.get::<_, &str>(1));
    match number >= MIN_VERSION {
        true => checks.ok(format!("version {version}")),
        false => checks.fail(format!("version {version}"), "install Postgres 13 or later"),
    }
    if row.get(2) {
        checks.fail("is a standby, which takes no rows", "name its primary in --into");
    }
    match row.get(3) {
        "UTF8" => checks.ok("encoding UTF8"),
        other => checks.fail(
            format!("encoding {other} cannot hold every line's text"),
            "create the database with ENCODING 'UTF8' TEMPLATE template0",
        ),
    }
    let free: i64 = row.get(4);
    match free >= MIN_FREE_CONNECTIONS {
        true => checks.ok(format!("{free} connections are free")),
        false => checks.warn(
            format!("only {free} connections are free"),
            "raise max_connections, or end some; a process takes one per worker",
        ),
    }
    Ok(())
}

async fn durability(client: &Client, checks: &mut Checks) -> Result<(), Error> {
    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        let value: String = client.query_one("SELECT current_setting($1)", &[&setting]).await?.get(0);
        match value.as_str() {
            "off" => checks.fail(
                format!("{setting} is off: after a crash, lines that were acknowledged are lost"),
                format!("ALTER SYSTEM SET {setting} = on; SELECT pg_reload_conf()"),
            ),
            value => checks.ok(format!("{setting} is {value}")),
        }
    }
    // in MiB, whatever the unit of the setting
    let sql =
        "SELECT pg_size_bytes(current_setting('max_wal_size')) / 1048576, current_setting('max_wal_size')";
    let row = client.query_one(sql, &[]).await?;
    let (mib, text) = (row.get::<_, i64>(0), row.get::<_, &str>(1));
    match mib >= MIN_WAL_MIB {
        true => checks.ok(format!("max_wal_size is {text}")),
        false => checks.warn(
            format!("max_wal_size is {text}: a load checkpoints all the time, and is slower"),
            "ALTER SYSTEM SET max_wal_size = '4GB'; SELECT pg_reload_conf()",
        ),
    }
    Ok(())
}

async fn permissions(client: &Client, schema: &str, checks: &mut Checks) -> Result<(), Error> {
    let user: String = client.query_one("SELECT current_user::text", &[]).await?.get(0);
    // a list of privileges would be asked for any, not for all
    let sql = "SELECT has_schema_privilege(oid, 'USAGE') AND has_schema_privilege(oid, 'CREATE')
               FROM pg_namespace WHERE nspname = $1";
    match client.query_opt(sql, &[&schema]).await?.map(|row| row.get(0)) {
        Some(true) => checks.ok(format!("{user} can create in schema {schema}")),
        Some(false) => checks.fail(
            format!("{user} cannot create in schema {schema}"),
            format!("GRANT USAGE, CREATE ON SCHEMA \"{schema}\" TO \"{user}\", or name another by --schema"),
        ),
        None => {
            let sql = "SELECT has_database_privilege(current_database(), 'CREATE')";
            match client.query_one(sql, &[]).await?.get(0) {
                true => checks.ok(format!("schema {schema} is not there yet; {user} can create it")),
                false => checks.fail(
                    format!("schema {schema} is not there, and {user} cannot create it"),
                    format!("CREATE SCHEMA \"{schema}\" AUTHORIZATION \"{user}\""),
                ),
            }
        }
    }
    Ok(())
}

async fn relations(
    client: &Client,
    schema: &str,
    tables: &[String],
    checks: &mut Checks,
) -> Result<(), Error> {
    let sql = "SELECT c.relname::text, c.relkind::text,
               has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT'),
               (SELECT array_agg(a.attname::text) FROM pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1";
    let rows = client.query(sql, &[&schema]).await?;
    let mut present = 0;
    for row in &rows {
        let (name, kind, is_writable) = (row.get::<_, &str>(0), row.get::<_, &str>(1), row.get::<_, bool>(2));
        let columns: Option<Vec<String>> = row.get(3);
        if name == "logs" && !is_our_view(kind, &columns.unwrap_or_default()) {
            checks.fail(
                format!("{schema}.logs is not the view that is made here; it is never touched"),
                "name an empty schema by --schema",
            );
        }
        if tables.iter().any(|table| table == name) {
            present += 1;
            if !is_writable {
                checks.fail(
                    format!("{schema}.{name} cannot be written by this user"),
                    "grant SELECT and INSERT, or connect as its owner",
                );
            }
        }
    }
    match present {
        0 => checks.ok(format!("no tables in schema {schema} yet; the first run makes them")),
        _ => checks.ok(format!("{present} of {} tables are in schema {schema}", tables.len())),
    }
    Ok(())
}

/// The columns that queries for the old single table use. An old *table* of that name has rows of its own.
fn is_our_view(kind: &str, columns: &[String]) -> bool {
    let ours = ["id", "log_type", "raw_line", "timestamp", "source_file", "parsed_data", "indexed_at"];
    kind == "v" && ours.iter().all(|ours| columns.iter().any(|column| column == ours))
}

async fn clock(client: &Client, checks: &mut Checks) -> Result<(), Error> {
    let before = now();
    let sql = "SELECT extract(epoch FROM clock_timestamp())::float8";
    let theirs: f64 = client.query_one(sql, &[]).await?.get(0);
    checks.clock(theirs - f64::midpoint(before, now()));
    Ok(())
}
