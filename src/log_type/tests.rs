//! Types, their templates and their renderer, from the files as users write them.
use super::*;

fn failure(text: &str) -> String {
    LogType::try_new("test.toml", text).unwrap_err().to_string()
}

#[test]
fn built_in_types_compile_and_are_tried_in_name_order() {
    let types = LogTypes::load(None).unwrap();
    let names: Vec<_> = types.iter().map(|log_type| log_type.name()).collect();
    assert_eq!(names, ["auth", "dns", "firewall"]);
    for log_type in types.iter() {
        assert!(!log_type.examples.is_empty(), "{} has no examples", log_type.name());
        assert!(log_type.columns.iter().all(|column| !column.doc.is_empty()), "{}", log_type.name());
    }
}

#[test]
fn a_sites_types_come_first_and_may_replace_a_built_in_one() {
    let folder = tempfile::tempdir().unwrap();
    let write = |file: &str, name: &str| {
        let text = format!(
            "name = \"{name}\"\nlines = [\"{{timestamp}} {{x}}\"]\n[columns]\ntimestamp = {{ type = \"timestamp\" }}\nx = {{ type = \"u8\" }}"
        );
        std::fs::write(folder.path().join(file), text).unwrap();
    };
    write("b.toml", "zebra");
    write("a.toml", "dns");
    std::fs::write(folder.path().join("notes.txt"), "not a type").unwrap();
    let types = LogTypes::load(Some(folder.path())).unwrap();
    let names: Vec<_> = types.iter().map(|log_type| log_type.name()).collect();
    assert_eq!(names, ["dns", "zebra", "auth", "firewall"]);
    write("c.toml", "zebra");
    let error = LogTypes::load(Some(folder.path())).unwrap_err().to_string();
    assert!(error.contains("another file declares the type zebra too"), "{error}");
}

#[test]
fn mistakes_in_a_type_file_are_one_line_that_names_the_file_and_the_place() {
    let columns = "[columns]\ntimestamp = { type = \"timestamp\" }\nx = { type = \"u8\" }\n";
    for (text, expected) in [
        ("name = \"a\"\nlines = [\"x\"\n".to_owned(), "line "),
        (
            "name = \"a\"\nlines = [\"{timestamp} {x}\"]\n[columns]\ntimestamp = { type = \"time\" }\n"
                .to_owned(),
            "column timestamp: ",
        ),
        (format!("nome = \"a\"\nlines = [\"{{timestamp}} {{x}}\"]\n{columns}"), "unknown field `nome`"),
        (format!("name = \"A b\"\nlines = [\"{{timestamp}}\"]\n{columns}"), "\"A b\" is not a name"),
        (format!("name = \"chunks\"\nlines = [\"{{timestamp}}\"]\n{columns}"), "the name chunks is reserved"),
        (format!("name = \"a\"\nlines = [\"{{x}}\"]\n{columns}"), "does not capture {timestamp}"),
        (format!("name = \"a\"\nlines = []\n{columns}"), "it has no line template"),
        (
            "name = \"a\"\nlines = [\"{timestamp}\"]\n[columns]\nx = { type = \"u8\" }\n".to_owned(),
            "it needs a column `timestamp",
        ),
        (
            format!(
                "name = \"a\"\nlines = [\"{{timestamp}} {{x}}\"]\n{columns}raw = {{ type = \"string\" }}\n"
            ),
            "\"raw\" cannot name a column",
        ),
        (
            format!("name = \"a\"\nlines = [\"{{timestamp}} x\"]\nformat = \"key_value\"\n{columns}"),
            "format = \"key_value\" needs",
        ),
        (
            format!(
                "name = \"a\"\nlines = [\"{{timestamp}}|k={{x}}|k={{y}}\"]\nformat = \"key_value\"\n{columns}"
            ),
            "the key k stands twice",
        ),
        (
            format!(
                "name = \"a\"\nlines = [{{ line = \"{{timestamp}}\", set = {{ x = \"1\" }} }}]\n{columns}"
            ),
            "sets x, which is not a string column",
        ),
    ] {
        let message = failure(&text);
        assert!(message.starts_with("log type test.toml: "), "{message}");
        assert!(message.contains(expected), "expected {expected:?} in {message:?}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn a_form_holds_variant_and_timestamp_form() {
    for variant in [0, 1, 62, KEY_VALUE_VARIANT] {
        for timestamp_form in [0, timestamp::RFC3339_MILLIS_Z, timestamp::OTHER] {
            assert_eq!(split_form(form(variant, timestamp_form)), (variant, timestamp_form));
        }
    }
}
