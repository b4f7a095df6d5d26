//! One value: text -> number, address, truth, time.
//!
//! Every function returns the value and whether it renders back to exactly the text it was read from.
//! Spaces around a value do not count against it, but are not exact.
use std::io::Write;
use std::net::IpAddr;
use std::str::FromStr;

use crate::log_type::timestamp;

/// A decimal integer of at most `max`, at `bytes[start..][..len_bytes]`; negative ones only if `signed`.
#[inline(always)]
pub(super) fn integer(
    bytes: &[u8],
    start: usize,
    len_bytes: usize,
    max: u64,
    signed: bool,
) -> Option<(i64, bool)> {
    match short_digits(bytes, start, len_bytes) {
        Some(value) if value <= max => Some((value as i64, true)),
        _ => integer_slowly(&bytes[start..][..len_bytes], max, signed),
    }
}

/// One to eight digits without a zero before them, all at once: each byte pair, then each two, then each four are
/// added up (Daniel Lemire, "Quickly parsing eight digits", 2018). The load takes in what stands before the number,
/// which is then masked: cheaper than a copy of odd length.
#[inline(always)]
fn short_digits(bytes: &[u8], start: usize, len_bytes: usize) -> Option<u64> {
    let (is_number, smallest) = *SHORT.get(len_bytes)?;
    // far behind the end where there are fewer bytes before it
    let before = bytes.get((start + len_bytes).wrapping_sub(8)..)?.first_chunk()?;
    let digits = (u64::from_le_bytes(*before) ^ 0x3030_3030_3030_3030) & is_number;
    // one above 9 carries into the high bit, or has it
    if (digits | digits.wrapping_add(0x7676_7676_7676_7676)) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    let value = fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff;
    (value >= smallest).then_some(value)
}

/// By number of digits: which bytes of eight they are if they end there, and the smallest number that has so many.
const SHORT: [(u64, u64); 9] = {
    let mut short = [(0, u64::MAX); 9];
    let mut len_bytes = 1;
    while len_bytes < 9 {
        let smallest = if len_bytes == 1 { 0 } else { 10u64.pow(len_bytes as u32 - 1) };
        short[len_bytes] = (u64::MAX << (64 - 8 * len_bytes), smallest);
        len_bytes += 1;
    }
    short
};

#[cold]
fn integer_slowly(text: &[u8], max: u64, signed: bool) -> Option<(i64, bool)> {
    let trimmed = text.trim_ascii();
    let (negative, digits) = match trimmed {
        [b'-', digits @ ..] if signed => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let magnitude = digits.iter().try_fold(0u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })?;
    let value = match negative {
        false => (magnitude <= max).then_some(magnitude as i64)?,
        true => 0i64.checked_sub_unsigned(magnitude)?,
    };
    Some((value, same(text, &value)))
}

/// A finite number.
pub(super) fn float(text: &[u8]) -> Option<(f64, bool)> {
    let trimmed = std::str::from_utf8(text).ok()?.trim_ascii();
    // std also reads "inf", "infinity" and "nan"
    let value = f64::from_str(trimmed).ok().filter(|value| value.is_finite())?;
    Some((value, same(text, &value)))
}

/// `true` or `false`, in the spellings that logs use.
pub(super) fn boolean(text: &[u8]) -> Option<(bool, bool)> {
    let value = match text.trim_ascii().to_ascii_lowercase().as_slice() {
        b"true" | b"t" | b"yes" | b"y" | b"1" => true,
        b"false" | b"f" | b"no" | b"n" | b"0" => false,
        _ => return None,
    };
    Some((value, same(text, &value)))
}

/// An address; appends its canonical text to `out`.
pub(super) fn address(text: &[u8], out: &mut Vec<u8>) -> Option<bool> {
    let trimmed = text.trim_ascii();
    if is_canonical_v4(trimmed) {
        out.extend_from_slice(trimmed);
        return Some(trimmed.len() == text.len());
    }
    let address = IpAddr::from_str(std::str::from_utf8(trimmed).ok()?).ok()?;
    let before = out.len();
    // writing to memory cannot fail
    let _infallible = write!(out, "{address}");
    Some(out[before..] == *text)
}

/// `a.b.c.d` without leading zeros.
fn is_canonical_v4(text: &[u8]) -> bool {
    // the octet so far, the number of its digits, and the octets before it
    let (mut value, mut digits, mut octets) = (0u32, 0, 0);
    for byte in text {
        match byte {
            b'.' if digits > 0 => (value, digits, octets) = (0, 0, octets + 1),
            // no digit follows a leading zero
            b'0'..=b'9' if digits == 0 || value > 0 => {
                value = value * 10 + u32::from(byte - b'0');
                digits += 1;
                if value > 255 {
                    return false;
                }
            }
            _ => return false,
        }
    }
    octets == 3 && digits > 0
}

/// A point in time of a column that is not the event time: microseconds.
pub(super) fn time(text: &[u8], reference_time: i64, parser: &mut timestamp::Parser) -> Option<(i64, bool)> {
    let trimmed = text.trim_ascii();
    let read = parser.parse(trimmed, reference_time).filter(|read| read.len_bytes == trimmed.len())?;
    let mut plain = Vec::with_capacity(32);
    timestamp::render_plain(read.micros, &mut plain);
    Some((read.micros, plain == text))
}

