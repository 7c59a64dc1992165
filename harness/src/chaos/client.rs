//! One client of the load: one operation at a time, at a moderate pace, each with its times and its reply written
//! down. When a reply does not come, the outcome is unknown: the session is given up, and another one goes on as a
//! new process, as a restarted client would.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use synod_engine::machine::kv::{KvCommand, KvReply};
use synod_simulator::linearizability::{Action, Operation, Reply, Returned};
use synod_transport::{Client, ClientConfig, ClientCounters, ClientError};
use tokio::time::sleep;

use super::history::{Stamp, text_of};
use super::random::Random;
use super::shared::Shared;
use crate::verify::ClientAccount;

/// An operation without a reply for this long has an unknown outcome. Longer than an election, shorter than the
/// longest partition.
pub const DEADLINE: Duration = Duration::from_millis(2_500);
/// Between a reply and the next operation, on average.
const PAUSE_US: u64 = 8_000;
/// Before the next attempt to open a session.
const RECONNECT_AFTER: Duration = Duration::from_millis(50);
/// Clients that share keys, so that the history of a key stays decidable.
pub const CLIENTS_OF_A_KEY: u32 = 8;
/// Most operations go to these few keys.
const HOT_KEYS: u64 = 4;
const HOT_PERCENT: u64 = 75;
const KEYS: u64 = 16;
/// Keys are used for so long; then come new ones, so that operations of unknown outcome don't pile up on them.
const KEYS_LAST_MS: u64 = 30_000;

pub struct LoadClient {
    index: u32,
    config: ClientConfig,
    random: Random,
    shared: Rc<Shared>,
    /// What was last seen of a key.
    seen: HashMap<String, Option<String>>,
    end: ClientEnd,
}

/// The books of one client.
#[derive(Default)]
pub struct ClientEnd {
    /// One account per session.
    pub accounts: Vec<ClientAccount>,
    pub counters: ClientCounters,
    /// When the last reply came.
    pub last_reply_ns: u64,
}

/// A session while it lasts.
struct Session {
    client: Client,
    process: u64,
    /// Stamped commands: how many were submitted, and how many of them answered.
    submitted: u64,
    answered: u64,
}

/// How a call ended.
enum Answer {
    Known(Reply),
    /// Executed or not, and the session is of no more use.
    Unknown,
}

impl LoadClient {
    pub fn new(index: u32, config: ClientConfig, seed: u64, shared: Rc<Shared>) -> LoadClient {
        let mut config = config;
        config.deadline = DEADLINE;
        config.outstanding_max = 1;
        LoadClient {
            index,
            config,
            random: Random::new(seed, 100 + u64::from(index)),
            shared,
            seen: HashMap::new(),
            end: ClientEnd::default(),
        }
    }

    /// Runs until the load is over and the last reply has come or will not come.
    pub async fn run(mut self) -> anyhow::Result<ClientEnd> {
        while !self.shared.over() {
            let Some(session) = self.connect().await? else {
                break;
            };
            self.use_up(session).await?;
        }
        Ok(self.end)
    }

    /// Opens a session; `None` if the load is over before there is one.
    async fn connect(&mut self) -> anyhow::Result<Option<Session>> {
        while !self.shared.over() {
            self.config.seed = crate::certs::random_u64()?;
            match Client::connect(self.config.clone()).await {
                Ok(client) => {
                    return Ok(Some(Session {
                        client,
                        process: self.shared.next_process(),
                        submitted: 0,
                        answered: 0,
                    }));
                }
                // The cluster may be down as a whole.
                Err(ClientError::Connect { .. }) => sleep(RECONNECT_AFTER).await,
                Err(error) => return Err(error).context("a client cannot start"),
            }
        }
        Ok(None)
    }

    /// Uses a session until an outcome is unknown or the load is over.
    async fn use_up(&mut self, mut session: Session) -> anyhow::Result<()> {
        while !self.shared.over() {
            sleep(Duration::from_micros(self.random.below(2 * PAUSE_US))).await;
            let (key, action) = self.draw(&mut session);
            let at = self.note_invocation(session.process, &key, action.clone());
            match self.call(&mut session, &key, &action).await? {
                Answer::Known(reply) => self.note_reply(at, key, &action, reply),
                Answer::Unknown => break,
            }
        }
        self.end.accounts.push(ClientAccount {
            tag: session.process,
            submitted: session.submitted,
            acknowledged: session.answered,
            // Reads and deletions are numbered as well, and carry no stamp.
            session: None,
        });
        add(&mut self.end.counters, session.client.counters());
        session.client.close().await;
        Ok(())
    }

