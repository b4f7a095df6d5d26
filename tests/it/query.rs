//! `pipeline query` and `pipeline types`: the answers are those of plain Python over the text, and a site's own
//! types work like the built-in ones.
use std::fs;

use super::support::{
    AUTH_LINE, DNS_LINE, FIREWALL_LINE, NO_TYPE, Site, numbered_lines, output, python, repository,
};

#[test]
fn the_six_questions_have_the_answers_of_plain_python_over_the_text() {
    let site = Site::new();
    // 20,000 lines, one per second: into the hour from 05:00 that the first question asks for
    site.generate(4, 5000);
    site.run(&["logs"]);
    let mut files: Vec<_> =
        fs::read_dir(repository("sql/queries")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    assert_eq!(files.len(), 6);
    for (index, file) in files.iter().enumerate() {
        let number = (index + 1).to_string();
        let expected = output(python("six_questions.py").arg(&number).arg(site.at("logs")));
        let answer = site.ok(&["query", "--output", "csv", "-f", file.to_str().unwrap()]);
        assert!(expected.lines().count() > 2, "question {number} has an answer");
        assert_eq!(answer, expected, "{}", file.display());
    }
}

#[test]
fn raw_line_is_the_line() {
    let site = Site::new();
    site.generate(2, 3000);
    site.run(&["logs", "--chunk-size", "10KiB"]);
    let mut expected = "raw_line\n".to_owned();
    for file in ["logs/logs_0000.log", "logs/logs_0001.log"] {
        expected.push_str(&String::from_utf8(site.read(file)).unwrap());
    }
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert!(sorted(&site.query("SELECT raw_line FROM logs")) == sorted(&expected));
}

#[test]
fn raw_line_is_the_line_where_the_columns_alone_cannot_say_it() {
    let site = Site::new();
    let odd = [
        format!("  {DNS_LINE} "),
        FIREWALL_LINE.replace("src_port=56374", "src_port=056374"),
        FIREWALL_LINE.replace("src=192.168.1.45", "src=\"nowhere\""),
        AUTH_LINE.replace(' ', "  "),
        "1705276803|rule=b,c|rule=d|zone=dmz".to_owned(),
    ];
    site.write("logs/odd.log", odd.join("\r\n"));
    assert_eq!(site.run(&["logs"]).rejects, 0);
    let json = site.ok(&["query", "--output", "json", "SELECT raw_line FROM logs"]);
    let rows: Vec<serde_json::Value> = match json.trim_start().starts_with('[') {
        true => serde_json::from_str(&json).unwrap(),
        false => json.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
    };
    let mut lines: Vec<_> = rows.iter().map(|row| row["raw_line"].as_str().unwrap().to_owned()).collect();
    let mut expected = odd.to_vec();
    lines.sort();
    expected.sort();
    assert_eq!(lines, expected);
}

#[test]
fn sql_for_the_old_single_table_runs_unchanged() {
    let site = Site::new();
    site.generate(2, 2000);
    site.run(&["logs"]);
    for (old, new) in [
        (
            "SELECT parsed_data->>'src' AS src, count(*) AS n FROM logs WHERE log_type = 'firewall' AND parsed_data->>'action' = 'drop' GROUP BY parsed_data->>'src' ORDER BY n DESC, src LIMIT 10",
            "SELECT src, count(*) AS n FROM firewall_logs WHERE action = 'drop' GROUP BY src ORDER BY n DESC, src LIMIT 10",
        ),
        (
            "SELECT count(*) AS n FROM logs WHERE parsed_data->>'query_domain' = 'evil-domain.com'",
            "SELECT count(*) AS n FROM dns_logs WHERE query_domain = 'evil-domain.com'",
        ),
        (
            "SELECT sum(CAST(parsed_data->>'bytes_sent' AS BIGINT)) AS n FROM logs WHERE log_type = 'firewall'",
            "SELECT sum(bytes_sent) AS n FROM firewall_logs",
        ),
        ("SELECT count(DISTINCT id) AS n FROM logs", "SELECT count(*) AS n FROM logs"),
    ] {
        assert_eq!(site.query(old), site.query(new), "{old}");
    }
    let first = String::from_utf8(site.read("logs/logs_0000.log")).unwrap();
    let time = first.split(['|', ' ']).next().unwrap();
    let of_line = format!("SELECT timestamp, source_file FROM logs WHERE timestamp = '{time}'");
    assert_eq!(site.query(&of_line), format!("timestamp,source_file\n{time},logs_0000.log\n"));
    assert_eq!(
        site.query("SELECT DISTINCT source_file FROM logs ORDER BY 1"),
        "source_file\nlogs_0000.log\nlogs_0001.log\n"
    );
    assert_eq!(site.number("SELECT count(*) FROM logs WHERE parsed_data->>'log_type' <> log_type"), 0);
    assert_eq!(site.number("SELECT count(*) FROM logs WHERE indexed_at IS NULL"), 0);
}

#[test]
fn results_come_in_the_form_asked_for() {
    let site = Site::new();
    site.write("logs/a.log", format!("{DNS_LINE}\n{NO_TYPE}\n"));
    site.run(&["logs"]);
    let sql = "SELECT query_domain, client_ip FROM dns_logs";
    assert_eq!(site.query(sql), "query_domain,client_ip\ngithub.com,192.168.1.246\n");
    assert!(site.ok(&["query", sql]).contains("github.com"));
    let json: serde_json::Value =
        serde_json::from_str(&site.ok(&["query", "--output", "json", sql])).unwrap();
    assert!(json.to_string().contains("\"query_domain\":\"github.com\""), "{json}");
    let parquet = site.command(&["query", "--output", "parquet", sql]).output().unwrap();
    assert!(parquet.stdout.starts_with(b"PAR1") && parquet.stdout.ends_with(b"PAR1"));
    site.write("two.sql", "SELECT 1 AS one; SELECT count(*) AS n FROM rejects;");
    let both = site.ok(&["query", "--output", "csv", "-f", "two.sql"]);
    assert!(both.contains("one\n1\n") && both.contains("n\n1\n"), "{both}");
    let fed = site.feed(&["query", "--output", "csv", "-f", "-"], b"SELECT 7 AS seven").expect_code(0);
    assert_eq!(fed.stdout, "seven\n7\n");
}

#[test]
fn a_type_of_the_site_works_like_a_built_in_one() {
    let site = Site::new();
    fs::create_dir(site.at("types")).unwrap();
    fs::copy(repository("examples/proxy.toml"), site.at("types/proxy.toml")).unwrap();
    site.ok(&["types", "check", "types/proxy.toml"]);
    site.ok(&["types", "check", "--log-types", "types"]);
    site.ok(&[
        "generate",
        "--log-types",
        "types",
        "--types",
        "proxy",
        "--out",
        "logs",
        "--files",
        "2",
        "--lines",
        "2000",
    ]);
    let by_hand = "192.168.1.7 - jsmith [15/Jan/2024:08:30:01 +0000] \"GET http://example.com/ HTTP/1.1\" 200 5120 \"-\" \"curl/8.5.0\" TCP_MISS:HIER_DIRECT\n\
                   1705307401.250     45 192.168.1.7 TCP_HIT/200 17 GET http://example.com/ - HIER_NONE/- text/html\n";
    site.write("logs/by_hand.log", format!("{by_hand}{FIREWALL_LINE}\n{NO_TYPE}\n"));
    let counts = site.run(&["logs", "--log-types", "types"]);
    assert_eq!((counts.rows["proxy"], counts.rows["firewall"], counts.rejects), (4002, 1, 1));

    let text: String = ["logs_0000", "logs_0001", "by_hand"]
        .map(|name| String::from_utf8(site.read(&format!("logs/{name}.log"))).unwrap())
        .concat();
    let denied = text.lines().filter(|line| line.contains(" TCP_DENIED:")).count() as u64;
    // the archive keeps its types: reading needs no --log-types
    assert_eq!(site.number("SELECT count(*) FROM proxy_logs WHERE cache_status = 'TCP_DENIED'"), denied);
    assert_eq!(site.number("SELECT elapsed_ms FROM proxy_logs WHERE elapsed_ms IS NOT NULL"), 45);
    assert_eq!(
        site.number("SELECT count(*) FROM logs WHERE log_type = 'proxy' AND parsed_data->>'username' <> ''"),
        4002
    );
    site.verify(&["logs"]);
    site.expect_folder_restored("logs");
}

#[test]
fn a_type_proposed_from_a_sample_reads_every_line_of_it() {
    let site = Site::new();
    let mut sample = String::new();
    for number in 0..200 {
        let (minute, user) = (number % 60, ["ann", "bob", "eve"][number % 3]);
        sample.push_str(&format!(
            "2024-03-01T10:{minute:02}:07Z INFO [worker-{}] order={} user={user} ip=203.0.113.{} total={}.50 \"paid by card\"\n",
            number % 7,
            1000 + number,
            number % 250,
            number % 90,
        ));
    }
    site.write("logs/shop.log", &sample);
    fs::create_dir(site.at("types")).unwrap();
    site.ok(&["types", "new", "--from", "logs/shop.log", "--name", "shop", "--out", "types/shop.toml"]);
    site.ok(&["types", "check", "types/shop.toml"]);
    let error = site.error(1, &["types", "new", "--from", "logs/shop.log", "--out", "types/shop.toml"]);
    assert!(error.contains("types/shop.toml") && error.contains("must not exist"), "{error}");
    let counts = site.run(&["logs", "--log-types", "types"]);
    assert_eq!((counts.rows["shop"], counts.rejects), (200, 0));
    assert_eq!(site.number("SELECT count(*) FROM logs WHERE log_type = 'shop'"), 200);
    site.verify(&["logs"]);
    site.expect_restored(&[("shop.log", sample)]);
}

#[test]
fn types_are_listed_shown_checked_and_given_as_tables() {
    let site = Site::new();
    let list = site.ok(&["types", "list"]);
    assert_eq!(
        list.lines().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>(),
        ["auth", "dns", "firewall"]
    );
    for name in ["auth", "dns", "firewall"] {
        let file = fs::read_to_string(repository(&format!("src/log_type/{name}.toml"))).unwrap();
        assert!(site.ok(&["types", "show", name]).contains(file.trim()), "{name}");
        let ddl = site.ok(&["types", "ddl", name]);
        assert!(ddl.contains(&format!("{name}_logs")) && ddl.contains("PARTITION BY RANGE"), "{ddl}");
    }
    site.ok(&["types", "check"]);
    let error = site.error(1, &["types", "show", "nope"]);
    assert!(error.contains("nope") && error.contains("auth, dns, firewall"), "{error}");

    let file = fs::read_to_string(repository("examples/proxy.toml")).unwrap();
    site.write(
        "wrong.toml",
        file.replace("http_status = 403, bytes_sent = 0", "http_status = 404, bytes_sent = 0"),
    );
    let ended = site.end(&["types", "check", "wrong.toml"]).expect_code(1);
    assert!(
        ended.stdout.contains("1 of 4 examples are wrong") && ended.stdout.contains("http_status"),
        "{}",
        ended.stdout
    );
}

#[test]
fn a_type_that_changed_still_reads_what_its_earlier_file_read() {
    let site = Site::new();
    let version = |literal: &str| {
        format!(
            "name = \"door\"\ntable = \"door_logs\"\nlines = [\"{{timestamp}} door {literal}={{door}}\"]\n[columns]\ntimestamp = {{ type = \"timestamp\" }}\ndoor = {{ type = \"u16\" }}\n"
        )
    };
    site.write("types/door.toml", version("id"));
    site.write("logs/a.log", "2024-01-15T00:00:00Z door id=7\n");
    site.run(&["logs", "--log-types", "types"]);
    site.write("types/door.toml", version("number"));
    site.write("logs/b.log", "2024-01-15T00:00:01Z door number=8\n");
    assert_eq!(site.run(&["logs", "--log-types", "types"]).rows["door"], 1);
    assert_eq!(
        site.query("SELECT raw_line FROM logs WHERE log_type = 'door' ORDER BY raw_line"),
        "raw_line\n2024-01-15T00:00:00Z door id=7\n2024-01-15T00:00:01Z door number=8\n"
    );
    site.verify(&["logs"]);
    site.expect_folder_restored("logs");
}

#[test]
fn reading_while_writing_sees_whole_commits_only() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 10));
    let running = site.start(&["run", "logs", "--watch", "--quiet", "--flush-interval", "20ms"]);
    site.wait_for_lines(10);
    site.append("logs/a.log", numbered_lines(10, 10));
    let mut seen = 10;
    while seen < 20 {
        seen = site.number("SELECT count(*) FROM firewall_logs");
        assert!(seen == 10 || seen == 20, "{seen} rows");
    }
    running.signal("INT");
    running.wait().expect_code(130);
}

