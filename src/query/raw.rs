//! Raw logs as tables: read by the decoders that load them, and never stored.
//!
//! Plain files are cut at newlines into ranges, which the cores read beside each other; a compressed one is one range.
//! Chunks, and so `chunk_id` and `line`, are those that a reader with the default sizes ships. Lines that lack a text
//! which the filter asks for are passed over, and of the others only the columns that the statement asks for are made.
//! Memory holds a chunk and its rows per core, whatever is read. What a ledger of the other places holds is not read
//! here. Deliberately absent: streams, which could be read once only, and pruning of files: only their lines say what
//! they hold.
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Date32Array, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use sha2::{Digest, Sha256};

use super::error::external;
use super::report::{Counter, Notes};
use super::scan::{Part, ScanExec};
use super::table::{DAY, TIMESTAMP, with_views};
use crate::decode::{Decoder, Needles};
use crate::ledger::{self, BLANKS, CHUNKS, REJECTS};
use crate::log_type::{LogType, LogTypes};
use crate::model::{FIRST_DAY, FUTURE_DAYS, MICROS_PER_DAY, RawChunk};
use crate::source::{self, Catalogue, CutOptions, Extent, FileReader, IdentifiedObject, Input, SourceError};

mod content;
mod needles;
mod wire;

pub(super) use content::{Content, RawFile};
pub(super) use wire::{dealt, decoded, encoded, num_ranges};

/// Bytes of a range: enough to make little of its start, and for all cores to end at about the same time.
const RANGE_BYTES: u64 = 8 << 20;
/// Batches that wait for the rest of the plan, per core.
const QUEUE_BATCHES: usize = 2;

/// The files that `paths` stand for, as sources of `catalogue`. Blocking.
pub(super) fn list_files(paths: &[PathBuf], mut catalogue: Catalogue) -> Result<Vec<RawFile>, SourceError> {
    let source::Listing { inputs, failures } = source::list(paths);
    if let Some((_, error)) = failures.into_iter().next() {
        return Err(error);
    }
    let (mut met, mut facts, mut objects) = (HashSet::new(), Vec::new(), Vec::new());
    for input in inputs {
        match input {
            Input::File(path, stat) => {
                if met.insert(stat.place) {
                    facts.push(catalogue.inspect(&path, &source::open(&path)?)?);
                }
            }
            Input::Object(object) => objects.push(object),
            Input::Stdin | Input::Pipe(_) => {
                let remedy = "write it to a file, or load it with `pipeline run`";
                return Err(SourceError::Stream { path: input.name(), remedy });
            }
        }
    }
    let files = catalogue.resolve(facts).into_iter().map(|file| RawFile {
        source: file.source,
        size_bytes: file.stat.size_bytes,
        encoding: file.encoding,
        reference_time: file.stat.modified_micros,
        committed: file.committed,
        content: Content::File(file.path, file.stat.place),
    });
    let mut files: Vec<_> = files.collect();
    for object in objects {
        let IdentifiedObject { object, source, committed } = catalogue.identify_object(object);
        files.push(RawFile {
            source,
            size_bytes: object.size_bytes(),
            encoding: object.encoding()?,
            reference_time: object.modified_micros(),
            committed,
            content: Content::Object(object),
        });
    }
    Ok(files)
}

/// A file's position, and the first and end byte to read of it.
type Range = (usize, (u64, u64));

/// Which rows of the lines a table has.
#[derive(Debug, Clone)]
enum Rows {
    Type(Arc<LogType>),
    Rejects,
    Blanks,
    Chunks,
}

/// A table over raw files.
#[derive(Debug, Clone)]
pub(super) struct RawTable {
    rows: Rows,
    types: LogTypes,
    place: String,
    files: Arc<Vec<RawFile>>,
    schema: SchemaRef,
    notes: Notes,
}

impl RawTable {
    /// The tables that the lines of `files` make, by log type or own name.
    pub(super) fn all(
        place: &str,
        files: &Arc<Vec<RawFile>>,
        types: &LogTypes,
        notes: &Notes,
    ) -> Vec<(String, Arc<dyn TableProvider>)> {
        let table = |rows: Rows| {
            let table = Self::new(rows, place, files, types, notes);
            (table.name().to_owned(), Arc::new(table) as Arc<dyn TableProvider>)
        };
        let of_types = types.iter().map(|log_type| Rows::Type(Arc::clone(log_type)));
        of_types.chain([Rows::Rejects, Rows::Blanks, Rows::Chunks]).map(table).collect()
    }

