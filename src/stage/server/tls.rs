//! The server's certificate and key, from files.
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// Where certificate and key are.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// PEM: the server's certificate, then those that sign it.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
}

/// Files of which TLS cannot be made.
#[derive(Debug, Error)]
pub enum TlsError {
    /// Not there, or not PEM.
    #[error("{}: is no PEM file with a {expected}: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// They do not fit together.
    #[error("{}: cannot be used with {}: {source}", files.certificate.display(), files.key.display())]
    Unusable {
        /// The files.
        files: TlsFiles,
        /// What is wrong.
        source: rustls::Error,
    },
}

impl TlsFiles {
    /// Reads both.
    pub fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let pem = |path: &PathBuf, expected, source| TlsError::Pem { path: path.clone(), expected, source };
        let certificates = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
            .map_err(|source| pem(&self.certificate, "certificate", source))?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|source| pem(&self.key, "private key", source))?;
        let unusable = |source| TlsError::Unusable { files: self.clone(), source };
        crate::client::use_ring();
        let config = ServerConfig::builder().with_no_client_auth();
        let mut config = config.with_single_cert(certificates, key).map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
