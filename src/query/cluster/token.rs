//! The secret that coordinator and workers of a cluster share.
//!
//! It is in no `Debug` and no message.
use tonic::codegen::http::HeaderValue;

use crate::client::BearerToken;
use crate::query::QueryError;

/// A token, ready to be shown and to be compared with.
#[derive(Debug, Clone)]
pub struct ClusterToken {
    /// `Bearer ..`
    pub(super) header: HeaderValue,
    pub(super) expected: BearerToken,
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
        Ok(Self { header, expected: BearerToken::new(token) })
    }
}

#[cfg(test)]
mod tests {
    use tonic::codegen::http::HeaderMap;
    use tonic::codegen::http::header::AUTHORIZATION;

    use super::*;

    #[test]
    fn only_the_token_itself_opens_and_nothing_prints_it() {
        let token = ClusterToken::try_new(" hunter2\n").unwrap();
        let shows = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            token.expected.is_shown_in(&headers)
        };
        assert!(shows("Bearer hunter2") && shows("bearer hunter2"));
        for value in ["Bearer hunter", "Bearer", "Basic hunter2", "hunter2", "Bearer  "] {
            assert!(!shows(value), "{value}");
        }
        assert!(!token.expected.is_shown_in(&HeaderMap::new()));
        assert!(!format!("{token:?}{:?}", token.header).contains("hunter"));
        assert!(ClusterToken::try_new("\n").is_err() && ClusterToken::try_new("a\u{1}b").is_err());
    }
}
