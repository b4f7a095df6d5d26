//! The view `logs`: every row gives back its line, its time's own text and its keys, as the archive's view does.
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use pipeline::decode::Decoder;
use pipeline::log_type::render::Renderer;
use pipeline::log_type::{LogTypes, timestamp};
use pipeline::model::DecodedBatch;

use super::{built_in, chunk, connect, literal, load, make, types};
use crate::servers::{Database, Postgres};
use crate::support::{AUTH_LINE, DNS_LINE, FIREWALL_LINE};

/// (line, timestamp, parsed_data) of every row, as the library renders it; sorted.
fn rendered(types: &LogTypes, decoded: &DecodedBatch) -> Vec<(String, String, serde_json::Value)> {
    let mut all = Vec::new();
    for rows in &decoded.types {
        let log_type = types.get(&rows.table.log_type).unwrap();
        let renderer = Renderer::try_new(log_type, &rows.batch).unwrap();
        let storable = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}");
        for row in 0..rows.batch.num_rows() {
            let (mut line, mut time) = (Vec::new(), Vec::new());
            renderer.line(row, &mut line);
            renderer.timestamp_text(row, &mut time);
            let time = storable(&time);
            let extra = rows.batch.column_by_name("extra").unwrap();
            let extra = arrow::array::AsArray::as_string::<i32>(extra);
            let mut keys: BTreeMap<String, String> = match arrow::array::Array::is_valid(extra, row) {
                true => serde_json::from_str(extra.value(row)).unwrap(),
                false => BTreeMap::new(),
            };
            for (position, column) in log_type.columns.iter().enumerate() {
                let mut text = Vec::new();
                if renderer.value_text(position, row, &mut text) {
                    keys.insert(column.name.clone(), storable(&text));
                }
            }
            keys.insert("timestamp".into(), time.clone());
            keys.insert("log_type".into(), rows.table.log_type.clone());
            let line = storable(line.strip_suffix(b"\r").unwrap_or(&line));
            all.push((line, time, serde_json::json!(keys)));
        }
    }
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

