//! Filters as SQL for Postgres: those whose meaning is surely the same there.
//!
//! Text is ordered by bytes here and by a collation there, so that order is asked for with `COLLATE "C"`. An address
//! is text here and `inet` there: equality only, with addresses as they are printed. A condition on `day` becomes one
//! on the time, by which Postgres prunes leaves; it is looked at again here, because rows outside of their day's leaf
//! have no day. Floats, JSON, patterns with an escape and everything not listed stay here.
use std::net::IpAddr;

use chrono::{DateTime, Datelike};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{InList, Like, ScalarFunction};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};

use crate::log_type::ddl::{literal, quoted};
use crate::model::MICROS_PER_DAY;
use crate::query::ip::Network;
use crate::query::table::{DAY, TIMESTAMP};
use crate::warehouse::PgType;

/// A filter as SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pushed {
    pub(super) sql: String,
    /// True for the same rows; else for those and some more.
    pub(super) is_exact: bool,
}

impl Pushed {
    fn exact(sql: String) -> Option<Self> {
        Some(Self { sql, is_exact: true })
    }

    fn wider(sql: String) -> Option<Self> {
        Some(Self { sql, is_exact: false })
    }
}

/// The filter as SQL, or `None` where only this side can tell. `types` gives the type of a column.
pub(super) fn to_sql(filter: &Expr, types: &dyn Fn(&str) -> Option<PgType>) -> Option<Pushed> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let both = (to_sql(left, types), to_sql(right, types));
            match (both, op) {
                ((Some(left), Some(right)), _) => Some(Pushed {
                    sql: format!("({} {op} {})", left.sql, right.sql),
                    is_exact: left.is_exact && right.is_exact,
                }),
                // half of a conjunction lets more rows through than both
                ((Some(one), None) | (None, Some(one)), Operator::And) => Pushed::wider(one.sql),
                _ => None,
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (&**left, &**right) {
            (Expr::Column(column), Expr::Literal(value, _)) => compare(&column.name, *op, value, types),
            (Expr::Literal(value, _), Expr::Column(column)) => {
                compare(&column.name, op.swap()?, value, types)
            }
            _ => None,
        },
        Expr::Not(inner) => {
            let inner = to_sql(inner, types).filter(|inner| inner.is_exact)?;
            Pushed::exact(format!("(NOT {})", inner.sql))
        }
        Expr::IsNull(inner) => Pushed::exact(format!("({} IS NULL)", stored(inner, types)?.0)),
        Expr::IsNotNull(inner) => Pushed::exact(format!("({} IS NOT NULL)", stored(inner, types)?.0)),
        Expr::Column(_) => {
            let (name, pg_type) = stored(filter, types)?;
            (pg_type == PgType::Bool).then_some(())?;
            Pushed::exact(name)
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let (Expr::Column(column), Expr::Literal(low, _), Expr::Literal(high, _)) =
                (&**expr, &**low, &**high)
            else {
                return None;
            };
            let low = compare(&column.name, Operator::GtEq, low, types)?;
            let high = compare(&column.name, Operator::LtEq, high, types)?;
            let is_exact = low.is_exact && high.is_exact;
            Some(Pushed { sql: format!("({} AND {})", low.sql, high.sql), is_exact })
        }
        Expr::InList(InList { expr, list, negated }) => {
            let Expr::Column(column) = &**expr else { return None };
            let (op, join) = match negated {
                false => (Operator::Eq, " OR "),
                true => (Operator::NotEq, " AND "),
            };
            let each = list.iter().map(|item| match item {
                Expr::Literal(value, _) => compare(&column.name, op, value, types),
                _ => None,
            });
            let each: Vec<Pushed> = each.collect::<Option<_>>().filter(|each: &Vec<_>| !each.is_empty())?;
            let is_exact = each.iter().all(|one| one.is_exact);
            let sql: Vec<String> = each.into_iter().map(|one| one.sql).collect();
            Some(Pushed { sql: format!("({})", sql.join(join)), is_exact })
        }
        Expr::Like(Like { negated, expr, pattern, escape_char: None, case_insensitive: false }) => {
            let (name, pg_type) = stored(expr, types)?;
            let Expr::Literal(pattern, _) = &**pattern else { return None };
            let pattern = text(pattern).filter(|text| !text.contains(['\\', '_']))?;
            (pg_type == PgType::Text).then_some(())?;
            let not = if *negated { " NOT" } else { "" };
            Pushed::exact(format!("({name}{not} LIKE {})", literal(pattern)))
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "ip_in" => {
            let [column, Expr::Literal(network, _)] = &args[..] else { return None };
            let (name, pg_type) = stored(column, types)?;
            (pg_type == PgType::Inet).then_some(())?;
            let network =
                text(network).filter(|text| Network::try_new(text).is_ok() && !text.contains('+'))?;
            Pushed::exact(format!("({name} <<= {}::inet)", literal(network)))
        }
        _ => None,
    }
}

