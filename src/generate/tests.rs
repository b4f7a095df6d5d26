//! What GENERATOR.md promises of the built-in types' lines, checked without the code that made them.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

use super::*;
use crate::log_type::LogTypes;

fn line_type(name: &str, template: &str, text: &str) -> LineType {
    let mut file: toml::Table = toml::from_str(text).unwrap();
    let Some(toml::Value::Table(generate)) = file.remove("generate") else { panic!("no [generate] table") };
    LineType::try_new(name, template, generate).unwrap()
}

fn builtin() -> Vec<LineType> {
    let types = LogTypes::load(None).unwrap();
    let line_type = |name| LineType::of(types.get(name).unwrap()).unwrap().unwrap();
    ["firewall", "dns", "auth"].map(line_type).to_vec()
}

fn lines(types: &[LineType], seed: u64, count: usize) -> String {
    let mut generator = Generator::try_new(types, seed).unwrap();
    let mut out = Vec::new();
    (0..count).for_each(|_| generator.next_line(&mut out));
    String::from_utf8(out).unwrap()
}

/// Takes `text` up to `end` off the front of `rest`.
fn take<'a>(rest: &mut &'a str, end: &str) -> &'a str {
    let (text, behind) = rest.split_once(end).unwrap_or_else(|| panic!("{end:?} not in {rest:?}"));
    *rest = behind;
    text
}

fn read(line: &str) -> BTreeMap<&'static str, &str> {
    let mut rest = line;
    let mut row = BTreeMap::new();
    if line.contains("|action=") {
        row.insert("type", "firewall");
        row.insert("timestamp", take(&mut rest, "|"));
        for key in ["action", "src", "dst", "proto", "src_port", "dst_port", "bytes_sent"] {
            assert_eq!(take(&mut rest, "="), key);
            row.insert(key, take(&mut rest, "|"));
        }
        assert_eq!(take(&mut rest, "="), "rule");
        row.insert("rule", rest);
    } else if line.contains(" client ") {
        row.insert("type", "dns");
        let ends = [
            ("timestamp", " client "),
            ("client_ip", " query: "),
            ("query_domain", " IN "),
            ("query_type", " + ("),
            ("server_ip", ") "),
        ];
        ends.into_iter().for_each(|(column, end)| _ = row.insert(column, take(&mut rest, end)));
        row.insert("response_code", rest);
    } else {
        row.insert("type", "auth");
        let ends = [
            ("timestamp", " "),
            ("hostname", " sshd["),
            ("pid", "]: "),
            ("status", " "),
            ("auth_method", " for "),
            ("username", " from "),
            ("source_ip", " port "),
            ("source_port", " ssh2"),
        ];
        ends.into_iter().for_each(|(column, end)| _ = row.insert(column, take(&mut rest, end)));
        assert_eq!(rest, "");
    }
    row
}

/// Asserts that `values` are exactly `expected` (value, share of a thousand), each within 5 % of its share.
fn assert_shares<'a>(values: impl Iterator<Item = &'a str>, expected: &[(&str, u64)]) {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_default() += 1);
    let total: u64 = counts.values().sum();
    let weights: u64 = expected.iter().map(|(_, weight)| weight).sum();
    assert_eq!(counts.len(), expected.len(), "{counts:?}");
    for (value, weight) in expected {
        let share = total * weight / weights;
        assert!(counts[value].abs_diff(share) * 20 < share, "{value}: {} of {share}", counts[value]);
    }
}

fn uniform<'a>(values: &[&'a str]) -> Vec<(&'a str, u64)> {
    values.iter().map(|value| (*value, 1)).collect()
}

/// Asserts that numbers fill `first..=last`: both ends nearly reached, the mean in the middle.
fn assert_range<'a>(values: impl Iterator<Item = &'a str>, first: u64, last: u64) {
    let numbers: Vec<u64> = values.map(|text| text.parse().unwrap()).collect();
    let slack = (last - first) / 100;
    let (least, most) = (*numbers.iter().min().unwrap(), *numbers.iter().max().unwrap());
    assert!(first <= least && least <= first + slack, "{least}");
    assert!(last - slack <= most && most <= last, "{most}");
    let mean = numbers.iter().sum::<u64>() / numbers.len() as u64;
    assert!(mean.abs_diff((first + last) / 2) <= slack, "{mean}");
}

#[test]
fn first_lines_of_seed_42_are_the_golden_ones() {
    let text = lines(&builtin(), 42, 10_000);
    let first: Vec<&str> = text.lines().take(3).collect();
    assert_eq!(first, GOLDEN_LINES);
    let hash: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, GOLDEN_SHA256);
}

