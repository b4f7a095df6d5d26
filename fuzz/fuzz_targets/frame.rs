//! Any bytes as a frame: no panic, and what is taken for a frame is one that can be written again.
//! Inputs are also tried with a checksum made right, which no fuzzer finds.
#![no_main]
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pipeline::transport::frame::{self, Compression};

const CHECKSUM_BYTES: usize = 4;

fuzz_target!(|input: &[u8]| {
    check(Bytes::copy_from_slice(input));
    if let Some(frame) = with_right_checksum(input) {
        check(frame.into());
    }
});

fn check(bytes: Bytes) {
    let Ok(parsed) = frame::parse(bytes) else { return };
    let again = frame::encode(&parsed.chunk, Compression::Lz4, parsed.trace.as_ref()).expect("it did fit");
    let again = frame::parse([again.header, again.payload].concat().into()).expect("it was just written");
    assert_eq!(format!("{:?}", again.chunk), format!("{:?}", parsed.chunk));
    assert_eq!(again.trace, parsed.trace);
}

/// Magic and version too.
fn with_right_checksum(input: &[u8]) -> Option<Vec<u8>> {
    let mut frame = input.to_vec();
    frame.get_mut(..5)?.copy_from_slice(b"PLFR\x01");
    let header_len = u32::from_le_bytes(frame.get(8..12)?.try_into().ok()?) as usize;
    let end = header_len.checked_sub(CHECKSUM_BYTES)?;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(frame.get(..end)?), frame.get(header_len..)?);
    frame[end..header_len].copy_from_slice(&checksum.to_le_bytes());
    Some(frame)
}
