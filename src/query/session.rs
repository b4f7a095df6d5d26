//! The session: tables of one archive version, the settings they are read with, and the gate that lets
//! nothing but reading through.
//!
//! Invariant: all statements of a text are checked before the first one runs.
use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::common::config::Dialect;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{FunctionRegistry, SendableRecordBatchStream};
use datafusion::functions::datetime::planner::DatetimeFunctionPlanner;
use datafusion::functions::unicode::planner::UnicodeFunctionPlanner;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{SetExpr, Statement as SqlStatement};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use object_store::ObjectStore;

use super::json::JsonPlanner;
use super::table::LakeTable;
use super::{LogsBranch, QueryError, date_trunc, exact_time, ip, logs};
use crate::lake::TableSnapshot;

/// What sorts, groups and joins may hold before they spill: the bound that `pipeline` keeps everywhere.
const MEMORY_BYTES: usize = 256 << 20;
/// Files from this size on are split between the cores. The archive's row groups are a few MiB.
const SPLIT_BYTES: usize = 1 << 20;

/// SQL over one version of an archive. Cheap to query again: Parquet footers are kept.
pub struct Session {
    context: SessionContext,
}

/// One statement that only reads, ready to run.
#[derive(Debug, Clone)]
pub struct Query {
    statement: Statement,
}

impl Session {
    /// A session over `tables`, whose file paths are relative to the root of `store`. A table is called by
    /// its folder's entry in `sql_names`, or else by its folder.
    pub fn try_new(
        store: Arc<dyn ObjectStore>,
        tables: &[TableSnapshot],
        sql_names: &BTreeMap<String, String>,
    ) -> Result<Self, QueryError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut config = SessionConfig::new()
            .with_target_partitions(cores)
            .with_information_schema(true)
            .with_repartition_file_min_size(SPLIT_BYTES)
            .with_default_catalog_and_schema("pipeline", "archive");
        let options = config.options_mut();
        options.execution.parquet.pushdown_filters = true;
        options.execution.parquet.reorder_filters = true;
        // Postgres' own precedences (`->>` before `=`): the team's queries come from there.
        options.sql_parser.dialect = Dialect::PostgreSQL;
        options.execution.time_zone = Some("UTC".to_owned());
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(MEMORY_BYTES)))
            .build_arc()?;
        let store_url = ObjectStoreUrl::parse("archive://root")?;
        runtime.register_object_store(store_url.as_ref(), store);
        let mut state = SessionStateBuilder::new_with_default_features()
            .with_config(config)
            .with_runtime_env(runtime)
            .build();
        // EXTRACT(..), SUBSTRING(.. FROM ..) and POSITION(.. IN ..): their functions are built in, their
        // syntax hangs on features of the umbrella crate that would compile much more.
        state.register_expr_planner(Arc::new(DatetimeFunctionPlanner))?;
        state.register_expr_planner(Arc::new(UnicodeFunctionPlanner))?;
        state.register_expr_planner(Arc::new(JsonPlanner::new()))?;
        let context = SessionContext::new_with_state(state);
        context.add_optimizer_rule(Arc::new(exact_time::ExactTime::new()));
        context.register_udf(ip::ip_in());
        context.register_udf(date_trunc::date_trunc());
        for snapshot in tables {
            let name = sql_names.get(&snapshot.name).unwrap_or(&snapshot.name);
            let table: Arc<dyn TableProvider> = Arc::new(LakeTable::new(store_url.clone(), snapshot));
            context.register_table(TableReference::bare(name.as_str()), table)?;
        }
        Ok(Self { context })
    }

    /// Adds the view `logs` over these log types.
    pub async fn define_logs(&self, branches: &[LogsBranch]) -> Result<(), QueryError> {
        let view = logs::plan(&self.context, branches).await?;
        self.context.register_table("logs", view)?;
        Ok(())
    }

    /// The statements of `text`, in order. Refuses all of them if one does anything but read.
    pub fn statements(&self, text: &str) -> Result<Vec<Query>, QueryError> {
        let statements = DFParser::parse_sql_with_dialect(text, &PostgreSqlDialect {})?;
        if statements.is_empty() {
            return Err(QueryError::Empty);
        }
        let check = |statement: Statement| match is_reading(&statement) {
            true => Ok(Query { statement }),
            false => Err(not_reading(&statement)),
        };
        statements.into_iter().map(check).collect()
    }

    /// Plans a statement and starts it.
    pub async fn run(&self, query: &Query) -> Result<SendableRecordBatchStream, QueryError> {
        let state = self.context.state();
        let plan = state.statement_to_plan(query.statement.clone()).await;
        let plan = plan.map_err(|error| self.with_table_names(error.into()))?;
        // The syntax was checked; this catches what only the plan shows, such as SELECT .. INTO.
        let read_only =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        read_only.verify_plan(&plan).map_err(|_| not_reading(&query.statement))?;
        Ok(self.context.execute_logical_plan(plan).await?.execute_stream().await?)
    }

    /// Runs a text of exactly one statement.
    pub async fn sql(&self, text: &str) -> Result<SendableRecordBatchStream, QueryError> {
        let queries = self.statements(text)?;
        match queries.as_slice() {
            [query] => self.run(query).await,
            _ => Err(QueryError::Sql(format!("{} statements where one was expected", queries.len()))),
        }
    }

    fn with_table_names(&self, error: QueryError) -> QueryError {
        match error {
            QueryError::Sql(text) if text.starts_with("table '") => {
                let schema = self.context.catalog("pipeline").and_then(|catalog| catalog.schema("archive"));
                let mut names = schema.map(|schema| schema.table_names()).unwrap_or_default();
                names.sort();
                QueryError::Sql(format!("{text}; there are {}", names.join(", ")))
            }
            other => other,
        }
    }
}

fn is_reading(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(statement) => match &**statement {
            // WITH may introduce an INSERT as well.
            SqlStatement::Query(query) => !matches!(
                *query.body,
                SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_)
            ),
            statement => matches!(
                statement,
                SqlStatement::ExplainTable { .. }
                    | SqlStatement::ShowTables { .. }
                    | SqlStatement::ShowColumns { .. }
                    | SqlStatement::ShowFunctions { .. }
            ),
        },
        Statement::Explain(explain) => is_reading(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    }
}

fn not_reading(statement: &Statement) -> QueryError {
    let text = statement.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = text.chars().take(60).collect();
    let statement = if short.len() < text.len() { format!("{short}..") } else { short };
    QueryError::NotReading { statement }
}
