//! Proposes a type file from sample lines: templates by shape, columns by what varies.
//!
//! Lines are cut into words and what stands between them; lines with the same cuts are of one shape, and the
//! commonest shapes become templates. A word that never changes within a shape is literal text, any other a
//! column: named by its `key=` or the word before it, typed by the values seen. What no template of a whole
//! shape takes ends in a `{message}`. Deliberately absent: certainty. It is a draft for a person to edit.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::net::IpAddr;

use super::template::{Part, is_name, to_text};
use super::timestamp::Parser;
use super::{ColumnType, SYSTEM_COLUMNS};

/// Rarer shapes than this many are left to `{message}`.
const MAX_TEMPLATES: usize = 20;

/// Words and separators in turn, starting with a (possibly empty) separator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Token<'a> {
    Timestamp,
    Word(&'a str),
    Separator(&'a str),
}

#[derive(Debug)]
struct Column {
    column_type: ColumnType,
    /// No value seen has a space.
    word: bool,
    seen: bool,
}

/// The text of a type file that takes `lines`, or why there is none.
pub fn propose(name: &str, lines: &[&str]) -> Result<String, String> {
    if !is_name(name) {
        return Err(format!("\"{name}\" is not a name (lowercase letters, digits, `_`)"));
    }
    let tokenised: Vec<Vec<Token<'_>>> =
        lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).filter_map(tokens).collect();
    if tokenised.is_empty() {
        return Err("no line has a timestamp that can be read; a log type needs one".into());
    }
    let mut shapes: HashMap<Vec<Token<'_>>, Vec<&Vec<Token<'_>>>> = HashMap::new();
    for line in &tokenised {
        shapes.entry(shape(line)).or_default().push(line);
    }
    let mut shapes: Vec<_> = shapes.into_values().collect();
    // commonest first; among equals the one seen first, so that a sample gives one proposal
    shapes.sort_by_key(|lines| (std::cmp::Reverse(lines.len()), lines[0].as_ptr()));
    let mut columns = BTreeMap::new();
    let mut order = Vec::new();
    let mut templates = Vec::new();
    let mut left_over = Vec::new();
    for (index, lines) in shapes.iter().enumerate() {
        // a shape seen once says nothing about what varies
        if index < MAX_TEMPLATES && (lines.len() > 1 || shapes.len() == 1) {
            templates.push(template(lines, lines[0].len(), false, &mut columns, &mut order));
        } else {
            left_over.extend(lines.iter().copied());
        }
    }
    if let Some(first) = left_over.first() {
        let common = left_over.iter().fold(first.len(), |common, line| {
            let same =
                shape(first).iter().zip(shape(line)).take_while(|(one, other)| **one == *other).count();
            common.min(same)
        });
        let has_time = first[..common].contains(&Token::Timestamp);
        if has_time {
            templates.push(template(&left_over, common, true, &mut columns, &mut order));
        }
    }
    templates.dedup();
    Ok(file(name, &templates, &columns, &order))
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b"._-/:@%+*#~&?!\\".contains(&byte)
}

/// Cuts a line; `None` if it holds no timestamp.
fn tokens(line: &str) -> Option<Vec<Token<'_>>> {
    let (time_start, time_len) = find_timestamp(line)?;
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut separator_start = 0;
    while at < line.len() {
        let rest = &line[at..];
        let (token, len_bytes) = if at == time_start {
            (Token::Timestamp, time_len)
        } else if let Some(quoted) = after_quote(line, at) {
            (Token::Word(quoted), quoted.len())
        } else {
            let end = rest.bytes().position(|byte| !is_word_byte(byte)).unwrap_or(rest.len());
            let end = if at < time_start { end.min(time_start - at) } else { end };
            let word = rest[..end].trim_end_matches([':', '.', '?', '!']);
            if word.is_empty() {
                at += rest.chars().next().map_or(1, char::len_utf8);
                continue;
            }
            (Token::Word(word), word.len())
        };
        tokens.push(Token::Separator(&line[separator_start..at]));
        tokens.push(token);
        at += len_bytes;
        separator_start = at;
    }
    if separator_start < line.len() {
        tokens.push(Token::Separator(&line[separator_start..]));
    }
    Some(tokens)
}

/// What is quoted behind the quotation mark before `at`, if one stands there and is closed.
fn after_quote(line: &str, at: usize) -> Option<&str> {
    let opens = line[..at].ends_with('"') && line[..at].matches('"').count() % 2 == 1;
    let end = line[at..].find('"')?;
    (opens && end > 0).then(|| &line[at..at + end])
}

/// The first timestamp that starts where a word could: (byte, length).
fn find_timestamp(line: &str) -> Option<(usize, usize)> {
    let bytes = line.as_bytes();
    (0..bytes.len().min(256)).find_map(|at| {
        let starts_word = at == 0 || !is_word_byte(bytes[at - 1]);
        let read = starts_word.then(|| Parser::default().parse(&bytes[at..], 0))??;
        let ends_word = bytes.get(at + read.len_bytes).is_none_or(|byte| !byte.is_ascii_alphanumeric());
        ends_word.then_some((at, read.len_bytes))
    })
}

