//! Names in Redis: the keys of one stream, all in the same slot of a cluster, the streams of a queue that is spread
//! over a cluster, and ids of stream entries.
use std::collections::BTreeMap;
use std::fmt;

use super::super::TransportError;

/// The consumer group of all processors.
pub(super) const GROUP: &str = "processors";
/// The one field of an entry.
pub(super) const FRAME: &str = "frame";

/// Streams of a queue in a cluster, each in another sixteenth of the slots, which nodes have in runs: so that any
/// number of nodes up to about this share the load.
const SHARDS: u16 = 16;
const SLOTS: u16 = 16_384;

/// The keys of one stream. All but the dead letters are used together in scripts.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// Frames that are not acknowledged.
    pub(super) stream: String,
    /// Entries that are no frames, of all shards. Its name is a contract, so it may live in another slot.
    pub(super) dead: String,
    /// Bytes in the stream, and those that a producer is about to add.
    pub(super) bytes: String,
    /// What became of frames.
    pub(super) reports: String,
    /// Reply keys of readers that ask for the ledger: the queue's, not the shard's.
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

    /// The streams of this queue in a cluster: its own, and one for each other part of the slots. The names are the
    /// same for everybody, whatever nodes there are. Whoever gave the name a `{tag}` chose the slot.
    pub(super) fn shards(&self) -> Vec<Self> {
        if self.stream.contains('{') {
            return vec![self.clone()];
        }
        let part = |stream: &str| slot(stream) / (SLOTS / SHARDS);
        let mut shards = BTreeMap::from([(part(&self.stream), self.clone())]);
        for number in 1_u32.. {
            let stream = format!("{}:shard:{number}", self.stream);
            shards.entry(part(&stream)).or_insert_with(|| Self {
                bytes: format!("{{{stream}}}:bytes"),
                reports: format!("{{{stream}}}:reports"),
                dead: self.dead.clone(),
                requests: self.requests.clone(),
                stream,
            });
            if shards.len() == usize::from(SHARDS) {
                break;
            }
        }
        shards.into_values().collect()
    }

    /// Where one reader waits for the ledger.
    pub(super) fn reply(&self, unique: &str) -> String {
        format!("{}:{unique}", self.requests)
    }
}

/// The slot of a key without a tag, as the cluster's specification has it: CRC-16/XMODEM.
fn slot(key: &str) -> u16 {
    let byte = |crc: u16, byte: u8| {
        let bit = |crc: u16, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        (0..8).fold(crc ^ (u16::from(byte) << 8), bit)
    };
    key.bytes().fold(0, byte) % SLOTS
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
    fn a_queue_has_one_stream_in_each_part_of_a_clusters_slots() {
        // the specification's example
        assert_eq!(slot("123456789"), 0x31c3);
        let keys = Keys::try_new("log_queue").unwrap();
        let shards = keys.shards();
        let parts: Vec<_> = shards.iter().map(|shard| slot(&shard.stream) / (SLOTS / SHARDS)).collect();
        assert_eq!(parts, (0..SHARDS).collect::<Vec<_>>());
        assert!(shards.iter().any(|shard| shard.bytes == keys.bytes));
        assert!(shards.iter().all(|shard| shard.dead == keys.dead && shard.requests == keys.requests));
        assert!(shards.iter().all(|shard| shard.reports == format!("{{{}}}:reports", shard.stream)));
        // a contract between readers and processors
        let names: Vec<_> = shards.iter().map(|shard| shard.stream.replace("log_queue", "")).collect();
        assert_eq!(
            names.join(" "),
            ":shard:60 :shard:42 :shard:11 :shard:4 :shard:61 :shard:43 :shard:10 :shard:1 :shard:62 :shard:40 :shard:13 :shard:2 :shard:63  :shard:12 :shard:3"
        );
        assert_eq!(Keys::try_new("{site}logs").unwrap().shards().len(), 1);
    }

    #[test]
    fn entry_ids_are_ordered_by_number_not_by_text() {
        let id = |text: &str| EntryId::parse(text.as_bytes()).unwrap();
        assert!(id("9-1") < id("10-0") && id("10-9") < id("10-10"));
        assert_eq!(id("1700000000000-3").to_string(), "1700000000000-3");
        assert_eq!(EntryId::parse(b"1700000000000"), None);
    }
}
