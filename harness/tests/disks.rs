//! Disks that are full, or say that one has to come again: no replica ends, and nothing is lost.

mod common;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use common::mount::{Mount, tool};
use common::{Files, Finished, directory, one_at_a_time, wait_until};
use rustix::fs::{IFlags, ioctl_getflags};

fn log_at(path: &Path) -> File {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).open(path);
    file.expect("a file")
}

/// Below strace, which makes every third call of the ring fail.
fn below_strace(error: &str) -> Command {
    let mut command = Command::new("strace");
    let inject = format!("inject=io_uring_enter:error={error}:when=5+3");
    // With -D the replica is our child, and strace its own.
    command.args(["-D", "-f", "-qq", "-o", "/dev/null"]);
    command.args(["-e", "trace=io_uring_enter", "-e", &inject]);
    command.arg(env!("CARGO_BIN_EXE_synod"));
    command
}

#[test]
fn a_ring_that_says_come_again_ends_no_replica() {
    let traced = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status();
    if !traced.is_ok_and(|status| status.success()) {
        println!("skipped: strace is missing, or may trace nothing");
        return;
    }
    let _turn = one_at_a_time();
    for error in ["EAGAIN", "EBUSY", "EINTR"] {
        let directory = directory();
        let files = Files::make(directory.path(), 1);
        let log = log_at(&files.log(1));
        let replica = files.start_as(below_strace(error), 1, true, log, |_| {});
        for number in 0..10 {
            let key = format!("key-{number}");
            let finished = files.client(&["put", &key, "value"]);
            assert_eq!(finished.code, Some(0), "{error}: {}", finished.stderr);
        }
        let said = std::fs::read_to_string(files.log(1)).expect("a log");
        if said.contains("io_uring with direct writes cannot be used here") {
            println!("skipped: no io_uring here");
            return;
        }
        let retried = files.counter(1, "wal_write_retries");
        // A signal is no answer at all: it is asked again at once.
        assert_eq!(retried > Some(0), error != "EINTR", "{error}: {retried:?}");
        assert_eq!(replica.stop(), Some(0), "{error}");
        let replica = files.start(1, false);
        let found = files.client(&["get", "key-9"]);
        assert_eq!(found.stdout.trim(), "value", "{error}: {}", found.stderr);
        assert_eq!(replica.stop(), Some(0));
    }
}

const DISK_BYTES: u64 = 256 << 20;
const VALUE_BYTES: usize = 30_000;

/// Takes all the room there is.
fn fill(path: &Path) {
    let file = File::create(path).expect("a file");
    for step in [1 << 20, 4096] {
        let bytes = vec![0xA5; step];
        let mut at = file.metadata().expect("a file").len();
        while file.write_all_at(&bytes, at).is_ok() && file.sync_data().is_ok() {
            at += step as u64;
        }
    }
}

/// Puts of one client after the other, in the background.
fn putting(files: &Files, keys: std::ops::Range<u32>) -> JoinHandle<Finished> {
    let value = "v".repeat(VALUE_BYTES);
    let lines = keys.map(|key| format!("put key-{key} {value}\n"));
    let lines: String = lines.collect();
    let config = files.client_config();
    std::thread::spawn(move || {
        let config = config.to_str().expect("utf-8");
        common::run_with_input(
            &[
                "client",
                "--deadline-ms",
                "100000",
                "--config",
                config,
                "repl",
            ],
            &lines,
        )
    })
}

#[test]
fn on_btrfs_the_log_is_overwritten_in_place_and_the_start_tells_where_it_is_not() {
    let _turn = one_at_a_time();
    let directory = directory();
    let mount = match Mount::new(directory.path(), &["mkfs.btrfs", "-q"], DISK_BYTES) {
        Ok(mount) => mount,
        Err(why) => return println!("skipped: no btrfs on a loop device: {why}"),
    };
    let files = Files::make(mount.path(), 1);
    files.configure("[storage]\nsegment_bytes = 4194304\n");
    let backend = |init| {
        let mut command = common::synod();
        command.args(["replica", "--exit-with-parent", "--config"]);
        command.arg(files.config(1)).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if init {
            command.arg("--init");
        }
        // Waiting closes its stdin, so it goes as soon as it is ready.
        let child = command.spawn().expect("the binary starts");
        let output = child.wait_with_output().expect("our child");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (String::from_utf8_lossy(&output.stdout).into_owned(), said)
    };
    let is_copied = |path: &Path| {
        let flags = ioctl_getflags(File::open(path).expect("it is there"));
        !flags.expect("btrfs has flags").contains(IFlags::NOCOW)
    };
    let (ready, said) = backend(true);
    assert!(ready.contains("no copy-on-write"), "{ready}{said}");
    assert!(!is_copied(&files.data(1).join("wal-0000000000000001.seg")));
    assert!(!said.contains("chattr"), "{said}");
    tool(&["chattr", "-C", files.data(1).to_str().expect("utf-8")]).expect("e2fsprogs");
    let (ready, said) = backend(false);
    assert!(ready.contains("with copy-on-write"), "{ready}{said}");
    assert!(said.contains("chattr +C"), "{said}");
}

/// Where each write takes new room, a prepared segment reserves nothing, and any write may find none.
#[test]
fn a_full_disk_that_copies_on_write_is_waited_for() {
    let _turn = one_at_a_time();
    let directory = directory();
    let mount = match Mount::new(
        directory.path(),
        &["mkfs.btrfs", "-q", "-d", "single"],
        DISK_BYTES,
    ) {
        Ok(mount) => mount,
        Err(why) => return println!("skipped: no btrfs on a loop device: {why}"),
    };
    let files = Files::make(mount.path(), 1);
    files.configure("[storage]\nsegment_bytes = 4194304\n");
    assert_eq!(files.start(1, true).stop(), Some(0));
    // Files made from now on are copied, whatever the directory was made with.
    let data = files.data(1);
    if let Err(why) = tool(&["chattr", "-C", data.to_str().expect("utf-8")]) {
        return println!("skipped: {why}");
    }
    // The log is not on the disk that fills up: its lines are looked for.
    let log = directory.path().join("log");
    let replica = files.start_logging_to(1, false, log_at(&log));
    let before = putting(&files, 0..300).join().expect("no panic");
    assert!(!before.stdout.contains("failed"), "{}", before.stdout);
    let filler = mount.path().join("filler");
    fill(&filler);
    let during = putting(&files, 300..900);
    wait_until("the disk is never full", || {
        assert!(!during.is_finished(), "it has room for everything");
        files.counter(1, "wal_write_full_tries") > Some(5)
    });
    assert_eq!(files.counter(1, "wal_disk_full"), Some(1));
    std::fs::remove_file(&filler).expect("it is there");
    let during = during.join().expect("no panic");
    assert!(!during.stdout.contains("failed"), "{}", during.stdout);
    let said = std::fs::read_to_string(log).expect("a log");
    assert!(
        said.contains("no space left on its disk") && said.contains("there is room again"),
        "{said}"
    );
    assert_eq!(replica.stop(), Some(0));
    let replica = files.start(1, false);
    for key in ["key-299", "key-899"] {
        let found = files.client(&["get", key]);
        assert_eq!(
            found.stdout.trim().len(),
            VALUE_BYTES,
            "{key}: {}",
            found.stderr
        );
    }
    assert_eq!(replica.stop(), Some(0));
}
