//! `pipeline types`: list, show, make and check log types, and print their Postgres tables.
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};

use super::{Exit, Global};
use crate::decode::{Decoder, examples};
use crate::log_type::render::Renderer;
use crate::log_type::{LogType, LogTypes, ddl, propose};

/// Lines of a sample that a proposal is made from.
const SAMPLE_LINES: usize = 10_000;
/// Bytes of a sample line that are looked at.
const SAMPLE_LINE_BYTES: u64 = 64 * 1024;

/// What to do with log types.
#[derive(Debug, Subcommand)]
pub(super) enum TypesCommand {
    /// List the log types in the order in which they are tried
    List(ListArgs),
    /// Print a log type: its columns and its file
    Show {
        /// Its name
        name: String,
    },
    /// Propose a type file from sample lines
    New(NewArgs),
    /// Run log types' own examples; say what is wrong where
    Check {
        /// Type files, or names of types [default: all types]
        types: Vec<String>,
    },
    /// Print the Postgres tables of log types
    Ddl(DdlArgs),
}

/// Flags of `list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Form of the list
    #[arg(long, value_enum, default_value_t)]
    output: ListFormat,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum ListFormat {
    #[default]
    Table,
    Json,
}

/// Flags of `new`.
#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// File of sample lines, or - for standard input
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Name of the type [default: the file's]
    #[arg(long)]
    name: Option<String>,
    /// Write to this file, which must not exist, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Flags of `ddl`.
#[derive(Debug, Args)]
pub(super) struct DdlArgs {
    /// Names of types [default: all types]
    names: Vec<String>,
    /// Schema to make the tables in
    #[arg(long, default_value = "public")]
    schema: String,
}

/// Runs it.
pub(super) fn run(command: TypesCommand, global: &Global) -> anyhow::Result<Exit> {
    let mut out = io::stdout().lock();
    match command {
        TypesCommand::List(args) => list(&global.log_types()?, args.output, &mut out)?,
        TypesCommand::Show { name } => show(named(&global.log_types()?, &name)?, &mut out)?,
        TypesCommand::New(args) => new(&args, &mut out)?,
        TypesCommand::Check { types } => return check(&types, global, &mut out),
        TypesCommand::Ddl(args) => {
            let types = global.log_types()?;
            let chosen: Vec<_> = match args.names.is_empty() {
                true => types.iter().collect(),
                false => args.names.iter().map(|name| named(&types, name)).collect::<Result<_, _>>()?,
            };
            let mut statements: Vec<_> =
                chosen.iter().map(|log_type| ddl::postgres(log_type, &args.schema)).collect();
            let versions = chosen.into_iter().cloned().map(ddl::TypeVersions::alone).collect::<Vec<_>>();
            if let Some((view, _)) = ddl::logs_view(&versions, &args.schema) {
                statements
                    .push(format!("-- with the ledger and the functions of sql/ in the schema:\n{view}"));
            }
            out.write_all(statements.join("\n").as_bytes())?;
        }
    }
    Ok(Exit::DONE)
}

fn named<'a>(types: &'a LogTypes, name: &str) -> anyhow::Result<&'a Arc<LogType>> {
    types.get(name).with_context(|| {
        let names: Vec<_> = types.iter().map(|log_type| log_type.name()).collect();
        format!("there is no log type {name}; there are {}", names.join(", "))
    })
}

fn list(types: &LogTypes, format: ListFormat, out: &mut impl Write) -> anyhow::Result<()> {
    if matches!(format, ListFormat::Json) {
        let list: Vec<_> = types
            .iter()
            .map(|log_type| {
                serde_json::json!({
                    "name": log_type.name(),
                    "table": log_type.table.name,
                    "columns": log_type.columns.len(),
                    "origin": log_type.origin,
                    "doc": log_type.doc,
                })
            })
            .collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&list)?)?;
        return Ok(());
    }
    let width = types.iter().map(|log_type| log_type.name().len()).max().unwrap_or(0);
    for log_type in types.iter() {
        writeln!(out, "{:<width$}  {:<20}  {}", log_type.name(), log_type.table.name, log_type.doc)?;
    }
    Ok(())
}

fn show(log_type: &LogType, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "# {}: {}", log_type.name(), log_type.doc)?;
    writeln!(out, "# table {}, read from {}", log_type.table.name, log_type.origin)?;
    writeln!(out, "{}", log_type.table.text.trim_end())?;
    Ok(())
}

fn check(types: &[String], global: &Global, out: &mut impl Write) -> anyhow::Result<Exit> {
    let mut chosen = Vec::new();
    let mut num_bad = 0;
    if types.is_empty() {
        chosen.extend(global.log_types()?.iter().cloned());
    }
    for given in types {
        if Path::new(given).extension().is_none() && !given.contains('/') {
            chosen.push(Arc::clone(named(&global.log_types()?, given)?));
            continue;
        }
        let text = fs::read_to_string(given).with_context(|| format!("read the type file {given}"))?;
        match LogType::try_new(given, &text) {
            Ok(log_type) => chosen.push(Arc::new(log_type)),
            Err(error) => {
                num_bad += 1;
                writeln!(out, "{error}")?;
            }
        }
    }
    for log_type in chosen {
        let problems = examples::check(&log_type);
        let verdict = match (log_type.examples.len(), problems.len()) {
            (0, _) => "no examples: add [[examples]] with a line and its row".into(),
            (all, 0) => format!("ok, {all} examples"),
            (all, wrong) => format!("{wrong} of {all} examples are wrong"),
        };
        writeln!(out, "{}: {verdict}", log_type.origin)?;
        for problem in &problems {
            writeln!(out, "  {problem}")?;
        }
        num_bad += usize::from(!problems.is_empty());
    }
    Ok(if num_bad == 0 { Exit::DONE } else { Exit::SOME_FAILED })
}

