//! A token that a request shows as `authorization: Bearer ..`.
//!
//! Only its SHA-256 is kept, so that it can be in nothing that is printed: of digests, equal prefixes tell nothing about
//! the token, however long comparing takes. Deliberately absent: what an empty one means, which its owners refuse.
use std::fmt;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};

/// The token that is to be shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BearerToken([u8; 32]);

impl BearerToken {
    /// White space around it is not part of it.
    #[must_use]
    pub fn new(token: &str) -> Self {
        Self(Sha256::digest(token.trim()).into())
    }

    /// Whether these headers show it.
    #[must_use]
    pub fn is_shown_in(&self, headers: &HeaderMap) -> bool {
        Self::shown(headers).is_some_and(|token| Self::new(token) == *self)
    }

    /// The token that these headers show, whichever it is.
    #[must_use]
    pub fn shown(headers: &HeaderMap) -> Option<&str> {
        let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}
