//! `synod probe start`: starts a program that outlives the connection, and waits for its ready line.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::output::say;
use crate::probe::arguments::StartArguments;
use crate::probe::pid_file::PidFile;
use crate::run::layout::last_line;

/// A replica that recovers a long WAL takes its time.
const READY_MAX: Duration = Duration::from_secs(60);
/// Until the program has its process id in the file.
const STARTED_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// Prints the ready line.
pub fn run(arguments: &StartArguments) -> anyhow::Result<()> {
    if let Some(before) = PidFile::read(&arguments.pid_file)? {
        anyhow::ensure!(
            !before.is_running()?,
            "it runs already, as process {}",
            before.pid
        );
        std::fs::remove_file(&arguments.pid_file).context("the file of the last process stays")?;
    }
    // A ready line of an earlier life must not be taken for one of this life.
    let out = File::create(&arguments.out)
        .with_context(|| format!("{}: cannot be written", arguments.out.display()))?;
    let log = File::options()
        .create(true)
        .append(true)
        .open(&arguments.log)
        .with_context(|| format!("{}: cannot be opened", arguments.log.display()))?;
    match Systemd::find() {
        Some(systemd) => systemd.start(arguments)?,
        None => spawn(arguments, out, log)?,
    }
    say!("{}", wait_ready(arguments)?)
}

fn exec_words(arguments: &StartArguments, extra: &[&str]) -> anyhow::Result<Vec<String>> {
    let executable = std::env::current_exe().context("this executable has no path")?;
    let mut words = vec![
        executable.display().to_string(),
        "probe".into(),
        "exec".into(),
    ];
    words.extend([
        "--pid-file".into(),
        arguments.pid_file.display().to_string(),
    ]);
    if let Some(cpus) = &arguments.cpus {
        words.extend(["--cpus".into(), cpus.to_string()]);
    }
    words.extend(extra.iter().map(|word| (*word).to_owned()));
    words.push("--".into());
    words.extend(arguments.program.iter().cloned());
    Ok(words)
}

fn spawn(arguments: &StartArguments, out: File, log: File) -> anyhow::Result<()> {
    let words = exec_words(arguments, &["--detach"])?;
    Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(log)
        .spawn()
        .with_context(|| format!("{} cannot be started", words[0]))?;
    // Its parent, this process, ends first: whoever adopts it waits for it.
    Ok(())
}

/// Where a manager takes care of processes that outlive a session, they belong to it.
struct Systemd {
    user: bool,
}

impl Systemd {
    fn find() -> Option<Systemd> {
        if !Path::new("/run/systemd/system").is_dir() {
            return None;
        }
        if rustix::process::geteuid().is_root() {
            return Some(Systemd { user: false });
        }
        // Without lingering, a user's manager ends with the user's last session, and all units with it.
        let user = std::env::var("USER").ok()?;
        let lingers = Path::new("/var/lib/systemd/linger").join(user).exists();
        lingers.then_some(Systemd { user: true })
    }

    fn start(&self, arguments: &StartArguments) -> anyhow::Result<()> {
        let words = exec_words(arguments, &["--unit", &arguments.unit])?;
        let mut command = Command::new("systemd-run");
        if self.user {
            command.arg("--user");
        }
        command
            .args([
                "--collect",
                "--quiet",
                "--unit",
                &arguments.unit,
                "--property",
            ])
            .arg(format!("StandardOutput=append:{}", arguments.out.display()))
            .arg("--property")
            .arg(format!("StandardError=append:{}", arguments.log.display()))
            // Files and locked memory as a benchmark needs them, not as a desktop does.
            .args([
                "--property",
                "LimitNOFILE=65536",
                "--property",
                "LimitMEMLOCK=infinity",
                "--",
            ])
            .args(words.iter().map(|word| literal(word)))
            .stdin(Stdio::null());
        let output = command.output().context("systemd-run cannot be started")?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(
            output.status.success(),
            "systemd-run failed: {}",
            said.trim()
        );
        Ok(())
    }
}

/// systemd puts variables in the place of `$NAME` in the words of a command; `$$` is one `$`.
fn literal(word: &str) -> String {
    word.replace('$', "$$")
}

fn wait_ready(arguments: &StartArguments) -> anyhow::Result<String> {
    let started = Instant::now();
    loop {
        let out = std::fs::read_to_string(&arguments.out).unwrap_or_default();
        // Only a whole line is one.
        let line = out
            .split_inclusive('\n')
            .find(|line| line.starts_with("ready ") && line.ends_with('\n'));
        if let Some(line) = line {
            return Ok(line.trim_end().to_owned());
        }
        let ended = match PidFile::read(&arguments.pid_file) {
            Ok(Some(process)) => !process.is_running()?,
            // Not written yet, or only in part.
            Ok(None) | Err(_) => started.elapsed() > STARTED_MAX,
        };
        anyhow::ensure!(!ended, "it ended: {}", last_line(&arguments.log));
        let waited = READY_MAX.as_secs();
        anyhow::ensure!(
            started.elapsed() < READY_MAX,
            "it is not ready after {waited} s"
        );
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::literal;

    #[test]
    fn a_path_with_a_dollar_stays_as_it_is() {
        assert_eq!(literal("/data/$HOME/${x}"), "/data/$$HOME/$${x}");
        assert_eq!(literal("/data/x"), "/data/x");
    }
}
