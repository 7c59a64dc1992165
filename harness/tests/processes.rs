//! No process outlives the run that started it.

mod common;

use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use common::{directory, one_at_a_time, synod};
use rustix::process::{Pid, Signal, kill_process};

const GUARD: Duration = Duration::from_secs(60);

/// The ids of all processes whose command line names `path`.
fn processes_of(path: &Path) -> Vec<String> {
    let path = path.to_str().expect("utf-8");
    std::fs::read_dir("/proc")
        .expect("proc is mounted")
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let id = entry.file_name().into_string().ok()?;
            id.parse::<u32>().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            String::from_utf8_lossy(&line).contains(path).then_some(id)
        })
        .collect()
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < GUARD, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What starts a long experiment, and how many processes that are.
struct Experiment<'a> {
    arguments: &'a [&'a str],
    processes: usize,
}

/// Itself, three replicas and the load.
const RUN: Experiment<'_> = Experiment {
    arguments: &["run", "--seconds", "300", "--outstanding", "1"],
    processes: 5,
};

/// Itself and three replicas, of which it stops one as soon as it can.
const CHAOS: Experiment<'_> = Experiment {
    arguments: &["chaos", "--seconds", "300", "--faults", "stop"],
    processes: 4,
};

/// Itself and three replicas, and a guard for each of their disks, all of which name the results.
const CHAOS_ON_DISKS: Experiment = Experiment {
    arguments: &["chaos", "--seconds", "300", "--faults", "frozen-disk"],
    processes: 7,
};

/// Starts an experiment and waits until its processes are there.
fn start(experiment: &Experiment<'_>, out: &Path) -> Child {
    let child = begin(experiment, out);
    wait_until("the experiment does not start", || {
        processes_of(out).len() == experiment.processes
    });
    child
}

/// Starts an experiment that nobody listens to: whatever it prints fails, as on a terminal that was closed.
fn begin(experiment: &Experiment<'_>, out: &Path) -> Child {
    let mut child = synod()
        .args(experiment.arguments)
        .args(["--name", "test", "--out"])
        .arg(out)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop((child.stdout.take(), child.stderr.take()));
    child
}

/// Sends SIGHUP, as a terminal that is closed does, and looks that nothing is left of the experiment.
fn hang_up(mut child: Child, out: &Path) {
    kill_process(Pid::from_child(&child), Signal::HUP).expect("our child");
    let status = child.wait().expect("our child");
    assert_eq!(status.code(), Some(1), "{status}");
    wait_until("a process stays", || processes_of(out).is_empty());
    assert!(!out.join("test/data").exists(), "the data stays");
}

/// Waits until one of the processes is stopped.
fn wait_until_stopped(out: &Path) {
    let stopped = |id: &String| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.contains(") T ")
    };
    wait_until("nothing is stopped", || {
        processes_of(out).iter().any(stopped)
    });
}

#[test]
fn an_interrupted_run_ends_its_processes_and_removes_its_data() {
    let _turn = one_at_a_time();
    let out = directory();
    let mut child = start(&RUN, out.path());
    kill_process(Pid::from_child(&child), Signal::INT).expect("our child");
    let status = child.wait().expect("our child");
    assert_eq!(status.code(), Some(1));
    wait_until("a process stays", || processes_of(out.path()).is_empty());
    assert!(!out.path().join("test/data").exists());
}

#[test]
fn a_closed_terminal_ends_a_run_like_an_interruption_at_any_moment() {
    let _turn = one_at_a_time();
    for moment in ["test/data", "test/data/replica-1/identity", "test/load.log"] {
        let out = directory();
        let child = begin(&RUN, out.path());
        wait_until("the run does not get that far", || {
            out.path().join(moment).exists()
        });
        hang_up(child, out.path());
    }
    let out = directory();
    let child = start(&RUN, out.path());
    hang_up(child, out.path());
}

#[test]
fn a_closed_terminal_ends_chaos_and_a_sweep_like_an_interruption() {
    let _turn = one_at_a_time();
    let out = directory();
    let child = start(&CHAOS, out.path());
    wait_until_stopped(out.path());
    hang_up(child, out.path());

    let out = directory();
    let matrix = out.path().join("matrix.toml");
    let text = "systems = [\"synod\"]\noutstanding = [1]\nrepeat = 3\nseconds = 1\nwarmup_s = 0\nclients = 1\n";
    std::fs::write(&matrix, text).expect("written");
    let sweep = Experiment {
        arguments: &["sweep", matrix.to_str().expect("utf-8")],
        processes: 5,
    };
    let child = start(&sweep, out.path());
    hang_up(child, out.path());
    let runs = std::fs::read_dir(out.path().join("test/runs")).expect("it began");
    for run in runs {
        let data = run.expect("read").path().join("data");
        assert!(!data.exists(), "{}", data.display());
    }
}