/// The tokens with every word alike, except keys: `a=1` and `b=1` are two shapes.
fn shape<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    tokens
        .iter()
        .enumerate()
        .map(|(index, token)| match token {
            Token::Word(word) if is_key(tokens, index) => Token::Word(word),
            Token::Word(_) => Token::Word(""),
            other => other.clone(),
        })
        .collect()
}

fn is_key(tokens: &[Token<'_>], index: usize) -> bool {
    matches!(tokens.get(index + 1), Some(Token::Separator(separator)) if separator.starts_with('='))
}

/// The template of lines of one shape, up to `len` tokens; the rest is `{message}` if `open`.
fn template(
    lines: &[&Vec<Token<'_>>],
    len: usize,
    open: bool,
    columns: &mut BTreeMap<String, Column>,
    order: &mut Vec<String>,
) -> String {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut used = BTreeSet::new();
    let first = lines[0];
    let mut before: Option<&str> = None;
    let capture = |name: String, literal: &mut String, parts: &mut Vec<Part>| {
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(literal).into_bytes()));
        }
        parts.push(Part::Capture { name, last: false });
    };
    for index in 0..len {
        match &first[index] {
            Token::Separator(separator) => literal.push_str(separator),
            Token::Timestamp => {
                note("timestamp", ColumnType::Timestamp, false, columns, order);
                capture("timestamp".into(), &mut literal, &mut parts);
            }
            Token::Word(word) => {
                let values: Vec<&str> = lines
                    .iter()
                    .filter_map(|line| match line[index] {
                        Token::Word(value) => Some(value),
                        _ => None,
                    })
                    .collect();
                let follows_key = index >= 2 && is_key(first, index - 2);
                let constant = values.iter().all(|value| value == word);
                let looks_literal = !word.bytes().any(|byte| byte.is_ascii_digit());
                if is_key(first, index) || (constant && looks_literal && !follows_key) {
                    literal.push_str(word);
                    before = Some(word);
                    continue;
                }
                let name = column_name(before.take(), &mut used);
                let word = values.iter().all(|value| !value.contains(' '));
                note(&name, type_of(&name, &values), word, columns, order);
                capture(name, &mut literal, &mut parts);
            }
        }
    }
    if open {
        note("message", ColumnType::String, false, columns, order);
        if literal.is_empty() {
            // two captures need something between them
            literal.push(' ');
        }
        capture("message".into(), &mut literal, &mut parts);
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into_bytes()));
    }
    to_text(&parts)
}

fn column_name(before: Option<&str>, used: &mut BTreeSet<String>) -> String {
    let mut name: String = before
        .unwrap_or("field")
        .to_lowercase()
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() { character } else { '_' })
        .collect();
    name = name.trim_matches('_').chars().take(40).collect();
    if !is_name(&name) || name == "timestamp" || SYSTEM_COLUMNS.contains(&name.as_str()) {
        name = format!("field_{name}").trim_end_matches('_').to_owned();
    }
    let unique = (1..).map(|number| if number == 1 { name.clone() } else { format!("{name}_{number}") });
    let name = unique.into_iter().find(|name| !used.contains(name)).unwrap_or_default();
    used.insert(name.clone());
    name
}

fn type_of(name: &str, values: &[&str]) -> ColumnType {
    let all = |fits: &dyn Fn(&str) -> bool| values.iter().all(|value| fits(value));
    if all(&|value| value.parse::<IpAddr>().is_ok()) {
        ColumnType::Ip
    } else if name.contains("port") && all(&|value| value.parse::<u16>().is_ok()) {
        ColumnType::U16
    } else if all(&|value| value.parse::<u64>().is_ok_and(|value| value <= i64::MAX as u64)) {
        ColumnType::U64
    } else if all(&|value| value.parse::<i64>().is_ok()) {
        ColumnType::I64
    } else if all(&|value| value.parse::<f64>().is_ok_and(f64::is_finite)) {
        ColumnType::F64
    } else if all(&|value| matches!(value, "true" | "false")) {
        ColumnType::Bool
    } else {
        ColumnType::String
    }
}

/// Adds a column, or widens it to what two templates saw in it.
fn note(
    name: &str,
    column_type: ColumnType,
    word: bool,
    columns: &mut BTreeMap<String, Column>,
    order: &mut Vec<String>,
) {
    let column = columns.entry(name.into()).or_insert(Column { column_type, word, seen: false });
    column.word &= word;
    if !column.seen {
        column.seen = true;
        order.push(name.into());
    } else if column.column_type != column_type {
        column.column_type = match (column.column_type, column_type) {
            (ColumnType::U16, ColumnType::U64) | (ColumnType::U64, ColumnType::U16) => ColumnType::U64,
            _ => ColumnType::String,
        };
    }
}

