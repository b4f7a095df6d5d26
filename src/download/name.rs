//! Names of files, out of URLs and manifests that anybody may have written.
//!
//! Invariant: a safe name is one component of plain characters that no file system reads in two ways: no separator,
//! no leading dot, not empty, short enough for every file system with what is added to it.
use url::Url;

/// Room is left for a key before it and `.part` behind it within 255 bytes.
const MAX_BYTES: usize = 120;

/// The name without what could lead elsewhere: the last component, other characters than letters, digits, `.`, `-` and
/// `_` replaced by `_`.
#[must_use]
pub fn safe_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).find(|part| !part.trim_matches('.').is_empty()).unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' };
    let mut safe: String = last.chars().map(plain).collect();
    let start = safe.find(|c: char| c != '.').unwrap_or(safe.len());
    safe.drain(..start);
    if safe.len() > MAX_BYTES {
        // the end says what it is: .log.gz
        safe.drain(..safe.len() - MAX_BYTES);
        let start = safe.find(|c: char| c != '.').unwrap_or(safe.len());
        safe.drain(..start);
    }
    if safe.is_empty() { "file".to_owned() } else { safe }
}

/// The path's last component without its last extension; the host's name where there is none.
pub(super) fn stem(url: &Url) -> String {
    let segment = decoded_segment(url);
    match segment.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() && segment_of(url).is_some() => stem.to_owned(),
        _ => segment,
    }
}

/// The path's last component, decoded; the host's name where there is none.
pub(super) fn decoded_segment(url: &Url) -> String {
    match segment_of(url) {
        Some(segment) => percent_decoded(segment),
        None => url.host_str().unwrap_or("file").to_owned(),
    }
}

fn segment_of(url: &Url) -> Option<&str> {
    url.path_segments()?.rev().find(|segment| !segment.is_empty())
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_safe_name_is_one_component_whatever_was_given() {
        for (given, safe) in [
            ("app.log.gz", "app.log.gz"),
            ("../../etc/passwd", "passwd"),
            ("..", "file"),
            ("", "file"),
            ("/", "file"),
            ("a/..", "a"),
            ("..\\..\\x", "x"),
            (".hidden", "hidden"),
            ("a b\n\0c", "a_b__c"),
            ("日本.log", "__.log"),
        ] {
            assert_eq!(safe_name(given), safe, "{given:?}");
        }
        let long = safe_name(&format!("{}.log.gz", "x".repeat(5000)));
        assert!(long.len() <= MAX_BYTES && long.ends_with(".log.gz"));
    }

    #[test]
    fn what_a_url_encodes_is_decoded_before_it_is_made_safe() {
        for (url, name) in [
            ("http://h/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "passwd"),
            ("http://h/a/b.log/", "b.log"),
            ("http://h", "h"),
            ("http://h/%zz", "_zz"),
        ] {
            assert_eq!(safe_name(&decoded_segment(&Url::parse(url).unwrap())), name, "{url}");
        }
    }
}
