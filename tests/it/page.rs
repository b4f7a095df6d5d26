//! The page: what it asks is answered, and only to those who may.
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::Value;

use super::metrics::get;
use super::support::Site;

/// The page of a site; ends with its handle.
struct Page {
    child: Child,
    address: String,
}

impl Page {
    fn start(site: &Site, flags: &[&str]) -> Self {
        let all = [&["serve", "--no-webhook", "--listen", "127.0.0.1:0"], flags].concat();
        let mut child = site.command(&all).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("page at http://").unwrap_or_else(|| panic!("{line}"));
        Self { address: address.trim_end_matches('/').to_owned(), child }
    }

    fn json(&self, path: &str) -> Value {
        let (status, body) = get(&self.address, path, None);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[test]
fn everything_on_the_page_is_answered() {
    let site = Site::new();
    site.generate(1, 2000);
    site.append("logs/logs_0000.log", "<script>alert(1)</script>\n");
    site.run(&["logs"]);
    site.ok(&["task", "run", "ping", "--id", "p", "--param", "say=seen"]);
    let page = Page::start(&site, &[]);
    for (path, part) in
        [("/", "id=\"questions\""), ("/page.js", "use strict"), ("/page.css", "prefers-color-scheme")]
    {
        let (status, body) = get(&page.address, path, None);
        assert!(status == 200 && body.contains(part), "{path}");
        assert!(!body.contains("https://") && !body.contains("//cdn"), "{path} loads from elsewhere");
    }
    let overview = page.json("/api/overview");
    assert_eq!(overview["tasks"]["completed"], 1);
    let rows: u64 = overview["archive"]["tables"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|table| ["auth", "dns", "firewall", "rejects"].contains(&table["name"].as_str().unwrap()))
        .map(|table| table["rows"].as_u64().unwrap())
        .sum();
    assert_eq!(rows, 2001);
    assert!(overview["usd_per_day"].as_f64().unwrap() > 0.0);
    assert!(overview["processes"][0]["metrics"]["process_resident_memory_bytes"].as_f64().unwrap() > 0.0);
    let rejects = page.json("/api/rejects");
    assert_eq!(rejects[0]["text"], "<script>alert(1)</script>");
    site.write("logs/zz.log", "newer\nnewest\n");
    site.run(&["logs/zz.log"]);
    let rejects = page.json("/api/rejects");
    let texts = rejects.as_array().unwrap().iter().map(|reject| reject["text"].as_str().unwrap());
    assert_eq!(texts.collect::<Vec<_>>(), ["newest", "newer", "<script>alert(1)</script>"]);
    assert_eq!(page.json("/api/tasks")[0]["id"], "p");
    assert_eq!(page.json("/api/tasks?status=failed").as_array().unwrap().len(), 0);
    assert!(page.json("/api/tasks/p")["lines"][0].as_str().unwrap().ends_with(" seen"));
    let (status, body) = get(&page.address, "/api/tasks/none", None);
    assert!(status == 404 && body.contains("there is no task none"), "{status} {body}");
    assert_eq!(page.json("/api/windows").as_array().unwrap().len(), 0);
    let questions = page.json("/api/questions");
    for question in questions.as_array().unwrap() {
        let answer = page.json(&format!("/api/questions/{}", question["number"]));
        assert_eq!(answer["is_cut"], false);
        for row in answer["rows"].as_array().unwrap() {
            let labels = question["labels"].as_array().unwrap();
            let columns = labels.iter().chain(question["value"].is_string().then_some(&question["value"]));
            for column in columns {
                assert!(row.get(column.as_str().unwrap()).is_some(), "{question}: {row}");
            }
        }
    }
    let talkers = page.json("/api/questions/5");
    assert_eq!(talkers["columns"], serde_json::json!(["src", "events"]));
    let events: Vec<_> =
        talkers["rows"].as_array().unwrap().iter().map(|row| row["events"].as_u64()).collect();
    assert!(!events.is_empty() && events.is_sorted_by(|one, next| one >= next), "{events:?}");
}

#[test]
fn without_the_token_there_is_only_the_empty_page() {
    let site = Site::new();
    site.write("token", "open sesame\n");
    let page = Page::start(&site, &["--token-file", "token"]);
    assert_eq!(get(&page.address, "/", None).0, 200);
    for path in ["/api/overview", "/api/tasks", "/api/rejects", "/api/windows", "/api/questions/1"] {
        assert_eq!(get(&page.address, path, None).0, 401, "{path}");
        assert_eq!(get(&page.address, path, Some("open")).0, 401, "{path}");
    }
    assert_eq!(get(&page.address, "/api/overview", Some("open sesame")).0, 200);
}
