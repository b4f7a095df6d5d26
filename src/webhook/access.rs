//! Who may post: a bearer token, and signatures as <https://www.standardwebhooks.com> describes them.
//!
//! What is set is required; with nothing set everybody may post. Secrets are in no error and no `Debug`, and are
//! compared in constant time.
use std::fmt;
use std::time::Duration;

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

use crate::client::BearerToken;

/// What Standard Webhooks puts before a secret.
const SECRET_PREFIX: &str = "whsec_";
/// A shorter secret can be guessed; the standard asks for 24 bytes.
const MIN_SECRET_LEN: usize = 16;

/// Who may post.
#[derive(Clone, Default)]
pub struct Access {
    token: Option<BearerToken>,
    secrets: Vec<Vec<u8>>,
    tolerance: Duration,
}

impl fmt::Debug for Access {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Access")
            .field("token", &self.token)
            .field("secrets", &self.secrets.len())
            .field("tolerance", &self.tolerance)
            .finish()
    }
}

/// A secret that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AccessError {
    /// An empty token would let everybody in who sends one.
    #[error("the bearer token is empty; write one into the file")]
    EmptyToken,
    /// It is not in the form of the standard.
    #[error("signing secret {0} is not whsec_ and base64 of at least {MIN_SECRET_LEN} bytes")]
    BadSecret(usize),
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
pub enum Denied {
    /// There is no token, or another.
    #[error("a bearer token is needed: send `authorization: Bearer ..`")]
    Token,
    /// A header of the signature is not there.
    #[error("a signature is needed: send webhook-id, webhook-timestamp and webhook-signature")]
    NoSignature,
    /// It was signed too long ago, or ahead of the clock.
    #[error("webhook-timestamp is too far from the time here")]
    Timestamp,
    /// No secret gives this signature.
    #[error("webhook-signature does not fit")]
    Signature,
}

impl Access {
    /// `secrets` are in the form `whsec_..`, several while they are rotated; `tolerance` is how far the time of a
    /// signature may be from the clock.
    pub fn try_new(token: Option<&str>, secrets: &[&str], tolerance: Duration) -> Result<Self, AccessError> {
        if token.is_some_and(|token| token.trim().is_empty()) {
            return Err(AccessError::EmptyToken);
        }
        let secrets = secrets
            .iter()
            .enumerate()
            .map(|(index, secret)| secret_of(secret).ok_or(AccessError::BadSecret(index + 1)));
        Ok(Self {
            token: token.map(BearerToken::new),
            secrets: secrets.collect::<Result<_, _>>()?,
            tolerance,
        })
    }

    /// Whether anything is asked of a sender.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        self.token.is_some() || !self.secrets.is_empty()
    }

    /// What can be told before the body is read.
    pub fn check_headers(&self, headers: &HeaderMap) -> Result<(), Denied> {
        match self.token.is_none_or(|token| token.is_shown_in(headers)) {
            true => Ok(()),
            false => Err(Denied::Token),
        }
    }

    /// The signature, of the body as it was sent. `now_seconds` is the clock.
    pub fn check_signature(&self, headers: &HeaderMap, body: &[u8], now_seconds: i64) -> Result<(), Denied> {
        if self.secrets.is_empty() {
            return Ok(());
        }
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let (Some(id), Some(time), Some(signatures)) =
            (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"))
        else {
            return Err(Denied::NoSignature);
        };
        let signed_at: i64 = time.parse().map_err(|_| Denied::Timestamp)?;
        if now_seconds.abs_diff(signed_at) > self.tolerance.as_secs() {
            return Err(Denied::Timestamp);
        }
        let signatures: Vec<_> = signatures
            .split_ascii_whitespace()
            .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
            .collect();
        let fits = self
            .secrets
            .iter()
            .filter_map(|secret| mac_of(secret, id, time, body))
            .any(|mac| signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok()));
        if fits { Ok(()) } else { Err(Denied::Signature) }
    }
}

/// Signs what is posted, as a sender does.
#[derive(Clone)]
pub struct Signer {
    secret: Vec<u8>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Signer(***)")
    }
}

