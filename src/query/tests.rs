//! What `query` promises, proven on Parquet files written here from generated lines.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use object_store::local::LocalFileSystem;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tempfile::TempDir;

use super::*;
use crate::generate::{Generator, LineType};
use crate::lake::{DataFile, TableSnapshot};
use crate::log_type::LogTypes;

/// 27.8 hours of lines: two days.
const LINES: usize = 100_000;
const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;

/// The values of a parsed line, as text.
type Row = Vec<String>;

/// An archive folder with the three built-in types, written without the code that is tested.
struct Fixture {
    folder: TempDir,
    tables: Vec<TableSnapshot>,
}

fn utc(unit: TimeUnit) -> DataType {
    DataType::Timestamp(unit, Some("UTC".into()))
}

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let system = [("chunk_id", DataType::Int64), ("line", DataType::Int32)];
    let fields = columns.iter().chain(&system).map(|(name, kind)| Field::new(*name, kind.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn generated() -> Vec<String> {
    let declared = LogTypes::load(None).unwrap();
    let line_type = |name| LineType::of(declared.get(name).unwrap()).unwrap().unwrap();
    let types = ["firewall", "dns", "auth"].map(line_type);
    let mut generator = Generator::try_new(&types, 42).unwrap();
    let mut out = Vec::new();
    (0..LINES).for_each(|_| generator.next_line(&mut out));
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

fn split(line: &str) -> (&'static str, Row) {
    let by = |ends: &[&str]| {
        let mut rest = line;
        let mut row = Row::new();
        for end in ends {
            let (value, behind) = rest.split_once(end).unwrap();
            row.push(value.to_owned());
            rest = behind;
        }
        row.push(rest.to_owned());
        row
    };
    if line.contains("|action=") {
        let row =
            line.split('|').map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value).to_owned());
        ("firewall", row.collect())
    } else if line.contains(" client ") {
        ("dns", by(&[" client ", " query: ", " IN ", " + (", ") "]))
    } else {
        let mut row = by(&[" ", " sshd[", "]: ", " ", " for ", " from ", " port ", " ssh2"]);
        row.pop();
        ("auth", row)
    }
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lines = generated();
        fs::create_dir(folder.path().join("logs")).unwrap();
        fs::write(folder.path().join("logs/all.log"), lines.join("\n") + "\n").unwrap();
        let text = DataType::Utf8;
        let time = utc(TimeUnit::Microsecond);
        let firewall = schema(&[
            ("timestamp", time.clone()),
            ("action", text.clone()),
            ("src", text.clone()),
            ("dst", text.clone()),
            ("proto", text.clone()),
            ("src_port", DataType::Int32),
            ("dst_port", DataType::Int32),
            ("bytes_sent", DataType::Int64),
            ("rule", text.clone()),
        ]);
        let dns = schema(&[
            ("timestamp", time.clone()),
            ("client_ip", text.clone()),
            ("query_domain", text.clone()),
            ("query_type", text.clone()),
            ("server_ip", text.clone()),
            ("response_code", text.clone()),
        ]);
        let auth = schema(&[
            ("timestamp", time),
            ("hostname", text.clone()),
            ("pid", DataType::Int64),
            ("status", text.clone()),
            ("auth_method", text.clone()),
            ("username", text.clone()),
            ("source_ip", text),
            ("source_port", DataType::Int32),
        ]);
        let mut rows: BTreeMap<&str, Vec<Row>> = BTreeMap::new();
        for line in &lines {
            let (log_type, row) = split(line);
            rows.entry(log_type).or_default().push(row);
        }
        let tables = [("auth", auth), ("dns", dns), ("firewall", firewall)]
            .map(|(name, schema)| write_table(folder.path(), name, &schema, &rows[name]));
        let mut fixture = Self { folder, tables: tables.into() };
        fixture.write_chunks();
        fixture
    }

    /// The ledger: chunk 7, whose open last line was superseded, holds every row.
    fn write_chunks(&mut self) {
        let columns: [(&str, ArrayRef); 3] = [
            ("chunk_id", Arc::new(Int64Array::from(vec![7, 7]))),
            ("file", Arc::new(StringArray::from(vec!["/var/log/gate/all.log"; 2]))),
            ("committed_at", Arc::new(TimestampMicrosecondArray::from(vec![1, 2]).with_timezone("UTC"))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let path = "chunks/part-0.parquet";
        let size_bytes = write_file(self.folder.path(), path, &batch);
        self.tables.push(TableSnapshot {
            name: "chunks".to_owned(),
            schema: batch.schema(),
            partitioned: false,
            version: 0,
            files: vec![DataFile {
                path: path.to_owned(),
                size_bytes,
                day: None,
                num_rows: 2,
                time_range: None,
            }],
        });
    }

    fn session(&self) -> Session {
        let store = LocalFileSystem::new_with_prefix(self.folder.path()).unwrap();
        let names = ["auth", "dns", "firewall"].map(|name| (name.to_owned(), format!("{name}_logs")));
        Session::try_new(Arc::new(store), &self.tables, &names.into()).unwrap()
    }
}

/// One file per six hours and day, those of the second day with times in milliseconds, as the archive has them.
fn write_table(folder: &Path, name: &str, schema: &SchemaRef, rows: &[Row]) -> TableSnapshot {
    let mut parts: BTreeMap<i64, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        parts.entry(micros(&row[0]) / (MICROSECONDS_PER_DAY / 4)).or_default().push(row);
    }
    let files = parts.into_iter().map(|(quarter, rows)| {
        let day = (quarter / 4) as i32;
        let batch = batch(schema, &rows);
        let batch = if day == 19_738 { with_milliseconds(&batch) } else { batch };
        let date = chrono::DateTime::from_timestamp(i64::from(day) * 86_400, 0).unwrap().format("%Y-%m-%d");
        let path = format!("{name}/day={date}/part-{quarter}.parquet");
        let times = || rows.iter().map(|row| micros(&row[0]));
        DataFile {
            size_bytes: write_file(folder, &path, &batch),
            path,
            day: Some(day),
            num_rows: rows.len() as u64,
            time_range: times().min().zip(times().max()),
        }
    });
    TableSnapshot {
        name: name.to_owned(),
        schema: Arc::clone(schema),
        partitioned: true,
        version: 0,
        files: files.collect(),
    }
}

fn micros(timestamp: &str) -> i64 {
    chrono::DateTime::parse_from_rfc3339(timestamp).unwrap().timestamp_micros()
}

fn batch(schema: &SchemaRef, rows: &[&Row]) -> RecordBatch {
    let column = |(index, field): (usize, &Arc<Field>)| -> ArrayRef {
        let texts = || rows.iter().map(|row| row[index].as_str());
        match (field.name().as_str(), field.data_type()) {
            ("chunk_id", _) => Arc::new(Int64Array::from(vec![7; rows.len()])),
            ("line", _) => Arc::new(Int32Array::from_iter_values(0..rows.len() as i32)),
            ("timestamp", kind) => {
                let times = TimestampMicrosecondArray::from_iter_values(texts().map(micros));
                cast(&times, kind).unwrap()
            }
            (_, DataType::Utf8) => Arc::new(StringArray::from_iter_values(texts())),
            (_, kind) => cast(&StringArray::from_iter_values(texts()), kind).unwrap(),
        }
    };
    let columns = schema.fields().iter().enumerate().map(column).collect();
    RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
}

fn with_milliseconds(batch: &RecordBatch) -> RecordBatch {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        let kind = match field.name().as_str() {
            "timestamp" => utc(TimeUnit::Millisecond),
            _ => field.data_type().clone(),
        };
        (field.name().clone(), cast(column, &kind).unwrap())
    });
    RecordBatch::try_from_iter(columns.collect::<Vec<_>>()).unwrap()
}