    fn draw(&mut self, session: &mut Session) -> (String, Action) {
        let key = match self.random.percent(HOT_PERCENT) {
            true => self.random.below(HOT_KEYS),
            false => self.random.within(HOT_KEYS..KEYS),
        };
        let group = self.index / CLIENTS_OF_A_KEY;
        let age = self.shared.now_ms() / KEYS_LAST_MS;
        let key = format!("k{group}.{age}.{key}");
        let kind = self.random.below(100);
        let mut next_value = || {
            session.submitted += 1;
            let stamp = Stamp {
                process: session.process,
                number: session.submitted,
            };
            stamp.text().into_bytes()
        };
        let action = match kind {
            0..40 => Action::Get,
            40..65 => Action::Put {
                value: next_value(),
            },
            65..90 => Action::Cas {
                expected: self
                    .seen
                    .get(&key)
                    .cloned()
                    .flatten()
                    .map(String::into_bytes),
                value: next_value(),
            },
            _ => Action::Delete,
        };
        (key, action)
    }

    async fn call(
        &self,
        session: &mut Session,
        key: &str,
        action: &Action,
    ) -> anyhow::Result<Answer> {
        let command = encode(key, action).context("a command of this load is malformed")?;
        let reply = match session.client.call(command).await {
            Ok(reply) => reply,
            Err(
                ClientError::Timeout { .. }
                | ClientError::ReplyGone { .. }
                | ClientError::Session(_),
            ) => {
                return Ok(Answer::Unknown);
            }
            Err(error) => return Err(error).context("a client failed"),
        };
        session.answered = session.submitted;
        let reply = KvReply::decode(reply).context("a reply is none of a kv store")?;
        Ok(match reply {
            KvReply::Done => Answer::Known(Reply::Done),
            KvReply::Value(value) => Answer::Known(Reply::Value(text_of(&value))),
            KvReply::NotFound => Answer::Known(Reply::NotFound),
            KvReply::Mismatch(actual) => {
                Answer::Known(Reply::Mismatch(actual.map(|value| text_of(&value))))
            }
            KvReply::Malformed => anyhow::bail!("a replica calls a command of this load malformed"),
            // Executed, but what it gave is lost.
            KvReply::Dropped => Answer::Unknown,
        })
    }

    fn note_invocation(&self, process: u64, key: &str, action: Action) -> usize {
        let mut history = self.shared.history.borrow_mut();
        history.push(Operation {
            client: process,
            key: key.as_bytes().to_vec(),
            action,
            invoked_ns: self.shared.now_ns(),
            returned: None,
        });
        history.len() - 1
    }

    fn note_reply(&mut self, at: usize, key: String, action: &Action, reply: Reply) {
        let at_ns = self.shared.now_ns();
        self.end.last_reply_ns = at_ns;
        self.shared
            .acknowledged
            .set(self.shared.acknowledged.get() + 1);
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let seen = match (&reply, action) {
            (Reply::Done, Action::Put { value } | Action::Cas { value, .. }) => Some(text(value)),
            (Reply::Value(value) | Reply::Mismatch(Some(value)), _) => Some(text(value)),
            (Reply::Done | Reply::NotFound | Reply::Mismatch(None), _) => None,
        };
        self.seen.insert(key, seen);
        self.shared.history.borrow_mut()[at].returned = Some(Returned { at_ns, reply });
    }
}

/// On the wire, values are stamps, which the check of the disks can read.
fn encode(key: &str, action: &Action) -> Option<Bytes> {
    let key = key.as_bytes();
    let stamp = |text: &[u8]| Some(Stamp::parse(text)?.bytes());
    match action {
        Action::Get => KvCommand::Get { key }.encode(),
        Action::Delete => KvCommand::Delete { key }.encode(),
        Action::Put { value } => {
            let value = &stamp(value)?;
            KvCommand::Put { key, value }.encode()
        }
        Action::Cas { expected, value } => {
            let expected = match expected {
                Some(expected) => Some(stamp(expected)?),
                None => None,
            };
            let command = KvCommand::Cas {
                key,
                expected: expected.as_ref().map(|bytes| &bytes[..]),
                value: &stamp(value)?,
            };
            command.encode()
        }
    }
}

fn add(sum: &mut ClientCounters, more: ClientCounters) {
    let ClientCounters {
        retries,
        redirects,
        resent,
        busy,
        timed_out,
        reconnects,
    } = more;
    sum.retries += retries;
    sum.redirects += redirects;
    sum.resent += resent;
    sum.busy += busy;
    sum.timed_out += timed_out;
    sum.reconnects += reconnects;
}