/// Whether text is one JSON value, which a Postgres `jsonb` can hold too (no `\u0000`). It is built, not skimmed:
/// skimming takes half a surrogate pair, numbers beyond any range and any depth, which a database then refuses.
pub(super) fn is_json(text: &[u8]) -> bool {
    let valid = serde_json::from_slice::<serde_json::Value>(text).is_ok();
    valid && memchr::memmem::find(text, b"\\u0000").is_none()
}

fn same(text: &[u8], value: &impl std::fmt::Display) -> bool {
    // the longest f64 in decimal notation has 1 + 17 + 308 digits
    let mut buffer = [0; 352];
    let mut rest = &mut buffer[..];
    let written = write!(rest, "{value}").map(|()| 352 - rest.len());
    written.is_ok_and(|len_bytes| buffer[..len_bytes] == *text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers() {
        for (text, max, signed, expected) in [
            ("0", 255, false, Some((0, true))),
            ("255", 255, false, Some((255, true))),
            ("256", 255, false, None),
            ("65535", 65535, false, Some((65535, true))),
            ("00080", 65535, false, Some((80, false))),
            ("+80", 65535, false, Some((80, false))),
            (" 80 ", 65535, false, Some((80, false))),
            ("-1", 65535, false, None),
            ("-1", i64::MAX as u64, true, Some((-1, true))),
            ("-0", i64::MAX as u64, true, Some((0, false))),
            ("9223372036854775807", i64::MAX as u64, false, Some((i64::MAX, true))),
            ("9223372036854775808", i64::MAX as u64, false, None),
            ("-9223372036854775808", i64::MAX as u64, true, Some((i64::MIN, true))),
            ("99999999999999999999999", i64::MAX as u64, false, None),
            ("", 255, false, None),
            ("-", i64::MAX as u64, true, None),
            ("1x", 255, false, None),
            ("1 2", 255, false, None),
            ("1:", 255, false, None),
            ("1/", 255, false, None),
            ("0x10", 255, false, None),
        ] {
            // with room before it, and without
            for before in ["", "12345678"] {
                let bytes = [before, text].concat().into_bytes();
                let read = integer(&bytes, before.len(), text.len(), max, signed);
                assert_eq!(read, expected, "{text:?}");
            }
        }
    }

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("192.168.1.1", Some(("192.168.1.1", true))),
            ("0.0.0.0", Some(("0.0.0.0", true))),
            (" 10.0.0.1", Some(("10.0.0.1", false))),
            ("2001:DB8::1", Some(("2001:db8::1", false))),
            ("2001:db8:0:0:0:0:0:1", Some(("2001:db8::1", false))),
            ("::1", Some(("::1", true))),
            ("::ffff:10.0.0.1", Some(("::ffff:10.0.0.1", true))),
            ("256.0.0.1", None),
            ("010.0.0.1", None),
            ("1.2.3", None),
            ("1.2.3.4.5", None),
            ("1..3.4", None),
            ("", None),
            ("fe80::1%eth0", None),
            ("unknown", None),
        ] {
            let mut out = Vec::new();
            let read =
                address(text.as_bytes(), &mut out).map(|exact| (String::from_utf8(out).unwrap(), exact));
            assert_eq!(read, expected.map(|(text, exact)| (text.to_owned(), exact)), "{text:?}");
        }
    }

    #[test]
    fn floats_booleans_and_json() {
        assert_eq!(float(b"1.5"), Some((1.5, true)));
        assert_eq!(float(b"1.50"), Some((1.5, false)));
        assert_eq!(float(b"1e3"), Some((1000.0, false)));
        assert_eq!(float(b"-0"), Some((-0.0, true)));
        assert_eq!((float(b"nan"), float(b"inf"), float(b""), float(b"1e999")), (None, None, None, None));
        assert_eq!(boolean(b"true"), Some((true, true)));
        assert_eq!(boolean(b"No"), Some((false, false)));
        assert_eq!(boolean(b"maybe"), None);
        assert!(is_json(b"{\"a\": [1, null]}") && is_json(b"\"x\""));
        assert!(!is_json(b"\"\\ud800\"") && !is_json(b"1e999") && !is_json(&[b'['; 100_000]));
        assert!(!is_json(b"{a}") && !is_json(b"") && !is_json(b"1 2") && !is_json(b"\"\\u0000\""));
    }

    proptest! {
        #[test]
        fn what_is_exact_renders_to_its_text(text in "[-+ ]?[0-9.:a-f]{0,12}") {
            let bytes = text.as_bytes();
            let padded = [b"dst_port=", bytes].concat();
            if let Some((value, exact)) = integer(&padded, 9, bytes.len(), i64::MAX as u64, true) {
                prop_assert_eq!(exact, value.to_string() == text);
                prop_assert_eq!(Some(value), text.trim().parse::<i64>().ok());
            } else {
                prop_assert!(text.trim().parse::<i64>().is_err());
            }
            let mut out = Vec::new();
            match (address(bytes, &mut out), text.trim().parse::<IpAddr>()) {
                (Some(exact), Ok(address)) => {
                    prop_assert_eq!(&out, &address.to_string().into_bytes());
                    prop_assert_eq!(exact, out == bytes);
                }
                (read, parsed) => prop_assert!(read.is_none() && parsed.is_err(), "{read:?} {parsed:?}"),
            }
        }
    }
}
