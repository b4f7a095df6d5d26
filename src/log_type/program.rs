//! The line program: all variants of a type's templates as one tree of steps.
//!
//! Invariants: the tree, walked depth first, tries the variants in the order they were declared; variants
//! share steps only with the variant before them. What a `prefix` matches is a step of its own, so that
//! the variants behind it share it. Pure data: `decode` walks it.
use super::template::Part;

/// A capture that ends a line, or is found nowhere, costs as much as any: 48 per template is plenty.
pub const MAX_SLOTS: usize = 48;
/// Six bits of a row's form.
pub const MAX_VARIANTS: usize = 63;
/// Variant number of rows that the `key_value` format read.
pub const KEY_VALUE_VARIANT: u16 = 63;

/// Bytes to find or to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Literal {
    /// The bytes.
    pub bytes: Box<[u8]>,
    /// Offset in `bytes` of the byte that is rarest in logs: what a search looks for.
    pub anchor: usize,
    /// The first sixteen bytes, little endian, and which of them count.
    pub head: u128,
    /// Mask for `head`.
    pub head_mask: u128,
}

impl Literal {
    /// Prepares `bytes`, which are not empty.
    pub fn new(bytes: &[u8]) -> Self {
        let anchor = (0..bytes.len()).min_by_key(|at| commonness(bytes[*at])).unwrap_or(0);
        let len_bytes = bytes.len().min(16);
        let mut head = [0; 16];
        head[..len_bytes].copy_from_slice(&bytes[..len_bytes]);
        let head_mask = u128::MAX >> (128 - 8 * len_bytes as u32);
        Self { bytes: bytes.into(), anchor, head: u128::from_le_bytes(head), head_mask }
    }
}

/// Rough rank of a byte's frequency in log lines.
fn commonness(byte: u8) -> u8 {
    match byte {
        b'|' | b'[' | b']' | b'(' | b')' | b'{' | b'}' | b'<' | b'>' | b'"' | b';' | b'@' | b'#' => 0,
        b'=' | b',' | b'_' | b'/' | b'+' | b'\'' | b'\t' => 1,
        b':' | b'-' => 2,
        b'A'..=b'Z' => 3,
        b' ' | b'.' => 5,
        b'0'..=b'9' => 6,
        _ => 4,
    }
}

/// What ends a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// These bytes; they are consumed with the capture.
    Literal {
        /// The bytes.
        literal: Literal,
        /// Their last occurrence instead of their first.
        last: bool,
    },
    /// These bytes, at the first place where their first byte stands: a value of a pair never holds the separator,
    /// or it would swallow unknown and repeated keys; and a word holds no space. They are consumed with the capture.
    Separator(Literal),
    /// The first space; all spaces there are consumed with the capture.
    Spaces,
    /// The end of the line.
    End,
    /// The end of the line, with this byte nowhere before it.
    EndWithout(u8),
}

/// One step along a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// These bytes stand here.
    Literal(Literal),
    /// One or more spaces stand here.
    Spaces,
    /// The event time stands here; it ends by its own grammar.
    Timestamp,
    /// A value stands here.
    Capture {
        /// Column number, or number of columns + index into the undeclared names.
        slot: u16,
        /// The column's values have no spaces, which the stop alone does not see to.
        word: bool,
        /// Where it ends.
        stop: Stop,
    },
}

/// A step and what may follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The step.
    pub step: Step,
    /// Tried in order after it.
    pub next: Vec<Node>,
    /// The variant that is complete if the line ends here; tried after `next`'s elder siblings are not.
    pub accept: Option<u16>,
}