fn write_file(folder: &Path, path: &str, batch: &RecordBatch) -> u64 {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(1000))
        .set_data_page_row_count_limit(200)
        .set_write_batch_size(100)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_column_bloom_filter_enabled(ColumnPath::from("src"), true)
        .build();
    let mut writer =
        ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    fs::metadata(path).unwrap().len()
}

impl Fixture {
    /// Adds a file that has only event times, all of them the first of `old`, and one other column.
    fn add_file(&mut self, table: usize, old: &DataFile, path: &str, column: (&str, impl Array + 'static)) {
        let num_rows = column.1.len();
        let time = vec![old.time_range.unwrap().0; num_rows];
        let time = TimestampMicrosecondArray::from(time).with_timezone("UTC");
        let columns: [(&str, ArrayRef); 2] = [("timestamp", Arc::new(time)), (column.0, Arc::new(column.1))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let size_bytes = write_file(self.folder.path(), path, &batch);
        let (path, num_rows) = (path.to_owned(), num_rows as u64);
        self.tables[table].files.push(DataFile { path, size_bytes, num_rows, ..old.clone() });
    }
}

async fn print(session: &Session, format: OutputFormat, text: &str) -> Result<Vec<u8>, QueryError> {
    let mut out = Vec::new();
    let mut printer = ResultPrinter::new(format, &mut out);
    for query in session.statements(text)? {
        assert!(printer.print(session.run(&query).await?).await?);
    }
    Ok(out)
}

async fn csv(session: &Session, text: &str) -> String {
    String::from_utf8(print(session, OutputFormat::Csv, text).await.unwrap()).unwrap()
}

async fn error(session: &Session, text: &str) -> String {
    print(session, OutputFormat::Csv, text).await.unwrap_err().to_string()
}

/// Files that a plan scans; one may be there twice, in two ranges.
fn num_files(plan: &str) -> usize {
    plan.split("/part-").skip(1).map(|rest| &rest[..5]).collect::<BTreeSet<_>>().len()
}

/// The metric of this name of the plan's scan: (all, what was left), or (value, value).
fn metric(plan: &str, name: &str) -> (u64, u64) {
    let (_, text) = plan.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("no {name} in {plan}"));
    let text = text.split([',', ']']).next().unwrap();
    let numbers =
        text.split(|c: char| !c.is_ascii_digit()).filter(|t| !t.is_empty()).map(|t| t.parse().unwrap());
    let numbers: Vec<u64> = numbers.collect();
    (numbers[0], *numbers.get(1).unwrap_or(&numbers[0]))
}

#[tokio::test]
async fn six_questions_are_answered_as_plain_python_answers_them() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> =
        fs::read_dir(root.join("sql/queries")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    assert_eq!(files.len(), 6);
    for (number, file) in (1..).zip(files) {
        let answer = csv(&session, &fs::read_to_string(&file).unwrap()).await;
        let reference = Command::new("python3")
            .arg(root.join("tests/reference/six_questions.py"))
            .arg(number.to_string())
            .arg(fixture.folder.path().join("logs"))
            .output()
            .expect("python3 runs the reference script; install it");
        assert!(reference.status.success(), "{}", String::from_utf8_lossy(&reference.stderr));
        assert!(answer.lines().count() > 3, "{file:?} finds too little to prove anything: {answer}");
        assert_eq!(answer, String::from_utf8(reference.stdout).unwrap(), "{file:?}");
    }
}

#[tokio::test]
async fn files_of_other_days_and_times_are_not_opened() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let all = csv(&session, "EXPLAIN SELECT src FROM firewall_logs WHERE dst_port = 1").await;
    assert_eq!(num_files(&all), 5, "{all}");
    for (filter, files) in [
        ("day = '2024-01-16'", 1),
        ("day IN ('2024-01-16', '2024-02-01')", 1),
        ("timestamp < '2024-01-15T06:00:00Z'", 1),
        ("timestamp >= '2024-01-15T05:59:00Z' AND timestamp < '2024-01-15T06:01:00Z'", 2),
        ("timestamp > '2024-01-16T00:10:00Z' OR timestamp < '2024-01-15T00:10:00Z'", 2),
        ("timestamp > '2025-01-01T00:00:00Z'", 0),
        ("day IS NULL", 0),
    ] {
        let plan = csv(&session, &format!("EXPLAIN SELECT src FROM firewall_logs WHERE {filter}")).await;
        assert_eq!(num_files(&plan), files, "{filter}: {plan}");
    }
}