#[test]
fn a_time_finer_than_a_millisecond_is_compared_exactly() {
    let site = Site::new();
    // whole milliseconds, which files store as such
    let lines = [400, 500, 600].map(|ms| format!("2024-01-15T00:00:00.{ms}Z|action=drop|src=10.0.0.1"));
    site.write("logs/a.log", lines.join("\n") + "\n");
    site.run(&["logs"]);
    for (condition, expected) in [
        ("= '2024-01-15T00:00:00.500500Z'", 0),
        ("< '2024-01-15T00:00:00.500500Z'", 2),
        ("<= '2024-01-15T00:00:00.500500Z'", 2),
        (">= '2024-01-15T00:00:00.500500Z'", 1),
        ("> '2024-01-15T00:00:00.499999Z'", 2),
        ("<> '2024-01-15T00:00:00.500500Z'", 3),
        ("BETWEEN '2024-01-15T00:00:00.400001Z' AND '2024-01-15T00:00:00.599999Z'", 1),
        ("IN ('2024-01-15T00:00:00.500500Z', '2024-01-15T00:00:00.600Z')", 1),
        ("= '2024-01-15T00:00:00.500Z'", 1),
    ] {
        let sql = format!("SELECT count(*) FROM firewall_logs WHERE timestamp {condition}");
        assert_eq!(site.number(&sql), expected, "{condition}");
    }
}
