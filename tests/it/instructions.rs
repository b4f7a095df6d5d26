//! Instructions of the hot paths on fixed input, counted by callgrind, held against `tests/it/instructions.json`.
//!
//! A count differs little between machines and runs, as a time does not. More than 5 % above its record fails: find
//! the cause, or record it anew in the same change, with `PIPELINE_INSTRUCTIONS=write`. Records are of x86-64 with
//! AVX2; elsewhere nothing is compared. Each test runs itself once more below valgrind, where it only works.
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use arrow::array::ArrayRef;
use bytes::Bytes;
use pipeline::decode::Decoder;
use pipeline::generate::{Generator, LineType};
use pipeline::log_type::LogTypes;
use pipeline::model::{Event, RawChunk, Source};
use pipeline::transport::frame::{self, Compression};
use pipeline::warehouse::{CopyEncoder, PgType, Rows};
use pipeline::window::{Settings, Windows};

const MAX_GROWTH: f64 = 1.05;
/// Set for the run below valgrind.
const COUNTED: &str = "PIPELINE_COUNTED";
const LINES: usize = 20_000;
const EVENTS: usize = 20_000;

#[test]
fn decoding_has_not_become_dearer() {
    guard("decode", "decoding_has_not_become_dearer", LINES, || {
        let types = LogTypes::load(None).unwrap();
        let (mut decoder, chunk) = (Decoder::new(&types), chunk(&types));
        decoder.decode(&chunk);
        Box::new(move || assert_eq!(decoder.decode(&chunk).record.num_rows as usize, LINES))
    });
}

#[test]
fn framing_has_not_become_dearer() {
    guard("frame", "framing_has_not_become_dearer", LINES, || {
        let chunk = chunk(&LogTypes::load(None).unwrap());
        Box::new(move || {
            let encoded = frame::encode(&chunk, Compression::None, None).unwrap();
            let bytes = Bytes::from([&encoded.header[..], &encoded.payload].concat());
            assert_eq!(frame::parse(bytes).unwrap().num_lines as usize, LINES);
        })
    });
}

#[test]
fn copy_encoding_has_not_become_dearer() {
    guard("copy", "copy_encoding_has_not_become_dearer", LINES, || {
        let types = LogTypes::load(None).unwrap();
        let decoded = Decoder::new(&types).decode(&chunk(&types));
        let mut out = Vec::with_capacity(16 << 20);
        Box::new(move || {
            let mut num_rows = 0;
            for of_type in &decoded.types {
                let pg_types =
                    of_type.table.postgres_types.iter().map(|name| PgType::from_name(name).unwrap());
                let columns: Vec<(PgType, &ArrayRef)> = pg_types.zip(of_type.batch.columns()).collect();
                let encoder = CopyEncoder::try_new(&columns).unwrap();
                encoder.encode_rows(Rows::Run(0..encoder.num_rows()), &mut out);
                num_rows += encoder.num_rows();
            }
            assert_eq!(num_rows, LINES);
        })
    });
}

#[test]
fn updating_windows_has_not_become_dearer() {
    guard("window", "updating_windows_has_not_become_dearer", EVENTS, || {
        let events: Vec<Event> = (0..EVENTS)
            .map(|number| Event {
                user_id: format!("user-{}", number * 7919 % 5000),
                event_type: ["click", "view", "login", "purchase"][number % 4].to_owned(),
                value: number as f64 / 8.0,
                // a window each 2,000 events
                timestamp_micros: number as i64 * 30_000,
                metadata: None,
            })
            .collect();
        let mut windows = Windows::new(Settings::default());
        Box::new(move || {
            let now = EVENTS as i64 * 30_000;
            for some in events.chunks(500) {
                for event in some {
                    windows.add(event, now);
                }
                windows.commit(now);
            }
        })
    });
}

type Work = Box<dyn FnMut()>;

/// Compares what `prepare` returns; what it does itself does not count. `per` of what is worked on, for people.
fn guard(name: &str, test: &str, per: usize, prepare: impl FnOnce() -> Work) {
    if std::env::var_os(COUNTED).is_some() {
        return counted(&mut *prepare());
    }
    let count = count(test);
    let records = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/instructions.json");
    let read = || -> BTreeMap<String, u64> {
        serde_json::from_slice(&std::fs::read(&records).unwrap_or(b"{}".to_vec())).unwrap()
    };
    println!("{name}: {count} instructions, {} each", count / per as u64);
    #[cfg(target_arch = "x86_64")]
    let is_comparable = std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    let is_comparable = false;
    if !is_comparable {
        return println!("{name} is not compared: this processor has other instructions than the record's");
    }
    if std::env::var("PIPELINE_INSTRUCTIONS").is_ok_and(|value| value == "write") {
        static WRITING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = WRITING.lock().unwrap();
        let mut all = read();
        all.insert(name.to_owned(), count);
        std::fs::write(&records, serde_json::to_string_pretty(&all).unwrap() + "\n").unwrap();
        return;
    }
    let record = read().get(name).copied();
    let record =
        record.unwrap_or_else(|| panic!("{name} has no record; run with PIPELINE_INSTRUCTIONS=write"));
    assert!(
        count as f64 <= record as f64 * MAX_GROWTH,
        "{name} takes {count} instructions, recorded are {record}: {:+.1} %; find the cause, or record it with \
         PIPELINE_INSTRUCTIONS=write",
        (count as f64 / record as f64 - 1.0) * 100.0
    );
}

/// Instructions within [`counted`] when the test runs below valgrind.
fn count(test: &str) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("callgrind");
    let ended = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*instructions::counted*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("instructions::{test}"), "--test-threads=1"])
        .env(COUNTED, "1")
        .output()
        .expect("valgrind has to be installed: apt-get install valgrind");
    let text = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{text}{}", String::from_utf8_lossy(&ended.stdout));
    let written = std::fs::read_to_string(out).unwrap();
    let total = written.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = total.and_then(|total| total.trim().parse().ok()).unwrap_or(0);
    assert!(total > 0, "nothing was counted: {text}");
    total
}

#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
}

/// Lines of all built-in types.
fn chunk(types: &LogTypes) -> RawChunk {
    let line_type = |name: &str| LineType::of(types.get(name).unwrap()).unwrap().unwrap();
    let line_types = ["firewall", "dns", "auth"].map(line_type);
    let mut generator = Generator::try_new(&line_types, 42).unwrap();
    let mut bytes = Vec::new();
    (0..LINES).for_each(|_| generator.next_line(&mut bytes));
    let path = "counted".to_owned();
    let source = Source { id: 0, path, device: 0, inode: 0, generation: 0, head_len_bytes: 0, head_hash: 0 };
    RawChunk {
        source: Arc::new(source),
        first_byte: 0,
        bytes: bytes.into(),
        content_sha256: [0; 32],
        reference_time: 0,
        piece: None,
        open: false,
    }
}
