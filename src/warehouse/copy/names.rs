//! Names on the wire, as an array of texts, and with commas between them, which no name has.
use super::PgType;

/// Appends the array.
pub(super) fn write(names: &str, out: &mut Vec<u8>) {
    let names: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
    let mut put = |number: u32| out.extend(number.to_be_bytes());
    put(u32::from(!names.is_empty()));
    put(0);
    put(PgType::Text.oid());
    if names.is_empty() {
        return;
    }
    put(names.len() as u32);
    // where Postgres begins to count
    put(1);
    for name in names {
        out.extend((name.len() as u32).to_be_bytes());
        out.extend(name.as_bytes());
    }
}

/// The names of an array; `None` if it is not one of texts, or has a NULL.
pub(super) fn read(value: &[u8]) -> Option<String> {
    let (dimensions, rest) = number(value)?;
    let (_, rest) = number(rest)?;
    let (oid, rest) = number(rest)?;
    if oid != PgType::Text.oid() || dimensions > 1 {
        return None;
    }
    if dimensions == 0 {
        return rest.is_empty().then(String::new);
    }
    let (count, rest) = number(rest)?;
    let (_, mut rest) = number(rest)?;
    let mut names = Vec::new();
    for _ in 0..count {
        let (len, behind) = number(rest)?;
        let (name, behind) = behind.split_at_checked(len as usize)?;
        names.push(simdutf8::basic::from_utf8(name).ok()?);
        rest = behind;
    }
    rest.is_empty().then(|| names.join(","))
}

fn number(value: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = value.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use postgres_types::{ToSql, Type};

    use super::*;

    #[test]
    fn names_are_written_as_postgres_types_does_and_read_back() {
        for names in [&[][..], &["dns"], &["auth", "dns", "rejects"]] {
            let mut theirs = BytesMut::new();
            names.to_sql_checked(&Type::TEXT_ARRAY, &mut theirs).unwrap();
            let mut ours = Vec::new();
            write(&names.join(","), &mut ours);
            // a server writes no dimension where there is nothing, the crate an empty one
            assert!(names.is_empty() || ours == theirs, "{names:?}");
            assert_eq!(read(&theirs), Some(names.join(",")));
            assert_eq!(read(&ours), Some(names.join(",")));
            for end in 0..ours.len() {
                assert_eq!(read(&ours[..end]), None, "{names:?} cut at {end}");
            }
        }
        let mut theirs = BytesMut::new();
        (&[Some("dns"), None][..]).to_sql_checked(&Type::TEXT_ARRAY, &mut theirs).unwrap();
        assert_eq!(read(&theirs), None);
        let mut numbers = BytesMut::new();
        (&[1i32][..]).to_sql_checked(&Type::INT4_ARRAY, &mut numbers).unwrap();
        assert_eq!(read(&numbers), None);
    }
}