    fn new(rows: Rows, place: &str, files: &Arc<Vec<RawFile>>, types: &LogTypes, notes: &Notes) -> Self {
        let schema = match &rows {
            Rows::Type(log_type) => plain(&log_type.table.schema),
            Rows::Rejects => with_views(&ledger::reject_columns()),
            Rows::Blanks => with_views(&ledger::blank_columns()),
            Rows::Chunks => with_views(&ledger::columns()),
        };
        let (types, place, notes) = (types.clone(), place.to_owned(), notes.clone());
        Self { rows, types, place, files: Arc::clone(files), schema, notes }
    }

    fn name(&self) -> &str {
        match &self.rows {
            Rows::Type(log_type) => log_type.name(),
            Rows::Rejects => REJECTS,
            Rows::Blanks => BLANKS,
            Rows::Chunks => CHUNKS,
        }
    }

    /// The ranges to read, dealt to so many cores. Blocking.
    fn ranges(&self, cores: usize) -> Result<Vec<Vec<Range>>, SourceError> {
        let mut dealt = vec![Vec::new(); cores];
        let mut cores = (0..cores).cycle();
        for (index, file) in self.files.iter().enumerate() {
            for range in file.ranges(RANGE_BYTES)? {
                if let Some(core) = cores.next() {
                    dealt[core].push((index, range));
                }
            }
        }
        dealt.retain(|ranges: &Vec<_>| !ranges.is_empty());
        Ok(dealt)
    }
}

/// The columns of a type's batches as every place has them: no dictionaries, views of text; and the day.
fn plain(schema: &Schema) -> SchemaRef {
    let plain = |field: &Arc<Field>| match field.data_type() {
        DataType::Dictionary(_, value) => field.as_ref().clone().with_data_type((**value).clone()),
        _ => field.as_ref().clone(),
    };
    let fields = schema.fields().iter().map(|field| plain(field).with_nullable(true));
    let day = Field::new(DAY, DataType::Date32, true);
    with_views(&Schema::new(fields.chain([day]).collect::<Vec<_>>()))
}

#[async_trait]
impl TableProvider for RawTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let supported = |filter: &&Expr| match &self.rows {
            Rows::Type(log_type) if needles::of_filter(filter, log_type).is_some() => {
                TableProviderFilterPushDown::Inexact
            }
            _ => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(supported).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let counter = Arc::new(Counter::default());
        let num_files = self.files.len();
        self.notes.files(&self.place, self.name(), (num_files, num_files), &counter);
        let (table, cores) = (self.clone(), state.config().target_partitions());
        let dealt = tokio::task::spawn_blocking(move || table.ranges(cores)).await.map_err(external)?;
        let dealt = dealt.map_err(external)?;
        if dealt.is_empty() {
            return Ok(Arc::new(EmptyExec::new(wanted)));
        }
        let num_ranges: usize = dealt.iter().map(Vec::len).sum();
        let columns: Vec<&str> = wanted.fields().iter().map(|field| field.name().as_str()).collect();
        let texts = match &self.rows {
            Rows::Type(log_type) => needles::needles(filters, log_type),
            _ => None,
        };
        let mut detail = format!("files={num_files}, ranges={num_ranges}, columns=[{}]", columns.join(", "));
        if let Some(texts) = &texts {
            let texts: Vec<_> = texts.iter().map(|text| String::from_utf8_lossy(text)).collect();
            detail += &format!(", lines with=[{}]", texts.join(", "));
        }
        let part = |ranges| {
            let (table, wanted) = (self.clone(), Arc::clone(&wanted));
            let (texts, counter) = (texts.clone(), Arc::clone(&counter));
            Arc::new(RawPart { table, wanted, ranges, texts, counter }) as Arc<dyn Part>
        };
        let parts = dealt.into_iter().map(part).collect();
        Ok(Arc::new(ScanExec::new("RawExec", detail, Arc::clone(&wanted), parts)))
    }
}

/// What one core reads.
#[derive(Debug, Clone)]
struct RawPart {
    table: RawTable,
    wanted: SchemaRef,
    ranges: Vec<Range>,
    /// Of which a line that matters holds one.
    texts: Option<Vec<Vec<u8>>>,
    counter: Arc<Counter>,
}

