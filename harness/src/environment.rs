//! The machine and the build that a result belongs to. No number counts without them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub const COMMIT: &str = env!("SYNOD_COMMIT");
pub const RUSTC: &str = env!("SYNOD_RUSTC");
pub const PROFILE: &str = env!("SYNOD_PROFILE");

const UNKNOWN: &str = "unknown";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Environment {
    pub kernel: String,
    pub architecture: String,
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub governor: String,
    pub data: Disk,
    pub rustc: String,
    pub build_profile: String,
    pub commit: String,
}

/// The file system under a directory, and the device under that.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Disk {
    pub mount_point: String,
    pub filesystem: String,
    pub device: String,
    pub mount_options: String,
    pub scheduler: String,
}

impl Environment {
    /// `data` is where the replicas write.
    pub fn look(data: &Path) -> Environment {
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = field(&cpuinfo, "model name").unwrap_or_else(|| UNKNOWN.into());
        let meminfo = read("/proc/meminfo");
        let memory_kib = field(&meminfo, "MemTotal")
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0);
        Environment {
            kernel: line("/proc/sys/kernel/osrelease"),
            architecture: std::env::consts::ARCH.into(),
            cpu,
            cores: std::thread::available_parallelism().map_or(0, |cores| cores.get()),
            memory_bytes: memory_kib * 1_024,
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            data: Disk::of(data),
            rustc: RUSTC.into(),
            build_profile: PROFILE.into(),
            commit: COMMIT.into(),
        }
    }

    /// Known reasons why figures from here would mislead.
    pub fn spoilers(&self) -> Vec<String> {
        let mut spoilers = Vec::new();
        if self.data.is_memory() {
            spoilers.push(format!(
                "the data directory is in memory ({} on {}): nothing is durable, use --data on a real disk",
                self.data.filesystem, self.data.mount_point
            ));
        }
        if self.build_profile != "release" {
            spoilers.push(format!(
                "this is a {} build: its figures mean nothing, use --release",
                self.build_profile
            ));
        }
        if self.governor == "powersave" {
            spoilers.push("the CPU governor is powersave: figures will wander".into());
        }
        spoilers
    }

    /// One line for a report.
    pub fn summary(&self) -> String {
        format!(
            "{} x {}, {} GiB, {} on {} ({}), kernel {}",
            self.cores,
            self.cpu,
            self.memory_bytes >> 30,
            self.data.filesystem,
            self.data.device,
            self.data.scheduler,
            self.kernel
        )
    }
}

impl Disk {
    pub fn of(directory: &Path) -> Disk {
        let existing = directory
            .ancestors()
            .find_map(|path| path.canonicalize().ok());
        let existing = existing.unwrap_or_else(|| PathBuf::from("/"));
        Disk::in_mounts(&read("/proc/self/mountinfo"), &existing)
    }

    pub fn is_memory(&self) -> bool {
        matches!(self.filesystem.as_str(), "tmpfs" | "ramfs")
    }

    /// The mount whose point is the longest prefix of `path`; of equal ones the last, which covers the others.
    fn in_mounts(mountinfo: &str, path: &Path) -> Disk {
        let mounts = mountinfo.lines().filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ').skip(2);
            let number = left.next()?;
            let point = left.nth(1)?;
            let options = left.next()?;
            let mut right = right.split(' ');
            path.starts_with(point).then_some((
                point,
                Disk {
                    mount_point: point.into(),
                    filesystem: right.next()?.into(),
                    device: right.next()?.into(),
                    mount_options: options.into(),
                    scheduler: scheduler(number),
                },
            ))
        });
        let found = mounts.max_by_key(|(point, _)| point.len());
        found.map_or_else(Disk::unknown, |(_, disk)| disk)
    }

    fn unknown() -> Disk {
        Disk {
            mount_point: UNKNOWN.into(),
            filesystem: UNKNOWN.into(),
            device: UNKNOWN.into(),
            mount_options: UNKNOWN.into(),
            scheduler: UNKNOWN.into(),
        }
    }
}

/// The IO scheduler in use: the one in brackets. A partition has none of its own but its disk's.
fn scheduler(device_number: &str) -> String {
    let device = format!("/sys/dev/block/{device_number}");
    let text = [
        format!("{device}/queue/scheduler"),
        format!("{device}/../queue/scheduler"),
    ]
    .into_iter()
    .find_map(|path| std::fs::read_to_string(path).ok());
    let chosen = text.as_deref().and_then(|text| {
        let (_, rest) = text.split_once('[')?;
        Some(rest.split_once(']')?.0.to_owned())
    });
    chosen.unwrap_or_else(|| UNKNOWN.into())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn line(path: &str) -> String {
    match read(path).trim() {
        "" => UNKNOWN.into(),
        text => text.into(),
    }
}

/// The value of the first `name : value` line.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_wins() {
        let mounts = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                      30 22 0:27 / /tmp rw,nosuid shared:2 - tmpfs tmpfs rw,size=1g\n\
                      31 22 0:28 / /tmpx rw - xfs /dev/vdb rw\n";
        let root = Disk::in_mounts(mounts, Path::new("/work/data"));
        assert_eq!((&*root.filesystem, &*root.device), ("ext4", "/dev/vda"));
        assert_eq!(root.mount_options, "rw,relatime");
        assert!(Disk::in_mounts(mounts, Path::new("/tmp/data")).is_memory());
        assert_eq!(Disk::in_mounts("", Path::new("/")).filesystem, UNKNOWN);
    }
}
