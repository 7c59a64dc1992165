//! Elections: who is heard, who may stand when, and what is told.

use synod_engine::config::Config;
use synod_engine::election::{Candidacy, Election};
use synod_engine::ids::{Ballot, ReplicaId, ReplicaSet, Slot, Time};
use synod_engine::message::{Heartbeat, HeartbeatRole};

use super::ballot;

const ME: ReplicaId = ReplicaId(1);
const MS: u64 = 1_000_000;
const TIMEOUT: u64 = 300 * MS;
const BEAT: u64 = 30 * MS;

/// Without randomness, so that the tests say when a replica stands.
fn config(replicas: u8) -> Config {
    let mut config = Config::new(ME, replicas, 42);
    config.timers.election_jitter_ns = 1;
    assert_eq!(config.timers.election_timeout_ns, TIMEOUT);
    assert_eq!(config.timers.heartbeat_ns, BEAT);
    config
}

fn heartbeat(ballot: Ballot, role: HeartbeatRole, commit_index: u64) -> Heartbeat {
    Heartbeat {
        ballot,
        role,
        hears: ReplicaSet::first(5),
        commit_index: Slot(commit_index),
        received: Slot(commit_index),
        stored: Slot(commit_index),
        owed_bytes: 0,
        trim_floor: Slot(1),
    }
}

fn searching() -> Heartbeat {
    heartbeat(Ballot::ZERO, HeartbeatRole::Searching, 0)
}

fn candidacy() -> Candidacy {
    Candidacy {
        promised: Ballot::ZERO,
        commit_index: Slot::ZERO,
        disk_stalled: false,
    }
}

/// Replica 1 of 3, which heard the other two at `at`.
fn heard(at: u64, heartbeats: [Heartbeat; 2]) -> (Config, Election) {
    let config = config(3);
    let mut election = Election::new(&config, Time(0));
    for (replica, heartbeat) in (2..).zip(heartbeats) {
        election.on_heartbeat(Time(at), ReplicaId(replica), heartbeat);
    }
    (config, election)
}

#[test]
fn a_replica_is_heard_for_one_election_timeout() {
    let (config, mut election) = heard(10, [searching(), searching()]);
    election.on_heartbeat(Time(20), ReplicaId(2), searching());
    assert_eq!(election.hears(Time(20), &config), ReplicaSet::first(3));
    assert_eq!(
        election.hears(Time(9 + TIMEOUT), &config),
        ReplicaSet::first(3)
    );
    assert_eq!(
        election.hears(Time(10 + TIMEOUT), &config),
        ReplicaSet::first(2)
    );
    assert_eq!(
        election.hears(Time(20 + TIMEOUT), &config),
        ReplicaSet::one(ME)
    );
}

#[test]
fn even_the_last_replica_of_the_largest_cluster_is_heard() {
    let config = config(15);
    let mut election = Election::new(&config, Time(0));
    election.on_heartbeat(Time(0), ReplicaId(15), searching());
    let hears: Vec<ReplicaId> = election.hears(Time(0), &config).iter().collect();
    assert_eq!(hears, [ME, ReplicaId(15)]);
}

#[test]
fn a_quorum_is_connected_when_it_is_heard_and_hears_back() {
    let config = config(5);
    let mut election = Election::new(&config, Time(0));
    let mut connected = |replica: u8, hears_me: bool| {
        let mut heartbeat = searching();
        if !hears_me {
            heartbeat.hears.remove(ME);
        }
        election.on_heartbeat(Time(0), ReplicaId(replica), heartbeat);
        election.quorum_connected(Time(1), &config)
    };
    assert!(!connected(2, true));
    assert!(!connected(3, false));
    assert!(connected(4, true));
    assert!(connected(5, true));
    assert!(!election.quorum_connected(Time(TIMEOUT), &config));
}

#[test]
fn a_lone_replica_is_its_own_quorum() {
    let config = config(1);
    let mut election = Election::new(&config, Time(0));
    assert!(election.quorum_connected(Time(0), &config));
    assert!(election.should_stand(Time(0), &config, candidacy()));
}

#[test]
fn it_stands_when_its_time_has_come_and_nothing_speaks_against_it() {
    let (config, mut election) = heard(0, [searching(), searching()]);
    election.give_way(Time(10), &config);
    let due = 10 + TIMEOUT;
    for replica in [2, 3] {
        election.on_heartbeat(Time(due - 1), ReplicaId(replica), searching());
    }
    assert!(!election.should_stand(Time(due - 1), &config, candidacy()));
    assert!(election.should_stand(Time(due), &config, candidacy()));
    assert!(election.should_stand(Time(due + 1), &config, candidacy()));
}

