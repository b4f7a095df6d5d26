//! Nouns that cross a border between modules: source, chunk, decoded batch, reject, ledger, receipt,
//! event, aggregate of a window.
//!
//! Deliberately absent: behaviour. Nothing here reads, writes or decides.
mod chunk;
mod day;
mod event;
mod ledger;

pub use chunk::{
    Blank, DecodedBatch, LineEnding, Piece, RawChunk, Reject, RejectReason, Table, TypeBatch, chunk_id,
};
pub use day::{FIRST_DAY, FUTURE_DAYS, MAX_NEW_DAYS, MICROS_PER_DAY};
pub use event::{Event, WindowRow};
pub use ledger::{ByteRange, ChunkRecord, CommitReceipt, KnownSource, Ledger, Source, TypeRows};
