//! `synod client`: the key-value store of a running cluster.

pub mod arguments;
mod repl;

use std::io::IsTerminal;

use anyhow::Context;
use synod_engine::machine::kv::{KvCommand, KvReply};
use synod_transport::{Client, ClientConfig, ClientError};

use crate::certs::random_u64;
use crate::client::arguments::{ClientArguments, ClientCommand};
use crate::client_file;
use crate::failure::usage;
use crate::output::say;

pub fn run(arguments: &ClientArguments) -> anyhow::Result<()> {
    let config = client_file::resolve(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(async {
        let mut store = Store::open(config, &arguments.command).await?;
        let result = execute(&mut store, &arguments.command).await;
        store.client.close().await;
        result
    })
}

/// A cluster whose state machine is `kv`.
pub struct Store {
    client: Client,
    config: ClientConfig,
}

impl Store {
    /// How the replicas are can be asked without a leader, and leaves nothing in their log.
    async fn open(config: ClientConfig, command: &ClientCommand) -> anyhow::Result<Store> {
        let client = match command {
            ClientCommand::Status => Client::observe(config.clone())?,
            ClientCommand::Put { .. }
            | ClientCommand::Get { .. }
            | ClientCommand::Delete { .. }
            | ClientCommand::Cas { .. }
            | ClientCommand::Repl => Client::connect(config.clone()).await?,
        };
        Ok(Store { client, config })
    }

    async fn call(&mut self, command: KvCommand<'_>) -> anyhow::Result<KvReply> {
        let encoded = command
            .encode()
            .ok_or_else(|| usage("the key or a value is too long"))?;
        let answer = self.client.call(encoded).await;
        if let Err(ClientError::Session(_)) = answer {
            // What was refused for good stays refused; the commands after it deserve a session.
            self.config.seed = random_u64()?;
            self.client = Client::connect(self.config.clone()).await?;
        }
        match KvReply::decode(answer?) {
            Some(KvReply::Malformed) | None => {
                anyhow::bail!("the answer is not one of a kv store: does the cluster run `kv`?")
            }
            Some(reply) => Ok(reply),
        }
    }

    /// Every replica's counters, as lines.
    async fn status(&mut self) -> anyhow::Result<String> {
        let mut lines = String::new();
        for (id, _) in &self.config.replicas {
            match self.client.status(*id).await {
                Ok(counters) => {
                    for (name, value) in counters {
                        lines.push_str(&format!("replica {} {name} {value}\n", id.0));
                    }
                }
                Err(error) => lines.push_str(&format!("replica {}: {error}\n", id.0)),
            }
        }
        Ok(lines)
    }
}

async fn execute(store: &mut Store, command: &ClientCommand) -> anyhow::Result<()> {
    let request = match command {
        ClientCommand::Put { key, value } => KvCommand::Put {
            key: key.as_bytes(),
            value: value.as_bytes(),
        },
        ClientCommand::Get { key } => KvCommand::Get {
            key: key.as_bytes(),
        },
        ClientCommand::Delete { key } => KvCommand::Delete {
            key: key.as_bytes(),
        },
        ClientCommand::Cas {
            key,
            values,
            absent,
        } => cas(key, values, *absent)?,
        ClientCommand::Status => {
            return say!("{}", store.status().await?.trim_end());
        }
        ClientCommand::Repl => return repl::run(store).await,
    };
    let reply = store.call(request).await?;
    match reply {
        KvReply::NotFound => anyhow::bail!("no such key"),
        KvReply::Mismatch(None) => anyhow::bail!("not set: the key has no value"),
        KvReply::Mismatch(Some(value)) => anyhow::bail!("not set: the value is {}", show(&value)),
        KvReply::Done | KvReply::Value(_) | KvReply::Malformed | KvReply::Dropped => {
            say!("{}", describe(&reply))?
        }
    }
    Ok(())
}

fn cas<'a>(key: &'a str, values: &'a [String], absent: bool) -> anyhow::Result<KvCommand<'a>> {
    let (expected, value) = match (values, absent) {
        ([value], true) => (None, value),
        ([expected, value], false) => (Some(expected.as_bytes()), value),
        _ => return Err(usage("cas takes OLD and NEW, or --absent and NEW")),
    };
    Ok(KvCommand::Cas {
        key: key.as_bytes(),
        expected,
        value: value.as_bytes(),
    })
}

/// An answer as people read it.
fn describe(reply: &KvReply) -> String {
    match reply {
        KvReply::Done => "ok".into(),
        KvReply::Value(value) => show(value),
        KvReply::NotFound => "not found".into(),
        KvReply::Mismatch(None) => "not set: the key has no value".into(),
        KvReply::Mismatch(Some(value)) => format!("not set: the value is {}", show(value)),
        KvReply::Malformed => "malformed".into(),
        KvReply::Dropped => "executed, but the answer was too long to be kept".into(),
    }
}

/// As it is for a program; for a terminal without what would command it: whoever wrote the value may be anybody.
fn show(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    match std::io::stdout().is_terminal() {
        true => printable(&text),
        false => text.into_owned(),
    }
}

fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_value_commands_no_terminal() {
        assert_eq!(printable("a\tb\nc ä"), "a\tb\nc ä");
        assert_eq!(printable("\u{1b}[2J\r\u{9b}x"), "\\u{1b}[2J\\r\\u{9b}x");
    }
}