impl Signer {
    /// `secret` is in the form `whsec_..`.
    pub fn try_new(secret: &str) -> Result<Self, AccessError> {
        Ok(Self { secret: secret_of(secret).ok_or(AccessError::BadSecret(1))? })
    }

    /// The `webhook-signature` of a body with this `webhook-id` and `webhook-timestamp`.
    #[must_use]
    pub fn sign(&self, id: &str, time: &str, body: &[u8]) -> String {
        let mac = mac_of(&self.secret, id, time, body);
        let signature = mac.map(|mac| STANDARD.encode(mac.finalize().into_bytes()));
        format!("v1,{}", signature.unwrap_or_default())
    }
}

/// The bytes of a secret in the form of the standard.
fn secret_of(text: &str) -> Option<Vec<u8>> {
    let bytes = STANDARD.decode(text.trim().strip_prefix(SECRET_PREFIX)?).ok()?;
    (bytes.len() >= MIN_SECRET_LEN).then_some(bytes)
}

/// What is signed; there is one for a secret of any length.
fn mac_of(secret: &[u8], id: &str, time: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    for part in [id.as_bytes(), b".", time.as_bytes(), b".", body] {
        mac.update(part);
    }
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the standard's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const BODY: &[u8] = b"{\"test\": 2432232314}";
    const SIGNED: [(&str, &str); 3] = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ];
    const SIGNED_AT: i64 = 1_614_265_330;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_example_of_the_standard_is_let_in_and_no_change_of_it() {
        let other = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        let tolerance = Duration::from_secs(300);
        let access = Access::try_new(None, &[other, SECRET], tolerance).unwrap();
        let signed = headers(&SIGNED);
        assert_eq!(access.check_signature(&signed, BODY, SIGNED_AT + 300), Ok(()));
        assert_eq!(access.check_signature(&signed, BODY, SIGNED_AT + 301), Err(Denied::Timestamp));
        assert_eq!(access.check_signature(&signed, BODY, SIGNED_AT - 301), Err(Denied::Timestamp));
        assert_eq!(access.check_signature(&signed, b"{}", SIGNED_AT), Err(Denied::Signature));
        assert_eq!(access.check_signature(&headers(&SIGNED[..2]), BODY, SIGNED_AT), Err(Denied::NoSignature));
        let signer = Signer::try_new(SECRET).unwrap();
        assert_eq!(signer.sign(SIGNED[0].1, SIGNED[1].1, BODY), SIGNED[2].1);
        assert_eq!(format!("{signer:?}"), "Signer(***)");
        let mut rotated = signed.clone();
        let both = format!("v1a,x v1,AAAA {}", SIGNED[2].1);
        rotated.insert("webhook-signature", both.parse().unwrap());
        assert_eq!(access.check_signature(&rotated, BODY, SIGNED_AT), Ok(()));
        let access = Access::try_new(None, &[other], tolerance).unwrap();
        assert_eq!(access.check_signature(&signed, BODY, SIGNED_AT), Err(Denied::Signature));
    }

    #[test]
    fn a_token_is_needed_where_one_is_set() {
        let access = Access::try_new(Some("hunter2\n"), &[], Duration::ZERO).unwrap();
        let with = |value: &'static str| access.check_headers(&headers(&[("authorization", value)]));
        assert_eq!((with("Bearer hunter2"), with("bearer hunter2")), (Ok(()), Ok(())));
        for value in ["Bearer hunter", "Bearer", "Basic hunter2", "hunter2", "Bearer  "] {
            assert_eq!(with(value), Err(Denied::Token), "{value}");
        }
        assert_eq!(access.check_headers(&HeaderMap::new()), Err(Denied::Token));
        assert!(!format!("{access:?}").contains("hunter2"));
    }

    #[test]
    fn secrets_that_cannot_be_are_refused_without_printing_them() {
        for secret in ["", "whsec_", "whsec_!!", "hunter2", "whsec_aHVudGVyMg=="] {
            let error = Access::try_new(None, &[SECRET, secret], Duration::ZERO).unwrap_err();
            assert_eq!(error, AccessError::BadSecret(2), "{secret}");
        }
        assert_eq!(Access::try_new(Some(" "), &[], Duration::ZERO).unwrap_err(), AccessError::EmptyToken);
    }
}
