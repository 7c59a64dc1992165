//! Does to a run's cluster what was asked for, each fault at its time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use synod_engine::ids::ReplicaId;
use tokio::time::{Instant, sleep, sleep_until};

use crate::run::counters::WindowCounters;
use crate::run::fault::{Action, Fault, Who};
use crate::run::progress::Progress;
use crate::run::target::{LinkId, Target};

/// While an earlier fault has no successor yet, a fault that strikes the leader waits for one.
const LEADER_WAIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// What was done, in milliseconds from the start of the measured window, and what clients saw of it.
#[derive(Clone, Debug, Serialize)]
pub struct FaultReport {
    pub kind: String,
    /// As it was asked for.
    pub fault: String,
    pub replicas: Vec<u8>,
    /// When it began, whatever was done: a kill, a stop or a cut.
    pub killed_at_ms: u64,
    /// When it was taken back: killed replicas were running again, with their WALs read.
    pub ready_at_ms: u64,
    /// The longest time without an acknowledgement, most of which lies between this fault's begin and the next one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_ms: Option<f64>,
    /// From the begin until the throughput was back for half a second, unless the next fault came first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_after_ms: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    End,
    Begin,
}

/// What is broken at the moment.
struct Injector<'a, T> {
    target: &'a mut T,
    window: &'a mut WindowCounters,
    window_start: Instant,
    progress: &'a Progress,
    /// Killed or stopped, so that they cannot be asked.
    down: BTreeSet<ReplicaId>,
    /// By the fault that cut them.
    cuts: BTreeMap<usize, BTreeSet<LinkId>>,
    /// By the fault that sent strangers there.
    crowds: BTreeMap<usize, BTreeSet<ReplicaId>>,
}

/// Begins and ends every fault at its time; a step that takes long holds up those after it, and the report says when
/// they were.
pub async fn inject<T: Target>(
    faults: &[Fault],
    window_start: Instant,
    target: &mut T,
    window: &mut WindowCounters,
    reports: &mut Vec<FaultReport>,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut injector = Injector {
        target,
        window,
        window_start,
        progress,
        down: BTreeSet::new(),
        cuts: BTreeMap::new(),
        crowds: BTreeMap::new(),
    };
    let mut report_of = BTreeMap::new();
    let mut steps = Steps::new(faults);
    while let Some((at_ms, step, index)) = steps.next() {
        sleep_until(window_start + Duration::from_millis(at_ms)).await;
        let fault = &faults[index];
        match step {
            Step::Begin => {
                let report = injector.begin(fault, index).await;
                let report = report.with_context(|| format!("fault '{fault}'"))?;
                steps.begun(index, report.killed_at_ms, fault);
                reports.push(report);
                report_of.insert(index, reports.len() - 1);
            }
            Step::End => {
                let report = &mut reports[report_of[&index]];
                let ended = injector.end(fault, index, &report.replicas).await;
                report.ready_at_ms = ended.with_context(|| format!("the end of '{fault}'"))?;
            }
        }
    }
    Ok(())
}

/// What is still to be done, in the order of time; at the same time, one fault ends before the next begins.
struct Steps(BTreeSet<(u64, Step, usize)>);

impl Steps {
    fn new(faults: &[Fault]) -> Steps {
        let begins = faults.iter().enumerate();
        Steps(
            begins
                .map(|(index, fault)| (fault.at_ms, Step::Begin, index))
                .collect(),
        )
    }

    fn next(&mut self) -> Option<(u64, Step, usize)> {
        self.0.pop_first()
    }

    /// A fault that began late, because there was no leader to strike, lasts as long as any.
    fn begun(&mut self, index: usize, begun_ms: u64, fault: &Fault) {
        let length_ms = fault.until_ms() - fault.at_ms;
        let begun_ms = begun_ms.max(fault.at_ms);
        self.0.insert((begun_ms + length_ms, Step::End, index));
    }
}

