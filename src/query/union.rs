//! A table that lies in several places: their rows one after the other, each place pruned by itself.
//!
//! Columns are brought together by name; a column that a place lacks is NULL there. Deliberately absent: which rows
//! a place must leave out. Each place's own table knows.
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::union::UnionExec;

/// The rows of several tables.
#[derive(Debug)]
pub(super) struct UnionTable {
    schema: SchemaRef,
    places: Vec<Arc<dyn TableProvider>>,
}

impl UnionTable {
    /// A table called `name` of what lies in `places`; the one itself where there is only one.
    pub(super) fn of(name: &str, places: Vec<Arc<dyn TableProvider>>) -> Result<Arc<dyn TableProvider>> {
        if let [only] = &places[..] {
            return Ok(Arc::clone(only));
        }
        let mut fields: Vec<Arc<arrow::datatypes::Field>> = Vec::new();
        for place in &places {
            for field in place.schema().fields() {
                match fields.iter().find(|known| known.name() == field.name()) {
                    None => fields.push(Arc::new(field.as_ref().clone().with_nullable(true))),
                    Some(known) if known.data_type() == field.data_type() => {}
                    Some(known) => {
                        return plan_err!(
                            "table {name}: column {} is {} in one place and {} in another; query them apart, one --from each",
                            field.name(),
                            known.data_type(),
                            field.data_type()
                        );
                    }
                }
            }
        }
        Ok(Arc::new(Self { schema: Arc::new(Schema::new(fields)), places }))
    }
}

#[async_trait]
impl TableProvider for UnionTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // where one place cannot decide a filter, it is looked at again above all of them
        let mut supported = vec![TableProviderFilterPushDown::Exact; filters.len()];
        for place in &self.places {
            for (weakest, of_place) in supported.iter_mut().zip(place.supports_filters_pushdown(filters)?) {
                if of_place != TableProviderFilterPushDown::Exact {
                    *weakest = TableProviderFilterPushDown::Inexact;
                }
            }
        }
        for (filter, supported) in filters.iter().zip(&mut supported) {
            if self.places.iter().any(|place| !has_columns(&place.schema(), filter)) {
                *supported = TableProviderFilterPushDown::Inexact;
            }
        }
        Ok(supported)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let mut plans = Vec::with_capacity(self.places.len());
        for place in &self.places {
            let schema = place.schema();
            let columns: Vec<usize> =
                wanted.fields().iter().filter_map(|field| schema.index_of(field.name()).ok()).collect();
            let filters: Vec<Expr> =
                filters.iter().filter(|filter| has_columns(&schema, filter)).cloned().collect();
            let plan = place.scan(state, Some(&columns), &filters, limit).await?;
            plans.push(with_columns(plan, &wanted)?);
        }
        UnionExec::try_new(plans)
    }
}

fn has_columns(schema: &Schema, filter: &Expr) -> bool {
    filter.column_refs().iter().all(|column| schema.index_of(column.name()).is_ok())
}

/// The plan's columns as those of `wanted`, NULL where it has none.
fn with_columns(plan: Arc<dyn ExecutionPlan>, wanted: &Schema) -> Result<Arc<dyn ExecutionPlan>> {
    let given = plan.schema();
    let is_same = given.fields().len() == wanted.fields().len()
        && given.fields().iter().zip(wanted.fields()).all(|(given, wanted)| given.name() == wanted.name());
    if is_same {
        return Ok(plan);
    }
    let columns = wanted.fields().iter().map(|field| {
        let expr: Arc<dyn PhysicalExpr> = match given.index_of(field.name()) {
            Ok(index) => Arc::new(Column::new(field.name(), index)),
            Err(_) => null(field.data_type())?,
        };
        Ok((expr, field.name().clone()))
    });
    Ok(Arc::new(ProjectionExec::try_new(columns.collect::<Result<Vec<_>>>()?, plan)?))
}

fn null(data_type: &DataType) -> Result<Arc<dyn PhysicalExpr>> {
    match ScalarValue::try_from(data_type) {
        Ok(null) => Ok(lit(null)),
        Err(_) => Ok(Arc::new(CastExpr::new(lit(ScalarValue::Null), data_type.clone(), None))),
    }
}

/// A table without the rows for which `kept` is not true: what another place gives.
#[derive(Debug)]
pub(super) struct FilteredTable {
    pub(super) table: Arc<dyn TableProvider>,
    pub(super) kept: Expr,
}

#[async_trait]
impl TableProvider for FilteredTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.table.supports_filters_pushdown(filters)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.table.schema();
        let mut columns: Vec<usize> =
            projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        let num_wanted = columns.len();
        for column in self.kept.column_refs() {
            let index = schema.index_of(column.name())?;
            if !columns.contains(&index) {
                columns.push(index);
            }
        }
        let filters: Vec<Expr> = filters.iter().cloned().chain([self.kept.clone()]).collect();
        let plan = self.table.scan(state, Some(&columns), &filters, None).await?;
        let kept = state.create_physical_expr(self.kept.clone(), &DFSchema::try_from(plan.schema())?)?;
        let filter = FilterExecBuilder::new(kept, plan)
            .apply_projection(Some((0..num_wanted).collect()))?
            .with_fetch(limit);
        Ok(Arc::new(filter.build()?))
    }
}
