//! `json ->> 'key'`: a key's value as text, so that SQL written for the old JSONB table reads `parsed_data`.
//!
//! As in Postgres: a string without its quotes, anything else as JSON, NULL where the key or the object lacks.
//! Deliberately absent: the other JSON operators; the typed tables have columns for what they would find.
use std::sync::Arc;

use arrow::array::{AsArray, StringViewArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;
use serde_json::Value;

/// Gives `->>` its meaning.
#[derive(Debug)]
pub(super) struct JsonPlanner {
    text_of_key: ScalarUDF,
}

impl JsonPlanner {
    pub(super) fn new() -> Self {
        Self { text_of_key: text_of_key_function() }
    }
}

/// What `->>` calls.
pub(super) fn text_of_key_function() -> ScalarUDF {
    let signature = Signature::string(2, Volatility::Immutable);
    ScalarUDF::new_from_impl(TextOfKey { signature })
}

impl ExprPlanner for JsonPlanner {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        Ok(match expr.op {
            BinaryOperator::LongArrow => {
                PlannerResult::Planned(self.text_of_key.call(vec![expr.left, expr.right]))
            }
            _ => PlannerResult::Original(expr),
        })
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TextOfKey {
    signature: Signature,
}

impl ScalarUDFImpl for TextOfKey {
    fn name(&self) -> &str {
        "->>"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = |value: &ColumnarValue| cast(&value.to_array(args.number_rows)?, &DataType::Utf8View);
        let (objects, keys) = (texts(&args.args[0])?, texts(&args.args[1])?);
        let pairs = objects.as_string_view().iter().zip(keys.as_string_view());
        let found: StringViewArray = pairs.map(|(object, key)| text_of_key(object?, key?)).collect();
        Ok(ColumnarValue::Array(Arc::new(found)))
    }
}

fn text_of_key(object: &str, key: &str) -> Option<String> {
    match serde_json::from_str::<Value>(object).ok()?.get(key)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
