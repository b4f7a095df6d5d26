//! Line templates: the text form, and its parts.
//!
//! | text | meaning |
//! |---|---|
//! | `{name}` | captures up to the first occurrence of what follows |
//! | `{name*}` | captures up to the last occurrence of what follows |
//! | `{ }` | one or more spaces; rendered as one |
//! | `{?` .. `?}` | may be absent; expands to two variants, the one with it is tried first |
//! | `{{`, `}}` | a brace |
//!
//! Everything else matches byte for byte. Deliberately absent: regular expressions, alternatives
//! (write a second template), nesting of optional parts.

/// Piece of a line, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// These bytes.
    Literal(Vec<u8>),
    /// One or more spaces.
    Spaces,
    /// A value.
    Capture {
        /// Column, or key in `extra` where no such column is declared.
        name: String,
        /// Up to the last occurrence of what follows instead of the first.
        last: bool,
    },
}

/// Optional parts double the variants each; more than this many in one template is a mistake.
const MAX_OPTIONAL: usize = 4;

/// The variants of a template, in the order they are tried. The error says what is wrong at which byte.
pub fn parse(text: &str) -> Result<Vec<Vec<Part>>, String> {
    let mut variants = vec![Vec::new()];
    let mut rest = text;
    let mut num_optional = 0;
    while let Some(start) = rest.find("{?") {
        // `{{?` is a brace and a question mark
        if rest[..start].bytes().rev().take_while(|byte| *byte == b'{').count() % 2 == 1 {
            append_all(&mut variants, &parse_parts(&rest[..start + 1], text, rest)?);
            rest = &rest[start + 1..];
            continue;
        }
        append_all(&mut variants, &parse_parts(&rest[..start], text, rest)?);
        let inner = &rest[start + 2..];
        let end = inner.find("?}").ok_or_else(|| at(text, rest, "`{?` is not closed by `?}`"))?;
        num_optional += 1;
        if num_optional > MAX_OPTIONAL {
            return Err(format!("more than {MAX_OPTIONAL} optional parts; write several templates"));
        }
        let optional = parse_parts(&inner[..end], text, inner)?;
        if optional.is_empty() {
            return Err(at(text, inner, "an optional part is empty"));
        }
        variants = variants
            .into_iter()
            .flat_map(|variant| {
                let mut with = variant.clone();
                append(&mut with, &optional);
                [with, variant]
            })
            .collect();
        rest = &inner[end + 2..];
    }
    append_all(&mut variants, &parse_parts(rest, text, rest)?);
    for variant in &variants {
        check(variant)?;
    }
    Ok(variants)
}

/// Text that parses to `parts`.
pub fn to_text(parts: &[Part]) -> String {
    parts
        .iter()
        .map(|part| match part {
            Part::Literal(bytes) => String::from_utf8_lossy(bytes).replace('{', "{{").replace('}', "}}"),
            Part::Spaces => "{ }".into(),
            Part::Capture { name, last } => format!("{{{name}{}}}", if *last { "*" } else { "" }),
        })
        .collect()
}

fn at(whole: &str, rest: &str, what: &str) -> String {
    format!("{what} (byte {} of \"{whole}\")", whole.len() - rest.len())
}

fn append_all(variants: &mut [Vec<Part>], parts: &[Part]) {
    for variant in variants {
        append(variant, parts);
    }
}

/// Appends, joining literals that touch.
fn append(variant: &mut Vec<Part>, parts: &[Part]) {
    for part in parts {
        match (variant.last_mut(), part) {
            (Some(Part::Literal(before)), Part::Literal(bytes)) => before.extend_from_slice(bytes),
            _ => variant.push(part.clone()),
        }
    }
}

fn parse_parts(text: &str, whole: &str, rest_of_whole: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut literal = Vec::new();
    let mut rest = text;
    let fail = |rest: &str, what: &str| {
        let position = &rest_of_whole[text.len() - rest.len()..];
        Err(at(whole, position, what))
    };
    while let Some(character) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("{{") {
            literal.push(b'{');
            rest = after;
        } else if let Some(after) = rest.strip_prefix("}}") {
            literal.push(b'}');
            rest = after;
        } else if character == '}' {
            return fail(rest, "`}` closes nothing; write `}}` for a brace");
        } else if character == '{' {
            let Some(end) = rest.find('}') else {
                return fail(rest, "`{` is not closed; write `{{` for a brace");
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            let name = &rest[1..end];
            let last = name.ends_with('*');
            let bare = name.strip_suffix('*').unwrap_or(name);
            if name == " " {
                parts.push(Part::Spaces);
            } else if is_name(bare) {
                parts.push(Part::Capture { name: bare.into(), last });
            } else {
                return fail(rest, "a capture is named by lowercase letters, digits and `_`");
            }
            rest = &rest[end + 1..];
        } else {
            literal.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            rest = &rest[character.len_utf8()..];
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

/// Whether it can name a log type, table or column: `[a-z_][a-z0-9_]*`, at most 63 bytes (Postgres).
pub fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && name.len() <= 63
}

fn check(variant: &[Part]) -> Result<(), String> {
    if variant.is_empty() {
        return Err("a line template is empty".into());
    }
    for pair in variant.windows(2) {
        if let [Part::Capture { name: first, .. }, Part::Capture { name: second, .. }] = pair {
            // a timestamp ends by itself, but what is a timestamp is known only with the columns
            if first != "timestamp" {
                return Err(format!("nothing separates {{{first}}} from {{{second}}}"));
            }
        }
    }
    let mut names: Vec<_> = variant
        .iter()
        .filter_map(|part| match part {
            Part::Capture { name, .. } => Some(name),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("{{{}}} is captured twice in one template", pair[0])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Part {
        Part::Literal(text.as_bytes().to_vec())
    }

    fn capture(name: &str) -> Part {
        Part::Capture { name: name.into(), last: false }
    }

    #[test]
    fn parts_are_read_in_order() {
        let last = Part::Capture { name: "user".into(), last: true };
        assert_eq!(
            parse("{timestamp} {{x}}{ }for {user*} é").unwrap(),
            [vec![capture("timestamp"), literal(" {x}"), Part::Spaces, literal("for "), last, literal(" é")]]
        );
    }

    #[test]
    fn an_optional_part_is_two_variants_the_longer_first() {
        let variants = parse("a{? {user}?} b{? c?}").unwrap();
        let texts: Vec<_> = variants.iter().map(|variant| to_text(variant)).collect();
        assert_eq!(texts, ["a {user} b c", "a {user} b", "a b c", "a b"]);
        assert_eq!(parse("{{?x").unwrap(), [vec![literal("{?x")]]);
    }

    #[test]
    fn mistakes_name_the_place() {
        for (text, message) in [
            ("a {user", "`{` is not closed; write `{{` for a brace (byte 2 of \"a {user\")"),
            ("a } b", "`}` closes nothing; write `}}` for a brace (byte 2 of \"a } b\")"),
            ("{User}", "a capture is named by lowercase letters, digits and `_` (byte 0 of \"{User}\")"),
            ("a{? b", "`{?` is not closed by `?}` (byte 0 of \"a{? b\")"),
            ("{a}{b}", "nothing separates {a} from {b}"),
            ("{a} {a}", "{a} is captured twice in one template"),
            ("", "a line template is empty"),
        ] {
            assert_eq!(parse(text).unwrap_err(), message, "{text}");
        }
    }

    #[test]
    fn text_comes_back() {
        for text in ["{timestamp}|a={a}|{{", "x{ }{y*}}}"] {
            assert_eq!(to_text(&parse(text).unwrap()[0]), text);
        }
    }
}
