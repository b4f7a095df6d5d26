//! The functions of the view `logs` for processes that have not read the places: each call carries, before its
//! columns, the versions of the log type as a literal.
//!
//! A plan sends functions by their names only, so that what a function knows cannot travel with it.
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{LogsBranch, Output, Render, TypeVersions, arguments};
use crate::log_type::LogType;
use crate::query::QueryError;
use crate::query::error::external;

/// Log types that a worker keeps compiled.
const MAX_KNOWN: usize = 64;

#[derive(Serialize, Deserialize)]
struct WireVersions {
    newest: String,
    earlier: Vec<String>,
    earlier_chunks: Vec<(i64, usize)>,
}

impl LogsBranch {
    /// The branch of a log type, for plans that travel.
    pub(in crate::query) fn carried(versions: &TypeVersions) -> Result<Self, QueryError> {
        let mut earlier_chunks: Vec<_> =
            versions.earlier_chunks.iter().map(|(chunk, version)| (*chunk, *version)).collect();
        earlier_chunks.sort_unstable();
        let wire = WireVersions {
            newest: versions.newest.table.text.clone(),
            earlier: versions.earlier.iter().map(|log_type| log_type.table.text.clone()).collect(),
            earlier_chunks,
        };
        let bytes = serde_json::to_vec(&wire).map_err(external)?;
        let [raw_line, timestamp, parsed_data] = functions();
        Ok(Self {
            log_type: versions.newest.name().to_owned(),
            table: versions.newest.table.name.clone(),
            arguments: arguments(&versions.newest),
            versions: Some(lit(ScalarValue::Binary(Some(bytes)))),
            raw_line,
            timestamp,
            parsed_data,
        })
    }
}

/// The three functions.
pub(in crate::query) fn functions() -> [Arc<ScalarUDF>; 3] {
    [Output::RawLine, Output::Timestamp, Output::ParsedData].map(|output| {
        Arc::new(ScalarUDF::new_from_impl(Carried {
            name: format!("{}_by", output.name()),
            output,
            signature: Signature::variadic_any(Volatility::Immutable),
            known: Mutex::default(),
        }))
    })
}

#[derive(Debug)]
struct Carried {
    name: String,
    output: Output,
    signature: Signature,
    /// By the hash of their literals.
    known: Mutex<HashMap<u64, Arc<Render>>>,
}

impl PartialEq for Carried {
    fn eq(&self, other: &Self) -> bool {
        self.output == other.output
    }
}

impl Eq for Carried {}

impl Hash for Carried {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Carried {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if args.args.is_empty() {
            return exec_err!("{} is a function of the view logs", self.name);
        }
        let versions = match args.args.remove(0) {
            ColumnarValue::Scalar(value) => value,
            ColumnarValue::Array(values) if values.is_empty() => ScalarValue::Binary(None),
            ColumnarValue::Array(values) => ScalarValue::try_from_array(&values, 0)?,
        };
        let ScalarValue::Binary(Some(versions)) = versions else {
            return internal_err!("{} came without its log type", self.name);
        };
        args.arg_fields.remove(0);
        self.render(&versions)?.invoke_with_args(args)
    }
}

impl Carried {
    fn render(&self, bytes: &[u8]) -> Result<Arc<Render>> {
        let hash = xxh3_64(bytes);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(render) = known.get(&hash) {
            return Ok(Arc::clone(render));
        }
        let wire: WireVersions = serde_json::from_slice(bytes).map_err(external)?;
        let compiled =
            |text: &String| LogType::try_new("sent with a query", text).map(Arc::new).map_err(external);
        let versions = TypeVersions {
            newest: compiled(&wire.newest)?,
            earlier: wire.earlier.iter().map(compiled).collect::<Result<_>>()?,
            earlier_chunks: wire.earlier_chunks.into_iter().collect(),
        };
        let arguments = arguments(&versions.newest);
        let render = Arc::new(Render::new(self.output, &Arc::new(versions), &arguments));
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(hash, Arc::clone(&render));
        Ok(render)
    }
}
