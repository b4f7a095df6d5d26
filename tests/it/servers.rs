//! Real servers for the tests, started by the tests: private, on loopback, gone with the test whatever ends it.
//!
//! Deliberately absent: mocks, containers, and servers that the machine runs already, which are never touched.
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

mod adversary;
mod lan;
mod postgres;
mod process;
mod proxy;
mod redis;
mod redis_cluster;
mod s3;

pub(crate) use self::adversary::{Adversary, content, log};
pub(crate) use self::lan::{Host, Lan};
pub(crate) use self::postgres::{Database, Postgres};
pub(crate) use self::process::{free_port, is_running, make_certificates, wait_until};
pub(crate) use self::proxy::Proxy;
pub(crate) use self::redis::{Redis, RedisOptions};
pub(crate) use self::redis_cluster::RedisCluster;
pub(crate) use self::s3::{Faults, S3Server, SECRET_KEY};

#[test]
fn a_postgres_keeps_what_was_committed_when_it_is_killed_and_is_gone_when_dropped() {
    let mut postgres = Postgres::start();
    let database = postgres.database();
    database.sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1), (NULL)");
    for end in [Postgres::kill, Postgres::stop_immediate] {
        end(&mut postgres);
        assert!(database.try_sql("SELECT 1").is_err());
        postgres.restart();
        assert_eq!(database.sql("SELECT n, 'a' FROM kept; SELECT 2"), "1|a\n|a\n2");
    }
    let (pid, folder) = (postgres.pid(), postgres.at(""));
    assert!(is_running(pid) && folder.exists());
    drop((database, postgres));
    assert!(!is_running(pid) && !folder.exists());
}

#[test]
fn databases_of_the_shared_postgres_are_apart_and_dropped() {
    let (one, other) = (Postgres::shared().database(), Postgres::shared().database());
    one.sql("CREATE TABLE mine ()");
    let error = other.try_sql("SELECT FROM mine").unwrap_err();
    assert!(error.contains("\"mine\" does not exist"), "{error}");
    let count = format!("SELECT count(*) FROM pg_database WHERE datname = '{}'", one.name());
    assert_eq!(Postgres::shared().admin(&count), "1");
    drop(one);
    assert_eq!(Postgres::shared().admin(&count), "0");
}

#[test]
fn a_small_disk_can_be_filled_and_freed() {
    let Some(postgres) = Postgres::start_on_small_disk(32) else {
        println!("skipped: this user cannot mount a small disk");
        return;
    };
    let database = postgres.database();
    database.sql("CREATE TABLE big (filler text)");
    postgres.fill_disk();
    let insert = "INSERT INTO big SELECT repeat('x', 1000) FROM generate_series(1, 1000)";
    let error = database.try_sql(insert).unwrap_err();
    assert!(error.contains("No space left on device"), "{error}");
    postgres.free_disk();
    database.sql(insert);
    let disk = postgres.at("small");
    drop((database, postgres));
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(disk.to_str().unwrap()) && !disk.exists());
}

#[test]
fn a_redis_is_empty_after_a_restart_and_gone_when_dropped() {
    for options in [
        RedisOptions::default(),
        RedisOptions {
            password: Some("secret"),
            maxmemory_policy: Some("allkeys-lru"),
            ..Default::default()
        },
        RedisOptions { tls: true, maxmemory: Some("64mb"), ..Default::default() },
        RedisOptions { cluster: true, ..Default::default() },
    ] {
        let mut redis = Redis::start_with(options);
        assert_eq!(redis.cli(&["SET", "key", "value"]), "OK");
        redis.restart();
        assert_eq!(redis.cli(&["DBSIZE"]), "0");
        let (pid, folder) = (redis.pid(), redis.at(""));
        assert!(is_running(pid) && folder.exists());
        drop(redis);
        assert!(!is_running(pid) && !folder.exists());
    }
}

#[test]
fn a_proxy_cuts_and_refuses_connections() {
    let (redis, key) = (Redis::shared(), Redis::unique("proxied"));
    let mut proxy = Proxy::start(redis.port());
    let ask = |port: u16| {
        let mut cli = Command::new("redis-cli");
        cli.args(["-p", &port.to_string(), "BLPOP", &key, "0"]).stdout(Stdio::piped());
        cli.stderr(Stdio::piped()).spawn().unwrap()
    };
    let held = ask(proxy.port());
    let is_blocked = || redis.cli(&["CLIENT", "LIST"]).contains("cmd=blpop");
    wait_until("the command is there", is_blocked);
    proxy.refuse(true);
    assert!(!ask(proxy.port()).wait().unwrap().success(), "new connections are refused");
    assert!(is_blocked(), "and old ones go on");
    proxy.cut();
    assert!(!held.wait_with_output().unwrap().status.success());
    proxy.refuse(false);
    let answered = ask(proxy.port());
    redis.cli(&["RPUSH", &key, "value"]);
    assert!(answered.wait_with_output().unwrap().status.success());
}

const CHILD: &str = "PIPELINE_TEST_STARTS_SERVERS";

#[test]
#[ignore = "what the next test starts and kills"]
fn starts_servers_until_it_is_killed() {
    if std::env::var_os(CHILD).is_some() {
        let (postgres, redis) = (Postgres::start(), Redis::start());
        println!("\npids {} {} {}", postgres.pid(), redis.pid(), postgres.at("").display());
        std::io::stdin().lines().for_each(drop);
    }
}

#[test]
fn a_killed_test_process_leaves_no_server() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "servers::starts_servers_until_it_is_killed", "--ignored", "--nocapture"])
        .env(CHILD, "")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.starts_with("pids ")).unwrap();
    let words: Vec<_> = line.split(' ').collect();
    let pids = [words[1], words[2]].map(|pid| pid.parse().unwrap());
    assert!(pids.into_iter().all(is_running));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("its servers are gone", || !pids.into_iter().any(is_running));
    wait_until("their folder is gone", || !std::path::Path::new(words[3]).exists());
}
