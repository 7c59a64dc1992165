//! A follower's disk that stands still: a file system on a loop device that `fsfreeze` stops, under real replicas. Needs
//! root; where that or a loop device is missing, a line says so and nothing is tested.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{Files, Replica, directory, one_at_a_time, synod, wait_until};

const REPLICAS: u8 = 5;
/// Its disk is the one that freezes.
const FROZEN: u8 = 5;
const DISK_BYTES: u64 = 2 << 30;
const WRITERS: usize = 6;
const VALUE_BYTES: usize = 60 << 10;
/// The load ends by itself after this long, whatever happens to the test.
const LOAD_MAX: Duration = Duration::from_secs(60);
/// The disk stands still until the others wrote so much, or for so long.
const WRITTEN_BYTES: u64 = 200 << 20;
const FROZEN_MAX: Duration = Duration::from_secs(20);
/// What a follower may gain meanwhile: the limit of what its disk owes (16 MiB), as values and as messages on their way,
/// a cache of 4 MiB, and slack for the allocator.
const GAIN_BYTES_MAX: u64 = 80 << 20;
const TABLES: &str = "[limits]\ncache_bytes_max = 4194304\nintake_bytes_max = 4194304\n";

/// A mounted file system of its own. Dropped, it goes on and goes away, whatever the test came to.
struct Disk(PathBuf);

impl Disk {
    fn make(directory: &Path) -> Result<Disk, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("it needs root".to_owned());
        }
        let (image, mount) = (directory.join("disk.img"), directory.join("disk"));
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(DISK_BYTES))
            .and_then(|()| std::fs::create_dir(&mount))
            .map_err(|error| error.to_string())?;
        let text = |path: &Path| path.to_str().expect("utf-8").to_owned();
        tool(&["mkfs.ext4", "-q", &text(&image)])?;
        tool(&["mount", "-o", "loop", &text(&image), &text(&mount)])?;
        Ok(Disk(mount))
    }

    fn freeze(&self, flag: &str) -> Result<(), String> {
        tool(&["fsfreeze", flag, self.0.to_str().expect("utf-8")])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Frozen it can't be unmounted; thawed twice is no harm.
        let _ = self.freeze("--unfreeze");
        let _ = tool(&["umount", self.0.to_str().expect("utf-8")]);
    }
}

fn tool(words: &[&str]) -> Result<(), String> {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.map_err(|error| format!("{}: {error}", words[0]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output
        .status
        .success()
        .then_some(())
        .ok_or_else(|| format!("{words:?}: {said}"))
}

/// Clients that overwrite a key each, one command after the other, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<(Child, JoinHandle<()>)>,
}

impl Load {
    fn start(files: &Files) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..WRITERS).map(|writer| {
            let mut child = synod()
                .args(["client", "--config"])
                .arg(files.client_config())
                .arg("repl")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the binary starts");
            let mut stdin = child.stdin.take().expect("piped");
            let (stop, started) = (stop.clone(), Instant::now());
            let feeding = std::thread::spawn(move || {
                let line = format!("put key-{writer} {}\n", "x".repeat(VALUE_BYTES));
                while !stop.load(Ordering::Relaxed)
                    && started.elapsed() < LOAD_MAX
                    && stdin.write_all(line.as_bytes()).is_ok()
                {}
            });
            (child, feeding)
        });
        Load {
            writers: writers.collect(),
            stop,
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for (mut child, feeding) in self.writers.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
            let _ = feeding.join();
        }
    }
}

fn resident_bytes(replica: &Replica) -> u64 {
    let path = format!("/proc/{}/status", replica.id().as_raw_nonzero());
    let status = std::fs::read_to_string(path).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse::<u64>().ok())
        .expect("a size")
        * 1024
}

/// The sum that the replica said at its start.
fn budget_bytes(files: &Files, id: u8) -> u64 {
    let log = std::fs::read_to_string(files.log(id)).expect("a log");
    let line = log.lines().find(|line| line.contains("budget: engine"));
    let sum = line.and_then(|line| line.split(" = ").nth(1));
    sum.and_then(|sum| sum.split(' ').next()?.parse().ok())
        .expect("a budget")
}

