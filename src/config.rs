//! Where a setting comes from: flags, then `PIPELINE_*` variables, then `pipeline.toml`, then the default.
//!
//! Applied to the whole command line at once, so that every flag can be set in all three ways.
//! Deliberately absent: settings that are not flags.
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};
use thiserror::Error;

/// The file, unless `PIPELINE_CONFIG` names another.
const DEFAULT_FILE: &str = "pipeline.toml";

/// Stands between the values of a list in the file where a flag takes one value: no path and no URL has it.
pub const BETWEEN_VALUES: char = '\n';

/// A configuration file that cannot be used.
#[derive(Debug, Error)]
#[error("{}: {reason}", path.display())]
pub struct ConfigError {
    path: PathBuf,
    reason: String,
}

/// Where a value was written that its flag does not take, other than on the command line.
#[derive(Debug, PartialEq, Eq)]
pub enum Origin {
    /// In this variable.
    Variable(String),
    /// In the file, under a key; as a message names it.
    File(String),
}

/// Where flags may have their values from.
#[derive(Debug)]
pub struct Origins {
    path: PathBuf,
    /// Keys that the file has, in whatever table.
    keys: BTreeSet<String>,
}

impl Origins {
    /// Where the value is from that the parser refuses; `None` if it is of the command line, or nothing that was set.
    /// Goes by what beats what, for the parser does not say it.
    pub fn of(&self, error: &clap::Error) -> Option<Origin> {
        let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
        self.of_given(error, arguments, |variable| std::env::var_os(variable).is_some())
    }

    fn of_given(
        &self,
        error: &clap::Error,
        mut arguments: impl Iterator<Item = String>,
        is_set: impl Fn(&str) -> bool,
    ) -> Option<Origin> {
        let (ErrorKind::InvalidValue | ErrorKind::ValueValidation) = error.kind() else { return None };
        let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else { return None };
        // `--chunk-size <SIZE>`
        let (flag, value_name) = flag.split_once(' ').unwrap_or((flag, ""));
        let key = key(flag.strip_prefix("--")?, value_name == "<TIME>");
        let is_flag = |argument: String| argument.split('=').next() == Some(flag);
        if arguments.any(is_flag) {
            return None;
        }
        let variable = variable(&key);
        match is_set(&variable) {
            true => Some(Origin::Variable(variable)),
            false => {
                let place = format!("{}: {key}", self.path.display());
                self.keys.contains(&key).then_some(Origin::File(place))
            }
        }
    }
}

/// Adds variables and the file's settings to every flag of `command`.
pub fn apply(command: Command) -> Result<(Command, Origins), ConfigError> {
    let named = std::env::var_os("PIPELINE_CONFIG").map(PathBuf::from);
    let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    let fail = |reason: String| ConfigError { path: path.clone(), reason };
    let settings = match std::fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            fail(format!("line {line}: {}", error.message().replace('\n', ", ")))
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => toml::Table::new(),
        Err(error) => return Err(fail(format!("cannot be read: {error}"))),
    };
    let command = with_settings(with_variables(command), &settings, &path)?;
    Ok((command, Origins { keys: keys(&settings), path }))
}

fn keys(settings: &toml::Table) -> BTreeSet<String> {
    let of_setting = |(key, value): (&String, &toml::Value)| match value {
        toml::Value::Table(table) => keys(table),
        _ => BTreeSet::from([key.clone()]),
    };
    settings.iter().flat_map(of_setting).collect()
}

/// `--chunk-size` is also `PIPELINE_CHUNK_SIZE`.
fn with_variables(command: Command) -> Command {
    let command = command.mut_args(|arg| match key_of(&arg).as_deref() {
        Some("help" | "version") | None => arg,
        Some(key) => arg.env(variable(key)).hide_env(true),
    });
    command.mut_subcommands(with_variables)
}

fn variable(key: &str) -> String {
    format!("PIPELINE_{}", key.replace('-', "_").to_uppercase())
}

fn key_of(arg: &Arg) -> Option<String> {
    let is_time = arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.as_str() == "TIME"));
    Some(key(arg.get_long()?, is_time))
}

/// What a flag is called elsewhere: its long name. A `--from` that is a time is `from-time`, for `from` is the place
/// that `query` reads, and nobody who sets that means a time.
fn key(long: &str, is_time: bool) -> String {
    match long {
        "from" | "to" if is_time => format!("{long}-time"),
        long => long.to_owned(),
    }
}

/// `chunk-size = "2MiB"` at the top is for every command that has the flag, under `[run]` for that command.
fn with_settings(mut command: Command, settings: &toml::Table, path: &Path) -> Result<Command, ConfigError> {
    for (key, value) in settings {
        let fail = |reason: String| ConfigError { path: path.to_owned(), reason };
        let is_command = command.find_subcommand(key).is_some();
        match value {
            toml::Value::Table(table) if is_command => {
                let mut result = Ok(());
                command = command.mut_subcommand(key, |subcommand| {
                    let unchanged = subcommand.clone();
                    with_settings(subcommand, table, path).unwrap_or_else(|error| {
                        result = Err(error);
                        unchanged
                    })
                });
                result?;
            }
            _ => {
                let values = texts(value).ok_or_else(|| {
                    fail(format!("{key}: a text, number, boolean or list of texts is expected"))
                })?;
                let (changed, found) = with_default(command, key, &values);
                command = changed;
                if !found {
                    return Err(fail(format!("{key} is no flag and no command; see `pipeline --help`")));
                }
            }
        }
    }
    Ok(command)
}

