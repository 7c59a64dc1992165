//! The leader's side of Phase 2: its window, and what each peer is sent.

use synod_engine::config::Config;
use synod_engine::ids::{Ballot, Lsn, ReplicaId, ReplicaSet, Slot, Time};
use synod_engine::leader::Leader;
use synod_engine::message::{Heartbeat, HeartbeatRole, Value};
use synod_engine::output::Output;
use synod_engine::slots::Slots;

use super::ballot;

const TWO: ReplicaId = ReplicaId(2);
const THREE: ReplicaId = ReplicaId(3);
const MS: u64 = 1_000_000;

fn config() -> Config {
    Config::new(ReplicaId(1), 3, 1)
}

fn leads() -> Ballot {
    ballot(5, 1)
}

/// A leader of nothing yet, whose peers are both sent everything.
fn leader(config: &Config) -> Leader {
    let mut leader = Leader::new(leads(), config, Time(0), Slot(1), Slot(1));
    for peer in [TWO, THREE] {
        leader.stream_from(Time(0), peer, Slot(1));
    }
    leader
}

/// Slots 1 to `chosen` are chosen, those below `base` no longer in memory.
fn slots(chosen: u64, base: u64) -> Slots {
    let mut slots = Slots::new();
    let mut out = Output::default();
    for slot in 1..=chosen {
        slots.choose(Slot(slot), Value::from_static(b"v"), Lsn::ZERO, &mut out);
    }
    slots.evict(usize::MAX, chosen + 1 - base, Lsn::ZERO);
    assert_eq!(slots.base(), Slot(base));
    slots
}

fn heartbeat(ballot: Ballot, commit_index: u64, received: u64) -> Heartbeat {
    Heartbeat {
        ballot,
        role: HeartbeatRole::Following,
        hears: ReplicaSet::first(3),
        commit_index: Slot(commit_index),
        received: Slot(received),
        stored: Slot(commit_index),
        owed_bytes: 0,
        trim_floor: Slot(1),
    }
}

#[test]
fn it_counts_what_is_in_flight_from_proposal_to_choice() {
    let config = config();
    let mut leader = Leader::new(leads(), &config, Time(3), Slot(4), Slot(5));
    assert_eq!(leader.progress_at(), Time(3));
    assert_eq!(leader.in_flight_slots(), 0);
    leader.check(Slot(3));
    for slot in 4..=6 {
        assert_eq!(leader.next(), Slot(slot));
        let (proposed, to) = leader.propose(Time(10), 1, &config);
        assert_eq!((proposed, to), (Slot(slot), ReplicaSet::EMPTY));
    }
    assert_eq!(leader.in_flight_slots(), 3);
    leader.check(Slot(3));
    leader.on_chosen(Time(20), Slot(5));
    assert_eq!(leader.in_flight_slots(), 1);
    assert_eq!(leader.progress_at(), Time(20));
    leader.check(Slot(5));
    assert!(!leader.established(Slot(4)));
    assert!(leader.established(Slot(5)));
    assert!(leader.established(Slot(6)));
}

#[test]
#[should_panic(expected = "are in flight above the commit index")]
fn a_window_that_does_not_fit_the_commit_index_ends_the_process() {
    let config = config();
    let mut leader = leader(&config);
    leader.propose(Time(0), 1, &config);
    leader.check(Slot(1));
}

#[test]
fn the_window_is_bounded_in_bytes() {
    let mut config = config();
    config.limits.window_bytes_max = 10;
    let in_flight = |bytes: &[usize]| {
        let mut leader = leader(&config);
        for bytes in bytes {
            leader.propose(Time(0), *bytes, &config);
        }
        leader
    };
    assert!(in_flight(&[9]).has_room(&config));
    assert!(!in_flight(&[10]).has_room(&config));
    assert!(!in_flight(&[11]).has_room(&config));
    let mut leader = in_flight(&[4, 5]);
    leader.on_chosen(Time(0), Slot(1));
    leader.propose(Time(0), 4, &config);
    leader.on_chosen(Time(0), Slot(2));
    // 4 bytes are in flight.
    assert!(leader.has_room(&config));
    leader.propose(Time(0), 5, &config);
    leader.on_chosen(Time(0), Slot(3));
    assert!(leader.has_room(&config));
    leader.propose(Time(0), 5, &config);
    assert!(!leader.has_room(&config));
}

