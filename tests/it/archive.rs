//! What went into an archive comes back, and what is wrong with it is named.
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use bytes::Bytes;
use pipeline::archive::{Checks, Finding, GivenFile, LineFilter, OfArchive, Report, restore, verify};
use pipeline::decode::Decoder;
use pipeline::lake::{Archive, ArchiveWriter};
use pipeline::log_type::{LogType, LogTypes};
use pipeline::model::{DecodedBatch, Piece, RawChunk, Source};
use sha2::{Digest, Sha256};

const ALL: Checks = Checks { count: true, content: true };

fn source(path: &str, generation: u32) -> Arc<Source> {
    Arc::new(Source {
        path: path.into(),
        device: 1,
        inode: 2,
        generation,
        head_len_bytes: 0,
        head_hash: 0,
        id: Source::identity(path, 1, 2, generation),
    })
}

fn chunk(source: &Arc<Source>, first_byte: usize, bytes: &[u8]) -> RawChunk {
    RawChunk {
        source: Arc::clone(source),
        first_byte: first_byte as u64,
        bytes: Bytes::copy_from_slice(bytes),
        content_sha256: Sha256::digest(bytes).into(),
        reference_time: 1_717_200_000_000_000,
        piece: None,
        open: false,
    }
}

/// `text` cut behind every `lines_per_chunk`th line.
fn chunks(source: &Arc<Source>, text: &[u8], lines_per_chunk: usize) -> Vec<RawChunk> {
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let mut first_byte = 0;
    lines
        .chunks(lines_per_chunk)
        .map(|lines| {
            let bytes = lines.concat();
            first_byte += bytes.len();
            chunk(source, first_byte - bytes.len(), &bytes)
        })
        .collect()
}

fn decoded(types: &LogTypes, chunks: &[RawChunk]) -> Vec<DecodedBatch> {
    let mut decoder = Decoder::new(types);
    chunks.iter().map(|chunk| decoder.decode(chunk)).collect()
}

async fn store(location: &Path, batches: Vec<DecodedBatch>) -> Archive {
    let mut writer = ArchiveWriter::try_new(location.to_str().unwrap()).await.unwrap();
    for batch in batches {
        writer.write(batch).await.unwrap();
    }
    writer.flush().await.unwrap();
    Archive::open(location.to_str().unwrap()).await.unwrap()
}

fn findings(report: &Report) -> Vec<String> {
    let of_sources = report.sources.iter().flat_map(|source| &source.findings);
    of_sources.chain(&report.findings).map(ToString::to_string).collect()
}

const FIREWALL: &str = "2024-01-15T00:00:03.731Z|action=reject|src=192.168.1.45|dst=10.51.194.72|proto=TCP|src_port=56374|dst_port=3306|bytes_sent=65009|rule=block_malware";
const DNS: &str =
    "2024-01-16T00:00:02Z client 192.168.1.246 query: github.com IN CNAME + (10.140.125.58) SERVFAIL";
const AUTH: &str = "Jan  5 10:11:12 gate sshd[7]: Failed password for root from 203.0.113.9 port 2201 ssh2";

/// Everything that a file can hold.
fn motley(ending: &str, final_newline: bool) -> Vec<u8> {
    let mut text = Vec::new();
    for round in 0..40 {
        let lines: [&[u8]; 10] = [
            FIREWALL.as_bytes(),
            DNS.as_bytes(),
            b"",
            AUTH.as_bytes(),
            b"junk",
            b"2024-01-15T00:00:03.731Z|src=10.0.0.1|zone=dmz|action=\xff\0",
            b" \t ",
            b"  2024-01-15T02:00:03+02:00|action=accept ",
            b"9999-01-01T00:00:00Z client 10.0.0.1 query: far IN A + (10.0.0.2) NOERROR",
            b"carriage\rreturn\r",
        ];
        let line = lines[round * 7 % lines.len()];
        text.extend_from_slice(line);
        text.extend_from_slice(if round % 11 == 10 { b"\n" } else { ending.as_bytes() });
    }
    text.extend_from_slice(DNS.as_bytes());
    if final_newline {
        text.extend_from_slice(ending.as_bytes());
    }
    text
}

