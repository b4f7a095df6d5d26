//! The schema in Postgres: made by many at once, changed only by adding, shared with what is not ours.
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use futures_util::future::join_all;
use pipeline::decode::Decoder;
use pipeline::log_type::ddl::{literal, qualified, quoted};
use pipeline::log_type::{LogType, LogTypes};
use pipeline::model::{DecodedBatch, RawChunk, Source};
use pipeline::warehouse::{WarehouseError, migrate};
use sha2::{Digest, Sha256};
use tokio_postgres::{Client, NoTls};

use super::servers::{Database, Postgres, wait_until};

mod days;
mod view;

const TINY: &str = r#"
name  = "tiny"
lines = ["{timestamp} {user}"]
[columns]
timestamp = { type = "timestamp" }
user      = { type = "string", index = true }
"#;

pub(super) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn types(texts: &[&str]) -> LogTypes {
    LogTypes::new(texts.iter().map(|text| Arc::new(LogType::try_new("test", text).unwrap())).collect())
}

fn built_in() -> LogTypes {
    LogTypes::load(None::<&Path>).unwrap()
}

async fn make(database: &Database, schema: &str, types: &LogTypes) -> Result<(), WarehouseError> {
    migrate(&mut connect(&database.url()).await, schema, types).await
}

/// A chunk of a file of this name.
fn chunk(file: &str, bytes: &[u8]) -> RawChunk {
    let id = Source::identity(file, 0, 0, 0);
    let source =
        Source { path: file.into(), device: 0, inode: 0, generation: 0, head_len_bytes: 0, head_hash: 0, id };
    RawChunk {
        source: Arc::new(source),
        first_byte: 0,
        bytes: Bytes::copy_from_slice(bytes),
        content_sha256: Sha256::digest(bytes).into(),
        reference_time: 1_717_200_000_000_000,
        piece: None,
        open: false,
    }
}

/// Inserts rows and ledger entry as plain SQL: what is tested here is what becomes of them.
fn load(database: &Database, schema: &str, decoded: &DecodedBatch) {
    let record = &decoded.record;
    let mut sql = format!(
        "INSERT INTO {} VALUES ({}, {}, {}, 0, 0, 0, 0, 0, 0, {}, '', {}, {}, {}, {}, {}, NULL, NULL, 'lf', true, NULL, NULL, false, now(), now(), 'test');\n",
        qualified(schema, "chunks"),
        record.chunk_id,
        record.range.source_id.cast_signed(),
        literal(&record.source.path),
        record.range.end_byte,
        record.num_lines,
        record.num_rows,
        record.num_rejects,
        record.num_blanks,
        literal(&serde_json::to_string(&record.types).unwrap()),
    );
    for rows in &decoded.types {
        let schema_of_rows = rows.batch.schema();
        let names: Vec<_> = schema_of_rows.fields().iter().map(|field| quoted(field.name())).collect();
        for row in 0..rows.batch.num_rows() {
            let values: Vec<_> = (0..names.len()).map(|column| value(&rows.batch, column, row)).collect();
            let table = qualified(schema, &rows.table.name);
            writeln!(sql, "INSERT INTO {table} ({}) VALUES ({});", names.join(", "), values.join(", "))
                .unwrap();
        }
    }
    database.sql(&sql);
}

