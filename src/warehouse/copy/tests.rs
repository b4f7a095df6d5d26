//! The format is held against a naive twin, against `postgres-types` and against its own decoder.
mod arrays;
mod decode;
mod encode;

use super::PgType;
use crate::log_type::ColumnType;

#[test]
fn types_are_known_by_both_names_and_by_oid() {
    for pg_type in PgType::ALL {
        assert_eq!(PgType::from_name(pg_type.name()), Ok(pg_type));
        assert_eq!(PgType::from_name(pg_type.sql_name()), Ok(pg_type));
        assert_eq!(PgType::from_oid(pg_type.oid()), Ok(pg_type));
        let theirs = postgres_types::Type::from_oid(pg_type.oid()).unwrap();
        assert_eq!(theirs.name(), pg_type.name());
    }
    assert_eq!(
        PgType::from_name("money").unwrap_err().to_string(),
        "postgres type money is not one that rows are stored in; \
         use bool int2 int4 int8 float8 text inet timestamptz json jsonb bytea"
    );
    PgType::from_oid(790).unwrap_err();
}

#[test]
fn every_column_of_a_log_type_can_be_stored() {
    for column_type in ColumnType::ALL {
        let pg_type = PgType::from_name(column_type.postgres_type()).unwrap();
        let is_text = matches!(column_type, ColumnType::String | ColumnType::Ip);
        assert!(is_text || pg_type.arrow_type() == column_type.arrow_type(), "{}", column_type.name());
    }
}