const GOLDEN_LINES: [&str; 3] = [
    "2024-01-15T00:00:00.990Z|action=accept|src=192.168.1.30|dst=10.55.221.53|proto=UDP|src_port=25977|dst_port=8443|bytes_sent=49057|rule=web_access",
    "2024-01-15T00:00:01.918Z|action=accept|src=192.168.1.114|dst=10.83.158.118|proto=TCP|src_port=54167|dst_port=25|bytes_sent=57248|rule=block_malware",
    "2024-01-15T00:00:02.334Z|action=drop|src=192.168.1.209|dst=10.167.118.95|proto=ICMP|src_port=31122|dst_port=3306|bytes_sent=50650|rule=vpn_access",
];
const GOLDEN_SHA256: &str = "bba0c6f7728d9903f6e914286fa8f797638b078900700636a84e4b0a0883f05c";

#[test]
fn distribution_is_that_of_the_standard_data() {
    let text = lines(&builtin(), 42, 300_000);
    let rows: Vec<BTreeMap<&str, &str>> = text.lines().map(read).collect();
    let column = |log_type: &'static str, name: &'static str| {
        rows.iter().filter(move |row| row["type"] == log_type).map(move |row| row[name])
    };
    assert_shares(rows.iter().map(|row| row["type"]), &[("firewall", 5), ("dns", 3), ("auth", 2)]);

    for (second, row) in rows.iter().enumerate() {
        let time = chrono::DateTime::parse_from_rfc3339(row["timestamp"]).unwrap();
        assert_eq!(time.timestamp(), 1_705_276_800 + second as i64);
        assert_eq!(row["timestamp"].len(), 24);
    }
    assert_range(rows.iter().map(|row| &row["timestamp"][20..23]), 0, 999);

    let internal: Vec<String> = (1..=254).map(|host| format!("192.168.1.{host}")).collect();
    let internal: BTreeSet<&str> = internal.iter().map(String::as_str).collect();
    for (log_type, name) in [("firewall", "src"), ("dns", "client_ip"), ("auth", "source_ip")] {
        assert_eq!(column(log_type, name).collect::<BTreeSet<_>>(), internal);
    }
    let external: BTreeSet<&str> = column("firewall", "dst").collect();
    assert_eq!(external.len(), 500);
    for address in &external {
        let octets = address.parse::<Ipv4Addr>().unwrap().octets();
        assert!(octets[0] == 10 && (1..=254).contains(&octets[3]), "{address}");
    }
    let servers: BTreeSet<&str> = column("dns", "server_ip").collect();
    assert_eq!(servers.len(), 10);
    assert!(servers.is_subset(&external));

    assert_shares(column("firewall", "action"), &uniform(&["accept", "drop", "reject"]));
    assert_shares(column("firewall", "proto"), &uniform(&["TCP", "UDP", "ICMP"]));
    let ports = ["22", "53", "80", "443", "8080", "8443", "3389", "3306", "5432", "25", "110", "993", "995"];
    assert_shares(column("firewall", "dst_port"), &uniform(&ports));
    let rules = [
        "web_access",
        "dns_allow",
        "ssh_admin",
        "block_malware",
        "default_drop",
        "vpn_access",
        "internal_only",
    ];
    assert_shares(column("firewall", "rule"), &uniform(&rules));
    assert_range(column("firewall", "src_port"), 10_000, 65_535);
    assert_range(column("firewall", "bytes_sent"), 64, 65_535);

    assert_eq!(column("dns", "query_domain").collect::<BTreeSet<_>>().len(), 18);
    assert_shares(column("dns", "query_type"), &uniform(&["A", "AAAA", "MX", "CNAME", "TXT", "PTR"]));
    assert_shares(column("dns", "response_code"), &[("NOERROR", 3), ("NXDOMAIN", 1), ("SERVFAIL", 1)]);

    let hosts: Vec<String> = (1..=7).map(|n| format!("auth-srv0{n}")).collect();
    assert_shares(
        column("auth", "hostname"),
        &uniform(&hosts.iter().map(String::as_str).collect::<Vec<_>>()),
    );
    assert_range(column("auth", "pid"), 1000, 65_535);
    assert_range(column("auth", "source_port"), 10_000, 65_535);
    assert_shares(column("auth", "status"), &[("Accepted", 3), ("Failed", 2)]);
    assert_shares(
        column("auth", "auth_method"),
        &uniform(&["password", "publickey", "keyboard-interactive"]),
    );
    let users =
        ["admin", "root", "jsmith", "adrutin", "deploy-bot", "backup-svc", "unknown", "cjones", "mlee"];
    assert_shares(column("auth", "username"), &uniform(&users));
}

