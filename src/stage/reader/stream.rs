//! Reads standard input or a pipe to its end, cutting what has arrived when it pauses.
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep_until};

use super::{Outcome, ReadOptions, Shipper, SourceRead};
use crate::model::{RawChunk, Source};
use crate::source::{self, Block, Catalogue, Chunker, Cut, End, Input, SourceError};
use crate::telemetry::Metric;
use crate::transport::TransportError;

/// What was read of one stream.
pub(super) struct StreamRead {
    /// Its name, for messages.
    pub(super) path: String,
    /// `None` if no byte came.
    pub(super) read: Option<SourceRead>,
    pub(super) outcome: Outcome,
}

/// Reads to the end. At a shutdown, what was taken from the stream is still shipped: it cannot be had again.
pub(super) async fn read(
    input: &Input,
    options: &ReadOptions,
    catalogue: &mut Catalogue,
    shipper: Shipper<'_>,
) -> Result<StreamRead, TransportError> {
    let (path, name, mut blocks) = match input {
        Input::Pipe(path) => (path.display().to_string(), None, source::read_pipe(path.clone())),
        Input::Stdin | Input::File(..) | Input::Object(_) => {
            ("stdin".to_owned(), options.source_name.as_deref(), source::read_stdin())
        }
    };
    let mut chunker = Chunker::new(options.cut, Vec::new());
    let mut known: Option<(Arc<Source>, SourceRead)> = None;
    let mut pause_at = None;
    loop {
        let event = tokio::select! {
            biased;
            () = shipper.shutdown.requested() => Event::Shutdown,
            block = blocks.recv() => Event::from(block),
            () = sleep_until(pause_at.unwrap_or_else(Instant::now)), if pause_at.is_some() => Event::Pause,
        };
        let (end, outcome) = match event {
            Event::Block(block) => {
                take(&mut chunker, &block);
                (End::More, None)
            }
            Event::Pause => (End::Pause, None),
            Event::End => (End::Final, Some(Outcome::Complete)),
            Event::Failed(error) => (End::Pause, Some(Outcome::Failed(error))),
            Event::Shutdown => {
                while let Ok(Ok(block)) = blocks.try_recv() {
                    take(&mut chunker, &block);
                }
                // a named stream is sent again from its beginning, an unnamed one is gone
                (if name.is_some() { End::Pause } else { End::Final }, Some(Outcome::Interrupted))
            }
        };
        let head_bytes = match end {
            _ if outcome.is_some() => 1,
            End::Pause => catalogue.stream_head_bytes(name).max(1),
            _ => Source::HEAD_BYTES,
        };
        if known.is_none() && chunker.buffered().len() >= head_bytes {
            let (source, committed) = catalogue.resolve_stream(name, &path, chunker.buffered());
            chunker.set_committed(committed);
            let read = SourceRead::new(&source);
            known = Some((source, read));
        }
        if let Some((source, read)) = &mut known {
            while let Some(cut) = chunker.next_cut(end) {
                shipper.ship_even_at_shutdown(&chunk(source, cut), read).await?;
            }
        }
        if let Some(outcome) = outcome {
            return Ok(StreamRead { path, read: known.map(|(_, read)| read), outcome });
        }
        pause_at = match (chunker.buffered().is_empty(), end) {
            (true, _) => None,
            (false, End::More) => pause_at.or_else(|| Some(Instant::now() + options.flush_interval)),
            (false, _) => Some(Instant::now() + options.flush_interval),
        };
    }
}

enum Event {
    Block(Block),
    Pause,
    End,
    Failed(SourceError),
    Shutdown,
}

impl From<Option<Result<Block, SourceError>>> for Event {
    fn from(block: Option<Result<Block, SourceError>>) -> Self {
        match block {
            Some(Ok(block)) => Self::Block(block),
            Some(Err(error)) => Self::Failed(error),
            None => Self::End,
        }
    }
}

fn take(chunker: &mut Chunker, block: &Block) {
    chunker.push(&block.bytes);
    // how long a stream is, is known only as it comes
    Metric::InputBytesTotal.add(block.raw_bytes);
    Metric::InputBytesRead.add(block.raw_bytes);
}

fn chunk(source: &Arc<Source>, cut: Cut) -> RawChunk {
    RawChunk {
        source: Arc::clone(source),
        first_byte: cut.first_byte,
        content_sha256: Sha256::digest(&cut.bytes).into(),
        bytes: cut.bytes,
        reference_time: chrono::Utc::now().timestamp_micros(),
        piece: cut.piece,
        open: cut.open,
    }
}
