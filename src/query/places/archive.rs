//! An archive among the places: its tables at one moment, each with a store that counts what is read.
use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::prelude::SessionContext;

use super::NamedTable;
use crate::lake::{Archive, Moment, TableSnapshot};
use crate::ledger::{CHUNKS, LeftOut, LeftOutOfPlace};
use crate::query::QueryError;
use crate::query::cluster::store_url;
use crate::query::counted::CountedStore;
use crate::query::report::{Counter, Notes};
use crate::query::table::LakeTable;
use crate::query::union::FilteredTable;

/// An archive, and what it holds.
#[derive(Debug)]
pub(super) struct ArchivePlace {
    pub(super) location: String,
    pub(super) archive: Archive,
    pub(super) moment: Option<Moment>,
    /// Its tables' stores in the session, by table.
    pub(super) stores: HashMap<String, (ObjectStoreUrl, Arc<Counter>)>,
}

impl ArchivePlace {
    /// Its tables, without what other places give.
    pub(super) fn tables(
        &mut self,
        context: &SessionContext,
        left_out: &LeftOutOfPlace,
        notes: &Notes,
    ) -> Result<Vec<NamedTable>, QueryError> {
        let Some(moment) = &self.moment else { return Ok(Vec::new()) };
        let mut tables = Vec::with_capacity(moment.tables.len());
        for snapshot in &moment.tables {
            let store = match self.stores.get(&snapshot.name) {
                Some(store) => store.clone(),
                None => {
                    let store = register_store(context, &self.location, &self.archive, &snapshot.name)?;
                    self.stores.insert(snapshot.name.clone(), store.clone());
                    store
                }
            };
            let table = self.table(store, snapshot, left_out.of(&snapshot.name), notes);
            tables.push((snapshot.name.clone(), table));
        }
        Ok(tables)
    }

    /// Its ledger, for those who look up the entries of rows; its tables must have been asked for before.
    pub(super) fn entries(&self, left_out: &LeftOutOfPlace, notes: &Notes) -> Option<Arc<dyn TableProvider>> {
        let chunks = self.moment.as_ref()?.tables.iter().find(|table| table.name == CHUNKS)?;
        let store = self.stores.get(CHUNKS)?.clone();
        Some(self.table(store, chunks, left_out.of_entries(), notes))
    }

    fn table(
        &self,
        store: (ObjectStoreUrl, Arc<Counter>),
        snapshot: &TableSnapshot,
        left_out: &LeftOut,
        notes: &Notes,
    ) -> Arc<dyn TableProvider> {
        let table: Arc<dyn TableProvider> = Arc::new(LakeTable::new(store, &self.location, snapshot, notes));
        match kept(left_out, snapshot.name != CHUNKS) {
            Some(kept) => Arc::new(FilteredTable { table, kept }),
            None => table,
        }
    }
}

/// A store of its own for each table, so that what is read can be told by table.
fn register_store(
    context: &SessionContext,
    location: &str,
    archive: &Archive,
    table: &str,
) -> Result<(ObjectStoreUrl, Arc<Counter>), QueryError> {
    let url = store_url(archive.url(), table)?;
    let counter = Arc::new(Counter::default());
    let store = CountedStore::new(Arc::clone(archive.store()), location, Arc::clone(&counter));
    context.runtime_env().register_object_store(url.as_ref(), Arc::new(store));
    Ok((url, counter))
}

/// True for the rows that a place gives; `None` if it gives all.
fn kept(left_out: &LeftOut, has_lines: bool) -> Option<Expr> {
    let mut kept = (!left_out.chunks.is_empty())
        .then(|| col("chunk_id").in_list(left_out.chunks.iter().map(|id| lit(*id)).collect(), true));
    let parts = left_out.parts.iter().filter(|_| has_lines).map(|(chunk_id, parts)| {
        let lines = parts
            .iter()
            .map(|(first, end)| col("line").gt_eq(lit(line(*first))).and(col("line").lt(lit(line(*end)))));
        lines.fold(col("chunk_id").not_eq(lit(*chunk_id)), Expr::or)
    });
    for part in parts {
        kept = Some(match kept {
            Some(kept) => kept.and(part),
            None => part,
        });
    }
    kept
}

/// A line's number within its chunk, as its column has it.
fn line(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
