//! Who is who: certificates of a private CA, loaded from PEM files, and the names that they must carry.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use synod_engine::ids::{ClusterId, ReplicaId};

/// The CA that everyone must chain to, and the own certificate with its key.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    certificate_path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot read {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} holds no valid PEM {what}: {detail} (make new files with `synod certs`)")]
    Pem {
        path: PathBuf,
        what: &'static str,
        detail: String,
    },
    #[error("the key in {key} does not belong to the certificate in {certificate}: {detail}")]
    KeyMismatch {
        certificate: PathBuf,
        key: PathBuf,
        detail: String,
    },
    #[error(
        "the certificate in {certificate} is not for {name}: use the file made for it with this cluster's CA"
    )]
    Name { certificate: PathBuf, name: String },
    #[error(
        "{path} exists already and is not overwritten: choose another directory, or move it away"
    )]
    Exists { path: PathBuf },
    #[error("cannot write {path}: {source}")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot make a certificate for {name}: {detail}")]
    Make { name: String, detail: String },
}

impl Identity {
    /// Loads and checks the files; every error names the file at fault.
    pub fn load(ca: &Path, cert: &Path, key: &Path) -> Result<Identity, IdentityError> {
        let mut roots = RootCertStore::empty();
        for root in certificates(ca)? {
            roots
                .add(root)
                .map_err(|error| pem_error(ca, "CA certificate", &error))?;
        }
        let chain = certificates(cert)?;
        ParsedCertificate::try_from(&chain[0])
            .map_err(|error| pem_error(cert, "certificate", &error))?;
        let private = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|error| pem_error(key, "private key", &error))?;
        let identity = Identity {
            inner: Arc::new(Inner {
                roots: Arc::new(roots),
                chain,
                key: private,
                certificate_path: cert.to_owned(),
            }),
        };
        identity.check_key(key)?;
        Ok(identity)
    }

    /// Fails unless the own certificate carries `name`: better at start than in every handshake.
    pub fn expect_name(&self, name: &str) -> Result<(), IdentityError> {
        if certificate_carries(&self.inner.chain[0], name) {
            Ok(())
        } else {
            Err(IdentityError::Name {
                certificate: self.inner.certificate_path.clone(),
                name: name.to_owned(),
            })
        }
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.inner.roots)
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.inner.chain.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.inner.key.clone_key()
    }

    fn check_key(&self, key: &Path) -> Result<(), IdentityError> {
        crate::tls::certified_key(self)
            .map(drop)
            .map_err(|error| IdentityError::KeyMismatch {
                certificate: self.inner.certificate_path.clone(),
                key: key.to_owned(),
                detail: error.to_string(),
            })
    }
}

/// Never shows the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certificate", &self.inner.certificate_path)
            .finish_non_exhaustive()
    }
}

/// The name in a replica's certificate. It binds the replica to its cluster, so that a certificate of another
/// cluster under the same CA is refused as well.
pub fn replica_name(cluster: ClusterId, replica: ReplicaId) -> String {
    format!("replica-{}.{cluster}.synod", replica.0)
}

/// The name in a client's certificate.
pub fn client_name(cluster: ClusterId) -> String {
    format!("client.{cluster}.synod")
}

/// Whether a certificate, whose chain was checked before, carries `name`.
pub(crate) fn certificate_carries(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else {
        return false;
    };
    ParsedCertificate::try_from(certificate)
        .and_then(|parsed| rustls::client::verify_server_name(&parsed, &name))
        .is_ok()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let pem = read(path)?;
    let all: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| pem_error(path, "certificate", &error))?;
    if all.is_empty() {
        return Err(pem_error(path, "certificate", &"none found"));
    }
    Ok(all)
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    std::fs::read(path).map_err(|source| IdentityError::Read {
        path: path.to_owned(),
        source,
    })
}

fn pem_error(path: &Path, what: &'static str, detail: &dyn fmt::Display) -> IdentityError {
    IdentityError::Pem {
        path: path.to_owned(),
        what,
        detail: detail.to_string(),
    }
}
