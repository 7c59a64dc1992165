//! `synod probe serve`: answers questions about this host, and round trips, until stdin closes.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tokio::net::UdpSocket;

use crate::input;
use crate::output::say;
use crate::probe::arguments::ServeArguments;
use crate::probe::echo;
use crate::probe::facts::Facts;
use crate::probe::protocol::{Answer, Question};

pub fn run(arguments: &ServeArguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: &ServeArguments) -> anyhow::Result<()> {
    let mut taken = Vec::new();
    for port in &arguments.ports {
        match UdpSocket::bind(SocketAddr::new(arguments.address, *port)).await {
            Ok(socket) => {
                tokio::spawn(echo::answer(socket, arguments.token));
            }
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => taken.push(*port),
            Err(error) => {
                let address = arguments.address;
                return Err(error)
                    .with_context(|| format!("address {address} is not one of this host"));
            }
        }
    }
    tell(&Answer::Ready { taken })?;
    let mut lines = input::lines();
    while let Some(line) = lines.recv().await {
        let question =
            serde_json::from_str(&line).with_context(|| format!("`{line}` is no question"))?;
        tell(&answer(arguments, question).await?)?;
    }
    Ok(())
}

async fn answer(arguments: &ServeArguments, question: Question) -> anyhow::Result<Answer> {
    match question {
        Question::Clock => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let unix_ns = now.context("the clock is before 1970")?.as_nanos() as u64;
            Ok(Answer::Clock { unix_ns })
        }
        Question::Facts => {
            let facts = Facts::look(
                &arguments.data,
                arguments.address,
                arguments.interface.as_deref(),
            )?;
            Ok(Answer::Facts(Box::new(facts)))
        }
        Question::Ping { targets, count } => {
            let mut paths = Vec::new();
            for target in targets {
                paths.push(echo::ping(target, arguments.token, count).await?);
            }
            Ok(Answer::Ping { paths })
        }
    }
}

fn tell(answer: &Answer) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string(answer)?)
}
