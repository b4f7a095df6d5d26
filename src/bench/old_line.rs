//! A line as the old design sent it: one JSON message, every value a string.
//!
//! Deliberately absent: templates, rejects and types. The old programs split the three known kinds of line by hand.
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What was pushed for each line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OldMessage {
    pub(super) log_type: String,
    pub(super) raw_line: String,
    pub(super) timestamp: String,
    pub(super) source_file: String,
    pub(super) parsed_data: Value,
}

/// Splits a line; one of no known kind is sent without columns.
pub(super) fn parse(line: &str, source_file: &str) -> OldMessage {
    let line = line.trim_end_matches('\r');
    let (log_type, pairs) = firewall(line)
        .map(|pairs| ("firewall", pairs))
        .or_else(|| Some(("dns", dns(line)?)))
        .or_else(|| Some(("auth", auth(line)?)))
        .unwrap_or_default();
    let text = |text: &str| Value::String(text.to_owned());
    let mut parsed: Map<String, Value> =
        pairs.iter().map(|(key, value)| ((*key).into(), text(value))).collect();
    parsed.insert("log_type".into(), text(log_type));
    let timestamp = pairs.first().map(|(_, time)| (*time).to_owned()).unwrap_or_default();
    OldMessage {
        log_type: log_type.to_owned(),
        raw_line: line.to_owned(),
        timestamp,
        source_file: source_file.to_owned(),
        parsed_data: Value::Object(parsed),
    }
}

type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// `TIME|key=value|..`
fn firewall(line: &str) -> Option<Pairs<'_>> {
    let mut parts = line.split('|');
    let mut pairs = vec![("timestamp", parts.next()?)];
    for part in parts {
        pairs.push(part.split_once('=')?);
    }
    (pairs.len() > 1).then_some(pairs)
}

/// `TIME client IP query: DOMAIN IN TYPE + (SERVER) CODE`
fn dns(line: &str) -> Option<Pairs<'_>> {
    let words: Vec<&str> = line.split(' ').collect();
    let [time, "client", client_ip, "query:", query_domain, "IN", query_type, "+", server, response_code] =
        words[..]
    else {
        return None;
    };
    let server_ip = server.strip_prefix('(')?.strip_suffix(')')?;
    Some(vec![
        ("timestamp", time),
        ("client_ip", client_ip),
        ("query_domain", query_domain),
        ("query_type", query_type),
        ("server_ip", server_ip),
        ("response_code", response_code),
    ])
}

/// `TIME HOST sshd[PID]: STATUS METHOD for USER from IP port PORT ssh2`
fn auth(line: &str) -> Option<Pairs<'_>> {
    let words: Vec<&str> = line.split(' ').collect();
    let [
        time,
        hostname,
        sshd,
        status,
        method,
        "for",
        username,
        "from",
        source_ip,
        "port",
        source_port,
        "ssh2",
    ] = words[..]
    else {
        return None;
    };
    let pid = sshd.strip_prefix("sshd[")?.strip_suffix("]:")?;
    Some(vec![
        ("timestamp", time),
        ("hostname", hostname),
        ("pid", pid),
        ("status", status),
        ("auth_method", method),
        ("username", username),
        ("source_ip", source_ip),
        ("source_port", source_port),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_generated_line_is_split() {
        for (line, log_type, key, value) in [
            (
                "2024-01-15T00:00:03.731Z|action=reject|src=192.168.1.45|dst_port=3306",
                "firewall",
                "dst_port",
                "3306",
            ),
            (
                "2024-01-15T00:00:02.487Z client 192.168.1.246 query: github.com IN CNAME + (10.140.125.58) SERVFAIL",
                "dns",
                "server_ip",
                "10.140.125.58",
            ),
            (
                "2024-01-15T00:00:00.660Z auth-srv05 sshd[39933]: Accepted publickey for root from 192.168.1.119 port 48032 ssh2",
                "auth",
                "pid",
                "39933",
            ),
            ("anything else", "", "log_type", ""),
        ] {
            let message = parse(line, "logs_0000.log");
            assert_eq!(message.log_type, log_type);
            assert_eq!(message.raw_line, line);
            assert_eq!(message.parsed_data[key], value, "{line}");
        }
    }
}
