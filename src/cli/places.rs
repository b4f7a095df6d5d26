//! What `--into` says: places, and by `#types=` which log types each is to have.
//!
//! A fragment, because a URL has room for it and libpq does not use it. Where one place has a fragment, each log type
//! goes to exactly one place, and rejects and blank lines to the first without one, or else to the first.
use std::collections::{BTreeMap, BTreeSet};

use super::UsageError;
use crate::client::redacted;
use crate::ledger::{BLANKS, REJECTS, Share};
use crate::log_type::LogTypes;

/// What begins the types of a place.
const FRAGMENT: &str = "#types=";

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
        if let Some(before) = named[..position].iter().find(|before| before.location == of.location) {
            let place = redacted(before.location);
            return Err(UsageError(format!(
                "--into {place} is there twice; give all of its types in one #types="
            )));
        }
        for name in of.types.iter().flatten() {
            if types.get(name).is_none() {
                return Err(UsageError(format!(
                    "--into {}{FRAGMENT}{name}: there is no log type {name}; there are {}",
                    redacted(of.location),
                    names(types)
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
pub(super) fn location(text: &str) -> Result<String, UsageError> {
    Ok(Named::parse(text)?.location.to_owned())
}

/// A place as it is written.
#[derive(Debug)]
struct Named<'a> {
    location: &'a str,
    types: Option<BTreeSet<&'a str>>,
}

impl<'a> Named<'a> {
    fn parse(text: &'a str) -> Result<Self, UsageError> {
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

/// A variable has room for one value: of several URLs in it, each is a place.
fn named(texts: &[String]) -> Result<Vec<Named<'_>>, UsageError> {
    let mut all = Vec::new();
    for text in texts {
        let parts = || text.split_whitespace();
        match parts().count() > 1 && parts().all(|part| part.contains("://")) {
            true => all.extend(parts()),
            false => all.push(text.as_str()),
        }
    }
    all.into_iter().map(Named::parse).collect()
}

fn hashes(types: &LogTypes) -> BTreeMap<String, String> {
    types.iter().map(|log_type| (log_type.name().to_owned(), log_type.table.hash.clone())).collect()
}

fn names(types: &LogTypes) -> String {
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

    fn names_of(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn refusal(into: &[&str]) -> String {
        of(&texts(into), &LogTypes::load(None).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn a_place_without_types_has_what_no_other_names_and_what_has_no_type() {
        let firewall = &format!("{A}#types=firewall");
        let expected = [
            (A.to_owned(), names_of(&["auth", "blanks", "dns", "rejects"])),
            (B.to_owned(), names_of(&["firewall"])),
        ];
        assert_eq!(elsewhere(&[firewall, B]), expected);
        let mut reversed = elsewhere(&[B, firewall]);
        reversed.reverse();
        assert_eq!(reversed, expected);
        // an archive too, and in a variable, several
        assert_eq!(elsewhere(&[&format!("{firewall} {B}")]), expected);
        assert_eq!(elsewhere(&["my archive#types=dns", B])[0].0, "my archive");
    }

    #[test]
    fn the_first_has_what_has_no_type_where_all_name_theirs() {
        let places = elsewhere(&[&format!("{A}#types=dns,firewall"), &format!("{B}#types=auth")]);
        assert_eq!(places[0].1, names_of(&["auth"]));
        assert_eq!(places[1].1, names_of(&["blanks", "dns", "firewall", "rejects"]));
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
        assert_eq!(location(&firewall).unwrap(), A);
        assert_eq!(locations(&[firewall, B.to_owned()]).unwrap(), [A, B]);
    }
}