fn file(name: &str, templates: &[String], columns: &BTreeMap<String, Column>, order: &[String]) -> String {
    let mut out = format!("name  = \"{name}\"\ntable = \"{name}_logs\"\ndoc   = \"\"\n");
    let quoted = |text: &str| toml::Value::String(text.into()).to_string();
    out.push_str(
        "# {column} captures up to what follows it, {column*} up to its last occurrence\nlines = [\n",
    );
    // writing to memory cannot fail
    for template in templates {
        let _infallible = writeln!(out, "  {},", quoted(template));
    }
    out.push_str("]\n");
    if templates.len() == 1 && is_key_value(&templates[0]) {
        out.push_str("# the same pairs in another order, some missing (NULL), others unknown (-> extra)\nformat = \"key_value\"\n");
    }
    out.push_str("\n# word: a template in which the value has a space does not match\n[columns]\n");
    let width = order.iter().map(String::len).max().unwrap_or(0);
    for name in order {
        let Column { column_type, word, .. } = columns[name];
        let index = if column_type == ColumnType::Ip { ", index = true" } else { "" };
        let word = if word { ", word = true" } else { "" };
        let _infallible = writeln!(
            out,
            "{name:<width$} = {{ type = \"{}\"{index}{word}, doc = \"\" }}",
            column_type.name()
        );
    }
    out
}

fn is_key_value(template: &str) -> bool {
    let Ok(variants) = super::template::parse(template) else { return false };
    let mut no_slots = |_: &str| Some(0);
    super::program::KeyValue::try_new(&variants[0], &mut no_slots).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::LogType;
    use super::*;

    #[test]
    fn pairs_become_columns_of_their_keys() {
        let lines = [
            "2024-01-15T00:00:03.731Z|action=reject|src=192.168.1.45|src_port=56374|rate=0.5",
            "2024-01-15T00:00:04.731Z|action=accept|src=192.168.1.46|src_port=56375|rate=2",
        ];
        let text = propose("fw", &lines).unwrap();
        let log_type = LogType::try_new("fw.toml", &text).unwrap();
        assert!(
            text.contains("\"{timestamp}|action={action}|src={src}|src_port={src_port}|rate={rate}\""),
            "{text}"
        );
        let types: Vec<_> = log_type.columns.iter().map(|column| column.column_type).collect();
        use ColumnType::{F64, Ip, String, Timestamp, U16};
        assert_eq!(types, [Timestamp, String, Ip, U16, F64]);
        assert!(log_type.key_value.is_some(), "{text}");
    }

    #[test]
    fn words_that_never_change_are_literal_and_name_what_follows() {
        let lines = [
            "Jan  5 10:11:12 gate1 sshd[7]: Failed password for root from 203.0.113.9 port 2201 ssh2",
            "Jan  5 10:11:13 gate2 sshd[8]: Failed password for admin from 203.0.113.8 port 2202 ssh2",
        ];
        let text = propose("ssh", &lines).unwrap();
        assert!(
            text.contains("{timestamp} {field} sshd[{sshd}]: Failed password for {for} from {from} port {port} ssh{ssh}")
                || text.contains("{timestamp} {field} sshd[{sshd}]: Failed password for {for} from {from} port {port} {field_2}"),
            "{text}"
        );
        LogType::try_new("ssh.toml", &text).unwrap();
    }

    #[test]
    fn quoted_text_is_one_value_and_rare_shapes_end_in_a_message() {
        let lines = [
            "10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET /a b HTTP/1.0\" 200 2326",
            "10.0.0.2 - - [10/Oct/2000:13:55:37 -0700] \"POST /c HTTP/1.0\" 404 12",
            "10.0.0.3 - - [10/Oct/2000:13:55:38 -0700] out of memory",
            "10.0.0.4 - - [10/Oct/2000:13:55:38 -0700] restarted (pid 7)",
        ];
        let text = propose("web", &lines).unwrap();
        assert!(
            text.contains(r#"- - [{timestamp}] \"{field_2}\" {field_3} {field_4}"#)
                || text.contains(r#"'{field} - - [{timestamp}] "{field_2}" {field_3} {field_4}'"#),
            "{text}"
        );
        assert!(text.contains("{message}"), "{text}");
        LogType::try_new("web.toml", &text).unwrap();
    }

    #[test]
    fn values_without_spaces_are_declared_so_that_the_type_leaves_other_lines_alone() {
        let lines = ["2024-01-15T00:00:03Z 10.0.0.1 GET 200", "2024-01-15T00:00:04Z 10.0.0.2 PUT 404"];
        let text = propose("web", &lines).unwrap();
        let log_type = LogType::try_new("web.toml", &text).unwrap();
        assert!(log_type.columns[1..].iter().all(|column| column.word), "{text}");
    }

    #[test]
    fn without_a_timestamp_there_is_no_proposal() {
        assert!(propose("x", &["hello world", ""]).unwrap_err().contains("no line has a timestamp"));
        assert!(propose("X y", &["2024-01-15T00:00:03Z a"]).unwrap_err().contains("is not a name"));
    }
}
