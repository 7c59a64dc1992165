//! What is changed, where. Each is a mistake that somebody made in a system of this kind.

pub struct Bug {
    pub name: &'static str,
    pub edits: &'static [Edit],
}

/// `find` stands exactly once in `file`.
pub struct Edit {
    pub file: &'static str,
    pub find: &'static str,
    pub replace: &'static str,
}

const ACCEPTOR: &str = "engine/src/acceptor.rs";
const CANDIDATE: &str = "engine/src/candidate.rs";
const DRIVER_SNAPSHOTS: &str = "engine/src/driver/snapshots.rs";
const GROUP: &str = "storage/src/group.rs";

pub const BUGS: &[Bug] = &[
    Bug {
        name: "reply before sync",
        edits: &[Edit {
            file: ACCEPTOR,
            find: "self.held.front().is_some_and(|held| held.after <= durable)",
            replace: "durable >= Lsn::ZERO && !self.held.is_empty()",
        }],
    },
    Bug {
        name: "ballot not persisted",
        edits: &[Edit {
            file: "engine/src/replica/following.rs",
            find: "let lsn = self.persist.append(now, Record::Promised { ballot }, out);\n                self.acceptor.hold_promise",
            replace: "let lsn = self.persist.appended();\n                self.acceptor.hold_promise",
        }],
    },
    Bug {
        name: "highest ballot ignored in Phase 1",
        edits: &[Edit {
            file: CANDIDATE,
            find: "if accepted.ballot > best.0 {",
            replace: "if best.0 == Ballot::ZERO {",
        }],
    },
    Bug {
        name: "quorum off by one",
        edits: &[Edit {
            file: "engine/src/quorum.rs",
            find: "sorted[sorted.len() - usize::from(quorum)]",
            replace: "sorted[(sorted.len() + 1 - usize::from(quorum)).min(sorted.len() - 1)]",
        }],
    },
    Bug {
        name: "stale acknowledgement after a promise",
        edits: &[Edit {
            file: ACCEPTOR,
            find: "            self.received = commit_index;\n            self.acknowledged = Slot::ZERO;\n",
            replace: "            self.received = self.received.max(commit_index);\n",
        }],
    },
    Bug {
        name: "duplicate vote counted",
        edits: &[
            Edit {
                file: CANDIDATE,
                find: "if self.promises.iter().any(repeated) {",
                replace: "if self.promises.iter().any(repeated) && self.promises.len() > 9 {",
            },
            Edit {
                file: CANDIDATE,
                find: "if self.promised(members).len() < usize::from(quorums.prepare) {",
                replace: "if self.promises.len() < usize::from(quorums.prepare) {",
            },
        ],
    },
    Bug {
        name: "recovered values not proposed again",
        edits: &[Edit {
            file: "engine/src/replica/leading.rs",
            find: "values.push(Value::new());",
            replace: "values = vec![Value::new()];",
        }],
    },
    Bug {
        name: "session table not restored",
        edits: &[Edit {
            file: "engine/src/recovery.rs",
            find: "self.replay.promise(disk.promised);",
            replace: "self.replay.promise(disk.promised);\n        self.state.sessions = Default::default();",
        }],
    },
    Bug {
        name: "torn tail kept",
        edits: &[
            Edit {
                file: GROUP,
                find: "_ => return Found::Torn(i * SECTOR),",
                replace: "_ => {}",
            },
            Edit {
                file: GROUP,
                find: "return Found::Damaged(end + at, \"padding is not zero\");",
                replace: "let _ = at;",
            },
            Edit {
                file: "storage/src/record.rs",
                find: "checksum(record, identity) != u32_at(record, 4)",
                replace: "checksum(record, identity) == 0",
            },
        ],
    },
    Bug {
        name: "recycled bytes read",
        edits: &[Edit {
            file: "storage/src/format.rs",
            find: "SegmentIdentity(mix(mix(seed, self.0), sequence.0))",
            replace: "SegmentIdentity(self.0 | (mix(seed, sequence.0) & 0))",
        }],
    },
    Bug {
        name: "chosen by the leader alone",
        edits: &[Edit {
            file: "engine/src/replica/leading.rs",
            find: "let quorum = self.config.quorums.accept;",
            replace: "let quorum = self.config.quorums.accept / 2;",
        }],
    },
    Bug {
        name: "a wiped replica votes at once",
        edits: &[Edit {
            file: "engine/src/replica/rejoining.rs",
            find: "self.slots.members().incarnation(self.config.replica) == own\n            && (own == Incarnation::FOUNDING || self.acceptor.promised() > Ballot::ZERO)",
            replace: "own == self.acceptor.incarnation()",
        }],
    },
    Bug {
        name: "a hole is taken for nothing accepted",
        edits: &[Edit {
            file: "engine/src/mending.rs",
            find: "self.missing.insert(start, slot_max);",
            replace: "let _ = start;",
        }],
    },
    Bug {
        name: "promises of former lives count",
        edits: &[Edit {
            file: CANDIDATE,
            find: "promised.incarnation == self.incarnation(promised.replica, members)",
            replace: "promised.commit_index >= Slot::ZERO || self.incarnation(promised.replica, members) == promised.incarnation",
        }],
    },
    Bug {
        name: "snapshot installed before it is durable",
        edits: &[Edit {
            file: DRIVER_SNAPSHOTS,
            find: "self.snapshots.writing = Writing::Received(snapshot, Box::new(restored));",
            replace: "self.install(now, snapshot, restored);",
        }],
    },
    Bug {
        name: "session table missing from the snapshot",
        edits: &[Edit {
            file: "engine/src/snapshot/taking.rs",
            find: "phase: Phase::Sessions,",
            replace: "phase: Phase::Machine,",
        }],
    },
    Bug {
        name: "what changes under a snapshot is not saved",
        edits: &[Edit {
            file: "engine/src/machine/kv/table.rs",
            find: "|| place.walk == self.walks {\n            return;",
            replace: "|| place.walk <= self.walks {\n            return;",
        }],
    },
    Bug {
        name: "trimmed slots read as nothing accepted",
        edits: &[Edit {
            file: CANDIDATE,
            find: "if through > commit_index {",
            replace: "if through.0 > commit_index.0.saturating_add(1 << 40) {",
        }],
    },
    Bug {
        name: "trim past the snapshot",
        edits: &[Edit {
            file: "engine/src/retention.rs",
            find: "let floor = self.complete[older].slot.next();",
            replace: "let floor = Slot(self.complete[older + 1].slot.0 + 2);",
        }],
    },
    Bug {
        name: "trim before the floor is durable",
        edits: &[Edit {
            file: "engine/src/retention.rs",
            find: "self.trimming.take_if(|(lsn, _)| *lsn <= durable)?;",
            replace: "self.trimming.take_if(|(lsn, _)| lsn.0 <= durable.0 + 1_000)?;",
        }],
    },
    Bug {
        name: "the wrong session is evicted",
        edits: &[Edit {
            file: "engine/src/sessions.rs",
            find: "let Some(rank) = self.ranks.of(greediest).next() else {",
            replace: "let Some(rank) = self.ranks.of(greediest).last() else {",
        }],
    },
    Bug {
        name: "each eviction looks at every session",
        edits: &[Edit {
            file: "engine/src/sessions.rs",
            find: "let Some(rank) = self.ranks.of(greediest).next() else {",
            replace: "let counter = &mut self.counters.sessions_emptied;\n        let Some(rank) = self.ranks.of(greediest).inspect(|_| *counter += 1).min() else {",
        }],
    },
    Bug {
        name: "accepting is no promise behind a snapshot",
        edits: &[Edit {
            file: GROUP,
            find: "self.promised = self.promised.max(accept.ballot);",
            replace: "",
        }],
    },
];
