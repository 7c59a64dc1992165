//! A system under test: what a run needs of it, whatever it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use synod_engine::ids::ReplicaId;

use crate::links::LinksReport;
use crate::load::event::LoadResult;
use crate::run::counters::Status;
use crate::run::load_process::LoadProcess;
use crate::run::plan::Plan;
use crate::run::progress::Progress;
use crate::verify::Verdict;

/// One direction between two replicas: from the first to the second.
pub type LinkId = (ReplicaId, ReplicaId);

/// A running cluster, each replica a process of its own. Dropping it kills them.
pub trait Target {
    /// How the log is written, as far as the system tells.
    fn backend(&self) -> String;

    fn replicas(&self) -> Vec<ReplicaId>;

    /// Waits until the cluster serves; fails if a replica ends.
    async fn wait_for_leader(&mut self) -> anyhow::Result<ReplicaId>;

    /// The leader, if there is one at the moment among `up`, which run.
    async fn leader(&self, up: &[ReplicaId]) -> Option<ReplicaId>;

    /// The counters of `up`, which run. All systems have `process_cpu_us` and `disk_bytes_written`.
    async fn statuses(&self, up: &[ReplicaId]) -> anyhow::Result<BTreeMap<ReplicaId, Status>>;

    /// Fails if a replica ended that nobody killed.
    async fn check(&mut self) -> anyhow::Result<()>;

    /// SIGKILL to `victims`, all before any of them is waited for.
    async fn kill(&mut self, victims: &[ReplicaId]) -> anyhow::Result<()>;

    /// Starts killed replicas again on what their disks hold, and waits until they are ready.
    async fn restart(&mut self, victims: &[ReplicaId]) -> anyhow::Result<()>;

    /// SIGSTOP to `victims`, or SIGCONT.
    async fn pause(&mut self, victims: &[ReplicaId], paused: bool) -> anyhow::Result<()>;

    /// From now on exactly these links are cut; fails unless the links of this target pass the emulator.
    async fn cut(&mut self, links: &BTreeSet<LinkId>) -> anyhow::Result<()>;

    /// From now on strangers send first packets to exactly these replicas, if they are of this machine.
    async fn crowd(&mut self, _doors: &BTreeSet<ReplicaId>) -> anyhow::Result<()> {
        anyhow::bail!("strangers come only to doors of this machine")
    }

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

impl Conclusion {
    /// Of a run that came to no end.
    pub fn unchecked() -> Conclusion {
        Conclusion {
            verdict: Verdict::default(),
            verify_seconds: 0.0,
            complaints: vec!["nothing was checked from the disks".into()],
            links: None,
        }
    }
}

/// What is known of a system when it is stopped.
pub struct Conclusion {
    pub verdict: Verdict,
    pub verify_seconds: f64,
    /// Replicas that did not stop cleanly.
    pub complaints: Vec<String>,
    /// What the emulated links did, if there were any.
    pub links: Option<LinksReport>,
}