/// How many slots may be in flight.
fn window(leader: &Leader, config: &Config) -> u64 {
    let mut leader = leader.clone();
    let room = (0..1_000).take_while(|_| {
        let room = leader.has_room(config);
        leader.propose(Time(0), 0, config);
        room
    });
    room.count() as u64
}

#[test]
fn the_window_remembers_the_shortest_latency_for_some_seconds() {
    let config = config();
    let mut leader = leader(&config);
    assert_eq!(window(&leader, &config), 2);
    let mut choose = |at_ms: u64, latency_ms: u64| {
        let (slot, _) = leader.propose(Time((at_ms - latency_ms) * MS), 0, &config);
        leader.on_chosen(Time(at_ms * MS), slot);
        window(&leader, &config)
    };
    assert_eq!(choose(1_000, 5), 20);
    assert_eq!(choose(2_000, 2), 8);
    assert_eq!(choose(9_000, 10), 8);
    // The path is longer now; what was seen within ten seconds still counts, what is older than twenty does not.
    assert_eq!(choose(11_000, 10), 8);
    assert_eq!(choose(12_000, 10), 8);
    assert_eq!(choose(23_000, 10), 40);
    assert_eq!(choose(24_000, 5), 20);
    assert_eq!(choose(34_000, 10), 20);
    assert_eq!(choose(47_000, 20), 40);
}

#[test]
fn a_proposal_goes_to_the_peers_that_have_everything_before_it() {
    let config = config();
    let mut leader = Leader::new(leads(), &config, Time(0), Slot(5), Slot(5));
    let propose = |leader: &mut Leader| leader.propose(Time(0), 1, &config).1;
    assert_eq!(propose(&mut leader), ReplicaSet::EMPTY);
    leader.stream_from(Time(0), TWO, Slot(6));
    leader.stream_from(Time(0), THREE, Slot(5));
    // Replica 3 lacks slot 5 still.
    assert_eq!(propose(&mut leader), ReplicaSet::one(TWO));
    leader.sent(Time(0), THREE, Slot(5), 1);
    leader.sent(Time(0), THREE, Slot(6), 1);
    assert_eq!(
        propose(&mut leader),
        ReplicaSet::first(3).without(ReplicaId(1))
    );
}

#[test]
fn acknowledgements_make_a_value_chosen_and_room_for_the_peer_that_sent_them() {
    let mut config = config();
    config.limits.peer_bytes_max = 10;
    config.limits.window_slots_max = 4;
    let mut leader = leader(&config);
    let both = ReplicaSet::first(3).without(ReplicaId(1));
    let propose = |leader: &mut Leader, bytes| leader.propose(Time(0), bytes, &config).1;
    assert_eq!(propose(&mut leader, 4), both);
    assert_eq!(propose(&mut leader, 5), both);
    // Nine bytes are under way to each: one more value may go, and then none.
    assert_eq!(propose(&mut leader, 1), both);
    assert_eq!(propose(&mut leader, 1), ReplicaSet::EMPTY);
    let slots = Slots::new();
    assert_eq!(leader.next_for(&config, &slots), None);
    assert_eq!(
        leader.on_accepted(Time(1), ReplicaId(1), Slot(4), 2),
        Slot(0)
    );
    assert_eq!(leader.on_accepted(Time(1), THREE, Slot(1), 2), Slot(1));
    assert_eq!(leader.next_for(&config, &slots), Some((THREE, Slot(4))));
    leader.sent(Time(1), THREE, Slot(4), 1);
    // Slots 2, 3 and 4 make seven bytes; a fourth value of any size fits, a fifth would be one slot too many.
    assert_eq!(propose(&mut leader, 0), ReplicaSet::one(THREE));
    assert_eq!(propose(&mut leader, 0), ReplicaSet::EMPTY);
    assert_eq!(leader.next_for(&config, &slots), None);
    assert_eq!(leader.on_accepted(Time(1), TWO, Slot(3), 2), Slot(3));
    assert_eq!(leader.next_for(&config, &slots), Some((TWO, Slot(4))));
}