impl<T: Target> Injector<'_, T> {
    async fn begin(&mut self, fault: &Fault, index: usize) -> anyhow::Result<FaultReport> {
        let (victims, begun_at, what) = match &fault.action {
            Action::Kill(who) => {
                let victims = self.find(who).await?;
                let statuses = self.target.statuses(&victims).await?;
                let begun_at = Instant::now();
                self.target.kill(&victims).await?;
                for victim in &victims {
                    self.window.killed(*victim, &statuses[victim]);
                }
                self.down.extend(&victims);
                (victims, begun_at, "SIGKILL")
            }
            Action::Stop(who) => {
                let victims = self.find(who).await?;
                let begun_at = Instant::now();
                self.target.pause(&victims, true).await?;
                self.down.extend(&victims);
                (victims, begun_at, "SIGSTOP")
            }
            Action::Isolate(who) => {
                let victims = self.find(who).await?;
                let cut = around(&victims, &self.target.replicas());
                let begun_at = self.cut(index, cut).await?;
                (victims, begun_at, "isolated")
            }
            Action::Crowd(who) => {
                let victims = self.find(who).await?;
                let doors = victims.iter().copied().collect();
                let begun_at = self.crowd(index, doors).await?;
                (victims, begun_at, "crowded by strangers")
            }
            Action::Partition(sides) => {
                let begun_at = self.cut(index, between(sides)).await?;
                let named = sides.iter().flatten().copied().collect();
                (named, begun_at, "partitioned")
            }
        };
        self.progress
            .step(&format!("{what}: {}", names(&victims, fault)));
        let begun_ms = (begun_at - self.window_start).as_millis() as u64;
        Ok(FaultReport {
            kind: fault.kind(),
            fault: fault.to_string(),
            replicas: victims.iter().map(|id| id.0).collect(),
            killed_at_ms: begun_ms,
            ready_at_ms: begun_ms,
            gap_ms: None,
            full_after_ms: None,
        })
    }

    /// Takes back what `fault` did to `victims`; returns when that was done, in milliseconds of the window.
    async fn end(&mut self, fault: &Fault, index: usize, victims: &[u8]) -> anyhow::Result<u64> {
        let victims: Vec<ReplicaId> = victims.iter().map(|id| ReplicaId(*id)).collect();
        let what = match fault.action {
            Action::Kill(_) => {
                self.target.restart(&victims).await?;
                "running again"
            }
            Action::Stop(_) => {
                self.target.pause(&victims, false).await?;
                "SIGCONT"
            }
            Action::Isolate(_) | Action::Partition(_) => {
                self.cut(index, BTreeSet::new()).await?;
                "connected again"
            }
            Action::Crowd(_) => {
                self.crowd(index, BTreeSet::new()).await?;
                "left by the strangers"
            }
        };
        if fault.is_of_processes() {
            self.down.retain(|id| !victims.contains(id));
        }
        self.progress
            .step(&format!("{what}: {}", names(&victims, fault)));
        Ok(self.window_start.elapsed().as_millis() as u64)
    }

    /// Those of the replicas that run, in order.
    async fn find(&self, who: &Who) -> anyhow::Result<Vec<ReplicaId>> {
        let mut up = self.target.replicas();
        up.retain(|id| !self.down.contains(id));
        let found = match who {
            Who::Leader => vec![self.leader(&up).await?],
            Who::Follower => {
                let leader = self.leader(&up).await?;
                let mut followers = up.into_iter().filter(|id| *id != leader);
                followers.next().into_iter().collect()
            }
            Who::All => up,
            Who::Replicas(ids) => up.into_iter().filter(|id| ids.contains(id)).collect(),
        };
        anyhow::ensure!(
            !found.is_empty(),
            "none of these replicas runs at the moment"
        );
        Ok(found)
    }

    async fn leader(&self, up: &[ReplicaId]) -> anyhow::Result<ReplicaId> {
        let deadline = Instant::now() + LEADER_WAIT;
        loop {
            if let Some(leader) = self.target.leader(up).await {
                return Ok(leader);
            }
            let waited = LEADER_WAIT.as_secs();
            anyhow::ensure!(Instant::now() < deadline, "no leader within {waited} s");
            sleep(POLL).await;
        }
    }

    /// From now on `cut` is what this fault cuts, beside what others do.
    async fn cut(&mut self, index: usize, cut: BTreeSet<LinkId>) -> anyhow::Result<Instant> {
        self.cuts.insert(index, cut);
        let all = self.cuts.values().flatten().copied().collect();
        let begun_at = Instant::now();
        self.target.cut(&all).await?;
        Ok(begun_at)
    }

    /// The same for strangers at doors.
    async fn crowd(&mut self, index: usize, doors: BTreeSet<ReplicaId>) -> anyhow::Result<Instant> {
        self.crowds.insert(index, doors);
        let all = self.crowds.values().flatten().copied().collect();
        let begun_at = Instant::now();
        self.target.crowd(&all).await?;
        Ok(begun_at)
    }
}

