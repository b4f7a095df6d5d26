//! The coordinator's session: a planner that cuts plans into stages, and how much each task of a stage is to do.
use std::sync::Arc;
use std::time::Duration;

use datafusion::error::Result;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::{
    DesiredTaskCountEvent, DesiredTaskCountEventResponse, DistributedExt, DistributedLeafExec,
    DistributedMetricsFormat, ScaleUpLeafNodeEvent, ScaleUpLeafNodeEventResponse, SessionStateBuilderExt,
    display_plan_ascii, explain_analyze,
};

use super::codec::ClusterCodec;
use super::members::Cluster;
use crate::query::raw;
use crate::query::scan::ScanExec;

/// Bytes of data files per core of a worker, from which on another worker takes part: some 30,000 lines, which take
/// longer to read than a stage takes to send.
const CORE_BYTES: usize = 256 << 10;
/// Bytes that one process holds of what another has sent it, per connection; the default is 64 MiB.
const BUFFER_BYTES: usize = 8 << 20;

/// Adds what makes a session that of a coordinator.
pub(in crate::query) fn distributed(
    builder: SessionStateBuilder,
    cluster: &Cluster,
) -> Result<SessionStateBuilder> {
    Ok(builder
        .with_distributed_worker_resolver(cluster.workers.clone())
        .with_distributed_channel_resolver(cluster.channels.clone())
        .with_distributed_user_codec(ClusterCodec::of_coordinator())
        .with_distributed_desired_task_count_handler(raw_task_count)
        .with_distributed_scale_up_leaf_node_handler(raw_tasks)
        .with_distributed_file_scan_config_bytes_per_partition(CORE_BYTES)?
        .with_distributed_worker_connection_buffer_budget_bytes(BUFFER_BYTES)?
        .with_distributed_planner())
}

/// Workers send what they counted when a statement has ended; that they did is not worth waiting for.
const METRICS_TIMEOUT: Duration = Duration::from_secs(5);

/// The stages of a plan that ran, with what each step did.
pub(in crate::query) async fn stages(plan: Arc<dyn ExecutionPlan>) -> Result<String> {
    let counted = explain_analyze(Arc::clone(&plan), DistributedMetricsFormat::Aggregated);
    match tokio::time::timeout(METRICS_TIMEOUT, counted).await {
        Ok(text) => text,
        Err(_) => Ok(display_plan_ascii(&*plan, false)),
    }
}

/// As many tasks as have a range for each of their cores.
fn raw_task_count(event: DesiredTaskCountEvent<'_>) -> Option<Result<DesiredTaskCountEventResponse>> {
    let num_ranges = raw::num_ranges(event.plan.downcast_ref::<ScanExec>()?)?;
    let tasks = num_ranges.div_ceil(event.session_config.target_partitions()).max(1);
    Some(Ok(DesiredTaskCountEventResponse::desired(tasks)))
}

/// Deals the ranges to the tasks.
fn raw_tasks(event: ScaleUpLeafNodeEvent<'_>) -> Option<Result<ScaleUpLeafNodeEventResponse>> {
    let scan = event.plan.downcast_ref::<ScanExec>()?;
    let tasks = raw::dealt(scan, event.task_count)?;
    let leaf = DistributedLeafExec::try_new(
        Arc::clone(event.plan),
        tasks.into_iter().map(|task| Arc::new(task) as _),
    );
    Some(leaf.map(|leaf| ScaleUpLeafNodeEventResponse::new(Arc::new(leaf))))
}
