//! Names in Redis: the keys of one stream, all in the same slot of a cluster, and ids of stream entries.
use std::fmt;

use super::super::TransportError;

/// The consumer group of all processors.
pub(super) const GROUP: &str = "processors";
/// The one field of an entry.
pub(super) const FRAME: &str = "frame";

/// The keys of one stream. All but the dead letters are used together in scripts.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// Frames that are not acknowledged.
    pub(super) stream: String,
    /// Entries that are no frames. Its name is a contract, so it may live in another slot.
    pub(super) dead: String,
    /// Bytes in the stream, and those that a producer is about to add.
    pub(super) bytes: String,
    /// What became of frames.
    pub(super) reports: String,
    /// Reply keys of readers that ask for the ledger.
    pub(super) requests: String,
}

impl Keys {
    pub(super) fn try_new(stream: &str) -> Result<Self, TransportError> {
        // as the cluster does: what is between the first { and the next } counts, unless that is nothing
        let tag = stream.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
        let prefix = match tag {
            Some(tag) if !tag.is_empty() => stream.to_owned(),
            None if !stream.is_empty() && !stream.contains('}') => format!("{{{stream}}}"),
            _ => return Err(TransportError::StreamName(stream.to_owned())),
        };
        Ok(Self {
            stream: stream.to_owned(),
            dead: format!("{stream}:dead"),
            bytes: format!("{prefix}:bytes"),
            reports: format!("{prefix}:reports"),
            requests: format!("{prefix}:ledger"),
        })
    }

    /// Where one reader waits for the ledger.
    pub(super) fn reply(&self, unique: &str) -> String {
        format!("{}:{unique}", self.requests)
    }
}

/// Id of a stream entry: milliseconds since the epoch, and a number within them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) struct EntryId(u64, u64);

impl EntryId {
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let (time, number) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self(time.parse().ok()?, number.parse().ok()?))
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_share_the_slot_of_their_stream() {
        let keys = Keys::try_new("log_queue").unwrap();
        assert_eq!((keys.bytes.as_str(), keys.dead.as_str()), ("{log_queue}:bytes", "log_queue:dead"));
        assert_eq!(Keys::try_new("{site}logs").unwrap().reports, "{site}logs:reports");
        for name in ["", "a}b", "{}a"] {
            assert!(matches!(Keys::try_new(name), Err(TransportError::StreamName(_))), "{name}");
        }
    }

    #[test]
    fn entry_ids_are_ordered_by_number_not_by_text() {
        let id = |text: &str| EntryId::parse(text.as_bytes()).unwrap();
        assert!(id("9-1") < id("10-0") && id("10-9") < id("10-10"));
        assert_eq!(id("1700000000000-3").to_string(), "1700000000000-3");
        assert_eq!(EntryId::parse(b"1700000000000"), None);
    }
}
