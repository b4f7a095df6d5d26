//! What Redis needs to be to carry chunks.
use std::collections::BTreeMap;

use redis::{RedisResult, Value};

use super::super::units::bytes_text;
use super::{Checks, major_minor, now};
use crate::client::redis::RESPONSE_TIMEOUT;
use crate::client::{RedisConfig, RedisConnection};

/// XAUTOCLAIM, by which a processor takes over what a dead one left, came with it.
const MIN_VERSION: (u32, u32) = (6, 2);
/// What the queue holds unless told otherwise.
const QUEUE_BYTES: u64 = 64 << 20;

pub(super) async fn check(config: &RedisConfig, checks: &mut Checks) {
    let mut connection = match config.connect(Some(RESPONSE_TIMEOUT)).await {
        Ok(connection) => connection,
        Err(error) => return checks.error(error),
    };
    let kind = if connection.is_cluster() { "a cluster" } else { "one server" };
    checks.ok(format!("{config} answers: {kind}"));
    if connection.is_cluster() {
        match redis::cmd("CLUSTER").arg("INFO").query_async::<String>(&mut connection).await {
            Ok(info) => judge_cluster(&facts(&info), checks),
            Err(error) => {
                checks.warn(format!("CLUSTER INFO is not permitted ({error})"), "grant it to see more");
            }
        }
    }
    match nodes(&mut connection).await {
        Ok(nodes) => {
            for (node, facts) in nodes {
                judge_node(&node, &facts, checks);
            }
        }
        Err(error) => checks.warn(format!("INFO is not permitted ({error})"), "grant it to see more"),
    }
    match try_stream(&mut connection).await {
        Ok(()) => checks.ok("streams can be written, read, acknowledged and deleted"),
        Err(error) => checks.fail(
            format!("a stream cannot be used: {error}"),
            "grant the user XADD, XGROUP, XREADGROUP, XACK and DEL, or free memory",
        ),
    }
    let before = now();
    if let Ok((seconds, micros)) = redis::cmd("TIME").query_async::<(u64, u64)>(&mut connection).await {
        let theirs = seconds as f64 + micros as f64 / 1e6;
        checks.clock(theirs - f64::midpoint(before, now()));
    }
}

type Facts = BTreeMap<String, String>;

/// What `INFO` says, by node; one without a name where there is no cluster.
async fn nodes(connection: &mut RedisConnection) -> RedisResult<Vec<(String, Facts)>> {
    let mut nodes = Vec::new();
    match redis::cmd("INFO").query_async::<Value>(connection).await? {
        Value::Map(answers) => {
            for (node, answer) in answers {
                let text: String = redis::from_redis_value(answer)?;
                nodes.push((format!("{}: ", redis::from_redis_value::<String>(node)?), facts(&text)));
            }
        }
        answer => nodes.push((String::new(), facts(&redis::from_redis_value::<String>(answer)?))),
    }
    Ok(nodes)
}

