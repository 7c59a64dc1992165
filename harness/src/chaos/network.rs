//! The faults of the network, one after the other, by way of a [`Wire`].

use std::net::SocketAddr;
use std::time::Duration;

use synod_engine::ids::ReplicaId;
use tokio::time::{sleep, sleep_until};

use super::fault::{Fault, Lane};
use super::random::Random;
use super::schedule::Planned;
use super::shared::{Shared, Strike};
use super::wire::Wire;
use crate::links::proxy::Weather;
use crate::run::hosts::filter::LOSS_PPM;
use crate::strangers::Strangers;

/// How much longer a fault waits for traffic that it can strike.
const PATIENCE_MS: u64 = 2_000;
/// Healing takes no longer than this, or somebody else does it.
const HEAL_MAX: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);
const DUPLICATE_PERCENT: u8 = 10;
const DELAY: Duration = Duration::from_millis(50);
const JITTER: Duration = Duration::from_millis(10);

const CUT: Weather = Weather {
    cut: true,
    loss_ppm: 0,
    duplicate_percent: 0,
    delay: Duration::ZERO,
    jitter: Duration::ZERO,
    in_order: false,
    reorder_ppm: 0,
    bytes_per_s: None,
    queue_max: None,
    clogged: false,
};

/// Which links a fault changes, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    what: String,
    replicas: Vec<ReplicaId>,
    links: Vec<(ReplicaId, ReplicaId)>,
    weather: Weather,
}

/// Does every planned fault at its time. Ends with every link healed.
pub async fn run(
    plan: &[Planned],
    calm_from_ms: u64,
    wire: &impl Wire,
    doors: &[(ReplicaId, SocketAddr)],
    shared: &Shared,
) -> anyhow::Result<()> {
    let replicas = doors.len() as u8;
    for planned in plan {
        sleep_until(shared.at(planned.at_ms)).await;
        let from_ms = shared.now_ms();
        if planned.fault == Fault::Strangers {
            let strike = crowd(planned, calm_from_ms, doors, shared).await?;
            shared.end(planned, from_ms, strike);
            continue;
        }
        let change = change(planned, replicas, shared.leader.get());
        shared.begin(Lane::Network, &change.what);
        let until_ms = from_ms + planned.lasts_ms;
        let patient_until_ms = (until_ms + PATIENCE_MS).min(calm_from_ms);
        let max = Duration::from_millis(planned.lasts_ms + PATIENCE_MS) + HEAL_MAX;
        wire.set(&change.links, change.weather, max).await?;
        sleep_until(shared.at(until_ms.min(calm_from_ms))).await;
        // While every process is dead there is nothing to strike.
        while wire.evidence(planned.fault).await?.0 == 0 && shared.now_ms() < patient_until_ms {
            sleep(POLL).await;
        }
        wire.heal().await?;
        let (count, evidence) = wire.evidence(planned.fault).await?;
        let strike = Strike {
            what: change.what,
            replicas: change.replicas,
            struck: count > 0,
            evidence,
        };
        shared.end(planned, from_ms, strike);
    }
    Ok(())
}

/// Strangers send first packets to one replica, whose answers show that it got them.
async fn crowd(
    planned: &Planned,
    calm_from_ms: u64,
    doors: &[(ReplicaId, SocketAddr)],
    shared: &Shared,
) -> anyhow::Result<Strike> {
    let mut random = Random::new(planned.draw, 3);
    let chosen = random.below(doors.len() as u64) as usize;
    let leader = shared.leader.get().filter(|_| planned.leader);
    let led = doors.iter().position(|(id, _)| Some(*id) == leader);
    let (victim, address) = doors[led.unwrap_or(chosen)];
    let what = format!("strangers at the door of replica {}", victim.0);
    shared.begin(Lane::Network, &what);
    let strangers = Strangers::crowd(address, planned.draw as u32)?;
    let until_ms = shared.now_ms() + planned.lasts_ms;
    sleep_until(shared.at(until_ms.min(calm_from_ms))).await;
    let (sent, answered) = strangers.end()?;
    Ok(Strike {
        what,
        replicas: vec![victim],
        struck: answered > 0,
        evidence: format!("{sent} first packets sent, {answered} answers to them"),
    })
}

