//! `archive restore` gives the bytes back, and `verify` names what is missing.
use std::fs;
use std::path::{Path, PathBuf};

use super::support::{AUTH_LINE, DNS_LINE, FIREWALL_LINE, NO_TYPE, Site, numbered_lines};

/// Files that parsers stumble over, by name.
fn nasty_files() -> Vec<(&'static str, Vec<u8>)> {
    let syslog = "Dec 31 23:59:59 gate sshd[7]: Failed password for root from 203.0.113.9 port 2201 ssh2";
    vec![
        ("blank.log", b"\n\n \n\t\n \t \r\n\n".to_vec()),
        ("crlf.log", format!("{FIREWALL_LINE}\r\n{DNS_LINE}\r\n{AUTH_LINE}\r\n").into_bytes()),
        ("lone_cr.log", format!("{DNS_LINE}\r{DNS_LINE}\n\r\r\n\r").into_bytes()),
        ("long.log", [&[b'x'; 9000][..], b"\n", DNS_LINE.as_bytes(), b"\n", &[b'y'; 5000]].concat()),
        ("mixed.log", format!("{FIREWALL_LINE}\n{DNS_LINE}\r\n\r\n{NO_TYPE}\n{AUTH_LINE}\r\n\n{DNS_LINE}").into_bytes()),
        ("newline.log", b"\n".to_vec()),
        ("no_newline.log", FIREWALL_LINE.as_bytes().to_vec()),
        ("no_newline_crlf.log", format!("{FIREWALL_LINE}\r\n{DNS_LINE}\r").into_bytes()),
        ("nul.log", b"\0\n\0\0\n2024-01-15T00:00:03Z|action=\0|src=10.0.0.1\n\0".to_vec()),
        ("padded.log", format!("  {DNS_LINE}\n{DNS_LINE}   \n\t{AUTH_LINE}\t\n {FIREWALL_LINE} \r\n").into_bytes()),
        (
            "values.log",
            b"2024-01-15T00:00:03.731Z|action=accept|src=nowhere|dst=|proto=TCP|src_port=70000|dst_port=0443|bytes_sent=99999999999999999999|rule=web\n\
              2024-01-15T02:00:03.7310000+02:00|rule=a|rule=b|src=2001:DB8::0001|zone=dmz|action=drop\n\
              0001-01-01T00:00:00Z|action=drop\n9999-12-31T23:59:60Z|action=drop\n1705276803|action=drop\n"
                .to_vec(),
        ),
        ("wrong_utf8.log", b"2024-01-15T00:00:03Z|action=\xff\xfe|rule=\xc3\n\xf0\x28\x8c\x28\n\xed\xa0\x80\n".to_vec()),
        ("year.log", format!("{syslog}\nFeb 29 00:00:00 gate sshd[7]: Connection closed by 203.0.113.9\n{syslog}\n").into_bytes()),
    ]
}

#[test]
fn nasty_files_come_back_byte_for_byte_however_they_are_cut() {
    let files = nasty_files();
    for chunk_size in ["1B", "100B", "1MiB"] {
        let site = Site::new();
        for (name, bytes) in &files {
            site.write(&format!("logs/{name}"), bytes);
        }
        site.run(&["logs", "--chunk-size", chunk_size, "--max-line-bytes", "1KiB"]);
        site.verify(&["logs"]);
        site.expect_restored(&files);
        assert_eq!(site.run(&["logs"]).lines, 0, "{chunk_size}");
    }
}

#[test]
fn an_empty_file_is_nothing_to_do_and_no_gap() {
    let site = Site::new();
    site.write("logs/empty.log", "");
    site.write("logs/full.log", format!("{DNS_LINE}\n"));
    assert_eq!(site.run(&["logs"]).lines, 1);
    site.verify(&["logs"]);
    site.expect_restored(&[("full.log", format!("{DNS_LINE}\n"))]);
}

#[test]
fn every_generation_of_a_rotated_and_truncated_path_comes_back() {
    let site = Site::new();
    let contents: Vec<_> = (0..4).map(|number| numbered_lines(number * 1000, 40 - number * 5)).collect();
    site.write("logs/a.log", &contents[0]);
    site.run(&["logs"]);
    site.rename("logs/a.log", "logs/a.log.1");
    site.write("logs/a.log", &contents[1]);
    site.run(&["logs"]);
    site.write("logs/a.log", &contents[2]);
    site.run(&["logs"]);
    site.write("logs/a.log", &contents[3]);
    site.run(&["logs"]);
    site.verify(&["logs"]);
    let restored: Vec<_> = site.restore().into_values().collect();
    for content in &contents {
        assert!(restored.iter().any(|bytes| bytes == content.as_bytes()));
    }
    assert_eq!(restored.len(), contents.len());
}

#[test]
fn restore_refuses_to_overwrite_and_takes_only_what_is_named() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 10));
    site.write("logs/b.log", numbered_lines(10, 10));
    site.run(&["logs"]);
    site.write("out/b.log", "mine");
    let error = site.error(1, &["archive", "restore", "--out", "out"]);
    assert!(error.contains("b.log exists") && error.contains("--force"), "{error}");
    assert_eq!(site.read("out/b.log"), b"mine");
    assert!(!site.at("out/a.log").exists(), "nothing is written when one file is in the way");
    site.ok(&["archive", "restore", "--out", "out", "--force"]);
    assert_eq!(site.read("out/b.log"), numbered_lines(10, 10).as_bytes());
    site.ok(&["archive", "restore", "logs/a.log", "--out", "only"]);
    assert_eq!(fs::read_dir(site.at("only")).unwrap().count(), 1);
    let error = site.error(1, &["archive", "restore", "logs/c.log", "--out", "none"]);
    assert!(error.contains("logs/c.log") && error.contains("pipeline verify"), "{error}");
}

fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(parquet_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            files.push(path);
        }
    }
    files
}

#[test]
fn verify_names_a_data_file_that_is_gone() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 10));
    site.run(&["logs"]);
    site.verify(&["logs"]);
    let file = parquet_files(&site.at("pipeline-data/archive/firewall")).remove(0);
    fs::remove_file(&file).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    for (checks, findings) in
        [(&["verify"][..], 1), (&["verify", "--count"], 2), (&["verify", "--content"], 2)]
    {
        let errors = site.end(checks).expect_code(1).errors();
        assert_eq!(errors.len(), findings, "{errors:?}");
        assert!(
            errors.iter().any(|error| error.contains(name) && error.contains("is missing")),
            "{errors:?}"
        );
    }
    let error = site.error(1, &["archive", "restore", "--out", "out"]);
    assert!(error.contains(name) && !site.at("out/a.log").exists(), "{error}");
}

#[test]
fn verify_names_bytes_that_were_damaged() {
    let site = Site::new();
    site.generate(1, 5000);
    site.run(&["logs"]);
    let file = parquet_files(&site.at("pipeline-data/archive/dns")).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle..middle + 16].iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(&file, bytes).unwrap();
    let ended = site.end(&["verify", "--count", "--content"]);
    assert!(ended.code.is_some_and(|code| code != 0), "{}", ended.stdout);
    assert!(!ended.errors().is_empty());
}

#[test]
fn verify_names_files_that_grew_and_files_that_were_never_read() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 10));
    site.run(&["logs"]);
    site.append("logs/a.log", "more\n");
    site.write("logs/new.log", "never read\n");
    let ended = site.end(&["verify", "logs", "missing.log"]).expect_code(1);
    let errors = ended.errors();
    for expected in [
        "a.log: 5 bytes are not stored yet",
        "new.log: nothing of it is stored",
        "missing.log does not exist",
    ] {
        assert!(errors.iter().any(|error| error.contains(expected)), "{errors:?}");
    }
    site.verify(&[]);
    site.run(&["logs"]);
    site.verify(&["logs"]);
}

#[test]
fn verify_and_list_show_what_the_archive_holds() {
    let site = Site::new();
    site.write("logs/a.log", format!("{DNS_LINE}\n{NO_TYPE}\n\n{DNS_LINE}\n"));
    site.run(&["logs"]);
    let reports: serde_json::Value = serde_json::from_str(&site.ok(&["verify", "--output", "json"])).unwrap();
    let source = &reports[0]["sources"][0];
    let counts = ["lines", "rows", "rejects", "blanks"].map(|name| source[name].as_u64().unwrap());
    assert_eq!(counts, [4, 2, 1, 1]);
    let tables: serde_json::Value =
        serde_json::from_str(&site.ok(&["archive", "list", "--output", "json"])).unwrap();
    let dns = tables.as_array().unwrap().iter().find(|table| table["table"] == "dns").unwrap();
    assert_eq!((&dns["rows"], &dns["first_day"]), (&2.into(), &"2024-01-15".into()));
    assert!(site.ok(&["archive", "list"]).contains("dns"));
    assert!(site.ok(&["verify"]).contains("1 sources"));
}

#[test]
fn lines_of_a_type_or_a_time_come_back_as_they_were_in_their_order() {
    let site = Site::new();
    let later = DNS_LINE.replace("00:00:02.487Z", "00:10:00.000Z");
    let a = format!("{DNS_LINE}\n{NO_TYPE}\n{AUTH_LINE}\n\n{later}\n{AUTH_LINE}");
    let b = format!("{AUTH_LINE}\r\n{AUTH_LINE}\r\n");
    site.write("logs/a.log", &a);
    site.write("logs/b.log", &b);
    site.run(&["logs"]);
    let restored = |flags: &[&str]| {
        let files = site.restore_of(flags).into_iter();
        files.map(|(name, bytes)| (name, String::from_utf8(bytes).unwrap())).collect::<Vec<_>>()
    };
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    assert_eq!(restored(&["--type", "dns"]), [file("a.log", &format!("{DNS_LINE}\n{later}\n"))]);
    let auth = [file("a.log", &format!("{AUTH_LINE}\n{AUTH_LINE}")), file("b.log", &b)];
    assert_eq!(restored(&["--type", "auth"]), auth);
    let both = restored(&["--type", "rejects", "--type", "blanks"]);
    assert_eq!(both, [file("a.log", &format!("{NO_TYPE}\n\n"))]);
    let late = ["--from", "2024-01-15T00:10:00Z", "--to", "2024-01-16"];
    assert_eq!(restored(&late), [file("a.log", &format!("{later}\n"))]);
    assert_eq!(restored(&["--to", "2024-01-15T00:00:01Z"]), auth);
    let error = site.error(2, &["archive", "restore", "--out", "out", "--type", "mail"]);
    assert_eq!(error, "the archive holds no type mail; it holds auth, dns, rejects, blanks; try '--help'");
    let error = site.error(1, &["archive", "restore", "--out", "out", "--from", "2030-01-01"]);
    assert_eq!(error, "the archive holds no such line; look with `pipeline query`");
}
