//! The certificates of a cluster in a directory: made, added to, renewed.
//!
//! ```text
//! ca.pem  ca.key  replica-N.pem  replica-N.key  client.pem  client.key  client-NAME.pem  client-NAME.key
//! ```
//!
//! Each file appears whole or not at all, a key before its certificate. So whatever interrupts, going on makes what is
//! missing, and no certificate is ever without its key.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::SubjectPublicKeyInfo;
use synod_engine::ids::{ClusterId, ReplicaId};

use crate::authority::{Authority, Life, key_pair, new_key};
use crate::certificate::Certificate;
use crate::clock::Clock;
use crate::holder::{ClientIdentity, Holder};
use crate::identity::{IdentityError, pem_error};

const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// A directory of certificates with the CA that can sign more of them.
pub struct CertificateSet {
    directory: PathBuf,
    authority: Authority,
    now: u64,
}

/// Whether the key of a new CA is written. Without it no certificate can be added or renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityKey {
    Kept,
    Discarded,
}

/// Makes the certificates of a new cluster: those of its replicas, and the unnamed client's.
pub fn make_certificates(
    directory: &Path,
    cluster: ClusterId,
    replicas: &[ReplicaId],
    authority_key: AuthorityKey,
) -> Result<(), IdentityError> {
    let now = Clock::default().now();
    let set = CertificateSet::make(directory, cluster, authority_key, now)?;
    let life = Life::days(now, Life::DAYS_DEFAULT);
    for replica in replicas {
        set.issue(&Holder::Replica(*replica), life)?;
    }
    set.issue(&Holder::Client(ClientIdentity::UNNAMED), life)?;
    Ok(())
}

impl CertificateSet {
    /// A new CA in `directory`, which is made if it is missing. Fails if there is one already.
    pub fn make(
        directory: &Path,
        cluster: ClusterId,
        key: AuthorityKey,
        now: u64,
    ) -> Result<CertificateSet, IdentityError> {
        std::fs::create_dir_all(directory).map_err(|source| IdentityError::Write {
            path: directory.to_owned(),
            source,
        })?;
        let (ca, ca_key) = authority_files(directory);
        if ca.exists() {
            return Err(IdentityError::Exists { path: ca });
        }
        // A key without a certificate is what an interruption leaves.
        let pair = match ca_key.exists() {
            true => key_pair(&ca_key)?,
            false => new_key("a CA")?,
        };
        let (authority, pem) = Authority::make(cluster, pair, now)?;
        if key == AuthorityKey::Kept && !ca_key.exists() {
            write_new(&ca_key, &authority.key_pem(), KEY_MODE)?;
        }
        write_new(&ca, &pem, CERTIFICATE_MODE)?;
        Ok(CertificateSet {
            directory: directory.to_owned(),
            authority,
            now,
        })
    }

    /// One that is there. The cluster has to be given only for a CA that was not made here.
    pub fn open(
        directory: &Path,
        cluster: Option<ClusterId>,
        now: u64,
    ) -> Result<CertificateSet, IdentityError> {
        let (ca, key) = authority_files(directory);
        if ca.exists() && !key.exists() {
            return Err(IdentityError::NoAuthorityKey { path: key });
        }
        Ok(CertificateSet {
            directory: directory.to_owned(),
            authority: Authority::open(&ca, &key, cluster, now)?,
            now,
        })
    }

    /// Whether a CA is in `directory`.
    pub fn exists(directory: &Path) -> bool {
        authority_files(directory).0.exists()
    }

    pub fn cluster(&self) -> ClusterId {
        self.authority.cluster
    }

    /// Where the certificate of `holder` is, or would be.
    pub fn path(&self, holder: &Holder) -> PathBuf {
        self.directory.join(format!("{}.pem", holder.file_stem()))
    }

    /// Makes key and certificate of `holder`. Returns whether it did: what is there stays as it is.
    pub fn issue(&self, holder: &Holder, life: Life) -> Result<bool, IdentityError> {
        let path = self.path(holder);
        if path.exists() {
            return Ok(false);
        }
        let key_path = path.with_extension("key");
        let key = match key_path.exists() {
            true => key_pair(&key_path)?,
            false => {
                let key = new_key(&holder.name(self.cluster()))?;
                write_new(&key_path, &key.serialize_pem(), KEY_MODE)?;
                key
            }
        };
        let pem = self.authority.sign(holder, &key, life)?;
        write_new(&path, &pem, CERTIFICATE_MODE)?;
        Ok(true)
    }

    /// Replaces the certificate of `holder` by one that lives longer, for the same key. The key itself is not needed.
    pub fn renew(&self, holder: &Holder, life: Life) -> Result<(), IdentityError> {
        let path = self.path(holder);
        let old = Certificate::read_all(&path)?.swap_remove(0);
        let key = SubjectPublicKeyInfo::from_der(&old.public_key)
            .map_err(|error| pem_error(&path, "public key", &error))?;
        let pem = self.authority.sign(holder, &key, life)?;
        replace(&path, &pem, CERTIFICATE_MODE)
    }

    /// Replaces key and certificate of `holder`: for a key that may be in wrong hands.
    pub fn replace(&self, holder: &Holder, life: Life) -> Result<(), IdentityError> {
        let path = self.path(holder);
        let key = new_key(&holder.name(self.cluster()))?;
        let pem = self.authority.sign(holder, &key, life)?;
        replace(&path.with_extension("key"), &key.serialize_pem(), KEY_MODE)?;
        replace(&path, &pem, CERTIFICATE_MODE)
    }

    /// Those that have a certificate of this cluster in the directory, in order.
    pub fn holders(&self) -> Result<Vec<Holder>, IdentityError> {
        let mut holders = Vec::new();
        for (path, certificate) in certificates_in(&self.directory)? {
            if let Some((holder, cluster)) = certificate.holder()
                && cluster == self.cluster()
                && path == self.path(&holder)
            {
                holders.push(holder);
            }
        }
        holders.sort();
        Ok(holders)
    }

    pub fn life(&self, days: u32) -> Life {
        Life::days(self.now, days)
    }
}

/// Every certificate in the PEM files of a directory, by file and position.
pub fn certificates_in(directory: &Path) -> Result<Vec<(PathBuf, Certificate)>, IdentityError> {
    let failed = |source| IdentityError::Read {
        path: directory.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == "pem") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let all = Certificate::read_all(&path)?;
        found.extend(all.into_iter().map(|each| (path.clone(), each)));
    }
    Ok(found)
}

fn authority_files(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join("ca.pem"), directory.join("ca.key"))
}

/// Under its name only when it is whole. Linking settles the race with someone who writes the same file meanwhile.
fn write_new(path: &Path, content: &str, mode: u32) -> Result<(), IdentityError> {
    let temporary = temporary(path);
    let written =
        write(&temporary, content, mode).and_then(|()| std::fs::hard_link(&temporary, path));
    let removed = std::fs::remove_file(&temporary);
    written.and(removed).map_err(|source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::AlreadyExists => IdentityError::Exists { path },
            _ => IdentityError::Write { path, source },
        }
    })
}

fn replace(path: &Path, content: &str, mode: u32) -> Result<(), IdentityError> {
    let temporary = temporary(path);
    let written = write(&temporary, content, mode).and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|source| IdentityError::Write {
        path: path.to_owned(),
        source,
    })
}

fn write(temporary: &Path, content: &str, mode: u32) -> io::Result<()> {
    // What an interruption left.
    if let Err(error) = std::fs::remove_file(temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(temporary)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}
