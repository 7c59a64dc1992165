//! `synod certs --show`: what lies in a directory of certificates.

use std::path::Path;

use serde::{Deserialize, Serialize};
use synod_transport::{Certificate, certificates_in};

use crate::cluster::table::Table;
use crate::failure::usage;
use crate::output::say;
use crate::utc::{readable, unix_seconds_now};

const DAY_S: u64 = 86_400;

/// One certificate, as `--json` prints it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    pub file: String,
    /// `CA`, or whom it is for.
    pub role: String,
    pub cluster: Option<String>,
    pub subject: String,
    pub issuer: String,
    pub names: Vec<String>,
    /// SHA-256.
    pub fingerprint: String,
    /// In seconds since 1970.
    pub not_before: u64,
    pub not_after: u64,
    /// 0 when it has ended.
    pub expires_s: u64,
    /// Whether the private key lies beside it.
    pub key: bool,
}

pub fn run(directory: &Path, json: bool) -> anyhow::Result<()> {
    let listed = list(directory, unix_seconds_now())?;
    if json {
        return say!("{}", serde_json::to_string_pretty(&listed)?);
    }
    let mut table = Table::new(&["file", "for", "until", "left", "key", "SHA-256 fingerprint"]);
    for each in &listed {
        table.row(&[
            each.file.as_str(),
            &each.role,
            &readable(each.not_after),
            &left(each.expires_s),
            (if each.key { "here" } else { "-" }),
            &each.fingerprint,
        ]);
    }
    say!("{}", table.text())
}

pub fn list(directory: &Path, now: u64) -> anyhow::Result<Vec<Listed>> {
    let found = certificates_in(directory).map_err(usage)?;
    if found.is_empty() {
        return Err(usage(format!(
            "{}: holds no certificates (*.pem)",
            directory.display()
        )));
    }
    let each = found
        .iter()
        .map(|(path, certificate)| listed(path, certificate, now));
    Ok(each.collect())
}

fn listed(path: &Path, certificate: &Certificate, now: u64) -> Listed {
    let holder = certificate.holder();
    let role = match &holder {
        _ if certificate.is_authority => "CA".to_owned(),
        Some((holder, _)) => holder.to_string(),
        None => "nobody of a cluster".to_owned(),
    };
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    Listed {
        file: file.into_owned(),
        role,
        cluster: holder.map(|(_, cluster)| cluster.to_string()),
        subject: certificate.subject.clone(),
        issuer: certificate.issuer.clone(),
        names: certificate.names.clone(),
        fingerprint: certificate.fingerprint.to_string(),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        expires_s: certificate.expires_in(now),
        key: path.with_extension("key").exists(),
    }
}

/// Time that is left, in words.
pub fn left(seconds: u64) -> String {
    match seconds {
        0 => "ended".to_owned(),
        _ if seconds < 2 * DAY_S => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / DAY_S),
    }
}