#[test]
fn it_does_not_stand_while_a_leader_lives() {
    let (config, mut election) = heard(0, [searching(), searching()]);
    let leader = ballot(3, 2);
    assert_eq!(election.live_leader(Time(0), &config), None);
    election.on_leader(Time(10), leader, &config);
    assert_eq!(election.live_leader(Time(10), &config), Some(leader));
    assert_eq!(
        election.live_leader(Time(9 + TIMEOUT), &config),
        Some(leader)
    );
    assert_eq!(election.live_leader(Time(10 + TIMEOUT), &config), None);
    for (at, stands) in [(9 + TIMEOUT, false), (10 + TIMEOUT, true)] {
        for replica in [2, 3] {
            election.on_heartbeat(Time(at), ReplicaId(replica), searching());
        }
        assert_eq!(
            election.should_stand(Time(at), &config, candidacy()),
            stands
        );
    }
    // Who stands, or backs off, knows of no leader.
    election.on_leader(Time(500), leader, &config);
    election.stood();
    assert_eq!(election.live_leader(Time(500), &config), None);
    election.on_leader(Time(500), leader, &config);
    election.back_off(Time(500), &config);
    assert_eq!(election.live_leader(Time(500), &config), None);
}

/// Whether replica 1 stands at once, and if not, when it looks again.
fn stands(heartbeats: [Heartbeat; 2], candidacy: Candidacy) -> Result<(), u64> {
    let (config, mut election) = heard(0, heartbeats);
    if election.should_stand(Time(5), &config, candidacy) {
        return Ok(());
    }
    election.heartbeat_sent(Time(TIMEOUT), HeartbeatRole::Searching, &config);
    Err(election.deadline(&config, true).0)
}

#[test]
fn each_reason_not_to_stand_is_enough_and_makes_it_look_again_a_heartbeat_later() {
    let again = Err(5 + BEAT);
    assert_eq!(stands([searching(), searching()], candidacy()), Ok(()));
    let stalled = Candidacy {
        disk_stalled: true,
        ..candidacy()
    };
    assert_eq!(stands([searching(), searching()], stalled), again);
    let mut deaf = searching();
    deaf.hears.remove(ME);
    assert_eq!(stands([deaf.clone(), searching()], candidacy()), Ok(()));
    assert_eq!(stands([deaf.clone(), deaf], candidacy()), again);
}

#[test]
fn a_replica_that_knows_a_live_leader_at_the_promise_or_above_has_a_veto() {
    let promised = ballot(3, 2);
    let candidacy = Candidacy {
        promised,
        ..candidacy()
    };
    let (follows, again) = (Ok(()), Err(5 + BEAT));
    let readmitting = HeartbeatRole::Readmitting {
        incarnation: synod_engine::ids::Incarnation(4),
    };
    for (ballot, role, wanted) in [
        (ballot(3, 2), HeartbeatRole::Leading, again),
        (ballot(3, 2), HeartbeatRole::Following, again),
        (ballot(4, 3), HeartbeatRole::Following, again),
        (ballot(3, 1), HeartbeatRole::Following, follows),
        (ballot(3, 1), HeartbeatRole::Leading, follows),
        (ballot(4, 3), HeartbeatRole::Searching, follows),
        (ballot(4, 3), HeartbeatRole::Standing, follows),
        (ballot(4, 3), readmitting, follows),
    ] {
        let knows = heartbeat(ballot, role, 0);
        assert_eq!(
            stands([searching(), knows], candidacy),
            wanted,
            "{ballot} {role:?}"
        );
    }
}

#[test]
fn who_is_more_than_a_window_behind_lets_others_stand_first_but_only_once() {
    let window = config(3).limits.window_slots_max;
    let own = |commit_index| Candidacy {
        commit_index: Slot(commit_index),
        ..candidacy()
    };
    let at = |commit_index| heartbeat(Ballot::ZERO, HeartbeatRole::Searching, commit_index);
    let later = Err(5 + TIMEOUT);
    assert_eq!(stands([searching(), at(2 + window)], own(2)), Ok(()));
    assert_eq!(stands([searching(), at(3 + window)], own(2)), later);
    assert_eq!(stands([searching(), at(9 + 3 * window)], own(2)), later);
    assert_eq!(stands([searching(), at(400 + window)], own(400)), Ok(()));
    let (config, mut election) = heard(0, [searching(), at(3 + window)]);
    assert!(!election.should_stand(Time(5), &config, own(2)));
    for replica in [2, 3] {
        election.on_heartbeat(Time(TIMEOUT), ReplicaId(replica), at(3 + window));
    }
    assert!(election.should_stand(Time(5 + TIMEOUT), &config, own(2)));
}