#[tokio::test]
async fn row_groups_pages_and_rows_that_cannot_match_are_not_read() {
    let fixture = Fixture::new();
    let session = fixture.session();
    // Second day: times stored in milliseconds, asked for in microseconds.
    let explain = "EXPLAIN ANALYZE SELECT rule FROM firewall_logs WHERE ";
    let time = "timestamp >= '2024-01-16T01:00:00Z' AND timestamp < '2024-01-16T01:02:00Z'";
    let plan = csv(&session, &format!("{explain}{time}")).await;
    let (all, left) = metric(&plan, "row_groups_pruned_statistics");
    assert!(all >= 6 && left == 1, "{plan}");
    let (all, left) = metric(&plan, "page_index_pages_pruned");
    assert!(left < all, "{plan}");
    // No row group lacks the address by its least and greatest value; the bloom filters know.
    let plan = csv(&session, &format!("{explain} src = '192.168.1.300'")).await;
    let (all, left) = metric(&plan, "row_groups_pruned_bloom_filter");
    assert!(all > 40 && left <= 2, "{plan}");
    // The filter runs in the scan: no operator above it filters.
    assert!(!plan.contains("FilterExec"), "{plan}");
    assert!(plan.contains("pushdown_rows_pruned="), "{plan}");
}

#[tokio::test]
async fn counts_and_time_bounds_need_no_scan() {
    let fixture = Fixture::new();
    let session = fixture.session();
    for sql in [
        "SELECT count(*) FROM firewall_logs",
        "SELECT min(timestamp), max(timestamp) FROM dns_logs",
        "SELECT count(*) FROM auth_logs WHERE day = '2024-01-16'",
    ] {
        let plan = csv(&session, &format!("EXPLAIN {sql}")).await;
        assert!(!plan.contains("DataSourceExec"), "{sql}: {plan}");
    }
    let counted = csv(&session, "SELECT count(*) AS n FROM auth_logs WHERE day = '2024-01-16'").await;
    let scanned =
        csv(&session, "SELECT count(*) AS n FROM auth_logs WHERE CAST(timestamp AS DATE) = '2024-01-16'")
            .await;
    assert_eq!(counted, scanned);
}

