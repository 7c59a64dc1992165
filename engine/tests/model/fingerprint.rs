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

use synod_engine::ids::{ReplicaId, ReplicaSet};
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
    let learns = scope.fetches || node.stands() > 0 || role == Role::Candidate;
    // Whom to fetch from depends on what was heard.
    let heard = learns && (role == Role::Candidate || text.contains("behind_since: Some"));
    let cut = Cut {
        rounds: node.stands() > 0,
        learns,
        heard,
        durable: node.durable() as u64,
        now: node.now().0,
    };
    let mut canonical = String::with_capacity(text.len());
    cut.copy(&text, &mut canonical);
    write_disk(scope, node, &cut, &mut canonical);
    let _ = write!(
        canonical,
        "{:?} {:?} {:?} {:?} {:?}",
        node.id(),
        node.stands(),
        node.given(),
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
        let _ = write!(canonical, "{rest:?}");
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
    durable: u64,
    now: u64,
}

impl Cut {
    /// Copies `text` without the parts that make no difference.
    fn copy(&self, text: &str, canonical: &mut String) {
        let mut rest = text;
        while let Some(at) = rest.find([' ', '(']) {
            let (word, after) = rest.split_at(at + 1);
            self.word(word, "t", canonical);
            rest = after;
            if let Some(name) = self.skipped(rest) {
                rest = &rest[end_of_item(rest)..];
                if name == "election: " && self.heard {
                    let election = &after[..after.len() - rest.len()];
                    self.heard(election, canonical);
                }
            }
        }
        self.word(rest, "t", canonical);
    }

    fn skipped(&self, rest: &str) -> Option<&'static str> {
        const NAMES: [&str; 8] = [
            "config: ",
            "counters: ",
            "election: ",
            "leadership: ",
            "announced: ",
            "latency: ",
            "unacknowledged: ",
            "unacknowledged_bytes: ",
        ];
        if !self.rounds && rest.starts_with("round_seen: ") {
            return Some("round_seen: ");
        }
        if !self.learns && rest.starts_with("known: ") {
            return Some("known: ");
        }
        if !self.learns && rest.starts_with("behind_since: ") {
            return Some("behind_since: ");
        }
        NAMES.into_iter().find(|name| rest.starts_with(name))
    }

    /// The heartbeats heard, each with whether it is fresh.
    fn heard(&self, election: &str, canonical: &mut String) {
        let (_, heard) = election
            .split_once("heard: ")
            .expect("an election has heard");
        for word in heard[..end_of_item(heard)].split_inclusive([' ', '(']) {
            let fresh = if word.starts_with(&format!("t{}", self.now)) {
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
                let _ = write!(canonical, "lsn{}", lsn.saturating_sub(self.durable));
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
