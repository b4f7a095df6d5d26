//! Reads a table's files back in the table's columns, whatever unit and columns each file was written with.
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowPredicateFn, ArrowReaderOptions, RowFilter};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::{DataFile, LakeError};
use crate::ledger::CHUNK_ID;

/// Rows of `file` in the columns of `schema`: all, or only those of `chunk_ids`.
pub(super) async fn read_file(
    store: &Arc<dyn ObjectStore>,
    file: &DataFile,
    schema: &SchemaRef,
    chunk_ids: Option<&Arc<HashSet<i64>>>,
) -> Result<Vec<RecordBatch>, LakeError> {
    let corrupt = |cause: &dyn ToString| LakeError::corrupt(&file.path, cause.to_string());
    let failed = |cause: ParquetError| match cause {
        ParquetError::External(cause) => match cause.downcast::<object_store::Error>() {
            Ok(cause) => LakeError::storage("read", &file.path)(*cause),
            Err(cause) => corrupt(&cause),
        },
        cause => corrupt(&cause),
    };
    let path = Path::from(file.path.as_str());
    let reader = StoredFile { store: Arc::clone(store), path, size_bytes: file.size_bytes };
    let mut builder = ParquetRecordBatchStreamBuilder::new(reader).await.map_err(failed)?;
    let of_file = builder.parquet_schema();
    let wanted = schema.fields().iter().map(|field| field.name().as_str());
    let projection = ProjectionMask::columns(of_file, wanted);
    if let Some(chunk_ids) = chunk_ids {
        let chunk_ids = Arc::clone(chunk_ids);
        let is_wanted = move |rows: RecordBatch| {
            let ids = rows.column(0).as_primitive::<Int64Type>();
            Ok(ids
                .iter()
                .map(|id| Some(id.is_some_and(|id| chunk_ids.contains(&id))))
                .collect::<BooleanArray>())
        };
        let column = ProjectionMask::columns(of_file, [CHUNK_ID]);
        builder =
            builder.with_row_filter(RowFilter::new(vec![Box::new(ArrowPredicateFn::new(column, is_wanted))]));
    }
    let stream = builder.with_projection(projection).build().map_err(failed)?;
    let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(failed)?;
    batches.iter().map(|rows| conform(rows, schema).map_err(|cause| corrupt(&cause))).collect()
}

/// Where the Parquet crate reads a file from.
struct StoredFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size_bytes: u64,
}

/// Bytes at a file's end that most likely hold all of its footer.
const FOOTER_BYTES: usize = 16 << 10;

fn external(cause: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(cause))
}

impl AsyncFileReader for StoredFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        self.store.get_range(&self.path, range).map_err(external).boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let size_bytes = self.size_bytes;
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            let reader = reader.with_prefetch_hint(Some(FOOTER_BYTES));
            reader.load_and_finish(self, size_bytes).await.map(Arc::new)
        }
        .boxed()
    }
}

/// `rows` in exactly the columns and types of `schema`; a column that the file lacks is null.
fn conform(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
    let column = |field: &arrow::datatypes::FieldRef| -> Result<ArrayRef, arrow::error::ArrowError> {
        match rows.column_by_name(field.name()) {
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => cast(column, field.data_type()),
        }
    };
    RecordBatch::try_new(Arc::clone(schema), schema.fields().iter().map(column).collect::<Result<_, _>>()?)
}

/// The named columns of `schema`.
pub(super) fn columns(schema: &Schema, names: &[&str]) -> SchemaRef {
    let fields = schema.fields().iter().filter(|field| names.contains(&field.name().as_str())).cloned();
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
