//! What must hold of any bytes, decoded with any log types.
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int32Type;
use bytes::Bytes;
use pipeline::decode::Decoder;
use pipeline::log_type::LogTypes;
use pipeline::log_type::render::Renderer;
use pipeline::model::{LineEnding, RawChunk, Source};

/// Decodes `bytes` as one chunk: lines = rows + rejects + blanks, each line is there once, and together they
/// give back the bytes.
pub fn check(types: &LogTypes, decoder: &mut Decoder, bytes: &[u8]) {
    let source = Source {
        path: "fuzz".into(),
        device: 0,
        inode: 0,
        generation: 0,
        head_len_bytes: 0,
        head_hash: 0,
        id: 0,
    };
    let decoded = decoder.decode(&RawChunk {
        source: Arc::new(source),
        first_byte: 0,
        bytes: Bytes::copy_from_slice(bytes),
        content_sha256: [0; 32],
        reference_time: 1_717_200_000_000_000,
        piece: None,
        open: false,
    });
    let record = &decoded.record;
    assert_eq!(record.num_lines, record.num_rows + record.num_rejects + record.num_blanks);
    let ending: &[u8] = if record.line_ending == LineEnding::CrLf { b"\r\n" } else { b"\n" };
    let mut lines: BTreeMap<u32, (Vec<u8>, &[u8])> = BTreeMap::new();
    for rows in &decoded.types {
        let log_type = types.get(&rows.table.log_type).expect("rows are of a type that was given");
        let renderer = Renderer::try_new(log_type, &rows.batch).expect("rows have their type's columns");
        let numbers = rows.batch["line"].as_primitive::<Int32Type>();
        for (row, line) in numbers.values().iter().enumerate() {
            let mut text = Vec::new();
            let is_kept = renderer.line(row, &mut text);
            let before = lines.insert(*line as u32, (text, if is_kept { b"\n" } else { ending }));
            assert!(before.is_none(), "line {line} is there twice");
        }
    }
    let rejects = decoded.rejects.iter().map(|reject| (reject.line, reject.span));
    for (line, (start, end)) in rejects.chain(decoded.blanks.iter().map(|blank| (blank.line, blank.span))) {
        let before = lines.insert(line, (bytes[start as usize..end as usize].to_vec(), b"\n"));
        assert!(before.is_none(), "line {line} is there twice");
    }
    assert_eq!(lines.len() as u64, record.num_lines);
    if let Some(mut last) = lines.last_entry()
        && !record.final_newline
    {
        last.get_mut().1 = b"";
    }
    let restored: Vec<u8> =
        lines.values().flat_map(|(text, ending)| text.iter().chain(*ending)).copied().collect();
    assert_eq!(restored.escape_ascii().to_string(), bytes.escape_ascii().to_string());
}
