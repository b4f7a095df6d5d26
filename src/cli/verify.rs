//! `pipeline verify`: whether every byte, line and row is where the ledger says, once.
use std::collections::{BTreeSet, HashSet};
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::archive::{ListFormat, unwrapped};
use super::columns::aligned;
use super::repair::repair;
use super::units::with_commas;
use super::{Exit, Global, places};
use crate::archive::{
    Checks, Finding, GivenFile, Holdings, OfArchive, Report, Together, verify, verify_together,
};
use crate::client::{PgConfig, is_postgres, redacted};
use crate::lake::Archive;
use crate::model::{Ledger, Source};
use crate::source::{
    self, Catalogue, CutOptions, Encoding, End, FileReader, IdentifiedFile, IdentifiedObject, Input,
    SourceError,
};
use crate::warehouse::Warehouse;

/// Prove that lines = rows + rejects + blanks for every chunk, without a gap; exit 1 if not.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Check that these files, folders, globs or objects are stored to their end [default: all that is stored]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Archives (folders, s3://, gs://, az://) and databases (postgres://..) to check
    #[arg(long, value_name = "URL", default_value = super::DEFAULT_ARCHIVE)]
    into: Vec<String>,
    /// Schema of Postgres
    #[arg(long, value_name = "NAME", default_value = "public")]
    schema: String,
    /// Also count the rows of every table
    #[arg(long)]
    count: bool,
    /// Also render every line and compare it with what was read
    #[arg(long)]
    content: bool,
    /// Ship what is missing again, from the files at PATH; in Postgres also chunks whose rows are not as they must be.
    /// Counts rows as --count does
    #[arg(long, requires = "paths")]
    repair: bool,
    /// Form of the report
    #[arg(long, value_enum, default_value_t)]
    output: ListFormat,
}

/// Runs it.
pub(super) async fn run(args: VerifyArgs, global: &Global) -> anyhow::Result<Exit> {
    // rows whose entry in the ledger is gone would be doubled by what is shipped: only counting finds them
    let checks = Checks { count: args.count || args.repair, content: args.content };
    let mut exit = Exit::DONE;
    let mut reports = Vec::new();
    let mut opened = Vec::new();
    for location in &places::locations(&args.into)? {
        let mut place = Opened::at(location, &args.schema).await?;
        let mut report = place.check(&args.paths, checks, &mut exit).await?;
        if args.repair && !report.is_whole() {
            let name = redacted(location);
            for (path, finding) in findings(&name, &report) {
                tracing::warn!("to repair: {path}: {finding}");
            }
            repair(location, &args.schema, &args.paths, &report, global).await?;
            place = Opened::at(location, &args.schema).await?;
            report = place.check(&args.paths, checks, &mut exit).await?;
        }
        if !report.is_whole() {
            worsen(&mut exit, Exit::SOME_FAILED);
        }
        reports.push((redacted(location), report));
        opened.push(place);
    }
    let names = reports.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" and ");
    let together = together(&opened, &reports, checks, args.paths.is_empty()).await?;
    if together.as_ref().is_some_and(|together| !together.findings.is_empty()) {
        exit = Exit::SOME_FAILED;
    }
    let mut out = io::stdout().lock();
    if args.output == ListFormat::Json {
        let mut reports: Vec<_> =
            reports.iter().map(|(location, report)| to_json(location, report)).collect();
        reports.extend(together.map(|together| together_to_json(&names, &together)));
        writeln!(out, "{}", serde_json::to_string_pretty(&reports)?)?;
        return Ok(exit);
    }
    for (location, report) in &reports {
        if !global.quiet {
            write!(out, "{}", table(report))?;
        }
        for (path, finding) in findings(location, report) {
            super::print_error(&format!("{path}: {finding}"))?;
        }
    }
    if let Some(Together { chunks, compared, findings }) = together {
        if !global.quiet {
            let verdict = if findings.is_empty() { "ok" } else { "FAILED" };
            let content = match compared {
                0 => String::new(),
                compared => format!(", {} put together and compared", with_commas(compared)),
            };
            writeln!(out, "{names} together: {} chunks in parts{content}  {verdict}", with_commas(chunks))?;
        }
        for (path, finding) in findings {
            super::print_error(&format!("{path}: {finding}"))?;
        }
    }
    Ok(exit)
}

/// A place, opened to be read.
enum Opened {
    Archive(Archive),
    Database(Box<Warehouse>),
}

impl Opened {
    async fn at(location: &str, schema: &str) -> anyhow::Result<Self> {
        Ok(match is_postgres(location) {
            true => Self::Database(Box::new(Warehouse::open(PgConfig::parse(location)?, schema).await?)),
            false => Self::Archive(Archive::open(location).await?),
        })
    }

