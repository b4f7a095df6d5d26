//! Accepted events in the archive.
use serde_json::json;

use super::{Serve, T0, event};
use crate::support::Site;

#[test]
fn events_are_in_the_archive_once_and_can_be_queried() {
    let site = Site::new();
    let mut serve = Serve::start(&site, &["--archive", "archive"]);
    let mut with_metadata = event(1, "click", 0.5, 0);
    with_metadata["metadata"] = json!({ "source": "web", "k\"": "}" });
    let batch = json!([with_metadata, event(2, "with \"quotes\"", 1.5, 86_400), event(3, "late", 1.0, 0)]);
    assert_eq!(serve.post_with(&[("webhook-id", "w1")], batch.to_string()).status, 200);
    serve.kill();
    serve = Serve::start(&site, &["--archive", "archive"]);
    assert_eq!(serve.post_with(&[("webhook-id", "w1")], batch.to_string()).status, 200);
    assert_eq!(serve.post(event(4, "click", 2.0, 86_401).to_string()).status, 200);
    let (code, said) = serve.terminate();
    assert_eq!((code, said.as_str()), (Some(143), ""));
    let rows = site.ok(&[
        "query",
        "--from",
        "archive",
        "--output",
        "csv",
        "SELECT user_id, event_type, value, metadata FROM events ORDER BY user_id",
    ]);
    let rows: Vec<_> = rows.lines().collect();
    assert_eq!(rows.len(), 5, "{rows:?}");
    assert!(rows[1].starts_with("1,click,0.5,") && rows[1].contains("web"), "{rows:?}");
    assert!(rows[4].starts_with("4,click,2.0,"), "{rows:?}");
    let kept = site.ok(&["query", "--from", "archive", "--output", "csv", "SELECT count(raw) FROM events"]);
    assert_eq!(kept.lines().last(), Some("0"), "each line is rendered from its columns");
    let first =
        site.ok(&["query", "--from", "archive", "--output", "csv", "SELECT min(timestamp) FROM events"]);
    assert!(first.contains("2023-11-14T22:14:00"), "{T0}: {first}");
    site.ok(&["verify", "--into", "archive"]);
}
