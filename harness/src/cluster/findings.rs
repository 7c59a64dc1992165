//! What makes a host unfit, or its figures misleading, and what to do about it.

use serde::Serialize;

use crate::certs::show::{Listed, left};
use crate::cluster::inventory::{HostEntry, Role};
use crate::cluster::server::ClockOffset;
use crate::probe::facts::{Facts, Interface};

/// Below this the first segments of a WAL do not fit.
const FREE_BYTES_MIN: u64 = 512 << 20;
/// Below this a run of a minute may not fit.
const FREE_BYTES_WARN: u64 = 8 << 30;
/// As early as a replica warns by itself.
const CERTIFICATE_S_WARN: u64 = crate::certificate_watch::WARN_S;
const NOFILE_WARN: u64 = 1_024;
const MEMLOCK_BYTES_WARN: u64 = 8 << 20;
/// What the transport asks for.
const SOCKET_BYTES_WARN: u64 = 4 << 20;
const CLOCK_OFFSET_MS_WARN: f64 = 50.0;
/// Slower than a hard disk.
const SYNC_US_SLOW: f64 = 30_000.0;
/// Quicker than any disk that waits for its medium.
const SYNC_US_QUICK: f64 = 15.0;
const JUMBO_MTU: u64 = 8_952;
const FAST_MBIT: u64 = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub host: String,
    /// Whether the host cannot be used; otherwise its figures may mislead.
    pub unfit: bool,
    pub what: String,
    pub remedy: String,
}

pub struct Findings<'a> {
    host: &'a HostEntry,
    found: Vec<Finding>,
}