fn facts(info: &str) -> Facts {
    let lines = info.lines().filter_map(|line| line.trim().split_once(':'));
    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn judge_cluster(facts: &Facts, checks: &mut Checks) {
    let fact = |name: &str| facts.get(name).map_or("", String::as_str);
    match fact("cluster_state") {
        "ok" => checks.ok(format!("{} nodes with slots, all slots served", fact("cluster_size"))),
        _ => checks.fail(
            format!("{} of 16384 slots are served", fact("cluster_slots_ok")),
            "bring the lost nodes back, or replace them (`redis-cli --cluster fix`)",
        ),
    }
}

fn judge_node(node: &str, facts: &Facts, checks: &mut Checks) {
    let fact = |name: &str| facts.get(name).map_or("", String::as_str);
    let number = |name: &str| fact(name).parse::<u64>().unwrap_or(0);
    let version = fact("redis_version");
    match major_minor(version) {
        Some(found) if found < MIN_VERSION => {
            checks.fail(format!("{node}version {version}"), "install Redis 6.2 or later");
        }
        _ => checks.ok(format!("{node}version {version}")),
    }
    if fact("role") == "slave" {
        checks.fail(format!("{node}is a replica"), "name its master in --via");
    }
    judge_memory(node, fact("maxmemory_policy"), number("maxmemory"), number("used_memory"), checks);
    match fact("aof_enabled") {
        "1" => checks.warn(
            format!("{node}appendonly is on: every line is written to its disk once more"),
            "CONFIG SET appendonly no; readers send again what a lost Redis held",
        ),
        _ => checks.ok(format!("{node}no append-only file; readers send again what a lost Redis held")),
    }
}

fn judge_memory(node: &str, policy: &str, limit: u64, used: u64, checks: &mut Checks) {
    let remedy = "CONFIG SET maxmemory-policy noeviction, and in redis.conf";
    match policy {
        "noeviction" => checks.ok(format!("{node}maxmemory-policy is noeviction")),
        "" => {}
        _ if policy.starts_with("volatile-") => checks.warn(
            format!(
                "{node}maxmemory-policy is {policy}: keys that expire are thrown away when memory is full"
            ),
            remedy,
        ),
        _ => checks.fail(
            format!("{node}maxmemory-policy is {policy}: streams are thrown away when memory is full"),
            remedy,
        ),
    }
    let queue = bytes_text(QUEUE_BYTES);
    match limit {
        0 => checks.ok(format!("{node}no maxmemory; the queue bounds itself to {queue}")),
        _ if limit < QUEUE_BYTES * 3 / 2 => checks.fail(
            format!("{node}maxmemory is {}, and the queue holds {queue}", bytes_text(limit)),
            "CONFIG SET maxmemory 256mb, or a smaller queue",
        ),
        _ if limit.saturating_sub(used) < QUEUE_BYTES => checks.warn(
            format!("{node}{} of maxmemory {} are used", bytes_text(used), bytes_text(limit)),
            "raise maxmemory, or find what fills it with `redis-cli --bigkeys`",
        ),
        _ => checks.ok(format!("{node}maxmemory is {}", bytes_text(limit))),
    }
}

/// Does with a stream what a reader and a processor do, and deletes it.
async fn try_stream(connection: &mut RedisConnection) -> RedisResult<()> {
    let key = format!("pipeline:doctor:{}", uuid::Uuid::now_v7());
    let tried = async {
        let key = key.as_str();
        let add = redis::cmd("XADD").arg(key).arg("*").arg("frame").arg("").to_owned();
        let id: String = add.query_async(connection).await?;
        redis::cmd("XGROUP").arg(&["CREATE", key, "doctor", "0"]).exec_async(connection).await?;
        let read = ["GROUP", "doctor", "doctor", "COUNT", "1", "STREAMS", key, ">"];
        redis::cmd("XREADGROUP").arg(&read).exec_async(connection).await?;
        redis::cmd("XACK").arg(&[key, "doctor", &id]).exec_async(connection).await
    }
    .await;
    let deleted = redis::cmd("DEL").arg(&key).exec_async(connection).await;
    tried.and(deleted)
}

#[cfg(test)]
mod tests {
    use super::super::text;
    use super::*;

    #[track_caller]
    fn judged(info: &str, line: &str) {
        let mut checks = Checks::new("redis");
        judge_node("", &facts(info), &mut checks);
        assert!(text(&checks.checks).contains(line), "{}", text(&checks.checks));
    }

    #[test]
    fn what_would_lose_lines_fails_and_says_so() {
        judged("redis_version:6.0.16\r\n", "FAIL  redis      version 6.0.16; install");
        judged("maxmemory_policy:allkeys-lru\n", "FAIL  redis      maxmemory-policy is allkeys-lru: streams");
        judged("maxmemory_policy:volatile-ttl\n", "warn  redis      maxmemory-policy is volatile-ttl");
        judged("maxmemory:67108864\n", "FAIL  redis      maxmemory is 64.0 MiB");
        judged("maxmemory:268435456\nused_memory:260000000\n", "warn  redis      248.0 MiB of maxmemory");
        judged("role:slave\n", "FAIL  redis      is a replica");
        judged("aof_enabled:1\n", "warn  redis      appendonly is on");
    }

    #[test]
    fn a_cluster_that_serves_only_a_part_fails() {
        let mut checks = Checks::new("redis");
        judge_cluster(&facts("cluster_state:ok\r\ncluster_size:3\r\n"), &mut checks);
        judge_cluster(&facts("cluster_state:fail\r\ncluster_slots_ok:10923\r\n"), &mut checks);
        let text = text(&checks.checks);
        assert!(text.starts_with("ok    redis      3 nodes with slots, all slots served\n"), "{text}");
        assert!(text.contains("FAIL  redis      10923 of 16384 slots are served; bring"), "{text}");
    }
}
