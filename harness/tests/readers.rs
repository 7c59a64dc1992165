//! Whoever reads what a command says may go away, stand still or run out of room: that can cost lines, and nothing else.

mod common;

use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Write, pipe};
use std::process::{Child, Command, Stdio};

use common::{Files, directory, one_at_a_time, synod, wait_for, wait_until};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// A bad reader, with what has to live as long as it is one.
struct Reader {
    name: &'static str,
    end: Stdio,
    _kept: Option<PipeReader>,
}

/// No file system has room for a byte.
fn full_disk() -> Reader {
    let full = OpenOptions::new().write(true).open("/dev/full");
    Reader {
        name: "a full disk",
        end: full.expect("every Linux has it").into(),
        _kept: None,
    }
}

/// Its next write gets EPIPE.
fn gone() -> Reader {
    let (_, writer) = pipe().expect("a pipe");
    Reader {
        name: "a reader that has gone",
        end: writer.into(),
        _kept: None,
    }
}

/// The pipe is full to the last byte from the start, so that the very first line would wait.
fn still() -> Reader {
    let (reader, mut writer) = pipe().expect("a pipe");
    let flags = fcntl_getfl(&writer).expect("a pipe");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("a pipe");
    while writer.write(&[b'x'; 512]).is_ok() {}
    while writer.write(b"x").is_ok() {}
    fcntl_setfl(&writer, flags).expect("a pipe");
    Reader {
        name: "a reader that stands still",
        end: writer.into(),
        _kept: Some(reader),
    }
}

const BAD_READERS: [fn() -> Reader; 3] = [full_disk, gone, still];

fn spawn(command: &mut Command) -> Child {
    let child = command.stdin(Stdio::null()).spawn();
    child.expect("the binary starts")
}

#[test]
fn a_replica_serves_whatever_becomes_of_the_reader_of_its_log() {
    let _turn = one_at_a_time();
    for reader in BAD_READERS {
        let reader = reader();
        let directory = directory();
        let files = Files::make(directory.path(), 1);
        let replica = files.start_logging_to(1, true, reader.end);
        let finished = files.client(&["put", "key", "value"]);
        assert_eq!(
            finished.code,
            Some(0),
            "{}: {}",
            reader.name,
            finished.stderr
        );
        let lost = files.counter(1, "log_lines_lost");
        let lost = lost.expect("it answers");
        // What waits for one who stands still is not lost yet.
        assert_eq!(
            lost > 0,
            reader.name != still().name,
            "{}: {lost}",
            reader.name
        );
        assert_eq!(replica.stop(), Some(0), "{}", reader.name);
    }
}

#[test]
fn a_replica_whose_collector_stands_still_for_long_counts_what_it_lost_and_tells_it_later() {
    let _turn = one_at_a_time();
    let directory = directory();
    let files = Files::make(directory.path(), 3);
    // Two replicas try for ever to reach the third: at this level each attempt is many lines.
    let (mut collector, log) = pipe().expect("a pipe");
    let first = files.start_with(1, true, log, |command| {
        command.env("SYNOD_LOG", "trace");
    });
    let _second = files.start(2, true);
    wait_until("no line is lost", || {
        let put = files.client(&["put", "key", "value"]);
        assert_eq!(put.code, Some(0), "{}", put.stderr);
        files.counter(1, "log_lines_lost") > Some(0)
    });
    let collecting = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut collector, &mut text).expect("UTF-8");
        text
    });
    assert_eq!(first.stop(), Some(0));
    let text = collecting.join().expect("it ends with the replica");
    assert!(text.contains("lines lost here: nobody took them in time"));
}

#[test]
fn a_run_measures_whatever_becomes_of_the_reader_of_its_progress() {
    let _turn = one_at_a_time();
    for reader in BAD_READERS {
        let reader = reader();
        let directory = directory();
        let mut command = synod();
        command.args(["run", "--seconds", "1", "--warmup", "0", "--replicas", "1"]);
        command.args(["--outstanding", "16", "--name", "test", "--out"]);
        command.arg(directory.path()).stderr(reader.end);
        // The table goes nowhere either: the results are in their files, and a shell is told as of any filter.
        let mut child = spawn(command.stdout(gone().end));
        assert_eq!(wait_for(&mut child, "run"), Some(141), "{}", reader.name);
        let result = std::fs::read(directory.path().join("test/result.json"));
        let result: serde_json::Value =
            serde_json::from_slice(&result.expect("it was written")).expect("JSON");
        assert_eq!(result["ok"], true, "{}: {result}", reader.name);
    }
}

#[test]
fn a_simulation_goes_on_without_a_reader_of_its_progress_and_ends_quietly_without_one_of_its_answer()
 {
    for reader in BAD_READERS {
        let reader = reader();
        // Enough for a line of progress, which comes each second.
        let mut command = synod();
        command.args(["simulate", "--seeds", "12", "--json"]);
        let mut child = spawn(command.stdout(Stdio::null()).stderr(reader.end));
        assert_eq!(wait_for(&mut child, "simulate"), Some(0), "{}", reader.name);
    }
    for (reader, code) in [(full_disk(), 1), (gone(), 141)] {
        let stderr = tempfile::tempfile().expect("a file");
        let mut command = synod();
        command.args(["simulate", "--seeds", "1"]);
        command
            .stdout(reader.end)
            .stderr(stderr.try_clone().expect("a file"));
        assert_eq!(
            wait_for(&mut spawn(&mut command), "simulate"),
            Some(code),
            "{}",
            reader.name
        );
        let told = text_of(stderr);
        match code {
            141 => assert_eq!(told, ""),
            _ => assert!(
                told.starts_with("synod: stdout cannot be written: "),
                "{told}"
            ),
        }
    }
}

fn text_of(mut file: File) -> String {
    use std::io::{Read, Seek};
    file.rewind().expect("a file");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("UTF-8");
    text
}

#[test]
fn a_failure_ends_the_process_though_nobody_hears_why() {
    for reader in BAD_READERS {
        let reader = reader();
        let mut command = synod();
        command.args(["replica", "--config", "/nowhere/replica.toml"]);
        let mut child = spawn(command.stderr(reader.end));
        assert_eq!(wait_for(&mut child, "replica"), Some(2), "{}", reader.name);
    }
}

#[test]
fn a_note_beside_an_answer_needs_no_reader() {
    for reader in BAD_READERS {
        let reader = reader();
        let directory = directory();
        let mut command = synod();
        command.args(["certs", "--replicas", "1", "--out"]);
        command.arg(directory.path().join("certs"));
        let mut child = spawn(command.stdout(Stdio::null()).stderr(reader.end));
        assert_eq!(wait_for(&mut child, "certs"), Some(0), "{}", reader.name);
    }
}

#[test]
fn a_replica_needs_nobody_who_hears_that_it_is_ready() {
    let _turn = one_at_a_time();
    for reader in BAD_READERS {
        let reader = reader();
        let directory = directory();
        let files = Files::make(directory.path(), 1);
        let mut command = synod();
        command
            .args(["replica", "--init", "--config"])
            .arg(files.config(1));
        let mut child = spawn(command.stdout(reader.end).stderr(Stdio::null()));
        let finished = files.client(&["put", "key", "value"]);
        child.kill().expect("our child");
        wait_for(&mut child, "replica");
        assert_eq!(
            finished.code,
            Some(0),
            "{}: {}",
            reader.name,
            finished.stderr
        );
    }
}
