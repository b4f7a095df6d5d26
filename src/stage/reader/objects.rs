//! Reads objects of a store: several at once, and large ones in parts, for one connection is slow and a bucket is not.
//!
//! Invariant: at most [`PARTS_AT_ONCE`] parts are open, whatever is listed; a source that is committed whole is not asked
//! for. An object's failure is recorded and the others go on; storage that is away, or a bucket that is none, ends it.
use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::ready;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tracing::info;

use super::{
    Outcome, ReadError, ReadOptions, ReadSummary, Shipper, SourceFailure, SourceRead, blocking, ship_all,
};
use crate::client::StorageFault;
use crate::source::{Catalogue, CutOptions, IdentifiedObject, Object};
use crate::telemetry::Metric;
use crate::transport::TransportError;

/// Each holds a block and a chunk, and waits for its store most of the time.
const PARTS_AT_ONCE: usize = 8;

/// A part of an object, by the offsets that its lines begin between.
type Part = (Arc<IdentifiedObject>, (u64, u64));

/// Ships what is lacking of this reader's parts of the objects.
pub(super) async fn read(
    objects: Vec<Object>,
    options: &ReadOptions,
    catalogue: &Catalogue,
    shipper: Shipper<'_>,
    summary: &mut ReadSummary,
) -> Result<(), ReadError> {
    let parts = |object: Object| own_parts(object, options, catalogue);
    let unread = objects.iter().flat_map(|object| parts(object.clone()));
    let unread = unread.filter(|(object, _)| !object.is_complete());
    Metric::InputBytesTotal.add(unread.map(|(_, (first, end))| end - first).sum());

    let parts = stream::iter(objects.into_iter().flat_map(parts));
    let parts = parts.take_while(|_| ready(!shipper.shutdown.is_requested()));
    let passes = parts.map(|part| pass(part, options.cut, shipper)).buffer_unordered(PARTS_AT_ONCE);
    let mut passes = pin!(passes);
    let (mut places, mut failed) = (HashMap::new(), HashSet::new());
    while let Some((object, read, outcome)) = passes.try_next().await? {
        let complete = matches!(outcome, Outcome::Complete);
        let place = *places.entry(read.source_id).or_insert_with(|| {
            summary.sources.push(SourceRead { complete: true, ..SourceRead::new(&object.source) });
            summary.sources.len() - 1
        });
        let of_object = &mut summary.sources[place];
        of_object.bytes_shipped += read.bytes_shipped;
        of_object.chunks_shipped += read.chunks_shipped;
        of_object.complete &= complete;
        match outcome {
            Outcome::Complete => {}
            Outcome::Interrupted => summary.interrupted = true,
            Outcome::Failed(error) => match error.fault() {
                Some(StorageFault::Unreachable | StorageFault::Busy | StorageFault::NoBucket) => {
                    return Err(ReadError::Storage(SourceFailure { path: read.path, error }));
                }
                // said once, not for each of its parts
                _ if failed.insert(read.source_id) => summary.fail(read.path, error),
                _ => {}
            },
        }
    }
    summary.interrupted |= shipper.shutdown.is_requested();
    Ok(())
}

/// The parts of an object that are this reader's; of one that is committed whole, one part stands for all.
fn own_parts(
    object: Object,
    options: &ReadOptions,
    catalogue: &Catalogue,
) -> impl Iterator<Item = Part> + use<> {
    let object = Arc::new(catalogue.identify_object(object));
    let (shard, at_most) = (options.shard, if object.is_complete() { 1 } else { usize::MAX });
    let parts = object.parts(options.split_size_bytes);
    parts
        .map(move |part| (Arc::clone(&object), part))
        .filter(move |(object, part)| shard.is_none_or(|shard| shard.takes(&object.source.path, part.0)))
        .take(at_most)
}

async fn pass(
    (object, part): Part,
    cut: CutOptions,
    shipper: Shipper<'_>,
) -> Result<(Arc<IdentifiedObject>, SourceRead, Outcome), TransportError> {
    let mut read = SourceRead::new(&object.source);
    if object.is_complete() {
        return Ok((object, read, Outcome::Complete));
    }
    let opening = Arc::clone(&object);
    let opened = tokio::select! {
        biased;
        () = shipper.shutdown.requested() => return Ok((object, read, Outcome::Interrupted)),
        opened = blocking(move || opening.reader(part, cut)) => opened,
    };
    let outcome = match opened {
        Ok(Some(reader)) => ship_all(reader, shipper, &mut read).await?,
        Ok(None) => Outcome::Complete,
        Err(error) => Outcome::Failed(error),
    };
    let complete = matches!(outcome, Outcome::Complete);
    info!(
        path = read.path,
        first_byte = part.0,
        end_byte = part.1,
        bytes = read.bytes_shipped,
        chunks = read.chunks_shipped,
        complete,
        "part of an object read"
    );
    Ok((object, read, outcome))
}
