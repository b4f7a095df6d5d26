//! Which days get a partition of their own: the same ones in the archive and in Postgres.

/// Microseconds in a day.
pub const MICROS_PER_DAY: i64 = 86_400_000_000;
/// 2000-01-01 as days since 1970-01-01; earlier event times go to the default partition.
pub const FIRST_DAY: i32 = 10_957;
/// Days after today that an event time may have; later ones go to the default partition.
pub const FUTURE_DAYS: i32 = 2;
/// Days that one commit may add to a table, so that garbage dates do not make thousands of partitions.
pub const MAX_NEW_DAYS: usize = 64;
