//! The session: tables of the places it is over, the settings they are read with, and the gate that lets
//! nothing but reading through.
//!
//! Invariants: all statements of a text are checked before the first one runs; over a cluster a result is whole before
//! its first row is handed on.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

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
use datafusion::logical_expr::ScalarUDF;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{SetExpr, Statement as SqlStatement};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use futures_util::{StreamExt, stream};
use object_store::ObjectStore;
use tokio::sync::Mutex;

use super::cluster::{Cluster, Spool, WorkerTrouble, distributed, panics_seen, stages};
use super::json::{JsonPlanner, text_of_key_function};
use super::output::{OutputFormat, ResultPrinter};
use super::places::Places;
use super::precount::Precount;
use super::report::{Explained, Notes, Scan};
use super::table::LakeTable;
use super::{LogsBranch, QueryError, date_trunc, exact_time, ip, logs, render};
use crate::lake::TableSnapshot;

/// What sorts, groups and joins may hold before they spill: the bound that `pipeline` keeps everywhere.
const MEMORY_BYTES: usize = 256 << 20;
/// Files from this size on are split between the cores. The archive's row groups are a few MiB.
const SPLIT_BYTES: usize = 1 << 20;

/// SQL over places, each looked at anew for every statement. Cheap to query again: Parquet footers are kept.
pub struct Session {
    context: SessionContext,
    places: Option<Mutex<Places>>,
    cluster: Option<Cluster>,
}

/// One statement that only reads, ready to run.
#[derive(Debug, Clone)]
pub struct Query {
    statement: Statement,
}

/// The first rows of a result.
#[derive(Debug, Clone)]
pub struct FirstRows {
    /// Names of its columns, in their order.
    pub columns: Vec<String>,
    /// The rows as an array of objects; nothing where there is no row.
    pub json: Vec<u8>,
    /// Whether there are more.
    pub is_cut: bool,
}

impl Session {
    /// A session over `places`.
    pub fn new(places: Places) -> Result<Self, QueryError> {
        Ok(Self { context: context(None)?, places: Some(Mutex::new(places)), cluster: None })
    }

    /// A session over `places` whose statements are run by the workers of `cluster`. Databases cannot be among the
    /// places: their snapshots cannot be handed on.
    pub fn over_cluster(mut places: Places, cluster: Cluster) -> Result<Self, QueryError> {
        places.is_of_cluster = true;
        let context = context(Some(&cluster))?;
        Ok(Self { context, places: Some(Mutex::new(places)), cluster: Some(cluster) })
    }

    /// A session over `tables` as they are, whose file paths are relative to the root of `store`. A table is called
    /// by its folder's entry in `sql_names`, or else by its folder.
    pub fn try_new(
        store: Arc<dyn ObjectStore>,
        tables: &[TableSnapshot],
        sql_names: &BTreeMap<String, String>,
    ) -> Result<Self, QueryError> {
        let context = context(None)?;
        let store_url = ObjectStoreUrl::parse("archive://root")?;
        context.runtime_env().register_object_store(store_url.as_ref(), store);
        for snapshot in tables {
            let name = sql_names.get(&snapshot.name).unwrap_or(&snapshot.name);
            let store = (store_url.clone(), Arc::default());
            let table: Arc<dyn TableProvider> =
                Arc::new(LakeTable::new(store, "", snapshot, &Notes::default()));
            context.register_table(TableReference::bare(name.as_str()), table)?;
        }
        Ok(Self { context, places: None, cluster: None })
    }

