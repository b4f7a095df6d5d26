//! A table of Postgres as DataFusion scans it: columns and filters go to the server as SQL, rows come by binary COPY.
//!
//! The schema is the archive's: addresses, JSON and `extra` are text, `day` says which leaf a row lies in, NULL for the
//! one of rows whose day has none. Large tables are read by two connections, parted at a day. Rows that an earlier
//! place gives are left out by the server too, and a time range of the chunks that remain, so that it opens no leaf
//! without a row to give. Deliberately absent: aggregates on the server; psql is there for those.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures_util::stream;
use serde_json::Value;

use super::error::Lost;
use super::report::{Counter, Notes};
use super::scan::{Part, ScanExec};
use super::table::{DAY, TIMESTAMP, with_views};
use crate::ledger::{CHUNKS, LeftOut};
use crate::log_type::ddl::quoted;
use crate::model::ChunkRecord;
use crate::warehouse::{HeldTable, PgType, RowStream, Snapshot, WarehouseError};

mod pushdown;

use pushdown::{Pushed, instant};

/// From this size on a table is read by two connections.
const SPLIT_BYTES: u64 = 16 << 20;

/// The rows of a table that its place gives.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    /// Conditions on rows, as SQL.
    conditions: Vec<String>,
    /// Nothing: other places give all of it.
    is_nothing: bool,
}

impl Given {
    /// What `left_out` leaves of a table of log type `name`, or of rejects, blanks or chunks.
    pub(super) fn new(name: &str, is_log_type: bool, records: &[ChunkRecord], left_out: &LeftOut) -> Self {
        if left_out.is_empty() {
            return Self::default();
        }
        let has_rows = |record: &&ChunkRecord| !is_log_type || record.rows_in(name) > 0;
        let (left, kept): (Vec<&ChunkRecord>, Vec<&ChunkRecord>) =
            records.iter().filter(has_rows).partition(|record| left_out.chunks.contains(&record.chunk_id));
        let mut conditions = Vec::new();
        let times = kept.iter().filter_map(|record| record.time_range).filter(|_| is_log_type);
        let range = times.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        if let Some((first, last)) = range {
            let bound =
                |compares: &str, micros| Some(format!("\"{TIMESTAMP}\" {compares} {}", instant(micros)?));
            conditions.extend([bound(">=", first), bound("<=", last)].into_iter().flatten());
        }
        // of chunks that end before or begin behind, the bounds let no row through
        let is_between = |record: &&ChunkRecord| match (range, record.time_range) {
            (Some(range), Some(own)) => range.0 <= own.1 && own.0 <= range.1,
            _ => true,
        };
        let ids = |records: &[&ChunkRecord]| {
            let ids: BTreeSet<i64> = records.iter().map(|record| record.chunk_id).collect();
            ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        let left: Vec<&ChunkRecord> = left.into_iter().filter(is_between).collect();
        // the snapshot's ledger knows every chunk of its rows, so that naming either side means the same
        if kept.len() < left.len() {
            conditions.push(format!("\"chunk_id\" = ANY ('{{{}}}'::bigint[])", ids(&kept)));
        } else if !left.is_empty() {
            conditions.push(format!("\"chunk_id\" <> ALL ('{{{}}}'::bigint[])", ids(&left)));
        }
        for (chunk_id, parts) in left_out.parts.iter().filter(|_| name != CHUNKS) {
            let parts =
                parts.iter().map(|(first, end)| format!(" OR \"line\" >= {first} AND \"line\" < {end}"));
            conditions.push(format!("(\"chunk_id\" <> {chunk_id}{})", parts.collect::<String>()));
        }
        Self { conditions, is_nothing: kept.is_empty() }
    }
}

/// A table at the moment of a snapshot.
#[derive(Debug)]
pub(super) struct PostgresTable {
    /// Gone once the statement that it was taken for is planned: nothing is scanned after that.
    snapshot: Weak<Snapshot>,
    place: String,
    held: HeldTable,
    schema: SchemaRef,
    given: Given,
    notes: Notes,
}

impl PostgresTable {
    pub(super) fn new(snapshot: &Arc<Snapshot>, held: &HeldTable, given: Given, notes: &Notes) -> Self {
        let mut fields = with_views(&held.schema).fields().to_vec();
        if held.default_leaf.is_some() {
            fields.push(Arc::new(Field::new(DAY, DataType::Date32, true)));
        }
        Self {
            snapshot: Arc::downgrade(snapshot),
            place: snapshot.warehouse().address(),
            held: held.clone(),
            schema: Arc::new(Schema::new(fields)),
            given,
            notes: notes.clone(),
        }
    }

    fn push(&self, filter: &Expr) -> Option<Pushed> {
        let pg_type = |name: &str| {
            let index = self.held.schema.index_of(name).ok()?;
            self.held.types.get(index).copied()
        };
        pushdown::to_sql(filter, &pg_type)
    }

    /// What the columns are in the SQL, and their types.
    fn columns(&self, wanted: &Schema) -> Result<(Vec<String>, Vec<PgType>)> {
        let column = |field: &Arc<Field>| match self.held.schema.index_of(field.name()) {
            Ok(index) => Ok((quoted(field.name()), self.held.types[index])),
            // days since 1970-01-01; a row outside of its day's leaf has none
            Err(_) => {
                let day = format!("(\"{TIMESTAMP}\" AT TIME ZONE 'UTC')::date - date '1970-01-01'");
                let default = self.held.default_leaf.unwrap_or(0);
                Ok((format!("CASE WHEN tableoid <> {default} THEN {day} END"), PgType::Int4))
            }
        };
        Ok(wanted.fields().iter().map(column).collect::<Result<Vec<_>>>()?.into_iter().unzip())
    }

