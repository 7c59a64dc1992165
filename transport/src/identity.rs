//! Who is who: certificates of a private CA, loaded from PEM files, and the names that they must carry.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use synod_engine::ids::{ClusterId, ReplicaId};

use crate::certificate::{Certificate, Fingerprint, Revoked};
use crate::clock::Clock;
use crate::holder::{ClientIdentity, Holder};

/// The CA that everyone must chain to, who is not trusted all the same, and the own certificate with its key.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
    revoked: Arc<Revoked>,
    clock: Clock,
}

struct Inner {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    certificate_path: PathBuf,
    /// When the first certificate of the chain ends, in seconds since 1970.
    not_after: u64,
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
    #[error(
        "{path} can be read by others (mode {mode:03o}): chmod 600 {path}; if others may have read it, make a new key \
         (`synod certs --renew --new-keys`) and revoke the old certificate"
    )]
    KeyOpen { path: PathBuf, mode: u32 },
    #[error(
        "the certificate in {certificate} ended {} days ago: renew it (`synod certs --renew`)",
        .since_s / 86_400
    )]
    Expired { certificate: PathBuf, since_s: u64 },
    #[error("{path}:{line}: {detail}")]
    Revoked {
        path: PathBuf,
        line: usize,
        detail: String,
    },
    #[error(
        "{path} is missing: only the key of the CA adds or renews certificates; bring it here, or change the CA \
         (`synod certs --help` tells how)"
    )]
    NoAuthorityKey { path: PathBuf },
    #[error("the CA in {path} has ended: change it (`synod certs --help` tells how)")]
    AuthorityExpired { path: PathBuf },
    #[error(
        "the CA in {path} is that of cluster {named}: leave out --cluster, or choose another directory"
    )]
    OtherCluster { path: PathBuf, named: ClusterId },
    #[error("the CA in {path} names no cluster: give its id with --cluster")]
    NoCluster { path: PathBuf },
}

impl Identity {
    /// Loads and checks the files; every error names the file at fault.
    pub fn load(ca: &Path, cert: &Path, key: &Path) -> Result<Identity, IdentityError> {
        let mut roots = RootCertStore::empty();
        for root in read_certificates(ca)? {
            roots
                .add(root)
                .map_err(|error| pem_error(ca, "CA certificate", &error))?;
        }
        let chain = read_certificates(cert)?;
        ParsedCertificate::try_from(&chain[0])
            .map_err(|error| pem_error(cert, "certificate", &error))?;
        let not_after = Certificate::read_all(cert)?
            .iter()
            .map(|certificate| certificate.not_after)
            .min();
        let private = PrivateKeyDer::from_pem_slice(&read_key(key)?)
            .map_err(|error| pem_error(key, "private key", &error))?;
        let identity = Identity {
            inner: Arc::new(Inner {
                roots: Arc::new(roots),
                chain,
                key: private,
                certificate_path: cert.to_owned(),
                not_after: not_after.expect("a chain is not empty"),
            }),
            revoked: Arc::default(),
            clock: Clock::default(),
        };
        identity.check_key(key)?;
        Ok(identity)
    }

    /// The client that the own certificate speaks for.
    pub fn client(&self, cluster: ClusterId) -> Result<ClientIdentity, IdentityError> {
        client_of(&self.inner.chain[0], cluster).ok_or_else(|| IdentityError::Name {
            certificate: self.inner.certificate_path.clone(),
            name: Holder::Client(ClientIdentity::UNNAMED).name(cluster),
        })
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

    /// Trusts none of `revoked` any more.
    #[must_use]
    pub fn with_revoked(mut self, revoked: Revoked) -> Identity {
        self.revoked = Arc::new(revoked);
        self
    }

    /// Certificates live by `clock` instead of the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Identity {
        self.clock = clock;
        self
    }

    /// Fails if the own certificate has ended: nobody would accept it.
    pub fn expect_alive(&self) -> Result<(), IdentityError> {
        let now = self.clock.now();
        if now <= self.inner.not_after {
            return Ok(());
        }
        Err(IdentityError::Expired {
            certificate: self.inner.certificate_path.clone(),
            since_s: now - self.inner.not_after,
        })
    }

    /// Seconds until the own certificate ends; 0 when it has.
    pub fn expires_in(&self) -> u64 {
        self.inner.not_after.saturating_sub(self.clock.now())
    }

    pub fn certificate_path(&self) -> &Path {
        &self.inner.certificate_path
    }

    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.inner.chain[0])
    }

    pub fn revoked(&self) -> Arc<Revoked> {
        Arc::clone(&self.revoked)
    }

    pub fn clock(&self) -> Clock {
        self.clock.clone()
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

pub fn replica_name(cluster: ClusterId, replica: ReplicaId) -> String {
    Holder::Replica(replica).name(cluster)
}

/// Which client of `cluster` a certificate, whose chain was checked before, speaks for.
pub(crate) fn client_of(
    certificate: &CertificateDer<'_>,
    cluster: ClusterId,
) -> Option<ClientIdentity> {
    let certificate = Certificate::parse(certificate).ok()?;
    let names = certificate.names.iter();
    let mut holders = names.filter_map(|name| Holder::of_name(name));
    holders.find_map(|(holder, of)| match holder {
        Holder::Client(client) if of == cluster => Some(client),
        Holder::Client(_) | Holder::Replica(_) => None,
    })
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

pub(crate) fn read_certificates(
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let pem = read(path)?;
    let all: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| pem_error(path, "certificate", &error))?;
    if all.is_empty() {
        return Err(pem_error(path, "certificate", &"none found"));
    }
    Ok(all)
}

/// Refuses a key that others than its owner can read. A group may, if the file is root's: that is how secrets are
/// mounted for a service that is not root.
pub(crate) fn read_key(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let metadata = std::fs::metadata(path).map_err(|source| IdentityError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.mode() & 0o777;
    let forbidden = if metadata.uid() == 0 { 0o027 } else { 0o077 };
    if mode & forbidden != 0 {
        return Err(IdentityError::KeyOpen {
            path: path.to_owned(),
            mode,
        });
    }
    read(path)
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    std::fs::read(path).map_err(|source| IdentityError::Read {
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn pem_error(
    path: &Path,
    what: &'static str,
    detail: &dyn fmt::Display,
) -> IdentityError {
    IdentityError::Pem {
        path: path.to_owned(),
        what,
        detail: detail.to_string(),
    }
}
