//! `pipeline verify`: whether every byte, line and row is where the ledger says, once.
use std::collections::{BTreeSet, HashSet};
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::archive::{ListFormat, unwrapped};
use super::repair::repair;
use super::{Exit, Global, places};
use crate::archive::{Checks, GivenFile, Holdings, OfArchive, Report, Together, verify, verify_together};
use crate::client::{PgConfig, is_postgres, redacted};
use crate::lake::Archive;
use crate::model::{Ledger, Source};
use crate::source::{
    self, Catalogue, CutOptions, Encoding, End, FileReader, IdentifiedFile, IdentifiedObject, Input,
    SourceError,
};
use crate::warehouse::Warehouse;

mod report;

use report::findings;

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
        worsen(&mut exit, Exit::SOME_FAILED);
    }
    let mut out = io::stdout().lock();
    let is_alone = together.is_none();
    if args.output == ListFormat::Json {
        let mut all: Vec<_> = (reports.iter())
            .map(|(location, report)| report::of_place(location, report, checks.content && is_alone))
            .collect();
        all.extend(together.map(|together| report::of_all(&names, &together, checks.content)));
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        return Ok(exit);
    }
    for (location, report) in &reports {
        if !global.quiet {
            if reports.len() > 1 {
                writeln!(out, "{location}")?;
            }
            write!(out, "{}", report::table(report, is_alone))?;
        }
        for (path, finding) in findings(location, report) {
            super::print_error(&format!("{path}: {finding}"))?;
        }
    }
    if let Some(together) = together {
        if !global.quiet {
            writeln!(out, "{}", report::summary(&names, &together))?;
        }
        for (path, finding) in &together.findings {
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
