//! What `pipeline verify` found, as a table and as JSON.
use serde_json::{Value, json};

use super::super::columns::aligned;
use super::super::units::with_commas;
use crate::archive::{Finding, Report, Together};

/// Every finding with the path, or the archive, that it is of.
pub(super) fn findings<'a>(
    location: &'a str,
    report: &'a Report,
) -> impl Iterator<Item = (&'a str, &'a Finding)> {
    let of_sources = report
        .sources
        .iter()
        .flat_map(|source| source.findings.iter().map(|finding| (source.path.as_str(), finding)));
    // a damaged file is why rows of sources are missing
    report.findings.iter().map(move |finding| (location, finding)).chain(of_sources)
}

/// The sources of a place, one that is looked at alone or with others that have the rest of its chunks.
pub(super) fn table(report: &Report, is_alone: bool) -> String {
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
        let not_compared = if is_alone { source.parts_not_compared } else { 0 };
        rows.push(row(name, numbers, &verdict(source.findings.is_empty(), not_compared)));
    }
    let not_compared = if is_alone { report.parts_not_compared() } else { 0 };
    rows.push(row(
        format!("{} sources", report.sources.len()),
        total,
        &verdict(report.is_whole(), not_compared),
    ));
    let mut out = aligned(&rows);
    if report.moved > 0 {
        out.push_str(&format!(
            "{} chunks moved to an archive, some or all of their rows: verify it for their content\n",
            with_commas(report.moved)
        ));
    }
    let (chunks, lines) = report.parts;
    if chunks > 0 {
        let (are, their) = if chunks == 1 { ("chunk is", "its") } else { ("chunks are", "their") };
        let remedy = match (is_alone, not_compared) {
            (false, _) => "",
            (true, 0) => ": verify all places in one command",
            (true, _) => {
                ": verify all places in one command to compare their content; --count counts what is here of them"
            }
        };
        out.push_str(&format!(
            "{} {are} here in part, {} of {their} rows, rejects and blanks elsewhere{remedy}\n",
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

fn verdict(is_well: bool, parts_not_compared: u64) -> String {
    match (is_well, parts_not_compared) {
        (false, _) => "FAILED".to_owned(),
        (true, 0) => "ok".to_owned(),
        (true, 1) => "1 part not compared".to_owned(),
        (true, parts) => format!("{} parts not compared", with_commas(parts)),
    }
}

/// What all places say together, in a line.
pub(super) fn summary(names: &str, together: &Together) -> String {
    let chunks = if together.chunks == 1 { "chunk" } else { "chunks" };
    let content = match together.compared {
        0 => String::new(),
        compared => format!(", {} put together and compared", with_commas(compared)),
    };
    let verdict = verdict(together.findings.is_empty(), together.not_compared);
    format!("{names} together: {} {chunks} in parts{content}  {verdict}", with_commas(together.chunks))
}

/// One place, with how many parts are not compared, if this is what says it.
pub(super) fn of_place(location: &str, report: &Report, is_content_said: bool) -> Value {
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
        "parts_not_compared": is_content_said.then(|| report.parts_not_compared()),
    })
}

/// All places together.
pub(super) fn of_all(names: &str, together: &Together, is_content_wanted: bool) -> Value {
    let findings = together.findings.iter().map(|(path, finding)| format!("{path}: {finding}"));
    json!({
        "into": names,
        "together": true,
        "whole": together.findings.is_empty(),
        "chunks": together.chunks,
        "compared": together.compared,
        "parts_not_compared": is_content_wanted.then_some(together.not_compared),
        "findings": findings.collect::<Vec<_>>(),
    })
}

fn texts(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}