/// Every link between `victims` and any other replica, in both directions.
fn around(victims: &[ReplicaId], replicas: &[ReplicaId]) -> BTreeSet<LinkId> {
    let pairs = victims
        .iter()
        .flat_map(|one| replicas.iter().map(move |two| (*one, *two)));
    pairs
        .filter(|(one, two)| one != two)
        .flat_map(|(one, two)| [(one, two), (two, one)])
        .collect()
}

/// Every link from one side to another.
fn between(sides: &[BTreeSet<ReplicaId>]) -> BTreeSet<LinkId> {
    let mut links = BTreeSet::new();
    for (index, side) in sides.iter().enumerate() {
        for other in &sides[index + 1..] {
            for (one, two) in side
                .iter()
                .flat_map(|one| other.iter().map(move |two| (*one, *two)))
            {
                links.extend([(one, two), (two, one)]);
            }
        }
    }
    links
}

fn names(victims: &[ReplicaId], fault: &Fault) -> String {
    let ids: Vec<String> = victims.iter().map(|id| id.0.to_string()).collect();
    match ids.len() {
        1 => format!("replica {} ({fault})", ids[0]),
        _ => format!("replicas {} ({fault})", ids.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Fault {
        text.parse().unwrap()
    }

    /// Each begins `late_ms` after its time.
    fn order(faults: &[Fault], late_ms: u64) -> Vec<(u64, bool, usize)> {
        let (mut steps, mut order) = (Steps::new(faults), Vec::new());
        while let Some((at_ms, step, index)) = steps.next() {
            if step == Step::Begin {
                steps.begun(index, at_ms + late_ms, &faults[index]);
            }
            order.push((at_ms, step == Step::Begin, index));
        }
        order
    }

    #[test]
    fn steps_are_in_order_and_ends_come_first() {
        let faults = [
            fault("stop 1 at 2s for 1s"),
            fault("kill leader at 3s"),
            fault("stop 2 at 1s for 5s"),
        ];
        assert_eq!(
            order(&faults, 0),
            [
                (1_000, true, 2),
                (2_000, true, 0),
                (3_000, false, 0),
                (3_000, true, 1),
                (4_000, false, 1),
                (6_000, false, 2)
            ]
        );
    }

    #[test]
    fn a_late_fault_lasts_as_long_as_any() {
        let faults = [fault("stop leader at 2s for 1s")];
        assert_eq!(order(&faults, 1_600), [(2_000, true, 0), (4_600, false, 0)]);
    }

    #[test]
    fn what_is_cut() {
        let ids = |list: &[u8]| list.iter().map(|id| ReplicaId(*id)).collect::<Vec<_>>();
        let links = |list: &[(u8, u8)]| -> BTreeSet<LinkId> {
            let both = list.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]);
            both.map(|(a, b)| (ReplicaId(a), ReplicaId(b))).collect()
        };
        assert_eq!(
            around(&ids(&[2]), &ids(&[1, 2, 3])),
            links(&[(2, 1), (2, 3)])
        );
        let Action::Partition(sides) = fault("partition 1|2|3,4 at 1s for 1s").action else {
            unreachable!("it is a partition");
        };
        let expected = links(&[(1, 2), (1, 3), (1, 4), (2, 3), (2, 4)]);
        assert_eq!(between(&sides), expected);
    }
}