#[test]
fn to_give_way_never_brings_the_time_to_stand_forward() {
    let config = config(3);
    let stand_at = |election: &Election| {
        let mut election = election.clone();
        election.heartbeat_sent(Time(9 * TIMEOUT), HeartbeatRole::Searching, &config);
        election.deadline(&config, true).0
    };
    let mut election = Election::new(&config, Time(0));
    assert_eq!(stand_at(&election), 0);
    election.give_way(Time(10), &config);
    assert_eq!(stand_at(&election), 10 + TIMEOUT);
    election.give_way(Time(5), &config);
    assert_eq!(stand_at(&election), 10 + TIMEOUT);
    election.give_way_if_due(Time(9 + TIMEOUT), &config);
    assert_eq!(stand_at(&election), 10 + TIMEOUT);
    election.give_way_if_due(Time(10 + TIMEOUT), &config);
    assert_eq!(stand_at(&election), 10 + 2 * TIMEOUT);
    election.back_off(Time(40), &config);
    assert_eq!(stand_at(&election), 40);
}

#[test]
fn a_candidates_patience_doubles_with_each_failure_up_to_eight_times() {
    let config = config(3);
    let mut election = Election::new(&config, Time(0));
    let patience: Vec<u64> = (0..6)
        .map(|_| {
            let patience = election.patience_ns(&config);
            election.stood();
            patience / TIMEOUT
        })
        .collect();
    assert_eq!(patience, [1, 1, 2, 4, 8, 8]);
    election.on_leader(Time(0), ballot(1, 2), &config);
    election.stood();
    assert_eq!(election.patience_ns(&config), TIMEOUT);
}

#[test]
fn a_heartbeat_is_due_by_the_clock_or_when_its_role_changed() {
    let config = config(3);
    let mut election = Election::new(&config, Time(7));
    let (follows, searches) = (HeartbeatRole::Following, HeartbeatRole::Searching);
    assert!(election.heartbeat_due(Time(7), searches));
    election.heartbeat_sent(Time(7), searches, &config);
    assert!(!election.heartbeat_due(Time(6 + BEAT), searches));
    assert!(election.heartbeat_due(Time(7 + BEAT), searches));
    assert!(election.heartbeat_due(Time(8 + BEAT), searches));
    assert!(election.heartbeat_due(Time(8), follows));
}

#[test]
fn whoever_holds_most_of_what_is_missing_is_asked() {
    let (config, mut election) = heard(0, [searching(), searching()]);
    let mut hear = |replica: u8, commit_index: u64, trim_floor: u64| {
        let heartbeat = Heartbeat {
            trim_floor: Slot(trim_floor),
            ..heartbeat(Ballot::ZERO, HeartbeatRole::Searching, commit_index)
        };
        election.on_heartbeat(Time(0), ReplicaId(replica), heartbeat);
        let source = |own, except: Option<u8>| {
            let except = except.map(ReplicaId);
            let source = election.best_source(Time(1), &config, Slot(own), Slot::ZERO, except);
            source.map(|replica| replica.0)
        };
        (source(4, None), source(4, Some(2)), source(4, Some(3)))
    };
    assert_eq!(hear(2, 4, 1), (None, None, None));
    assert_eq!(hear(2, 5, 1), (Some(2), None, Some(2)));
    assert_eq!(hear(3, 7, 1), (Some(3), Some(3), Some(2)));
    assert_eq!(hear(2, 9, 1), (Some(2), Some(3), Some(2)));
    // Replica 2 trimmed away what is needed first: slot 5 may be the first that it holds, not slot 6.
    assert_eq!(hear(2, 9, 5), (Some(2), Some(3), Some(2)));
    assert_eq!(hear(2, 9, 6), (Some(3), Some(3), None));
}

