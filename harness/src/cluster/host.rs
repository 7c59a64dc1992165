//! A machine that commands are run on: this one, or another over the system's own `ssh`.
//!
//! Everything is built from one thing: a command with pipes. Files go through the pipes as well, so a host needs
//! `sshd`, a POSIX shell and nothing else.

use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncWrite, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::cluster::answer::{behind_mark, skip_to_mark};
use crate::cluster::inventory::{Connection, HostEntry};
use crate::cluster::ssh::{self, Ssh};
use crate::failure::one_line;

/// Far beyond what any short command takes.
const COMMAND_MAX: Duration = Duration::from_secs(90);
/// A slow line carries the executable in this time.
const COPY_MAX: Duration = Duration::from_secs(900);
const CARRY_BYTES: usize = 256 << 10;
/// Of what a host says about a failure.
const COMPLAINT_CHARS_MAX: usize = 400;

pub struct Host {
    pub entry: HostEntry,
    /// Held while a folder of ours is made, or removed since that was for nothing.
    pub making: Arc<Mutex<()>>,
    /// Who we are, for the folders that we make.
    pub who: String,
    way: Way,
}

enum Way {
    Local,
    Ssh(Ssh),
}

impl Host {
    /// Reaches the host once, so that a wrong address or key is known before anything is done.
    pub async fn connect(entry: HostEntry, settings: &ssh::Settings) -> anyhow::Result<Host> {
        let way = match &entry.connection {
            Connection::Local => Way::Local,
            Connection::Ssh {
                target,
                port,
                user,
                identity,
            } => {
                let ssh = Ssh::new(
                    settings,
                    target,
                    *port,
                    user.as_deref(),
                    identity.as_deref(),
                );
                ssh.open()
                    .await
                    .map_err(|error| anyhow::anyhow!("host {}: {error:#}", entry.name))?;
                Way::Ssh(ssh)
            }
        };
        Ok(Host {
            entry,
            making: Arc::default(),
            who: settings.who.clone(),
            way,
        })
    }

    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// Whether what a command of the host prints begins with noise and a mark.
    pub fn is_marked(&self) -> bool {
        matches!(self.way, Way::Ssh(_))
    }

    /// Where its sshd listens; `None` of this machine.
    pub async fn ssh_port(&self) -> anyhow::Result<Option<u16>> {
        match &self.way {
            Way::Local => Ok(None),
            Way::Ssh(ssh) => ssh.port().await.map(Some),
        }
    }

