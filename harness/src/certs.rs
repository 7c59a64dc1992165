//! `synod certs`: certificates are made, added, renewed and listed.

pub mod show;

use std::path::Path;

use anyhow::Context;
use synod_engine::ids::{ClusterId, ReplicaId};
use synod_transport::{AuthorityKey, CertificateSet, ClientIdentity, Holder};

use crate::cli::CertsArguments;
use crate::failure::usage;
use crate::log::note;
use crate::output::say;
use crate::utc::unix_seconds_now;

pub fn run(arguments: &CertsArguments) -> anyhow::Result<()> {
    let Some(directory) = &arguments.out else {
        let directory = arguments
            .show
            .as_ref()
            .context("--out or --show is given")?;
        return show::run(directory, arguments.json);
    };
    let given = arguments.cluster.as_deref().map(parse_cluster).transpose();
    let given = given.map_err(|error| usage(format!("--cluster: {error}")))?;
    if arguments.renew {
        renew(directory, given, arguments)
    } else if arguments.add.is_empty() {
        make(directory, given, arguments)
    } else {
        let set = open(directory, given)?;
        add(&set, &arguments.add, arguments)
    }
}

/// A new set, or what is missing of one.
fn make(
    directory: &Path,
    given: Option<ClusterId>,
    arguments: &CertsArguments,
) -> anyhow::Result<()> {
    let set = if CertificateSet::exists(directory) {
        open(directory, given)?
    } else {
        let cluster = given.map_or_else(draw_cluster, Ok)?;
        let now = unix_seconds_now();
        CertificateSet::make(directory, cluster, AuthorityKey::Kept, now).map_err(usage)?
    };
    let mut holders: Vec<Holder> = (1..=arguments.replicas)
        .map(|id| Holder::Replica(ReplicaId(id)))
        .collect();
    holders.push(Holder::Client(ClientIdentity::UNNAMED));
    add(&set, &holders, arguments)?;
    say!("cluster = \"{}\"", set.cluster())?;
    note!("the line above belongs into every replica.toml");
    Ok(())
}

fn open(directory: &Path, given: Option<ClusterId>) -> anyhow::Result<CertificateSet> {
    CertificateSet::open(directory, given, unix_seconds_now()).map_err(usage)
}

/// Nothing is overwritten; that all of it is there already is a mistake of the caller's.
fn add(set: &CertificateSet, holders: &[Holder], arguments: &CertsArguments) -> anyhow::Result<()> {
    let mut added = 0;
    for holder in holders {
        let path = set.path(holder);
        if set.issue(holder, set.life(arguments.days)).map_err(usage)? {
            added += 1;
            note!("{}: the certificate of {holder}", path.display());
        } else {
            note!("{}: is there already and stays", path.display());
        }
    }
    if added == 0 {
        return Err(usage(
            "all of these certificates exist already and nothing is overwritten: --renew replaces them",
        ));
    }
    Ok(())
}

fn renew(
    directory: &Path,
    given: Option<ClusterId>,
    arguments: &CertsArguments,
) -> anyhow::Result<()> {
    let set = open(directory, given)?;
    let holders = match arguments.only.is_empty() {
        true => set.holders().map_err(usage)?,
        false => arguments.only.clone(),
    };
    if holders.is_empty() {
        return Err(usage(format!(
            "{}: holds no certificate of cluster {}: --add makes one",
            directory.display(),
            set.cluster()
        )));
    }
    for holder in holders {
        let life = set.life(arguments.days);
        let path = set.path(&holder);
        let what = if arguments.new_keys {
            set.replace(&holder, life).map_err(usage)?;
            "key and certificate"
        } else {
            set.renew(&holder, life).map_err(usage)?;
            "the certificate"
        };
        note!(
            "{}: {what} of {holder} renewed for {} days",
            path.display(),
            arguments.days
        );
    }
    Ok(())
}

/// A cluster id as people write it: up to 32 hexadecimal digits, not zero.
pub fn parse_cluster(text: &str) -> Result<ClusterId, String> {
    let digits = text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match u128::from_str_radix(text, 16) {
        Ok(0) => Err("the cluster id 0 is reserved".into()),
        Ok(id) if digits => Ok(ClusterId(id)),
        Ok(_) | Err(_) => Err(format!(
            "`{text}` is not a cluster id: 1 to 32 hexadecimal digits"
        )),
    }
}

/// Two clusters must never share an id, so it comes from the system's randomness.
pub fn draw_cluster() -> anyhow::Result<ClusterId> {
    let id = u128::from(random_u64()?) << 64 | u128::from(random_u64()?);
    Ok(ClusterId(id.max(1)))
}

pub fn random_u64() -> anyhow::Result<u64> {
    let mut bytes = [0u8; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context("the system gives no random bytes")?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_ids_are_read_strictly() {
        assert_eq!(parse_cluster("1f"), Ok(ClusterId(0x1f)));
        let shown = ClusterId(7).to_string();
        assert_eq!(parse_cluster(&shown), Ok(ClusterId(7)));
        for bad in ["", "0", "+1", "xyz", "000000000000000000000000000000001"] {
            assert!(parse_cluster(bad).is_err(), "{bad}");
        }
    }
}
