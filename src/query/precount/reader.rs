//! Opens data files so that text columns come as dictionaries.
//!
//! What a column is read as is decided by a file's footer, where the Arrow schema that it was written with may be;
//! files of older versions of a table have other columns, so one schema for all of them would not do.
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::Schema;
use bytes::Bytes;
use datafusion::common::Result;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ARROW_SCHEMA_META_KEY, encode_arrow_schema, parquet_to_arrow_schema};
use parquet::errors;
use parquet::file::metadata::{FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataBuilder};

/// Makes readers of files whose columns of these names are dictionaries.
#[derive(Debug)]
pub(super) struct DictionaryReaders {
    inner: Arc<dyn ParquetFileReaderFactory>,
    names: Arc<Vec<String>>,
}

impl DictionaryReaders {
    pub(super) fn new(inner: Arc<dyn ParquetFileReaderFactory>, names: Vec<String>) -> Self {
        Self { inner, names: Arc::new(names) }
    }
}

impl ParquetFileReaderFactory for DictionaryReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let inner = self.inner.create_reader(partition, file, metadata_size_hint, metrics)?;
        Ok(Box::new(DictionaryReader { inner, names: Arc::clone(&self.names) }))
    }
}

struct DictionaryReader {
    inner: Box<dyn AsyncFileReader + Send>,
    names: Arc<Vec<String>>,
}

impl fmt::Debug for DictionaryReader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("DictionaryReader").field("names", &self.names).finish_non_exhaustive()
    }
}

impl AsyncFileReader for DictionaryReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, errors::Result<Bytes>> {
        self.inner.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, errors::Result<Vec<Bytes>>> {
        self.inner.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let metadata = self.inner.get_metadata(options).await?;
            Ok(Arc::new(with_dictionaries(&metadata, &self.names)?))
        }
        .boxed()
    }
}

fn with_dictionaries(metadata: &ParquetMetaData, names: &[String]) -> errors::Result<ParquetMetaData> {
    let file = metadata.file_metadata();
    let schema: Schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata())?;
    let schema = super::dictionaries(&schema, names);
    let key_values = file.key_value_metadata().into_iter().flatten();
    let mut key_values: Vec<_> =
        key_values.filter(|entry| entry.key != ARROW_SCHEMA_META_KEY).cloned().collect();
    key_values.push(KeyValue::new(ARROW_SCHEMA_META_KEY.to_owned(), encode_arrow_schema(&schema)));
    let file = FileMetaData::new(
        file.version(),
        file.num_rows(),
        file.created_by().map(str::to_owned),
        Some(key_values),
        file.schema_descr_ptr(),
        file.column_orders().cloned(),
    );
    Ok(ParquetMetaDataBuilder::new(file)
        .set_row_groups(metadata.row_groups().to_vec())
        .set_column_index(metadata.column_index().cloned())
        .set_offset_index(metadata.offset_index().cloned())
        .build())
}
