//! `synod certs`.

use anyhow::Context;
use synod_engine::ids::{ClusterId, ReplicaId};

use crate::cli::CertsArguments;
use crate::failure::usage;
use crate::log::note;
use crate::output::say;

pub fn run(arguments: &CertsArguments) -> anyhow::Result<()> {
    let cluster = match &arguments.cluster {
        Some(text) => parse_cluster(text).map_err(|error| usage(format!("--cluster: {error}")))?,
        None => draw_cluster()?,
    };
    let ids: Vec<ReplicaId> = (1..=arguments.replicas).map(ReplicaId).collect();
    synod_transport::make_certificates(&arguments.out, cluster, &ids, &arguments.hosts)
        .map_err(usage)?;
    say!("cluster = \"{cluster}\"")?;
    note!(
        "certificates of {} replicas and a client are in {}; the line above belongs into every replica.toml",
        arguments.replicas,
        arguments.out.display()
    );
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
