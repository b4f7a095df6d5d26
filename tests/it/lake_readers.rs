//! Programs that are not ours read the archive as it stands, and find in it what `pipeline query` finds.
use std::collections::BTreeMap;

use super::support::{AUTH_LINE, DNS_LINE, NO_TYPE, Site, numbered_lines, output, python};

const READERS: [&str; 3] = ["deltalake", "duckdb", "polars"];

/// Rows of every table, as each reader counts them.
fn rows_by_reader(site: &Site) -> BTreeMap<String, BTreeMap<String, u64>> {
    let json = output(python("read_archive.py").arg(site.at("pipeline-data/archive")));
    serde_json::from_str(&json).unwrap()
}

/// Every reader must count what `pipeline query` counts.
pub(crate) fn expect_same_rows(site: &Site) {
    let by_reader = rows_by_reader(site);
    assert_eq!(by_reader.keys().collect::<Vec<_>>(), READERS);
    for (reader, rows) in by_reader {
        for (table, rows) in rows {
            let name = match table.as_str() {
                "blanks" | "chunks" | "rejects" => table,
                log_type => format!("{log_type}_logs"),
            };
            assert_eq!(site.number(&format!("SELECT count(*) FROM {name}")), rows, "{reader}: {name}");
        }
    }
}

#[test]
fn every_reader_counts_the_same_rows() {
    let site = Site::new();
    site.generate(2, 20_000);
    site.write("logs/odd.log", format!("{NO_TYPE}\n\n{DNS_LINE}\n9999-01-01T00:00:00Z|action=drop\n"));
    site.run(&["logs"]);
    expect_same_rows(&site);
    assert_eq!(rows_by_reader(&site)["deltalake"]["rejects"], 1);
}

#[test]
fn every_reader_finds_the_same_values() {
    let site = Site::new();
    site.generate(2, 20_000);
    site.run(&["logs"]);
    for sql in [
        "SELECT count(*) AS n, sum(bytes_sent) AS bytes, min(src_port) AS low, max(src_port) AS high FROM firewall_logs",
        "SELECT action, count(*) AS n, sum(bytes_sent) AS bytes FROM firewall_logs GROUP BY action ORDER BY action",
        "SELECT src, count(*) AS n FROM firewall_logs GROUP BY src ORDER BY n DESC, src LIMIT 20",
        "SELECT query_domain, response_code, count(*) AS n FROM dns_logs GROUP BY query_domain, response_code ORDER BY query_domain, response_code",
        "SELECT username, status, count(*) AS n, sum(pid) AS pids, min(source_ip) AS first FROM auth_logs GROUP BY username, status ORDER BY username, status",
        "SELECT count(*) AS n, sum(line) AS lines FROM dns_logs WHERE raw IS NULL AND extra IS NULL",
    ] {
        let ours = site.query(sql);
        let (_, expected) = ours.split_once('\n').unwrap();
        let json = output(python("read_archive.py").arg(site.at("pipeline-data/archive")).arg(sql));
        let answers: BTreeMap<String, String> = serde_json::from_str(&json).unwrap();
        for (reader, answer) in answers {
            assert_eq!(answer, expected, "{reader}: {sql}");
        }
    }
}

#[test]
fn rows_that_were_replaced_are_gone_for_every_reader() {
    let site = Site::new();
    let (start, rest) = AUTH_LINE.split_at(AUTH_LINE.len() - 8);
    site.write("logs/a.log", format!("{DNS_LINE}\n{start}"));
    site.run(&["logs"]);
    expect_same_rows(&site);
    site.append("logs/a.log", format!("{rest}\n"));
    site.run(&["logs"]);
    expect_same_rows(&site);
    let rows = &rows_by_reader(&site)["deltalake"];
    assert_eq!((rows["auth"], rows["dns"], rows["rejects"]), (1, 1, 0), "{rows:?}");
}

#[test]
fn a_log_long_enough_for_a_checkpoint_is_read_the_same() {
    let site = Site::new();
    site.write("logs/a.log", "");
    // a checkpoint is written every 100 commits
    for number in 0..104 {
        site.append("logs/a.log", numbered_lines(number, 1));
        site.run(&["logs"]);
    }
    assert!(site.at("pipeline-data/archive/firewall/_delta_log/_last_checkpoint").exists());
    assert_eq!(rows_by_reader(&site)["polars"]["firewall"], 104);
    expect_same_rows(&site);
    site.verify(&["logs"]);
}
