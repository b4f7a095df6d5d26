//! Reads standard input or a pipe, on a thread of its own, as blocks.
//!
//! A thread and not a task: a read that waits for a silent writer cannot be taken back, and must hold up
//! neither a shutdown nor the runtime's end. At most [`QUEUE_BLOCKS`] blocks are in memory. Deliberately
//! absent: cutting, which needs a clock for its pauses (`stage::reader`).
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::SourceError;
use super::encoding::Decoded;

const BLOCK_BYTES: usize = 64 << 10;
const QUEUE_BLOCKS: usize = 4;

/// Some bytes of a stream.
#[derive(Debug)]
pub struct Block {
    /// Decompressed.
    pub bytes: Bytes,
    /// How many bytes of the stream, as it comes, they took.
    pub raw_bytes: u64,
}

/// Reads standard input until its end or an error.
pub fn read_stdin() -> mpsc::Receiver<Result<Block, SourceError>> {
    read_stream("standard input".to_owned(), || Ok(Box::new(io::stdin())))
}

/// Reads a named pipe or a device until its end or an error.
pub fn read_pipe(path: PathBuf) -> mpsc::Receiver<Result<Block, SourceError>> {
    // opening a pipe waits for its writer, so it happens on the thread too
    read_stream(path.display().to_string(), move || Ok(Box::new(File::open(path)?)))
}

fn read_stream(
    name: String,
    open: impl FnOnce() -> io::Result<Box<dyn Read + Send>> + Send + 'static,
) -> mpsc::Receiver<Result<Block, SourceError>> {
    let (sender, receiver) = mpsc::channel(QUEUE_BLOCKS);
    let failures = sender.clone();
    let reading = name.clone();
    let thread = std::thread::Builder::new().name("stream".to_owned());
    let started = thread.spawn(move || {
        if let Err(error) = read_blocks(&reading, open, &sender) {
            // nobody waits for it after a shutdown
            let _unheard = sender.blocking_send(Err(error));
        }
    });
    if let Err(error) = started {
        let _unheard = failures.try_send(Err(SourceError::io("start reading", &name, error)));
    }
    receiver
}

fn read_blocks(
    name: &str,
    open: impl FnOnce() -> io::Result<Box<dyn Read + Send>>,
    sender: &mpsc::Sender<Result<Block, SourceError>>,
) -> Result<(), SourceError> {
    let input = open().map_err(|error| SourceError::io("open", name, error))?;
    let mut decoded = Decoded::try_new(input).map_err(|error| SourceError::io("read", name, error))?;
    let (mut buffer, mut raw_bytes_before) = (vec![0; BLOCK_BYTES], 0);
    loop {
        let len = decoded.read(&mut buffer).map_err(|error| decoded.explain(name, error))?;
        let raw_bytes = decoded.raw_bytes();
        let block = Block {
            bytes: Bytes::copy_from_slice(&buffer[..len]),
            raw_bytes: raw_bytes - std::mem::replace(&mut raw_bytes_before, raw_bytes),
        };
        if len == 0 || sender.blocking_send(Ok(block)).is_err() {
            return Ok(());
        }
    }
}