#[tokio::test]
async fn groups_counted_by_number_are_those_that_are_counted_by_text() {
    let mut fixture = Fixture::new();
    // a text column that most files lack
    let dns = &mut fixture.tables[1];
    let mut fields = dns.schema.fields().to_vec();
    fields.push(Arc::new(Field::new("added", DataType::Utf8, true)));
    dns.schema = Arc::new(Schema::new(fields));
    let old = dns.files[0].clone();
    fixture.add_file(
        1,
        &old,
        "dns/day=2024-01-15/new.parquet",
        ("added", StringArray::from(vec![Some("x"), None])),
    );
    let session = fixture.session();
    let by_src = "(SELECT src, count(*) AS n FROM firewall_logs GROUP BY src)";
    let by_client = "(SELECT client_ip, count(*) AS n FROM dns_logs GROUP BY client_ip)";
    let join = format!(
        "SELECT a.src, a.n, b.n AS m FROM {by_src} a JOIN {by_client} b ON a.src = b.client_ip ORDER BY src"
    );
    for (statement, is_counted) in [
        ("SELECT src, count(*) AS n FROM firewall_logs GROUP BY src ORDER BY n DESC, src", true),
        (
            "SELECT src, dst, count(*) AS n FROM firewall_logs GROUP BY src, dst ORDER BY n DESC, src, dst LIMIT 30",
            true,
        ),
        (
            "SELECT dst, src, count(*) AS n FROM firewall_logs WHERE dst_port = 443 GROUP BY src, dst ORDER BY dst, src",
            true,
        ),
        ("SELECT rule FROM firewall_logs GROUP BY rule HAVING count(*) > 100 ORDER BY rule", true),
        (
            "SELECT added, query_type, count(*) AS n FROM dns_logs GROUP BY added, query_type ORDER BY added, query_type",
            true,
        ),
        (
            "SELECT action, proto, rule, count(*) AS n FROM firewall_logs GROUP BY action, proto, rule ORDER BY 1, 2, 3",
            false,
        ),
        (join.as_str(), false),
    ] {
        let plan = csv(&session, &format!("EXPLAIN {statement}")).await;
        assert_eq!(plan.contains("CountedGroupsExec"), is_counted, "{statement}: {plan}");
        let by_text = csv(&session, &statement.replace("count(*)", "sum(1)")).await;
        assert!(by_text.lines().count() > 2, "{statement} finds too little to prove anything");
        assert_eq!(csv(&session, statement).await, by_text, "{statement}");
    }
}

