//! The system's `ssh`, with the user's own configuration, agent and known hosts, over one connection per host.
//!
//! The connection is a control master (`ssh_config(5)`, ControlMaster): commands over it take milliseconds instead
//! of a handshake each. It ends by itself soon after its last use, even if we are killed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;
use tokio::process::Command;

use crate::cluster::answer::marked;
use crate::failure::one_line;

/// The exit code of `ssh` itself, whatever the command's would have been.
pub const FAILED: i32 = 255;
const CONNECT_S: u32 = 10;
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// A host that does not answer for the product of these is given up.
const ALIVE_INTERVAL_S: u32 = 2;
const ALIVE_COUNT: u32 = 4;
/// An unused connection ends after this long.
const PERSIST_S: u32 = 20;

/// A socket's path has 108 bytes, and `ssh` adds a name of 40 and, while it makes it, 17 more.
const CONTROL_FOLDER_BYTES_MAX: usize = 108 - 1 - 41 - 17;
/// What `tempfile` adds to a folder for temporary files.
const CONTROL_NAME_BYTES: usize = "/synod-ssh-123456".len();

/// What all connections of a command share.
pub struct Settings {
    config: Option<PathBuf>,
    /// A folder for the sockets of the masters, readable by us alone. It goes with this; a master that still ends
    /// removes nothing of anyone else's.
    control: TempDir,
    /// Who works here, for the folders on the hosts.
    pub who: String,
}

impl Settings {
    pub fn new(config: Option<&Path>, who: &str) -> anyhow::Result<Settings> {
        let base = control_base(&std::env::temp_dir());
        let control = tempfile::Builder::new()
            .prefix("synod-ssh-")
            .tempdir_in(&base)
            .with_context(|| format!("{}: no folder can be made there", base.display()))?;
        Ok(Settings {
            config: config.map(Path::to_owned),
            control,
            who: who.to_owned(),
        })
    }
}

/// The folder for temporary files, unless it is too long for a socket's path or has what `ssh` reads in its own way.
fn control_base(temporary: &Path) -> PathBuf {
    let plain = |text: &str| {
        text.len() + CONTROL_NAME_BYTES <= CONTROL_FOLDER_BYTES_MAX
            && !text.contains(|c: char| c.is_whitespace() || "%\"'\\$~".contains(c))
    };
    match temporary.to_str().is_some_and(plain) {
        true => temporary.to_owned(),
        false => PathBuf::from("/tmp"),
    }
}

pub struct Ssh {
    /// Every argument up to the host.
    arguments: Vec<String>,
    target: String,
    /// As people would name it.
    shown: String,
}

impl Ssh {
    pub fn new(
        settings: &Settings,
        target: &str,
        port: Option<u16>,
        user: Option<&str>,
        identity: Option<&Path>,
    ) -> Ssh {
        let mut arguments = Vec::new();
        let mut add =
            |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
        if let Some(config) = &settings.config {
            add(&["-F", &config.display().to_string()]);
        }
        // Otherwise it is what the user's configuration says of this host.
        if let Some(port) = port {
            add(&["-p", &port.to_string()]);
        }
        if let Some(user) = user {
            add(&["-l", user]);
        }
        if let Some(identity) = identity {
            add(&[
                "-i",
                &identity.display().to_string(),
                "-o",
                "IdentitiesOnly=yes",
            ]);
        }
        // Nobody is there to answer a question.
        add(&["-o", "BatchMode=yes", "-T"]);
        // No agent and no display for a host, and no forwarding of the user's that could fail, such as of a port in use.
        add(&["-a", "-x", "-o", "ClearAllForwardings=yes"]);
        add(&["-o", &format!("ConnectTimeout={CONNECT_S}")]);
        add(&["-o", &format!("ServerAliveInterval={ALIVE_INTERVAL_S}")]);
        add(&["-o", &format!("ServerAliveCountMax={ALIVE_COUNT}")]);
        let path = settings.control.path().join("%C");
        add(&["-o", &format!("ControlPath={}", path.display())]);
        Ssh {
            arguments,
            target: target.to_owned(),
            shown: {
                let user = user.map_or_else(String::new, |user| format!("{user}@"));
                let port = port.map_or_else(String::new, |port| format!(", port {port}"));
                format!("{user}{target}{port}")
            },
        }
    }

