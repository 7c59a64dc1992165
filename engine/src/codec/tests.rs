//! What is encoded decodes to itself, and nothing else does.

use proptest::prelude::*;

use super::*;

fn ballot() -> impl Strategy<Value = Ballot> {
    (any::<u64>(), 0u8..16).prop_map(|(round, replica)| Ballot {
        round,
        replica: ReplicaId(replica),
    })
}

fn slot() -> impl Strategy<Value = Slot> {
    any::<u64>().prop_map(Slot)
}

fn value() -> impl Strategy<Value = Value> {
    proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn snapshot() -> impl Strategy<Value = SnapshotInfo> {
    (slot(), any::<u64>(), any::<u64>()).prop_map(|(slot, bytes, checksum)| SnapshotInfo {
        slot,
        bytes,
        checksum,
    })
}

fn heartbeat() -> impl Strategy<Value = Heartbeat> {
    let role = prop_oneof![
        Just(HeartbeatRole::Leading),
        Just(HeartbeatRole::Following),
        Just(HeartbeatRole::Searching),
        Just(HeartbeatRole::Standing),
        Just(HeartbeatRole::Founding),
        any::<u64>().prop_map(|incarnation| HeartbeatRole::Readmitting {
            incarnation: Incarnation(incarnation),
        }),
    ];
    let slots = (slot(), slot(), slot(), slot());
    (ballot(), role, any::<u16>(), slots, any::<u32>()).prop_map(
        |(ballot, role, hears, (commit_index, received, stored, trim_floor), owed_bytes)| {
            Heartbeat {
                ballot,
                role,
                hears: ReplicaSet(hears),
                commit_index,
                received,
                stored,
                owed_bytes,
                trim_floor,
            }
        },
    )
}

fn promise() -> impl Strategy<Value = Promise> {
    let accepted = (slot(), ballot(), value()).prop_map(|(slot, ballot, value)| AcceptedValue {
        slot,
        ballot,
        value,
    });
    (
        ballot(),
        any::<u64>(),
        slot(),
        slot(),
        proptest::collection::vec(accepted, 0..5),
    )
        .prop_map(
            |(ballot, incarnation, commit_index, trim_floor, accepted)| Promise {
                ballot,
                incarnation: Incarnation(incarnation),
                commit_index,
                trim_floor,
                accepted,
            },
        )
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (ballot(), slot()).prop_map(|(ballot, commit_index)| {
            Message::Prepare(Prepare {
                ballot,
                commit_index,
            })
        }),
        promise().prop_map(Message::Promise),
        ballot().prop_map(|promised| Message::Reject(Reject { promised })),
        (ballot(), slot(), slot(), value()).prop_map(|(ballot, slot, commit_index, value)| {
            Message::Accept(Accept {
                ballot,
                slot,
                commit_index,
                value,
            })
        }),
        (ballot(), slot())
            .prop_map(|(ballot, through)| Message::Accepted(Accepted { ballot, through })),
        heartbeat().prop_map(Message::Heartbeat),
        (any::<bool>(), slot()).prop_map(|(took_part, commit_index)| {
            Message::Known(Known {
                took_part,
                commit_index,
            })
        }),
        (slot(), slot()).prop_map(|(from, through)| Message::Fetch(Fetch { from, through })),
        (slot(), proptest::collection::vec(value(), 0..5))
            .prop_map(|(from, values)| Message::Chosen(Chosen { from, values })),
        (proptest::option::of(snapshot()), any::<u64>(), any::<u32>()).prop_map(
            |(snapshot, offset, bytes)| {
                Message::FetchSnapshot(FetchSnapshot {
                    snapshot,
                    offset,
                    bytes,
                })
            }
        ),
        (slot(), any::<u64>(), any::<u64>()).prop_map(|(slot, machine, sessions)| {
            Message::StateHash(StateHash {
                slot,
                machine,
                sessions,
            })
        }),
        (snapshot(), any::<u64>(), value()).prop_map(|(snapshot, offset, bytes)| {
            Message::SnapshotPart(SnapshotPart {
                snapshot,
                offset,
                bytes,
            })
        }),
    ]
}

fn on_the_wire(message: &Message) -> Bytes {
    let frame = encode(message);
    let mut whole = BytesMut::from(&frame.head[..]);
    whole.extend_from_slice(&frame.body);
    whole.freeze()
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_itself(message in message()) {
        let mut wire = on_the_wire(&message);
        prop_assert_eq!(take_u32(&mut wire).expect("the length") as usize, wire.len());
        prop_assert_eq!(decode(wire).expect("our own frame"), message);
    }

    #[test]
    fn cut_frames_and_garbage_are_errors_not_panics(message in message(), cut in any::<prop::sample::Index>(), garbage in proptest::collection::vec(any::<u8>(), 0..60)) {
        let wire = on_the_wire(&message).slice(4..);
        let cut = cut.index(wire.len());
        // What is the rest of its frame is another content when cut, not an error.
        let open_ended = matches!(message, Message::Accept(_) | Message::SnapshotPart(_));
        if !open_ended {
            prop_assert!(decode(wire.slice(..cut)).is_err());
        }
        let _ = decode(Bytes::from(garbage));
    }
}

#[test]
fn trap_29_nothing_that_carries_values_shares_the_control_lane() {
    let value = Value::from_static(b"value");
    let accept = Message::Accept(Accept {
        ballot: Ballot::ZERO,
        slot: Slot(1),
        commit_index: Slot::ZERO,
        value: value.clone(),
    });
    let chosen = Message::Chosen(Chosen {
        from: Slot(1),
        values: vec![value.clone()],
    });
    let promise = Message::Promise(Promise {
        ballot: Ballot::ZERO,
        incarnation: Incarnation::FOUNDING,
        commit_index: Slot::ZERO,
        trim_floor: Slot(1),
        accepted: Vec::new(),
    });
    for message in [accept, chosen, promise] {
        assert_ne!(lane(&message), Lane::Control, "{message:?}");
    }
    let reject = Message::Reject(Reject {
        promised: Ballot::ZERO,
    });
    assert_eq!(lane(&reject), Lane::Control);
}