/// Adds a variant's steps; `slot_of` numbers the captures, `None` for the event time. `separator` is that of
/// the pairs, if the variant is made of pairs.
pub fn insert(
    nodes: &mut Vec<Node>,
    variant: u16,
    parts: &[Part],
    separator: Option<u8>,
    slot_of: &mut dyn FnMut(&str) -> Option<u16>,
    is_word: &dyn Fn(u16) -> bool,
) -> Result<(), String> {
    let mut steps = Vec::new();
    let mut at = 0;
    while at < parts.len() {
        let step = match &parts[at] {
            Part::Literal(bytes) => Step::Literal(Literal::new(bytes)),
            Part::Spaces => Step::Spaces,
            Part::Capture { name, last } => match slot_of(name) {
                None => Step::Timestamp,
                Some(slot) => {
                    let word = is_word(slot);
                    // where the first space ends a word, nobody has to look for others in it
                    let (stop, word) = match parts.get(at + 1) {
                        Some(Part::Literal(bytes)) if separator.is_some() => {
                            (Stop::Separator(Literal::new(bytes)), word)
                        }
                        Some(Part::Literal(bytes)) if word && !*last && bytes.starts_with(b" ") => {
                            (Stop::Separator(Literal::new(bytes)), false)
                        }
                        Some(Part::Literal(bytes)) => {
                            (Stop::Literal { literal: Literal::new(bytes), last: *last }, word)
                        }
                        Some(Part::Spaces) if !*last => (Stop::Spaces, false),
                        None if word && separator.is_none() => (Stop::EndWithout(b' '), false),
                        None => (separator.map_or(Stop::End, Stop::EndWithout), word),
                        Some(_) => return Err(format!("literal text must follow {{{name}}}")),
                    };
                    // what ends it, if anything, is consumed with it
                    at += 1;
                    Step::Capture { slot, word, stop }
                }
            },
        };
        steps.push(step);
        at += 1;
    }
    insert_steps(nodes, variant, &steps);
    Ok(())
}

fn insert_steps(nodes: &mut Vec<Node>, variant: u16, steps: &[Step]) {
    let Some((step, rest)) = steps.split_first() else { return };
    // only the youngest sibling may be shared, and only while nothing declared earlier would be tried later
    if nodes.last().is_none_or(|node| node.step != *step || rest.is_empty() || node.accept.is_some()) {
        nodes.push(Node { step: step.clone(), next: Vec::new(), accept: None });
    }
    let Some(node) = nodes.last_mut() else { return };
    if rest.is_empty() {
        node.accept = Some(variant);
    } else {
        insert_steps(&mut node.next, variant, rest);
    }
}

/// The pairs of a `key_value` type, derived from its canonical template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Between pairs.
    pub separator: u8,
    /// Between key and value.
    pub assign: u8,
    /// Slots of the captures without a key, in order; `None` is the event time.
    pub positional: Vec<Option<u16>>,
    /// Keys and their slots; `None` is the event time.
    pub keys: Vec<(Box<[u8]>, Option<u16>)>,
}

impl KeyValue {
    /// Reads the shape off a template such as `{timestamp}|a={a}|b={b}`.
    pub fn try_new(parts: &[Part], slot_of: &mut dyn FnMut(&str) -> Option<u16>) -> Result<Self, String> {
        let shape = "format = \"key_value\" needs a first template like {timestamp}|key={column}|..";
        let mut found: Option<(u8, u8)> = None;
        let mut separators = Vec::new();
        let (mut positional, mut keys) = (Vec::new(), Vec::new());
        let mut before: &[u8] = &[];
        for part in parts {
            match part {
                Part::Literal(bytes) => before = bytes,
                Part::Spaces => return Err(shape.into()),
                Part::Capture { name, .. } => {
                    match before {
                        [] if positional.is_empty() && keys.is_empty() => positional.push(slot_of(name)),
                        [] => return Err(shape.into()),
                        [separator] => {
                            separators.push(*separator);
                            positional.push(slot_of(name));
                        }
                        [separator, key @ .., assign] => {
                            if *found.get_or_insert((*separator, *assign)) != (*separator, *assign) {
                                return Err(shape.into());
                            }
                            let key: Box<[u8]> = key.into();
                            if keys.iter().any(|(other, _)| *other == key) {
                                let key = String::from_utf8_lossy(&key);
                                return Err(format!(
                                    "the key {key} stands twice in the first template; keep one"
                                ));
                            }
                            keys.push((key, slot_of(name)));
                        }
                    }
                    before = &[];
                }
            }
        }
        let (separator, assign) = found.ok_or(shape)?;
        let one_separator = separators.iter().all(|other| *other == separator);
        if !before.is_empty() || separator == assign || !one_separator {
            return Err(shape.into());
        }
        Ok(Self { separator, assign, positional, keys })
    }
}
