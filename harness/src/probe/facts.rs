//! What a host is and what it permits.

use std::net::IpAddr;
use std::path::Path;

use anyhow::Context;
use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use crate::cluster::cpus::Cpus;
use crate::environment::Environment;
use crate::probe::disk_sync::{self, SyncTimes};

/// A folder of our own below the data directory while the disk is measured.
const SCRATCH: &str = "synod-probe";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    pub environment: Environment,
    pub hostname: String,
    /// What the kernel was started with, as far as it matters to a benchmark.
    pub kernel_command_line: String,
    pub numa_nodes: usize,
    /// Of the machine, whatever a process may use of them.
    pub online_cpus: usize,
    /// Of the filesystem of the data directory.
    pub free_bytes: u64,
    /// How the WAL is written here: io_uring or not, and why.
    pub wal_backend: String,
    pub sync: SyncTimes,
    pub nofile: Option<u64>,
    pub memlock_bytes: Option<u64>,
    /// The largest buffers that a socket may ask for.
    pub rmem_max_bytes: Option<u64>,
    pub wmem_max_bytes: Option<u64>,
    pub interface: Option<Interface>,
    pub systemd: bool,
}

/// A network interface, as sysfs describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    pub mtu: Option<u64>,
    /// Unknown for interfaces without hardware.
    pub speed_mbit: Option<u64>,
    pub driver: Option<String>,
}

impl Facts {
    /// Measures the disk under `data`, which must be there.
    pub fn look(data: &Path, address: IpAddr, interface: Option<&str>) -> anyhow::Result<Facts> {
        let scratch = Scratch::make(data)?;
        let wal_backend = disk_sync::backend(scratch.path()).context("no WAL can be written")?;
        let sync = disk_sync::measure(scratch.path()).context("the disk cannot be measured")?;
        drop(scratch);
        let space = rustix::fs::statvfs(data).context("the free space is not known")?;
        Ok(Facts {
            environment: Environment::look(data),
            hostname: text("/proc/sys/kernel/hostname").unwrap_or_default(),
            kernel_command_line: known(&text("/proc/cmdline").unwrap_or_default()),
            numa_nodes: numa_nodes(),
            online_cpus: online_cpus(),
            free_bytes: space.f_bavail * space.f_frsize,
            wal_backend,
            sync,
            nofile: getrlimit(Resource::Nofile).current,
            memlock_bytes: getrlimit(Resource::Memlock).current,
            rmem_max_bytes: number("/proc/sys/net/core/rmem_max"),
            wmem_max_bytes: number("/proc/sys/net/core/wmem_max"),
            interface: Interface::find(address, interface),
            systemd: Path::new("/run/systemd/system").is_dir(),
        })
    }
}

/// What changes how fast a machine is. Anything else may be a token of whoever set it up, and results are published.
const KERNEL_KEYS: [&str; 41] = [
    "amd_pstate",
    "audit",
    "cgroup_no_v1",
    "clocksource",
    "cpufreq.default_governor",
    "cpuidle.off",
    "default_hugepagesz",
    "elevator",
    "hugepages",
    "hugepagesz",
    "idle",
    "init_on_alloc",
    "init_on_free",
    "intel_idle.max_cstate",
    "intel_iommu",
    "intel_pstate",
    "iommu",
    "iommu.passthrough",
    "irqaffinity",
    "isolcpus",
    "kpti",
    "maxcpus",
    "mem",
    "mitigations",
    "nmi_watchdog",
    "nohz",
    "nohz_full",
    "nopti",
    "nosmt",
    "nowatchdog",
    "nr_cpus",
    "numa_balancing",
    "nvme.poll_queues",
    "preempt",
    "processor.max_cstate",
    "psi",
    "rcu_nocbs",
    "skew_tick",
    "threadirqs",
    "transparent_hugepage",
    "tsc",
];

fn known(command_line: &str) -> String {
    let is_known = |word: &&str| {
        let key = word.split_once('=').map_or(*word, |(key, _)| key);
        KERNEL_KEYS.contains(&key)
    };
    let words = command_line.split_whitespace().filter(is_known);
    words.collect::<Vec<_>>().join(" ")
}

