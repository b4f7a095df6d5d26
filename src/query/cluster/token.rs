//! The secret that coordinator and workers of a cluster share.
//!
//! It is in no `Debug` and no message, and is compared by its hash, which takes the same time for all of them.
use std::fmt;

use sha2::{Digest, Sha256};
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{HeaderMap, HeaderValue};

use crate::query::QueryError;

/// A token, ready to be shown and to be compared with.
#[derive(Clone)]
pub struct ClusterToken {
    /// `Bearer ..`
    pub(super) header: HeaderValue,
    hash: [u8; 32],
}

impl ClusterToken {
    /// The token in `text`; white space around it is not part of it.
    pub fn try_new(text: &str) -> Result<Self, QueryError> {
        let token = text.trim();
        let bad = |reason: &str| QueryError::Cluster(format!("the token of the cluster {reason}"));
        if token.is_empty() {
            return Err(bad("is empty; write one into the file"));
        }
        let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| bad("holds a character that no header can; take letters and digits"))?;
        header.set_sensitive(true);
        Ok(Self { header, hash: Sha256::digest(token.as_bytes()).into() })
    }

    /// Whether a request shows it.
    pub(super) fn is_shown_in(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|text| text.split_once(' '));
        let shown = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        shown.is_some_and(|(_, token)| {
            let hash: [u8; 32] = Sha256::digest(token.trim().as_bytes()).into();
            hash == self.hash
        })
    }
}

impl fmt::Debug for ClusterToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_opens_and_nothing_prints_it() {
        let token = ClusterToken::try_new(" hunter2\n").unwrap();
        let shows = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            token.is_shown_in(&headers)
        };
        assert!(shows("Bearer hunter2") && shows("bearer hunter2"));
        for value in ["Bearer hunter", "Bearer", "Basic hunter2", "hunter2", "Bearer  "] {
            assert!(!shows(value), "{value}");
        }
        assert!(!token.is_shown_in(&HeaderMap::new()));
        assert!(!format!("{token:?}{:?}", token.header).contains("hunter"));
        assert!(ClusterToken::try_new("\n").is_err() && ClusterToken::try_new("a\u{1}b").is_err());
    }
}
