//! Rows with dictionaries in, each distinct combination of their values with its number of rows out.
//!
//! Counts are kept while dictionaries stay the same, and only where there are few enough combinations (see
//! `counters`); else each row is handed on with a count of one. Memory is bounded by that. Deliberately absent: merging what different dictionaries have in common, which the aggregate above does.
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{
    ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use futures_util::{StreamExt, stream};

use super::counters::Counters;

/// See the module.
#[derive(Debug)]
pub(super) struct PrecountExec {
    input: Arc<dyn ExecutionPlan>,
    /// The columns of `input` to count by, all of them dictionaries.
    columns: Vec<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl PrecountExec {
    /// Counts rows of `input` by `columns`. `schema` is that of a partial aggregate: the columns' values, then counts.
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, columns: Vec<usize>, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            input.boundedness(),
        );
        Self { input, columns, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }

    pub(super) fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }

    /// The columns of the input that are counted by.
    pub(super) fn columns(&self) -> &[usize] {
        &self.columns
    }
}

/// The names of columns, as a plan shows them.
pub(super) fn names(schema: &Schema, columns: &[usize]) -> String {
    let names: Vec<_> = columns.iter().map(|column| schema.field(*column).name().as_str()).collect();
    names.join(", ")
}

impl DisplayAs for PrecountExec {
    fn fmt_as(&self, _: DisplayFormatType, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PrecountExec: by=[{}]", names(&self.input.schema(), &self.columns))
    }
}

impl ExecutionPlan for PrecountExec {
    fn name(&self) -> &str {
        "PrecountExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(Self::new(input, self.columns.clone(), self.schema()))),
            None => internal_err!("PrecountExec without an input"),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let rows = self.input.execute(partition, context)?;
        let counts = Counts { columns: self.columns.clone(), schema: self.schema(), held: None };
        let counted = stream::unfold(Some((rows, counts)), move |state| {
            let metrics = metrics.clone();
            async move {
                let (mut rows, mut counts) = state?;
                loop {
                    let (counted, is_end) = match rows.next().await {
                        Some(Ok(batch)) => {
                            let _timer = metrics.elapsed_compute().timer();
                            (counts.add(&batch), false)
                        }
                        Some(Err(error)) => (Err(error), false),
                        None => (counts.flush(), true),
                    };
                    match counted.transpose() {
                        Some(Ok(batch)) => {
                            metrics.record_output(batch.num_rows());
                            return Some((Ok(batch), (!is_end).then_some((rows, counts))));
                        }
                        Some(Err(error)) => return Some((Err(error), None)),
                        None if is_end => return None,
                        None => {}
                    }
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), counted)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Rows counted so far by dictionaries that are still the newest.
struct Counts {
    columns: Vec<usize>,
    schema: SchemaRef,
    held: Option<Counters>,
}

impl Counts {
    /// Counts the batch's rows. What is returned is counted no more.
    fn add(&mut self, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
        let columns = Counters::columns(batch, &self.columns)?;
        let is_same = self.held.as_ref().is_some_and(|held| held.are_of(&columns));
        let finished = if is_same { None } else { self.flush()? };
        if self.held.get_or_insert_with(|| Counters::new(&columns)).add(&columns) {
            return Ok(finished);
        }
        let keys = columns.iter().map(|column| column.keys().clone());
        let dictionaries = columns.iter().map(|column| Arc::clone(column.values()));
        let rows = self.batch(dictionaries.zip(keys), Int64Array::from_value(1, batch.num_rows()))?;
        Ok(Some(match finished {
            Some(finished) => arrow::compute::concat_batches(&self.schema, [&finished, &rows])?,
            None => rows,
        }))
    }

    /// What is counted so far, if anything is.
    fn flush(&mut self) -> Result<Option<RecordBatch>> {
        let Some(held) = self.held.take() else { return Ok(None) };
        let (combinations, counts): (Vec<usize>, Vec<i64>) = held.counted().unzip();
        if combinations.is_empty() {
            return Ok(None);
        }
        let mut keys: Vec<_> =
            held.dictionaries().iter().map(|_| Int32Array::builder(combinations.len())).collect();
        for combination in combinations {
            for ((key, dictionary), keys) in held.keys(combination).zip(held.dictionaries()).zip(&mut keys) {
                keys.append_option(if key == dictionary.len() { None } else { i32::try_from(key).ok() });
            }
        }
        let keys = keys.into_iter().map(|mut keys| keys.finish());
        self.batch(held.dictionaries().iter().cloned().zip(keys), counts.into()).map(Some)
    }

    fn batch(
        &self,
        columns: impl Iterator<Item = (ArrayRef, Int32Array)>,
        counts: Int64Array,
    ) -> Result<RecordBatch> {
        let mut arrays = Vec::with_capacity(self.schema.fields().len());
        for (values, keys) in columns {
            arrays.push(take(&cast(&values, &DataType::Utf8View)?, &keys, None)?);
        }
        let counts: ArrayRef = Arc::new(counts);
        arrays.resize(self.schema.fields().len(), counts);
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), arrays)?)
    }
}
