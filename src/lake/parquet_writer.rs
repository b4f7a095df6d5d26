//! Writes a Parquet file, a row group at a time.
//!
//! Rows of a row group are all known before it is written, so that each column is encoded as suits its values. Bounded:
//! only one column is being compressed at a time. Deliberately absent: a row's order; rows come as they are to be.
use std::io::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::errors::Result;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::SchemaDescriptor;

use super::column_chunk::{dictionary_chunk, number_chunk, number_dictionary_chunk};
use super::pages::Compressors;
use super::parquet_settings::{ColumnPlan, column_plans, integers, properties};
use super::schema::Layout;

/// A file that is being written to `W`.
pub(super) struct ParquetWriter<W: Write + Send> {
    file: SerializedFileWriter<W>,
    schema: SchemaRef,
    descriptor: SchemaDescriptor,
    indexed: Vec<String>,
    row_groups: usize,
    compressors: Compressors,
}

impl<W: Write + Send> ParquetWriter<W> {
    /// A file of `layout` whose rows have `schema`, at most `max_rows` of them in a row group.
    pub(super) fn try_new(out: W, layout: &Layout, schema: &SchemaRef, max_rows: usize) -> Result<Self> {
        let settings = Arc::new(properties(layout, schema, max_rows));
        let descriptor = ArrowSchemaConverter::new().convert(schema)?;
        // The Arrow schema is left out of the file: readers shall see the plain Parquet types.
        let file = SerializedFileWriter::new(out, descriptor.root_schema_ptr(), settings)?;
        let (schema, indexed) = (Arc::clone(schema), layout.indexed.clone());
        Ok(Self { file, schema, descriptor, indexed, row_groups: 0, compressors: Compressors::try_new()? })
    }

    /// Writes `batches` as one row group.
    pub(super) fn write(&mut self, batches: &[RecordBatch]) -> Result<()> {
        let plans = column_plans(batches);
        let factory = ArrowRowGroupWriterFactory::new(&self.file, Arc::clone(&self.schema));
        // made only where a column needs one: they allocate much
        let mut by_crate = None;
        let mut row_group = self.file.next_row_group()?;
        for (position, plan) in plans.into_iter().enumerate() {
            let field = self.schema.field(position);
            let column = || self.descriptor.column(position);
            let columns: Vec<ArrayRef> =
                batches.iter().map(|batch| Arc::clone(batch.column(position))).collect();
            let compressors = &mut self.compressors;
            let by_hand = match plan {
                ColumnPlan::Dictionary => {
                    dictionary_chunk(compressors, column(), &columns, self.indexed.contains(field.name()))?
                }
                ColumnPlan::NumberDictionary => {
                    number_dictionary_chunk(compressors, column(), integers(&columns))?
                }
                ColumnPlan::Number(encoding) => {
                    number_chunk(compressors, column(), &integers(&columns), encoding)?
                }
                ColumnPlan::Crate => None,
            };
            if let Some(chunk) = by_hand {
                row_group.append_column(&chunk.bytes, chunk.close)?;
                continue;
            }
            let writers: &mut Vec<_> = match &mut by_crate {
                Some(writers) => writers,
                None => {
                    let writers = factory.create_column_writers(self.row_groups)?;
                    by_crate.insert(writers.into_iter().map(Some).collect())
                }
            };
            let Some(mut writer) = writers[position].take() else { continue };
            for column in &columns {
                for leaf in compute_leaves(field, column)? {
                    writer.write(&leaf)?;
                }
            }
            writer.close()?.append_to_row_group(&mut row_group)?;
        }
        self.row_groups += 1;
        row_group.close()?;
        Ok(())
    }

    /// Writes the footer; gives back what was written to.
    pub(super) fn finish(self) -> Result<W> {
        self.file.into_inner()
    }
}
