//! A table of the archive as DataFusion scans it: one version's data files, pruned before they are opened.
//!
//! Pruning, outside in: whole files by `day` (exact) and by the files' time ranges here; then row groups, pages
//! and bloom filters by the Parquet reader, to which the remaining filters are pushed down.
//! Strings are read as views: a third of the copying of plain strings in filters and groups.
//! Deliberately absent: listing the object store. The Delta log says what the files are.
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{ColumnStatistics, DFSchema, Result, ScalarValue, Statistics};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::listing::helpers::expr_applicable_for_cols;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

use super::report::{Counter, Notes};
use crate::lake::{DataFile, TableSnapshot};

/// Partition column, behind the stored ones.
pub(super) const DAY: &str = "day";
/// Event time, whose range the Delta log holds per file.
pub(super) const TIMESTAMP: &str = "timestamp";

/// One version of a table.
#[derive(Debug)]
pub(super) struct LakeTable {
    store_url: ObjectStoreUrl,
    place: String,
    name: String,
    notes: Notes,
    /// What was read of it.
    counter: Arc<Counter>,
    schema: TableSchema,
    files: Vec<PartitionedFile>,
}

impl LakeTable {
    /// A table whose files are in the store at `store_url`, rooted at the archive `place`, which counts what is read.
    pub(super) fn new(
        (store_url, counter): (ObjectStoreUrl, Arc<Counter>),
        place: &str,
        snapshot: &TableSnapshot,
        notes: &Notes,
    ) -> Self {
        let partitions = match snapshot.partitioned {
            true => vec![Arc::new(Field::new(DAY, DataType::Date32, true))],
            false => vec![],
        };
        let schema =
            TableSchema::builder(with_views(&snapshot.schema)).with_table_partition_cols(partitions).build();
        let file = |file: &DataFile| {
            let mut scanned = PartitionedFile::new(&file.path, file.size_bytes);
            scanned.statistics = Some(Arc::new(statistics(file, schema.table_schema())));
            if snapshot.partitioned {
                scanned.partition_values = vec![ScalarValue::Date32(file.day)];
            }
            scanned
        };
        let files = snapshot.files.iter().map(file).collect();
        let (place, name, notes) = (place.to_owned(), snapshot.name.clone(), notes.clone());
        Self { store_url, place, name, notes, counter, schema, files }
    }

    /// The files that may hold rows for which all `filters` are true.
    fn prune(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<PartitionedFile>> {
        let mut files = self.files.clone();
        let (by_day, others): (Vec<Expr>, Vec<Expr>) =
            filters.iter().filter(|f| has_no_subquery(f)).cloned().partition(|f| self.is_by_day(f));
        if let Some(filter) = conjunction(by_day) {
            let schema = Arc::new(Schema::new(self.schema.table_partition_cols().clone()));
            let days: Date32Array = files.iter().map(day_of).collect();
            let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(days) as ArrayRef])?;
            let filter = state.create_physical_expr(filter, &DFSchema::try_from(schema)?)?;
            let kept = filter.evaluate(&rows)?.into_array(rows.num_rows())?;
            let kept = kept.as_boolean();
            let mut index = 0..;
            files.retain(|_| index.next().is_some_and(|i: usize| kept.is_valid(i) && kept.value(i)));
        }
        if let Some(filter) = conjunction(others)
            && !files.is_empty()
        {
            let schema = self.schema.table_schema();
            let filter = state.create_physical_expr(filter, &DFSchema::try_from(Arc::clone(schema))?)?;
            let predicate =
                PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema)).try_build(filter)?;
            let known = files.iter().filter_map(|file| file.statistics.clone()).collect();
            let kept = predicate.prune(&PrunableStatistics::new(known, Arc::clone(schema)))?;
            let mut kept = kept.into_iter();
            files.retain(|_| kept.next().unwrap_or(true));
        }
        Ok(files)
    }

    /// Whether the Delta log alone decides the filter for every row of a file.
    fn is_by_day(&self, filter: &Expr) -> bool {
        !self.schema.table_partition_cols().is_empty()
            && has_no_subquery(filter)
            && expr_applicable_for_cols(&[DAY], filter)
    }
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let pushdown = |filter: &&Expr| match self.is_by_day(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(pushdown).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let files = self.prune(state, filters)?;
        self.counter.reset();
        self.notes.files(&self.place, &self.name, (files.len(), self.files.len()), &self.counter);
        let schema = self.schema.table_schema();
        if files.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(schema.project(columns)?),
                None => Arc::clone(schema),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let known = files.iter().filter_map(|file| file.statistics.as_deref());
        let statistics = Statistics::try_merge_iter(known, schema)?;
        let options = TableParquetOptions {
            global: state.config_options().execution.parquet.clone(),
            ..TableParquetOptions::default()
        };
        let source = ParquetSource::new(self.schema.clone()).with_table_parquet_options(options.clone());
        let scan = FileScanConfigBuilder::new(self.store_url.clone(), Arc::new(source))
            .with_file_groups(FileGroup::new(files).split_files(state.config().target_partitions()))
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        // The format adds the reader that keeps Parquet footers across the session's queries.
        ParquetFormat::default().with_options(options).create_physical_plan(state, scan).await
    }
}

/// What the Delta log says of a file, exactly: `count(*)` and the first and last time need no scan.
fn statistics(file: &DataFile, schema: &Schema) -> Statistics {
    let num_rows = file.num_rows as usize;
    let column = |field: &Arc<Field>| {
        let unknown = ColumnStatistics::new_unknown();
        match (field.name().as_str(), file.time_range, file.day) {
            (TIMESTAMP, Some((first, last)), _) => ColumnStatistics {
                null_count: Precision::Exact(0),
                min_value: instant(first, field.data_type()),
                max_value: instant(last, field.data_type()),
                ..unknown
            },
            (DAY, _, Some(day)) => ColumnStatistics {
                null_count: Precision::Exact(0),
                min_value: Precision::Exact(ScalarValue::Date32(Some(day))),
                max_value: Precision::Exact(ScalarValue::Date32(Some(day))),
                ..unknown
            },
            (DAY, _, None) => ColumnStatistics { null_count: Precision::Exact(num_rows), ..unknown },
            _ => unknown,
        }
    };
    Statistics {
        num_rows: Precision::Exact(num_rows),
        total_byte_size: Precision::Absent,
        column_statistics: schema.fields().iter().map(column).collect(),
    }
}

fn instant(microseconds: i64, data_type: &DataType) -> Precision<ScalarValue> {
    match data_type {
        DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, zone) => {
            Precision::Exact(ScalarValue::TimestampMicrosecond(Some(microseconds), zone.clone()))
        }
        _ => Precision::Absent,
    }
}

fn day_of(file: &PartitionedFile) -> Option<i32> {
    match file.partition_values.first() {
        Some(ScalarValue::Date32(day)) => *day,
        _ => None,
    }
}

/// A subquery's value is not known while files are chosen.
fn has_no_subquery(filter: &Expr) -> bool {
    let is_subquery = |expr: &Expr| {
        Ok(matches!(
            expr,
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_)
        ))
    };
    matches!(filter.exists(is_subquery), Ok(false))
}

pub(super) fn with_views(schema: &Schema) -> SchemaRef {
    let view = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
        DataType::Binary => Arc::new(field.as_ref().clone().with_data_type(DataType::BinaryView)),
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(view).collect::<Vec<_>>()))
}
