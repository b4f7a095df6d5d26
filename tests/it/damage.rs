//! `verify` names what somebody changed, took away or added behind the program's back.
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::support::{DNS_LINE, NO_TYPE, Site, numbered_lines};

const ARCHIVE: &str = "pipeline-data/archive";

/// Three groups, whose files are all different.
fn site() -> Site {
    let site = Site::new();
    for group in 0..3 {
        site.write(&format!("logs/{group}.log"), numbered_lines(group * 100, 100));
        site.append(&format!("logs/{group}.log"), format!("{DNS_LINE}\n{NO_TYPE} {group}\n"));
        site.run(&["logs"]);
    }
    assert_eq!(errors(&site, 0), Vec::<String>::new());
    site
}

fn errors(site: &Site, code: i32) -> Vec<String> {
    site.end(&["verify"]).expect_code(code).errors()
}

/// Data files of a table, in the order of their writing.
fn data_files(site: &Site, table: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(&site.at(format!("{ARCHIVE}/{table}")), &mut files);
    files.retain(|path| !path.to_str().unwrap().contains("_delta_log"));
    files.sort();
    files
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// The newest version of a table's log, and its actions.
fn last_commit(site: &Site, table: &str) -> (u64, Vec<Value>) {
    let folder = site.at(format!("{ARCHIVE}/{table}/_delta_log"));
    let versions = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let newest = versions.filter(json).max().unwrap();
    let actions = fs::read_to_string(&newest).unwrap();
    let version = newest.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    (version, actions.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn commit(site: &Site, table: &str, actions: &[Value]) {
    let version = last_commit(site, table).0 + 1;
    let text: Vec<_> = actions.iter().map(Value::to_string).collect();
    site.write(&format!("{ARCHIVE}/{table}/_delta_log/{version:020}.json"), text.join("\n"));
}

fn is_named(errors: &[String], file: &str, what: &str) -> bool {
    errors.iter().any(|error| error.contains(file) && error.contains(what))
}

#[test]
fn a_changed_byte_and_a_file_that_is_gone_are_both_named_by_every_verify() {
    let site = site();
    let (changed, gone) = (data_files(&site, "firewall").remove(1), data_files(&site, "dns").remove(0));
    let mut bytes = fs::read(&changed).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&changed, bytes).unwrap();
    fs::remove_file(&gone).unwrap();
    for flags in [&["verify"][..], &["verify", "--count"], &["verify", "--content"], &["verify", "logs"]] {
        let errors = site.end(flags).expect_code(1).errors();
        assert!(is_named(&errors, name(&changed), "is not as it was written"), "{errors:?}");
        assert!(is_named(&errors, name(&gone), "is missing"), "{errors:?}");
    }
    let counted = site.end(&["verify", "--count"]).errors();
    assert!(is_named(&counted, "1.log", "firewall holds 0 rows, the ledger says 100"), "{counted:?}");
    assert!(is_named(&counted, "0.log", "dns holds 0 rows, the ledger says 1"), "{counted:?}");
}

#[test]
fn a_type_file_that_is_gone_and_one_that_was_changed_are_named() {
    for flags in [&["verify"][..], &["verify", "--content"]] {
        let site = site();
        let kept = || -> Vec<PathBuf> {
            fs::read_dir(site.at(format!("{ARCHIVE}/_types")))
                .unwrap()
                .map(|file| file.unwrap().path())
                .collect()
        };
        let [gone, changed] = kept().try_into().unwrap();
        fs::remove_file(&gone).unwrap();
        let text = fs::read_to_string(&changed).unwrap();
        fs::write(&changed, format!("# changed\n{text}")).unwrap();
        let errors = site.end(flags).expect_code(1).errors();
        assert!(is_named(&errors, name(&gone), "is missing"), "{errors:?}");
        assert!(is_named(&errors, name(&changed), "is not as it was written"), "{errors:?}");
    }
}

#[test]
fn a_file_that_was_slipped_into_a_log_or_out_of_it_is_named() {
    let site = site();
    let (_, actions) = last_commit(&site, "firewall");
    let add = &actions.iter().find(|action| !action["add"].is_null()).unwrap()["add"];
    let path = add["path"].as_str().unwrap();
    let mut copy = add.clone();
    copy["path"] = path.replace("part-", "more-").into();
    let at = |path: &str| site.at(format!("{ARCHIVE}/firewall/{path}"));
    fs::copy(at(path), at(copy["path"].as_str().unwrap())).unwrap();
    commit(&site, "firewall", &[json!({"add": copy})]);
    let remove = json!({"remove": {"path": path, "deletionTimestamp": 0, "dataChange": true}});
    commit(&site, "firewall", &[remove]);
    let errors = errors(&site, 1);
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        is_named(&errors, copy["path"].as_str().unwrap(), "no group of the ledger added it"),
        "{errors:?}"
    );
    assert!(is_named(&errors, path, "the log of its table does not name it"), "{errors:?}");
}

#[test]
fn an_entry_that_was_taken_out_of_the_ledger_is_named_and_so_is_a_changed_one() {
    let site = site();
    let entry = data_files(&site, "chunks").remove(1);
    let remove = json!({"remove": {"path": name(&entry), "deletionTimestamp": 0, "dataChange": true, "partitionValues": {}}});
    commit(&site, "chunks", &[remove]);
    let found = errors(&site, 1);
    assert!(is_named(&found, "group 3", "were changed, or entries before it are gone"), "{found:?}");
    for table in ["firewall", "dns", "rejects"] {
        let file = data_files(&site, table).remove(1);
        assert!(is_named(&found, name(&file), "no group of the ledger added it"), "{table}: {found:?}");
    }

    let entry = data_files(&site, "chunks").remove(2);
    let mut bytes = fs::read(&entry).unwrap();
    bytes[100] ^= 1;
    fs::write(&entry, bytes).unwrap();
    let found = errors(&site, 1);
    assert!(is_named(&found, name(&entry), "is not as it was written"), "{found:?}");
}

#[test]
fn what_was_compacted_is_held_to_its_hashes_and_its_chain_too() {
    let site = site();
    site.ok(&["archive", "compact"]);
    site.verify(&["logs"]);
    let json = site.ok(&["archive", "list", "--output", "json"]);
    let tables: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert!(tables.iter().filter(|table| table["rows"] != 0).all(|table| table["files"] == 1), "{tables:?}");
    // the files that were replaced are still there, and count no more
    let live = data_files(&site, "rejects").pop().unwrap();
    let mut bytes = fs::read(&live).unwrap();
    bytes[10] ^= 1;
    fs::write(&live, bytes).unwrap();
    let found = errors(&site, 1);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(is_named(&found, name(&live), "is not as it was written"), "{found:?}");
}
