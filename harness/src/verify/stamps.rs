//! What each client was promised, against what was executed.
//!
//! Every command of a load starts with a stamp: the client's tag and the command's number, from 1, both u64
//! little-endian.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use synod_engine::ids::{SessionId, Slot};

use super::Verdict;
use super::sessions::LastCommands;

pub const STAMP_BYTES: usize = 16;

/// One client's books at the end of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAccount {
    pub tag: u64,
    /// Commands 1 to `submitted` were handed to the client library.
    pub submitted: u64,
    /// Commands 1 to `acknowledged` were answered.
    pub acknowledged: u64,
    /// The one session that numbered these commands as their stamps do, if it was so.
    #[serde(default)]
    pub session: Option<u64>,
}

pub struct Stamps {
    clients: HashMap<u64, Client>,
    /// The sessions of the snapshot that the replay starts from; none if it starts with slot 1.
    before: LastCommands,
    executed: u64,
    disordered: u64,
    duplicated: u64,
    findings: Vec<String>,
}

struct Client {
    account: ClientAccount,
    /// Whether it is known where the replay finds this client.
    begun: bool,
    /// The commands that only the snapshot says were executed.
    vouched: u64,
    /// Every number up to here was executed or is in `skipped`.
    highest: u64,
    skipped: BTreeSet<u64>,
}

/// Numbers remembered as skipped, per client; a log with more of them is broken beyond counting.
const SKIPPED_MAX: u64 = 1_000_000;

impl Stamps {
    /// `before` is the table of sessions that the replay starts with, behind slot `start`.
    pub fn new(accounts: &[ClientAccount], start: Slot, before: LastCommands) -> Stamps {
        let client = |account: &ClientAccount| {
            let session = account.session;
            let last = session.map_or(0, |session| before.get(&session).copied().unwrap_or(0));
            let known = |session| {
                let opened = SessionId(session).opened_in().0;
                before.contains_key(&session) || !(1..=start.0).contains(&opened)
            };
            Client {
                account: *account,
                // A session that the table lacks although it was opened before was closed before: nobody can tell how
                // far it came.
                begun: session.is_some_and(known) || before.is_empty(),
                vouched: last,
                highest: last,
                skipped: BTreeSet::new(),
            }
        };
        Stamps {
            clients: accounts.iter().map(|a| (a.tag, client(a))).collect(),
            before,
            executed: 0,
            disordered: 0,
            duplicated: 0,
            findings: Vec::new(),
        }
    }

    /// A command of `session` with this stamp was executed.
    pub fn executed(&mut self, session: u64, stamp: &[u8; STAMP_BYTES]) {
        let (tag, number) = split(stamp);
        self.executed += 1;
        let Some(client) = self.clients.get_mut(&tag) else {
            return self.disordered(format!("a command of unknown client {tag:x} was executed"));
        };
        if !client.begun {
            client.begun = true;
            // What a session of the snapshot did before can't be told: it is taken to be all that was numbered before.
            if self.before.contains_key(&session) {
                client.vouched = number.saturating_sub(1);
                client.highest = client.vouched;
            }
        }
        if number == client.highest + 1 && number <= client.account.submitted {
            client.highest = number;
            return;
        }
        if number == 0 || number > client.account.submitted {
            return self.disordered(format!(
                "command {number} of client {tag:x} was executed but never submitted"
            ));
        }
        if number > client.highest {
            let from = client.highest + 1;
            client.skipped.extend(from..number.min(from + SKIPPED_MAX));
            client.highest = number;
            self.disordered(format!(
                "client {tag:x}: command {number} was executed before {from}"
            ));
        } else if !client.skipped.remove(&number) {
            self.duplicated += 1;
            self.note(format!(
                "command {number} of client {tag:x} was executed twice"
            ));
        }
    }

    /// A command was executed that has no room for a stamp: the session rule alone says that it was so once.
    pub fn counted(&mut self) {
        self.executed += 1;
    }

    /// A command without the stamp that it has room for was executed: none of ours.
    pub fn unstamped(&mut self) {
        self.executed += 1;
        self.disordered("a command without a stamp was executed".into());
    }

    pub fn finish(self, verdict: &mut Verdict) {
        verdict.executed += self.executed;
        verdict.disordered += self.disordered;
        verdict.duplicated += self.duplicated;
        for finding in self.findings {
            verdict.finding(|| finding);
        }
        let mut clients: Vec<Client> = self.clients.into_values().collect();
        clients.sort_by_key(|client| client.account.tag);
        for client in clients {
            let ClientAccount {
                tag, acknowledged, ..
            } = client.account;
            if !client.begun {
                verdict.vouched += acknowledged;
                continue;
            }
            verdict.vouched += client.vouched;
            let skipped = client.skipped.range(..=acknowledged).count() as u64;
            let lost = skipped + acknowledged.saturating_sub(client.highest);
            if lost > 0 {
                verdict.lost += lost;
                verdict.finding(|| {
                    format!("client {tag:x}: {lost} of {acknowledged} acknowledged commands were not executed")
                });
            }
        }
    }

