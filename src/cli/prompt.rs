//! The prompt of `pipeline query`: statements that end with `;`, commands that begin with `\`.
//!
//! An error ends neither; Ctrl-C takes back the line or ends the running statement, Ctrl-D leaves. What was typed is
//! kept in `$XDG_STATE_HOME/pipeline/query_history` (`~/.local/state` unless set), readable by its owner alone.
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use futures_util::FutureExt;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::query::{Printer, raised};
use super::{Exit, print_error};
use crate::client::with_causes;

const PROMPT: &str = "pipeline=> ";
/// Within a statement.
const CONTINUED: &str = "pipeline-> ";
/// Statements kept in the history.
const HISTORY_ENTRIES: usize = 1_000;

/// What `\d` asks.
const TABLES: &str =
    "SELECT table_name FROM information_schema.tables WHERE table_schema = 'archive' ORDER BY 1";

const HELP: &str = "\\d          tables and views
\\d TABLE    columns of a table
\\timing     print the time of each statement, or no longer
\\q          leave, as Ctrl-D does
\\?          this
A statement ends with ; and may take several lines. Ctrl-C ends it while it runs.
";

/// Reads and runs until the end.
pub(super) async fn run(mut out: Printer) -> anyhow::Result<Exit> {
    let config = Config::builder().max_history_size(HISTORY_ENTRIES)?.auto_add_history(false).build();
    let mut editor: Editor<(), FileHistory> = Editor::with_config(config).context("open the prompt")?;
    let history = history_file();
    if let Some(path) = &history {
        // there is none before the first time
        let _none_yet = editor.load_history(path);
    }
    let mut interrupts = signal(SignalKind::interrupt()).context("watch for Ctrl-C")?;
    let mut statement = String::new();
    loop {
        let prompt = if statement.is_empty() { PROMPT } else { CONTINUED };
        let line = match tokio::task::block_in_place(|| editor.readline(prompt)) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                statement.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error).context("read from the terminal"),
        };
        if statement.is_empty() && line.trim().is_empty() {
            continue;
        }
        statement.push_str(&line);
        let is_command = statement.starts_with('\\');
        if !is_command && !is_complete(&statement) {
            statement.push('\n');
            continue;
        }
        let text = std::mem::take(&mut statement);
        editor.add_history_entry(text.as_str()).context("keep the history")?;
        let ended = match command(&mut out, &text) {
            Ok(Step::Run(sql)) => run_sql(&out, sql, &mut interrupts).await,
            Ok(Step::Done) => Ok(true),
            Ok(Step::Leave) => Ok(false),
            Err(error) => Err(error),
        };
        match ended {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => print_error(&with_causes(error.as_ref()))?,
        }
    }
    if let Some(path) = &history {
        let saved = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let saved = saved.map_err(ReadlineError::from).and_then(|()| editor.save_history(path));
        if let Err(error) = saved {
            tracing::warn!("{}: the history is not kept: {error}", path.display());
        }
    }
    Ok(Exit::DONE)
}

/// What to do with what was typed.
enum Step {
    Run(String),
    Done,
    Leave,
}

/// Does what a command says; statements are to be run.
fn command(out: &mut Printer, text: &str) -> anyhow::Result<Step> {
    let words: Vec<&str> = text.trim_end().trim_end_matches(';').split_whitespace().collect();
    match words[..] {
        ["\\q"] => return Ok(Step::Leave),
        ["\\?"] => io::stdout().write_all(HELP.as_bytes())?,
        ["\\timing"] => {
            out.timing = !out.timing;
            writeln!(io::stdout(), "timing is {}", if out.timing { "on" } else { "off" })?;
        }
        ["\\d"] => return Ok(Step::Run(TABLES.to_owned())),
        ["\\d", table] => return Ok(Step::Run(format!("DESCRIBE {table}"))),
        [command, ..] if command.starts_with('\\') => bail!("{command} is no command; \\? lists them"),
        _ => return Ok(Step::Run(text.to_owned())),
    }
    Ok(Step::Done)
}

/// Runs statements until the end or Ctrl-C; false once nobody reads any more.
async fn run_sql(out: &Printer, sql: String, interrupts: &mut Signal) -> anyhow::Result<bool> {
    // one that came while nothing ran
    while interrupts.recv().now_or_never().is_some() {}
    let out = out.clone();
    // a task of its own: a step of a join may take long, and the key is heard nevertheless
    let mut running = tokio::spawn(async move {
        for query in out.session.statements(&sql).map_err(raised)? {
            if !out.print(&query).await? {
                return Ok(false);
            }
        }
        anyhow::Ok(true)
    });
    tokio::select! {
        ended = &mut running => ended?,
        _ = interrupts.recv() => {
            running.abort();
            writeln!(io::stderr(), "interrupted")?;
            Ok(true)
        }
    }
}

/// Whether a text ends with a `;` that is not within quotes or a comment.
fn is_complete(text: &str) -> bool {
    let mut rest = text;
    let mut is_ended = false;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '\'' | '"' => match rest[1..].find(first) {
                Some(end) => end + 2,
                None => return false,
            },
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => match rest.find("*/") {
                Some(end) => end + 2,
                None => return false,
            },
            _ => first.len_utf8(),
        };
        let is_comment = rest.starts_with("--") || rest.starts_with("/*");
        if !is_comment && !first.is_whitespace() {
            is_ended = first == ';';
        }
        rest = &rest[len..];
    }
    is_ended
}

fn history_file() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join("pipeline/query_history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_ends_with_a_semicolon_that_is_not_quoted() {
        for text in
            ["SELECT 1;", "SELECT ';' ; \n", "SELECT 1; -- done", "SELECT 1; /* ; */", "SELECT 'it''s';"]
        {
            assert!(is_complete(text), "{text}");
        }
        for text in [
            "SELECT 1",
            "SELECT ';",
            "SELECT 1 -- ;",
            "SELECT 1 /* ;",
            "SELECT \";\"",
            "",
            "SELECT 1; SELECT",
        ] {
            assert!(!is_complete(text), "{text}");
        }
    }
}