    /// Adds the view `logs` over these log types.
    pub async fn define_logs(&self, branches: &[LogsBranch]) -> Result<(), QueryError> {
        let chunks = self.context.table_provider("chunks").await?;
        let view = logs::plan(&self.context, chunks, branches).await?;
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

    /// Plans a statement and starts it; over a cluster, runs it to its end.
    pub async fn run(&self, query: &Query) -> Result<SendableRecordBatchStream, QueryError> {
        if let Some(cluster) = &self.cluster {
            return Ok(self.answer(cluster, query).await?.1.rows());
        }
        let plan = self.plan(query).await?;
        Ok(execute_stream(plan, self.context.task_ctx())?)
    }

    /// Has a statement run by workers; a second time, by the others, if it lost one.
    async fn answer(
        &self,
        cluster: &Cluster,
        query: &Query,
    ) -> Result<(Arc<dyn ExecutionPlan>, Spool), QueryError> {
        let mut without = Vec::new();
        loop {
            cluster.look(&without).await?;
            match self.spooled(query).await {
                Err(QueryError::Worker(failure))
                    if failure.trouble == WorkerTrouble::Lost && without.is_empty() =>
                {
                    tracing::warn!("{failure}; the statement is run again without it");
                    without.push(failure.worker);
                }
                done => return done,
            }
        }
    }

    async fn spooled(&self, query: &Query) -> Result<(Arc<dyn ExecutionPlan>, Spool), QueryError> {
        let panics_before = panics_seen();
        let plan = self.plan(query).await?;
        let rows = execute_stream(Arc::clone(&plan), self.context.task_ctx())?;
        let spool = Spool::fill(rows, self.context.runtime_env()).await?;
        match panics_seen() == panics_before {
            true => Ok((plan, spool)),
            false => Err(QueryError::Sql("a part of the query panicked, so that rows may lack".to_owned())),
        }
    }

    /// Looks at the places, and plans a statement over what they hold now.
    async fn plan(&self, query: &Query) -> Result<Arc<dyn ExecutionPlan>, QueryError> {
        // one statement is planned at a time: its tables are those of its moment
        let mut places = match &self.places {
            Some(places) => Some(places.lock().await),
            None => None,
        };
        let _held = match &mut places {
            Some(places) => {
                // of the statement before
                drop(places.notes.take());
                Some(places.look(&self.context).await?)
            }
            None => None,
        };
        let plan = self.context.state().statement_to_plan(query.statement.clone()).await;
        let plan = plan.map_err(|error| self.with_table_names(error.into()))?;
        // The syntax was checked; this catches what only the plan shows, such as SELECT .. INTO.
        let read_only =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        read_only.verify_plan(&plan).map_err(|_| not_reading(&query.statement))?;
        Ok(self.context.execute_logical_plan(plan).await?.create_physical_plan().await?)
    }

    /// Runs a statement to its end for what it takes; its rows are counted.
    pub async fn explain(&self, query: &Query) -> Result<Explained, QueryError> {
        let started = Instant::now();
        let notes = match &self.places {
            Some(places) => places.lock().await.notes.clone(),
            None => Notes::default(),
        };
        let micros = || u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        if let Some(cluster) = &self.cluster {
            let (plan, spool) = self.answer(cluster, query).await?;
            let (elapsed_micros, rows) = (micros(), spool.num_rows);
            let plan = stages(plan).await?.lines().map(str::to_owned).collect();
            // what workers read, the plan says
            let scans = notes.take().into_iter().map(Scan::read_elsewhere).collect();
            return Ok(Explained { rows, elapsed_micros, scans, plan });
        }
        let plan = self.plan(query).await?;
        let mut rows = 0;
        let mut stream = execute_stream(Arc::clone(&plan), self.context.task_ctx())?;
        while let Some(batch) = stream.next().await {
            rows += batch?.num_rows() as u64;
        }
        let elapsed_micros = micros();
        let text = DisplayableExecutionPlan::with_metrics(&*plan).indent(false).to_string();
        let plan = text.lines().map(str::to_owned).collect();
        Ok(Explained { rows, elapsed_micros, scans: notes.take(), plan })
    }

    fn names(&self) -> Vec<String> {
        let schema = self.context.catalog("pipeline").and_then(|catalog| catalog.schema("archive"));
        let mut names = schema.map(|schema| schema.table_names()).unwrap_or_default();
        names.sort();
        names
    }

    /// Runs a text of exactly one statement.
    pub async fn sql(&self, text: &str) -> Result<SendableRecordBatchStream, QueryError> {
        let queries = self.statements(text)?;
        match queries.as_slice() {
            [query] => self.run(query).await,
            _ => Err(QueryError::Sql(format!("{} statements where one was expected", queries.len()))),
        }
    }

    /// The first rows of a statement's result, as many as a page can show.
    pub async fn first_rows(&self, text: &str, max_rows: usize) -> Result<FirstRows, QueryError> {
        let mut result = self.sql(text).await?;
        let schema = result.schema();
        let (mut batches, mut left) = (Vec::new(), max_rows);
        let mut is_cut = false;
        while let (false, Some(batch)) = (is_cut, result.next().await) {
            let batch = batch?;
            is_cut = batch.num_rows() > left;
            let first = batch.slice(0, batch.num_rows().min(left));
            left -= first.num_rows();
            batches.push(Ok(first));
        }
        let columns = schema.fields().iter().map(|field| field.name().clone()).collect();
        let first = RecordBatchStreamAdapter::new(schema, stream::iter(batches));
        let mut json = Vec::new();
        ResultPrinter::new(OutputFormat::Json, &mut json).print(Box::pin(first)).await?;
        Ok(FirstRows { columns, json, is_cut })
    }

    fn with_table_names(&self, error: QueryError) -> QueryError {
        match error {
            QueryError::Sql(text) if text.starts_with("table '") => {
                QueryError::Sql(format!("{text}; there are {}", self.names().join(", ")))
            }
            other => other,
        }
    }
}

/// DataFusion as every session has it.
fn context(cluster: Option<&Cluster>) -> Result<SessionContext, QueryError> {
    let runtime =
        RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(MEMORY_BYTES))).build_arc()?;
    let builder = SessionStateBuilder::new_with_default_features()
        .with_config(settings(SessionConfig::new()))
        .with_runtime_env(runtime);
    let builder = match cluster {
        None => builder.with_physical_optimizer_rule(Arc::new(Precount)),
        // what that rule makes does not travel
        Some(cluster) => distributed(builder, cluster)?,
    };
    let mut state = builder.build();
    // EXTRACT(..), SUBSTRING(.. FROM ..) and POSITION(.. IN ..): their functions are built in, their
    // syntax hangs on features of the umbrella crate that would compile much more.
    state.register_expr_planner(Arc::new(DatetimeFunctionPlanner))?;
    state.register_expr_planner(Arc::new(UnicodeFunctionPlanner))?;
    state.register_expr_planner(Arc::new(JsonPlanner::new()))?;
    let context = SessionContext::new_with_state(state);
    context.add_optimizer_rule(Arc::new(exact_time::ExactTime::new()));
    context.register_udf(ip::ip_in());
    context.register_udf(date_trunc::date_trunc());
    Ok(context)
}

/// What a plan is made and run with, wherever that is.
pub(super) fn settings(config: SessionConfig) -> SessionConfig {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut config = config
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
    config
}

/// Every function that a plan may name beside DataFusion's: those of SQL, those that planning puts in, and those of
/// the view `logs`.
pub(super) fn functions_of_worker() -> Vec<Arc<ScalarUDF>> {
    let own = [ip::ip_in(), date_trunc::date_trunc(), text_of_key_function(), exact_time::same()];
    own.into_iter().map(Arc::new).chain(render::functions()).collect()
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