    /// Conditions that part the table in two of about the same size; one that is always true where it is small.
    fn split(&self) -> Vec<Option<String>> {
        let total: u64 = self.held.days.values().sum();
        if total < SPLIT_BYTES || self.held.days.len() < 2 {
            return vec![None];
        }
        let mut before = 0;
        let middle = self.held.days.iter().find_map(|(day, size)| {
            let is_middle = before > 0 && (before + size / 2) * 2 >= total;
            before += size;
            is_middle.then_some(*day)
        });
        let Some(middle) = middle.and_then(pushdown::midnight) else { return vec![None] };
        vec![
            Some(format!("\"{TIMESTAMP}\" < {middle}")),
            Some(format!("(\"{TIMESTAMP}\" >= {middle} OR \"{TIMESTAMP}\" IS NULL)")),
        ]
    }
}

#[async_trait]
impl TableProvider for PostgresTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let supported = |filter: &&Expr| match self.push(filter) {
            Some(Pushed { is_exact: true, .. }) => TableProviderFilterPushDown::Exact,
            Some(_) => TableProviderFilterPushDown::Inexact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(supported).collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let counter = Arc::new(Counter::default());
        if self.given.is_nothing {
            self.notes.sql(&self.place, &self.held.name, Vec::new(), &counter);
            return Ok(Arc::new(EmptyExec::new(wanted)));
        }
        let Some(snapshot) = self.snapshot.upgrade() else {
            return exec_err!("{}: the statement that this snapshot was for is over", self.place);
        };
        let (columns, types) = self.columns(&wanted)?;
        let pushed = filters.iter().filter_map(|filter| self.push(filter)).map(|pushed| pushed.sql);
        let conditions: Vec<String> = pushed.chain(self.given.conditions.iter().cloned()).collect();
        let limit = limit.map(|limit| format!(" LIMIT {limit}")).unwrap_or_default();
        let queries: Vec<String> = self
            .split()
            .into_iter()
            .map(|half| {
                let conditions: Vec<String> = conditions.iter().cloned().chain(half).collect();
                let filter = match conditions.is_empty() {
                    true => String::new(),
                    false => format!(" WHERE {}", conditions.join(" AND ")),
                };
                format!("SELECT {} FROM {}{filter}{limit}", columns.join(", "), self.held.qualified)
            })
            .collect();
        self.notes.sql(&self.place, &self.held.name, queries.clone(), &counter);
        let detail = format!("sql=[{}]", queries.join("; "));
        let parts = queries.into_iter().map(|query| {
            let rows = Rows {
                snapshot: Arc::clone(&snapshot),
                query,
                types: types.clone(),
                wanted: Arc::clone(&wanted),
                counter: Arc::clone(&counter),
            };
            Arc::new(rows) as Arc<dyn Part>
        });
        Ok(Arc::new(ScanExec::new("PostgresExec", detail, Arc::clone(&wanted), parts.collect())))
    }
}

/// One statement's rows.
#[derive(Debug, Clone)]
struct Rows {
    snapshot: Arc<Snapshot>,
    query: String,
    types: Vec<PgType>,
    wanted: SchemaRef,
    counter: Arc<Counter>,
}

impl Part for Rows {
    fn open(&self) -> Result<SendableRecordBatchStream> {
        let rows =
            stream::try_unfold((self.clone(), None), |(rows, open): (Self, Option<RowStream>)| async {
                let mut open = match open {
                    Some(open) => open,
                    None => rows.start().await?,
                };
                let before = open.len_bytes;
                let batch = open.next().await.map_err(|error| rows.failed(error))?;
                rows.counter.add(open.len_bytes - before, 0);
                match batch {
                    Some(batch) => Ok(Some((rows.with_types(&batch)?, (rows, Some(open))))),
                    None => Ok(None),
                }
            });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.wanted), rows)))
    }
}

impl Rows {
    fn failed(&self, error: WarehouseError) -> DataFusionError {
        Lost::or_postgres(&self.snapshot.address(), error)
    }

    async fn start(&self) -> Result<RowStream> {
        let field =
            |(field, pg_type): (&Arc<Field>, &PgType)| Field::new(field.name(), pg_type.arrow_type(), true);
        let fields = self.wanted.fields().iter().zip(&self.types).map(field);
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        self.counter.add(0, 1);
        let rows = self.snapshot.rows(&self.query, schema, self.types.clone());
        rows.await.map_err(|error| self.failed(error))
    }

    /// The rows with the table's types.
    fn with_types(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = batch.columns().iter().zip(self.wanted.fields()).zip(&self.types);
        let columns = columns.map(|((column, field), pg_type)| {
            let column = match pg_type {
                PgType::Jsonb => compact(column),
                _ => Arc::clone(column),
            };
            Ok(cast(&column, field.data_type())?)
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.wanted), columns, &options)?)
    }
}

/// JSON objects as the archive writes them: without blanks, keys in their order. `jsonb` prints another.
fn compact(column: &ArrayRef) -> ArrayRef {
    let texts = column.as_string::<i32>();
    if texts.null_count() == texts.len() {
        return Arc::clone(column);
    }
    let compact = texts.iter().map(|text| {
        let text = text?;
        let sorted: Option<BTreeMap<String, Value>> = serde_json::from_str(text).ok();
        Some(sorted.map_or_else(|| text.to_owned(), |sorted| serde_json::json!(sorted).to_string()))
    });
    Arc::new(compact.collect::<StringArray>())
}