    fn disordered(&mut self, finding: String) {
        self.disordered += 1;
        self.note(finding);
    }

    fn note(&mut self, finding: String) {
        if self.findings.len() < super::FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

fn split(stamp: &[u8; STAMP_BYTES]) -> (u64, u64) {
    let mut tag = [0u8; 8];
    let mut number = [0u8; 8];
    tag.copy_from_slice(&stamp[..8]);
    number.copy_from_slice(&stamp[8..]);
    (u64::from_le_bytes(tag), u64::from_le_bytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(acknowledged: u64, executed: &[u64]) -> Verdict {
        check_from(&[], None, acknowledged, executed)
    }

    /// All commands are of session 3.
    fn check_from(
        before: &[(u64, u64)],
        session: Option<u64>,
        acknowledged: u64,
        executed: &[u64],
    ) -> Verdict {
        let account = ClientAccount {
            tag: 7,
            submitted: 10,
            acknowledged,
            session,
        };
        let before = before.iter().copied().collect();
        let mut stamps = Stamps::new(&[account], Slot(9), before);
        for number in executed {
            let mut stamp = [0u8; STAMP_BYTES];
            stamp[..8].copy_from_slice(&7u64.to_le_bytes());
            stamp[8..].copy_from_slice(&number.to_le_bytes());
            stamps.executed(3, &stamp);
        }
        let mut verdict = Verdict::default();
        stamps.finish(&mut verdict);
        verdict
    }

    #[test]
    fn each_once_and_in_order_is_clean_even_beyond_what_was_acknowledged() {
        assert!(check(3, &[1, 2, 3]).is_clean());
        assert!(check(3, &[1, 2, 3, 4, 5]).is_clean());
        assert!(check(0, &[]).is_clean());
    }

    #[test]
    fn a_lost_command_is_found_at_the_end_and_in_the_middle() {
        assert_eq!(check(4, &[1, 2, 3]).lost, 1);
        assert_eq!(check(4, &[]).lost, 4);
        let verdict = check(4, &[1, 3, 4]);
        assert_eq!((verdict.lost, verdict.disordered), (1, 1));
    }

    #[test]
    fn a_duplicate_is_found() {
        assert_eq!(check(3, &[1, 2, 2, 3]).duplicated, 1);
        assert_eq!(check(3, &[1, 2, 3, 1]).duplicated, 1);
    }

    #[test]
    fn from_a_snapshot_on_its_session_table_says_what_was_before() {
        let before = [(3, 4), (5, 9)];
        let verdict = check_from(&before, Some(3), 6, &[5, 6]);
        assert!(verdict.is_clean(), "{:?}", verdict.findings);
        assert_eq!((verdict.executed, verdict.vouched), (2, 4));
        assert_eq!(check_from(&before, Some(3), 4, &[]).lost, 0);
        assert_eq!(check_from(&before, Some(3), 6, &[]).lost, 2);
        assert_eq!(check_from(&before, Some(3), 5, &[4, 5]).duplicated, 1);
        assert_eq!(check_from(&before, Some(3), 7, &[6, 7]).lost, 1);
        // A session that is not in the snapshot was opened after it.
        assert_eq!(check_from(&[(5, 9)], Some(3), 5, &[5]).lost, 4);
        // One that is not, though it was opened before, was closed before, and all of it with that.
        let verdict = check_from(&[(5, 9)], Some(8 << 16), 5, &[]);
        assert_eq!((verdict.lost, verdict.vouched), (0, 5));
        assert_eq!(check_from(&[(5, 9)], Some(10 << 16), 5, &[]).lost, 5);
    }

    #[test]
    fn of_an_unnumbered_session_only_what_follows_is_checked() {
        let verdict = check_from(&[(3, 9)], None, 6, &[5, 6]);
        assert!(verdict.is_clean(), "{:?}", verdict.findings);
        assert_eq!((verdict.executed, verdict.vouched), (2, 4));
        assert_eq!(check_from(&[(3, 9)], None, 7, &[5, 7]).lost, 1);
        assert_eq!(check_from(&[(3, 9)], None, 7, &[]).vouched, 7);
        assert_eq!(check_from(&[(5, 9)], None, 6, &[5, 6]).lost, 4);
    }

    #[test]
    fn disorder_and_strangers_are_found() {
        let verdict = check(3, &[2, 1, 3]);
        assert_eq!(
            (verdict.lost, verdict.duplicated, verdict.disordered),
            (0, 0, 1)
        );
        assert_eq!(check(3, &[1, 2, 3, 11]).disordered, 1);
    }
}
