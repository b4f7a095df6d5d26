//! What the archive's tables look like: stored columns, their Delta form, and what may change in them.
//!
//! Stored types are plain (string, integers, double, boolean, binary, date, timestamp in microseconds UTC), so
//! that any Delta reader takes them as they stand. Deliberately absent: renaming, dropping, retyping columns.
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::{Value, json};

use super::LakeError;
use crate::model::Table;

/// The ledger's table.
pub(super) const CHUNKS: &str = "chunks";
/// The table of lines that no log type accepts.
pub(super) const REJECTS: &str = "rejects";
/// The table of lines of white space only.
pub(super) const BLANKS: &str = "blanks";
/// Partition column of a log type's table.
pub(super) const DAY: &str = "day";
/// Column that names the chunk of a row, in every table.
pub(super) const CHUNK_ID: &str = "chunk_id";

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
        Self::unpartitioned(
            CHUNKS,
            &[
                ("group", DataType::Int64),
                (CHUNK_ID, DataType::Int64),
                ("source_id", DataType::Int64),
                ("file", DataType::Utf8),
                ("device", DataType::Int64),
                ("inode", DataType::Int64),
                ("generation", DataType::Int32),
                ("head_len", DataType::Int32),
                ("head_hash", DataType::Int64),
                ("first_byte", DataType::Int64),
                ("end_byte", DataType::Int64),
                ("content_sha256", DataType::Utf8),
                ("lines", DataType::Int64),
                ("rows", DataType::Int64),
                ("rejects", DataType::Int64),
                ("blanks", DataType::Int64),
                ("types", DataType::Utf8),
                ("min_timestamp", timestamp()),
                ("max_timestamp", timestamp()),
                ("line_ending", DataType::Utf8),
                ("final_newline", DataType::Boolean),
                ("piece", DataType::Int32),
                ("piece_last", DataType::Boolean),
                ("open", DataType::Boolean),
                ("reference_time", timestamp()),
                ("committed_at", timestamp()),
                ("writer", DataType::Utf8),
                ("actions", DataType::Utf8),
            ],
        )
    }

    pub(super) fn rejects() -> Self {
        Self::unpartitioned(
            REJECTS,
            &[
                (CHUNK_ID, DataType::Int64),
                ("line", DataType::Int32),
                ("piece", DataType::Int32),
                ("offset", DataType::Int64),
                ("file", DataType::Utf8),
                ("column", DataType::Int32),
                ("log_type", DataType::Utf8),
                ("reason", DataType::Utf8),
                ("bytes", DataType::Binary),
            ],
        )
    }

    pub(super) fn blanks() -> Self {
        let columns = [(CHUNK_ID, DataType::Int64), ("line", DataType::Int32), ("bytes", DataType::Binary)];
        Self::unpartitioned(BLANKS, &columns)
    }

    fn unpartitioned(name: &str, columns: &[(&str, DataType)]) -> Self {
        let fields: Vec<_> =
            columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect();
        Self {
            name: name.into(),
            schema: Arc::new(Schema::new(fields)),
            timestamp: None,
            indexed: Vec::new(),
        }
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
