//! `--metrics-addr`: what is served is documented, adds up, and is what dashboards and alerts ask for.
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use pipeline::telemetry;

use super::servers::wait_until;
use super::support::{Site, repository};

/// The body of an answer.
pub(crate) fn get(address: &str, path: &str, token: Option<&str>) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{token}\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

#[test]
fn lines_in_are_rows_and_rejects_and_blanks_at_every_stage() {
    let site = Site::new();
    site.generate(2, 3000);
    site.append("logs/logs_0000.log", "no log type takes this line\n\n");
    let mut command = site.command(&["run", "logs", "--watch", "--metrics-addr", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let address =
        line.trim().strip_prefix("metrics at http://").unwrap().trim_end_matches("/metrics").to_owned();
    let mut last = BTreeMap::new();
    wait_until("all is committed", || {
        last = series(&get(&address, "/metrics", None).1);
        last["pipeline_lines_committed_total"] >= 6002.0
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let of = |name: &str| last[&format!("pipeline_{name}_total")];
    assert_eq!(of("lines_decoded"), 6002.0);
    assert_eq!(of("lines_decoded"), of("rows_decoded") + of("lines_rejected") + of("lines_blank"));
    assert_eq!(
        of("lines_committed"),
        of("rows_committed") + of("rejects_committed") + of("blanks_committed")
    );
    assert_eq!(of("lines_committed"), of("lines_decoded"));
    assert_eq!(of("bytes_decoded"), of("chunk_bytes_shipped"));
    assert_eq!(of("chunks_shipped"), of("chunks_committed"));
    assert_eq!((of("rejects_committed"), of("blanks_committed")), (1.0, 1.0));
    assert_eq!(last["pipeline_commit_seconds_count"], of("chunks_shipped"));
    assert!(last["process_cpu_seconds_total"] > 0.0);
}

#[test]
fn an_address_that_is_taken_is_an_error_that_says_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = Site::new().error(2, &["task", "list", "--metrics-addr", &address]);
    assert!(error.contains(&address) && error.contains("name another"), "{error}");
}

/// `PIPELINE_GOLDEN=write` writes the table anew.
#[test]
fn the_documented_table_is_what_is_served() {
    let path = repository("docs/metrics.md");
    let text = format!(
        "# Metrics\n\nServed at `/metrics` by every command with `--metrics-addr ADDRESS`. Made from the program: \
         `PIPELINE_GOLDEN=write cargo test --release --test it documented_table`.\n\n{}",
        telemetry::metrics_table()
    );
    if std::env::var_os("PIPELINE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap_or_default() == text, "{} is stale", path.display());
}

#[test]
fn dashboards_and_alerts_ask_only_for_what_is_served() {
    let served: BTreeSet<String> = series_names(&telemetry::render_metrics());
    for file in ["monitoring/alerts.yml", "monitoring/grafana/dashboards/pipeline.json"] {
        let text = std::fs::read_to_string(repository(file)).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let asked: BTreeSet<_> = words
            .filter(|word| {
                ["pipeline_", "task_count", "task_processing", "process_"]
                    .iter()
                    .any(|start| word.starts_with(start))
            })
            .collect();
        assert!(asked.len() > 8, "{file}: {asked:?}");
        for name in asked {
            assert!(served.contains(name), "{file}: {name} is not served");
        }
    }
}

fn series_names(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split([' ', '{']).next().unwrap().to_owned()).collect()
}