    async fn check(&self, paths: &[PathBuf], checks: Checks, exit: &mut Exit) -> anyhow::Result<Report> {
        match self {
            Self::Archive(archive) => check(&OfArchive::new(archive), paths, checks, exit).await,
            Self::Database(warehouse) => check(&**warehouse, paths, checks, exit).await,
        }
    }
}

/// Whether places that have parts of chunks have all of them between them; `None` if none has a part, or there is no
/// other place to have the rest.
async fn together(
    opened: &[Opened],
    reports: &[(String, Report)],
    checks: Checks,
    is_of_all: bool,
) -> anyhow::Result<Option<Together>> {
    if reports.len() < 2 || reports.iter().all(|(_, report)| report.parts.0 == 0) {
        return Ok(None);
    }
    let of_archives: Vec<Option<OfArchive<'_>>> = (opened.iter())
        .map(|place| match place {
            Opened::Archive(archive) => Some(OfArchive::new(archive)),
            Opened::Database(_) => None,
        })
        .collect();
    let mut places: Vec<(String, &dyn Holdings)> = Vec::new();
    for ((place, of_archive), (name, _)) in opened.iter().zip(&of_archives).zip(reports) {
        match (place, of_archive) {
            (Opened::Database(warehouse), _) => places.push((name.clone(), &**warehouse)),
            (Opened::Archive(_), of_archive) => {
                places
                    .extend(of_archive.iter().map(|of_archive| (name.clone(), of_archive as &dyn Holdings)));
            }
        }
    }
    let of_reports = reports.iter().flat_map(|(_, report)| &report.sources).map(|source| source.source_id);
    let sources: Option<BTreeSet<u64>> = (!is_of_all).then(|| of_reports.collect());
    let together = verify_together(&places, sources.as_ref(), checks.content).await;
    together.map(Some).map_err(unwrapped)
}

async fn check(
    holdings: &dyn Holdings,
    paths: &[PathBuf],
    checks: Checks,
    exit: &mut Exit,
) -> anyhow::Result<Report> {
    let files = match paths.is_empty() {
        true => None,
        false => {
            let (paths, ledger) = (paths.to_vec(), holdings.ledger().await.map_err(unwrapped)?);
            let given = tokio::task::spawn_blocking(move || given_files(&paths, ledger)).await;
            let (files, failures) = given.context("look at the files")?;
            for failure in failures {
                super::print_error(&failure.in_one_line())?;
                let is_passing = failure.is_passing();
                worsen(exit, if is_passing { Exit::Code(Exit::SERVICE) } else { Exit::SOME_FAILED });
            }
            Some(files)
        }
    };
    verify(holdings, files.as_deref(), checks).await.map_err(unwrapped)
}

/// What could not be looked at for want of a service says more than what was found in the rest.
fn worsen(exit: &mut Exit, to: Exit) {
    if *exit != Exit::Code(Exit::SERVICE) {
        *exit = to;
    }
}

/// An input that can be read again, and the source that it is.
pub(super) enum Identified {
    File(IdentifiedFile),
    Object(IdentifiedObject),
}

impl Identified {
    pub(super) fn source(&self) -> &Source {
        match self {
            Self::File(file) => &file.source,
            Self::Object(object) => &object.source,
        }
    }

    /// Reads it, but for these ranges; `None` if nothing is left. Blocking.
    pub(super) fn without(&self, committed: Vec<(u64, u64)>) -> Result<Option<FileReader>, SourceError> {
        let cut = CutOptions::default();
        match self {
            Self::File(file) => {
                let file = IdentifiedFile { committed, ..file.clone() };
                FileReader::try_new(source::open(&file.path)?, &file, cut, End::Final).map(Some)
            }
            Self::Object(object) => {
                let all = (0, object.object.size_bytes());
                IdentifiedObject { committed, ..object.clone() }.reader(all, cut)
            }
        }
    }

    /// The length of a compressed input is known only once it is decompressed. Blocking.
    fn unread_bytes(&self) -> Result<u64, SourceError> {
        let committed = match self {
            Self::File(file) if file.encoding == Encoding::Plain => return Ok(file.unread_bytes()),
            Self::File(file) => file.committed.clone(),
            Self::Object(object) if object.is_complete() => return Ok(0),
            Self::Object(object) if object.object.encoding()? == Encoding::Plain => {
                return Ok(object.unread_bytes());
            }
            Self::Object(object) => object.committed.clone(),
        };
        let mut unread_bytes = 0;
        if let Some(mut reader) = self.without(committed)? {
            while let Some(chunk) = reader.next_chunk()? {
                unread_bytes += chunk.bytes.len() as u64;
            }
        }
        Ok(unread_bytes)
    }
}

