//! A log type's templates -> its track.
//!
//! A variant is part of the track if the first byte of what follows each value ends it, and if no variant declared
//! before it can take a line that takes its way. Where that is not plain, the variant is left out: its lines walk
//! the program.
use super::{Behind, NO_BYTE, NONE, Stretch, Track};
use crate::decode::scan::Near;
use crate::log_type::LogType;
use crate::log_type::template::Part;

/// Fixed bytes, then a value; at the end of a line perhaps none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    text: Vec<u8>,
    /// Slot; what ends it, or what it has none of.
    value: Option<(u16, u8)>,
    /// Does not begin the value.
    forbidden: Option<u8>,
    is_decisive: bool,
}

pub(super) fn track(log_type: &LogType) -> Track {
    let mut stretches = Vec::new();
    for number in 0..log_type.variants.len() {
        if let Some(pieces) = way(log_type, number) {
            insert(&mut stretches, &stretches_of(&pieces, number as u16));
        }
    }
    Track { stretches, admits: admits(log_type) }
}

fn stretches_of(pieces: &[Piece], variant: u16) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    for (position, piece) in pieces.iter().enumerate() {
        let is_last = position + 1 == pieces.len();
        let (behind, slot, stop) = match piece.value {
            Some((slot, stop)) if is_last => (Behind::Rest, slot, stop),
            Some((slot, stop)) => (Behind::Literal, slot, stop),
            None => (Behind::End, 0, NO_BYTE),
        };
        let mut sixteens: Vec<&[u8]> = piece.text.chunks(Near::MAX_BYTES).collect();
        let last = sixteens.pop().unwrap_or_default();
        stretches.extend(sixteens.into_iter().map(|bytes| Stretch {
            near: Near::new(bytes, None, NO_BYTE),
            slot: 0,
            is_value: false,
            behind: Behind::Literal,
            variant: 0,
            sibling: NONE,
            is_decisive: false,
        }));
        stretches.push(Stretch {
            near: Near::new(last, piece.forbidden, stop),
            slot,
            is_value: piece.value.is_some() && !is_last,
            behind,
            variant: if is_last { variant } else { 0 },
            sibling: NONE,
            is_decisive: piece.is_decisive && piece.text.len() <= Near::MAX_BYTES,
        });
    }
    stretches
}

/// Adds a way to the tree; it shares what it begins with. A stretch is added with all that is behind it, so its first
/// child stands behind it.
fn insert(tree: &mut Vec<Stretch>, way: &[Stretch]) {
    let mut first = 0;
    for (position, stretch) in way.iter().enumerate() {
        let mut number = first;
        while let Some(other) = tree.get(number) {
            if (Stretch { sibling: NONE, ..other.clone() }) == *stretch {
                break;
            }
            if other.sibling == NONE {
                tree[number].sibling = tree.len() as u16;
                number = tree.len();
                break;
            }
            number = usize::from(other.sibling);
        }
        if number == tree.len() {
            tree.extend_from_slice(&way[position..]);
            return;
        }
        first = number + 1;
    }
}

fn is_time(log_type: &LogType, part: &Part) -> bool {
    matches!(part, Part::Capture { name, .. } if *name == log_type.columns[log_type.timestamp_column].name)
}

fn admits(log_type: &LogType) -> Option<Box<[bool; 256]>> {
    let mut admits = Box::new([false; 256]);
    for variant in &log_type.variants {
        let (first, rest) = variant.parts.split_first()?;
        if !is_time(log_type, first) {
            return None;
        }
        match rest.first() {
            Some(Part::Literal(bytes)) => admits[usize::from(bytes[0])] = true,
            Some(Part::Spaces) => admits[usize::from(b' ')] = true,
            Some(Part::Capture { .. }) => admits.fill(true),
            None => admits[usize::from(NO_BYTE)] = true,
        }
    }
    Some(admits)
}

/// The pieces of a variant behind its event time, if it is part of the track.
fn way(log_type: &LogType, number: usize) -> Option<Vec<Piece>> {
    let parts = &log_type.variants[number].parts;
    let pieces = pieces(log_type, number)?;
    let is_first = log_type.variants[..number].iter().all(|earlier| {
        let shared = shared(&earlier.parts, parts);
        is_elsewhere(&earlier.parts[shared..], &parts[shared..])
            || rest_of(&pieces, &parts[..shared])
                .is_some_and(|rest| lacks_a_literal(&earlier.parts[shared..], rest))
    });
    is_first.then_some(pieces)
}

