//! Who a certificate is for: the name in it, and the name of its files.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use synod_engine::ids::{ClusterId, REPLICAS_MAX, ReplicaId};

/// A name longer than a DNS label would fit no certificate.
const CLIENT_NAME_MAX: usize = 63;

/// Whom a certificate makes its owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    Replica(ReplicaId),
    Client(ClientIdentity),
}

/// Which client a certificate speaks for. Two clients with one certificate are one identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientIdentity(Option<Arc<str>>);

impl ClientIdentity {
    /// The identity of `client.pem`, which has no name of its own.
    pub const UNNAMED: ClientIdentity = ClientIdentity(None);

    /// `None` for the unnamed one.
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl Holder {
    /// The name in the certificate. It binds its owner to one cluster, so that a certificate of another cluster
    /// under the same CA is refused.
    pub fn name(&self, cluster: ClusterId) -> String {
        match self {
            Holder::Replica(replica) => format!("replica-{}.{cluster}.synod", replica.0),
            Holder::Client(ClientIdentity(None)) => format!("client.{cluster}.synod"),
            Holder::Client(ClientIdentity(Some(name))) => format!("client.{name}.{cluster}.synod"),
        }
    }

    /// The reverse of [`Holder::name`].
    pub fn of_name(name: &str) -> Option<(Holder, ClusterId)> {
        let (who, cluster) = name.strip_suffix(".synod")?.rsplit_once('.')?;
        let cluster = ClusterId(u128::from_str_radix(cluster, 16).ok()?);
        let holder = match who.split_once('.') {
            Some(("client", name)) => Holder::Client(name.parse().ok()?),
            Some(_) => return None,
            None if who == "client" => Holder::Client(ClientIdentity::UNNAMED),
            None => Holder::Replica(replica(who.strip_prefix("replica-")?).ok()?),
        };
        // Nothing that is written otherwise than we write it.
        (holder.name(cluster) == name).then_some((holder, cluster))
    }

    /// The name of the files without their ending.
    pub fn file_stem(&self) -> String {
        match self {
            Holder::Replica(replica) => format!("replica-{}", replica.0),
            Holder::Client(ClientIdentity(None)) => "client".to_owned(),
            Holder::Client(ClientIdentity(Some(name))) => format!("client-{name}"),
        }
    }
}

/// As `replica:3`, `client` or `client:alice`.
impl FromStr for Holder {
    type Err = String;

    fn from_str(text: &str) -> Result<Holder, String> {
        match text.split_once(':') {
            Some(("replica", id)) => Ok(Holder::Replica(replica(id)?)),
            Some(("client", name)) => Ok(Holder::Client(name.parse()?)),
            None if text == "client" => Ok(Holder::Client(ClientIdentity::UNNAMED)),
            Some(_) | None => Err(format!(
                "`{text}`: expected replica:N, client:NAME or client"
            )),
        }
    }
}

impl FromStr for ClientIdentity {
    type Err = String;

    fn from_str(name: &str) -> Result<ClientIdentity, String> {
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        // Names are compared without case in certificates, so there is only one case.
        if name.is_empty()
            || name.len() > CLIENT_NAME_MAX
            || !name.bytes().all(plain)
            || name.starts_with('-')
            || name.ends_with('-')
        {
            return Err(format!(
                "`{name}` is no name of a client: up to {CLIENT_NAME_MAX} of a-z, 0-9 and `-`, which neither begins \
                 nor ends it"
            ));
        }
        Ok(ClientIdentity(Some(name.into())))
    }
}

impl fmt::Display for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(name) => write!(f, "client {name}"),
            None => f.write_str("the unnamed client"),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Replica(replica) => write!(f, "replica {}", replica.0),
            Holder::Client(client) => write!(f, "{client}"),
        }
    }
}

fn replica(text: &str) -> Result<ReplicaId, String> {
    let id = text.parse::<u8>().ok().map(ReplicaId);
    id.filter(|id| (1..=REPLICAS_MAX).contains(&id.0))
        .ok_or_else(|| format!("`{text}` is not a replica id: 1 to {REPLICAS_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_holders() {
        let cluster = ClusterId(0x1f);
        for text in [
            "replica:1",
            "replica:15",
            "client",
            "client:a",
            "client:db-2",
        ] {
            let holder: Holder = text.parse().expect(text);
            assert_eq!(
                Holder::of_name(&holder.name(cluster)),
                Some((holder, cluster))
            );
        }
        for bad in [
            "replica:0",
            "replica:16",
            "client:",
            "client:-a",
            "client:A",
            "client:a.b",
            "server:1",
            "ca",
        ] {
            bad.parse::<Holder>().expect_err(bad);
        }
        let long = "a".repeat(CLIENT_NAME_MAX + 1);
        long.parse::<ClientIdentity>().expect_err("too long");
        let id = cluster.to_string();
        for bad in [
            format!("replica-01.{id}.synod"),
            format!("client.a.b.{id}.synod"),
            format!("replica-1.{id}"),
            "client.synod".to_owned(),
            format!("client..{id}.synod"),
        ] {
            assert_eq!(Holder::of_name(&bad), None, "{bad}");
        }
    }
}
