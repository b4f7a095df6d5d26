//! Functions that give a row back as its line, its time's own text, and one JSON object: what the view `logs`
//! is made of.
//!
//! A row is rendered by the version of its log type that read it.
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::LogsBranch;
use super::error::external;
use crate::log_type::LogType;
use crate::log_type::render::Renderer;

mod carried;

pub(super) use carried::functions;

/// The versions of one log type that an archive's rows were read with.
#[derive(Debug)]
pub struct TypeVersions {
    /// The newest, which names the table and its columns.
    pub newest: Arc<LogType>,
    /// Earlier ones.
    pub earlier: Vec<Arc<LogType>>,
    /// Chunks whose rows were read with an earlier one, and which.
    pub earlier_chunks: HashMap<i64, usize>,
}

impl LogsBranch {
    /// The branch of a log type.
    pub fn new(versions: TypeVersions) -> Self {
        let versions = Arc::new(versions);
        let newest = &versions.newest;
        let arguments = arguments(newest);
        let function =
            |output| Arc::new(ScalarUDF::new_from_impl(Render::new(output, &versions, &arguments)));
        Self {
            log_type: newest.name().to_owned(),
            table: newest.table.name.clone(),
            versions: None,
            raw_line: function(Output::RawLine),
            timestamp: function(Output::Timestamp),
            parsed_data: function(Output::ParsedData),
            arguments,
        }
    }
}

/// The columns that a row is rendered from.
fn arguments(log_type: &LogType) -> Vec<String> {
    let columns = log_type.columns.iter().map(|column| column.name.clone());
    columns.chain(["chunk_id", "form", "raw", "extra"].map(str::to_owned)).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    RawLine,
    Timestamp,
    ParsedData,
}

impl Output {
    fn name(self) -> &'static str {
        match self {
            Self::RawLine => "raw_line",
            Self::Timestamp => "timestamp_text",
            Self::ParsedData => "parsed_data",
        }
    }
}

#[derive(Debug)]
struct Render {
    /// Tells functions apart: one per output and log type.
    name: String,
    output: Output,
    versions: Arc<TypeVersions>,
    arguments: Vec<String>,
    signature: Signature,
}

impl PartialEq for Render {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.versions, &other.versions)
    }
}

impl Eq for Render {}

impl Hash for Render {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Render {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let fields: Vec<_> = self
            .arguments
            .iter()
            .zip(&arrays)
            .map(|(name, array)| Field::new(name, array.data_type().clone(), true))
            .collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;
        Ok(ColumnarValue::Array(self.render(&batch)?))
    }
}

impl Render {
    fn new(output: Output, versions: &Arc<TypeVersions>, arguments: &[String]) -> Self {
        Self {
            name: format!("{}_of_{}", output.name(), versions.newest.name()),
            output,
            versions: Arc::clone(versions),
            arguments: arguments.to_vec(),
            signature: Signature::any(arguments.len(), Volatility::Immutable),
        }
    }

    fn render(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let renderer = |log_type| Renderer::try_new(log_type, batch).map_err(external);
        let newest = renderer(&self.versions.newest)?;
        let earlier: Vec<_> = self
            .versions
            .earlier
            .iter()
            .map(|log_type| Ok((log_type, renderer(log_type)?)))
            .collect::<Result<_>>()?;
        let column = |name: &str, data_type: &DataType| match batch.column_by_name(name) {
            Some(array) => Ok(cast(array, data_type)?),
            None => Err(DataFusionError::Internal(format!("no argument {name}"))),
        };
        let chunk_ids = column("chunk_id", &DataType::Int64)?;
        let chunk_ids = chunk_ids.as_primitive::<Int64Type>();
        let extra = column("extra", &DataType::Utf8)?;
        let extra = extra.as_string::<i32>();
        let mut out = StringBuilder::with_capacity(batch.num_rows(), batch.num_rows() * 128);
        let mut text = Vec::new();
        for row in 0..batch.num_rows() {
            text.clear();
            let version = self.versions.earlier_chunks.get(&chunk_ids.value(row));
            let (log_type, renderer) = match version.and_then(|version| earlier.get(*version)) {
                Some((log_type, renderer)) => (*log_type, renderer),
                None => (&self.versions.newest, &newest),
            };
            match self.output {
                Output::RawLine => {
                    renderer.line(row, &mut text);
                    // kept bytes may hold the carriage return of the line's ending
                    out.append_value(String::from_utf8_lossy(text.strip_suffix(b"\r").unwrap_or(&text)));
                }
                Output::Timestamp => {
                    renderer.timestamp_text(row, &mut text);
                    out.append_value(String::from_utf8_lossy(&text));
                }
                Output::ParsedData => {
                    let extra = extra.is_valid(row).then(|| extra.value(row));
                    out.append_value(parsed_data(log_type, renderer, row, extra));
                }
            }
        }
        Ok(Arc::new(out.finish()))
    }
}

/// `log_type`, `timestamp` and every key that the line has, as strings.
fn parsed_data(log_type: &LogType, renderer: &Renderer<'_>, row: usize, extra: Option<&str>) -> String {
    let mut entries: BTreeMap<String, String> = match extra {
        Some(extra) => serde_json::from_str(extra).unwrap_or_default(),
        None => BTreeMap::new(),
    };
    let mut text = Vec::new();
    for (position, column) in log_type.columns.iter().enumerate() {
        text.clear();
        let has_value = match position == log_type.timestamp_column {
            true => {
                renderer.timestamp_text(row, &mut text);
                true
            }
            false => renderer.value_text(position, row, &mut text),
        };
        if has_value {
            entries.insert(column.name.clone(), String::from_utf8_lossy(&text).into_owned());
        }
    }
    entries.insert("log_type".into(), log_type.name().into());
    serde_json::json!(entries).to_string()
}
