//! A system under test: what a run needs of it, whatever it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use synod_engine::ids::ReplicaId;

use crate::load::event::LoadResult;
use crate::run::counters::Status;
use crate::run::load_process::LoadProcess;
use crate::run::plan::Plan;
use crate::run::progress::Progress;
use crate::verify::Verdict;

/// A running cluster, each replica a process of its own. Dropping it kills them.
pub trait Target {
    /// How the log is written, as far as the system tells.
    fn backend(&self) -> String;

    /// Waits until the cluster serves; fails if a replica ends.
    async fn wait_for_leader(&mut self) -> anyhow::Result<ReplicaId>;

    /// The leader, if there is one at the moment.
    async fn leader(&self) -> Option<ReplicaId>;

    /// Every replica's counters. All systems have `process_cpu_us` and `disk_bytes_written`.
    async fn statuses(&self) -> anyhow::Result<BTreeMap<ReplicaId, Status>>;

    /// Fails if a replica ended that nobody killed.
    async fn check(&mut self) -> anyhow::Result<()>;

    /// SIGKILL to `victims`, all before any of them is waited for.
    async fn kill(&mut self, victims: &[ReplicaId]) -> anyhow::Result<()>;

    /// Starts killed replicas again on what their disks hold, and waits until they are ready.
    async fn restart(&mut self, victims: &[ReplicaId]) -> anyhow::Result<()>;

    /// Starts the process that plays the clients.
    fn start_load(&self, progress: &Arc<Progress>) -> anyhow::Result<LoadProcess>;

    /// After the load: stops the replicas and checks that everything acknowledged is there.
    async fn conclude(
        self,
        plan: &Plan,
        load: &LoadResult,
        progress: &Arc<Progress>,
    ) -> anyhow::Result<Conclusion>;
}

/// What is known of a system when it is stopped.
pub struct Conclusion {
    pub verdict: Verdict,
    pub verify_seconds: f64,
    /// Replicas that did not stop cleanly.
    pub complaints: Vec<String>,
}
