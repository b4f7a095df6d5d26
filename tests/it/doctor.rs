//! `pipeline doctor` on services that are well, ill and absent.
use serde_json::Value;

use crate::servers::{Postgres, Redis, RedisOptions};
use crate::support::Site;

/// The checks that are not `ok`: outcome, what was found and the remedy.
fn troubles(site: &Site, code: i32, arguments: &[&str]) -> Vec<(String, String)> {
    let ended = site.end(&[&["doctor", "--output", "json"], arguments].concat()).expect_code(code);
    assert!(!ended.stdout.contains("secret") && !ended.stderr.contains("secret"), "{}", ended.stderr);
    let checks: Vec<Value> = serde_json::from_str(&ended.stdout).unwrap();
    assert!(!checks.is_empty());
    let text = |check: &Value, name: &str| check[name].as_str().unwrap_or_default().to_owned();
    let bad = checks.iter().filter(|check| check["outcome"] != "ok");
    let said = |check: &Value| format!("{}; {}", text(check, "found"), text(check, "remedy"));
    bad.map(|check| (text(check, "outcome"), said(check))).collect()
}

#[track_caller]
fn expect(troubles: &[(String, String)], outcome: &str, words: &str) {
    let found = troubles.iter().any(|(found, said)| found == outcome && said.contains(words));
    assert!(found, "{outcome} {words:?} is not in {troubles:#?}");
}

#[test]
fn services_that_are_well_have_no_failure() {
    let (site, database) = (Site::new(), Postgres::shared().database());
    let (redis, postgres) = (Redis::shared().url(), database.url());
    // the tests' own servers do not outlive the machine, and say so
    database.sql("SELECT 1");
    let arguments = ["doctor", "--via", &redis, "--into", &postgres, "--into", "archive"];
    let ended = site.end(&arguments).expect_code(1);
    let failures: Vec<_> = ended.stdout.lines().filter(|line| line.starts_with("FAIL")).collect();
    assert_eq!(failures.len(), 2, "{}", ended.stdout);
    assert!(failures.iter().all(|line| line.contains("fsync is off") || line.contains("full_page_writes")));
    for line in ended.stdout.lines() {
        assert!(["ok    ", "warn  ", "FAIL  "].iter().any(|start| line.starts_with(start)), "{line}");
    }
    for said in [
        "log types  3 compile",
        "redis      maxmemory-policy is noeviction",
        "streams can be written",
        "can create in schema public",
        "archive is not there yet",
        "its clock is 0.",
    ] {
        assert!(ended.stdout.contains(said), "{said:?} is not in {}", ended.stdout);
    }
    assert_eq!(Redis::shared().cli(&["KEYS", "pipeline:doctor:*"]), "");
    assert_eq!(std::fs::read_dir(site.at("")).unwrap().count(), 0, "nothing is left behind");
    assert_eq!(site.ok(&["doctor", "--via", "memory", "--into", "."]).lines().count(), 3);
}

#[test]
fn a_redis_that_would_lose_lines_fails() {
    let site = Site::new();
    for (options, words) in [
        (
            RedisOptions { maxmemory_policy: Some("allkeys-lru"), ..Default::default() },
            "maxmemory-policy is allkeys-lru",
        ),
        (RedisOptions { maxmemory: Some("32mb"), ..Default::default() }, "maxmemory is 32.0 MiB"),
    ] {
        let redis = Redis::start_with(options);
        let troubles = troubles(&site, 1, &["--via", &redis.url(), "--into", "."]);
        expect(&troubles, "fail", words);
    }
    let options = RedisOptions { cluster: true, password: Some("secret"), ..Default::default() };
    let cluster = Redis::start_with(options);
    assert_eq!(troubles(&site, 0, &["--via", &cluster.url(), "--into", "."]), []);
    cluster.cli(&["ACL", "SETUSER", "limited", "on", ">secret", "~*", "+@all", "-xack"]);
    let url = cluster.url().replace("://:", "://limited:");
    expect(&troubles(&site, 1, &["--via", &url, "--into", "."]), "fail", "grant the user XADD");
}

#[test]
fn a_postgres_that_cannot_hold_the_tables_fails() {
    let (site, database) = (Site::new(), Postgres::shared().database());
    let via = ["--via", "memory", "--into"];
    database.sql("CREATE TABLE logs (id int); CREATE SCHEMA fine");
    let url = database.url();
    let found = troubles(&site, 1, &[&via[..], &[&url]].concat());
    expect(&found, "fail", "public.logs is not the view that is made here");
    expect(&found, "fail", "name an empty schema by --schema");
    expect(&found, "fail", "fsync is off");
    expect(&found, "warn", "max_wal_size is 1GB");
    let found = troubles(&site, 1, &[&via[..], &[&url, "--schema", "fine"]].concat());
    assert!(!found.iter().any(|(_, said)| said.contains("logs")), "{found:?}");

    let user = format!("limited_{}", database.name());
    database.sql(&format!("CREATE TABLE chunks (); CREATE USER {user} PASSWORD 'secret'"));
    let limited = url.replace("pipeline:pipeline", &format!("{user}:secret"));
    let found = troubles(&site, 1, &[&via[..], &[&limited]].concat());
    expect(&found, "fail", &format!("{user} cannot create in schema public"));
    expect(&found, "fail", "public.chunks cannot be written by this user");
    database.sql(&format!("DROP USER {user}"));
}

#[test]
fn what_cannot_be_reached_is_exit_code_4_and_what_is_refused_1() {
    let site = Site::new();
    let nobody = "postgres://pipeline:secret@127.0.0.1:1/pipeline";
    let found = troubles(&site, 4, &["--via", "redis://:secret@127.0.0.1:1", "--into", nobody]);
    expect(&found, "fail", "redis at 127.0.0.1:1 takes no connection");
    expect(&found, "fail", "postgres at 127.0.0.1:1/pipeline takes no connection");
    let ended = site.end(&["doctor", "--via", "redis://:secret@127.0.0.1:1", "--into", nobody]);
    assert_eq!(ended.stderr.matches("every user of this machine can read the password").count(), 2);
    let port = Postgres::shared().port();
    let wrong = format!("postgres://pipeline:secret@127.0.0.1:{port}/pipeline");
    let found = troubles(&site, 1, &["--via", "memory", "--into", &wrong]);
    expect(&found, "fail", "PGPASSWORD");
    site.write("file", "");
    site.write("types/bad.toml", "name = 1");
    let found = troubles(&site, 1, &["--via", "memory", "--into", "file", "--log-types", "types"]);
    expect(&found, "fail", "name a folder");
    expect(&found, "fail", "types/bad.toml");
}