/// Which sources the paths are; and what could not be read. Blocking.
pub(super) fn identified(paths: &[PathBuf], ledger: Ledger) -> (Vec<Identified>, Vec<SourceError>) {
    let mut catalogue = Catalogue::new(ledger);
    let source::Listing { inputs, failures } = source::list(paths);
    let mut failures: Vec<_> = failures.into_iter().map(|(_, error)| error).collect();
    let (mut met, mut facts, mut objects) = (HashSet::new(), Vec::new(), Vec::new());
    for input in inputs {
        match input {
            Input::File(_, stat) if !met.insert(stat.place) => {}
            Input::File(path, _) => {
                match source::open(&path).and_then(|file| catalogue.inspect(&path, &file)) {
                    Ok(file) => facts.push(file),
                    Err(error) => failures.push(error),
                }
            }
            Input::Object(object) => objects.push(object),
            Input::Stdin | Input::Pipe(_) => {
                let remedy = "leave PATH out to verify it by the ledger";
                failures.push(SourceError::Stream { path: input.name(), remedy });
            }
        }
    }
    let files = catalogue.resolve(facts).into_iter().map(Identified::File).collect::<Vec<_>>();
    let objects = objects.into_iter().map(|object| Identified::Object(catalogue.identify_object(object)));
    (files.into_iter().chain(objects).collect(), failures)
}

/// The same, with what of them is not committed. Blocking.
fn given_files(paths: &[PathBuf], ledger: Ledger) -> (Vec<GivenFile>, Vec<SourceError>) {
    let (identified, mut failures) = identified(paths, ledger);
    let mut files = Vec::new();
    for file in identified {
        match file.unread_bytes() {
            Ok(unread_bytes) => {
                let Source { path, id, .. } = file.source().clone();
                files.push(GivenFile { path, source_id: id, unread_bytes });
            }
            Err(error) => failures.push(error),
        }
    }
    (files, failures)
}

/// Every finding with the path, or the archive, that it is of.
fn findings<'a>(location: &'a str, report: &'a Report) -> impl Iterator<Item = (&'a str, &'a Finding)> {
    let of_sources = report
        .sources
        .iter()
        .flat_map(|source| source.findings.iter().map(|finding| (source.path.as_str(), finding)));
    // a damaged file is why rows of sources are missing
    report.findings.iter().map(move |finding| (location, finding)).chain(of_sources)
}

fn table(report: &Report) -> String {
    let head = ["source", "bytes", "lines", "rows", "rejects", "blanks", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut total = [0; 5];
    for source in &report.sources {
        let name = match source.generation {
            0 => source.path.clone(),
            generation => format!("{} (generation {generation})", source.path),
        };
        let numbers = [source.len_bytes, source.lines, source.rows, source.rejects, source.blanks];
        for (total, number) in total.iter_mut().zip(numbers) {
            *total += number;
        }
        let verdict = if source.findings.is_empty() { "ok" } else { "FAILED" };
        rows.push(row(name, numbers, verdict));
    }
    let verdict = if report.is_whole() { "ok" } else { "FAILED" };
    rows.push(row(format!("{} sources", report.sources.len()), total, verdict));
    let mut out = aligned(&rows);
    if report.moved > 0 {
        out.push_str(&format!(
            "{} chunks moved to an archive, some or all of their rows: verify it for their content\n",
            with_commas(report.moved)
        ));
    }
    let (chunks, lines) = report.parts;
    if chunks > 0 {
        out.push_str(&format!(
            "{} chunks are here in part, {} of their rows, rejects and blanks elsewhere: verify all places in one command\n",
            with_commas(chunks),
            with_commas(lines)
        ));
    }
    out
}

fn row(name: String, numbers: [u64; 5], verdict: &str) -> Vec<String> {
    let numbers = numbers.map(with_commas);
    std::iter::once(name).chain(numbers).chain([verdict.to_owned()]).collect()
}

fn to_json(location: &str, report: &Report) -> serde_json::Value {
    let texts = |findings: &[Finding]| findings.iter().map(ToString::to_string).collect::<Vec<_>>();
    let sources: Vec<_> = report
        .sources
        .iter()
        .map(|source| {
            json!({
                "source": source.path,
                "generation": source.generation,
                "chunks": source.chunks,
                "bytes": source.len_bytes,
                "lines": source.lines,
                "rows": source.rows,
                "rejects": source.rejects,
                "blanks": source.blanks,
                "types": source.types,
                "findings": texts(&source.findings),
            })
        })
        .collect();
    json!({
        "into": location,
        "whole": report.is_whole(),
        "sources": sources,
        "findings": texts(&report.findings),
        "moved_chunks": report.moved,
        "parts": report.parts.0,
        "rows_elsewhere": report.parts.1,
    })
}

fn together_to_json(names: &str, together: &Together) -> serde_json::Value {
    let texts = together.findings.iter().map(|(path, finding)| format!("{path}: {finding}"));
    json!({
        "into": names,
        "together": true,
        "whole": together.findings.is_empty(),
        "chunks": together.chunks,
        "compared": together.compared,
        "findings": texts.collect::<Vec<_>>(),
    })
}
