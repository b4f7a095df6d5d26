//! A place that keeps a part of every chunk, while other places keep the others.
//!
//! Invariants: what a place holds already is the part that it is to have, and what it lacks is decoded as the parts
//! elsewhere were, with the very log types. Otherwise a line could be in no place, or in two: that is an error before
//! anything is stored. Deliberately absent: who has which part (`cli`).
use std::collections::BTreeSet;

use async_trait::async_trait;
use thiserror::Error;

use super::{Sink, SinkError};
use crate::ledger::{Share, Split};
use crate::model::{ByteRange, ChunkRecord, CommitReceipt, DecodedBatch, Ledger};

/// Why parts would not make a whole.
#[derive(Debug, Error)]
pub enum PartError {
    /// Chunks were split in another way.
    #[error(
        "{place} holds chunks {}; give the #types= that it was written with, or write the new split to other places or \
         another --schema (if two --into are the same place, name it once)",
        if *.is_here { format!("with their {table}, which are now to go elsewhere") }
        else { format!("whose {table} went elsewhere, and is now to have them") }
    )]
    OtherSplit {
        /// Where.
        place: String,
        /// What is to be there and is not, or the reverse.
        table: String,
        /// Which of both.
        is_here: bool,
    },
    /// Another place holds its part as other log types gave it.
    #[error(
        "{place} holds its part of bytes {} to {} of {file}, decoded with other log types than there are now, and {lacks} \
         lacks the rest; run once with the log types of then, to its end, before they are changed",
        .range.first_byte, .range.end_byte
    )]
    OtherTypes {
        /// Where.
        place: String,
        /// The place that lacks its part.
        lacks: String,
        /// The source.
        file: String,
        /// The chunk.
        range: ByteRange,
    },
}

/// An error if a place that is to keep `share` was written with another split.
pub fn expect_share(sink: &dyn Sink, share: &Share) -> Result<(), PartError> {
    sink.splits().iter().try_for_each(|split| is_of(share, split, sink.name()))
}

fn is_of(share: &Share, split: &Split, place: &str) -> Result<(), PartError> {
    match share.disagreement(split) {
        None => Ok(()),
        Some((table, is_here)) => Err(PartError::OtherSplit { place: place.to_owned(), table, is_here }),
    }
}

/// The entries of a chunk that places hold which have a part of it, while the sinks at the positions `lacking` are to
/// have theirs; an error if it was decoded otherwise than it would be now.
pub async fn parts_held(
    sinks: &mut [Box<dyn Sink>],
    range: &ByteRange,
    lacking: &[usize],
) -> Result<Vec<ChunkRecord>, SinkError> {
    let holds = |position: usize, sink: &dyn Sink| !lacking.contains(&position) && sink.share().is_some();
    let mut parts = Vec::new();
    if !sinks.iter().enumerate().any(|(position, sink)| holds(position, &**sink)) {
        return Ok(parts);
    }
    let lacks = lacking.iter().find_map(|position| {
        let sink = &sinks[*position];
        Some((sink.name().to_owned(), sink.share()?.clone()))
    });
    let Some((lacks, share)) = lacks else { return Ok(parts) };
    for (position, sink) in sinks.iter_mut().enumerate() {
        if !holds(position, &**sink) {
            continue;
        }
        for record in sink.entries(range).await? {
            // of what a place holds whole nothing is missing, whatever it was decoded with
            if record.is_part() && !share.is_decoded_alike(&record) {
                let (place, file) = (sink.name().to_owned(), record.source.path.clone());
                return Err(PartError::OtherTypes { place, lacks, file, range: record.range }.into());
            }
            parts.extend(record.is_part().then_some(record));
        }
    }
    Ok(parts)
}

/// Keeps a part.
pub struct PartSink {
    inner: Box<dyn Sink>,
    share: Share,
}

impl PartSink {
    /// An error if the place was written with another split.
    pub fn try_new(inner: Box<dyn Sink>, share: Share) -> Result<Self, SinkError> {
        expect_share(&*inner, &share)?;
        Ok(Self { inner, share })
    }
}

#[async_trait]
impl Sink for PartSink {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn ledger(&mut self) -> Result<Ledger, SinkError> {
        let ledger = self.inner.ledger().await?;
        expect_share(&*self.inner, &self.share)?;
        Ok(ledger)
    }

    async fn lacking(&mut self, range: &ByteRange) -> Result<Vec<(u64, u64)>, SinkError> {
        let lacking = self.inner.lacking(range).await?;
        if lacking != [(range.first_byte, range.end_byte)] {
            for record in self.inner.entries(range).await?.iter().filter(|record| record.is_part()) {
                is_of(&self.share, &Split::of(record), self.inner.name())?;
            }
        }
        Ok(lacking)
    }

    fn splits(&self) -> &BTreeSet<Split> {
        self.inner.splits()
    }

    async fn entries(&mut self, range: &ByteRange) -> Result<Vec<ChunkRecord>, SinkError> {
        self.inner.entries(range).await
    }

    fn share(&self) -> Option<&Share> {
        Some(&self.share)
    }

    async fn write(&mut self, batch: DecodedBatch) -> Result<CommitReceipt, SinkError> {
        self.inner.write(self.share.keep(batch)).await
    }

    async fn flush(&mut self) -> Result<CommitReceipt, SinkError> {
        self.inner.flush().await
    }

    async fn receipt(&mut self) -> Result<CommitReceipt, SinkError> {
        self.inner.receipt().await
    }

    async fn finish(&mut self) -> Result<(), SinkError> {
        self.inner.finish().await
    }
}
