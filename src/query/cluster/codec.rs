//! How the plan's nodes that are ours travel. What DataFusion has of its own travels by its own rules.
use std::sync::Arc;

use datafusion::common::{internal_err, not_impl_err};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};

use super::stores::Reads;
use crate::query::raw;
use crate::query::scan::ScanExec;

/// Scans of raw logs, to and from bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct ClusterCodec {
    /// What may be read here; a coordinator decodes nothing.
    reads: Option<Arc<Reads>>,
}

impl ClusterCodec {
    pub(super) fn of_coordinator() -> Self {
        Self::default()
    }

    pub(super) fn of_worker(reads: Arc<Reads>) -> Self {
        Self { reads: Some(reads) }
    }
}

impl PhysicalExtensionCodec for ClusterCodec {
    fn try_decode(
        &self,
        bytes: &[u8],
        _: &[Arc<dyn ExecutionPlan>],
        _: &TaskContext,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match &self.reads {
            Some(reads) => Ok(Arc::new(raw::decoded(bytes, reads)?)),
            None => internal_err!("a coordinator runs no stage of another"),
        }
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        match node.downcast_ref::<ScanExec>().map(raw::encoded).transpose()?.flatten() {
            Some(encoded) => {
                bytes.extend(encoded);
                Ok(())
            }
            None => not_impl_err!("{} is not run by workers; query it without --cluster", node.name()),
        }
    }
}
