//! Accepted events as lines, on their way to the archive.
use crate::store::{SqliteStore, StoreError};

impl SqliteStore {
    /// The oldest lines that wait, at least one commit's and about `max_bytes` at most, with the place of their first
    /// byte among all lines ever kept.
    pub async fn event_lines(&self, max_bytes: usize) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        self.call("read events", move |connection| {
            let sql = "SELECT first_byte, bytes FROM event_lines ORDER BY first_byte";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            let mut found: Option<(u64, Vec<u8>)> = None;
            while let Some(row) = rows.next()? {
                let bytes = row.get_ref(1)?.as_blob()?;
                match &mut found {
                    None => found = Some((row.get::<_, i64>(0)?.cast_unsigned(), bytes.to_vec())),
                    Some((_, lines)) if lines.len() + bytes.len() > max_bytes => break,
                    Some((_, lines)) => lines.extend_from_slice(bytes),
                }
            }
            Ok(found)
        })
        .await
    }

    /// Removes lines that are stored elsewhere: those before this byte.
    pub async fn remove_event_lines(&self, end_byte: u64) -> Result<(), StoreError> {
        self.call("remove archived events", move |connection| {
            let sql = "DELETE FROM event_lines WHERE first_byte < ?";
            connection.execute(sql, [end_byte.cast_signed()]).map(drop)
        })
        .await
    }
}
