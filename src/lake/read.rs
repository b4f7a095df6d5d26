//! Reads a table's files back in the table's columns, whatever unit and columns each file was written with.
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, RowFilter};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream};
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
    let mut rows = FileRows::open(store, file, schema, chunk_ids).await?;
    let mut batches = Vec::new();
    while let Some(batch) = rows.next().await? {
        batches.push(batch);
    }
    Ok(batches)
}

/// The rows of a file, some thousand at a time.
pub(super) struct FileRows {
    path: String,
    schema: SchemaRef,
    stream: ParquetRecordBatchStream<StoredFile>,
}

impl FileRows {
    /// See [`read_file`]. Where `schema` has a dictionary, texts are read as one.
    pub(super) async fn open(
        store: &Arc<dyn ObjectStore>,
        file: &DataFile,
        schema: &SchemaRef,
        chunk_ids: Option<&Arc<HashSet<i64>>>,
    ) -> Result<Self, LakeError> {
        let failed = |cause| failed(&file.path, cause);
        let mut reader = StoredFile::new(store, file);
        let metadata = ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new()).await;
        let metadata = metadata.map_err(failed)?;
        let supplied = ArrowReaderOptions::new().with_schema(with_dictionaries(metadata.schema(), schema));
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), supplied);
        let mut builder =
            ParquetRecordBatchStreamBuilder::new_with_metadata(reader, metadata.map_err(failed)?);
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
            builder = builder
                .with_row_filter(RowFilter::new(vec![Box::new(ArrowPredicateFn::new(column, is_wanted))]));
        }
        let stream = builder.with_batch_size(BATCH_ROWS).with_projection(projection).build();
        let stream = stream.map_err(failed)?;
        Ok(Self { path: file.path.clone(), schema: Arc::clone(schema), stream })
    }

    /// `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, LakeError> {
        let rows = self.stream.try_next().await.map_err(|cause| failed(&self.path, cause))?;
        let conform =
            |rows| conform(&rows, &self.schema).map_err(|cause| LakeError::corrupt(&self.path, cause));
        rows.map(conform).transpose()
    }
}

/// The columns that the file has.
pub(super) async fn schema_of(store: &Arc<dyn ObjectStore>, file: &DataFile) -> Result<SchemaRef, LakeError> {
    let mut reader = StoredFile::new(store, file);
    let metadata = ArrowReaderMetadata::load_async(&mut reader, ArrowReaderOptions::new()).await;
    Ok(Arc::clone(metadata.map_err(|cause| failed(&file.path, cause))?.schema()))
}

fn failed(path: &str, cause: ParquetError) -> LakeError {
    match cause {
        ParquetError::External(cause) => match cause.downcast::<object_store::Error>() {
            Ok(cause) => LakeError::storage("read", path)(*cause),
            Err(cause) => LakeError::corrupt(path, cause),
        },
        cause => LakeError::corrupt(path, cause),
    }
}

/// The columns of a file, with dictionaries where `wanted` has them.
fn with_dictionaries(of_file: &Schema, wanted: &Schema) -> SchemaRef {
    let field = |field: &Arc<Field>| match wanted.field_with_name(field.name()) {
        Ok(wanted) if matches!(wanted.data_type(), DataType::Dictionary(_, _)) => {
            Arc::new(field.as_ref().clone().with_data_type(wanted.data_type().clone()))
        }
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new(of_file.fields().iter().map(field).collect::<Vec<_>>()))
}

/// Where the Parquet crate reads a file from.
struct StoredFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size_bytes: u64,
}

impl StoredFile {
    fn new(store: &Arc<dyn ObjectStore>, file: &DataFile) -> Self {
        let path = Path::from(file.path.as_str());
        Self { store: Arc::clone(store), path, size_bytes: file.size_bytes }
    }
}

/// Rows that are decoded at once.
const BATCH_ROWS: usize = 8192;
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