#[tokio::test]
async fn groups_of_more_text_than_is_kept_are_all_there() {
    let mut fixture = Fixture::new();
    let firewall = &mut fixture.tables[2];
    let old = firewall.files[0].clone();
    firewall.files.clear();
    // 40 MiB in 16 files, of which some are read before it is too much
    for file in 0..16 {
        let rules = (0..128).map(|rule| format!("{file} {rule} {}", "long ".repeat(4096)));
        let path = format!("firewall/day=2024-01-15/part-{file}.parquet");
        fixture.add_file(2, &old, &path, ("rule", StringArray::from_iter_values(rules)));
    }
    let session = fixture.session();
    for columns in ["rule", "rule, src"] {
        let groups = format!("SELECT {columns}, count(*) AS n FROM firewall_logs GROUP BY {columns}");
        let plan = csv(&session, &format!("EXPLAIN {groups}")).await;
        assert!(plan.contains("CountedGroupsExec"), "{plan}");
        let found = csv(&session, &groups).await;
        assert_eq!(found.lines().count(), 1 + 16 * 128, "groups of {columns}, and the line of names");
        assert!(found.lines().skip(1).all(|line| line.ends_with(",1")), "a row is counted once");
    }
}

#[tokio::test]
async fn a_filter_with_a_subquery_finds_the_same_rows() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let by_day = "SELECT count(*) AS n FROM dns_logs WHERE day = (SELECT max(day) FROM dns_logs)";
    let literal = "SELECT count(*) AS n FROM dns_logs WHERE day = '2024-01-16'";
    assert_eq!(csv(&session, by_day).await, csv(&session, literal).await);
    let by_time =
        "SELECT count(*) AS n FROM dns_logs WHERE timestamp = (SELECT max(timestamp) FROM dns_logs)";
    assert_eq!(csv(&session, by_time).await, "n\n1\n");
}

#[tokio::test]
async fn only_reading_is_allowed_and_nothing_runs_before_all_is_checked() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let target = fixture.folder.path().join("stolen.csv");
    let file = target.display();
    for sql in [
        format!("COPY firewall_logs TO '{file}'"),
        format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{file}'"),
        format!("EXPLAIN ANALYZE COPY firewall_logs TO '{file}'"),
        format!("SELECT 1; COPY firewall_logs TO '{file}'"),
        "INSERT INTO firewall_logs SELECT * FROM firewall_logs".to_owned(),
        "UPDATE firewall_logs SET rule = 'x'".to_owned(),
        "DELETE FROM firewall_logs".to_owned(),
        "TRUNCATE TABLE firewall_logs".to_owned(),
        "CREATE TABLE t AS SELECT 1".to_owned(),
        "CREATE VIEW v AS SELECT 1".to_owned(),
        "SELECT * INTO t FROM firewall_logs".to_owned(),
        "WITH x AS (SELECT 1) INSERT INTO firewall_logs SELECT * FROM x".to_owned(),
        "DROP TABLE firewall_logs".to_owned(),
        "SET datafusion.execution.batch_size = 1".to_owned(),
        "RESET datafusion.execution.batch_size".to_owned(),
        "BEGIN".to_owned(),
        "PREPARE p AS SELECT 1".to_owned(),
        "CREATE FUNCTION f(int) RETURNS int RETURN $1".to_owned(),
    ] {
        let message = error(&session, &sql).await;
        assert!(message.starts_with("refused: ") && message.contains("only queries"), "{sql}: {message}");
        assert!(!message.contains('\n'));
    }
    assert!(!target.exists());
    // Files cannot be named as tables.
    let path = fixture.folder.path().join("chunks/part-0.parquet");
    let message = error(&session, &format!("SELECT * FROM '{}'", path.display())).await;
    assert!(message.contains("not found"), "{message}");
    for sql in
        ["SHOW TABLES", "DESCRIBE dns_logs", "EXPLAIN SELECT 1", "SHOW COLUMNS FROM dns_logs", "VALUES (1)"]
    {
        assert!(csv(&session, sql).await.lines().count() > 1, "{sql}");
    }
}

