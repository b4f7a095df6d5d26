//! A result that is held back until it is complete: the first rows in memory, the others in the temporary folder.
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::SpillManager;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, SpillMetrics};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures_util::{StreamExt, stream};

/// Bytes of a result that stay in memory.
const MEMORY_BYTES: usize = 16 << 20;

/// A complete result.
pub(in crate::query) struct Spool {
    schema: SchemaRef,
    first: Vec<RecordBatch>,
    /// What did not fit.
    rest: Option<SendableRecordBatchStream>,
    pub(in crate::query) num_rows: u64,
}

impl Spool {
    /// Takes all rows. An error is the only other end.
    pub(in crate::query) async fn fill(
        mut rows: SendableRecordBatchStream,
        runtime: Arc<RuntimeEnv>,
    ) -> Result<Self> {
        let schema = rows.schema();
        let metrics = SpillMetrics::new(&ExecutionPlanMetricsSet::new(), 0);
        let files = SpillManager::new(runtime, metrics, Arc::clone(&schema));
        let (mut first, mut len_bytes, mut num_rows) = (Vec::new(), 0, 0);
        let mut file = None;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            num_rows += batch.num_rows() as u64;
            len_bytes += batch.get_array_memory_size();
            if file.is_none() && len_bytes <= MEMORY_BYTES {
                first.push(batch);
                continue;
            }
            if file.is_none() {
                file = Some(files.create_in_progress_file("result of a cluster")?);
            }
            if let Some(file) = &mut file {
                file.append_batch(&batch)?;
            }
        }
        let rest = match file.map(|mut file| file.finish()).transpose()?.flatten() {
            Some(file) => Some(files.read_spill_as_stream(file, None)?),
            None => None,
        };
        Ok(Self { schema, first, rest, num_rows })
    }

    /// The rows, in their order.
    pub(in crate::query) fn rows(self) -> SendableRecordBatchStream {
        let first = stream::iter(self.first.into_iter().map(Ok));
        let rest = stream::iter(self.rest).flatten();
        Box::pin(RecordBatchStreamAdapter::new(self.schema, first.chain(rest)))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, StringViewArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::exec_datafusion_err;

    use super::*;

    fn rows(batches: Vec<Result<RecordBatch>>, schema: &SchemaRef) -> SendableRecordBatchStream {
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), stream::iter(batches)))
    }

    #[tokio::test]
    async fn a_result_larger_than_memory_comes_back_in_its_order_and_an_error_leaves_none() {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8View, false)]));
        let batch = |number: usize| {
            let texts: StringViewArray =
                (0..1000).map(|row| Some(format!("{number:0>3000} {row}"))).collect();
            RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(texts)])
        };
        let batches: Vec<Result<RecordBatch>> = (0..20).map(|number| Ok(batch(number)?)).collect();
        let spool = Spool::fill(rows(batches, &schema), Arc::default()).await.unwrap();
        assert!(spool.rest.is_some() && !spool.first.is_empty());
        assert_eq!(spool.num_rows, 20_000);
        let mut came = spool.rows();
        let mut number = 0;
        while let Some(batch) = came.next().await {
            for text in batch.unwrap()["text"].as_string_view() {
                assert_eq!(text.unwrap(), format!("{:0>3000} {}", number / 1000, number % 1000));
                number += 1;
            }
        }
        assert_eq!(number, 20_000);
        let broken = vec![Ok(batch(0).unwrap()), Err(exec_datafusion_err!("lost"))];
        assert!(Spool::fill(rows(broken, &schema), Arc::default()).await.is_err());
    }
}
