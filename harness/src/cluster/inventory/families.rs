//! The addresses of all hosts, of one family: a socket of the other would not reach them.

use std::net::{IpAddr, ToSocketAddrs};

use toml::Spanned;

use super::{HostFile, Mistake};

/// One address per host. IPv4 if all have it, else IPv6.
pub fn resolve(hosts: &[Spanned<HostFile>]) -> Result<Vec<IpAddr>, Mistake> {
    let mut found = Vec::new();
    for host in hosts {
        let at = host.span().start;
        let file = host.get_ref();
        let all = addresses(&file.name, &file.address).map_err(|mistake| mistake.at(at))?;
        found.push((file.name.as_str(), all));
    }
    choose(&found).map_err(Mistake::from)
}

fn choose(found: &[(&str, Vec<IpAddr>)]) -> Result<Vec<IpAddr>, String> {
    let of = |wanted: fn(&IpAddr) -> bool| -> Option<Vec<IpAddr>> {
        let each = found.iter();
        each.map(|(_, all)| all.iter().find(|ip| wanted(ip)).copied())
            .collect()
    };
    of(IpAddr::is_ipv4)
        .or_else(|| of(IpAddr::is_ipv6))
        .ok_or_else(|| {
            let without = |wanted: fn(&IpAddr) -> bool| {
                let lacking = found.iter().find(|(_, all)| !all.iter().any(wanted));
                lacking.map_or("", |(name, _)| name)
            };
            format!(
                "the hosts have no address family in common: {} has no IPv4 address, {} no IPv6 address; give all of \
                 them addresses of one family",
                without(IpAddr::is_ipv4),
                without(IpAddr::is_ipv6)
            )
        })
}

fn addresses(name: &str, address: &str) -> Result<Vec<IpAddr>, Mistake> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    let found = (address, 0).to_socket_addrs();
    let found: Vec<IpAddr> = found.map_or(Vec::new(), |all| all.map(|each| each.ip()).collect());
    if found.is_empty() {
        let remedy = "write its IP address, or add it to /etc/hosts";
        return Err(
            format!("address `{address}` of host {name} cannot be resolved: {remedy}").into(),
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_hosts_are_of_one_family() {
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let (old, new) = (ip("10.0.0.1"), ip("fd00::1"));
        let both = ("both", vec![new, old]);
        assert_eq!(
            choose(&[both.clone(), ("old", vec![old])]),
            Ok(vec![old, old])
        );
        assert_eq!(
            choose(&[both.clone(), ("new", vec![new])]),
            Ok(vec![new, new])
        );
        assert_eq!(choose(&[both.clone(), both]), Ok(vec![old, old]));
        let error = choose(&[("old", vec![old]), ("new", vec![new])]).unwrap_err();
        assert!(
            error.contains("new has no IPv4 address, old no IPv6"),
            "{error}"
        );
    }
}