struct Scratch(std::path::PathBuf);

impl Scratch {
    fn make(data: &Path) -> anyhow::Result<Scratch> {
        let path = data.join(format!("{SCRATCH}-{}", std::process::id()));
        std::fs::create_dir(&path)
            .with_context(|| format!("{}: cannot be made", path.display()))?;
        Ok(Scratch(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!("{}: not removed: {error}", self.0.display());
        }
    }
}

impl Interface {
    fn find(address: IpAddr, named: Option<&str>) -> Option<Interface> {
        let name = named.map_or_else(|| name_of(address), |name| Some(name.to_owned()))?;
        let folder = format!("/sys/class/net/{name}");
        let driver = std::fs::read_link(format!("{folder}/device/driver")).ok();
        let driver = driver.and_then(|path| path.file_name()?.to_str().map(str::to_owned));
        Some(Interface {
            mtu: mtu(&name).or_else(|| number(&format!("{folder}/mtu"))),
            speed_mbit: number(&format!("{folder}/speed")),
            driver,
            name,
        })
    }
}

/// From what `ip` says, as sysfs may be of another network namespace than ours.
fn mtu(name: &str) -> Option<u64> {
    let said = ip(&["-o", "link", "show", "dev", name])?;
    let (_, rest) = said.split_once(" mtu ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// The interface that has the address, by `ip -o addr`.
fn name_of(address: IpAddr) -> Option<String> {
    let said = ip(&["-o", "addr"])?;
    let address = format!("{address}/");
    said.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let name = words.next()?;
        words
            .any(|word| word.starts_with(&address))
            .then(|| name.to_owned())
    })
}

fn ip(arguments: &[&str]) -> Option<String> {
    // Not in every user's search path.
    for program in ["ip", "/usr/sbin/ip", "/sbin/ip"] {
        if let Ok(output) = std::process::Command::new(program).args(arguments).output() {
            return Some(String::from_utf8_lossy(&output.stdout).into_owned());
        }
    }
    None
}

fn numa_nodes() -> usize {
    let nodes = std::fs::read_dir("/sys/devices/system/node")
        .into_iter()
        .flatten()
        .flatten();
    let is_node = |name: &str| {
        name.strip_prefix("node")
            .is_some_and(|rest| rest.parse::<u32>().is_ok())
    };
    let count = nodes
        .filter(|entry| entry.file_name().to_str().is_some_and(is_node))
        .count();
    count.max(1)
}

fn online_cpus() -> usize {
    let list = text("/sys/devices/system/cpu/online").unwrap_or_default();
    Cpus::parse(&list).map_or(1, |cpus| {
        cpus.numbers().iter().max().map_or(1, |most| most + 1)
    })
}

fn text(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
}

fn number(path: &str) -> Option<u64> {
    text(path)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_matters_of_the_kernels_start_is_told() {
        let line = "BOOT_IMAGE=/vmlinuz root=UUID=1-2 isolcpus=2-5 ro token=s3cret mitigations=off nosmt \
                    ds=nocloud;s=http://x/?key=y";
        assert_eq!(known(line), "isolcpus=2-5 mitigations=off nosmt");
    }

    #[test]
    fn this_machine_is_described_and_nothing_stays() {
        let directory = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
        let facts = Facts::look(directory.path(), IpAddr::from([127, 0, 0, 1]), None).unwrap();
        assert!(facts.sync.count > 0 && facts.sync.p50_us > 0.0);
        assert!(facts.sync.p50_us <= facts.sync.p99_us && facts.sync.p99_us <= facts.sync.max_us);
        assert!(facts.free_bytes > 0 && facts.numa_nodes >= 1);
        assert!(!facts.wal_backend.is_empty());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let missing = Facts::look(
            &directory.path().join("none"),
            IpAddr::from([127, 0, 0, 1]),
            None,
        );
        assert!(format!("{:#}", missing.unwrap_err()).contains("none"));
    }
}