fn leader(files: &Files, except: &[u8]) -> Option<u8> {
    let status = files.status();
    (1..=REPLICAS)
        .filter(|id| !except.contains(id))
        .find(|id| status.counter(*id, "leading") == Some(1))
}

/// Starts all, the last one on the disk that can freeze, and sees to it that another one leads.
fn start(files: &Files) -> Vec<Option<Replica>> {
    let toml = std::fs::read_to_string(files.config(FROZEN)).expect("written");
    let own = format!("data = \"data-{FROZEN}\"");
    let moved = toml.replace(&own, "data = \"disk/data\"");
    assert_ne!(toml, moved);
    std::fs::write(files.config(FROZEN), moved).expect("written");
    let mut replicas: Vec<Option<Replica>> =
        (1..FROZEN).map(|id| Some(files.start(id, true))).collect();
    wait_until("nobody leads", || leader(files, &[]).is_some());
    replicas.push(Some(files.start(FROZEN, true)));
    replicas
}

#[test]
fn a_frozen_disk_of_a_follower_costs_bounded_memory_and_the_others_nothing() {
    let _turn = one_at_a_time();
    let directory = directory();
    let disk = match Disk::make(directory.path()) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: no disk that can freeze here: {why}"),
    };
    let files = Files::make(directory.path(), REPLICAS);
    files.configure(TABLES);
    let mut replicas = start(&files);
    let first = leader(&files, &[FROZEN]).expect("one leads");
    let applied = |id: u8| files.counter(id, "applied").unwrap_or(0);
    wait_until("it does not catch up", || {
        applied(FROZEN) + 1 >= applied(first)
    });

    let load = Load::start(&files);
    wait_until("no load", || {
        files.counter(FROZEN, "wal_bytes") > Some(30 << 20)
    });
    let frozen = |replicas: &[Option<Replica>]| {
        resident_bytes(replicas[usize::from(FROZEN) - 1].as_ref().expect("it runs"))
    };
    let (before, written_before) = (frozen(&replicas), files.counter(first, "wal_bytes"));
    disk.freeze("--freeze").expect("it froze");
    let frozen_at = Instant::now();
    let written = || files.counter(first, "wal_bytes").unwrap_or(0) - written_before.unwrap_or(0);
    let mut peak = before;
    while written() < WRITTEN_BYTES && frozen_at.elapsed() < FROZEN_MAX {
        peak = peak.max(frozen(&replicas));
    }
    let (written, gained) = (written(), peak.saturating_sub(before));
    println!(
        "{} MiB written beside a disk that stood still for {:.1} s, {} MiB gained by its replica, {} MiB resident",
        written >> 20,
        frozen_at.elapsed().as_secs_f64(),
        gained >> 20,
        peak >> 20
    );
    assert!(
        written > 2 * GAIN_BYTES_MAX,
        "only {written} bytes were written beside it"
    );
    assert!(gained <= GAIN_BYTES_MAX, "{gained} bytes were gained");
    assert!(
        peak <= budget_bytes(&files, FROZEN),
        "{peak} is over the budget"
    );
    assert!(files.counter(FROZEN, "lsn_appended") > files.counter(FROZEN, "lsn_durable"));

    // The leader dies while the disk still stands.
    drop(replicas[usize::from(first) - 1].take());
    let killed_at = Instant::now();
    let mut second = None;
    while second.is_none() && killed_at.elapsed() < Duration::from_secs(30) {
        second = leader(&files, &[first, FROZEN]);
    }
    let took = killed_at.elapsed();
    println!("{second:?} leads after {:.2} s", took.as_secs_f64());
    let second = second.expect("nobody leads any more");
    // An election takes half a second; the rest is for the machine, and for asking with a process each time.
    assert!(took < Duration::from_secs(6), "{took:?} without a leader");

    disk.freeze("--unfreeze").expect("it thawed");
    drop(load);
    wait_until("it never catches up", || applied(FROZEN) >= applied(second));
    assert_eq!(
        files.counter(FROZEN, "state_hash"),
        files.counter(second, "state_hash")
    );
    drop(replicas);
    drop(disk);
}
