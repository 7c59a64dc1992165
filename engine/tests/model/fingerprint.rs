//! When two states of a replica are the same: the debug text of the core without what cannot make a difference.
//!
//! Left out are, with the reason why no behaviour is merged away that the model could tell apart:
//! - the configuration (constant per replica), counters, and who the clients are told leads;
//! - clock readings: with the timers of [`Scope::config`] everything is due at once, and an event that needs time
//!   jumps by more than any timer. Only how fresh a peer's heartbeat is counts, where it counts (next point);
//! - the election, but for what was heard from peers while something has to be fetched: a replica stands by
//!   [`Event::Stand`] only, which makes all the rest anew;
//! - the commit latency (the window is the minimum of two slots with all of them being zero);
//! - record numbers, but for their distance from what is durable;
//! - the highest round seen, in a replica that never stands;
//! - the order of durable records, where the production replay makes the same of them.
//!
//! [`Event::Stand`]: crate::model::node::Event::Stand

use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

use synod_engine::ids::{Ballot, Lsn, ReplicaId, ReplicaSet, Slot, Time};
use synod_engine::message::Record;
use synod_engine::output::Output;

use crate::model::node::Node;
use crate::model::scope::Scope;

/// What a replica is as a proposer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Follower,
    Candidate,
    Leader,
}

/// Two hashes of the same text with different beginnings: equal texts have equal ones, and others practically never.
pub type Fingerprint = (u64, u64);

pub fn of(scope: &Scope, node: &Node) -> (Fingerprint, Role, ReplicaSet) {
    let text = format!("{:?}", node.replica);
    let role = role(&text);
    let cut = Cut::new(scope, node, &text, role);
    let mut canonical = String::with_capacity(text.len());
    cut.copy(&text, &mut canonical);
    write_disk(scope, node, &cut, &mut canonical);
    let _ = write!(
        canonical,
        "{:?} {:?} {:?} {:?}",
        node.id(),
        node.stands(),
        node.votes(),
        node.learned()
    );
    (hash(&canonical), role, paused(&text))
}

/// What a restart would make of the durable records, and the others as they are; or, if there will be no restart,
/// only what is being accepted by the others.
fn write_disk(scope: &Scope, node: &Node, cut: &Cut, canonical: &mut String) {
    let rest = &node.wal()[node.durable()..];
    if node.mortal() {
        let mut out = Output::default();
        let replay = node.replay(scope, &mut out);
        cut.copy(&format!("{replay:?}"), canonical);
        let _ = write!(canonical, "{rest:?} {:?}", node.given());
        return;
    }
    for record in rest {
        let _ = match record {
            Record::Accepted(accept) => {
                write!(
                    canonical,
                    "{} {} {:?},",
                    accept.slot, accept.ballot, accept.value
                )
            }
            Record::Promised { .. } | Record::Chosen { .. } | Record::Trimmed { .. } => {
                write!(canonical, "other,")
            }
        };
    }
}

fn hash(text: &str) -> Fingerprint {
    let with = |start: u8| {
        let mut hasher = DefaultHasher::new();
        hasher.write_u8(start);
        text.hash(&mut hasher);
        hasher.finish()
    };
    (with(1), with(2))
}

fn role(text: &str) -> Role {
    let (_, role) = text.split_once("role: ").expect("a replica has a role");
    if role.starts_with("Follower") {
        Role::Follower
    } else if role.starts_with("Candidate(") {
        Role::Candidate
    } else {
        assert!(role.starts_with("Leader("), "an unknown role");
        Role::Leader
    }
}

/// The peers to which a leader sends no Accepts yet.
fn paused(text: &str) -> ReplicaSet {
    text.split("Peer { replica: r")
        .skip(1)
        .filter(|peer| {
            peer.split("streaming: ")
                .nth(1)
                .is_some_and(|s| s.starts_with("false"))
        })
        .map(|peer| {
            let (id, _) = peer.split_once(',').expect("a peer has more fields");
            ReplicaId(id.parse().expect("a replica's number"))
        })
        .collect()
}

/// Which parts of the debug text stay.
struct Cut {
    rounds: bool,
    learns: bool,
    heard: bool,
    /// Whether what a leader said is chosen is all known here.
    leader_told_nothing: bool,
    /// Whether the ballot that was accepted at last is over, so that how much came of it counts no more.
    accepting_is_over: bool,
    promised: Ballot,
    durable: Lsn,
    chosen: Slot,
    now: Time,
}