impl Part for RawPart {
    fn open(&self) -> Result<SendableRecordBatchStream> {
        let mut builder = RecordBatchReceiverStreamBuilder::new(Arc::clone(&self.wanted), QUEUE_BATCHES);
        let (part, rows) = (self.clone(), builder.tx());
        builder.spawn_blocking(move || {
            let mut chunks = Chunks::new(&part);
            for (file, range) in &part.ranges {
                let file = &part.table.files[*file];
                let extent = Extent {
                    source: Arc::clone(&file.source),
                    content: file.open().map_err(external)?,
                    encoding: file.encoding,
                    range: *range,
                    committed: file.committed.clone(),
                    reference_time: file.reference_time,
                };
                part.counter.add(0, 1);
                let mut reader = FileReader::of_extent(extent, CutOptions::default()).map_err(external)?;
                while let Some(chunk) = reader.next_chunk().map_err(external)? {
                    part.counter.add(reader.take_raw_bytes(), 0);
                    if let Some(batch) = chunks.rows(chunk)?
                        && rows.blocking_send(Ok(batch)).is_err()
                    {
                        // nobody takes any more
                        return Ok(());
                    }
                }
            }
            Ok(())
        });
        Ok(builder.build())
    }
}

/// Turns chunks into rows of one table.
struct Chunks {
    decoder: Decoder,
    rows: Rows,
    wanted: SchemaRef,
    needles: Option<Needles>,
    last_day: i32,
}

impl Chunks {
    fn new(part: &RawPart) -> Self {
        let types = &part.table.types;
        let decoder = match &part.table.rows {
            Rows::Chunks => Decoder::new(types),
            Rows::Rejects | Rows::Blanks => Decoder::only(types, None),
            Rows::Type(log_type) => {
                let table = &log_type.table;
                let names = part.wanted.fields().iter().map(|field| match field.name().as_str() {
                    DAY => TIMESTAMP,
                    name => name,
                });
                let mut columns: Vec<usize> =
                    names.filter_map(|name| table.schema.index_of(name).ok()).collect();
                columns.sort_unstable();
                columns.dedup();
                // rows are counted by whichever column costs least
                if columns.is_empty() {
                    columns.extend(table.schema.index_of(ledger::CHUNK_ID));
                }
                Decoder::only(types, Some((&table.log_type, columns)))
            }
        };
        let today = chrono::Utc::now().timestamp_micros().div_euclid(MICROS_PER_DAY) as i32;
        Self {
            decoder,
            rows: part.table.rows.clone(),
            wanted: Arc::clone(&part.wanted),
            needles: part.texts.as_deref().map(Needles::new),
            last_day: today + FUTURE_DAYS,
        }
    }

    fn rows(&mut self, mut chunk: RawChunk) -> Result<Option<RecordBatch>> {
        let batch = match &self.rows {
            Rows::Type(_) => match self.decoder.decode_rows(&chunk, self.needles.as_ref()) {
                Some(batch) => batch,
                None => return Ok(None),
            },
            Rows::Rejects => ledger::reject_rows(&self.decoder.decode(&chunk))?,
            Rows::Blanks => ledger::blank_rows(&self.decoder.decode(&chunk))?,
            Rows::Chunks => {
                chunk.content_sha256 = Sha256::digest(&chunk.bytes).into();
                let record = self.decoder.decode(&chunk).record;
                // nobody has committed it
                without(&ledger::to_rows(&[record], 0, "")?, &["committed_at", "writer"])?
            }
        };
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        let columns = self.wanted.fields().iter().map(|field| match field.name().as_str() {
            DAY if matches!(self.rows, Rows::Type(_)) => self.days(&batch),
            name => Ok(cast(&batch[name], field.data_type())?),
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(&self.wanted), columns, &options)?))
    }

    /// The day of each row that would lie in its day's partition.
    fn days(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let times = batch[TIMESTAMP].as_primitive::<TimestampMicrosecondType>();
        let day = |micros: i64| {
            let day = i32::try_from(micros.div_euclid(MICROS_PER_DAY)).ok()?;
            (FIRST_DAY..=self.last_day).contains(&day).then_some(day)
        };
        Ok(Arc::new(times.iter().map(|time| day(time?)).collect::<Date32Array>()))
    }
}

/// The rows with NULL in these columns.
fn without(batch: &RecordBatch, names: &[&str]) -> Result<RecordBatch> {
    let schema = batch.schema();
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        match names.contains(&field.name().as_str()) {
            true => new_null_array(field.data_type(), batch.num_rows()),
            false => Arc::clone(column),
        }
    });
    Ok(RecordBatch::try_new(Arc::clone(&schema), columns.collect())?)
}
