//! Passwords: where they come from, and how they stay out of everything that is printed.
//!
//! A password never leaves [`Secret`] but to be sent. A URL is printed only through [`redacted`], which hides too
//! much rather than too little when the URL is not well formed. Deliberately absent: writing passwords anywhere.
use std::fmt;
use std::path::{Path, PathBuf};

use super::ClientError;

/// What stands for a password in print.
const HIDDEN: &str = "***";

/// A password; printed as `***`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password itself, to be sent and for nothing else.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// `url` without its password: everything between the first `:` and the last `@` of what follows the scheme, and
/// the values of parameters that are passwords.
#[must_use]
pub fn redacted(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let (place, parameters) = split_parameters(rest);
    let mut text = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
    match place.rsplit_once('@') {
        Some((credentials, place)) => {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            text.push_str(user);
            if !password.is_empty() {
                text.push_str(&format!(":{HIDDEN}"));
            }
            text.push_str(&format!("@{place}"));
        }
        None => text.push_str(place),
    }
    let parameters = parameters.split('&').filter(|parameter| !parameter.is_empty());
    for (index, parameter) in parameters.enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((key, _)) if is_secret(key) => text.push_str(&format!("{key}={HIDDEN}")),
            _ => text.push_str(parameter),
        }
    }
    text
}

/// Whether `url` holds a password, so that whoever sees the URL has it.
pub(super) fn is_in(url: &str) -> bool {
    redacted(url) != url
}

/// Splits at the `?` that starts the parameters. One before the last `@` is part of a password that was not encoded.
fn split_parameters(rest: &str) -> (&str, &str) {
    let credentials_end = rest.rfind('@').map_or(0, |at| at + 1);
    // an `@` in a parameter (`?application_name=me@host`) is not the end of credentials
    let start = match rest.find('?') {
        Some(mark) if rest[..mark].contains('@') => Some(mark),
        _ => rest[credentials_end..].find('?').map(|mark| credentials_end + mark),
    };
    start.map_or((rest, ""), |mark| (&rest[..mark], &rest[mark + 1..]))
}

fn is_secret(parameter: &str) -> bool {
    let parameter = parameter.to_ascii_lowercase();
    parameter == "pass" || parameter.contains("password")
}

/// A URL whose password holds an `@` or a `/` as it is would be cut in the wrong place, and the error would print
/// a piece of the password.
pub(super) fn check_encoding(url: &str) -> Result<(), ClientError> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let place = split_parameters(rest).0;
    let is_cut = place.matches('@').count() > 1
        || place.rsplit_once('@').is_some_and(|(credentials, _)| credentials.contains(['/', '?', '#']));
    if is_cut {
        return Err(ClientError::BadUrl {
            location: redacted(url),
            reason: "write @ / ? # in a password as %40 %2F %3F %23".to_owned(),
        });
    }
    Ok(())
}

/// The password in the file that `variable` names, if it names one. Blanks around it are not part of it: editors
/// end a file with a newline.
pub(super) fn from_file_in(variable: &str) -> Result<Option<Secret>, ClientError> {
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    let bad = |reason: String| ClientError::BadUrl { location: path.display().to_string(), reason };
    let text = std::fs::read_to_string(&path)
        .map_err(|cause| bad(format!("the password file that {variable} names cannot be read: {cause}")))?;
    match text.trim() {
        "" => Err(bad(format!("the password file that {variable} names is empty"))),
        password => Ok(Some(Secret::new(password))),
    }
}

/// The password in `variable`, if it is set and not empty.
pub(super) fn from_variable(variable: &str) -> Option<Secret> {
    std::env::var(variable).ok().filter(|password| !password.is_empty()).map(Secret::new)
}

/// Warns when `url` came with its password on the command line of this process. `remedy` says where to put it.
pub(super) fn warn_if_on_command_line(url: &str, remedy: &str) {
    if is_in(url) && std::env::args_os().any(|argument| argument.to_string_lossy().contains(url)) {
        tracing::warn!(
            "{}: every user of this machine can read the password in the list of processes; {remedy}",
            redacted(url)
        );
    }
}

/// The entry of a `.pgpass` file, `host:port:database:user:password`, that is for this connection. A `*` fits
/// anything; `\:` and `\\` are a colon and a backslash.
pub(super) fn from_pgpass(text: &str, wanted: [&str; 4]) -> Option<Secret> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = pgpass_fields(line);
        let [places @ .., password] = fields.as_slice() else { return None };
        let fits = places.len() == wanted.len()
            && places.iter().zip(wanted).all(|(place, wanted)| place == "*" || place == wanted);
        fits.then(|| Secret::new(password.as_str()))
    })
}

fn pgpass_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (c, fields.len(), fields.last_mut()) {
            // the password is the last field, whatever it holds
            (':', 1..=4, _) => fields.push(String::new()),
            ('\\', _, Some(field)) => field.extend(chars.next()),
            (_, _, Some(field)) => field.push(c),
            (_, _, None) => {}
        }
    }
    fields
}

/// Whether anyone but its owner can read the file: libpq ignores such a `.pgpass`, and so does this.
#[cfg(unix)]
pub(super) fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
pub(super) fn is_open_to_others(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_printed_however_the_url_is_broken() {
        for (url, printed) in [
            ("postgres://user@host/db", "postgres://user@host/db"),
            ("postgres://user:hunter2@host/db", "postgres://user:***@host/db"),
            ("redis://:hunter2@host:6379/0", "redis://:***@host:6379/0"),
            ("postgres://user:hun/ter2@host/db", "postgres://user:***@host/db"),
            ("postgres://user:hun@ter2@host/db", "postgres://user:***@host/db"),
            ("postgres://user:hun?ter2@host/db", "postgres://user:***@host/db"),
            ("user:hunter2@host", "user:***@host"),
            ("postgres://host/db?user=u&password=hunter2&x=y", "postgres://host/db?user=u&password=***&x=y"),
            (
                "postgres://u:hunter2@host/db?application_name=me@host",
                "postgres://u:***@host/db?application_name=me@host",
            ),
        ] {
            assert_eq!(redacted(url), printed);
            assert_eq!(is_in(url), url != printed);
        }
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
    }

    #[test]
    fn a_password_that_would_be_cut_is_refused_without_printing_it() {
        for url in ["redis://:a@b@host", "redis://:a/b@host", "postgres://u:a?b@host", "redis://:a#b@host"] {
            let error = check_encoding(url).unwrap_err().to_string();
            assert!(error.contains("%40") && error.contains(":***@host"), "{error}");
        }
        check_encoding("postgres://u:a%40b@host/db?application_name=me@host").unwrap();
    }

    #[test]
    fn pgpass_entries_are_found_as_libpq_finds_them() {
        let text = "# a comment\nother:5432:db:user:no\nhost:*:db:us\\:er:pa\\\\ss:word\n*:*:*:*:any\n";
        let found = |wanted| from_pgpass(text, wanted).map(|secret| secret.expose().to_owned());
        assert_eq!(found(["host", "5432", "db", "us:er"]).as_deref(), Some("pa\\ss:word"));
        assert_eq!(found(["host", "5432", "db", "user"]).as_deref(), Some("any"));
        assert_eq!(from_pgpass("host:5432:db:user", ["host", "5432", "db", "user"]), None);
    }
}