fn with_default(command: Command, key: &str, values: &[String]) -> (Command, bool) {
    let mut found = false;
    let command = command.mut_args(|arg| {
        if key_of(&arg).as_deref() != Some(key) {
            return arg;
        }
        found = true;
        // `--help` would show it, and a URL may hold a password
        let arg = arg.hide_default_value(true);
        match arg.get_action() {
            ArgAction::Append => arg.default_values(values.to_vec()),
            _ => arg.default_value(values.join(&BETWEEN_VALUES.to_string())),
        }
    });
    let command = command.mut_subcommands(|subcommand| {
        let (subcommand, found_below) = with_default(subcommand, key, values);
        found |= found_below;
        subcommand
    });
    (command, found)
}

fn texts(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Integer(_) | toml::Value::Boolean(_) | toml::Value::Float(_) => {
            Some(vec![value.to_string()])
        }
        toml::Value::Array(values) => {
            let texts: Option<Vec<_>> = values.iter().map(texts).collect();
            Some(texts?.concat())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let size = Arg::new("size").long("chunk-size").default_value("1MiB");
        let quiet = Arg::new("quiet").long("quiet").action(ArgAction::SetTrue).global(true);
        Command::new("pipeline").arg(quiet).subcommand(Command::new("run").arg(size))
    }

    fn chunk_size(settings: &str, line: &[&str]) -> String {
        let command =
            with_settings(command(), &toml::from_str(settings).unwrap(), Path::new("pipeline.toml"));
        let matches = command.unwrap().get_matches_from(line);
        matches.subcommand().unwrap().1.get_one::<String>("size").unwrap().clone()
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        assert_eq!(chunk_size("", &["pipeline", "run"]), "1MiB");
        assert_eq!(chunk_size("chunk-size = \"2MiB\"", &["pipeline", "run"]), "2MiB");
        assert_eq!(chunk_size("[run]\nchunk-size = \"3MiB\"", &["pipeline", "run"]), "3MiB");
        assert_eq!(chunk_size("chunk-size = \"2MiB\"", &["pipeline", "run", "--chunk-size", "4MiB"]), "4MiB");
    }

    #[test]
    fn help_does_not_show_what_the_file_says() {
        let settings = toml::from_str("[run]\nchunk-size = \"hunter2\"").unwrap();
        let command = with_settings(command(), &settings, Path::new("pipeline.toml")).unwrap();
        let asked = command.try_get_matches_from(["pipeline", "run", "--help"]).unwrap_err();
        let help = asked.to_string();
        assert!(help.contains("--chunk-size") && !help.contains("hunter2"), "{help}");
    }

    #[test]
    fn an_unknown_setting_is_an_error_that_names_it() {
        for settings in ["chunksize = 1", "[run]\nsize = 1", "[reed]\nchunk-size = \"1\""] {
            let error =
                with_settings(command(), &toml::from_str(settings).unwrap(), Path::new("pipeline.toml"));
            let message = error.unwrap_err().to_string();
            assert!(message.starts_with("pipeline.toml: "), "{message}");
        }
    }

    #[test]
    fn a_value_that_is_refused_is_of_the_flag_then_of_the_variable_then_of_the_file() {
        let number = |name: &'static str| {
            let parser = clap::value_parser!(u16);
            Arg::new(name).long(name).value_name("N").value_parser(parser)
        };
        let command =
            Command::new("pipeline").subcommand(Command::new("run").arg(number("size")).arg(number("other")));
        let refused = |line: &[&str]| command.clone().try_get_matches_from(line).unwrap_err();
        let settings: toml::Table = toml::from_str("[run]\nsize = \"foo\"").unwrap();
        let origins = Origins { path: "pipeline.toml".into(), keys: keys(&settings) };
        let error = refused(&["pipeline", "run", "--size", "foo"]);
        let of = |arguments: &[&str], is_set: bool| {
            let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
            origins.of_given(&error, arguments.into_iter(), |variable| is_set && variable == "PIPELINE_SIZE")
        };
        assert_eq!(of(&["--size", "foo"], true), None);
        assert_eq!(of(&["--size=foo"], true), None);
        assert_eq!(of(&["run", "--sizes"], true), Some(Origin::Variable("PIPELINE_SIZE".into())));
        assert_eq!(of(&["run"], false), Some(Origin::File("pipeline.toml: size".into())));
        let error = refused(&["pipeline", "run", "--other", "foo"]);
        assert_eq!(origins.of_given(&error, std::iter::empty(), |_| false), None);
        let error = refused(&["pipeline", "run", "--nope"]);
        assert_eq!(origins.of_given(&error, std::iter::empty(), |_| true), None);
    }

    #[test]
    fn a_time_and_a_place_of_the_same_flag_are_two_settings() {
        let from = |value: &'static str| Arg::new("from").long("from").value_name(value);
        assert_eq!(key_of(&from("URL")).unwrap(), "from");
        assert_eq!(key_of(&from("TIME")).unwrap(), "from-time");
    }
}
