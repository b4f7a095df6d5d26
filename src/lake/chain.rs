//! The chain of the ledger: the link of a group is a hash of the link before it and of the group's entries.
//!
//! Whoever changes or takes away an entry would have to write every later link anew, and those are in the files that
//! commits name by their hash. The entries hold what the group did to each table, and so the names, which are hashes,
//! of its data files. Null values do not count, so that a column that a later version adds changes no link.
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use sha2::{Digest, Sha256};

use super::data_file_name::base64url;

/// Column of the links.
pub(super) const CHAIN: &str = "chain";

/// The link of the group with these rows, behind `before` (empty at the start).
pub(super) fn link(before: &str, rows: &RecordBatch) -> String {
    let mut hash = Sha256::new();
    part(&mut hash, before.as_bytes());
    let schema = rows.schema();
    for (field, column) in
        schema.fields().iter().zip(rows.columns()).filter(|(field, _)| field.name() != CHAIN)
    {
        for row in (0..rows.num_rows()).filter(|row| column.is_valid(*row)) {
            part(&mut hash, field.name().as_bytes());
            hash.update((row as u64).to_le_bytes());
            match field.data_type() {
                DataType::Utf8 => part(&mut hash, column.as_string::<i32>().value(row).as_bytes()),
                DataType::Boolean => hash.update([u8::from(column.as_boolean().value(row))]),
                DataType::Int32 => hash.update(column.as_primitive::<Int32Type>().value(row).to_le_bytes()),
                DataType::Int64 => hash.update(column.as_primitive::<Int64Type>().value(row).to_le_bytes()),
                _ => hash.update(column.as_primitive::<TimestampMicrosecondType>().value(row).to_le_bytes()),
            }
        }
    }
    base64url(&hash.finalize())
}

/// With its length, so that no two texts run into each other.
fn part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::entries::{GroupEntry, to_rows};
    use crate::ledger::tests::record;

    #[test]
    fn every_value_counts_and_the_link_before_too() {
        let entry = GroupEntry { group: 12, committed_at: 5, writer: "w", actions: "{}" };
        let rows =
            |entry: &GroupEntry<'_>| to_rows(entry, &[record(1, 0, 10), record(1, 10, 20)], "").unwrap();
        let of_entry = rows(&entry);
        let expected = link("", &of_entry);
        assert_eq!(link("", &rows(&entry)), expected);
        assert_ne!(link("a", &of_entry), expected);
        assert_ne!(link("", &of_entry.slice(0, 1)), expected);
        for changed in [
            GroupEntry { group: 13, ..entry },
            GroupEntry { committed_at: 6, ..entry },
            GroupEntry { writer: "x", ..entry },
            GroupEntry { actions: "{ }", ..entry },
        ] {
            assert_ne!(link("", &rows(&changed)), expected, "{changed:?}");
        }
    }
}