#[test]
#[should_panic(expected = "is the next to propose")]
fn nobody_acknowledges_what_was_not_proposed() {
    let config = config();
    leader(&config).on_accepted(Time(0), TWO, Slot(1), 2);
}

#[test]
fn a_lagging_peer_is_served_from_memory_and_what_is_gone_it_fetches() {
    let config = config();
    let slots = slots(9, 4);
    let next_for = |peer: u64| {
        let mut leader = Leader::new(leads(), &config, Time(0), Slot(10), Slot(10));
        leader.stream_from(Time(0), TWO, Slot(peer));
        let next = leader.next_for(&config, &slots);
        // Who was found to lag too far behind is not looked at again.
        assert_eq!(leader.next_for(&config, &slots), next);
        let to = leader.propose(Time(0), 1, &config).1;
        (next, to.contains(TWO))
    };
    assert_eq!(next_for(3), (None, false));
    assert_eq!(next_for(4), (Some((TWO, Slot(4))), false));
    assert_eq!(next_for(9), (Some((TWO, Slot(9))), false));
    assert_eq!(next_for(10), (None, true));
}

/// A leader of slots up to 9, of which `base` and above are in memory, before it knows anything of its peers.
struct Nine {
    leader: Leader,
    slots: Slots,
    config: Config,
}

impl Nine {
    fn new(base: u64) -> Nine {
        let config = config();
        Nine {
            leader: Leader::new(leads(), &config, Time(0), Slot(10), Slot(10)),
            slots: slots(9, base),
            config,
        }
    }

    /// The next slot for replica 2 after its heartbeat.
    fn hear(&mut self, at: u64, heartbeat: Heartbeat) -> Option<u64> {
        self.leader
            .on_heartbeat(Time(at), TWO, &heartbeat, &self.slots, &self.config);
        self.next()
    }

    fn next(&mut self) -> Option<u64> {
        let next = self.leader.next_for(&self.config, &self.slots);
        next.map(|(replica, slot)| {
            assert_eq!(replica, TWO);
            slot.0
        })
    }

    /// Sends replica 2 everything it lacks.
    fn send_all(&mut self, at: u64) {
        for slot in self.next().into_iter().flat_map(|next| next..10) {
            self.leader.sent(Time(at), TWO, Slot(slot), 1);
        }
        assert_eq!(self.next(), None);
    }
}

#[test]
fn the_first_heartbeat_says_where_the_stream_starts() {
    let start = |base, heartbeat| Nine::new(base).hear(1, heartbeat);
    // Of this ballot, what was received counts; before, only what is chosen.
    assert_eq!(start(1, heartbeat(leads(), 3, 6)), Some(7));
    assert_eq!(start(1, heartbeat(ballot(4, 2), 3, 6)), Some(4));
    // Who follows a higher ballot is not sent anything.
    assert_eq!(start(1, heartbeat(ballot(6, 2), 3, 6)), None);
    // Nor who lacks what is gone from memory.
    assert_eq!(start(4, heartbeat(leads(), 2, 2)), None);
    assert_eq!(start(4, heartbeat(leads(), 3, 3)), Some(4));
    assert_eq!(start(4, heartbeat(leads(), 4, 4)), Some(5));
}

#[test]
fn a_peer_that_has_everything_is_sent_what_comes_next() {
    for (received, streams) in [(9, true), (10, false), (11, false)] {
        let mut nine = Nine::new(1);
        assert_eq!(nine.hear(1, heartbeat(leads(), 9, received)), None);
        // One that claims more than was ever proposed is wrong, and not trusted with anything.
        for _ in 0..3 {
            let to = nine.leader.propose(Time(2), 1, &nine.config).1;
            assert_eq!(to.contains(TWO), streams, "received {received}");
        }
    }
}