#[tokio::test]
async fn errors_are_one_lowercase_line_with_the_remedy() {
    let fixture = Fixture::new();
    let session = fixture.session();
    for (sql, expected) in [
        ("", "no SQL in the query"),
        ("-- nothing\n;", "no SQL in the query"),
        (
            "SELECT * FROM nowhere",
            "table 'nowhere' not found; there are auth_logs, chunks, dns_logs, firewall_logs",
        ),
        ("SELECT srcc FROM firewall_logs", "no field named srcc"),
        ("SELEC 1", "expected"),
        (
            "SELECT ip_in(src, '10.0.0.0/33') FROM firewall_logs",
            "'10.0.0.0/33' is not a network; write it as",
        ),
    ] {
        let message = error(&session, sql).await;
        assert!(message.to_lowercase().contains(&expected.to_lowercase()), "{sql}: {message}");
        assert!(!message.contains('\n') && !message.contains("DataFusion"), "{sql}: {message}");
    }
}

#[tokio::test]
async fn ip_in_knows_both_families_and_null() {
    let fixture = Fixture::new();
    let session = fixture.session();
    for (address, network, expected) in [
        ("'10.1.2.3'", "'10.0.0.0/8'", "true"),
        ("'11.1.2.3'", "'10.0.0.0/8'", "false"),
        ("'10.255.255.255'", "'10.0.0.77/8'", "true"),
        ("'192.168.1.42'", "'192.168.1.42'", "true"),
        ("'192.168.1.43'", "'192.168.1.42/32'", "false"),
        ("'192.168.1.43'", "'192.168.1.42/31'", "true"),
        ("'1.2.3.4'", "'0.0.0.0/0'", "true"),
        ("'2001:db8::1'", "'2001:db8::/32'", "true"),
        ("'2001:db9::1'", "'2001:db8::/32'", "false"),
        ("'::1'", "'::1'", "true"),
        ("'::1'", "'::/0'", "true"),
        ("'::1'", "'0.0.0.0/0'", "false"),
        ("'1.2.3.4'", "'::/0'", "false"),
        ("NULL", "'10.0.0.0/8'", ""),
        ("'10.0.0.1'", "NULL", ""),
        ("'not an address'", "'10.0.0.0/8'", ""),
    ] {
        let literal = csv(
            &session,
            &format!("SELECT ip_in({address}, {network}) IS TRUE AS t, ip_in({address}, {network}) AS r"),
        )
        .await;
        let row = format!("{},{expected}", expected == "true");
        assert_eq!(literal.lines().nth(1).unwrap(), row, "{address} in {network}");
        // The same from columns.
        let column = format!(
            "SELECT ip_in(a, n) IS TRUE AS t, ip_in(a, n) AS r FROM (VALUES ({address}, {network}), ('1.1.1.1', '1.1.1.1')) v(a, n)"
        );
        assert_eq!(csv(&session, &column).await.lines().nth(1).unwrap(), row, "{column}");
    }
    for network in ["10.0.0.0/33", "10.0.0/8", "2001:db8::/129", "host", "10.0.0.0/-1", ""] {
        let message = error(&session, &format!("SELECT ip_in('10.0.0.1', '{network}')")).await;
        assert!(message.contains(&format!("ip_in: '{network}' is not a network")), "{message}");
    }
    let by_network = "SELECT count(*) AS n FROM firewall_logs WHERE ip_in(src, '192.168.1.0/28')";
    let by_list = "SELECT count(*) AS n FROM firewall_logs WHERE CAST(split_part(src, '.', 4) AS INT) < 16";
    assert_eq!(csv(&session, by_network).await, csv(&session, by_list).await);
}

