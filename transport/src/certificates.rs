//! Making the certificates of a cluster: one CA, one certificate per replica, one for clients.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use synod_engine::ids::{ClusterId, ReplicaId};

use crate::identity::{IdentityError, client_name, replica_name};

const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// Writes `ca.pem`, `ca.key`, `replica-N.pem`, `replica-N.key`, `client.pem` and `client.key` into `directory`,
/// which is made if it is missing. Nothing is overwritten: if one of the files exists, none is written.
/// `extra_hosts` are DNS names or addresses that the replicas' certificates carry besides their own names.
pub fn make_certificates(
    directory: &Path,
    cluster: ClusterId,
    replicas: &[ReplicaId],
    extra_hosts: &[String],
) -> Result<(), IdentityError> {
    let mut files = Vec::new();
    let ca_name = format!("Synod CA of cluster {cluster}");
    let (ca_pem, ca_key, issuer) = make_ca(&ca_name)?;
    files.push(("ca.pem".to_owned(), ca_pem, CERTIFICATE_MODE));
    files.push(("ca.key".to_owned(), ca_key, KEY_MODE));
    for replica in replicas {
        let mut names = vec![replica_name(cluster, *replica)];
        names.extend_from_slice(extra_hosts);
        // A replica dials some peers and is dialled by others.
        let usages = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let (pem, key) = make_leaf(&issuer, names, &usages)?;
        files.push((format!("replica-{}.pem", replica.0), pem, CERTIFICATE_MODE));
        files.push((format!("replica-{}.key", replica.0), key, KEY_MODE));
    }
    let usages = [ExtendedKeyUsagePurpose::ClientAuth];
    let (pem, key) = make_leaf(&issuer, vec![client_name(cluster)], &usages)?;
    files.push(("client.pem".to_owned(), pem, CERTIFICATE_MODE));
    files.push(("client.key".to_owned(), key, KEY_MODE));
    write_all(directory, &files)
}

fn make_ca(name: &str) -> Result<(String, String, Issuer<'static, KeyPair>), IdentityError> {
    let failed = |error: rcgen::Error| make_error(name, &error);
    let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    let key_pem = key.serialize_pem();
    Ok((certificate.pem(), key_pem, Issuer::new(params, key)))
}

fn make_leaf(
    issuer: &Issuer<'_, KeyPair>,
    names: Vec<String>,
    usages: &[ExtendedKeyUsagePurpose],
) -> Result<(String, String), IdentityError> {
    let name = names[0].clone();
    let failed = |error: rcgen::Error| make_error(&name, &error);
    let mut params = CertificateParams::new(names.clone()).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, &name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages.to_vec();
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.signed_by(&key, issuer).map_err(failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn write_all(directory: &Path, files: &[(String, String, u32)]) -> Result<(), IdentityError> {
    std::fs::create_dir_all(directory).map_err(|source| IdentityError::Write {
        path: directory.to_owned(),
        source,
    })?;
    for (name, _, _) in files {
        let path = directory.join(name);
        if path.exists() {
            return Err(IdentityError::Exists { path });
        }
    }
    for (name, content, mode) in files {
        write_new(directory.join(name), content, *mode)?;
    }
    Ok(())
}

/// `create_new` settles the race with someone who writes the same file meanwhile.
fn write_new(path: PathBuf, content: &str, mode: u32) -> Result<(), IdentityError> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&path)
        .and_then(|mut file| file.write_all(content.as_bytes()));
    written.map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => IdentityError::Exists { path },
        _ => IdentityError::Write { path, source },
    })
}

fn make_error(name: &str, error: &rcgen::Error) -> IdentityError {
    IdentityError::Make {
        name: name.to_owned(),
        detail: error.to_string(),
    }
}