impl<'a> Findings<'a> {
    pub fn of(host: &'a HostEntry) -> Findings<'a> {
        Findings {
            host,
            found: Vec::new(),
        }
    }

    pub fn into_list(self) -> Vec<Finding> {
        self.found
    }

    fn add(&mut self, unfit: bool, what: String, remedy: &str) {
        self.found.push(Finding {
            host: self.host.name.clone(),
            unfit,
            what,
            remedy: remedy.to_owned(),
        });
    }

    pub fn unfit(&mut self, what: String, remedy: &str) {
        self.add(true, what, remedy);
    }

    pub fn warn(&mut self, what: String, remedy: &str) {
        self.add(false, what, remedy);
    }

    pub fn facts(&mut self, facts: &Facts) {
        self.disk(facts);
        self.cpu(facts);
        self.limits(facts);
        if let Some(interface) = &facts.interface {
            self.network(interface);
        }
    }

    pub fn certificates(&mut self, certificates: &[Listed]) {
        let soon = certificates
            .iter()
            .filter(|each| each.expires_s < CERTIFICATE_S_WARN);
        for each in soon {
            let remedy = "renew it with `synod certs --renew` and put the new file in its place";
            let (file, role, left) = (&each.file, &each.role, left(each.expires_s));
            match each.expires_s {
                0 => self.unfit(
                    format!("the certificate of {role} ({file}) has ended"),
                    remedy,
                ),
                _ => self.warn(
                    format!("the certificate of {role} ({file}) ends in {left}"),
                    remedy,
                ),
            }
        }
    }

    fn disk(&mut self, facts: &Facts) {
        let disk = &facts.environment.data;
        if disk.is_memory() {
            let what = format!("the data directory is in memory ({})", disk.filesystem);
            self.warn(
                what,
                "nothing is durable there: choose `data` on a real disk",
            );
        } else if facts.sync.p50_us < SYNC_US_QUICK {
            let what = format!("a sync takes {} µs", facts.sync.p50_us);
            self.warn(
                what,
                "no disk is that quick: is its write cache volatile, or the disk a file in memory?",
            );
        }
        if facts.sync.p50_us > SYNC_US_SLOW {
            let what = format!("a sync takes {:.0} ms", facts.sync.p50_us / 1e3);
            self.warn(
                what,
                "choose `data` on a quicker disk, or let others off this one",
            );
        }
        let free = format!("{} MiB are free", facts.free_bytes >> 20);
        if facts.free_bytes < FREE_BYTES_MIN {
            self.unfit(free, "free space there, or choose another `data`");
        } else if facts.free_bytes < FREE_BYTES_WARN {
            self.warn(
                free,
                "a long run needs more: free space there, or choose another `data`",
            );
        }
        if !facts.wal_backend.starts_with("io_uring") {
            let what = format!("the WAL is written by {}", facts.wal_backend);
            self.warn(
                what,
                "io_uring needs Linux 5.15 or newer, and sysctl kernel.io_uring_disabled=0",
            );
        }
    }

    fn cpu(&mut self, facts: &Facts) {
        let environment = &facts.environment;
        if environment.governor == "powersave" {
            let remedy = "cpupower frequency-set -g performance";
            self.warn("the CPU governor is powersave".into(), remedy);
        }
        if environment.build_profile != "release" {
            let what = format!("this is a {} build", environment.build_profile);
            self.warn(what, "its figures mean nothing: cargo build --release");
        }
        match &self.host.cpus {
            Some(cpus) => {
                let most = cpus.numbers().iter().max().copied().unwrap_or(0);
                let online = facts.online_cpus;
                if most >= online {
                    let what = format!("cpus = \"{cpus}\", but there are {online}");
                    self.unfit(what, "correct it in the inventory");
                }
            }
            None if self.host.roles.contains(&Role::Client)
                && self.host.roles.contains(&Role::Replica) =>
            {
                let remedy = "for figures that count, give clients a host of their own";
                self.warn("clients run on a replica's cores".into(), remedy);
            }
            None => {}
        }
    }

    fn limits(&mut self, facts: &Facts) {
        if let Some(nofile) = facts.nofile.filter(|limit| *limit < NOFILE_WARN) {
            self.warn(
                format!("{nofile} open files at most"),
                "raise nofile in /etc/security/limits.conf",
            );
        }
        if let Some(bytes) = facts
            .memlock_bytes
            .filter(|limit| *limit < MEMLOCK_BYTES_WARN)
        {
            let what = format!("{} KiB of locked memory at most", bytes >> 10);
            self.warn(
                what,
                "raise memlock in /etc/security/limits.conf: buffers of io_uring may count",
            );
        }
        let buffers = [
            ("rmem_max", facts.rmem_max_bytes),
            ("wmem_max", facts.wmem_max_bytes),
        ];
        for (name, bytes) in buffers {
            if let Some(bytes) = bytes.filter(|bytes| *bytes < SOCKET_BYTES_WARN) {
                let remedy = format!("sysctl -w net.core.{name}=4194304");
                self.warn(
                    format!("socket buffers of {} KiB at most ({name})", bytes >> 10),
                    &remedy,
                );
            }
        }
    }

    fn network(&mut self, interface: &Interface) {
        let (Some(mtu), Some(speed)) = (interface.mtu, interface.speed_mbit) else {
            return;
        };
        if speed >= FAST_MBIT && mtu < JUMBO_MTU {
            let what = format!(
                "{} has an MTU of {mtu} at {} Gbit/s",
                interface.name,
                speed / 1_000
            );
            self.warn(
                what,
                "use jumbo frames: ip link set dev … mtu 9000, on every host and switch",
            );
        }
    }

    pub fn ports(&mut self, taken: &[u16]) {
        for port in taken {
            let what = format!("UDP port {port} is in use");
            self.unfit(
                what,
                "stop what listens there (ss -ulpn), or change `port` in the inventory",
            );
        }
    }

    pub fn clock(&mut self, clock: &ClockOffset) {
        let surely = clock.offset_ms.abs() - clock.uncertainty_ms;
        if surely > CLOCK_OFFSET_MS_WARN {
            let what = format!("its clock is {:.0} ms off ours", clock.offset_ms);
            self.warn(what, "run chrony or ntpd, or logs of the hosts cannot be compared (latencies are not affected)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::inventory::Inventory;

    fn host(cpus: &str) -> HostEntry {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cluster.toml");
        let text = format!(
            "[[host]]\nname = \"a\"\naddress = \"127.0.0.1\"\nroles = [\"replica\"]\ndata = \"/x\"\ncpus = \"{cpus}\"\n"
        );
        std::fs::write(&path, text).unwrap();
        Inventory::read(&path).unwrap().hosts.remove(0)
    }

    fn facts() -> Facts {
        let directory = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
        let mut facts = Facts::look(directory.path(), [127, 0, 0, 1].into(), None).unwrap();
        facts.environment.data.filesystem = "ext4".into();
        facts.environment.governor = "performance".into();
        facts.environment.build_profile = "release".into();
        facts.wal_backend = "io_uring".into();
        facts.sync.p50_us = 400.0;
        facts.free_bytes = 1 << 40;
        facts.nofile = None;
        facts.memlock_bytes = None;
        facts.rmem_max_bytes = None;
        facts.wmem_max_bytes = None;
        facts.interface = None;
        facts
    }

    fn found(host: &HostEntry, facts: &Facts) -> Vec<(bool, String)> {
        let mut findings = Findings::of(host);
        findings.facts(facts);
        findings
            .into_list()
            .into_iter()
            .map(|finding| (finding.unfit, finding.what))
            .collect()
    }

    /// Whether it makes a host unfit, what is then said, and how it comes about.
    type Spoil = (bool, &'static str, fn(&mut Facts));

    #[test]
    fn each_spoiler_is_found_and_a_good_host_has_none() {
        let good = facts();
        assert_eq!(found(&host("0"), &good), []);
        let spoil: [Spoil; 8] = [
            (false, "memory", |facts| {
                facts.environment.data.filesystem = "tmpfs".into()
            }),
            (true, "MiB are free", |facts| facts.free_bytes = 1 << 20),
            (false, "powersave", |facts| {
                facts.environment.governor = "powersave".into()
            }),
            (false, "debug build", |facts| {
                facts.environment.build_profile = "debug".into()
            }),
            (false, "written by blocking", |facts| {
                facts.wal_backend = "blocking".into()
            }),
            (false, "a sync takes 40 ms", |facts| {
                facts.sync.p50_us = 40_000.0
            }),
            (false, "rmem_max", |facts| {
                facts.rmem_max_bytes = Some((4 << 20) - 1)
            }),
            (false, "MTU of 1500", |facts| {
                facts.interface = Some(Interface {
                    name: "eth0".into(),
                    mtu: Some(1_500),
                    speed_mbit: Some(25_000),
                    driver: None,
                });
            }),
        ];
        for (unfit, expected, spoil) in spoil {
            let mut facts = good.clone();
            spoil(&mut facts);
            let found = found(&host("0"), &facts);
            assert_eq!(found.len(), 1, "{expected}: {found:?}");
            assert_eq!(found[0].0, unfit);
            assert!(found[0].1.contains(expected), "{found:?}");
        }
        let found = found(&host("900"), &good);
        assert!(
            found[0].0 && found[0].1.contains("cpus = \"900\""),
            "{found:?}"
        );
    }

    #[test]
    fn the_end_of_a_certificate_is_found_ahead() {
        let directory = tempfile::tempdir().unwrap();
        let now = crate::utc::unix_seconds_now();
        let cluster = synod_engine::ids::ClusterId(7);
        let key = synod_transport::AuthorityKey::Kept;
        let set =
            synod_transport::CertificateSet::make(directory.path(), cluster, key, now).unwrap();
        let days = [("replica:1", 20), ("replica:2", 10), ("client:a", 2)];
        for (who, days) in days {
            set.issue(&who.parse().unwrap(), set.life(days)).unwrap();
        }
        let later = now + 3 * 86_400;
        let listed = crate::certs::show::list(directory.path(), later).unwrap();
        let host = host("0");
        let mut findings = Findings::of(&host);
        findings.certificates(&listed);
        let found: Vec<_> = findings.into_list();
        let found: Vec<_> = found.iter().map(|each| (each.unfit, &*each.what)).collect();
        assert_eq!(
            found,
            [
                (true, "the certificate of client a (client-a.pem) has ended"),
                (
                    false,
                    "the certificate of replica 2 (replica-2.pem) ends in 7 days"
                ),
            ]
        );
    }
}
