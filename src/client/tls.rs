//! TLS as the two kinds of server need it: by rustls, with ring.
//!
//! How much is verified is the caller's choice, in the words of libpq's `sslmode`. Deliberately absent: client
//! certificates, and OpenSSL.
use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::ClientError;

/// Makes ring this process's provider of TLS. Dependencies have both ring and aws-lc built in, and rustls refuses
/// to choose: without this the first TLS connection panics. A second call has no effect.
pub fn use_ring() {
    // an error means that a provider was chosen before, which is as good
    let _already_chosen = ring::default_provider().install_default();
}

/// The bytes of a file of root certificates, known to hold at least one.
pub(super) fn read_roots(path: &Path) -> Result<(Vec<u8>, RootCertStore), ClientError> {
    let bad = |reason: String| ClientError::BadUrl { location: path.display().to_string(), reason };
    let pem = std::fs::read(path)
        .map_err(|cause| bad(format!("the root certificates cannot be read: {cause}; check sslrootcert")))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|cause| bad(format!("is not a PEM certificate: {cause}")))?;
        roots.add(certificate).map_err(|cause| bad(format!("is not a root certificate: {cause}")))?;
    }
    if roots.is_empty() {
        return Err(bad("holds no PEM certificate; check sslrootcert".to_owned()));
    }
    Ok((pem, roots))
}

/// Encrypts and checks that the server's certificate is signed by one of `roots`, for the name it was asked by.
pub(super) fn verify_full(roots: RootCertStore) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Encrypts; checks the signature on the server's certificate where there are `roots`, never its name.
pub(super) fn without_name(roots: Option<RootCertStore>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyName { roots, provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Whether this error, or one of its causes, is TLS's: trying again meets the same certificate.
pub(super) fn is_at_fault(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // an io::Error's source() skips the error that it wraps, and the Redis driver wraps errors in an Arc
        let shared = error.downcast_ref::<Arc<dyn StdError + Send + Sync>>();
        let io = match shared {
            Some(shared) => shared.downcast_ref::<io::Error>(),
            None => error.downcast_ref::<io::Error>(),
        };
        let wrapped = io.and_then(io::Error::get_ref);
        if error.is::<Error>() || wrapped.is_some_and(|wrapped| wrapped.is::<Error>()) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[derive(Debug)]
struct AnyName {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