    /// Makes the connection that later commands go over.
    pub async fn open(&self) -> anyhow::Result<()> {
        let mut command = self.bare();
        command.args([
            "-o",
            "ControlMaster=yes",
            "-o",
            &format!("ControlPersist={PERSIST_S}"),
        ]);
        command.args(["-N", "-f", "--", &self.target]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command.kill_on_drop(true).process_group(0);
        let output = match tokio::time::timeout(CONNECT_MAX, command.output()).await {
            Ok(output) => output.context("`ssh` cannot be started: install openssh-client")?,
            Err(_) => anyhow::bail!(
                "no connection to {} within {} s",
                self.shown,
                CONNECT_MAX.as_secs()
            ),
        };
        if output.status.success() {
            return Ok(());
        }
        Err(self.explain(&output.stderr))
    }

    /// The port that it goes to, whoever says so.
    pub async fn port(&self) -> anyhow::Result<u16> {
        let mut command = self.bare();
        command.args(["-G", "--", &self.target]);
        let output = command.stdin(Stdio::null()).output().await?;
        let said = String::from_utf8_lossy(&output.stdout);
        let port = said.lines().find_map(|line| line.strip_prefix("port "));
        let port = port.and_then(|port| port.parse().ok());
        port.with_context(|| format!("`ssh -G` does not tell the port of {}", self.target))
    }

    /// `line` is given to the login shell of the host. What it prints comes behind the mark.
    pub fn command(&self, line: &str) -> Command {
        let mut command = self.bare();
        // Without a master a connection of its own still does the work.
        command.args(["-o", "ControlMaster=no", "--", &self.target, &marked(line)]);
        command
    }

    /// Ends the master.
    pub async fn close(&self) {
        let mut command = self.bare();
        command.args(["-O", "exit", "--", &self.target]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // A master that is gone already is fine.
        let _ = tokio::time::timeout(CONNECT_MAX, command.status()).await;
    }

    /// What `ssh` said, and what to do about it.
    pub fn explain(&self, stderr: &[u8]) -> anyhow::Error {
        let text = String::from_utf8_lossy(stderr);
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        let said = one_line(last.unwrap_or("ssh failed without a word"));
        let remedy = remedy(&text);
        anyhow::anyhow!("{} cannot be reached: {said}; {remedy}", self.shown)
    }

    fn bare(&self) -> Command {
        let mut command = Command::new("ssh");
        command.args(&self.arguments);
        command
    }
}

fn remedy(text: &str) -> &'static str {
    let has = |part: &str| text.contains(part);
    if has("Permission denied") {
        "its user accepts none of our keys: `ssh-copy-id` one there, or set ssh.user and ssh.identity"
    } else if has("Host key verification failed") || has("HOST IDENTIFICATION HAS CHANGED") {
        "its host key is not the known one: connect once by hand and compare it (known_hosts)"
    } else if has("Could not resolve") {
        "the name is not known: correct the address, or add it to /etc/hosts"
    } else if has("Connection refused") {
        "no sshd listens there: start it, or correct ssh.port"
    } else {
        "is it running, is the address right, does a firewall stand between?"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_a_short_and_plain_path() {
        let long = format!("/{}", "x".repeat(60));
        for (temporary, expected) in [
            ("/tmp", "/tmp"),
            ("/var/tmp", "/var/tmp"),
            ("/home/some one/tmp", "/tmp"),
            ("/tmp/100%", "/tmp"),
            (long.as_str(), "/tmp"),
        ] {
            assert_eq!(control_base(Path::new(temporary)), Path::new(expected));
        }
    }

    #[test]
    fn a_port_is_told_to_ssh_only_if_it_was_told_to_us() {
        let settings = Settings::new(None, "me").unwrap();
        let ssh = Ssh::new(&settings, "db1", None, None, None);
        let words: Vec<&str> = ssh.arguments.iter().map(String::as_str).collect();
        assert!(
            !words.contains(&"-p") && !words.contains(&"-l"),
            "{words:?}"
        );
        assert!(words.contains(&"ClearAllForwardings=yes") && words.contains(&"-a"));
        assert_eq!(ssh.shown, "db1");
        let ssh = Ssh::new(&settings, "db1", Some(2222), None, None);
        assert!(ssh.arguments.windows(2).any(|two| two == ["-p", "2222"]));
    }

    #[test]
    fn what_ssh_says_gets_a_remedy() {
        let settings = Settings::new(None, "me").unwrap();
        let ssh = Ssh::new(&settings, "db1", Some(22), Some("bench"), None);
        let cases = [
            (
                "bench@db1: Permission denied (publickey).\r\n",
                "ssh-copy-id",
            ),
            (
                "ssh: connect to host db1 port 22: Connection refused\n",
                "start it",
            ),
            ("@@@\nHost key verification failed.\r\n", "known_hosts"),
            ("", "firewall"),
        ];
        for (said, expected) in cases {
            let error = ssh.explain(said.as_bytes()).to_string();
            assert!(error.contains(expected), "{error} lacks {expected}");
            assert!(error.starts_with("bench@db1, port 22"), "{error}");
            assert!(!error.contains('\n'));
        }
    }
}
