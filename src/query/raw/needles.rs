//! Texts that a line must hold for a filter to be true of its row.
//!
//! A text column's value stands in the line as it is, a v4 address and the digits of a whole number do too, whatever
//! stands around them. Deliberately absent: columns that a template sets without the line saying so, v6 addresses,
//! which have several spellings, and texts too short to tell lines apart.
use std::net::Ipv4Addr;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{InList, Like};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use crate::log_type::{ColumnType, LogType};

/// A shorter text is in too many lines to be worth the search.
const MIN_BYTES: usize = 3;
/// Each text is a search of its own.
const MAX_TEXTS: usize = 4;

/// Texts of which a line of this type must hold one, or `None` where there are none that help.
pub(super) fn needles(filters: &[Expr], log_type: &LogType) -> Option<Vec<Vec<u8>>> {
    // the one that is likely to be the rarest
    let each = filters.iter().filter_map(|filter| of_filter(filter, log_type));
    each.max_by_key(|texts| texts.iter().map(Vec::len).min())
}

pub(super) fn of_filter(filter: &Expr, log_type: &LogType) -> Option<Vec<Vec<u8>>> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            needles(&[(**left).clone(), (**right).clone()], log_type)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            all(vec![of_filter(left, log_type)?, of_filter(right, log_type)?])
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (&**left, &**right) {
            (Expr::Column(column), Expr::Literal(value, _))
            | (Expr::Literal(value, _), Expr::Column(column)) => {
                Some(vec![of_value(&column.name, value, log_type)?])
            }
            _ => None,
        },
        Expr::InList(InList { expr, list, negated: false }) => {
            let Expr::Column(column) = &**expr else { return None };
            let each = list.iter().map(|item| match item {
                Expr::Literal(value, _) => Some(vec![of_value(&column.name, value, log_type)?]),
                _ => None,
            });
            all(each.collect::<Option<_>>()?)
        }
        Expr::Like(Like { negated: false, expr, pattern, escape_char: None, case_insensitive: false }) => {
            let (Expr::Column(column), Expr::Literal(pattern, _)) = (&**expr, &**pattern) else {
                return None;
            };
            (said_type(&column.name, log_type)? == ColumnType::String).then_some(())?;
            let pattern = pattern.try_as_str().flatten().filter(|pattern| !pattern.contains('\\'))?;
            let longest = pattern.split(['%', '_']).max_by_key(|text| text.len())?;
            Some(vec![long_enough(longest.as_bytes().to_vec())?])
        }
        _ => None,
    }
}

fn all(each: Vec<Vec<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
    let mut texts = each.concat();
    texts.sort();
    texts.dedup();
    (1..=MAX_TEXTS).contains(&texts.len()).then_some(texts)
}

/// What a line says where the column has this value.
fn of_value(column: &str, value: &ScalarValue, log_type: &LogType) -> Option<Vec<u8>> {
    let text = || value.try_as_str().flatten();
    long_enough(match said_type(column, log_type)? {
        ColumnType::String => text()?.as_bytes().to_vec(),
        ColumnType::Ip => text()?.parse::<Ipv4Addr>().ok()?.to_string().into_bytes(),
        ColumnType::U8 | ColumnType::U16 | ColumnType::U32 | ColumnType::U64 | ColumnType::I64 => {
            let number = match value {
                ScalarValue::Int16(Some(number)) => i64::from(*number),
                ScalarValue::Int32(Some(number)) => i64::from(*number),
                ScalarValue::Int64(Some(number)) => *number,
                _ => return None,
            };
            number.unsigned_abs().to_string().into_bytes()
        }
        _ => return None,
    })
}

fn long_enough(text: Vec<u8>) -> Option<Vec<u8>> {
    (text.len() >= MIN_BYTES).then_some(text)
}

/// The column's type, if its values are only what lines say.
fn said_type(column: &str, log_type: &LogType) -> Option<ColumnType> {
    let position = log_type.columns.iter().position(|declared| declared.name == column)?;
    let is_set = log_type
        .variants
        .iter()
        .flat_map(|variant| &variant.set)
        .any(|(set, _)| usize::from(*set) == position);
    (!is_set).then(|| log_type.columns[position].column_type)
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;
    use crate::log_type::LogTypes;

    #[test]
    fn a_filter_names_the_texts_of_which_lines_must_hold_one() {
        let types = LogTypes::load(None).unwrap();
        let firewall = types.get("firewall").unwrap();
        let texts = |filter: Expr| {
            let texts = needles(&[filter], firewall)?;
            Some(texts.into_iter().map(|text| String::from_utf8(text).unwrap()).collect::<Vec<_>>().join(" "))
        };
        let of_host = col("src").eq(lit("192.168.1.42")).or(col("dst").eq(lit("192.168.1.42")));
        let in_time = col("timestamp").gt(lit(0));
        for (filter, expected) in [
            (of_host.and(in_time.clone()), Some("192.168.1.42")),
            (col("dst_port").eq(lit(3389)), Some("3389")),
            (col("bytes_sent").eq(lit(-3389i64)), Some("3389")),
            (col("rule").in_list(vec![lit("ssh_admin"), lit("web")], false), Some("ssh_admin web")),
            (col("rule").like(lit("%block_mal%")), Some("block")),
            (col("rule").eq(lit("abc")).and(col("src").eq(lit("10.0.0.1"))), Some("10.0.0.1")),
            (col("dst_port").eq(lit(22)), None),
            (col("src").eq(lit("2001:db8::1")), None),
            (col("src").like(lit("192.168%")), None),
            (col("rule").not_eq(lit("ssh_admin")), None),
            (col("rule").in_list(vec![lit("ssh_admin")], true), None),
            (col("rule").eq(lit("ssh_admin")).or(in_time), None),
            (col("line").eq(lit(12345)), None),
        ] {
            assert_eq!(texts(filter.clone()).as_deref(), expected, "{filter}");
        }
        // a template says the status, not every line
        let auth = types.get("auth").unwrap();
        assert!(auth.variants.iter().any(|variant| !variant.set.is_empty()));
        assert_eq!(needles(&[col("status").eq(lit("Failed"))], auth), None);
    }
}
