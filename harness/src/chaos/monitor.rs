//! Asks the replicas who leads, all the time, and tells a person how the run goes.

use std::collections::BTreeMap;
use std::time::Duration;

use synod_engine::ids::ReplicaId;
use synod_transport::Client;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::shared::Shared;
use crate::run::progress::{Progress, thousands};

/// How often, and how long an answer may take: a stopped replica gives none.
const INTERVAL: Duration = Duration::from_millis(100);
pub const ANSWER_MAX: Duration = Duration::from_millis(250);

/// Follows the leader until dropped. `client` observes, with [`ANSWER_MAX`] as its deadline.
pub async fn follow(client: std::rc::Rc<Client>, replicas: u8, shared: &Shared) {
    loop {
        let next = Instant::now() + INTERVAL;
        let mut asked = JoinSet::new();
        for id in (1..=replicas).map(ReplicaId) {
            let client = std::rc::Rc::clone(&client);
            asked.spawn_local(async move { leads(&client, id).await.map(|round| (round, id)) });
        }
        let answers = asked.join_all().await;
        let leader = answers.into_iter().flatten().max().map(|(_, id)| id);
        if leader != shared.leader.replace(leader) {
            shared.leaders.borrow_mut().push((shared.now_ms(), leader));
        }
        sleep_until(next).await;
    }
}

/// The round that a replica leads, if it says that it leads.
async fn leads(client: &Client, id: ReplicaId) -> Option<u64> {
    let status: BTreeMap<String, u64> = client.status(id).await.ok()?.into_iter().collect();
    let leading = status.get("leading") == Some(&1);
    leading.then(|| status.get("ballot_round").copied().unwrap_or(0))
}

/// One line a second until dropped.
pub async fn report(shared: &Shared, progress: &Progress) {
    let mut before = 0;
    for second in 1u64.. {
        sleep_until(shared.at(second * 1_000)).await;
        let acknowledged = shared.acknowledged.get();
        let leader = match shared.leader.get() {
            Some(leader) => format!("leader {}", leader.0),
            None => "no leader".to_owned(),
        };
        let now: Vec<String> = shared.now.borrow().values().cloned().collect();
        progress.live(&format!(
            "  {second:>3} s  {:>6}/s  {leader:<9}  {}",
            thousands(acknowledged - before),
            now.join("; ")
        ));
        before = acknowledged;
    }
}
