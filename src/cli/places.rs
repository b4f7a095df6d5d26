//! What `--into` says: places, and by `#types=` which log types each is to have.
//!
//! A fragment, because a URL has room for it and libpq does not use it. Where one place has a fragment, each log type
//! goes to exactly one place, and rejects and blank lines to the first without one, or else to the first.
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::UsageError;
use crate::client::{local_folder, redacted};
use crate::config::BETWEEN_VALUES;
use crate::ledger::{BLANKS, REJECTS, Share};
use crate::log_type::LogTypes;

/// What begins the types of a place.
pub(super) const FRAGMENT: &str = "#types=";

/// A place to write to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    /// Path or URL.
    pub(super) location: String,
    /// What it is to keep.
    pub(super) share: Share,
}

impl Place {
    /// One that keeps everything.
    pub(super) fn of_all(location: &str, types: &LogTypes) -> Self {
        Self { location: location.to_owned(), share: Share::new(BTreeSet::new(), hashes(types)) }
    }
}

/// The places that these values of `--into` name.
pub(super) fn of(texts: &[String], types: &LogTypes) -> Result<Vec<Place>, UsageError> {
    let named = named(texts)?;
    if named.iter().all(|named| named.types.is_none()) {
        return Ok(named.into_iter().map(|named| Place::of_all(named.location, types)).collect());
    }
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (position, of) in named.iter().enumerate() {
        let name = one_name(of.location);
        if let Some(before) = named[..position].iter().find(|before| one_name(before.location) == name) {
            let (place, other) = (redacted(before.location), redacted(of.location));
            let twice = match place == other {
                true => format!("--into {place} is there twice"),
                false => format!("--into {place} and --into {other} are the same place"),
            };
            return Err(UsageError(format!("{twice}; give all of its types in one {FRAGMENT}")));
        }
        for name in of.types.iter().flatten() {
            if types.get(name).is_none() {
                return Err(UsageError(format!(
                    "--into {}{FRAGMENT}{name}: there is no log type {name}; there are {}",
                    redacted(of.location),
                    names_of(types)
                )));
            }
            if let Some(other) = places.insert(name, position) {
                return Err(UsageError(format!(
                    "log type {name} is to go to {} and to {}; name it once",
                    redacted(named[other].location),
                    redacted(of.location)
                )));
            }
        }
    }
    let mut rest = (0..named.len()).filter(|position| named[*position].types.is_none());
    let (of_rest, second) = (rest.next(), rest.next());
    if let (Some(first), Some(second)) = (of_rest, second) {
        return Err(UsageError(format!(
            "--into {} and {} are without {FRAGMENT} where others have one, so that both would have what no other names; \
             give one of them its types",
            redacted(named[first].location),
            redacted(named[second].location)
        )));
    }
    for log_type in types.iter().filter(|log_type| !places.contains_key(log_type.name())) {
        if of_rest.is_none() {
            let name = log_type.name();
            return Err(UsageError(format!(
                "log type {name} is to go nowhere; name it in a {FRAGMENT}, or give an --into without one, which has \
                 what no other names"
            )));
        }
    }
    let of_lines_without_type = of_rest.unwrap_or(0);
    let place_of = |table: &str| match table {
        REJECTS | BLANKS => of_lines_without_type,
        name => places.get(name).copied().unwrap_or(of_lines_without_type),
    };
    let tables = || types.iter().map(|log_type| log_type.name()).chain([REJECTS, BLANKS]);
    let place = |(position, named): (usize, &Named<'_>)| {
        let elsewhere = tables().filter(|table| place_of(table) != position).map(str::to_owned).collect();
        Place { location: named.location.to_owned(), share: Share::new(elsewhere, hashes(types)) }
    };
    Ok(named.iter().enumerate().map(place).collect())
}

/// The same without the types, for commands that take every place as it is.
pub(super) fn locations(texts: &[String]) -> Result<Vec<String>, UsageError> {
    Ok(named(texts)?.into_iter().map(|named| named.location.to_owned()).collect())
}

/// The same for a command that takes one place.
pub(super) fn location(text: &str, command: &str) -> Result<String, UsageError> {
    match parts(text)[..] {
        [one] => Ok(Named::parse(one)?.location.to_owned()),
        _ => Err(UsageError(format!(
            "`{command}` takes one --into, and pipeline.toml or PIPELINE_INTO has several; name one with --into"
        ))),
    }
}

