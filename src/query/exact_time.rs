//! Keeps comparisons with times finer than a millisecond exact.
//!
//! Files whose times are all whole milliseconds store them as such. The Parquet scan moves a filter's literal to
//! the file's unit instead of the column to the table's, and cuts what does not fit: `< ..500500` would become
//! `< ..500`. A column behind a function is left alone, so this rule puts one around it, in filters that have
//! such a literal. Files are pruned by the filter as it was written.
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, Filter, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// The rule, to append to the optimizer's.
#[derive(Debug)]
pub(super) struct ExactTime {
    function: Arc<ScalarUDF>,
}

impl ExactTime {
    pub(super) fn new() -> Self {
        Self { function: Arc::new(same()) }
    }

    fn guard(&self, expr: Expr) -> Result<Transformed<Expr>> {
        let compares = match &expr {
            Expr::BinaryExpr(binary) => {
                binary.op.supports_propagation() && (is_finer(&binary.left) || is_finer(&binary.right))
            }
            Expr::InList(list) => list.list.iter().any(is_finer),
            Expr::Between(between) => is_finer(&between.low) || is_finer(&between.high),
            _ => false,
        };
        if !compares {
            return Ok(Transformed::no(expr));
        }
        // what is behind the function already stays as it is
        expr.transform_down(|inner| match inner {
            Expr::Column(_) => {
                let guarded = self.function.call(vec![inner]);
                Ok(Transformed::new(guarded, true, datafusion::common::tree_node::TreeNodeRecursion::Jump))
            }
            Expr::ScalarFunction(_) => {
                Ok(Transformed::new(inner, false, datafusion::common::tree_node::TreeNodeRecursion::Jump))
            }
            _ => Ok(Transformed::no(inner)),
        })
    }
}

/// A literal time that is not a whole millisecond.
fn is_finer(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::TimestampMicrosecond(Some(time), _), _) => time % 1_000 != 0,
        Expr::Literal(ScalarValue::TimestampNanosecond(Some(time), _), _) => time % 1_000_000 != 0,
        _ => false,
    }
}

impl OptimizerRule for ExactTime {
    fn name(&self) -> &str {
        "exact_time"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = plan else { return Ok(Transformed::no(plan)) };
        let predicate = filter.predicate.transform_down(|expr| self.guard(expr))?;
        let filter = Filter::try_new(predicate.data, filter.input)?;
        Ok(Transformed::new(LogicalPlan::Filter(filter), predicate.transformed, predicate.tnr))
    }
}

/// The function that the rule puts around a column.
pub(super) fn same() -> ScalarUDF {
    ScalarUDF::new_from_impl(Same { signature: Signature::any(1, Volatility::Immutable) })
}

/// Gives its argument.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Same {
    signature: Signature,
}

impl ScalarUDFImpl for Same {
    fn name(&self) -> &str {
        "exact_time"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(args.args[0].clone())
    }
}
