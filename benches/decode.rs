//! Decode against the bare newline scan of the same bytes, one core, interleaved in one run.
//!
//! `cargo bench --bench decode` prints the median time of each and the median of the ratios, round by round;
//! `-- --lines N` and `-- --rounds N` change the size. Firewall lines are decoded by a decoder written by hand, too: the
//! last line says how many times its time the template program takes, for the same columns. No time is asserted: machines
//! differ.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people")]
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use pipeline::decode::Decoder;
use pipeline::generate::{Generator, LineType};
use pipeline::log_type::LogTypes;
use pipeline::model::{RawChunk, Source};

#[path = "decode/hand_written.rs"]
mod hand_written;

const CHUNK_BYTES: usize = 1 << 20;

fn main() {
    let num_lines = argument("--lines").unwrap_or(400_000);
    let rounds = argument("--rounds").unwrap_or(15);
    let types = LogTypes::load(None).unwrap();
    for names in [&["firewall", "dns", "auth"][..], &["firewall"], &["dns"], &["auth"]] {
        let chunks = chunks(&standard_lines(&types, names, num_lines));
        let num_bytes: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        let mut decoder = Decoder::new(&types);
        let (mut scans, mut decodes, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let scan = seconds(|| {
                chunks.iter().map(|chunk| memchr::memchr_iter(b'\n', &chunk.bytes).count()).sum::<usize>()
            });
            let decode = seconds(|| {
                chunks
                    .iter()
                    .map(|chunk| black_box(decoder.decode(chunk)).record.num_rows as usize)
                    .sum::<usize>()
            });
            scans.push(scan);
            decodes.push(decode);
            ratios.push(decode / scan);
        }
        let rate = |seconds: f64| num_bytes as f64 / seconds / 1e9;
        println!(
            "{:<18} newline scan {:6.2} GB/s   decode {:6.3} GB/s   ratio {:6.2}",
            names.join("+"),
            rate(median(&mut scans)),
            rate(median(&mut decodes)),
            median(&mut ratios)
        );
    }
    compare_with_hand_written(&types, num_lines, rounds);
}

fn compare_with_hand_written(types: &LogTypes, num_lines: usize, rounds: usize) {
    let chunks = chunks(&standard_lines(types, &["firewall"], num_lines));
    let schema = &types.get("firewall").unwrap().table.schema;
    let mut decoder = Decoder::new(types);
    for chunk in &chunks {
        let expected = hand_written::decode(chunk, schema).unwrap();
        assert_eq!(decoder.decode(chunk).types[0].batch, expected, "both decoders give the same rows");
    }
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let by_hand = seconds(|| {
            let num_rows = |chunk| black_box(hand_written::decode(chunk, schema)).unwrap().num_rows();
            chunks.iter().map(num_rows).sum()
        });
        let decode = seconds(|| {
            chunks.iter().map(|chunk| black_box(decoder.decode(chunk)).record.num_rows as usize).sum()
        });
        ratios.push(decode / by_hand);
    }
    println!("firewall against a decoder written by hand: {:.2} x its time", median(&mut ratios));
}

fn argument(name: &str) -> Option<usize> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)?.parse().ok()
}

fn standard_lines(types: &LogTypes, names: &[&str], num_lines: usize) -> Vec<u8> {
    let line_type = |name: &&str| LineType::of(types.get(name).unwrap()).unwrap().unwrap();
    let line_types: Vec<_> = names.iter().map(line_type).collect();
    let mut generator = Generator::try_new(&line_types, 42).unwrap();
    let mut out = Vec::new();
    (0..num_lines).for_each(|_| generator.next_line(&mut out));
    out
}

fn chunks(bytes: &[u8]) -> Vec<RawChunk> {
    let path = "bench".to_owned();
    let source = Source { id: 0, path, device: 0, inode: 0, generation: 0, head_len_bytes: 0, head_hash: 0 };
    let source = Arc::new(source);
    let mut chunks = Vec::new();
    let mut start = 0;
    while start < bytes.len() {
        let limit = bytes.len().min(start + CHUNK_BYTES);
        let end = memchr::memchr(b'\n', &bytes[limit - 1..]).map_or(bytes.len(), |at| limit + at);
        chunks.push(RawChunk {
            source: Arc::clone(&source),
            first_byte: start as u64,
            bytes: Bytes::copy_from_slice(&bytes[start..end]),
            content_sha256: [0; 32],
            reference_time: 0,
            piece: None,
            open: false,
        });
        start = end;
    }
    chunks
}

fn seconds(work: impl FnOnce() -> usize) -> f64 {
    let started = Instant::now();
    black_box(work());
    started.elapsed().as_secs_f64()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
