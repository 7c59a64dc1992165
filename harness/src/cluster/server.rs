//! A running `synod probe serve` of a host: questions go there, answers come back.

use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::cluster::answer::skip_to_mark;
use crate::cluster::folder::Folder;
use crate::cluster::host::complaint;
use crate::probe::facts::Facts;
use crate::probe::protocol::{Answer, Question, RoundTrips};

/// A disk that hangs answers late.
const ANSWER_MAX: Duration = Duration::from_secs(60);
const CLOCK_EXCHANGES: usize = 8;

pub struct Server {
    name: String,
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    /// Ports of the host that somebody else has.
    pub taken: Vec<u16>,
}

/// How far a host's clock is ahead of ours, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClockOffset {
    pub offset_ms: f64,
    /// Half of the quickest exchange: the truth is within this of it.
    pub uncertainty_ms: f64,
}

impl Server {
    /// `executable` is on the host.
    pub async fn start(folder: &Folder, executable: &str, token: u64) -> anyhow::Result<Server> {
        let entry = &folder.host.entry;
        let ports: Vec<String> = entry.ports.iter().map(u16::to_string).collect();
        let (address, token) = (entry.listen.to_string(), token.to_string());
        let ports = ports.join(",");
        let mut words = vec![
            executable,
            "probe",
            "serve",
            "--data",
            folder.path(),
            "--address",
            &address,
        ];
        words.extend(["--ports", &ports, "--token", &token]);
        if let Some(interface) = &entry.interface {
            words.extend(["--interface", interface]);
        }
        let mut child = folder
            .host
            .command(&words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("host {}: nothing can be asked", entry.name))?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut stdout = BufReader::new(stdout);
        if folder.host.is_marked() {
            // Without a mark it ended, and its last words are asked for below.
            let skipped = tokio::time::timeout(ANSWER_MAX, skip_to_mark(&mut stdout)).await;
            skipped.with_context(|| format!("host {}: no answer", entry.name))??;
        }
        let mut server = Server {
            name: entry.name.clone(),
            child,
            stdin,
            stdout: stdout.lines(),
            taken: Vec::new(),
        };
        match server.answer().await? {
            Answer::Ready { taken } => server.taken = taken,
            answer => return Err(server.surprise(&answer)),
        }
        Ok(server)
    }

    /// Waits until it has ended: its ports are free again.
    pub async fn end(mut self) -> anyhow::Result<()> {
        drop(self.stdin);
        let ended = tokio::time::timeout(ANSWER_MAX, self.child.wait()).await;
        ended.with_context(|| format!("host {}: the probe does not end", self.name))??;
        Ok(())
    }

    pub async fn facts(&mut self) -> anyhow::Result<Facts> {
        match self.ask(&Question::Facts).await? {
            Answer::Facts(facts) => Ok(*facts),
            answer => Err(self.surprise(&answer)),
        }
    }

    pub async fn ping(
        &mut self,
        targets: Vec<std::net::SocketAddr>,
        count: u32,
    ) -> anyhow::Result<Vec<RoundTrips>> {
        match self.ask(&Question::Ping { targets, count }).await? {
            Answer::Ping { paths } => Ok(paths),
            answer => Err(self.surprise(&answer)),
        }
    }

    /// As in NTP: the clock there was read in the middle of the exchange, give or take half of it.
    pub async fn clock(&mut self) -> anyhow::Result<ClockOffset> {
        let mut best: Option<ClockOffset> = None;
        for _ in 0..CLOCK_EXCHANGES {
            let before = unix_ms()?;
            let answer = self.ask(&Question::Clock).await?;
            let after = unix_ms()?;
            let Answer::Clock { unix_ns } = answer else {
                return Err(self.surprise(&answer));
            };
            let offset = ClockOffset {
                offset_ms: unix_ns as f64 / 1e6 - (before + after) / 2.0,
                uncertainty_ms: (after - before) / 2.0,
            };
            if best.is_none_or(|best| offset.uncertainty_ms < best.uncertainty_ms) {
                best = Some(offset);
            }
        }
        best.context("no exchange")
    }

    async fn ask(&mut self, question: &Question) -> anyhow::Result<Answer> {
        let mut line = serde_json::to_string(question)?;
        line.push('\n');
        // If it ended, its last words say more than this write.
        let _ = self.stdin.write_all(line.as_bytes()).await;
        self.answer().await
    }

    async fn answer(&mut self) -> anyhow::Result<Answer> {
        let name = &self.name;
        let line = tokio::time::timeout(ANSWER_MAX, self.stdout.next_line()).await;
        let line = line
            .with_context(|| format!("host {name}: no answer within {} s", ANSWER_MAX.as_secs()))?;
        match line.with_context(|| format!("host {name}: no answer"))? {
            Some(line) => serde_json::from_str(&line).with_context(|| {
                format!("host {name}: `{line}` is no answer; is another version there?")
            }),
            None => Err(self.last_words().await),
        }
    }

    async fn last_words(&mut self) -> anyhow::Error {
        let mut text = Vec::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = tokio::time::timeout(ANSWER_MAX, stderr.read_to_end(&mut text)).await;
        }
        let said = complaint(&text);
        match said.is_empty() {
            true => anyhow::anyhow!("host {}: the connection ended", self.name),
            false => anyhow::anyhow!("host {}: {said}", self.name),
        }
    }

    fn surprise(&self, answer: &Answer) -> anyhow::Error {
        anyhow::anyhow!(
            "host {}: an answer to another question: {answer:?}",
            self.name
        )
    }
}

fn unix_ms() -> anyhow::Result<f64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(now.context("the clock is before 1970")?.as_secs_f64() * 1e3)
}
