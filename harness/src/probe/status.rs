//! `synod probe status`: asks a replica of this host how it is, from here: a host that is cut off still answers.

use std::time::Duration;

use anyhow::Context;
use rustix::process::Pid;
use synod_transport::Client;

use crate::client_file::{self, ClientFile, client_config, replica_id};
use crate::probe::arguments::StatusArguments;
use crate::probe::pid_file::PidFile;
use crate::probe::protocol::ReplicaState;
use crate::run::usage::Usage;
use crate::toml_file;

/// Replies may be this late while a machine is fully loaded.
const STATUS_MAX: Duration = Duration::from_secs(5);

pub fn run(arguments: &StatusArguments) -> anyhow::Result<ReplicaState> {
    let process = PidFile::read(&arguments.pid_file)?;
    let running = match &process {
        Some(process) if process.is_running()? => process,
        Some(_) | None => return Ok(ReplicaState::default()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let counters = runtime.block_on(ask(arguments)).and_then(|mut counters| {
        let pid = Pid::from_raw(running.pid).context("a process id is not zero")?;
        counters.insert(
            "disk_bytes_written".into(),
            Usage::of(pid)?.disk_bytes_written,
        );
        Ok(counters)
    });
    Ok(ReplicaState {
        pid: Some(running.pid),
        unit: running.unit.clone(),
        problem: counters.as_ref().err().map(|error| format!("{error:#}")),
        counters: counters.unwrap_or_default(),
    })
}

async fn ask(
    arguments: &StatusArguments,
) -> anyhow::Result<std::collections::BTreeMap<String, u64>> {
    let file: ClientFile = toml_file::read(&arguments.config)?;
    let replica = replica_id(&arguments.replica.to_string())?;
    let mut replicas = client_file::replicas(&file.replicas)?;
    replicas.retain(|(id, _)| *id == replica);
    let certificates = file.certificates.relative_to(&arguments.config);
    let cluster = crate::certs::parse_cluster(&file.cluster).map_err(crate::failure::usage)?;
    let mut config = client_config(cluster, replicas, certificates.load()?)?;
    config.deadline = STATUS_MAX;
    let client = Client::observe(config)?;
    let status = tokio::time::timeout(STATUS_MAX, client.status(replica)).await;
    client.close().await;
    let status =
        status.with_context(|| format!("no answer within {} s", STATUS_MAX.as_secs()))??;
    Ok(status.into_iter().collect())
}