#[test]
fn only_the_peer_that_was_heard_is_streamed_to() {
    let mut nine = Nine::new(1);
    nine.hear(1, heartbeat(leads(), 9, 9));
    let to = nine.leader.propose(Time(2), 1, &nine.config).1;
    assert_eq!(to, ReplicaSet::one(TWO));
}

#[test]
fn what_got_lost_is_sent_again_once_the_peer_is_stuck() {
    let mut nine = Nine::new(1);
    let retransmit_ns = nine.config.timers.retransmit_ns;
    assert_eq!(nine.hear(0, heartbeat(leads(), 3, 3)), Some(4));
    nine.send_all(5);
    let stuck = heartbeat(leads(), 3, 3);
    assert_eq!(nine.hear(4 + retransmit_ns, stuck.clone()), None);
    assert_eq!(nine.hear(5 + retransmit_ns, stuck), Some(4));
    // It moves, if slowly: it is left the time from its last step on.
    nine.send_all(6 + retransmit_ns);
    let moved_at = 7 + retransmit_ns;
    let moved = heartbeat(leads(), 3, 4);
    assert_eq!(nine.hear(moved_at, moved.clone()), None);
    assert_eq!(nine.hear(moved_at + retransmit_ns - 1, moved.clone()), None);
    assert_eq!(nine.hear(moved_at + retransmit_ns, moved), Some(5));
    // Whoever received all that was sent is not stuck, however long ago that was.
    nine.send_all(8 + 2 * retransmit_ns);
    let all = heartbeat(leads(), 3, 9);
    assert_eq!(nine.hear(9 * retransmit_ns, all.clone()), None);
    assert_eq!(nine.hear(19 * retransmit_ns, all), None);
}

#[test]
fn a_peer_that_received_everything_still_has_to_acknowledge_it() {
    let mut nine = Nine::new(1);
    nine.config.limits.peer_bytes_max = 6;
    let all = heartbeat(leads(), 3, 9);
    nine.hear(0, heartbeat(leads(), 3, 3));
    nine.send_all(0);
    // Its disk hangs: six bytes are all that it is sent, however long that lasts.
    for at in [1, 9, 19].map(|times| times * nine.config.timers.retransmit_ns) {
        assert_eq!(nine.hear(at, all.clone()), None);
        assert!(
            !nine
                .leader
                .propose(Time(at), 1, &nine.config)
                .1
                .contains(TWO)
        );
    }
}

#[test]
fn an_acknowledgement_is_a_sign_that_the_peer_moves() {
    let mut nine = Nine::new(1);
    let retransmit_ns = nine.config.timers.retransmit_ns;
    nine.hear(0, heartbeat(leads(), 3, 3));
    nine.send_all(5);
    nine.leader.on_accepted(Time(100), TWO, Slot(5), 2);
    let late = heartbeat(leads(), 3, 3);
    assert_eq!(nine.hear(5 + retransmit_ns, late.clone()), None);
    assert_eq!(nine.hear(100 + retransmit_ns, late), Some(4));
}

#[test]
fn a_stream_pauses_when_what_got_lost_is_gone_from_memory() {
    let mut nine = Nine::new(1);
    let retransmit_ns = nine.config.timers.retransmit_ns;
    nine.hear(0, heartbeat(leads(), 3, 3));
    nine.send_all(0);
    nine.slots.evict(usize::MAX, 5, Lsn::ZERO);
    assert_eq!(nine.slots.base(), Slot(5));
    let stuck = heartbeat(leads(), 3, 3);
    assert_eq!(nine.hear(retransmit_ns, stuck), None);
    assert!(
        !nine
            .leader
            .propose(Time(0), 1, &nine.config)
            .1
            .contains(TWO)
    );
    // It fetched meanwhile, and is near enough again.
    assert_eq!(
        nine.hear(retransmit_ns + 1, heartbeat(leads(), 7, 7)),
        Some(8)
    );
}