fn value(batch: &RecordBatch, column: usize, row: usize) -> String {
    use arrow::compute::cast;
    use arrow::datatypes::DataType;
    let array = batch.column(column);
    if array.is_null(row) {
        return "NULL".to_owned();
    }
    match array.data_type() {
        DataType::Timestamp(..) => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
            // whole seconds apart: a product with an interval is made in floating point
            let (seconds, rest) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
            format!(
                "timestamptz 'epoch' + {seconds} * interval '1 second' + {rest} * interval '1 microsecond'"
            )
        }
        DataType::Binary => {
            let hex: String =
                array.as_binary::<i32>().value(row).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("'\\x{hex}'::bytea")
        }
        DataType::Float64 => format!("'{:e}'", array.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            cast(array, &DataType::Int64).unwrap().as_primitive::<Int64Type>().value(row).to_string()
        }
        _ => literal(cast(array, &DataType::Utf8).unwrap().as_string::<i32>().value(row)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_at_once_make_one_schema() {
    let database = Postgres::shared().database();
    // two schemas, so that roles and functions meet as well
    let makes = (0..8).map(|number| {
        let (url, schema) = (database.url(), format!("logs {}\"'\\", number % 2));
        tokio::spawn(async move { migrate(&mut connect(&url).await, &schema, &built_in()).await })
    });
    for made in join_all(makes).await {
        made.unwrap().unwrap();
    }
    let count = "SELECT count(*), count(DISTINCT relnamespace) FROM pg_class WHERE relname IN ('logs', 'dns_logs', 'dns_logs_default', 'chunks')";
    assert_eq!(database.sql(count), "8|2");
    let state = "SELECT count(*), max(version) FROM \"logs 0\"\"'\\\".schema_migrations; SELECT count(*) FROM \"logs 0\"\"'\\\".log_types";
    let files = std::fs::read_dir(super::support::repository("sql")).unwrap().flatten();
    let files = files.filter(|file| file.path().extension().is_some_and(|of| of == "sql")).count();
    assert_eq!(database.sql(state), format!("{files}|{files}\n3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_as_it_should_be_is_only_read() {
    let database = Postgres::shared().database();
    make(&database, "public", &built_in()).await.unwrap();
    let mut client = connect(&database.url()).await;
    // it would be refused to write anything, and to take a lock that a writer takes
    client.batch_execute("SET default_transaction_read_only = on").await.unwrap();
    migrate(&mut client, "public", &built_in()).await.unwrap();
    // so is one to which fewer types are known
    migrate(&mut client, "public", &types(&[])).await.unwrap();
    let error = migrate(&mut client, "public", &types(&[TINY])).await.unwrap_err().to_string();
    assert!(error.contains("cannot execute") && error.contains("read-only transaction"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_a_type_gained_is_added_and_old_rows_keep_their_lines() {
    let database = Postgres::shared().database();
    let old = types(&[TINY]);
    make(&database, "public", &old).await.unwrap();
    load(
        &database,
        "public",
        &Decoder::new(&old).decode(&chunk("/var/old.log", b"2024-01-15T00:00:00Z root\n")),
    );
    // the same place in the form now means another line
    let text = TINY.replace("{user}\"]", "from {address} by {user} ({load})\"]")
        + "address = { type = \"ip\" }\nload = { type = \"f64\" }\n";
    let new = types(&[&text]);
    make(&database, "public", &new).await.unwrap();
    let line = b"2024-01-15T00:00:01Z from ::1:2 by ann (0.00001)\n";
    load(&database, "public", &Decoder::new(&new).decode(&chunk("new.log", line)));
    let both =
        "2024-01-15T00:00:00Z root|old.log|\n2024-01-15T00:00:01Z from ::1:2 by ann (0.00001)|new.log|::1:2";
    let select = "SELECT raw_line, source_file, parsed_data ->> 'address' FROM logs ORDER BY 1";
    assert_eq!(database.sql(select), both);
    // an older program does not take anything back
    make(&database, "public", &old).await.unwrap();
    assert_eq!(database.sql(select), both);
    assert_eq!(database.sql("SELECT count(*) FROM log_types"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_waits_for_a_long_reader_and_lets_others_read_meanwhile() {
    let database = Postgres::shared().database();
    make(&database, "public", &types(&[TINY])).await.unwrap();
    let (long, other) = (connect(&database.url()).await, connect(&database.url()).await);
    long.batch_execute("BEGIN; SELECT count(*) FROM tiny_logs").await.unwrap();
    let url = database.url();
    let changing = tokio::spawn(async move {
        let more = format!("{TINY}\nroom = {{ type = \"string\" }}\n");
        migrate(&mut connect(&url).await, "public", &types(&[&more])).await
    });
    wait_until("the change waits for the table", || {
        database
            .sql("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'tiny_logs'::regclass")
            == "t"
    });
    // it waits behind the change, which has to step aside for it
    other.batch_execute("SET lock_timeout = '6s'; SELECT count(*) FROM tiny_logs").await.unwrap();
    long.batch_execute("COMMIT").await.unwrap();
    changing.await.unwrap().unwrap();
    assert_eq!(database.sql("SELECT count(room) FROM tiny_logs"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_rows_could_not_follow_is_refused_and_says_why() {
    let database = Postgres::shared().database();
    make(&database, "public", &types(&[TINY])).await.unwrap();
    for (text, reason) in [
        (
            TINY.replace("type = \"string\"", "type = \"ip\""),
            "table tiny_logs: column user is text and the type file says inet; give the changed log type another name and table",
        ),
        (
            TINY.replace("name  = \"tiny\"", "name  = \"tiny\"\ntable = \"others\""),
            "table others: rows of log type tiny are in table tiny_logs; keep that table, or give the changed log type another name",
        ),
        (
            TINY.replace("name  = \"tiny\"", "name  = \"small\"\ntable = \"tiny_logs\""),
            "table tiny_logs: it holds rows of log type tiny; give log type small another table",
        ),
        (
            TINY.replace("name  = \"tiny\"", "name  = \"small\"\ntable = \"sources\""),
            "table sources: it holds the newest identity of each stream of bytes; give log type small another table",
        ),
    ] {
        let error = make(&database, "public", &types(&[&text])).await.unwrap_err();
        assert!(matches!(error, WarehouseError::Incompatible { .. }) && !error.is_retriable());
        assert_eq!(error.to_string(), reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_never_touched() {
    for (sql, relation) in [
        ("CREATE VIEW logs AS SELECT 1 AS id", "logs"),
        ("CREATE TABLE schema_migrations (version bigint)", "schema_migrations"),
        ("CREATE TABLE dns_logs (line text); COMMENT ON TABLE dns_logs IS 'ours'", "dns_logs"),
        ("CREATE SEQUENCE chunks", "chunks"),
    ] {
        let database = Postgres::shared().database();
        database.sql(sql);
        let objects =
            "SELECT string_agg(relname, ',') FROM pg_class WHERE relnamespace = 'public'::regnamespace";
        let before = database.sql(objects);
        let error = make(&database, "public", &built_in()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "schema public already has a {relation} that is not pipeline's; name another schema with --schema"
            )
        );
        assert_eq!(database.sql(objects), before);
        make(&database, "elsewhere", &built_in()).await.unwrap();
        assert_eq!(database.sql(objects), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_may_be_missing_and_a_loader_need_not_own_the_tables() {
    let database = Postgres::shared().database();
    database.sql(
        "DO $$ BEGIN CREATE ROLE schema_test_owner LOGIN PASSWORD 'x'; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         DO $$ BEGIN CREATE ROLE schema_test_loader LOGIN PASSWORD 'x'; EXCEPTION WHEN duplicate_object THEN NULL; END $$;",
    );
    let as_user = |user: &str| {
        let (_, place) = database.url().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        format!("postgres://{user}:x@{place}")
    };
    let refused = migrate(&mut connect(&as_user("schema_test_owner")).await, "site", &built_in()).await;
    let error = refused.unwrap_err().to_string();
    assert!(error.starts_with("create schema site: permission denied for database"), "{error}");
    assert!(error.ends_with("or name a schema of this user's with --schema"), "{error}");
    database.sql("CREATE SCHEMA site AUTHORIZATION schema_test_owner");
    // this user may not make roles; another database of the server may have made them
    migrate(&mut connect(&as_user("schema_test_owner")).await, "site", &built_in()).await.unwrap();
    make(&database, "public", &built_in()).await.unwrap();
    database.sql("GRANT pipeline_writer TO schema_test_loader");
    let mut loader = connect(&as_user("schema_test_loader")).await;
    migrate(&mut loader, "public", &built_in()).await.unwrap();
    let days = pipeline::warehouse::ensure_days(&loader, "public", "dns_logs", &[19_737]).await.unwrap();
    assert_eq!(days.ready[&19_737], "dns_logs_20240115");
    loader
        .batch_execute("INSERT INTO dns_logs_20240115 (timestamp, chunk_id, line, form) VALUES ('2024-01-15T12:00Z', 1, 2, 3)")
        .await
        .unwrap();
    let other = "SELECT pipeline_ensure_days('chunks', ARRAY['x'], ARRAY[now()::date])";
    let error = loader.batch_execute(other).await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("chunks is not a log type's table"));
    database
        .sql("REVOKE pipeline_writer FROM schema_test_loader; GRANT pipeline_analyst TO schema_test_loader");
    let read = "SELECT count(*) FROM logs WHERE source_file IS NULL AND indexed_at IS NULL; SELECT * FROM dns_logs_20240115";
    loader.batch_execute(read).await.unwrap();
    for write in [
        "DELETE FROM dns_logs",
        "DELETE FROM chunks",
        "SELECT pipeline_ensure_days('dns_logs', '{x}', '{2024-01-16}')",
    ] {
        let error = loader.batch_execute(write).await.unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{write}");
    }
    database.sql("REVOKE pipeline_analyst FROM schema_test_loader");
}
