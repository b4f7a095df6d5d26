//! Names of data files, which say what is in them.
//!
//! ```text
//! part-<16 hex digits>-<SHA-256 of the file, base64url without padding>.parquet
//!       11 of milliseconds, 5 random ones
//! ```
//!
//! The name is in the commit that adds the file, in the log and in its checkpoints, so the hash is kept wherever the
//! file is and costs no column. The digits in front keep two writers of the same rows apart, for one of them will
//! remove its file; and they put files in the order of their writing. Anyone can check a file:
//! `openssl dgst -sha256 -binary FILE | basenc --base64url`.
use chrono::Utc;
use sha2::{Digest, Sha256};
use uuid::Uuid;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Digits before the hash.
const PREFIX_LEN: usize = 16;
/// 32 bytes in base64url.
const HASH_LEN: usize = 43;

/// A name for a file with this content, no other file's.
pub(super) fn data_file_name(content: Sha256) -> String {
    let (millis, random) = (Utc::now().timestamp_millis(), Uuid::new_v4().as_u128() & 0xf_ffff);
    format!("part-{millis:011x}{random:05x}-{}.parquet", base64url(&content.finalize()))
}

/// The hash that the file at `path` must have, as [`base64url`] writes it; `None` where another program named it.
pub(super) fn hash_in_name(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?.strip_prefix("part-")?.strip_suffix(".parquet")?;
    let (prefix, hash) = (name.get(..PREFIX_LEN)?, name.get(PREFIX_LEN + 1..)?);
    let is_ours = prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) && hash.len() == HASH_LEN;
    (is_ours && name.as_bytes()[PREFIX_LEN] == b'-').then_some(hash)
}

/// Without padding.
pub(super) fn base64url(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word =
            group.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for position in 0..=group.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * position)) as usize & 63]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_is_what_rfc_4648_says() {
        for (bytes, text) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")] {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn a_name_says_the_hash_and_is_never_given_twice() {
        let names = [b"a", b"a", b"b"].map(|bytes| data_file_name(Sha256::new_with_prefix(bytes)));
        let hashes = names.each_ref().map(|name| hash_in_name(name).unwrap());
        assert_eq!(hashes[0], base64url(&Sha256::digest(b"a")));
        assert_eq!(hashes[0], hashes[1]);
        assert!(hashes[1] != hashes[2] && names[0] != names[1]);
        assert_eq!(hash_in_name("t/day=2024-01-15/part-00000-c000.snappy.parquet"), None);
        assert_eq!(hash_in_name("t/part-0193b7c2e6a97f00b5d2000000000000.parquet"), None);
    }
}
