//! What the disk owes, counted once more record by record.

use proptest::prelude::*;

use synod_engine::ids::{Lsn, Slot, Time};
use synod_engine::message::{Accept, Record, Value};
use synod_engine::output::Output;
use synod_engine::persist::{OWED_BYTES_MAX, OWED_PROMISE_BYTES_MAX, OWED_RECORD_BYTES, Persist};

use super::ballot;

const STALL_NS: u64 = 50;

#[derive(Clone, Copy, Debug)]
enum Event {
    Accepted {
        bytes: usize,
    },
    Chosen {
        bytes: usize,
    },
    Promised,
    Trimmed,
    /// So many more records are durable.
    Durable {
        more: u64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let sizes = [0, 1, 1_000, OWED_BYTES_MAX / 2, OWED_BYTES_MAX / 2 - 1];
    let bytes = proptest::sample::select(sizes.to_vec());
    prop_oneof![
        bytes.clone().prop_map(|bytes| Event::Accepted { bytes }),
        bytes.prop_map(|bytes| Event::Chosen { bytes }),
        Just(Event::Promised),
        Just(Event::Trimmed),
        (0u64..4).prop_map(|more| Event::Durable { more }),
        (0u64..4).prop_map(|more| Event::Durable { more }),
    ]
}

fn record(event: Event, value: &Value) -> Option<(Record, usize)> {
    let promised = ballot(1, 1);
    match event {
        Event::Accepted { bytes } => {
            let accept = Accept {
                ballot: promised,
                slot: Slot(1),
                commit_index: Slot::ZERO,
                value: value.slice(..bytes),
            };
            Some((Record::Accepted(accept), bytes))
        }
        Event::Chosen { bytes } => {
            let (slot, value) = (Slot(1), value.slice(..bytes));
            Some((Record::Chosen { slot, value }, bytes))
        }
        Event::Promised => Some((Record::Promised { ballot: promised }, 0)),
        Event::Trimmed => Some((Record::Trimmed { floor: Slot(1) }, 0)),
        Event::Durable { .. } => None,
    }
}

proptest! {
    #[test]
    fn what_the_disk_owes_agrees_with_a_count_of_every_record(
        start in 0u64..3,
        events in proptest::collection::vec((event(), 0u64..80), 0..40),
    ) {
        let value = Value::from(vec![0; OWED_BYTES_MAX / 2]);
        let mut persist = Persist::new(Lsn(start), OWED_BYTES_MAX);
        let mut out = Output::default();
        // The oracle: the bytes of each record, how many are durable, and when the disk last did or got something.
        let mut bytes_of: Vec<usize> = Vec::new();
        let (mut durable, mut moved, mut now) = (0, 0, 0);
        for (event, pause) in events {
            now += pause;
            if let Event::Durable { more } = event {
                let more = more.min((bytes_of.len() - durable) as u64);
                durable += more as usize;
                if more > 0 {
                    moved = now;
                }
                let news = persist.advance(Time(now), Lsn(start + durable as u64));
                prop_assert_eq!(news, more > 0);
            }
            if let Some((record, bytes)) = record(event, &value) {
                if durable == bytes_of.len() {
                    moved = now;
                }
                bytes_of.push(OWED_RECORD_BYTES + bytes);
                let lsn = persist.append(Time(now), record, &mut out);
                prop_assert_eq!(lsn, Lsn(start + bytes_of.len() as u64));
                prop_assert_eq!(out.records.last().map(|(lsn, _)| *lsn), Some(lsn));
            }
            let owed: usize = bytes_of[durable..].iter().sum();
            let owes = durable < bytes_of.len();
            prop_assert_eq!(persist.owed_bytes(), owed);
            prop_assert_eq!(persist.has_room(), owed < OWED_BYTES_MAX);
            let promises_max = OWED_BYTES_MAX + OWED_PROMISE_BYTES_MAX;
            prop_assert_eq!(persist.has_room_for_promise(), owed < promises_max);
            prop_assert_eq!(persist.durable(), Lsn(start + durable as u64));
            prop_assert_eq!(persist.appended(), Lsn(start + bytes_of.len() as u64));
            prop_assert_eq!(persist.stall_at(STALL_NS), owes.then_some(Time(moved + STALL_NS)));
            for at in [now, moved + STALL_NS - 1, moved + STALL_NS] {
                let stalled = owes && at >= moved + STALL_NS;
                prop_assert_eq!(persist.stalled(Time(at), STALL_NS), stalled);
            }
        }
    }
}

#[test]
fn two_halves_fill_it_and_a_byte_less_does_not() {
    let half = OWED_BYTES_MAX / 2 - OWED_RECORD_BYTES;
    for (bytes, room) in [(half, false), (half - 1, true)] {
        let mut persist = Persist::new(Lsn::ZERO, OWED_BYTES_MAX);
        let mut out = Output::default();
        for bytes in [half, bytes] {
            let value = Value::from(vec![0; bytes]);
            persist.append(
                Time(0),
                Record::Chosen {
                    slot: Slot(1),
                    value,
                },
                &mut out,
            );
        }
        assert_eq!(persist.has_room(), room);
    }
}

#[test]
#[should_panic(expected = "durable went back")]
fn durable_never_goes_back() {
    let mut persist = Persist::new(Lsn(5), 1);
    persist.advance(Time(0), Lsn(4));
}

#[test]
#[should_panic(expected = "was appended")]
fn nothing_is_durable_that_was_not_appended() {
    let mut persist = Persist::new(Lsn(5), 1);
    persist.advance(Time(0), Lsn(6));
}
