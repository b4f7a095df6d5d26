//! The view `logs(id, log_type, raw_line, timestamp, source_file, parsed_data, indexed_at)`: every row of every
//! log type as one table, for queries written for the old design's single table.
//!
//! Deliberately absent: how a row is rendered. The caller passes, per type, the functions that do it.
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::JoinType;
use datafusion::functions::regex::expr_fn::regexp_replace;
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::{Expr, ScalarUDF, bitwise_xor, cast, ident, lit};
use datafusion::prelude::{DataFrame, SessionContext};

use super::QueryError;
use arrow::datatypes::DataType;

/// One log type's part of the view.
#[derive(Debug, Clone)]
pub struct LogsBranch {
    /// The log type.
    pub log_type: String,
    /// Its table's SQL name.
    pub table: String,
    /// Columns of the table that the functions take, in this order.
    pub arguments: Vec<String>,
    /// What the functions know, where they know nothing by themselves: their first argument.
    pub(super) versions: Option<Expr>,
    /// Gives the line as it was.
    pub raw_line: Arc<ScalarUDF>,
    /// Gives the line's own text of its time.
    pub timestamp: Arc<ScalarUDF>,
    /// Gives `log_type`, `timestamp` and every key as strings, in one JSON object.
    pub parsed_data: Arc<ScalarUDF>,
}

/// The view's plan. Rows join the ledger table `chunks` for their file and the time of their commit.
pub(super) async fn plan(
    context: &SessionContext,
    chunks: Arc<dyn TableProvider>,
    branches: &[LogsBranch],
) -> Result<Arc<dyn TableProvider>, QueryError> {
    let mut rows: Option<DataFrame> = None;
    for branch in branches {
        let part = branch.plan(context).await?;
        rows = Some(match rows {
            Some(rows) => rows.union(part)?,
            None => part,
        });
    }
    let rows = rows.ok_or_else(|| QueryError::Sql("the view logs needs at least one log type".to_owned()))?;
    // A chunk that superseded an open last line has the same id: one row each, or rows would double.
    let chunks = context.read_table(chunks)?.aggregate(
        vec![ident("chunk_id").alias("id_of_chunk")],
        vec![max(ident("file")).alias("path"), max(ident("committed_at")).alias("indexed_at")],
    )?;
    let file_name = regexp_replace(ident("path"), lit("^.*/"), lit(""), None);
    let view = rows.join(chunks, JoinType::Left, &["chunk_id"], &["id_of_chunk"], None)?.select(vec![
        ident("id"),
        ident("log_type"),
        ident("raw_line"),
        ident("timestamp"),
        file_name.alias("source_file"),
        ident("parsed_data"),
        ident("indexed_at"),
    ])?;
    Ok(view.into_view())
}

impl LogsBranch {
    async fn plan(&self, context: &SessionContext) -> Result<DataFrame, QueryError> {
        let call = |function: &Arc<ScalarUDF>| {
            let columns = self.arguments.iter().map(ident);
            function.call(self.versions.iter().cloned().chain(columns).collect())
        };
        // The old table's id was a counter. A chunk's id is a 64-bit hash, so that mixed with the line it
        // names a row as well, and the same row each time.
        let id: Expr = bitwise_xor(ident("chunk_id"), cast(ident("line"), DataType::Int64));
        Ok(context.table(self.table.as_str()).await?.select(vec![
            id.alias("id"),
            lit(self.log_type.as_str()).alias("log_type"),
            call(&self.raw_line).alias("raw_line"),
            call(&self.timestamp).alias("timestamp"),
            call(&self.parsed_data).alias("parsed_data"),
            ident("chunk_id"),
        ])?)
    }
}
