//! The CA of a cluster: what signs certificates, and for how long.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use synod_engine::ids::ClusterId;
use time::OffsetDateTime;

use crate::certificate::Certificate;
use crate::holder::{ClientIdentity, Holder};
use crate::identity::{IdentityError, pem_error, read_certificates, read_key};

/// Nobody renews a CA: to change it takes every machine. So it lives longer than anything that it signs.
const AUTHORITY_DAYS: u32 = 3_650;
const DAY_S: u64 = 86_400;
/// A machine whose clock is behind by less than this takes a new certificate at once.
const SKEW_S: u64 = 3_600;
const NAME: &str = "Synod CA of cluster ";

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// In seconds since 1970.
    pub now: u64,
    pub seconds: u64,
}

impl Life {
    /// A year: no experiment meets its end, and a key that was lost without anybody noticing dies by itself. To renew
    /// takes one command and no restart.
    pub const DAYS_DEFAULT: u32 = 365;

    pub fn days(now: u64, days: u32) -> Life {
        Life {
            now,
            seconds: u64::from(days) * DAY_S,
        }
    }

    fn apply(self, params: &mut CertificateParams, latest: u64) {
        let end = self.now.saturating_add(self.seconds).min(latest);
        params.not_before = moment(self.now.saturating_sub(SKEW_S));
        params.not_after = moment(end);
    }
}

/// The latest second that a certificate can name is in the year 9999.
fn moment(seconds: u64) -> OffsetDateTime {
    const LATEST: i64 = 253_402_300_799;
    let seconds = i64::try_from(seconds).unwrap_or(LATEST).min(LATEST);
    OffsetDateTime::from_unix_timestamp(seconds).expect("it is before the year 10000")
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub cluster: ClusterId,
    not_after: u64,
}

impl Authority {
    /// A new one with `key`; returns its certificate in PEM too.
    pub fn make(
        cluster: ClusterId,
        key: KeyPair,
        now: u64,
    ) -> Result<(Authority, String), IdentityError> {
        let name = format!("{NAME}{cluster}");
        let failed = |error: rcgen::Error| make_error(&name, &error);
        let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, &name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let life = Life::days(now, AUTHORITY_DAYS);
        life.apply(&mut params, u64::MAX);
        let pem = params.self_signed(&key).map_err(failed)?.pem();
        let authority = Authority {
            issuer: Issuer::new(params, key),
            cluster,
            not_after: now.saturating_add(life.seconds),
        };
        Ok((authority, pem))
    }

    /// From files. `ca` may hold several certificates: the one that `key` belongs to signs.
    pub fn open(
        ca: &Path,
        key: &Path,
        cluster: Option<ClusterId>,
        now: u64,
    ) -> Result<Authority, IdentityError> {
        let ders = read_certificates(ca)?;
        let pair = key_pair(key)?;
        let own = pair.subject_public_key_info();
        let mut mine = None;
        for der in &ders {
            let read =
                Certificate::parse(der).map_err(|error| pem_error(ca, "certificate", &error))?;
            if read.public_key == own {
                mine = Some((der, read));
            }
        }
        let (der, read) = mine.ok_or_else(|| IdentityError::KeyMismatch {
            certificate: ca.to_owned(),
            key: key.to_owned(),
            detail: "it is the key of another CA".to_owned(),
        })?;
        if read.not_after <= now {
            return Err(IdentityError::AuthorityExpired {
                path: ca.to_owned(),
            });
        }
        let named = cluster_of(&read.subject);
        let cluster = match (named, cluster) {
            (Some(named), Some(given)) if named != given => {
                return Err(IdentityError::OtherCluster {
                    path: ca.to_owned(),
                    named,
                });
            }
            (_, Some(given)) => given,
            (Some(named), None) => named,
            (None, None) => {
                return Err(IdentityError::NoCluster {
                    path: ca.to_owned(),
                });
            }
        };
        let issuer = Issuer::from_ca_cert_der(der, pair)
            .map_err(|error| pem_error(ca, "CA certificate", &error))?;
        Ok(Authority {
            issuer,
            cluster,
            not_after: read.not_after,
        })
    }

    /// A certificate for whoever has the private key to `public_key`, in PEM. It never outlives the CA.
    pub fn sign(
        &self,
        holder: &Holder,
        public_key: &impl PublicKeyData,
        life: Life,
    ) -> Result<String, IdentityError> {
        let name = holder.name(self.cluster);
        let failed = |error: rcgen::Error| make_error(&name, &error);
        let mut params = CertificateParams::new(vec![name.clone()]).map_err(failed)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        // The longest common name is shorter than the longest name of a client; the name that counts is the other.
        let common = match holder {
            Holder::Replica(_) | Holder::Client(ClientIdentity::UNNAMED) => name.clone(),
            Holder::Client(client) => client.to_string(),
        };
        let common: String = common.chars().take(64).collect();
        params.distinguished_name.push(DnType::CommonName, common);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match holder {
            // A replica dials some peers and is dialled by others.
            Holder::Replica(_) => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
            Holder::Client(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        life.apply(&mut params, self.not_after);
        let signed = params.signed_by(public_key, &self.issuer);
        Ok(signed.map_err(failed)?.pem())
    }

    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

pub fn new_key(name: &str) -> Result<KeyPair, IdentityError> {
    KeyPair::generate().map_err(|error| make_error(name, &error))
}

pub fn key_pair(path: &Path) -> Result<KeyPair, IdentityError> {
    let pem = String::from_utf8_lossy(&read_key(path)?).into_owned();
    KeyPair::from_pem(&pem).map_err(|error| pem_error(path, "private key", &error))
}

/// The cluster that a CA of ours names in its subject.
fn cluster_of(subject: &str) -> Option<ClusterId> {
    let (_, id) = subject.split_once(NAME)?;
    u128::from_str_radix(id, 16).ok().map(ClusterId)
}

fn make_error(name: &str, error: &rcgen::Error) -> IdentityError {
    IdentityError::Make {
        name: name.to_owned(),
        detail: error.to_string(),
    }
}
