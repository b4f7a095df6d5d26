//! What the archive's tables look like: stored columns, their Delta form, and what may change in them.
//!
//! Stored types are plain (string, integers, double, boolean, binary, date, timestamp in microseconds UTC), so
//! that any Delta reader takes them as they stand. Deliberately absent: renaming, dropping, retyping columns.
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::{Value, json};

use super::LakeError;
use super::chain::CHAIN;
use crate::ledger::{self, BLANKS, CHUNKS, REJECTS};
use crate::model::Table;

/// Partition column of a log type's table.
pub(super) const DAY: &str = "day";
/// How a table is laid out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    /// Folder in the archive.
    pub(super) name: String,
    /// Stored columns, without `day`.
    pub(super) schema: SchemaRef,
    /// The event time, by which rows are partitioned.
    pub(super) timestamp: Option<String>,
    /// Columns with a bloom filter.
    pub(super) indexed: Vec<String>,
}

impl Layout {
    /// Of a log type.
    pub(super) fn of_type(table: &Table) -> Result<Self, LakeError> {
        let refuse = |reason: String| LakeError::IncompatibleSchema { table: table.log_type.clone(), reason };
        let reserved = [CHUNKS, REJECTS, BLANKS].contains(&table.log_type.as_str());
        if reserved || table.log_type.starts_with(['_', '.']) || table.log_type.contains('/') {
            return Err(refuse("the archive keeps this name for itself; name the log type otherwise".into()));
        }
        let schema = stored_schema(&table.schema);
        for field in schema.fields() {
            if delta_type(field.data_type()).is_none() || field.name() == DAY {
                let kind = field.data_type();
                return Err(refuse(format!(
                    "column {} ({kind}) cannot be stored; rename or retype it",
                    field.name()
                )));
            }
        }
        let name_of = |position: &usize| schema.field(*position).name().clone();
        Ok(Self {
            name: table.log_type.clone(),
            timestamp: Some(name_of(&table.timestamp_column)),
            indexed: table.indexed_columns.iter().map(name_of).collect(),
            schema,
        })
    }

    pub(super) fn chunks() -> Self {
        let entry = ledger::columns();
        let group = Arc::new(Field::new("group", DataType::Int64, true));
        let actions = Arc::new(Field::new("actions", DataType::Utf8, true));
        let chain = Arc::new(Field::new(CHAIN, DataType::Utf8, true));
        let fields = std::iter::once(group).chain(entry.fields().iter().cloned()).chain([actions, chain]);
        Self::unpartitioned(CHUNKS, Arc::new(Schema::new(fields.collect::<Vec<_>>())))
    }

    pub(super) fn rejects() -> Self {
        Self::unpartitioned(REJECTS, ledger::reject_columns())
    }

    pub(super) fn blanks() -> Self {
        Self::unpartitioned(BLANKS, ledger::blank_columns())
    }

    fn unpartitioned(name: &str, schema: SchemaRef) -> Self {
        Self { name: name.into(), schema, timestamp: None, indexed: Vec::new() }
    }

    /// The `metaData` action of the table; `id` is kept when a table changes.
    pub(super) fn metadata(&self, id: &str, created_time: i64) -> Value {
        let field =
            |name: &str, kind: &str| json!({"name": name, "type": kind, "nullable": true, "metadata": {}});
        let mut fields: Vec<_> = (self.schema.fields().iter())
            .map(|stored| field(stored.name(), delta_type(stored.data_type()).unwrap_or("string")))
            .collect();
        let mut partition_columns = Vec::new();
        if self.timestamp.is_some() {
            fields.push(field(DAY, "date"));
            partition_columns.push(DAY);
        }
        json!({"metaData": {
            "id": id,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": json!({"type": "struct", "fields": fields}).to_string(),
            "partitionColumns": partition_columns,
            "configuration": {
                "delta.enableDeletionVectors": "false",
                "pipeline.timestamp": self.timestamp.as_deref().unwrap_or_default(),
                "pipeline.indexed": self.indexed.join(","),
            },
            "createdTime": created_time,
        }})
    }

    /// What the stored table must become so that rows of `wanted` fit: `None` when they fit already.
    pub(super) fn evolved_to(&self, wanted: &Layout) -> Result<Option<Layout>, LakeError> {
        let refuse = |reason: String| LakeError::IncompatibleSchema { table: self.name.clone(), reason };
        if self.timestamp != wanted.timestamp {
            return Err(refuse(
                "the event time is another column; give the changed log type another name".into(),
            ));
        }
        let mut fields: Vec<_> = self.schema.fields().iter().cloned().collect();
        for field in wanted.schema.fields() {
            match self.schema.field_with_name(field.name()) {
                Err(_) => fields.push(Arc::clone(field)),
                Ok(stored) if stored.data_type() == field.data_type() => {}
                Ok(stored) => {
                    return Err(refuse(format!(
                        "column {} is stored as {} and the type file says {}; give the changed log type another name",
                        field.name(),
                        stored.data_type(),
                        field.data_type()
                    )));
                }
            }
        }
        let evolved =
            Layout { schema: Arc::new(Schema::new(fields)), indexed: wanted.indexed.clone(), ..self.clone() };
        Ok((evolved != *self).then_some(evolved))
    }
}

/// Microseconds since the epoch, UTC.
pub(super) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Dictionaries and views become the plain type; every column is nullable, for Delta readers do not agree on
/// how to add a required one.
fn stored_schema(schema: &Schema) -> SchemaRef {
    let plain = |kind: &DataType| match kind {
        DataType::Dictionary(_, value) => (**value).clone(),
        other => other.clone(),
    };
    let plain = |kind: &DataType| match plain(kind) {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        DataType::Timestamp(TimeUnit::Microsecond, _) => timestamp(),
        other => other,
    };
    let fields: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), plain(field.data_type()), true))
        .collect();
    Arc::new(Schema::new(fields))
}

fn delta_type(kind: &DataType) -> Option<&'static str> {
    Some(match kind {
        DataType::Boolean => "boolean",
        DataType::Int16 => "short",
        DataType::Int32 => "integer",
        DataType::Int64 => "long",
        DataType::Float64 => "double",
        DataType::Utf8 => "string",
        DataType::Binary => "binary",
        DataType::Date32 => "date",
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "timestamp",
        _ => return None,
    })
}
