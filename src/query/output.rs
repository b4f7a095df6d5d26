//! Results as table, JSON, CSV or Parquet, batch by batch.
//!
//! Invariants: memory does not depend on the number of rows; a reader that goes away (`| head`) is a way to
//! end, not an error; control characters of log lines do not reach a terminal as such.
use std::io::{self, Write};
use std::panic::resume_unwind;
use std::thread::available_parallelism;

use arrow::array::RecordBatch;
use arrow::csv;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures_util::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use tokio::task::spawn_blocking;

use super::QueryError;

/// Rows that decide the width of a table's columns. Later, wider values widen them from there on.
const WIDTH_ROWS: usize = 1000;
/// Rows that the Parquet writer holds at most.
const ROW_GROUP_ROWS: usize = 128 * 1024;

/// Form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OutputFormat {
    /// Aligned columns, for people.
    #[default]
    Table,
    /// An array of objects.
    Json,
    /// Comma-separated values with a header line.
    Csv,
    /// A Parquet file.
    Parquet,
}

/// Writes results one after the other to `out`.
#[derive(Debug)]
pub struct ResultPrinter<W: Write + Send> {
    format: OutputFormat,
    out: Outlet<W>,
}

impl<W: Write + Send> ResultPrinter<W> {
    /// Writes to `out` in this form.
    pub fn new(format: OutputFormat, out: W) -> Self {
        Self { format, out: Outlet { out, closed: false } }
    }

    /// Writes one result to its end. Returns false once nobody reads any more.
    pub async fn print(&mut self, result: SendableRecordBatchStream) -> Result<bool, QueryError> {
        let written = self.write(result).await;
        // Whatever the format's writer made of it: nobody is there to read it.
        if self.out.closed { Ok(false) } else { written.map(|()| true) }
    }

    async fn write(&mut self, mut result: SendableRecordBatchStream) -> Result<(), QueryError> {
        let (out, schema) = (&mut self.out, result.schema());
        let mut writer = match self.format {
            OutputFormat::Table => Writer::Table(TableWriter::new(out, schema)),
            OutputFormat::Json => {
                Writer::Json(json::WriterBuilder::new().with_explicit_nulls(true).build(out))
            }
            OutputFormat::Csv => return self.write_csv(result).await,
            OutputFormat::Parquet => Writer::Parquet(Box::new(parquet_writer(out, schema)?)),
        };
        while let Some(batch) = result.next().await {
            writer.write(&batch?)?;
        }
        writer.finish()?;
        Ok(self.out.flush()?)
    }

    /// On all cores at once, in order: to make text of a large result takes as long as to find it.
    async fn write_csv(&mut self, result: SendableRecordBatchStream) -> Result<(), QueryError> {
        // the names, also of a result without rows
        self.out.write_all(&csv_of(&RecordBatch::new_empty(result.schema()), true)?)?;
        let text = |batch: Result<RecordBatch, DataFusionError>| async {
            let batch = batch?;
            let text = spawn_blocking(move || csv_of(&batch, false)).await;
            text.unwrap_or_else(|error| resume_unwind(error.into_panic()))
        };
        let cores = available_parallelism().map_or(1, usize::from);
        let mut texts = result.map(text).buffered(cores);
        while let Some(text) = texts.next().await {
            self.out.write_all(&text?)?;
        }
        Ok(self.out.flush()?)
    }
}

fn csv_of(batch: &RecordBatch, has_header: bool) -> Result<Vec<u8>, QueryError> {
    let mut text = Vec::new();
    csv::WriterBuilder::new().with_header(has_header).build(&mut text).write(batch)?;
    Ok(text)
}

impl From<io::Error> for QueryError {
    fn from(error: io::Error) -> Self {
        Self::Output(format!("cannot write the result: {error}"))
    }
}

impl From<ArrowError> for QueryError {
    fn from(error: ArrowError) -> Self {
        Self::Output(format!("cannot write the result: {error}"))
    }
}

impl From<ParquetError> for QueryError {
    fn from(error: ParquetError) -> Self {
        Self::Output(format!("cannot write the result: {error}"))
    }
}

/// Remembers that the reader went away: the writers of the formats do not keep the kind of an error.
#[derive(Debug)]
struct Outlet<W> {
    out: W,
    closed: bool,
}

impl<W: Write> Write for Outlet<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).inspect_err(|error| self.closed |= error.kind() == io::ErrorKind::BrokenPipe)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().inspect_err(|error| self.closed |= error.kind() == io::ErrorKind::BrokenPipe)
    }
}