    /// A command of the host, words as they are, killed when its handle is dropped. See [`Host::is_marked`].
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = match &self.way {
            Way::Local => {
                let mut command = Command::new(words[0]);
                command.args(&words[1..]);
                command
            }
            Way::Ssh(ssh) => ssh.command(&quoted(words)),
        };
        // A ctrl-C in the terminal is ours to handle, in our order.
        command.kill_on_drop(true).process_group(0);
        command
    }

    /// Runs a short command to its end and returns what it printed; it fails if the command does.
    pub async fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = self.output(words).await?;
        self.succeeded(words, &output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a short command to its end, whatever that is.
    pub async fn output(&self, words: &[&str]) -> anyhow::Result<Output> {
        self.finish(words, self.command(words).stdin(Stdio::null()), COMMAND_MAX)
            .await
    }

    /// A POSIX shell script; `$0` and on are `words`.
    pub async fn script(&self, script: &str, words: &[&str]) -> anyhow::Result<String> {
        let mut all = vec!["sh", "-c", script];
        all.extend_from_slice(words);
        self.run(&all).await
    }

    async fn finish(
        &self,
        words: &[&str],
        command: &mut Command,
        max: Duration,
    ) -> anyhow::Result<Output> {
        let name = self.name();
        let output = match tokio::time::timeout(max, command.output()).await {
            Ok(output) => {
                output.with_context(|| format!("host {name}: `{}` does not start", words[0]))?
            }
            Err(_) => anyhow::bail!(
                "host {name}: `{}` does not end within {} s",
                words[0],
                max.as_secs()
            ),
        };
        match &self.way {
            Way::Ssh(ssh) if output.status.code() == Some(ssh::FAILED) => {
                let error = ssh.explain(&output.stderr);
                Err(anyhow::anyhow!("host {name}: {error:#}"))
            }
            Way::Ssh(_) => {
                let answer = behind_mark(&output.stdout).map(<[u8]>::to_vec);
                let stdout = answer.with_context(|| no_mark(name, &output.stdout))?;
                Ok(Output { stdout, ..output })
            }
            Way::Local => Ok(output),
        }
    }

    fn succeeded(&self, words: &[&str], output: &Output) -> anyhow::Result<()> {
        let complaint = complaint(&output.stderr);
        let what = match complaint.is_empty() {
            true => format!(
                "`{}` failed ({})",
                one_line(&words.join(" ")),
                output.status
            ),
            false => complaint,
        };
        anyhow::ensure!(output.status.success(), "host {}: {what}", self.name());
        Ok(())
    }

    /// Makes `to` with the contents of a file of this machine. It appears under its name when it is whole.
    pub async fn put(&self, from: &Path, to: &str, mode: &str) -> anyhow::Result<()> {
        let open = || {
            let file = std::fs::File::open(from)?;
            let length = file.metadata()?.len();
            Ok::<_, std::io::Error>((file, length.to_string()))
        };
        let (file, length) =
            open().with_context(|| format!("{}: cannot be read", from.display()))?;
        let words = put_words(to, mode, &length);
        let output = self
            .finish(&words, self.command(&words).stdin(file), COPY_MAX)
            .await?;
        self.copied(to, &output)
    }

    /// Makes `to` with these contents.
    pub async fn put_text(&self, text: &str, to: &str, mode: &str) -> anyhow::Result<()> {
        let length = text.len().to_string();
        let words = put_words(to, mode, &length);
        let mut command = self.command(&words);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("host {}: nothing can be copied", self.name()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A shell that ended early says why on stderr.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        let output = tokio::time::timeout(COMMAND_MAX, child.wait_with_output())
            .await
            .with_context(|| format!("host {}: copying {to} takes too long", self.name()))??;
        self.copied(to, &output)
    }

    fn copied(&self, to: &str, output: &Output) -> anyhow::Result<()> {
        if output.status.success() {
            return Ok(());
        }
        let complaint = complaint(&output.stderr);
        let remedy = match complaint.contains("No space left") {
            true => "; free space there, or choose another `data` directory",
            false => "",
        };
        anyhow::bail!(
            "host {}: {to} cannot be written: {complaint}{remedy}",
            self.name()
        )
    }

    /// Copies a file of the host into a file of this machine.
    pub async fn fetch(&self, from: &str, to: &Path) -> anyhow::Result<()> {
        let unwritten = || format!("{}: cannot be written", to.display());
        let file = std::fs::File::create(to).with_context(unwritten)?;
        let words = ["cat", "--", from];
        let carried = self.carry(&words, Whole(file));
        let output = tokio::time::timeout(COPY_MAX, carried)
            .await
            .with_context(|| format!("host {}: fetching {from} takes too long", self.name()))??;
        self.succeeded(&words, &output)
    }

    /// Runs a command to its end and hands on what it prints, without the noise in front.
    pub async fn carry(
        &self,
        words: &[&str],
        mut to: impl AsyncWrite + Unpin,
    ) -> anyhow::Result<Output> {
        let name = self.name();
        let mut command = self.command(words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("host {name}: nothing can be fetched"))?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut stdout = BufReader::with_capacity(CARRY_BYTES, stdout);
        let carrying = async {
            if self.is_marked() {
                skip_to_mark(&mut stdout).await?;
            }
            let copied = tokio::io::copy_buf(&mut stdout, &mut to).await;
            // Who reads it may have ended early, and says why.
            drop(stdout);
            to.shutdown().await.ok();
            drop(to);
            match copied {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                copied => copied.map(|_| ()),
            }
        };
        // What it complains about is read meanwhile, or it might wait for us.
        let (carried, output) = tokio::join!(carrying, child.wait_with_output());
        carried.with_context(|| format!("host {name}: nothing can be fetched"))?;
        Ok(output?)
    }

    /// Ends what was kept open to the host.
    pub async fn close(&self) {
        match &self.way {
            Way::Local => {}
            Way::Ssh(ssh) => ssh.close().await,
        }
    }
}

/// A file of this machine, which takes what it is given at once.
struct Whole(std::fs::File);

impl AsyncWrite for Whole {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Nothing but noise, or not even that.
fn no_mark(name: &str, stdout: &[u8]) -> String {
    let said = complaint(stdout);
    format!(
        "host {name}: its login shell does not run commands (it prints `{said}`): is it sh, bash, zsh, fish or tcsh?"
    )
}

/// Reads stdin into a file. Nothing is left of a copy that failed or that ended early, because we were interrupted.
fn put_words<'a>(to: &'a str, mode: &'a str, length: &'a str) -> [&'a str; 6] {
    const SCRIPT: &str = "umask 077; if cat > \"$0.part\" && [ \"$(wc -c < \"$0.part\")\" -eq \"$2\" ] && \
         chmod \"$1\" \"$0.part\" && mv -f \"$0.part\" \"$0\"; then :; else rm -f \"$0.part\"; exit 1; fi";
    ["sh", "-c", SCRIPT, to, mode, length]
}

/// What a failed command said, in one bounded line.
pub fn complaint(stderr: &[u8]) -> String {
    let text = one_line(&String::from_utf8_lossy(stderr));
    let text = text.strip_prefix("synod: ").unwrap_or(&text);
    text.chars().take(COMPLAINT_CHARS_MAX).collect()
}

/// Words as a POSIX shell reads them back.
pub fn quoted(words: &[&str]) -> String {
    let quote = |word: &&str| {
        let plain = !word.is_empty()
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c));
        match plain {
            true => (*word).to_owned(),
            false => format!("'{}'", word.replace('\'', "'\\''")),
        }
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::inventory::Inventory;

    #[test]
    fn a_shell_reads_the_words_back() {
        let words = [
            "printf", "%s|", "a b", "it's", "", "$HOME", "`x`", "a\nb", "*",
        ];
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(quoted(&words))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text, "a b|it's||$HOME|`x`|a\nb|*|");
    }

    fn here(directory: &Path) -> HostEntry {
        let path = directory.join("cluster.toml");
        let text = format!(
            "[[host]]\nname = \"here\"\naddress = \"127.0.0.1\"\nconnection = \"local\"\nroles = [\"replica\"]\n\
             data = \"{}\"\n",
            directory.display()
        );
        std::fs::write(&path, text).unwrap();
        Inventory::read(&path).unwrap().hosts.remove(0)
    }

    #[tokio::test]
    async fn files_go_there_and_back_and_a_failed_copy_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let settings = ssh::Settings::new(None, "me").unwrap();
        let host = Host::connect(here(directory.path()), &settings)
            .await
            .unwrap();
        let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        host.put_text("some text", &at("it's one"), "600")
            .await
            .unwrap();
        host.fetch(&at("it's one"), &directory.path().join("back"))
            .await
            .unwrap();
        assert_eq!(std::fs::read_to_string(at("back")).unwrap(), "some text");
        host.put(&directory.path().join("back"), &at("two"), "700")
            .await
            .unwrap();
        assert_eq!(host.run(&["cat", &at("two")]).await.unwrap(), "some text");
        let error = host
            .put_text("x", &at("none/three"), "600")
            .await
            .unwrap_err();
        assert!(format!("{error:#}").starts_with("host here: "), "{error:#}");
        // A full device, which every Linux has.
        std::os::unix::fs::symlink("/dev/full", directory.path().join("full.part")).unwrap();
        let error = host.put_text("x", &at("full"), "600").await.unwrap_err();
        assert!(format!("{error:#}").contains("free space"), "{error:#}");
        assert!(!directory.path().join("full").exists());
    }
}