#[tokio::test]
async fn restored_files_are_the_originals_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let types = LogTypes::load(None).unwrap();
    // the same type, changed: rows go by the version that read them
    let changed = types.get("dns").unwrap().table.text.replacen(
        "client {client_ip} query",
        "client {client_ip}  query",
        1,
    );
    let changed = LogTypes::new(vec![Arc::new(LogType::try_new("changed", &changed).unwrap())]);
    let mut batches = Vec::new();
    let mut expected = Vec::new();
    for (name, ending, final_newline, lines_per_chunk) in [
        ("a.log", "\n", true, 3),
        ("deep/b.log", "\r\n", true, 5),
        ("c.log", "\r\n", false, 1),
        ("d.log", "\n", false, 1000),
    ] {
        let text = motley(ending, final_newline);
        batches
            .extend(decoded(&types, &chunks(&source(&format!("/logs/{name}"), 0), &text, lines_per_chunk)));
        expected.push((name, text));
    }
    let second = source("/logs/a.log", 1);
    let text = DNS.replacen(" query", "  query", 1) + "\n";
    batches.extend(decoded(&changed, &[chunk(&second, 0, text.as_bytes())]));
    expected.push(("a.log.generation-1", text.into_bytes()));
    let long = source("/logs/long.log", 0);
    let pieces = [("first", 0, false), ("second", 1, false), ("third\r\n", 2, true)];
    let mut whole = Vec::new();
    for (bytes, index, last) in pieces {
        let piece = Some(Piece { index, last });
        batches.extend(decoded(&types, &[RawChunk { piece, ..chunk(&long, whole.len(), bytes.as_bytes()) }]));
        whole.extend_from_slice(bytes.as_bytes());
    }
    expected.push(("long.log", whole));

    let archive = store(&folder.path().join("archive"), batches).await;
    let out = folder.path().join("out");
    let files = restore(&archive, &out, false, &LineFilter::default(), |_| true).await.unwrap();
    assert!(files.iter().all(|file| file.findings.is_empty()), "{files:?}");
    assert_eq!(files.len(), expected.len());
    for (name, text) in expected {
        assert_eq!(
            fs::read(out.join(name)).unwrap().escape_ascii().to_string(),
            text.escape_ascii().to_string(),
            "{name}"
        );
    }
    let report = verify(&OfArchive::new(&archive), None, ALL).await.unwrap();
    assert_eq!(findings(&report), Vec::<String>::new());
    let lines: u64 = report.sources.iter().map(|source| source.lines).sum();
    assert_eq!(lines, 4 * 41 + 1 + 1);
    for source in &report.sources {
        assert_eq!(source.lines, source.rows + source.rejects + source.blanks, "{}", source.path);
        assert_eq!(source.rows, source.types.values().sum::<u64>());
    }

    let error =
        restore(&archive, &out, false, &LineFilter::default(), |_| true).await.unwrap_err().to_string();
    assert!(error.contains("exists") && error.contains("--force"), "{error}");
    restore(&archive, &out, true, &LineFilter::default(), |_| true).await.unwrap();
    let only = folder.path().join("only");
    let files =
        restore(&archive, &only, false, &LineFilter::default(), |source| source.path.ends_with("c.log"))
            .await
            .unwrap();
    assert_eq!(files.len(), 1);
    assert!(only.join("c.log").exists());
}

#[tokio::test]
async fn a_gap_is_named_and_its_file_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let types = LogTypes::load(None).unwrap();
    let text = format!("{FIREWALL}\n{DNS}\n{AUTH}\n");
    let mut parts = chunks(&source("/logs/a.log", 0), text.as_bytes(), 1);
    let gap = parts.remove(1).range();
    parts.extend(chunks(&source("/logs/b.log", 0), text.as_bytes(), 2));
    let archive = store(&folder.path().join("archive"), decoded(&types, &parts)).await;
    let report = verify(&OfArchive::new(&archive), None, ALL).await.unwrap();
    assert!(!report.is_whole());
    let expected = Finding::Gap { first_byte: gap.first_byte, end_byte: gap.end_byte };
    assert_eq!(report.sources[0].findings, std::slice::from_ref(&expected));
    assert_eq!(report.sources[1].findings, []);
    let out = folder.path().join("out");
    let files = restore(&archive, &out, false, &LineFilter::default(), |_| true).await.unwrap();
    assert_eq!(files[0].findings, [expected]);
    assert!(!out.join("a.log").exists());
    assert_eq!(fs::read_to_string(out.join("b.log")).unwrap(), text);
}

#[tokio::test]
async fn content_that_does_not_come_back_is_named_and_its_file_does_not_look_whole() {
    let folder = tempfile::tempdir().unwrap();
    let types = LogTypes::load(None).unwrap();
    let text = format!("{FIREWALL}\n{DNS}\n");
    let mut parts = chunks(&source("/logs/a.log", 0), text.as_bytes(), 1);
    parts[1].content_sha256 = [7; 32];
    let range = parts[1].range();
    let archive = store(&folder.path().join("archive"), decoded(&types, &parts)).await;
    let expected = Finding::Content { first_byte: range.first_byte, end_byte: range.end_byte };
    let by_count =
        verify(&OfArchive::new(&archive), None, Checks { count: true, content: false }).await.unwrap();
    assert!(by_count.is_whole());
    let by_content =
        verify(&OfArchive::new(&archive), None, Checks { count: false, content: true }).await.unwrap();
    assert_eq!(by_content.sources[0].findings, std::slice::from_ref(&expected));
    let out = folder.path().join("out");
    let files = restore(&archive, &out, false, &LineFilter::default(), |_| true).await.unwrap();
    assert_eq!(files[0].findings, [expected]);
    assert!(!out.join("a.log").exists());
    assert!(out.join("a.log.partial").exists());
}