impl Cut {
    fn new(scope: &Scope, node: &Node, text: &str, role: Role) -> Cut {
        let learns = scope.fetches || node.stands() > 0 || role == Role::Candidate;
        let promised = node.replica.promised();
        let chosen = node.replica.commit_index();
        let (leader, told) = after(text, "by_leader: (")
            .split_once(", s")
            .expect("a ballot and a slot");
        let leader_told_nothing = ballot(leader) <= promised && number(told) <= chosen.0;
        Cut {
            rounds: node.stands() > 0,
            learns,
            // Whom to fetch from depends on what was heard.
            heard: learns && (role == Role::Candidate || text.contains("behind_since: Some")),
            leader_told_nothing,
            accepting_is_over: leader_told_nothing && ballot(after(text, "accepting: ")) < promised,
            promised,
            durable: Lsn(node.durable() as u64),
            chosen,
            now: node.now(),
        }
    }

    /// Copies `text` without the parts that make no difference.
    fn copy(&self, text: &str, canonical: &mut String) {
        let mut rest = text;
        while let Some(at) = rest.find([' ', '(']) {
            let (word, after) = rest.split_at(at + 1);
            self.word(word, "t", canonical);
            rest = after;
            if let Some(tally) = rest.strip_prefix("through: [") {
                rest = self.tally(tally, canonical);
            } else if self.skips(rest) {
                let (skipped, after) = rest.split_at(end_of_item(rest));
                rest = after;
                if skipped.starts_with("election: ") && self.heard {
                    self.heard(skipped, canonical);
                } else if skipped.starts_with("held: ") {
                    self.held(skipped, canonical);
                }
            }
        }
        self.word(rest, "t", canonical);
    }

    /// Whether the field that `rest` begins with makes no difference, or only a part of it does.
    fn skips(&self, rest: &str) -> bool {
        const ALWAYS: [&str; 9] = [
            "config: ",
            "counters: ",
            "election: ",
            "held: ",
            "leadership: ",
            "announced: ",
            "latency: ",
            "unacknowledged: ",
            "unacknowledged_bytes: ",
        ];
        let any = |names: &[&str]| names.iter().any(|name| rest.starts_with(name));
        any(&ALWAYS)
            || !self.rounds && any(&["round_seen: "])
            || !self.learns && any(&["known: ", "behind_since: "])
            || self.leader_told_nothing && any(&["by_leader: "])
            || self.accepting_is_over && any(&["accepting: ", "received: ", "acknowledged: "])
    }

    /// The replies that will leave when they are durable; those of a ballot that is over never will.
    fn held(&self, held: &str, canonical: &mut String) {
        let ballot = format!("ballot: {},", self.promised);
        for reply in held
            .split("Held { ")
            .filter(|reply| reply.contains(&ballot))
        {
            for word in reply.split_inclusive([' ', '(']) {
                self.word(word, "t", canonical);
            }
        }
    }

    /// Who acknowledged how much of what is not chosen yet. Returns what follows.
    fn tally<'a>(&self, text: &'a str, canonical: &mut String) -> &'a str {
        let (through, rest) = text.split_once(']').expect("the tally ends");
        for slot in through.split(", ") {
            let slot: u64 = slot[1..].parse().expect("a slot");
            let _ = write!(canonical, "tally {} ", slot.max(self.chosen.0));
        }
        rest
    }

    /// The heartbeats heard, each with whether it is fresh.
    fn heard(&self, election: &str, canonical: &mut String) {
        let (_, heard) = election
            .split_once("heard: ")
            .expect("an election has heard");
        for word in heard[..end_of_item(heard)].split_inclusive([' ', '(']) {
            let fresh = if word.starts_with(&format!("t{}", self.now.0)) {
                "t-now"
            } else {
                "t-past"
            };
            self.word(word, fresh, canonical);
        }
    }

    /// One word with its clock reading replaced by `time`, and its record number by the distance from durable.
    fn word(&self, word: &str, time: &str, canonical: &mut String) {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        if let Some(number) = word.strip_prefix("lsn") {
            let length = digits(number);
            if length > 0 {
                let lsn: u64 = number[..length].parse().expect("a record's number");
                let _ = write!(canonical, "lsn{}", lsn.saturating_sub(self.durable.0));
                return canonical.push_str(&number[length..]);
            }
        }
        if let Some(number) = word.strip_prefix('t') {
            let length = digits(number);
            if length > 0 {
                canonical.push_str(time);
                return canonical.push_str(&number[length..]);
            }
        }
        canonical.push_str(word);
    }
}

/// What follows a field's name.
fn after<'a>(text: &'a str, name: &str) -> &'a str {
    let (_, after) = text
        .split_once(name)
        .unwrap_or_else(|| panic!("{name} is not in {text}"));
    after
}

/// The number that `text` begins with.
fn number(text: &str) -> u64 {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().expect("a number")
}

/// The ballot that `text` begins with.
fn ballot(text: &str) -> Ballot {
    let (round, replica) = text.split_once('.').expect("round and replica");
    Ballot {
        round: number(round),
        replica: ReplicaId(number(replica) as u8),
    }
}

/// The length of the field or element that `text` begins with: up to the comma or bracket that ends it.
fn end_of_item(text: &str) -> usize {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' if depth == 0 => return at,
            b'}' | b')' | b']' => depth -= 1,
            b',' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}