fn new(args: &NewArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(&args.from),
    };
    let sample = read_sample(&args.from)?;
    let lines: Vec<&str> = sample.iter().map(String::as_str).collect();
    let draft = propose::propose(&name, &lines)
        .map_err(|reason| anyhow::anyhow!("{}: {reason}", args.from.display()))?;
    let log_type = Arc::new(LogType::try_new("the proposal", &draft)?);
    let (num_rows, examples) = try_out(&log_type, &lines);
    let text = draft + &examples;
    // the examples are made of rows; this says so if a row does not read back
    let with_examples = Arc::new(LogType::try_new("the proposal", &text)?);
    if let Some(problem) = examples::check(&with_examples).first() {
        bail!("the proposal does not hold its own examples: {problem}");
    }
    match &args.out {
        None => out.write_all(text.as_bytes())?,
        Some(path) => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)
                    .with_context(|| format!("create the folder {}", folder.display()))?;
            }
            let file = OpenOptions::new().write(true).create_new(true).open(path);
            let mut file =
                file.with_context(|| format!("create {} (it must not exist yet)", path.display()))?;
            file.write_all(text.as_bytes()).with_context(|| format!("write {}", path.display()))?;
        }
    }
    writeln!(
        io::stderr(),
        "{num_rows} of {} sample lines become rows; name the columns, then: pipeline types check {}",
        lines.iter().filter(|line| !line.trim().is_empty()).count(),
        args.out.as_deref().unwrap_or(Path::new("FILE")).display()
    )?;
    Ok(())
}

/// The file's name without its endings, as a type's name.
fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let stem = name.split('.').next().unwrap_or_default();
    let name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let name = name.trim_matches(|c: char| c == '_' || c.is_ascii_digit());
    if name.is_empty() { "custom".into() } else { name.into() }
}

fn read_sample(path: &Path) -> anyhow::Result<Vec<String>> {
    let reader: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).with_context(|| format!("open the sample {}", path.display()))?),
    };
    let mut reader = BufReader::new(reader);
    let mut lines = Vec::new();
    while lines.len() < SAMPLE_LINES {
        let mut line = Vec::new();
        let read = (&mut reader).take(SAMPLE_LINE_BYTES).read_until(b'\n', &mut line);
        if read.with_context(|| format!("read the sample {}", path.display()))? == 0 {
            break;
        }
        let line = String::from_utf8_lossy(&line);
        lines.push(line.trim_end_matches(['\n', '\r']).to_owned());
    }
    Ok(lines)
}

/// Decodes the sample: how many lines become rows, and one `[[examples]]` entry per template.
fn try_out(log_type: &Arc<LogType>, lines: &[&str]) -> (u64, String) {
    let mut decoder = Decoder::new(&LogTypes::new(vec![Arc::clone(log_type)]));
    let mut forms = std::collections::BTreeSet::new();
    let (mut num_rows, mut text) = (0, String::new());
    for line in lines {
        let decoded = decoder.decode(&examples::chunk_of(line, 0));
        num_rows += decoded.record.num_rows;
        let [rows] = decoded.types.as_slice() else { continue };
        let form = rows.batch.column_by_name("form").map(|form| form.to_data());
        if forms.insert(format!("{form:?}"))
            && forms.len() <= 10
            && let Ok(renderer) = Renderer::try_new(log_type, &rows.batch)
        {
            text.push_str(&example(log_type, &renderer, &rows.batch, line));
        }
    }
    (num_rows, text)
}

fn example(
    log_type: &LogType,
    renderer: &Renderer<'_>,
    batch: &arrow::array::RecordBatch,
    line: &str,
) -> String {
    use arrow::array::{Array, AsArray};
    let mut row = toml::Table::new();
    for (position, column) in log_type.columns.iter().enumerate() {
        let mut value = Vec::new();
        if renderer.value_text(position, 0, &mut value) {
            row.insert(
                column.name.clone(),
                toml::Value::String(String::from_utf8_lossy(&value).into_owned()),
            );
        }
    }
    if let Some(extra) = batch.column_by_name("extra").map(|extra| extra.as_string::<i32>())
        && extra.is_valid(0)
    {
        row.insert("extra".into(), toml::Value::String(extra.value(0).to_owned()));
    }
    let quoted = |text: &str| toml::Value::String(text.into()).to_string();
    format!(
        "\n[[examples]]\nline = {}\nrow  = {}\nreference_time = \"1970-01-01T00:00:00Z\"\n",
        quoted(line),
        toml::Value::Table(row)
    )
}