/// A column that is stored, quoted, and its type.
fn stored(expr: &Expr, types: &dyn Fn(&str) -> Option<PgType>) -> Option<(String, PgType)> {
    let Expr::Column(column) = expr else { return None };
    Some((quoted(&column.name), types(&column.name)?))
}

fn compare(
    column: &str,
    op: Operator,
    value: &ScalarValue,
    types: &dyn Fn(&str) -> Option<PgType>,
) -> Option<Pushed> {
    if value.is_null() {
        return None;
    }
    let Some(pg_type) = types(column) else { return compare_day(column, op, value) };
    let is_equality = matches!(op, Operator::Eq | Operator::NotEq);
    let is_order = matches!(op, Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
    if !is_equality && !is_order {
        return None;
    }
    let name = quoted(column);
    let (name, value) = match pg_type {
        PgType::Int2 | PgType::Int4 | PgType::Int8 => (name, integer(value)?.to_string()),
        PgType::Timestamptz => (name, instant(micros(value)?)?),
        PgType::Text if is_order => (format!("{name} COLLATE \"C\""), literal(text(value)?)),
        PgType::Text => (name, literal(text(value)?)),
        PgType::Inet if is_equality => {
            let text = text(value)?;
            let address: IpAddr = text.parse().ok()?;
            // another spelling equals no text here, and an address there
            (address.to_string() == text).then_some(())?;
            (name, format!("{}::inet", literal(text)))
        }
        _ => return None,
    };
    Pushed::exact(format!("({name} {op} {value})"))
}

/// Rows of a day lie between two midnights.
fn compare_day(column: &str, op: Operator, value: &ScalarValue) -> Option<Pushed> {
    let ScalarValue::Date32(Some(day)) = value else { return None };
    (column == DAY).then_some(())?;
    let (start, end) = (midnight(*day)?, midnight(day.checked_add(1)?)?);
    Pushed::wider(match op {
        Operator::Eq => format!("(\"{TIMESTAMP}\" >= {start} AND \"{TIMESTAMP}\" < {end})"),
        Operator::Lt => format!("(\"{TIMESTAMP}\" < {start})"),
        Operator::LtEq => format!("(\"{TIMESTAMP}\" < {end})"),
        Operator::Gt => format!("(\"{TIMESTAMP}\" >= {end})"),
        Operator::GtEq => format!("(\"{TIMESTAMP}\" >= {start})"),
        _ => return None,
    })
}

fn text(value: &ScalarValue) -> Option<&str> {
    // Postgres' text holds no NUL, nor does a statement
    value.try_as_str().flatten().filter(|text| !text.contains('\0'))
}

fn integer(value: &ScalarValue) -> Option<i64> {
    Some(match value {
        ScalarValue::Int8(Some(value)) => i64::from(*value),
        ScalarValue::Int16(Some(value)) => i64::from(*value),
        ScalarValue::Int32(Some(value)) => i64::from(*value),
        ScalarValue::Int64(Some(value)) => *value,
        _ => return None,
    })
}

fn micros(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::TimestampMicrosecond(Some(micros), Some(_)) => Some(*micros),
        _ => None,
    }
}

/// Midnight, UTC, at which a day begins, as SQL.
pub(super) fn midnight(day: i32) -> Option<String> {
    instant(i64::from(day) * MICROS_PER_DAY)
}