/// An error if a place has types behind it, for flags that take none.
pub(super) fn expect_no_types(flag: &str, location: &str) -> Result<(), UsageError> {
    match location.contains(FRAGMENT) && !location.starts_with("raw:") {
        true => Err(UsageError(format!(
            "{flag} {}: only --into of run, process and fetch takes {FRAGMENT}; name the place without it",
            redacted(location)
        ))),
        false => Ok(()),
    }
}

/// What was given, for a message, without passwords.
pub(super) fn names(texts: &[String]) -> String {
    texts.iter().flat_map(|text| parts(text)).map(redacted).collect::<Vec<_>>().join(" and ")
}

/// A place as it is written.
#[derive(Debug)]
struct Named<'a> {
    location: &'a str,
    types: Option<BTreeSet<&'a str>>,
}

impl<'a> Named<'a> {
    fn parse(text: &'a str) -> Result<Self, UsageError> {
        let named = Self::split(text)?;
        let has_space = named.location.split_whitespace().nth(1).is_some();
        if has_space && local_folder(named.location).is_some_and(|folder| !folder.exists()) {
            return Err(UsageError(format!(
                "--into {}: there is no folder of that name with white space; give each place an --into of its own or, in \
                 PIPELINE_INTO, write URLs (file:///..) with a space between; if it is one folder, make it first",
                redacted(named.location)
            )));
        }
        Ok(named)
    }

    fn split(text: &'a str) -> Result<Self, UsageError> {
        let Some(start) = text.rfind("#type") else { return Ok(Self { location: text, types: None }) };
        let (location, fragment) = text.split_at(start);
        let refuse = |reason: &str| {
            UsageError(format!(
                "--into {}{fragment}: {reason}, such as {FRAGMENT}dns,auth",
                redacted(location)
            ))
        };
        let list = fragment
            .strip_prefix(FRAGMENT)
            .ok_or_else(|| refuse("write the log types of a place behind it"))?;
        let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let types: BTreeSet<&str> = names.iter().copied().collect();
        match names.len() {
            0 => Err(refuse("it names no log type")),
            _ if names
                .iter()
                .any(|name| !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')) =>
            {
                Err(refuse("it names what is no log type; name places apart"))
            }
            count if count > types.len() => Err(refuse("it names a log type twice; name each once")),
            _ if location.is_empty() => Err(refuse("it names no place")),
            _ => Ok(Self { location, types: Some(types) }),
        }
    }
}

fn named(texts: &[String]) -> Result<Vec<Named<'_>>, UsageError> {
    texts.iter().flat_map(|text| parts(text)).map(Named::parse).collect()
}

/// The places in a value. A variable has room for one: of several URLs in it, each is a place.
fn parts(text: &str) -> Vec<&str> {
    if text.contains(BETWEEN_VALUES) {
        return text.split(BETWEEN_VALUES).collect();
    }
    let parts: Vec<&str> = text.split_whitespace().collect();
    match parts.len() > 1 && parts.iter().all(|part| part.contains("://")) {
        true => parts,
        false => vec![text],
    }
}

/// A folder has one name, whether it is written as a path or as a URL.
fn one_name(location: &str) -> String {
    match local_folder(location) {
        // without a slash at its end
        Some(folder) => folder.components().collect::<PathBuf>().display().to_string(),
        None => location.trim_end_matches('/').to_owned(),
    }
}

fn hashes(types: &LogTypes) -> BTreeMap<String, String> {
    types.iter().map(|log_type| (log_type.name().to_owned(), log_type.table.hash.clone())).collect()
}

