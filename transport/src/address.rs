//! Where somebody is: an IP address or a name, and a port.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A name longer than this is none in DNS.
const NAME_LENGTH_MAX: usize = 253;
const LABEL_LENGTH_MAX: usize = 63;

/// A name is looked up when somebody dials, so whoever is behind it may move.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    Socket(SocketAddr),
    Name { host: Arc<str>, port: u16 },
}

impl Address {
    /// If it is no name.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Address::Socket(address) => Some(*address),
            Address::Name { .. } => None,
        }
    }

    /// `host` is an IP address or a name.
    pub fn of_host(host: &str, port: u16) -> Result<Address, String> {
        match host.parse() {
            Ok(ip) => Ok(SocketAddr::new(ip, port).into()),
            Err(_) => check_name(host).map(|()| Address::Name {
                host: host.into(),
                port,
            }),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Socket(address)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        if let Ok(address) = text.parse() {
            return Ok(Address::Socket(address));
        }
        let expected = || {
            format!("`{text}` is not HOST:PORT, HOST a name, an IPv4 address or [an IPv6 address]")
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let port = port.parse().map_err(|_| expected())?;
        check_name(host).map_err(|error| format!("`{text}`: {error}"))?;
        let host = host.into();
        Ok(Address::Name { host, port })
    }
}

/// Only its form: whether there is such a host may change at any time.
fn check_name(name: &str) -> Result<(), String> {
    let labels = || name.strip_suffix('.').unwrap_or(name).split('.');
    let plain = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty()
            && label.len() <= LABEL_LENGTH_MAX
            && label.bytes().all(inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // No top-level domain is a number: that is a mistyped address.
    let number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    if name.len() > NAME_LENGTH_MAX
        || !labels().all(plain)
        || labels().next_back().is_some_and(number)
    {
        return Err(format!(
            "`{name}` is neither an IP address nor the name of a host"
        ));
    }
    Ok(())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Socket(address) => write!(f, "{address}"),
            Address::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_read_strictly() {
        for good in [
            "10.0.0.1:7001",
            "[fd00::1]:7001",
            "localhost:1",
            "r1:7001",
            "synod-0.synod.default.svc.cluster.local:7001",
            "r1.local.:7001",
            "_r.example:65535",
        ] {
            let address: Address = good.parse().expect(good);
            assert_eq!(address.to_string(), good);
        }
        let long = format!("{}:1", "a.".repeat(127) + "b");
        let label = format!("{}:1", "a".repeat(64));
        for bad in [
            "",
            ":7001",
            "r1",
            "r1:",
            "r1:70000",
            "r1:-1",
            "10.0.0.256:7001",
            "10.0.0:7001",
            "-r:1",
            "r-:1",
            "r..s:1",
            "a b:1",
            "fd00::1:7001",
            "r1:7001:1",
            "r\u{e9}:1",
            &long,
            &label,
        ] {
            let error = bad.parse::<Address>().expect_err(bad);
            assert!(error.contains('`'), "{error}");
        }
        assert_eq!(Address::of_host("::1", 7), "[::1]:7".parse());
        assert_eq!(Address::of_host("a.b", 7), "a.b:7".parse());
        Address::of_host("a b", 7).expect_err("a blank");
    }
}
