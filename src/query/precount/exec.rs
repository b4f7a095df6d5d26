//! Rows with dictionaries in, each distinct combination of their values with its number of rows out.
//!
//! Counts are kept while dictionaries stay the same, which is as long as a file is read, and only where all their
//! combinations fit in [`MAX_COMBINATIONS`]; else each row is handed on with a count of one. Memory is bounded by
//! that. Deliberately absent: merging what different dictionaries have in common, which the aggregate above does.
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int32Array, Int64Array, RecordBatch};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Int32Type, SchemaRef};
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

/// As many counters as a batch has rows: beyond, most would stay at zero.
const MAX_COMBINATIONS: usize = 8192;

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
}

impl DisplayAs for PrecountExec {
    fn fmt_as(&self, _: DisplayFormatType, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let schema = self.input.schema();
        let names: Vec<_> = self.columns.iter().map(|column| schema.field(*column).name().as_str()).collect();
        write!(out, "PrecountExec: by=[{}]", names.join(", "))
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
    held: Option<Held>,
}

struct Held {
    /// Of each column.
    dictionaries: Vec<ArrayRef>,
    /// By combination: the first column's key plus the number of its keys times the second's, and so on; the last
    /// key of a column stands for NULL.
    by_combination: Vec<i64>,
}

impl Counts {
    /// Counts the batch's rows. What is returned is counted no more.
    fn add(&mut self, batch: &RecordBatch) -> Result<Option<RecordBatch>> {
        let mut columns: Vec<&DictionaryArray<Int32Type>> = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            match batch.column(*column).as_dictionary_opt() {
                Some(column) => columns.push(column),
                None => return internal_err!("PrecountExec over a column that is no dictionary"),
            }
        }
        let is_same = self.held.as_ref().is_some_and(|held| {
            columns.iter().zip(&held.dictionaries).all(|(column, held)| Arc::ptr_eq(column.values(), held))
        });
        let finished = if is_same { None } else { self.flush()? };
        let mut combinations = columns.iter().map(|column| column.values().len() + 1);
        let combinations = combinations.try_fold(1usize, usize::checked_mul).unwrap_or(usize::MAX);
        if combinations > MAX_COMBINATIONS {
            // nothing is held: the dictionaries are others, or were too big before
            let keys = columns.iter().map(|column| column.keys().clone());
            let dictionaries = columns.iter().map(|column| Arc::clone(column.values()));
            let rows = self.batch(dictionaries.zip(keys), Int64Array::from_value(1, batch.num_rows()))?;
            return Ok(Some(match finished {
                Some(finished) => arrow::compute::concat_batches(&self.schema, [&finished, &rows])?,
                None => rows,
            }));
        }
        let held = self.held.get_or_insert_with(|| Held {
            dictionaries: columns.iter().map(|column| Arc::clone(column.values())).collect(),
            by_combination: vec![0; combinations],
        });
        count(&columns, &mut held.by_combination);
        Ok(finished)
    }

    /// What is counted so far, if anything is.
    fn flush(&mut self) -> Result<Option<RecordBatch>> {
        let Some(Held { dictionaries, by_combination }) = self.held.take() else { return Ok(None) };
        let present: Vec<usize> =
            (0..by_combination.len()).filter(|combination| by_combination[*combination] > 0).collect();
        if present.is_empty() {
            return Ok(None);
        }
        let mut stride = 1;
        let keys = dictionaries.iter().map(|dictionary| {
            let (own, len) = (stride, dictionary.len());
            stride *= len + 1;
            present
                .iter()
                .map(|combination| combination / own % (len + 1))
                .map(|key| if key == len { None } else { i32::try_from(key).ok() })
                .collect::<Int32Array>()
        });
        let keys: Vec<_> = keys.collect();
        let counts = present.iter().map(|combination| by_combination[*combination]).collect();
        self.batch(dictionaries.into_iter().zip(keys), counts).map(Some)
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

fn count(columns: &[&DictionaryArray<Int32Type>], by_combination: &mut [i64]) {
    if let [column] = columns
        && column.null_count() == 0
    {
        // a key beyond its dictionary is no array that can be made
        column.keys().values().iter().for_each(|key| by_combination[*key as usize] += 1);
        return;
    }
    for row in 0..columns[0].len() {
        let (mut combination, mut stride) = (0, 1);
        for column in columns {
            let len = column.values().len();
            combination += stride * column.key(row).unwrap_or(len);
            stride *= len + 1;
        }
        by_combination[combination] += 1;
    }
}