/// A point in time as SQL; `None` where its year has not four digits.
pub(super) fn instant(micros: i64) -> Option<String> {
    let time = DateTime::from_timestamp_micros(micros)?;
    (1..=9999)
        .contains(&time.year())
        .then(|| format!("'{}'::timestamptz", time.format("%Y-%m-%d %H:%M:%S%.6f+00")))
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{cast, col, lit};

    use super::*;

    fn types(name: &str) -> Option<PgType> {
        Some(match name {
            "src" => PgType::Inet,
            "rule" => PgType::Text,
            "dst_port" => PgType::Int4,
            "ok" => PgType::Bool,
            "ratio" => PgType::Float8,
            "timestamp" => PgType::Timestamptz,
            "extra" => PgType::Jsonb,
            _ => return None,
        })
    }

    fn time(micros: i64) -> Expr {
        Expr::Literal(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())), None)
    }

    fn day(day: i32) -> Expr {
        Expr::Literal(ScalarValue::Date32(Some(day)), None)
    }

    #[test]
    fn what_means_the_same_is_said_in_sql() {
        let cases = [
            (col("dst_port").eq(lit(3389)), "(\"dst_port\" = 3389)"),
            (lit(10).lt(col("dst_port")), "(\"dst_port\" > 10)"),
            (col("rule").eq(lit("it's")), "(\"rule\" = 'it''s')"),
            (col("rule").gt(lit("b")), "(\"rule\" COLLATE \"C\" > 'b')"),
            (col("rule").like(lit("block%")), "(\"rule\" LIKE 'block%')"),
            (col("src").eq(lit("10.0.0.1")), "(\"src\" = '10.0.0.1'::inet)"),
            (col("src").not_eq(lit("2001:db8::1")), "(\"src\" != '2001:db8::1'::inet)"),
            (
                col("src").in_list(vec![lit("10.0.0.1"), lit("10.0.0.2")], false),
                "((\"src\" = '10.0.0.1'::inet) OR (\"src\" = '10.0.0.2'::inet))",
            ),
            (
                col("dst_port").in_list(vec![lit(1), lit(2)], true),
                "((\"dst_port\" != 1) AND (\"dst_port\" != 2))",
            ),
            (col("ok").or(col("extra").is_null()), "(\"ok\" OR (\"extra\" IS NULL))"),
            (Expr::Not(Box::new(col("ratio").is_not_null())), "(NOT (\"ratio\" IS NOT NULL))"),
            (
                col("timestamp").between(time(0), time(1_500_000)),
                "((\"timestamp\" >= '1970-01-01 00:00:00.000000+00'::timestamptz) AND \
                 (\"timestamp\" <= '1970-01-01 00:00:01.500000+00'::timestamptz))",
            ),
        ];
        for (filter, sql) in cases {
            assert_eq!(to_sql(&filter, &types), Pushed::exact(sql.to_owned()), "{filter}");
        }
        let network = crate::query::ip::ip_in().call(vec![col("src"), lit("10.0.0.0/8")]);
        assert_eq!(to_sql(&network, &types), Pushed::exact("(\"src\" <<= '10.0.0.0/8'::inet)".into()));
    }

    #[test]
    fn a_day_and_half_a_conjunction_let_more_rows_through() {
        let of_day = to_sql(&col("day").eq(day(1)), &types).unwrap();
        assert!(
            !of_day.is_exact && of_day.sql.contains(">= '1970-01-02") && of_day.sql.contains("< '1970-01-03")
        );
        let half = col("dst_port").eq(lit(1)).and(col("ratio").gt(lit(0.5)));
        assert_eq!(to_sql(&half, &types), Pushed::wider("(\"dst_port\" = 1)".into()));
        // and are not negated
        assert_eq!(to_sql(&Expr::Not(Box::new(half)), &types), None);
        assert_eq!(to_sql(&Expr::Not(Box::new(col("day").eq(day(1)))), &types), None);
    }

    #[test]
    fn what_may_mean_something_else_stays() {
        let ports = datafusion::arrow::datatypes::DataType::Int64;
        for filter in [
            col("src").eq(lit("010.0.0.1")),
            col("src").eq(lit("2001:DB8::1")),
            col("src").eq(lit("nowhere")),
            col("src").gt(lit("10.0.0.1")),
            col("src").like(lit("10.%")),
            col("ratio").eq(lit(0.0)),
            col("extra").eq(lit("{}")),
            col("rule").eq(lit("a\0b")),
            col("rule").like(lit("a_b")),
            col("rule").like(lit("a\\%")),
            col("rule").ilike(lit("block%")),
            col("rule").eq(Expr::Literal(ScalarValue::Utf8(None), None)),
            cast(col("dst_port"), ports).eq(lit(1)),
            col("day").is_null(),
            col("day").not_eq(day(1)),
            col("other").eq(lit(1)),
            col("dst_port").eq(lit(1)).or(col("ratio").gt(lit(0.5))),
        ] {
            assert_eq!(to_sql(&filter, &types), None, "{filter}");
        }
    }
}