fn change(planned: &Planned, replicas: u8, leader: Option<ReplicaId>) -> Change {
    let all: Vec<ReplicaId> = (1..=replicas).map(ReplicaId).collect();
    let mut random = Random::new(planned.draw, 3);
    let chosen = all[random.below(u64::from(replicas)) as usize];
    let victim = leader.filter(|_| planned.leader).unwrap_or(chosen);
    let title = match leader == Some(victim) {
        true => format!("replica {}, the leader,", victim.0),
        false => format!("replica {}", victim.0),
    };
    let everywhere = |what: String, weather: Weather| Change {
        what,
        replicas: all.clone(),
        links: pairs(&all),
        weather,
    };
    let one = |what: String, links, weather| Change {
        what,
        replicas: vec![victim],
        links,
        weather,
    };
    match planned.fault {
        Fault::OneWay => one_way(&all, victim, &title, &mut random),
        Fault::Partial => partial(&all, victim, leader, &mut random),
        Fault::Loss => everywhere(
            format!("loss of {} %", LOSS_PPM / 10_000),
            Weather {
                loss_ppm: LOSS_PPM,
                ..Weather::default()
            },
        ),
        Fault::Duplicate => everywhere(
            format!("{DUPLICATE_PERCENT} % sent twice"),
            Weather {
                duplicate_percent: DUPLICATE_PERCENT,
                ..Weather::default()
            },
        ),
        Fault::Delay => everywhere(
            format!("{} ms of delay", DELAY.as_millis()),
            Weather {
                delay: DELAY,
                jitter: JITTER,
                ..Weather::default()
            },
        ),
        Fault::Clog => one(
            format!("{title} clogged both ways"),
            touching(&all, victim),
            Weather {
                clogged: true,
                ..Weather::default()
            },
        ),
        Fault::Partition
        | Fault::Kill
        | Fault::KillAll
        | Fault::Stop
        | Fault::DiskFull
        | Fault::Corrupt
        | Fault::Away
        | Fault::Wipe
        | Fault::Strangers
        | Fault::FrozenDisk
        | Fault::SlowDisk
        | Fault::HungLogReader => one(format!("{title} cut off"), touching(&all, victim), CUT),
    }
}

/// The victim hears nobody, or is heard by nobody, or does not hear one other.
fn one_way(all: &[ReplicaId], victim: ReplicaId, title: &str, random: &mut Random) -> Change {
    let others: Vec<ReplicaId> = all.iter().copied().filter(|id| *id != victim).collect();
    let (what, links): (String, Vec<_>) = match random.below(3) {
        0 => (
            format!("{title} hears nobody"),
            others.iter().map(|other| (*other, victim)).collect(),
        ),
        1 => (
            format!("{title} is heard by nobody"),
            others.iter().map(|other| (victim, *other)).collect(),
        ),
        _ => {
            let other = others[random.below(others.len() as u64) as usize];
            let what = format!("{title} does not hear replica {}", other.0);
            (what, vec![(other, victim)])
        }
    };
    Change {
        what,
        replicas: vec![victim],
        links,
        weather: CUT,
    }
}

/// The partial partitions of Omni-Paxos (Ng, Haridi, Carbone, EuroSys 2023). With three replicas the other two become
/// the chained one or an isolated leader.
fn partial(
    all: &[ReplicaId],
    hub: ReplicaId,
    leader: Option<ReplicaId>,
    random: &mut Random,
) -> Change {
    let kind = if all.len() < 4 { 0 } else { random.below(3) };
    // The one through which all others are connected is not the leader, or nothing would change for it.
    let others: Vec<ReplicaId> = all
        .iter()
        .copied()
        .filter(|id| Some(*id) != leader)
        .collect();
    let hub = match leader == Some(hub) {
        true => others[random.below(others.len() as u64) as usize],
        false => hub,
    };
    let cut = |keep: &dyn Fn(ReplicaId, ReplicaId) -> bool| -> Vec<(ReplicaId, ReplicaId)> {
        pairs(all)
            .into_iter()
            .filter(|(from, to)| !keep(*from, *to))
            .collect()
    };
    let (what, links) = match kind {
        0 => {
            let line = line(all, leader, random);
            let place = |id: ReplicaId| line.iter().position(|at| *at == id).unwrap_or(0);
            let names: Vec<String> = line.iter().map(|id| id.0.to_string()).collect();
            let links = cut(&|from, to| place(from).abs_diff(place(to)) == 1);
            (format!("chained: {}", names.join("-")), links)
        }
        1 => {
            let links = cut(&|from, to| from == hub || to == hub);
            (
                format!("quorum-loss: all only through replica {}", hub.0),
                links,
            )
        }
        _ => {
            let cut_off = |id: ReplicaId| Some(id) == leader;
            let links =
                cut(&|from, to| (from == hub || to == hub) && !cut_off(from) && !cut_off(to));
            let what = format!(
                "constrained election: the leader cut off, the others only through replica {}",
                hub.0
            );
            (what, links)
        }
    };
    Change {
        what,
        replicas: all.to_vec(),
        links,
        weather: CUT,
    }
}