/// The view must give what the library gives.
async fn expect_as_rendered(database: &Database, types: &LogTypes, decoded: &DecodedBatch) {
    load(database, "public", decoded);
    let client = connect(&database.url()).await;
    let select = "SELECT raw_line, timestamp, parsed_data FROM logs ORDER BY raw_line COLLATE \"C\"";
    let rows = client.query(select, &[]).await.unwrap();
    let found: Vec<(String, String, serde_json::Value)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    let expected = rendered(types, decoded);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_line_is_the_line_for_every_example_of_the_built_in_types() {
    let database = Postgres::shared().database();
    let types = built_in();
    make(&database, "public", &types).await.unwrap();
    let mut lines: Vec<String> = types
        .iter()
        .flat_map(|log_type| log_type.examples.iter().filter(|example| !example.reject))
        .map(|example| example.line.clone())
        .collect();
    lines.extend([
        format!("  {DNS_LINE} "),
        FIREWALL_LINE.replace("src_port=56374", "src_port=056374"),
        FIREWALL_LINE.replace("src=192.168.1.45", "src=\"no\\where\""),
        FIREWALL_LINE.replace("192.168.1.45", "::7"),
        AUTH_LINE.replace(' ', "  "),
        "1705276803|rule=b,c|rule=d|zone=dmz|log_type=x".to_owned(),
        // the event time is not where the line starts
        "rule=b|2024-01-15T00:00:03,731Z".to_owned(),
    ]);
    // every other template of ssh lines
    let auth = types.get("auth").unwrap();
    for variant in &auth.variants {
        let text = pipeline::log_type::template::to_text(&variant.parts);
        let mut line = text.replace("{ }", " ").replace("{{", "{").replace("}}", "}");
        for (name, value) in [
            ("timestamp", "Jan  5 10:11:12"),
            ("hostname", "gate"),
            ("pid", "7"),
            ("status", "Partial"),
            ("auth_method", "password"),
            ("username", "it's \\me"),
            ("source_ip", "203.0.113.9"),
            ("source_port", "22"),
            ("message", "50% of 'ü'"),
            ("repeated", "2"),
            ("uid", "0"),
            ("user_state", "invalid"),
        ] {
            line = line.replace(&format!("{{{name}}}"), value).replace(&format!("{{{name}*}}"), value);
        }
        lines.push(line);
    }
    let text = lines.join("\r\n") + "\r\n";
    let decoded = Decoder::new(&types).decode(&chunk("/var/log/a b.log", text.as_bytes()));
    assert_eq!(decoded.record.num_rows, lines.len() as u64, "{:?}", decoded.rejects);
    expect_as_rendered(&database, &types, &decoded).await;
    let mut originals = lines;
    originals.sort();
    let client = connect(&database.url()).await;
    let rows = client.query("SELECT raw_line FROM logs ORDER BY raw_line COLLATE \"C\"", &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<String>>(), originals);
    let ledger = "SELECT DISTINCT source_file, indexed_at = committed_at FROM logs, chunks";
    assert_eq!(database.sql(ledger), "a b.log|t");
    let ids =
        "SELECT count(DISTINCT id) = count(*), bool_and(id # chunk_id BETWEEN 0 AND 1000) FROM logs, chunks";
    assert_eq!(database.sql(ids), "t|t");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_type_are_the_text_of_their_line() {
    let kinds = ["string", "ip", "u8", "u16", "u32", "u64", "i64", "f64", "bool", "timestamp", "json"];
    let mut text = "name = \"all\"\nlines = [\"{timestamp}".to_owned();
    kinds.iter().for_each(|kind| text += &format!(" {kind}=<{{{kind}_value}}>"));
    text += "\"]\n[columns]\ntimestamp = { type = \"timestamp\" }\n";
    kinds.iter().for_each(|kind| text += &format!("{kind}_value = {{ type = \"{kind}\", index = true }}\n"));
    let types = types(&[&text]);
    let mut lines = String::new();
    for values in [
        [
            "a",
            "1.2.3.4",
            "0",
            "0",
            "0",
            "0",
            "-1",
            "1.5",
            "true",
            "2024-01-15T00:00:00Z",
            "{\"b\": 1, \"a\":[1 ,2], \"b\": null}",
        ],
        [
            "é|\\'",
            "::",
            "255",
            "65535",
            "4294967295",
            "9223372036854775807",
            "9223372036854775807",
            "1000000000000000000000",
            "false",
            "2024-01-15T00:00:00.100Z",
            "1.50",
        ],
        [
            "",
            "::1",
            "7",
            "7",
            "7",
            "7",
            "-9223372036854775808",
            "0.000001",
            "true",
            "1969-12-31T23:59:59.999999Z",
            "\"\\u00e9\"",
        ],
        ["x", "::1:2", "7", "7", "7", "7", "0", "-0", "true", "0000-01-01T00:00:00Z", "[]"],
        [
            "x",
            "::ffff:1.2.3.4",
            "7",
            "7",
            "7",
            "7",
            "0",
            "100000000000000000000000",
            "true",
            "9999-12-31T23:59:59Z",
            "[]",
        ],
        ["x", "2001:db8::1:0:0:1", "7", "7", "7", "7", "0", "0.1", "true", "2024-01-15T00:00:00Z", "[]"],
    ] {
        lines += "2024-01-15T00:00:00Z";
        kinds.iter().zip(values).for_each(|(kind, value)| lines += &format!(" {kind}=<{value}>"));
        lines.push('\n');
    }
    let database = Postgres::shared().database();
    make(&database, "public", &types).await.unwrap();
    let decoded = Decoder::new(&types).decode(&chunk("all", lines.as_bytes()));
    assert_eq!(decoded.record.num_rows, 6);
    expect_as_rendered(&database, &types, &decoded).await;
    let kept = "SELECT convert_from(raw, 'UTF8') FROM all_logs WHERE raw IS NOT NULL";
    assert_eq!(database.sql(kept), "", "all of it is rendered");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_utf8_are_shown_and_never_an_error() {
    let types = types(&[super::TINY]);
    let database = Postgres::shared().database();
    make(&database, "public", &types).await.unwrap();
    let mut lines = Vec::new();
    let odd: &[&[u8]] = &[
        b"\xff",
        b"a\0b",
        b"\xc3",
        b"\xc3\xa9",
        b"\xc0\x80",
        b"\xe2\x82",
        b"\xe2\x82\xac",
        b"\xe2\x82\xe2",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x98",
        b"\xf0\x9f\x98\x80",
        b"\xf0\x9f",
        b"\xf4\x90\x80\x80",
        b"\xf5",
        b"\xef\xbf\xbd\\303\\",
        b"\x80\xbf",
        b"\xe0\x80\x80",
        b"\xf0\x80\x80\x80",
        b"\\000",
        b"\xf1\x80\x80z\xf1\x80z",
        b"\xed\x9f\xbf\xee\x80\x80",
    ];
    for (number, bytes) in odd.iter().enumerate() {
        lines.extend_from_slice(format!("2024-01-15T00:00:{number:02}Z  ").as_bytes());
        lines.extend_from_slice(bytes);
        lines.push(b'\n');
    }
    let decoded = Decoder::new(&types).decode(&chunk("odd", &lines));
    assert_eq!(decoded.record.num_rows, odd.len() as u64);
    expect_as_rendered(&database, &types, &decoded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_time_is_rendered_as_the_library_renders_it() {
    let database = Postgres::shared().database();
    make(&database, "public", &types(&[])).await.unwrap();
    let client = connect(&database.url()).await;
    let moments: [i64; 10] = [
        0,
        1_705_276_803_731_204,
        1_705_276_803_000_000,
        951_782_399_999_999,
        4_102_444_800_120_000,
        253_402_300_799_999_999,
        -62_135_596_800_000_000,
        -62_135_596_800_000_001,
        -62_167_219_200_000_000,
        9_999_999_999_000_000,
    ];
    let list: Vec<_> = moments.iter().map(ToString::to_string).collect();
    // whatever the session's settings are
    client.batch_execute("SET TimeZone = 'Asia/Kolkata'; SET DateStyle = 'SQL, DMY'").await.unwrap();
    let select = format!(
        "SELECT micros, form, pipeline_time_text(at, form), pipeline_plain_time_text(at)
         FROM unnest(ARRAY[{}]::bigint[]) AS micros, generate_series(0, 510) AS form,
             LATERAL (SELECT timestamptz 'epoch' + micros / 1000000 * interval '1 second'
                 + micros % 1000000 * interval '1 microsecond' AS at) AS moment",
        list.join(", ")
    );
    let rows = client.query(&select, &[]).await.unwrap();
    assert_eq!(rows.len(), moments.len() * 511);
    for row in rows {
        let (micros, form): (i64, i32) = (row.get(0), row.get(1));
        let (mut text, mut plain) = (Vec::new(), Vec::new());
        timestamp::render(micros, form as u16, &mut text);
        timestamp::render_plain(micros, &mut plain);
        assert_eq!(row.get::<_, String>(2).as_bytes(), text, "{micros} as form {form}");
        assert_eq!(row.get::<_, String>(3).as_bytes(), plain, "{micros}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_in_an_odd_form_is_shown_as_its_line_has_it() {
    let types = types(&[super::TINY]);
    let database = Postgres::shared().database();
    make(&database, "public", &types).await.unwrap();
    let mut lines = String::new();
    for time in [
        "2024-01-15t00:00:03z",
        "2024-01-15_00:00:03",
        "2024-01-15T00:00:03,731Z",
        "2024-01-15 00:00:03.73Z",
        "2024-01-15T00:00:03.731204999Z",
        "2024-01-15T00:00:03.731204999123Z",
        "2024-01-15T05:45:03+05:45",
        "2024-01-15T00:00:03-00:00",
        "2024-01-15T02:00:03+0200",
        "2016-12-31T23:59:60Z",
        "0000-02-29t00:00:00z",
        "Dec 1 06:55:46",
        "Dec 10 06:55:46.25",
        "Dec 31 23:59:60",
        "Feb 29 23:59:60",
        "1705276803731204",
        "1705276803731204999",
        "012345678",
        "1705276803.7312041",
        "10/Oct/2000:13:55:36 -0000",
        "10/Oct/2000:13:55:60 -0700",
        "10/Oct/2000:13:55:36 +0545",
        "29/Feb/2000:13:55:36 +0545",
    ] {
        lines += &format!("{time} it\n \t{time} it\n");
    }
    let decoded = Decoder::new(&types).decode(&chunk("odd", lines.as_bytes()));
    assert_eq!(decoded.record.num_rows, 46, "{:?}", decoded.rejects);
    expect_as_rendered(&database, &types, &decoded).await;
    // a line that starts with another time, or with none
    let kept = |line: &str, at: &str| {
        let line = literal(line);
        format!("SELECT pipeline_kept_time_text({line}::bytea, timestamptz '{at}') IS NULL;\n")
    };
    let others = [
        kept("2024-01-15T00:00:03z x", "2024-01-15T00:00:04Z"),
        kept("2023-02-29T00:00:00z", "2023-03-01T00:00:00Z"),
        kept("2023-13-01T00:00:00z", "2024-01-01T00:00:00Z"),
        kept("Foo 10 06:55:46.1", "2024-01-10T06:55:46.1Z"),
        kept("99999999999999999999", "2024-01-10T06:55:46.1Z"),
        kept("12", "2024-01-10T06:55:46.1Z"),
        kept("", "2024-01-10T06:55:46.1Z"),
    ];
    assert_eq!(database.sql(&others.concat()), ["t"; 7].join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_canonical_whatever_zeros_they_hold() {
    let database = Postgres::shared().database();
    make(&database, "public", &types(&[])).await.unwrap();
    let client = connect(&database.url()).await;
    let words = [0_u16, 1, 0xffff, 0xa0b];
    for number in 0..4_usize.pow(6) {
        if number % 7 != 0 && number > 300 {
            continue;
        }
        let pick = |place: u32| words[number / 4_usize.pow(place) % 4];
        let address = Ipv6Addr::new(0, pick(5), 0, pick(4), pick(3), pick(2), pick(1), pick(0));
        let low = Ipv6Addr::new(0, 0, 0, 0, 0, pick(2), pick(1), pick(0));
        let select = format!("SELECT public.pipeline_ip_text('{address}'), public.pipeline_ip_text('{low}')");
        let row = client.query_one(&select, &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), address.to_string());
        assert_eq!(row.get::<_, String>(1), low.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_for_one_type_reads_no_other_table() {
    let database = Postgres::shared().database();
    make(&database, "public", &built_in()).await.unwrap();
    let plan = database.sql("EXPLAIN SELECT raw_line FROM logs WHERE log_type = 'firewall'");
    assert!(plan.contains("firewall_logs") && !plan.contains("dns_logs"), "{plan}");
    let plan = database.sql("EXPLAIN SELECT log_type, count(*) FROM logs GROUP BY log_type");
    assert!(!plan.contains("chunks"), "{plan}");
}