#[tokio::test]
async fn rows_that_are_missing_or_of_no_chunk_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let types = LogTypes::load(None).unwrap();
    let text = format!("{FIREWALL}\njunk\n\n");
    let mut batches = decoded(&types, &chunks(&source("/logs/a.log", 0), text.as_bytes(), 3));
    batches[0].rejects.clear();
    let strangers = decoded(&types, &chunks(&source("/logs/b.log", 0), text.as_bytes(), 3));
    let stranger = strangers[0].record.chunk_id;
    batches[0].types = strangers.into_iter().flat_map(|batch| batch.types).collect();
    let archive = store(&folder.path().join("archive"), batches).await;
    let by_ledger = verify(&OfArchive::new(&archive), None, Checks::default()).await.unwrap();
    assert!(by_ledger.is_whole());
    let report =
        verify(&OfArchive::new(&archive), None, Checks { count: true, content: false }).await.unwrap();
    let count = |table: &str| Finding::Count { table: table.into(), first_byte: 0, expected: 1, found: 0 };
    assert_eq!(report.sources[0].findings, [count("firewall"), count("rejects")]);
    let unknown = Finding::UnknownChunk { table: "firewall".into(), chunk_id: stranger, rows: 1 };
    assert_eq!(report.findings, [unknown]);
}

#[tokio::test]
async fn files_that_grew_or_were_never_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let types = LogTypes::load(None).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| source(&format!("/logs/{name}.log"), 0));
    let line = format!("{DNS}\n");
    let batches = decoded(&types, &[chunk(&a, 0, line.as_bytes()), chunk(&b, 0, line.as_bytes())]);
    let archive = store(&folder.path().join("archive"), batches).await;
    let given = |source: &Source, unread_bytes| GivenFile {
        path: source.path.clone(),
        source_id: source.id,
        unread_bytes,
    };
    let report = verify(&OfArchive::new(&archive), Some(&[given(&a, 0)]), ALL).await.unwrap();
    assert!(report.is_whole());
    assert_eq!(report.sources.len(), 1);
    let report = verify(&OfArchive::new(&archive), Some(&[given(&b, 12), given(&c, 5)]), ALL).await.unwrap();
    let texts = findings(&report);
    assert_eq!(texts, ["12 bytes are not stored yet; run again", "nothing of it is stored; run on it"]);
    assert_eq!([&report.sources[0].path, &report.sources[1].path], [&b.path, &c.path]);
}

fn pipeline(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
    command.args(args).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn run_verify_and_restore_give_back_the_files_of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| pipeline(folder.path(), args);
    let logs = folder.path().join("data/logs");
    fs::create_dir_all(&logs).unwrap();
    fs::write(logs.join("unix.log"), motley("\n", true)).unwrap();
    fs::write(logs.join("windows.log"), motley("\r\n", false)).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &motley("\n", true)).unwrap();
    fs::write(logs.join("packed.log.gz"), gzip.finish().unwrap()).unwrap();

    let missing = run(&["verify"]);
    assert_eq!(missing.status.code(), Some(3), "{}", text(&missing.stderr));
    let ran = run(&["run", "--chunk-size", "1KiB"]);
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    let verified = run(&["verify", "data/logs", "--count", "--content"]);
    assert_eq!(verified.status.code(), Some(0), "{}{}", text(&verified.stdout), text(&verified.stderr));
    assert!(text(&verified.stdout).contains("3 sources"), "{}", text(&verified.stdout));
    let restored = run(&["archive", "restore", "--out", "back"]);
    assert_eq!(restored.status.code(), Some(0), "{}", text(&restored.stderr));
    for (name, original) in [
        ("unix.log", motley("\n", true)),
        ("windows.log", motley("\r\n", false)),
        ("packed.log", motley("\n", true)),
    ] {
        assert!(fs::read(folder.path().join("back").join(name)).unwrap() == original, "{name}");
    }
    let again = run(&["archive", "restore", "--out", "back"]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(text(&again.stderr).lines().count(), 1, "{}", text(&again.stderr));
    assert_eq!(run(&["archive", "restore", "--out", "back", "--force"]).status.code(), Some(0));

    let listed = run(&["archive", "list", "--output", "json"]);
    let tables: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).unwrap();
    let rows = |name: &str| tables.iter().find(|table| table["table"] == name).unwrap()["rows"].clone();
    let verified = run(&["verify", "--output", "json"]);
    let reports: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    let sources = reports[0]["sources"].as_array().unwrap();
    let sum = |key: &str| sources.iter().map(|source| source[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((rows("rejects"), rows("blanks")), (sum("rejects").into(), sum("blanks").into()));

    let mut grown = motley("\n", true);
    grown.extend_from_slice(b"one more\n");
    fs::write(logs.join("unix.log"), grown).unwrap();
    fs::write(logs.join("new.log"), "never read\n").unwrap();
    let verified = run(&["verify", "data/logs"]);
    assert_eq!(verified.status.code(), Some(1));
    let errors = text(&verified.stderr);
    assert!(errors.contains("unix.log: 9 bytes are not stored yet"), "{errors}");
    assert!(errors.contains("new.log: nothing of it is stored"), "{errors}");
}
