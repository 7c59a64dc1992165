//! A disk of its own for each replica, which can be made to stand still: ext4 on a loop device, and `fsfreeze`.
//!
//! Nothing of it outlives the run, not even a run that ends by SIGKILL: each disk has a guard, a shell that waits for
//! its stdin to close, and then thaws and unmounts it. The loop device goes with the mount, the image with the data.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;

use super::fault::Fault;
use crate::run::layout::Layout;
use crate::run::progress::Progress;

/// More than a run of some hours writes; the image is sparse.
const DISK_BYTES: u64 = 2 << 30;
const TOOLS: [&str; 4] = ["mkfs.ext4", "mount", "umount", "fsfreeze"];
/// The bit of CAP_SYS_ADMIN, without which nobody mounts.
const CAP_SYS_ADMIN: u32 = 21;
/// How a slow disk works: it takes what has gathered, and stands still again.
pub const SLOW_STOPS: Duration = Duration::from_millis(60);
pub const SLOW_GOES: Duration = Duration::from_millis(15);

/// Why disks of replicas cannot be made to stand still here, if so.
pub fn impossible() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    if capabilities.unwrap_or(0) >> CAP_SYS_ADMIN & 1 == 0 {
        return Some("it takes root, for a file system of its own on a loop device".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("this machine has no loop devices (/dev/loop-control)".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |tool: &str| std::env::split_paths(&path).any(|folder| folder.join(tool).is_file());
    let missing = TOOLS.iter().find(|tool| !has(tool))?;
    Some(format!("{missing} is not installed"))
}

/// The disks of a run; mounted where the replicas write.
pub struct Disks(Vec<Disk>);

struct Disk {
    path: PathBuf,
    guard: Child,
}

impl Disks {
    /// None, unless a fault needs them.
    pub fn make(layout: &Layout, faults: &[Fault], progress: &Progress) -> anyhow::Result<Disks> {
        let mut disks = Disks(Vec::new());
        if !faults.iter().any(|fault| fault.needs_loop_disks()) {
            return Ok(disks);
        }
        progress.step("making a file system on a loop device for each replica");
        for (id, path) in layout.replica_directories() {
            let image = layout.data.join(format!("disk-{}.img", id.0));
            let file = std::fs::File::create(&image).and_then(|file| file.set_len(DISK_BYTES));
            file.with_context(|| format!("{} cannot be made", image.display()))?;
            std::fs::create_dir(&path)
                .with_context(|| format!("{} cannot be made", path.display()))?;
            tool("mkfs.ext4", &[Path::new("-q"), &image])?;
            tool(
                "mount",
                &[Path::new("-o"), Path::new("loop"), &image, &path],
            )?;
            // From here on somebody takes it away again.
            let guard = guard(&path).inspect_err(|_| {
                let _ = tool("umount", &[&path]);
            })?;
            disks.0.push(Disk { path, guard });
        }
        Ok(disks)
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for disk in &mut self.0 {
            drop(disk.guard.stdin.take());
        }
        for disk in &mut self.0 {
            if let Err(error) = disk.guard.wait() {
                tracing::warn!("{}: still mounted? {error}", disk.path.display());
            }
        }
    }
}

/// Ends when its stdin does, which the kernel closes whatever becomes of us. In a group of its own, so that no ctrl-C
/// ends it before.
fn guard(path: &Path) -> anyhow::Result<Child> {
    const SCRIPT: &str =
        "cat >/dev/null; fsfreeze --unfreeze \"$0\" 2>/dev/null; umount --lazy \"$0\"";
    Command::new("sh")
        .args(["-c", SCRIPT])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("the guard of a disk cannot be started")
}

/// Every write to the file system at this path waits from now on, or goes on.
pub fn freeze(path: &Path, frozen: bool) -> anyhow::Result<()> {
    let flag = if frozen { "--freeze" } else { "--unfreeze" };
    tool("fsfreeze", &[Path::new(flag), path])
}

fn tool(name: &str, arguments: &[&Path]) -> anyhow::Result<()> {
    let output = Command::new(name).args(arguments).output();
    let output = output.with_context(|| format!("{name} cannot be started"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{name} failed: {}", said.trim());
    Ok(())
}
