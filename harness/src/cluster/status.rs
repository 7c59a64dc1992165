//! `synod cluster status`: how every replica is, as its own host sees it.

use serde_json::json;

use crate::cluster::folder::Executable;
use crate::cluster::inventory::Inventory;
use crate::cluster::replicas::{Placed, folder_name, leader, placed, states};
use crate::cluster::state::State;
use crate::cluster::table::Table;
use crate::cluster::{not_up, replica_hosts, with_reached};
use crate::failure::describe;
use crate::output::say;
use crate::probe::protocol::ReplicaState;

pub async fn run(inventory: &Inventory, state: &State, json: bool) -> anyhow::Result<()> {
    let Some(started) = state.read()? else {
        return Err(not_up(inventory));
    };
    with_reached(inventory, &replica_hosts(inventory), async |fleet, errors| {
        let replicas = placed(fleet, inventory, &folder_name(inventory))?;
        let states = states(&replicas, &Executable::own()?).await;
        let leader = leader(&states).map(|replica| replica.id.0);
        let mut problems: Vec<String> = errors.iter().map(describe).collect();
        problems.extend(states.iter().filter_map(|(replica, state)| problem(replica, state)));
        if leader.is_none() {
            problems.push("no replica leads".into());
        }
        if json {
            let rows: Vec<_> = states.iter().map(|(replica, state)| row_json(replica, state)).collect();
            let report = json!({"name": started.name, "leader": leader, "replicas": rows, "problems": problems});
            say!("{}", serde_json::to_string_pretty(&report)?)?;
        } else {
            say!("{}", table(&states))?;
        }
        anyhow::ensure!(problems.is_empty(), "{}", problems.join("; "));
        Ok(())
    })
    .await
}

fn problem(replica: &Placed, state: &anyhow::Result<ReplicaState>) -> Option<String> {
    let (id, host) = (replica.id.0, replica.host().name());
    match state {
        Err(error) => Some(describe(error)),
        Ok(state) if state.pid.is_none() => Some(format!(
            "replica {id} on host {host} does not run: `synod cluster restart {host}` starts it"
        )),
        Ok(state) => {
            let problem = state.problem.as_ref()?;
            Some(format!(
                "replica {id} on host {host} does not answer: {problem}"
            ))
        }
    }
}

fn row_json(replica: &Placed, state: &anyhow::Result<ReplicaState>) -> serde_json::Value {
    json!({
        "replica": replica.id.0,
        "host": replica.host().name(),
        "address": replica.address,
        "state": state.as_ref().ok(),
    })
}

fn table(states: &[(Placed, anyhow::Result<ReplicaState>)]) -> String {
    let mut table = Table::new(&[
        "replica",
        "host",
        "address",
        "process",
        "role",
        "ballot",
        "commit index",
        "applied",
    ]);
    for (replica, state) in states {
        let state = state.as_ref().ok();
        let counter = |name: &str| {
            let value = state.and_then(|state| state.counters.get(name));
            value.map_or_else(|| "-".to_owned(), u64::to_string)
        };
        let role = match state.and_then(|state| state.counters.get("leading")) {
            Some(1) => "leader",
            Some(_) => "acceptor",
            None => "-",
        };
        let process = match state {
            None => "unreachable".to_owned(),
            Some(state) => state
                .pid
                .map_or_else(|| "not running".to_owned(), |pid| pid.to_string()),
        };
        table.row(&[
            &replica.id.0.to_string(),
            replica.host().name(),
            &replica.address.to_string(),
            &process,
            role,
            &counter("ballot_round"),
            &counter("commit_index"),
            &counter("applied"),
        ]);
    }
    table.text()
}
