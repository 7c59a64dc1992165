//! What a certificate says: its names, its life, its fingerprint.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use synod_engine::ids::ClusterId;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use crate::holder::Holder;
use crate::identity::{IdentityError, pem_error, read_certificates};

/// SHA-256 over a certificate, as `openssl x509 -fingerprint -sha256` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

/// The certificates that are not to be trusted any more, although their CA vouches for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked(BTreeSet<Fingerprint>);

/// A certificate, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub subject: String,
    pub issuer: String,
    /// Every DNS name in it.
    pub names: Vec<String>,
    pub is_authority: bool,
    pub fingerprint: Fingerprint,
    /// In seconds since 1970, both inclusive.
    pub not_before: u64,
    pub not_after: u64,
    /// What the key belongs to, in DER.
    pub(crate) public_key: Vec<u8>,
}

impl Certificate {
    /// All certificates of a PEM file; at least one.
    pub fn read_all(path: &Path) -> Result<Vec<Certificate>, IdentityError> {
        let parse = |der: &CertificateDer<'_>| {
            Certificate::parse(der).map_err(|error| pem_error(path, "certificate", &error))
        };
        read_certificates(path)?.iter().map(parse).collect()
    }

    pub fn parse(der: &CertificateDer<'_>) -> Result<Certificate, String> {
        let (_, parsed) =
            x509_parser::parse_x509_certificate(der).map_err(|error| error.to_string())?;
        let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
        Ok(Certificate {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            names: names(&parsed),
            is_authority: parsed.is_ca(),
            fingerprint: Fingerprint::of(der),
            not_before: seconds(parsed.validity().not_before.timestamp()),
            not_after: seconds(parsed.validity().not_after.timestamp()),
            public_key: parsed.public_key().raw.to_vec(),
        })
    }

    /// Whom it makes its owner, and of which cluster; `None` if it is for nobody of ours.
    pub fn holder(&self) -> Option<(Holder, ClusterId)> {
        self.names.iter().find_map(|name| Holder::of_name(name))
    }

    /// Seconds that are left of its life; 0 when it is over.
    pub fn expires_in(&self, now: u64) -> u64 {
        self.not_after.saturating_sub(now)
    }
}

fn names(parsed: &X509Certificate<'_>) -> Vec<String> {
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    let all = alternatives.map_or(&[][..], |found| &found.value.general_names);
    let dns = all.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    dns.collect()
}

impl Fingerprint {
    pub fn of(der: &CertificateDer<'_>) -> Fingerprint {
        let digest = ring::digest::digest(&ring::digest::SHA256, der);
        Fingerprint(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// 64 hexadecimal digits, in either case, with or without colons.
impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Fingerprint, String> {
        let bad = || format!("`{text}` is no SHA-256 fingerprint: 64 hexadecimal digits");
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return Err(bad());
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or_else(bad);
            *byte = (digit(0)? * 16 + digit(1)?) as u8;
        }
        Ok(Fingerprint(bytes))
    }
}

impl Revoked {
    /// One fingerprint a line; what follows a `#` is a comment.
    pub fn read(path: &Path) -> Result<Revoked, IdentityError> {
        let text = std::fs::read_to_string(path).map_err(|source| IdentityError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut revoked = Revoked::default();
        for (line, number) in text.lines().zip(1..) {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let fingerprint = line.parse().map_err(|detail| IdentityError::Revoked {
                path: path.to_owned(),
                line: number,
                detail,
            })?;
            revoked.0.insert(fingerprint);
        }
        Ok(revoked)
    }

    pub fn contains(&self, certificate: &CertificateDer<'_>) -> bool {
        !self.0.is_empty() && self.0.contains(&Fingerprint::of(certificate))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_tools_write_them() {
        let ours = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20";
        let theirs: Vec<String> = (1..=32).map(|byte| format!("{byte:02X}")).collect();
        let fingerprint: Fingerprint = ours.parse().expect("hexadecimal");
        assert_eq!(theirs.join(":").parse(), Ok(fingerprint));
        assert_eq!(fingerprint.to_string(), ours);
        for bad in ["", "01", &ours[1..], &ours.replace('1', "x")] {
            bad.parse::<Fingerprint>().expect_err(bad);
        }
    }

    #[test]
    fn a_list_of_revoked_ones_names_its_mistakes() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("revoked.txt");
        let good = "01".repeat(32);
        std::fs::write(&path, format!("# stolen\n\n{good} # laptop\n")).expect("written");
        assert_eq!(Revoked::read(&path).expect("a list").len(), 1);
        std::fs::write(&path, format!("{good}\nnonsense\n")).expect("written");
        let error = Revoked::read(&path).expect_err("nonsense").to_string();
        assert!(error.contains("revoked.txt:2: `nonsense`"), "{error}");
    }
}
