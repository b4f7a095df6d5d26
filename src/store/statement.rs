//! Statements for both databases: written once, with words for what the dialects say differently.
//!
//! `$1` is the first value. `{now}` is the database's time; `{after $1}` so many milliseconds later; `{time $1}` a
//! time given as ISO text; `{iso column}` a time as ISO text; `{skip_locked}` and `{for_update}` lock rows where
//! transactions run beside each other, which in SQLite they do not. Deliberately absent: a query builder.
use bytes::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::{Database, StoreError};

/// A value of a column or a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// NULL.
    Null,
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl ToSql for Value {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Text(text) => text.as_str().to_sql(ty, out),
            Self::Integer(number) => number.to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        <&str as ToSql>::accepts(ty) || <i64 as ToSql>::accepts(ty)
    }

    to_sql_checked!();
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        match self {
            Self::Null => Ok(rusqlite::types::Null.into()),
            Self::Text(text) => rusqlite::ToSql::to_sql(text),
            Self::Integer(number) => rusqlite::ToSql::to_sql(number),
        }
    }
}

/// A row that a statement gave.
#[derive(Debug, Clone)]
pub struct Row(Vec<Value>);

impl Row {
    /// A text; `None` where it is NULL.
    #[must_use]
    pub fn text(&self, column: usize) -> Option<String> {
        match self.0.get(column) {
            Some(Value::Text(text)) => Some(text.clone()),
            Some(Value::Integer(number)) => Some(number.to_string()),
            Some(Value::Null) | None => None,
        }
    }

    /// A number; `None` where it is NULL.
    #[must_use]
    pub fn integer(&self, column: usize) -> Option<i64> {
        match self.0.get(column) {
            Some(Value::Integer(number)) => Some(*number),
            _ => None,
        }
    }
}

/// A statement with its values.
#[derive(Debug, Clone)]
pub struct Statement {
    sql: String,
    values: Vec<Value>,
}

impl Statement {
    /// In the words of the module.
    pub fn new(sql: impl Into<String>, values: impl Into<Vec<Value>>) -> Self {
        Self { sql: sql.into(), values: values.into() }
    }

    fn dialect(&self, is_sqlite: bool) -> String {
        let mut out = String::with_capacity(self.sql.len() * 2);
        let mut rest = self.sql.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            out += before;
            let (word, after) = after.split_once('}').unwrap_or((after, ""));
            out += &translate(word, is_sqlite);
            rest = after;
        }
        out += rest;
        // to SQLite $1 is a name
        if is_sqlite { out.replace('$', "?") } else { out }
    }
}

const SQLITE_TIME: &str = "%Y-%m-%dT%H:%M:%fZ";

fn translate(word: &str, is_sqlite: bool) -> String {
    match (word.split_once(' ').unwrap_or((word, "")), is_sqlite) {
        (("now", _), true) => format!("strftime('{SQLITE_TIME}', 'now')"),
        (("now", _), false) => "clock_timestamp()".to_owned(),
        (("after", millis), true) => {
            format!("strftime('{SQLITE_TIME}', 'now', printf('%+.3f seconds', {millis} / 1000.0))")
        }
        (("after", millis), false) => {
            format!("(clock_timestamp() + ({millis})::bigint::float8 * interval '1 millisecond')")
        }
        (("time", time), true) => format!("strftime('{SQLITE_TIME}', {time})"),
        (("time", time), false) => format!("{time}::text::timestamptz"),
        (("iso", column), true) => column.to_owned(),
        (("iso", column), false) => {
            format!("to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')")
        }
        (("skip_locked", _), false) => "FOR UPDATE SKIP LOCKED".to_owned(),
        (("for_update", _), false) => "FOR UPDATE".to_owned(),
        (("skip_locked" | "for_update", _), true) => String::new(),
        ((other, _), _) => format!("{{{other}}}"),
    }
}

impl Database {
    /// Runs the statements in one transaction; the rows of each. In SQLite it holds the lock of writers from its
    /// start; in Postgres each statement sees what others committed before it.
    pub async fn transaction(
        &self,
        operation: &str,
        statements: Vec<Statement>,
    ) -> Result<Vec<Vec<Row>>, StoreError> {
        match self {
            Self::Sqlite(store) => {
                store
                    .call(operation, move |connection| {
                        let behavior = rusqlite::TransactionBehavior::Immediate;
                        let transaction = connection.transaction_with_behavior(behavior)?;
                        let rows: rusqlite::Result<Vec<_>> =
                            statements.iter().map(|statement| run_sqlite(&transaction, statement)).collect();
                        let rows = rows?;
                        transaction.commit()?;
                        Ok(rows)
                    })
                    .await
            }
            Self::Postgres(store) => {
                let failed = || store.failed(operation);
                let mut client = store.client().await?;
                let transaction = client.transaction().await.map_err(failed())?;
                let mut results = Vec::with_capacity(statements.len());
                for statement in &statements {
                    let (sql, values) = for_postgres(statement);
                    let rows = transaction.query(&sql, &values).await.map_err(failed())?;
                    results.push(rows.iter().map(from_postgres).collect());
                }
                transaction.commit().await.map_err(failed())?;
                Ok(results)
            }
        }
    }

    /// The rows of a statement that only reads.
    pub async fn rows(&self, operation: &str, statement: Statement) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(store) => {
                store.call(operation, move |connection| run_sqlite(connection, &statement)).await
            }
            Self::Postgres(store) => {
                let client = store.client().await?;
                let (sql, values) = for_postgres(&statement);
                let rows = client.query(&sql, &values).await.map_err(store.failed(operation))?;
                Ok(rows.iter().map(from_postgres).collect())
            }
        }
    }
}

fn run_sqlite(connection: &rusqlite::Connection, statement: &Statement) -> rusqlite::Result<Vec<Row>> {
    let mut prepared = connection.prepare_cached(&statement.dialect(true))?;
    let num_columns = prepared.column_count();
    let rows = prepared.query_map(rusqlite::params_from_iter(&statement.values), |row| {
        let value = |column| {
            Ok(match row.get_ref(column)? {
                rusqlite::types::ValueRef::Null => Value::Null,
                rusqlite::types::ValueRef::Integer(number) => Value::Integer(number),
                other => Value::Text(other.as_str().unwrap_or_default().to_owned()),
            })
        };
        (0..num_columns).map(value).collect::<rusqlite::Result<_>>().map(Row)
    })?;
    rows.collect()
}

fn for_postgres(statement: &Statement) -> (String, Vec<&(dyn ToSql + Sync)>) {
    let values = statement.values.iter().map(|value| value as &(dyn ToSql + Sync)).collect();
    (statement.dialect(false), values)
}

fn from_postgres(row: &tokio_postgres::Row) -> Row {
    let value = |column: usize| match *row.columns()[column].type_() {
        Type::INT8 => row.get::<_, Option<i64>>(column).into(),
        Type::INT4 => row.get::<_, Option<i32>>(column).map(i64::from).into(),
        _ => row.try_get::<_, Option<String>>(column).unwrap_or_default().into(),
    };
    Row((0..row.len()).map(value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_both_dialects() {
        let statement = Statement::new("SELECT {iso a}, {after $1} WHERE b <= {now} {skip_locked}", []);
        let sqlite = statement.dialect(true);
        assert!(sqlite.starts_with("SELECT a, strftime(") && sqlite.contains("?1 / 1000.0"), "{sqlite}");
        let postgres = statement.dialect(false);
        assert!(postgres.ends_with("clock_timestamp() FOR UPDATE SKIP LOCKED"), "{postgres}");
    }
}
