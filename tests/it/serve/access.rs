//! Who may post, and how much: tokens, signatures, limits, TLS, clients that are slow.
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{Serve, event, gzip, number, read_answer, table};
use crate::servers::{make_certificates, wait_until};
use crate::support::Site;

fn signature(secret: &[u8], id: &str, time: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(format!("{id}.{time}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[test]
fn without_the_token_nobody_posts_and_it_is_printed_nowhere() {
    let site = Site::new();
    site.write("token", "hunter2hunter2\n");
    let serve = Serve::start(&site, &["--token-file", "token", "-vvv"]);
    let body = event(1, "a", 1.0, 0).to_string();
    let refused = serve.post(&body);
    assert_eq!(refused.status, 401);
    assert!(refused.head.contains("www-authenticate: bearer"), "{}", refused.head);
    assert_eq!(serve.post_with(&[("authorization", "Bearer hunter3hunter3")], &body).status, 401);
    assert_eq!(serve.post_with(&[("authorization", "Bearer hunter2hunter2")], &body).status, 200);
    assert_eq!(serve.get("/health").status, 200, "supervisors need no token");
    assert_eq!(number(&site, "SELECT count(*) FROM webhook_rejects"), 0);
    let (_, said) = serve.terminate();
    assert!(!said.contains("hunter"), "{said}");
}

#[test]
fn signatures_are_checked_with_every_secret_and_against_the_clock() {
    let site = Site::new();
    let (old, new) = ([7_u8; 24], [8_u8; 24]);
    let secrets = [old, new].map(|secret| format!("whsec_{}\n", STANDARD.encode(secret))).concat();
    site.write("secrets", secrets);
    let serve = Serve::start(&site, &["--signing-secret-file", "secrets"]);
    let body = event(1, "a", 1.0, 0).to_string();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let post = |id: &str, time: &str, signature: &str, body: &str| {
        let headers = [("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", signature)];
        serve.post_with(&headers, body).status
    };
    let time = now.to_string();
    for (id, secret) in [("m1", old), ("m2", new)] {
        let signature = signature(&secret, id, &time, &body);
        assert_eq!(post(id, &time, &signature, &body), 200);
        assert_eq!(post(id, &time, &signature, &body), 200, "sent again");
        assert_eq!(post(id, &time, &signature, &body.replace("1.0", "9.0")), 401);
        assert_eq!(post("m9", &time, &signature, &body), 401, "the identity is signed too");
    }
    let long_ago = (now - 1000).to_string();
    assert_eq!(post("m3", &long_ago, &signature(&old, "m3", &long_ago, &body), &body), 401);
    assert_eq!(post("m4", &time, &signature(&[9; 24], "m4", &time, &body), &body), 401);
    assert_eq!(serve.post(&body).status, 401);
    assert_eq!(table(&site).values().next().unwrap().0, 2);
}

#[test]
fn a_load_that_signs_is_let_in() {
    let site = Site::new();
    site.write("secrets", format!("whsec_{}\n", STANDARD.encode([7_u8; 24])));
    let serve = Serve::start(&site, &["--signing-secret-file", "secrets"]);
    let url = serve.url();
    let load = ["load", "burst", "--size", "5", "--count", "1", "--url", &url];
    site.end(&load).expect_code(1);
    site.end(&[&load[..], &["--signing-secret-file", "secrets"]].concat()).expect_code(0);
    assert_eq!(number(&site, "SELECT sum(count) FROM aggregated_data"), 5);
}

#[test]
fn secrets_that_cannot_be_used_are_an_error_that_does_not_show_them() {
    let site = Site::new();
    site.write("secrets", "hunter2\n");
    let error = site.error(3, &["serve", "--listen", "127.0.0.1:0", "--signing-secret-file", "secrets"]);
    assert!(error.contains("signing secret 1") && !error.contains("hunter"), "{error}");
    let error = site.error(2, &["serve", "--token-file", "missing"]);
    assert!(error.contains("missing"), "{error}");
}

#[test]
fn bodies_have_a_limit_as_sent_and_as_decompressed() {
    let site = Site::new();
    let serve = Serve::start(&site, &["--max-body-size", "1KiB"]);
    assert_eq!(serve.post(" ".repeat(1025)).status, 413);
    assert_eq!(serve.post_with(&[("content-encoding", "gzip")], gzip(&[b' '; 100_000])).status, 413);
    assert_eq!(serve.post_with(&[("content-encoding", "gzip")], "not gzip").status, 400);
    assert_eq!(serve.post_with(&[("content-encoding", "br")], "x").status, 415);
    let event_gzipped = gzip(event(1, "a", 1.0, 0).to_string().as_bytes());
    assert_eq!(serve.post_with(&[("content-encoding", "GZip")], event_gzipped).status, 200);
    let mut stream = serve.connect();
    let head =
        "POST /webhook HTTP/1.1\r\nhost: test\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    write!(stream, "{head}800\r\n{}\r\n0\r\n\r\n", " ".repeat(0x800)).unwrap();
    assert_eq!(read_answer(&mut stream).unwrap().status, 413, "where no length is declared");
    assert_eq!(serve.post(event(1, "a", 1.0, 0).to_string()).status, 200);
}

#[test]
fn who_posts_too_often_is_told_when_to_come_back() {
    let site = Site::new();
    let serve = Serve::start(&site, &["--max-rate", "3"]);
    let body = event(1, "a", 1.0, 0).to_string();
    let answers: Vec<_> = (0..20).map(|_| serve.post(&body)).collect();
    let refused = answers.iter().find(|answer| answer.status == 429).expect("one too many");
    assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
    let accepted = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(accepted >= 3);
    wait_until("a second's worth is back", || serve.post(&body).status == 200);
    assert_eq!(serve.get("/health").status, 200);
}

#[test]
fn clients_that_send_slowly_are_cut_off_and_hold_up_nobody() {
    let site = Site::new();
    let serve = Serve::start(&site, &["--body-timeout", "300ms", "--max-connections", "2"]);
    let mut slow: Vec<_> = (0..4).map(|_| serve.connect()).collect();
    for stream in &mut slow {
        stream.write_all(b"POST /webhook HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\n{").unwrap();
    }
    // it gets its turn when one of them is cut off
    assert_eq!(serve.post(event(1, "a", 1.0, 0).to_string()).status, 200);
    let mut said = String::new();
    slow[0].read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
}

#[test]
fn a_full_queue_is_told_and_nothing_of_it_is_lost() {
    let site = Site::new();
    let serve = Serve::start(&site, &["--max-queue-size", "1"]);
    let body = event(1, "a", 1.0, 0).to_string();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let posting: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| (0..20).map(|_| serve.post(&body).status).collect::<Vec<_>>()))
            .collect();
        posting.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    let accepted = statuses.iter().filter(|status| **status == 200).count() as u64;
    assert_eq!(table(&site).values().next().unwrap().0, accepted);
}

#[test]
fn with_a_certificate_it_speaks_tls() {
    let site = Site::new();
    make_certificates(&site.at(""));
    let serve = Serve::start(&site, &["--tls-cert", "server.crt", "--tls-key", "server.key"]);
    let curl = |url: String| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--cacert"])
            .arg(site.at("ca.crt"))
            .args(["-d", &event(1, "a", 1.0, 0).to_string()]);
        curl.arg(url).stdin(Stdio::null()).output().unwrap()
    };
    let said = curl(format!("https://{}/webhook", serve.address));
    assert_eq!(String::from_utf8_lossy(&said.stdout), "OK", "{}", String::from_utf8_lossy(&said.stderr));
    assert!(!curl(format!("http://{}/webhook", serve.address)).status.success());
    let error = site
        .error(3, &["serve", "--listen", "127.0.0.1:0", "--tls-cert", "ca.key", "--tls-key", "server.key"]);
    assert!(error.contains("ca.key"), "{error}");
}
