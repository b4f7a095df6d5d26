//! Counts per text value by the dictionaries that data files have, before values are compared as text.
//!
//! `SELECT src, count(*) .. GROUP BY src` spends its time on hashing a text per row, where each file already has a
//! number per value. This rule reads such columns of the archive as dictionaries and puts a [`PrecountExec`] in the
//! place of the aggregate that each core runs for itself: it counts by number, and hands on each file's values once
//! with their counts, for the aggregate behind to merge. Where nothing above that aggregate needs its rows dealt by
//! hash, [`CountedGroupsExec`] takes its place, and merges by number too. Deliberately absent: any aggregate but
//! `count(*)`, and columns that the scan filters by.
mod counters;
mod exec;
mod groups;
mod reader;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::datasource::physical_plan::{
    FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, replace_children_if_necessary};

use self::exec::PrecountExec;
use self::groups::CountedGroupsExec;
use self::reader::DictionaryReaders;

/// The rule, to run after all others.
#[derive(Debug)]
pub(super) struct Precount;

impl PhysicalOptimizerRule for Precount {
    fn name(&self) -> &str {
        "precount"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let counted = match node.downcast_ref::<AggregateExec>() {
                Some(aggregate) => precounted(aggregate)?,
                None => None,
            };
            Ok(counted.map_or(Transformed::no(node), Transformed::yes))
        })
        .data()
        .and_then(with_counted_groups)
    }
}

/// The aggregate that is last but for what orders, renames, filters or limits its rows is taken the place of.
fn with_counted_groups(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(counted) = CountedGroupsExec::in_place_of(&plan) {
        return Ok(Arc::new(counted));
    }
    let passes_rows_on = plan.is::<SortPreservingMergeExec>()
        || plan.is::<SortExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<FilterExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<LocalLimitExec>()
        || plan.is::<GlobalLimitExec>();
    let [child] = plan.children()[..] else { return Ok(plan) };
    if !passes_rows_on {
        return Ok(plan);
    }
    let counted = with_counted_groups(Arc::clone(child))?;
    match Arc::ptr_eq(&counted, child) {
        true => Ok(plan),
        false => replace_children_if_necessary(plan, vec![counted]),
    }
}

/// The aggregate over counts; nothing where it is not `count(*)` by text columns of the archive.
fn precounted(aggregate: &AggregateExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let is_partial = match aggregate.mode() {
        AggregateMode::Partial => true,
        AggregateMode::Single => false,
        _ => return Ok(None),
    };
    let group = aggregate.group_expr();
    let counts_rows = !aggregate.aggr_expr().is_empty()
        && aggregate.aggr_expr().iter().all(|function| {
            let arguments = function.expressions();
            let is_never_null = |argument: &Arc<dyn PhysicalExpr>| {
                argument.downcast_ref::<Literal>().is_some_and(|literal| !literal.value().is_null())
            };
            function.fun().name() == "count"
                && !function.is_distinct()
                && arguments.len() == 1
                && arguments.iter().all(is_never_null)
        })
        && aggregate.filter_expr().iter().all(Option::is_none);
    if !counts_rows || !group.is_single() || group.is_empty() || aggregate.limit_options().is_some() {
        return Ok(None);
    }
    let input = aggregate.input();
    let text_column = |(expr, _): &(Arc<dyn PhysicalExpr>, String)| {
        let column = expr.downcast_ref::<Column>()?;
        let field = input.schema().field(column.index()).clone();
        (*field.data_type() == DataType::Utf8View).then(|| (column.index(), field.name().clone()))
    };
    let Some(columns) = group.expr().iter().map(text_column).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let names: Vec<_> = columns.iter().map(|(_, name)| name.clone()).collect();
    let Some(scan) = with_dictionaries(input, &names)? else { return Ok(None) };
    let positions = columns.into_iter().map(|(position, _)| position).collect();
    let partial = AggregateExec::try_new(
        AggregateMode::Partial,
        group.clone(),
        aggregate.aggr_expr().to_vec(),
        aggregate.filter_expr().to_vec(),
        Arc::clone(input),
        aggregate.input_schema(),
    )?;
    let counted = Arc::new(PrecountExec::new(scan, positions, partial.schema()));
    // what is left is mostly different: to merge it before it is dealt to the cores would be done for little
    if is_partial {
        return Ok(Some(counted));
    }
    let merged = AggregateExec::try_new(
        AggregateMode::Final,
        group.as_final(),
        aggregate.aggr_expr().to_vec(),
        vec![None; aggregate.aggr_expr().len()],
        counted,
        aggregate.input_schema(),
    )?;
    Ok(Some(Arc::new(merged)))
}

/// The same scan, with these text columns as dictionaries; nothing where it is none of data files, or filters by one.
fn with_dictionaries(
    plan: &Arc<dyn ExecutionPlan>,
    names: &[String],
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(scan) = plan.downcast_ref::<DataSourceExec>() else { return Ok(None) };
    let Some((config, source)) = scan.downcast_to_file_source::<ParquetSource>() else { return Ok(None) };
    let (Some(readers), Some(projection)) = (source.parquet_file_reader_factory(), source.projection())
    else {
        return Ok(None);
    };
    let is_plain = projection.iter().all(|projected| {
        let column = projected.expr.downcast_ref::<Column>();
        column.is_some_and(|column| column.name() == projected.alias)
    });
    let is_filtered = source.filter().is_some_and(|filter| {
        collect_columns(&filter).iter().any(|column| names.iter().any(|name| name == column.name()))
    });
    if !is_plain || is_filtered {
        return Ok(None);
    }
    let stored = dictionaries(source.table_schema().file_schema(), names);
    let partitions = source.table_schema().table_partition_cols().to_vec();
    let schema = TableSchema::builder(stored).with_table_partition_cols(partitions).build();
    let mut dictionary_source = ParquetSource::new(schema)
        .with_table_parquet_options(source.table_parquet_options().clone())
        .with_parquet_file_reader_factory(Arc::new(DictionaryReaders::new(
            Arc::clone(readers),
            names.to_vec(),
        )));
    if let Some(filter) = source.filter() {
        dictionary_source = dictionary_source.with_predicate(filter);
    }
    let Some(dictionary_source) = dictionary_source.try_pushdown_projection(projection)? else {
        return Ok(None);
    };
    let config: FileScanConfig =
        FileScanConfigBuilder::from(config.clone()).with_source(dictionary_source).build();
    Ok(Some(DataSourceExec::from_data_source(config)))
}

fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn dictionaries(schema: &Schema, names: &[String]) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| match names.contains(field.name()) {
        true => Arc::new(Field::clone(field).with_data_type(dictionary())),
        false => Arc::clone(field),
    });
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
}
