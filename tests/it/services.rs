//! `scripts/services`: starts what it says, stops only that, and has the settings of `docker-compose.yml`.
use std::process::Command;

use crate::servers::{Redis, free_port, is_running};
use crate::support::{Ended, output, repository};

struct Services {
    folder: tempfile::TempDir,
    ports: [u16; 2],
}

impl Services {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), ports: [free_port(), free_port()] }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(repository("scripts/services"));
        // the server's own user has to reach it, and a folder for temporary files is its owner's alone
        let dir = self.folder.path().with_extension("services");
        command.args(arguments).arg("--dir").arg(dir);
        command.env("PIPELINE_PG_PORT", self.ports[0].to_string());
        command.env("PIPELINE_REDIS_PORT", self.ports[1].to_string());
        command
    }

    fn ok(&self, arguments: &[&str]) -> String {
        output(&mut self.command(arguments))
    }

    fn ended(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output().unwrap())
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        // a test that failed leaves nothing either
        let _stopped = self.command(&["stop", "--purge"]).output();
    }
}

fn pid(services: &Services, file: &str) -> u32 {
    let path = services.folder.path().with_extension("services").join(file);
    std::fs::read_to_string(path).unwrap().lines().next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn services_start_once_and_stop_without_a_trace() {
    let services = Services::new();
    let urls = services.ok(&["start"]);
    let [postgres, redis] = <[&str; 2]>::try_from(urls.lines().collect::<Vec<_>>()).unwrap();
    assert_eq!(postgres, format!("postgres://pipeline:pipeline@127.0.0.1:{}/pipeline", services.ports[0]));
    assert_eq!(redis, format!("redis://127.0.0.1:{}", services.ports[1]));
    let client = pipeline::client::PgConfig::parse(postgres).unwrap().connect().await.unwrap();
    client.batch_execute("CREATE TABLE kept ()").await.unwrap();
    drop(client);
    let answer = Some(std::time::Duration::from_secs(10));
    pipeline::client::RedisConfig::parse(redis).unwrap().connect(answer).await.unwrap();

    let pids = [pid(&services, "postgres/postmaster.pid"), pid(&services, "redis/redis.pid")];
    assert!(pids.into_iter().all(is_running));
    assert_eq!(services.ok(&["start"]), urls, "a second start changes nothing");
    assert_eq!(services.ok(&["status"]), urls);
    assert_eq!([pid(&services, "postgres/postmaster.pid"), pid(&services, "redis/redis.pid")], pids);

    services.ok(&["stop"]);
    assert!(!pids.into_iter().any(is_running));
    assert_eq!(services.ended(&["status"]).code, Some(1));
    services.ok(&["start"]);
    let client = pipeline::client::PgConfig::parse(postgres).unwrap().connect().await.unwrap();
    client.batch_execute("SELECT FROM kept").await.unwrap();
    services.ok(&["stop", "--purge"]);
    assert!(!services.folder.path().with_extension("services").exists());
}

#[test]
fn a_taken_port_is_an_error_that_says_how_to_go_on_and_its_server_is_left_alone() {
    let mut services = Services::new();
    services.ports = [Redis::shared().port(); 2];
    let error = services.ended(&["start"]).expect_code(1).only_error();
    assert!(error.ends_with("set PIPELINE_PG_PORT to a free port"), "{error}");
    services.ports[0] = free_port();
    let error = services.ended(&["start"]).expect_code(1).only_error();
    assert!(error.ends_with("set PIPELINE_REDIS_PORT to a free port"), "{error}");
    services.ok(&["stop", "--purge"]);
    assert!(is_running(Redis::shared().pid()));
}

#[test]
fn a_folder_that_holds_something_else_is_left_alone() {
    let services = Services::new();
    let dir = services.folder.path().with_extension("services");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("mine"), "").unwrap();
    for command in [&["start"][..], &["stop", "--purge"]] {
        services.ended(command).expect_code(1).only_error();
        assert!(dir.join("mine").exists());
    }
    std::fs::remove_dir_all(dir).unwrap();
}

/// The words of a file between two lines, without comments.
fn words(file: &str, from: &str, to: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository(file)).unwrap();
    let lines = text.lines().map(str::trim).skip_while(|line| *line != from).skip(1);
    let lines = lines.take_while(|line| *line != to).filter(|line| !line.starts_with('#'));
    let words = lines.flat_map(str::split_whitespace).filter(|word| *word != "-");
    words.map(|word| word.trim_start_matches("-c").trim_matches('"').to_owned()).collect()
}

#[test]
fn the_script_and_docker_compose_have_the_same_settings() {
    let (compose, script) = ("docker-compose.yml", "scripts/services");
    let expected = words(script, "postgres_settings=(", ")");
    assert!(expected.len() > 10);
    assert_eq!(words(compose, "- postgres", "healthcheck:"), expected);
    let expected = words(script, "redis_settings=(", ")");
    assert!(expected.len() > 6);
    assert_eq!(words(compose, "- redis-server", "healthcheck:"), expected);
}
