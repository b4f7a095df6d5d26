//! `pipeline cost`: COST.md is what the recorded run and the prices give, by an arithmetic of its own too.
use std::fs;

use serde_json::Value;

use super::support::{Site, output, python, repository};

/// The last recorded run by name, which is the one that COST.md is made from.
fn last_run() -> String {
    let files = fs::read_dir(repository("data/runs")).unwrap().map(|entry| entry.unwrap().file_name());
    let last = files.filter(|name| name.to_str().unwrap().ends_with(".json")).max().unwrap();
    format!("data/runs/{}", last.to_str().unwrap())
}

/// The report as JSON, of the repository's run.
fn report(site: &Site, arguments: &[&str]) -> Value {
    let run = repository(&last_run());
    let all = [&["cost", "--output", "json", "--run", run.to_str().unwrap()], arguments].concat();
    serde_json::from_str(&site.ok(&all)).unwrap()
}

fn row<'a>(report: &'a Value, name: &str) -> &'a Value {
    let sections = report["sections"].as_array().unwrap().iter();
    let mut rows = sections.flat_map(|section| section["rows"].as_array().unwrap());
    rows.find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name} is no row"))
}

#[test]
fn cost_md_is_what_the_recorded_run_and_the_prices_give() {
    let site = Site::new();
    let kept = fs::read_to_string(repository("COST.md")).unwrap();
    // ages count to the day that it was made on, so that it does not become stale by itself
    let as_of = kept.split("ages as of ").nth(1).and_then(|rest| rest.get(..10)).unwrap();
    let out = site.at("COST.md");
    let mut cost = site.command(&["cost", "--as-of", as_of, "--out", out.to_str().unwrap()]);
    output(cost.current_dir(repository("")));
    for name in ["COST.md", "COST.svg"] {
        let (kept, made) = (fs::read(repository(name)).unwrap(), site.read(name));
        assert!(kept == made, "{name} is stale: run `pipeline cost --as-of {as_of}` and read the difference");
    }
}

#[test]
fn plain_arithmetic_in_python_gives_the_same_dollars_at_every_volume() {
    let site = Site::new();
    let report = report(&site, &["--hot", "30d", "--cold", "730d"]);
    let same = |one: &Value, other: &Value, what: &str| {
        let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
        assert!((one - other).abs() <= other.abs() * 1e-9, "{what}: {one}, by Python {other}");
    };
    for (column, lines) in ["1e6", "1e7", "1e8", "1e9", "1e10"].into_iter().enumerate() {
        let mut script = python("cost.py");
        script.arg(repository("data/prices.toml")).arg(repository(&last_run())).args([lines, "30", "730"]);
        let expected: Value = serde_json::from_str(&output(&mut script)).unwrap();
        for (index, pipeline) in ["old", "new"].into_iter().enumerate() {
            let total = &report["totals"][2 * column + index];
            assert_eq!(total["pipeline"], pipeline);
            for (component, dollars) in expected[pipeline].as_object().unwrap() {
                same(&total["components"][component], dollars, &format!("{pipeline} {component} at {lines}"));
            }
            let name = format!("{pipeline}_sqs_usd");
            same(&row(&report, &name)["values"][column], &expected[&name], &format!("{name} at {lines}"));
        }
    }
}

#[test]
fn a_what_if_changes_what_depends_on_it_and_says_so() {
    let site = Site::new();
    let before = report(&site, &[]);
    let after = report(&site, &["--set", "price.rds_gp3_gb=0.23"]);
    let storage = |report: &Value| report["totals"][8]["components"]["storage"].as_f64().unwrap();
    assert!(storage(&after) > 1.9 * storage(&before), "{} {}", storage(&before), storage(&after));
    assert_eq!(row(&before, "new_queue_usd"), row(&after, "new_queue_usd"));
    let inputs = after["inputs"].as_array().unwrap();
    let changed = inputs.iter().find(|input| input["key"] == "price.rds_gp3_gb").unwrap();
    assert_eq!(changed["place"], "--set price.rds_gp3_gb");
    // a measured number as well
    let after = report(&site, &["--set", "run.archive.bytes_per_line=80"]);
    assert_ne!(row(&before, "new_archive_usd"), row(&after, "new_archive_usd"));
    assert!(fs::read_dir(site.at("")).unwrap().next().is_none(), "JSON writes no file");
}

#[test]
fn mistakes_name_the_number_the_file_and_the_remedy() {
    let site = Site::new();
    let run = repository(&last_run());
    let run = run.to_str().unwrap();
    let error = site.error(2, &["cost", "--run", run, "--set", "price.s3_standart=1"]);
    assert!(error.starts_with("--set price.s3_standart: there is no such number"), "{error}");
    assert!(error.contains("near it are price.s3_standard"), "{error}");
    let error = site.error(2, &["cost", "--run", run, "--set", "price.s3_standard=cheap"]);
    assert!(error.contains("cheap is not a number"), "{error}");
    let error = site.error(1, &["cost"]);
    assert!(error.contains("no recorded run in data/runs; record one with `pipeline bench"), "{error}");
    site.write("prices.toml", "[price.x]\nusd = 1\nper = \"hour\"\n");
    let error = site.error(3, &["cost", "--run", run, "--prices", "prices.toml"]);
    assert!(error.starts_with("prices.toml: line 1: "), "{error}");
    let error = site.error(3, &["cost", "--run", run, "--prices", "none.toml"]);
    assert!(error.starts_with("none.toml: cannot be read ("), "{error}");
    site.write("run.json", "{}");
    let error = site.error(3, &["cost", "--run", "run.json"]);
    assert!(error.starts_with("run.json: is not a recorded run; record one with"), "{error}");
}
