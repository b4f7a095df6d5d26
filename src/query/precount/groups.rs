//! All groups of a statement counted by number, in the place of the aggregate that merges what single files count.
//!
//! A text of any file is numbered once, so that the groups of two files are merged without comparing texts, and are made
//! of texts again only when they are handed on. Beyond [`MAX_GROUPS`] groups or [`MAX_TEXT_BYTES`] of texts the aggregate
//! runs instead, from the start, for it can spill. Deliberately absent: more than two columns.
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringViewArray,
};
use arrow::compute::take;
use arrow::datatypes::{Int32Type, SchemaRef};
use datafusion::common::runtime::JoinSet;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{HashMap, Result, exec_datafusion_err, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{
    Boundedness, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions, reset_plan_states,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    execute_stream,
};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::counters::Counters;
use super::exec::{PrecountExec, names};

/// A million groups are some 40 MiB.
const MAX_GROUPS: usize = 1 << 20;
const MAX_TEXT_BYTES: usize = 32 << 20;
/// What a text takes beside its own bytes.
const TEXT_BYTES: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct CountedGroupsExec {
    /// The aggregate, over the counts of single files.
    aggregate: Arc<dyn ExecutionPlan>,
    /// What it has rows counted of,
    rows: Arc<dyn ExecutionPlan>,
    /// by these columns.
    columns: Vec<usize>,
    max_groups: usize,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl CountedGroupsExec {
    /// In the place of `aggregate`, whose parents do not ask for rows by their hash; nothing where it is not the last
    /// of one or two columns that are counted by dictionaries.
    pub(super) fn in_place_of(aggregate: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let last = aggregate.downcast_ref::<AggregateExec>()?;
        if !matches!(last.mode(), AggregateMode::Final | AggregateMode::FinalPartitioned) {
            return None;
        }
        let mut below = last.input();
        while below.is::<RepartitionExec>() || below.is::<CoalescePartitionsExec>() {
            below = below.children().first().copied()?;
        }
        let counted = below.downcast_ref::<PrecountExec>()?;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(aggregate.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        let columns = counted.columns().to_vec();
        (columns.len() <= 2).then(|| Self {
            aggregate: Arc::clone(aggregate),
            rows: Arc::clone(counted.input()),
            columns,
            max_groups: MAX_GROUPS,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

impl DisplayAs for CountedGroupsExec {
    fn fmt_as(&self, _: DisplayFormatType, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "CountedGroupsExec: by=[{}], or else", names(&self.rows.schema(), &self.columns))
    }
}

impl ExecutionPlan for CountedGroupsExec {
    fn name(&self) -> &str {
        "CountedGroupsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.aggregate]
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
        let Some(aggregate) = children.pop() else {
            return internal_err!("CountedGroupsExec without an aggregate");
        };
        Ok(match Self::in_place_of(&aggregate) {
            Some(counted) => Arc::new(counted),
            None => Arc::new(CoalescePartitionsExec::new(aggregate)),
        })
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let texts: Arc<Vec<Mutex<Texts>>> = Arc::new(self.columns.iter().map(|_| Mutex::default()).collect());
        let mut counting = JoinSet::new();
        for stream in 0..self.rows.output_partitioning().partition_count() {
            let rows = self.rows.execute(stream, Arc::clone(&context))?;
            let groups = Groups::new(self.columns.clone(), Arc::clone(&texts), self.max_groups);
            counting.spawn(groups.count(rows));
        }
        let (schema, aggregate, max_groups) = (self.schema(), Arc::clone(&self.aggregate), self.max_groups);
        let counted = async move {
            let mut all: Option<HashMap<u64, i64>> = None;
            while let Some(counts) = counting.join_next().await {
                let counts = counts.map_err(|error| exec_datafusion_err!("counting ended: {error}"))??;
                let _timer = metrics.elapsed_compute().timer();
                all = match (all, counts) {
                    (_, None) => return from_the_start(aggregate, context),
                    (None, counts) => counts,
                    (Some(merged), Some(counts)) => Some(merge(merged, counts)),
                };
                if all.as_ref().is_some_and(|all| all.len() > max_groups) {
                    return from_the_start(aggregate, context);
                }
            }
            let _timer = metrics.elapsed_compute().timer();
            let groups = batch(&schema, &texts, &all.unwrap_or_default())?;
            metrics.record_output(groups.num_rows());
            let size = context.session_config().batch_size();
            let slices: Vec<_> = (0..groups.num_rows())
                .step_by(size)
                .map(|first| Ok(groups.slice(first, size.min(groups.num_rows() - first))))
                .collect();
            let slices = RecordBatchStreamAdapter::new(schema, stream::iter(slices));
            Ok(Box::pin(slices) as SendableRecordBatchStream)
        };
        let groups = stream::once(counted).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), groups)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Runs a plan that shares its scan with one that was begun: the scan hands out each file once for all who read it, so
/// that it has to be made new.
fn from_the_start(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    execute_stream(reset_plan_states(plan)?, context)
}

/// The distinct texts of a column in all files, each with its number.
#[derive(Debug, Default)]
struct Texts {
    numbers: HashMap<Arc<str>, u32>,
    in_order: Vec<Arc<str>>,
    len_bytes: usize,
}

/// Stands for NULL.
const NO_TEXT: u32 = u32::MAX;

impl Texts {
    /// The numbers of a dictionary's entries, and behind them that of NULL; nothing where there are too many.
    fn numbers_of(&mut self, dictionary: &ArrayRef) -> Result<Option<Vec<u32>>> {
        let Some(entries) = dictionary.as_string_opt::<i32>() else {
            return internal_err!("CountedGroupsExec over a dictionary that is not of text");
        };
        let mut numbers = Vec::with_capacity(entries.len() + 1);
        for entry in entries {
            let number = match entry {
                None => NO_TEXT,
                Some(text) => match self.numbers.get(text) {
                    Some(number) => *number,
                    None => {
                        let (text, number): (Arc<str>, _) = (text.into(), self.in_order.len() as u32);
                        self.len_bytes += text.len() + TEXT_BYTES;
                        self.in_order.push(Arc::clone(&text));
                        self.numbers.insert(text, number);
                        number
                    }
                },
            };
            numbers.push(number);
        }
        numbers.push(NO_TEXT);
        Ok((self.len_bytes <= MAX_TEXT_BYTES).then_some(numbers))
    }
}

/// Groups that one stream of rows has.
struct Groups {
    columns: Vec<usize>,
    texts: Arc<Vec<Mutex<Texts>>>,
    /// See [`group`].
    counts: HashMap<u64, i64>,
    max_groups: usize,
    held: Option<Held>,
}

/// What is known of the dictionaries that came last.
struct Held {
    counters: Counters,
    /// By key, of each column.
    numbers: Vec<Vec<u32>>,
}

impl Groups {
    fn new(columns: Vec<usize>, texts: Arc<Vec<Mutex<Texts>>>, max_groups: usize) -> Self {
        Self { columns, texts, counts: HashMap::new(), max_groups, held: None }
    }

    /// Counts all rows; nothing where there are too many groups.
    async fn count(mut self, mut rows: SendableRecordBatchStream) -> Result<Option<HashMap<u64, i64>>> {
        while let Some(batch) = rows.next().await {
            if !self.add(&batch?)? || self.counts.len() > self.max_groups {
                return Ok(None);
            }
        }
        self.release();
        Ok(Some(self.counts))
    }

    /// `false`: there are too many texts.
    fn add(&mut self, batch: &RecordBatch) -> Result<bool> {
        let columns = Counters::columns(batch, &self.columns)?;
        if !self.held.as_ref().is_some_and(|held| held.counters.are_of(&columns)) {
            self.release();
            let mut numbers = Vec::with_capacity(columns.len());
            for (column, texts) in columns.iter().zip(&*self.texts) {
                let mut texts = texts.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(of_column) = texts.numbers_of(column.values())? else { return Ok(false) };
                numbers.push(of_column);
            }
            self.held = Some(Held { counters: Counters::new(&columns), numbers });
        }
        let Some(held) = &mut self.held else { return Ok(true) };
        if !held.counters.add(&columns) {
            count_rows(&columns, &held.numbers, &mut self.counts);
        }
        Ok(true)
    }

    /// Adds what was counted by the dictionaries that came last.
    fn release(&mut self) {
        let Some(Held { counters, numbers }) = self.held.take() else { return };
        for (combination, count) in counters.counted() {
            let numbers = counters.keys(combination).zip(&numbers).map(|(key, numbers)| numbers[key]);
            *self.counts.entry(group(numbers)).or_default() += count;
        }
    }
}

/// The first column's number, and above it the second's.
fn group(numbers: impl Iterator<Item = u32>) -> u64 {
    numbers.zip([0, 32]).map(|(number, shift)| u64::from(number) << shift).sum()
}

fn count_rows(columns: &[&DictionaryArray<Int32Type>], numbers: &[Vec<u32>], counts: &mut HashMap<u64, i64>) {
    for row in 0..columns[0].len() {
        let of_row = columns.iter().zip(numbers);
        let numbers = of_row.map(|(column, numbers)| numbers[column.key(row).unwrap_or(numbers.len() - 1)]);
        *counts.entry(group(numbers)).or_default() += 1;
    }
}

fn merge(one: HashMap<u64, i64>, other: HashMap<u64, i64>) -> HashMap<u64, i64> {
    let (mut large, small) = if one.len() < other.len() { (other, one) } else { (one, other) };
    for (key, count) in small {
        *large.entry(key).or_default() += count;
    }
    large
}

/// The groups as the aggregate has them.
fn batch(schema: &SchemaRef, texts: &[Mutex<Texts>], counts: &HashMap<u64, i64>) -> Result<RecordBatch> {
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (column, texts) in texts.iter().enumerate() {
        let texts = texts.lock().unwrap_or_else(PoisonError::into_inner);
        let values = StringViewArray::from_iter_values(&texts.in_order);
        let number = |key: &u64| (key >> (32 * column)) as u32;
        let numbers =
            counts.keys().map(number).map(|number| (number != NO_TEXT).then_some(number.cast_signed()));
        arrays.push(take(&values, &numbers.collect::<Int32Array>(), None)?);
    }
    let counts: ArrayRef = Arc::new(counts.values().copied().collect::<Int64Array>());
    arrays.resize(schema.fields().len(), counts);
    Ok(RecordBatch::try_new(Arc::clone(schema), arrays)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::StringArray;
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::catalog::memory::MemorySourceConfig;
    use datafusion::functions_aggregate::count::count_udaf;
    use datafusion::physical_expr::aggregate::AggregateExprBuilder;
    use datafusion::physical_expr::expressions::{Column, lit};
    use datafusion::physical_plan::aggregates::PhysicalGroupBy;
    use datafusion::prelude::SessionContext;
    use proptest::prelude::*;

    use super::*;

    type Pair = (Option<String>, Option<String>);

    /// The last aggregate over the counts of batches, which are a file each, of two streams.
    fn aggregate(streams: &[Vec<Vec<Pair>>]) -> Arc<dyn ExecutionPlan> {
        let kind = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let field = |name| Field::new(name, kind.clone(), true);
        let schema = Arc::new(Schema::new(vec![field("a"), field("b")]));
        let column = |texts: Vec<Option<&str>>| -> ArrayRef {
            Arc::new(texts.into_iter().collect::<DictionaryArray<Int32Type>>())
        };
        let batch = |rows: &Vec<Pair>| {
            let a = column(rows.iter().map(|row| row.0.as_deref()).collect());
            let b = column(rows.iter().map(|row| row.1.as_deref()).collect());
            RecordBatch::try_new(Arc::clone(&schema), vec![a, b]).unwrap()
        };
        let streams: Vec<Vec<RecordBatch>> =
            streams.iter().map(|batches| batches.iter().map(batch).collect()).collect();
        let rows = MemorySourceConfig::try_new_exec(&streams, Arc::clone(&schema), None).unwrap();
        let views = ["a", "b"].map(|name| Field::new(name, DataType::Utf8View, true));
        let views = Arc::new(Schema::new(views.to_vec()));
        let group = ["a", "b"].into_iter().enumerate();
        let group = group
            .map(|(at, name)| (Arc::new(Column::new(name, at)) as Arc<dyn PhysicalExpr>, name.to_owned()));
        let group = PhysicalGroupBy::new_single(group.collect());
        let count = AggregateExprBuilder::new(count_udaf(), vec![lit(1i64)])
            .schema(Arc::clone(&views))
            .alias("count")
            .build()
            .unwrap();
        let counts = Field::new("count", DataType::Int64, false);
        let partial = Arc::new(Schema::new(
            views.fields().iter().map(|field| field.as_ref().clone()).chain([counts]).collect::<Vec<_>>(),
        ));
        let counted =
            Arc::new(CoalescePartitionsExec::new(Arc::new(PrecountExec::new(rows, vec![0, 1], partial))));
        let mode = AggregateMode::Final;
        let count = vec![Arc::new(count)];
        Arc::new(AggregateExec::try_new(mode, group.as_final(), count, vec![None], counted, views).unwrap())
    }

    async fn groups_of(plan: Arc<dyn ExecutionPlan>) -> BTreeMap<Pair, i64> {
        let context = SessionContext::new().task_ctx();
        let mut groups = BTreeMap::new();
        let mut rows = execute_stream(plan, context).unwrap();
        while let Some(batch) = rows.next().await {
            let batch = batch.unwrap();
            let text = |column: usize, row: usize| {
                let column = batch.column(column).as_string_view();
                column.is_valid(row).then(|| column.value(row).to_owned())
            };
            let counts = batch.column(2).as_primitive::<arrow::datatypes::Int64Type>();
            for row in 0..batch.num_rows() {
                let is_new = groups.insert((text(0, row), text(1, row)), counts.value(row)).is_none();
                assert!(is_new, "a group comes twice");
            }
        }
        groups
    }

    fn texts(max: usize) -> impl Strategy<Value = Option<String>> {
        prop::option::weighted(0.9, (0..max).prop_map(|number| format!("text {number}")))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn groups_of_numbers_are_those_of_texts(
            streams in prop::collection::vec(
                prop::collection::vec(prop::collection::vec((texts(9), texts(3)), 0..40), 0..4), 2..3),
            many in prop::collection::vec((texts(5000), texts(5000)), 0..300),
            max_groups in prop_oneof![Just(3usize), Just(MAX_GROUPS)],
        ) {
            let mut streams = streams;
            // too many combinations for a counter each, in the second stream
            streams[1].push(many);
            let mut expected = BTreeMap::<Pair, i64>::new();
            for pair in streams.iter().flatten().flatten() {
                *expected.entry(pair.clone()).or_default() += 1;
            }
            let aggregate = aggregate(&streams);
            let counted = CountedGroupsExec { max_groups, ..CountedGroupsExec::in_place_of(&aggregate).unwrap() };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (found, by_aggregate) = runtime.block_on(async {
                (groups_of(Arc::new(counted)).await, groups_of(aggregate).await)
            });
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(&by_aggregate, &expected);
        }
    }

    #[test]
    fn texts_beyond_the_bound_are_left_to_the_aggregate() {
        let long: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(MAX_TEXT_BYTES)]));
        assert!(Texts::default().numbers_of(&long).unwrap().is_none());
    }
}