fn pieces(log_type: &LogType, number: usize) -> Option<Vec<Piece>> {
    let separator = log_type.key_value.as_ref().filter(|_| number == 0).map(|pairs| pairs.separator);
    let (first, parts) = log_type.variants[number].parts.split_first()?;
    if !is_time(log_type, first) || parts.iter().any(|part| is_time(log_type, part)) {
        return None;
    }
    let all = &log_type.variants[number].parts;
    let num_common = log_type.variants.iter().map(|other| shared(&other.parts, all)).min()?;
    let mut pieces = Vec::new();
    let mut text = Vec::new();
    // part that the text begins with
    let mut first = 1;
    // (number of the piece, what must not follow again)
    let mut lasts: Vec<(usize, &[u8])> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let next = parts.get(at + 1);
        match part {
            Part::Literal(bytes) => text.extend_from_slice(bytes),
            Part::Spaces => {
                text.push(b' ');
                // one space is all of them only if none can follow
                match next {
                    Some(Part::Literal(bytes)) if bytes[0] != b' ' => {}
                    Some(Part::Capture { .. }) => {}
                    _ => return None,
                }
            }
            Part::Capture { name, last } => {
                let is_behind_last = !lasts.is_empty();
                let declared = log_type.columns.iter().position(|column| column.name == *name);
                let undeclared = || log_type.undeclared.iter().position(|known| known == name);
                let slot = declared.or_else(|| Some(log_type.columns.len() + undeclared()?))?;
                let is_word = declared.is_some_and(|column| log_type.columns[column].word);
                let stop = match next {
                    Some(Part::Literal(bytes)) => {
                        if *last && separator.is_none() {
                            lasts.push((pieces.len() + 1, bytes));
                        }
                        bytes[0]
                    }
                    Some(Part::Spaces) if !*last => b' ',
                    Some(_) => return None,
                    None if is_word && separator.is_none() => b' ',
                    None => separator.unwrap_or(NO_BYTE),
                };
                if is_word && stop != b' ' {
                    return None;
                }
                let forbidden = (at > 0 && parts[at - 1] == Part::Spaces).then_some(b' ');
                // this capture is the part `at + 1` of all
                let has_later_spaces = all[first..=at].iter().skip(1).any(|part| *part == Part::Spaces);
                // a value that a text ends may hold what the text begins with; and where the last of a text is, only
                // the end of the line tells
                let is_fixed = (first == 1 || all[first] == Part::Spaces) && !is_behind_last;
                let is_decisive = at < num_common && first <= at && is_fixed && !has_later_spaces;
                first = at + 2;
                pieces.push(Piece {
                    text: std::mem::take(&mut text),
                    value: Some((slot as u16, stop)),
                    forbidden,
                    is_decisive,
                });
            }
        }
    }
    if !matches!(parts.last(), Some(Part::Capture { .. })) {
        pieces.push(Piece { text, value: None, forbidden: None, is_decisive: false });
    }
    for (from, literal) in lasts {
        forbid(&mut pieces[from..], literal)?;
    }
    Some(pieces)
}

/// Sees to it that `literal` stands at the start of these pieces and nowhere else in them.
fn forbid(pieces: &mut [Piece], literal: &[u8]) -> Option<()> {
    for (position, piece) in pieces.iter_mut().enumerate() {
        if piece.value.is_some_and(|(_, stop)| stop != literal[0]) {
            return None;
        }
        for from in usize::from(position == 0)..piece.text.len() {
            let text = &piece.text[from..];
            let len_bytes = text.len().min(literal.len());
            if text[..len_bytes] != literal[..len_bytes] {
                continue;
            }
            let beginning = literal.get(len_bytes)?;
            // the value behind it must not begin as the literal goes on
            if piece.value.is_some() {
                piece.is_decisive = false;
                if *piece.forbidden.get_or_insert(*beginning) != *beginning {
                    return None;
                }
            }
        }
    }
    Some(())
}

/// Number of parts that both variants begin with and read alike.
fn shared(one: &[Part], other: &[Part]) -> usize {
    let equal = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    // how far a value reaches depends on what follows it
    let is_last_open =
        equal > 1 && matches!(one[equal - 1], Part::Capture { .. }) && one.get(equal) != other.get(equal);
    equal - usize::from(is_last_open)
}

/// Whether two variants go on with different bytes at the same place.
fn is_elsewhere(one: &[Part], other: &[Part]) -> bool {
    let byte = |parts: &[Part], at: usize| match parts.first() {
        Some(Part::Literal(bytes)) => bytes.get(at).copied(),
        Some(Part::Spaces) if at == 0 => Some(b' '),
        _ => None,
    };
    (0..).map_while(|at| Some((byte(one, at)?, byte(other, at)?))).any(|(one, other)| one != other)
}

/// Those of the pieces that begin with the value behind these parts of their variant.
fn rest_of<'a>(pieces: &'a [Piece], before: &[Part]) -> Option<&'a [Piece]> {
    let num_values = before.iter().filter(|part| matches!(part, Part::Capture { .. })).count() - 1;
    pieces.get(num_values..)
}

/// Whether a literal of `parts` can stand nowhere in a line from the value of the first of `pieces` on.
fn lacks_a_literal(parts: &[Part], pieces: &[Piece]) -> bool {
    parts.iter().any(|part| match part {
        Part::Literal(literal) => {
            let has_none = |piece: &Piece| piece.value.is_none_or(|(_, stop)| stop == literal[0]);
            let stands_in = |position: usize| {
                let text = &pieces[position].text;
                (0..text.len()).any(|at| can_stand(literal, &text[at..], &pieces[position..]))
            };
            pieces.iter().all(has_none) && !(0..pieces.len()).any(stands_in)
        }
        _ => false,
    })
}

/// Whether `literal` can stand at the start of `text`, which is the end of that of the first of `pieces`. No value has
/// the literal's first byte.
fn can_stand(literal: &[u8], text: &[u8], pieces: &[Piece]) -> bool {
    let len_bytes = text.len().min(literal.len());
    if text[..len_bytes] != literal[..len_bytes] {
        return false;
    }
    let rest = &literal[len_bytes..];
    if rest.is_empty() {
        return true;
    }
    if pieces[0].value.is_none() {
        return false;
    }
    // a value can be anything up to its stop
    match (rest.iter().position(|byte| *byte == literal[0]), pieces.get(1)) {
        (None, _) => true,
        (Some(stop), Some(next)) => can_stand(&rest[stop..], &next.text, &pieces[1..]),
        (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_type::LogTypes;

    #[test]
    fn what_is_generated_of_built_in_types_takes_the_short_way() {
        let types = LogTypes::load(None).unwrap();
        for (name, numbers) in [("firewall", &[0][..]), ("dns", &[0]), ("auth", &[0, 1, 2])] {
            for number in numbers {
                assert!(way(types.get(name).unwrap(), *number).is_some(), "{name} {number}");
            }
        }
    }
}