#[tokio::test]
async fn keys_of_json_are_read_as_postgres_reads_them() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let object = r#"'{"src":"10.0.0.1","n":5,"list":[1],"none":null}'"#;
    for (key, expected) in [("src", "10.0.0.1"), ("n", "5"), ("list", "[1]"), ("none", ""), ("absent", "")] {
        let sql = format!("SELECT 1 AS one, j ->> '{key}' AS v FROM (VALUES ({object}), ('not json')) t(j)");
        assert_eq!(csv(&session, &sql).await, format!("one,v\n1,{expected}\n1,\n"), "{key}");
    }
    let sql = format!(
        "SELECT count(*) AS n FROM (VALUES ({object})) t(j) WHERE j->>'src' = '10.0.0.1' AND (j->>'n')::int > 4"
    );
    assert_eq!(csv(&session, &sql).await, "n\n1\n");
}

#[tokio::test]
async fn date_trunc_of_utc_times_agrees_with_that_of_local_times() {
    let fixture = Fixture::new();
    let session = fixture.session();
    for unit in ["second", "minute", "hour", "day", "week", "month", "quarter", "year"] {
        let sql = format!(
            "SELECT count(*) AS n FROM dns_logs WHERE arrow_cast(date_trunc('{unit}', timestamp), 'Timestamp(Microsecond, None)') \
             <> date_trunc('{unit}', arrow_cast(timestamp, 'Timestamp(Microsecond, None)'))"
        );
        assert_eq!(csv(&session, &sql).await, "n\n0\n", "{unit}");
    }
    let scalar = "SELECT date_trunc('hour', arrow_cast('2024-01-15T05:06:07Z', 'Timestamp(Microsecond, Some(\"UTC\"))')) AS t";
    assert_eq!(csv(&session, scalar).await, "t\n2024-01-15T05:00:00Z\n");
}

#[tokio::test]
async fn each_form_shows_the_same_rows() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let sql = "SELECT * FROM (VALUES (1, 'a,b'), (20, NULL), (3, 'x\u{1b}[31m\n\"y\"')) v(number, text)";
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let table = text(print(&session, OutputFormat::Table, sql).await.unwrap());
    let expected = [
        " number | text",
        "--------+-------------",
        "      1 | a,b",
        "     20 |",
        "      3 | x\\u{1b}[31m",
        "        | \"y\"",
        "(3 rows)",
        "",
    ];
    assert_eq!(table, expected.join("\n"));
    let json = text(print(&session, OutputFormat::Json, sql).await.unwrap());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json,
        serde_json::json!([
            {"number": 1, "text": "a,b"},
            {"number": 20, "text": null},
            {"number": 3, "text": "x\u{1b}[31m\n\"y\""},
        ])
    );
    assert_eq!(csv(&session, sql).await, "number,text\n1,\"a,b\"\n20,\n3,\"x\u{1b}[31m\n\"\"y\"\"\"\n");
    let parquet = print(&session, OutputFormat::Parquet, sql).await.unwrap();
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(parquet)).unwrap().build().unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 3);
}

#[tokio::test]
async fn a_result_without_rows_still_has_its_form() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let sql = "SELECT src, dst_port FROM firewall_logs WHERE dst_port = 1";
    let text = async |format| String::from_utf8(print(&session, format, sql).await.unwrap()).unwrap();
    assert_eq!(text(OutputFormat::Csv).await, "src,dst_port\n");
    assert_eq!(text(OutputFormat::Json).await, "[]\n");
    assert_eq!(text(OutputFormat::Table).await, " src | dst_port\n-----+----------\n(0 rows)\n");
    assert!(print(&session, OutputFormat::Parquet, sql).await.unwrap().starts_with(b"PAR1"));
}