/// All replicas in a row, the leader at its end.
fn line(all: &[ReplicaId], leader: Option<ReplicaId>, random: &mut Random) -> Vec<ReplicaId> {
    let mut line = all.to_vec();
    random.shuffle(&mut line);
    if let Some(at) = line.iter().position(|id| Some(*id) == leader) {
        let leader = line.remove(at);
        line.push(leader);
    }
    line
}

fn pairs(all: &[ReplicaId]) -> Vec<(ReplicaId, ReplicaId)> {
    let both = |from: &ReplicaId| all.iter().map(move |to| (*from, *to)).collect::<Vec<_>>();
    let all = all.iter().flat_map(both);
    all.filter(|(from, to)| from != to).collect()
}

fn touching(all: &[ReplicaId], victim: ReplicaId) -> Vec<(ReplicaId, ReplicaId)> {
    let each = pairs(all).into_iter();
    each.filter(|(from, to)| *from == victim || *to == victim)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(fault: Fault, leader: bool, draw: u64) -> Planned {
        Planned {
            fault,
            at_ms: 0,
            lasts_ms: 0,
            leader,
            draw,
        }
    }

    /// Pairs of replicas that still hear each other.
    fn connected(change: &Change, replicas: u8) -> Vec<(u8, u8)> {
        let all: Vec<ReplicaId> = (1..=replicas).map(ReplicaId).collect();
        let up = |from, to| !change.links.contains(&(from, to));
        pairs(&all)
            .into_iter()
            .filter(|(from, to)| from < to && up(*from, *to) && up(*to, *from))
            .map(|(from, to)| (from.0, to.0))
            .collect()
    }

    #[test]
    fn a_partition_isolates_one_replica_and_by_wish_the_leader() {
        for draw in 0..50 {
            let isolated = change(
                &planned(Fault::Partition, true, draw),
                3,
                Some(ReplicaId(2)),
            );
            assert_eq!(connected(&isolated, 3), [(1, 3)]);
            assert!(isolated.what.contains("the leader"));
            let any = change(&planned(Fault::Partition, false, draw), 5, None);
            assert_eq!(connected(&any, 5).len(), 6, "four others see each other");
        }
    }

    #[test]
    fn one_way_cuts_never_cut_both_ways() {
        for draw in 0..50 {
            let cut = change(&planned(Fault::OneWay, false, draw), 3, None);
            assert!(!cut.links.is_empty());
            for (from, to) in &cut.links {
                assert!(!cut.links.contains(&(*to, *from)), "{cut:?}");
            }
        }
    }

    #[test]
    fn each_partial_partition_has_its_shape() {
        let leader = Some(ReplicaId(1));
        let mut seen = [0; 3];
        for draw in 0..60 {
            let three = change(&planned(Fault::Partial, false, draw), 3, leader);
            assert!(three.what.starts_with("chained"));
            assert_eq!(connected(&three, 3).len(), 2, "{three:?}");
            let five = change(&planned(Fault::Partial, draw % 2 == 0, draw), 5, leader);
            let links = connected(&five, 5);
            let of = |id: u8| links.iter().filter(|(a, b)| *a == id || *b == id).count();
            let (kind, expected, of_leader) = match five.what.split(':').next() {
                Some("chained") => (0, 4, 1),
                Some("quorum-loss") => (1, 4, 1),
                Some("constrained election") => (2, 3, 0),
                other => panic!("{other:?}"),
            };
            seen[kind] += 1;
            assert_eq!((links.len(), of(1)), (expected, of_leader), "{five:?}");
            let hubs = (1..=5).filter(|id| of(*id) == expected).count();
            assert_eq!(hubs, usize::from(kind > 0), "{five:?}");
        }
        assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    }
}