#[test]
fn a_promise_tells_more_recently_than_a_heartbeat_what_its_sender_holds() {
    let (config, mut election) = heard(0, [searching(), searching()]);
    election.note_held(ReplicaId(3), Slot(5), Slot(1));
    let source = |election: &Election, own| {
        election.best_source(Time(1), &config, Slot(own), Slot::ZERO, None)
    };
    assert_eq!(source(&election, 4), Some(ReplicaId(3)));
    election.note_held(ReplicaId(3), Slot(2), Slot(1));
    assert_eq!(source(&election, 4), Some(ReplicaId(3)));
    assert_eq!(source(&election, 5), None);
    // Of a replica that was never heard nothing is known.
    let mut election = Election::new(&config, Time(0));
    election.note_held(ReplicaId(3), Slot(5), Slot(1));
    assert_eq!(source(&election, 4), None);
}

#[test]
fn it_wakes_for_whatever_comes_first() {
    let mut config = config(3);
    config.timers.election_jitter_ns = 100 * MS;
    let mut election = Election::new(&config, Time(0));
    election.heartbeat_sent(Time(0), HeartbeatRole::Following, &config);
    election.on_leader(Time(0), ballot(1, 2), &config);
    assert_eq!(election.deadline(&config, true), Time(BEAT));
    assert_eq!(election.deadline(&config, false), Time(BEAT));
    // Its next heartbeat comes after the leader is taken for gone: it says so at once, though it stands later.
    election.heartbeat_sent(Time(TIMEOUT - 1), HeartbeatRole::Following, &config);
    assert_eq!(election.deadline(&config, true), Time(TIMEOUT));
    // A leader or candidate does not wait to stand.
    assert_eq!(election.deadline(&config, false), Time(TIMEOUT - 1 + BEAT));
    election.back_off(Time(0), &config);
    assert!(election.deadline(&config, true) < Time(100 * MS));
}

#[test]
fn a_follower_that_holds_all_that_is_asked_for_is_asked_before_the_leader() {
    let (config, mut election) = heard(0, [searching(), searching()]);
    let mut hear = |replica: u8, role, commit_index| {
        let heartbeat = heartbeat(ballot(1, 2), role, commit_index);
        election.on_heartbeat(Time(0), ReplicaId(replica), heartbeat);
    };
    hear(2, HeartbeatRole::Leading, 100);
    hear(3, HeartbeatRole::Following, 90);
    let source = |through| {
        let found = election.best_source(Time(1), &config, Slot(5), Slot(through), None);
        found.map(|replica| replica.0)
    };
    assert_eq!(
        (source(90), source(91), source(100)),
        (Some(3), Some(2), Some(2))
    );
    assert_eq!(election.highest_commit_index(Time(1), &config), Slot(100));
    // Neither holds it all: still rather the one with time.
    assert_eq!(source(101), Some(3));
}

#[test]
fn one_that_slept_waits_for_its_leader_as_long_as_before_and_is_due_no_earlier() {
    let (config, mut election) = heard(0, [searching(), searching()]);
    let timeout = config.timers.election_timeout_ns;
    election.on_leader(Time(0), ballot(1, 2), &config);
    election.heartbeat_sent(Time(0), HeartbeatRole::Following, &config);
    let gap = 10 * timeout;
    let now = Time(gap + 1);
    assert_eq!(election.live_leader(now, &config), None);
    election.slept(gap);
    assert_eq!(election.live_leader(now, &config), Some(ballot(1, 2)));
    election.heartbeat_sent(now, HeartbeatRole::Following, &config);
    assert!(!election.should_stand(now, &config, candidacy()));
    assert!(
        election.deadline(&config, true) > now,
        "it wakes for nothing"
    );
    // Once only: who sleeps again has not heard anything since.
    election.slept(gap);
    assert_eq!(election.live_leader(now.plus(gap), &config), None);
}

/// Otherwise two that are heard and get nothing through would take turns, each eager as soon as the other one gives up.
#[test]
fn who_led_in_vain_waits_until_the_next_one_may_have_led_in_vain_too() {
    let (config, mut election) = heard(0, [searching(), searching()]);
    election.retire(Time(0), &config);
    let next_one = 2 * config.timers.disk_stall_ns;
    let mut at = 0;
    let mut stands = |at: u64| {
        for replica in [2, 3] {
            election.on_heartbeat(Time(at), ReplicaId(replica), searching());
        }
        election.should_stand(Time(at), &config, candidacy())
    };
    while at < next_one {
        assert!(!stands(at), "after {} ms", at / MS);
        at += BEAT;
    }
    assert!(stands(next_one + 2 * TIMEOUT));
}