#[tokio::test]
async fn each_of_several_statements_prints_its_result_in_turn() {
    let fixture = Fixture::new();
    let session = fixture.session();
    assert_eq!(csv(&session, "SELECT 1 AS a; -- first\nSELECT 2 AS b, ';' AS c;").await, "a\n1\nb,c\n2,;\n");
}

#[tokio::test]
async fn a_reader_that_goes_away_is_not_an_error() {
    struct Head(usize);
    impl std::io::Write for Head {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let fixture = Fixture::new();
    let session = fixture.session();
    for format in [OutputFormat::Table, OutputFormat::Json, OutputFormat::Csv, OutputFormat::Parquet] {
        for bytes in [0, 10_000] {
            let mut printer = ResultPrinter::new(format, Head(bytes));
            let result = session.sql("SELECT * FROM firewall_logs").await.unwrap();
            assert!(!printer.print(result).await.unwrap(), "{format:?} after {bytes} bytes");
        }
    }
}

#[tokio::test]
async fn a_column_that_older_files_lack_is_null_there() {
    let mut fixture = Fixture::new();
    let dns = &mut fixture.tables[1];
    let mut fields = dns.schema.fields().to_vec();
    fields.push(Arc::new(Field::new("added", DataType::Int16, true)));
    dns.schema = Arc::new(Schema::new(fields));
    let old = dns.files[0].clone();
    dns.files.truncate(1);
    fixture.add_file(1, &old, "dns/day=2024-01-15/new.parquet", ("added", Int16Array::from(vec![5])));
    let session = fixture.session();
    let counts = "SELECT count(*) AS n, count(added) AS new, count(client_ip) AS old FROM dns_logs";
    assert_eq!(csv(&session, counts).await, format!("n,new,old\n{},1,{}\n", old.num_rows + 1, old.num_rows));
    let found = csv(&session, "SELECT added, client_ip FROM dns_logs WHERE added = 5").await;
    assert_eq!(found, "added,client_ip\n5,\n");
}

#[tokio::test]
async fn the_view_logs_shows_each_row_once_with_its_file() {
    let fixture = Fixture::new();
    let session = fixture.session();
    let first = |name: &str| {
        let first = |args: &[ColumnarValue]| Ok(args[0].clone());
        Arc::new(create_udf(
            name,
            vec![DataType::Utf8View; 2],
            DataType::Utf8View,
            Volatility::Immutable,
            Arc::new(first),
        ))
    };
    let branch = |log_type: &str, arguments: [&str; 2]| LogsBranch {
        log_type: log_type.to_owned(),
        table: format!("{log_type}_logs"),
        arguments: arguments.map(str::to_owned).into(),
        versions: None,
        raw_line: first("raw_line"),
        timestamp: first("timestamp"),
        parsed_data: first("parsed_data"),
    };
    let branches = [branch("dns", ["query_domain", "client_ip"]), branch("firewall", ["rule", "src"])];
    session.define_logs(&branches).await.unwrap();
    let logs = csv(&session, "SELECT log_type, source_file, count(*) AS n, count(DISTINCT id) > 0 AS ids, max(indexed_at) AS at FROM logs GROUP BY log_type, source_file ORDER BY 1").await;
    let count = |index: usize| fixture.tables[index].files.iter().map(|file| file.num_rows).sum::<u64>();
    let at = "1970-01-01T00:00:00.000002Z";
    assert_eq!(
        logs,
        format!(
            "log_type,source_file,n,ids,at\ndns,all.log,{},true,{at}\nfirewall,all.log,{},true,{at}\n",
            count(1),
            count(2)
        )
    );
    let columns = csv(&session, "SELECT * FROM logs LIMIT 0").await;
    assert_eq!(columns, "id,log_type,raw_line,timestamp,source_file,parsed_data,indexed_at\n");
    // One log type asked for, one table read.
    let plan = csv(&session, "EXPLAIN SELECT raw_line FROM logs WHERE log_type = 'dns'").await;
    assert!(plan.contains("/dns/") || plan.contains("dns/day="), "{plan}");
    assert!(!plan.contains("firewall/day="), "{plan}");
}