#[test]
fn under_nohup_a_closed_terminal_ends_nothing() {
    let _turn = one_at_a_time();
    let out = directory();
    // As `nohup` does it: what is ignored is handed on.
    let mut child = std::process::Command::new("sh")
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_synod"))
        .args([
            "run",
            "--seconds",
            "2",
            "--warmup",
            "0",
            "--outstanding",
            "1",
        ])
        .args(["--name", "test", "--out"])
        .arg(out.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh starts");
    wait_until("the run does not start", || {
        processes_of(out.path()).len() == RUN.processes
    });
    kill_process(Pid::from_child(&child), Signal::HUP).expect("our child");
    let status = child.wait().expect("our child");
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(out.path().join("test/result.json").exists());
}

#[test]
fn a_killed_run_leaves_no_process_behind() {
    let _turn = one_at_a_time();
    let out = directory();
    let mut child = start(&RUN, out.path());
    child.kill().expect("our child");
    child.wait().expect("our child");
    wait_until("a process stays", || processes_of(out.path()).is_empty());
}

#[test]
fn an_interrupted_chaos_ends_its_processes_even_stopped_ones() {
    let _turn = one_at_a_time();
    let out = directory();
    let mut child = start(&CHAOS, out.path());
    wait_until_stopped(out.path());
    kill_process(Pid::from_child(&child), Signal::INT).expect("our child");
    let status = child.wait().expect("our child");
    assert_eq!(status.code(), Some(1));
    wait_until("a process stays", || processes_of(out.path()).is_empty());
    assert!(!out.path().join("test/data").exists());
}

#[test]
fn a_killed_chaos_leaves_no_process_behind_not_even_a_stopped_one() {
    let _turn = one_at_a_time();
    let out = directory();
    let mut child = start(&CHAOS, out.path());
    wait_until_stopped(out.path());
    child.kill().expect("our child");
    child.wait().expect("our child");
    wait_until("a process stays", || processes_of(out.path()).is_empty());
}

/// Even one whose disk is frozen at that moment, which nothing but a thaw lets end.
#[test]
fn a_killed_chaos_leaves_no_disk_behind_not_even_a_frozen_one() {
    let _turn = one_at_a_time();
    let out = directory();
    let asked = synod()
        .args([
            "chaos",
            "--faults",
            "frozen-disk",
            "--seconds",
            "5",
            "--out",
        ])
        .arg(out.path())
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    if said.contains("it takes root") || said.contains("loop devices") || said.contains("installed")
    {
        return println!("skipped: {said}");
    }
    let mut child = start(&CHAOS_ON_DISKS, out.path());
    let timeline = out.path().join("test");
    wait_until("no disk is ever frozen", || {
        // A file cannot be made on a frozen file system; one that is refused at once is not of that kind.
        timeline.join("data").exists() && frozen(out.path())
    });
    child.kill().expect("our child");
    child.wait().expect("our child");
    wait_until("a process stays", || processes_of(out.path()).is_empty());
    let mounts = std::fs::read_to_string("/proc/mounts").expect("proc is mounted");
    let out = out.path().to_str().expect("utf-8");
    assert!(!mounts.contains(out), "a disk stays mounted: {mounts}");
}

/// Whether a process of the experiment waits for its disk, uninterruptibly, now and a while later.
fn frozen(out: &Path) -> bool {
    let waiting = || -> Vec<String> {
        let ids = processes_of(out).into_iter();
        ids.flat_map(|id| threads_of(&id))
            .filter(|stat| {
                let stat = std::fs::read_to_string(stat).unwrap_or_default();
                stat.contains(") D ")
            })
            .collect()
    };
    let before = waiting();
    std::thread::sleep(Duration::from_millis(100));
    waiting().iter().any(|thread| before.contains(thread))
}

fn threads_of(id: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    tasks
        .map(|task| format!("{}/stat", task.path().display()))
        .collect()
}

/// A guard of a program that knows nothing of it, and names `mark`. Waiting for the guard would close its stdin, which
/// is held apart therefore.
fn guard(directory: &Path, mark: &Path, script: &str) -> (Child, Option<ChildStdin>) {
    let mut guard = synod()
        .args(["probe", "guard", "--directory"])
        .arg(directory)
        .arg("--pid-file")
        .arg(directory.join("pid"))
        .args(["--", "sh", "-c", script])
        .arg(mark)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let stdin = guard.stdin.take();
    (guard, stdin)
}

#[test]
fn a_guarded_program_ends_with_its_guard_whatever_ends_that() {
    const ENDLESS: &str = "trap '' TERM; while :; do sleep 0.05; done";
    let directory = directory();
    let mark = directory.path().join("mark");
    let ways: [fn(&mut Child, &mut Option<ChildStdin>); 3] = [
        |_, stdin| drop(stdin.take()),
        |guard, _| guard.kill().expect("our child"),
        |guard, _| kill_process(Pid::from_child(guard), Signal::TERM).expect("our child"),
    ];
    for end in ways {
        let (mut guard, mut stdin) = guard(directory.path(), &mark, ENDLESS);
        wait_until("the program does not start", || {
            directory.path().join("pid").exists() && processes_of(&mark).len() == 2
        });
        end(&mut guard, &mut stdin);
        guard.wait().expect("our child");
        wait_until("the program stays", || processes_of(&mark).is_empty());
        std::fs::remove_file(directory.path().join("pid")).expect("it was written");
    }
    // It ends as the program does.
    let (mut guard, _stdin) = guard(directory.path(), &mark, "exit 7");
    assert_eq!(guard.wait().expect("our child").code(), Some(7));
}
