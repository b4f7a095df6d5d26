//! Any text as a type file, and any text as a line template; what compiles has to decode any lines.
//! The input is text, NUL, lines.
#![no_main]
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use pipeline::decode::Decoder;
use pipeline::log_type::{LogType, LogTypes};

const COLUMNS: &str = r#"
[columns]
timestamp = { type = "timestamp" }
a = { type = "string" }
b = { type = "u16" }
c = { type = "ip" }
d = { type = "f64" }
e = { type = "bool" }
f = { type = "json" }
g = { type = "timestamp" }
h = { type = "i64", required = true }
"#;

fuzz_target!(|input: &[u8]| {
    let (text, lines) = match input.iter().position(|byte| *byte == 0) {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, &b""[..]),
    };
    let Ok(text) = std::str::from_utf8(text) else { return };
    // what JSON escapes, TOML does in the same way
    let template = serde_json::Value::from(text).to_string();
    let with_template = |format: &str| format!("name = \"fuzz\"\nlines = [{template}]\n{format}{COLUMNS}");
    for text in [text.to_owned(), with_template(""), with_template("format = \"key_value\"\n")] {
        if let Ok(log_type) = LogType::try_new("fuzz", &text) {
            let types = LogTypes::new(vec![Arc::new(log_type)]);
            pipeline_fuzz::check(&types, &mut Decoder::new(&types), lines);
        }
    }
});