#[test]
fn cutting_a_run_into_files_does_not_change_its_lines() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, files, lines_per_file| {
        let out = folder.path().join(name);
        let set = FileSet { out: out.clone(), files, lines_per_file, force: false };
        let generated = set.write(&mut Generator::try_new(&builtin(), 7).unwrap()).unwrap();
        let mut paths: Vec<PathBuf> = fs::read_dir(out).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        assert_eq!(paths.len(), files as usize);
        let text: String = paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        assert_eq!((generated.len_bytes, generated.num_lines), (text.len() as u64, 60_000));
        text
    };
    let whole = run("one", 1, 60_000);
    assert_eq!(whole, lines(&builtin(), 7, 60_000));
    assert_eq!(whole, run("four", 4, 15_000));
}

#[test]
fn order_of_types_does_not_change_the_lines_and_the_seed_does() {
    let mut reversed = builtin();
    reversed.reverse();
    assert_eq!(lines(&builtin(), 42, 100), lines(&reversed, 42, 100));
    assert_ne!(lines(&builtin(), 42, 100), lines(&builtin(), 43, 100));
}

#[test]
fn an_existing_file_is_not_overwritten_and_nothing_else_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let existing = folder.path().join("logs_0002.log");
    fs::write(&existing, "precious").unwrap();
    let mut set = FileSet { out: folder.path().to_owned(), files: 3, lines_per_file: 10, force: false };
    let error = set.write(&mut Generator::try_new(&builtin(), 42).unwrap()).unwrap_err().to_string();
    assert!(error.contains("logs_0002.log") && error.contains("--force"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(&existing).unwrap(), "precious");

    set.force = true;
    set.write(&mut Generator::try_new(&builtin(), 42).unwrap()).unwrap();
    assert_eq!(fs::read_to_string(&existing).unwrap().lines().count(), 10);
}

#[test]
fn a_file_that_cannot_be_finished_does_not_look_whole() {
    let folder = tempfile::tempdir().unwrap();
    // A folder in the place of the second file: writing works, the rename does not.
    fs::create_dir_all(folder.path().join("logs_0001.log/inside")).unwrap();
    let set = FileSet { out: folder.path().to_owned(), files: 2, lines_per_file: 10, force: true };
    let error = set.write(&mut Generator::try_new(&builtin(), 42).unwrap()).unwrap_err();
    assert!(error.to_string().contains("logs_0001.log"), "{error}");
    assert!(!folder.path().join("logs_0001.log.partial").exists());
}

#[test]
fn a_site_type_needs_its_toml_only() {
    let proxy = line_type(
        "proxy",
        "{timestamp}{ }{client} \"{method} {url*}\" {status} {bytes} {host} {any}",
        r#"
            [generate]
            weight = 1
            [generate.columns]
            client = { external_ip = 3 }
            method = { one_of = ["GET"] }
            url    = { one_of = ["http://example.com/a b"] }
            status = { weighted = [["200", 9], ["404", 1]] }
            bytes  = { int = [0, 9] }
            host   = { numbered = { prefix = "px", digits = 3, range = [9, 10] } }
            any    = { ip_range = ["0.0.0.0", "255.255.255.255"] }
            "#,
    );
    let text = lines(&[proxy], 1, 1000);
    for line in text.lines() {
        let (head, tail) = line.split_once(" \"GET http://example.com/a b\" ").unwrap();
        assert!(head.starts_with("2024-01-15T00:") && head.contains("Z 10."), "{line}");
        let tail: Vec<&str> = tail.split(' ').collect();
        assert!(["200", "404"].contains(&tail[0]) && tail[1].len() == 1, "{line}");
        assert!(["px009", "px010"].contains(&tail[2]), "{line}");
        tail[3].parse::<Ipv4Addr>().unwrap();
    }
    assert!((1..10).all(|digit| text.contains(&format!(" {digit} px0"))));
}

#[test]
fn a_spec_that_does_not_fit_its_template_says_which_column_and_what_to_do() {
    let case = |template: &str, columns: &str| {
        let text = format!("[generate]\nweight = 1\n[generate.columns]\n{columns}");
        Generator::try_new(&[line_type("proxy", template, &text)], 1).unwrap_err().to_string()
    };
    for (template, columns, expected) in [
        ("{timestamp} {a}", "", "column a is in the template but not here"),
        ("{timestamp}", "a = { int = [1, 2] }", "column a is not in the template"),
        ("{timestamp} {a", "a = { int = [1, 2] }", "lacks its `}`"),
        ("{a}", "a = { int = [2, 1] }", "column a: range 2 to 1 is empty"),
        ("{a}", "a = { one_of = [] }", "column a: there is nothing to choose from"),
        ("{a}", "a = { external_ip = 501 }", "column a: external_ip must be 1 to 500"),
    ] {
        let error = case(template, columns);
        assert!(error.starts_with("log type proxy: [generate]: ") && error.contains(expected), "{error}");
    }
    assert!(matches!(Generator::try_new(&[], 1), Err(GenerateError::NoTypes)));
}
