//! A leaf of a plan whose rows come from something that is not a file of the archive: Postgres, raw logs.
//!
//! Deliberately absent: what is read, and how. A [`Part`] gives one stream of it.
use std::any::Any;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures_util::StreamExt;

/// One of the streams of a scan, which run at the same time.
pub(super) trait Part: Any + fmt::Debug + Send + Sync {
    /// Starts it. Each call starts it anew.
    fn open(&self) -> Result<SendableRecordBatchStream>;
}

/// Runs parts beside each other.
#[derive(Debug)]
pub(super) struct ScanExec {
    /// As the plan shows it.
    name: &'static str,
    detail: String,
    parts: Vec<Arc<dyn Part>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ScanExec {
    /// A scan of at least one part, each with the columns of `schema`.
    pub(super) fn new(
        name: &'static str,
        detail: String,
        schema: SchemaRef,
        parts: Vec<Arc<dyn Part>>,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(parts.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            name,
            detail,
            parts,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// What the plan shows of it.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Its parts, if all are of one kind.
    pub(super) fn parts<P: Part>(&self) -> Option<Vec<&P>> {
        self.parts.iter().map(|part| (&**part as &dyn Any).downcast_ref()).collect()
    }
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _: DisplayFormatType, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: streams={}, {}", self.name, self.parts.len(), self.detail)
    }
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &str {
        self.name
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(part) = self.parts.get(partition) else {
            return internal_err!("{} has no stream {partition}", self.name);
        };
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let rows = part.open()?.inspect(move |batch| {
            if let Ok(batch) = batch {
                metrics.record_output(batch.num_rows());
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