fn names_of(types: &LogTypes) -> String {
    let mut names: Vec<&str> = types.iter().map(|log_type| log_type.name()).collect();
    names.sort_unstable();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "postgres://me:secret@a/logs";
    const B: &str = "postgres://b/logs";

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    /// Of each place, what goes elsewhere.
    fn elsewhere(into: &[&str]) -> Vec<(String, BTreeSet<String>)> {
        let types = LogTypes::load(None).unwrap();
        let places = of(&texts(into), &types).unwrap();
        places.into_iter().map(|place| (place.location, place.share.elsewhere().clone())).collect()
    }

    fn set_of(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn refusal(into: &[&str]) -> String {
        of(&texts(into), &LogTypes::load(None).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn a_place_without_types_has_what_no_other_names_and_what_has_no_type() {
        let firewall = &format!("{A}#types=firewall");
        let expected = [
            (A.to_owned(), set_of(&["auth", "blanks", "dns", "rejects"])),
            (B.to_owned(), set_of(&["firewall"])),
        ];
        assert_eq!(elsewhere(&[firewall, B]), expected);
        let mut reversed = elsewhere(&[B, firewall]);
        reversed.reverse();
        assert_eq!(reversed, expected);
        // an archive too, and in a variable, several
        assert_eq!(elsewhere(&[&format!("{firewall} {B}")]), expected);
        let folder = tempfile::Builder::new().prefix("my archive").tempdir().unwrap();
        let spaced = folder.path().to_str().unwrap();
        assert_eq!(elsewhere(&[&format!("{spaced}#types=dns"), B])[0].0, spaced);
    }

    #[test]
    fn the_first_has_what_has_no_type_where_all_name_theirs() {
        let places = elsewhere(&[&format!("{A}#types=dns,firewall"), &format!("{B}#types=auth")]);
        assert_eq!(places[0].1, set_of(&["auth"]));
        assert_eq!(places[1].1, set_of(&["blanks", "dns", "firewall", "rejects"]));
        // one that has all of it is as one without types
        assert_eq!(elsewhere(&[&format!("{A}#types=auth,dns,firewall")]), [(A.to_owned(), BTreeSet::new())]);
    }

    #[test]
    fn places_without_any_types_have_everything() {
        assert_eq!(elsewhere(&[A, B, A]).len(), 3);
        assert!(elsewhere(&[A, B]).iter().all(|(_, elsewhere)| elsewhere.is_empty()));
    }

    #[test]
    fn a_type_that_goes_nowhere_twice_or_is_unknown_is_refused_by_name_and_no_password_is_said() {
        let firewall = &format!("{A}#types=firewall");
        for (into, expected) in [
            (&[&firewall[..]][..], "log type auth is to go nowhere"),
            (
                &[firewall, "x#types=auth,firewall,dns"],
                "log type firewall is to go to postgres://me:***@a/logs and to x",
            ),
            (&[firewall, "x#types=http"], "there is no log type http; there are auth, dns, firewall"),
            (&[firewall, B, "x"], "are without #types="),
            (&[firewall, A], "is there twice"),
            (&["tw#types=firewall", "./tw/"], "--into tw and --into ./tw/ are the same place"),
            (&["/no/x#types=firewall", "file:///no/x"], "are the same place"),
            (&["s3://b/x#types=firewall", "s3://b/x/"], "are the same place"),
            (&["/data/a /data/b"], "give each place an --into of its own"),
            (&["/data/a#types=dns,auth,firewall /data/b"], "name places apart"),
            (&["x#types=", B], "it names no log type"),
            (&["x#types=dns,dns", B], "it names a log type twice"),
            (
                &["x#type=dns", B],
                "--into x#type=dns: write the log types of a place behind it, such as #types=dns,auth",
            ),
            (&["#types=dns", B], "it names no place"),
            (&["x#types=dns,postgres://b/logs"], "it names what is no log type; name places apart"),
        ] {
            let refusal = refusal(into);
            assert!(refusal.contains(expected) && !refusal.contains("secret"), "{into:?}: {refusal}");
        }
    }

    #[test]
    fn commands_that_take_places_as_they_are_take_them_with_their_types() {
        let firewall = format!("{A}#types=firewall");
        assert_eq!(location(&firewall, "replay").unwrap(), A);
        assert_eq!(locations(&[firewall.clone(), B.to_owned()]).unwrap(), [A, B]);
        assert!(expect_no_types("--from", &firewall).is_err());
        assert!(expect_no_types("--from", A).is_ok());
    }

    #[test]
    fn of_several_places_in_one_value_each_has_a_name_and_none_is_the_one() {
        for several in [format!("{A} {B}"), format!("{A}{BETWEEN_VALUES}{B}")] {
            let refusal = location(&several, "replay").unwrap_err().to_string();
            assert!(
                refusal.contains("`replay` takes one --into") && !refusal.contains("secret"),
                "{refusal}"
            );
            assert_eq!(names(&[several]), format!("postgres://me:***@a/logs and {B}"));
        }
    }
}