fn parquet_writer<W: Write + Send>(out: W, schema: SchemaRef) -> Result<ArrowWriter<W>, ParquetError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(out, schema, options)
}

/// Of the forms that are written a batch after the other.
enum Writer<W: Write + Send> {
    Table(TableWriter<W>),
    Json(json::ArrayWriter<W>),
    Parquet(Box<ArrowWriter<W>>),
}

impl<W: Write + Send> Writer<W> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), QueryError> {
        match self {
            Self::Table(writer) => writer.write(batch),
            Self::Json(writer) => Ok(writer.write(batch)?),
            Self::Parquet(writer) => Ok(writer.write(batch)?),
        }
    }

    fn finish(self) -> Result<(), QueryError> {
        match self {
            Self::Table(writer) => writer.finish(),
            Self::Json(mut writer) => {
                writer.finish()?;
                Ok(writeln!(writer.into_inner())?)
            }
            Self::Parquet(writer) => Ok(writer.close().map(|_| ())?),
        }
    }
}

/// Aligned columns: names, a rule, rows, and their number.
struct TableWriter<W> {
    out: W,
    schema: SchemaRef,
    widths: Vec<usize>,
    /// First rows, held until there are enough to tell the widths.
    held: Vec<RecordBatch>,
    started: bool,
    num_rows: usize,
}

impl<W: Write> TableWriter<W> {
    fn new(out: W, schema: SchemaRef) -> Self {
        let widths = schema.fields().iter().map(|field| field.name().chars().count()).collect();
        Self { out, schema, widths, held: Vec::new(), started: false, num_rows: 0 }
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), QueryError> {
        self.num_rows += batch.num_rows();
        if self.started {
            return self.write_rows(batch);
        }
        self.held.push(batch.clone());
        if self.num_rows >= WIDTH_ROWS { self.start() } else { Ok(()) }
    }

    fn finish(mut self) -> Result<(), QueryError> {
        if !self.started {
            self.start()?;
        }
        let noun = if self.num_rows == 1 { "row" } else { "rows" };
        Ok(writeln!(self.out, "({} {noun})", self.num_rows)?)
    }

    fn start(&mut self) -> Result<(), QueryError> {
        self.started = true;
        let held = std::mem::take(&mut self.held);
        for batch in &held {
            for row in rows(&batch.slice(0, batch.num_rows().min(WIDTH_ROWS)))? {
                for (width, cell) in self.widths.iter_mut().zip(&row) {
                    *width = cell.iter().map(|line| line.chars().count()).fold(*width, usize::max);
                }
            }
        }
        let names = self.schema.fields().iter().map(|field| vec![printable(field.name())]).collect();
        self.write_row(names)?;
        let rule: Vec<String> = self.widths.iter().map(|width| "-".repeat(width + 2)).collect();
        writeln!(self.out, "{}", rule.join("+"))?;
        held.iter().try_for_each(|batch| self.write_rows(batch))
    }

    fn write_rows(&mut self, batch: &RecordBatch) -> Result<(), QueryError> {
        rows(batch)?.into_iter().try_for_each(|row| self.write_row(row))
    }

    /// One row; a cell of several lines makes several lines of it.
    fn write_row(&mut self, row: Vec<Vec<String>>) -> Result<(), QueryError> {
        let height = row.iter().map(Vec::len).max().unwrap_or(0);
        for at in 0..height {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let text = cell.get(at).map_or("", String::as_str);
                let width = self.widths[column].max(text.chars().count());
                self.widths[column] = width;
                line += if column == 0 { " " } else { " | " };
                match self.schema.field(column).data_type().is_numeric() {
                    true => line += &format!("{text:>width$}"),
                    false => line += &format!("{text:<width$}"),
                }
            }
            writeln!(self.out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The cells of each row, as lines of text.
fn rows(batch: &RecordBatch) -> Result<Vec<Vec<Vec<String>>>, QueryError> {
    let options = FormatOptions::new();
    let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
    let columns: Vec<ArrayFormatter<'_>> = columns.collect::<Result<_, _>>()?;
    let cell = |column: &ArrayFormatter<'_>, row| {
        let text = column.value(row).try_to_string()?;
        Ok(text.trim_end_matches('\n').split('\n').map(printable).collect())
    };
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| cell(column, row)).collect()).collect()
}

/// Text that cannot move the cursor or change colours.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
