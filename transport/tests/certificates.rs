//! The life of a certificate: it ends, is renewed, is revoked, and its CA changes, under connections that are up.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use common::{CLUSTER, Cluster, counter, guard, identity, linked, until};
use synod_engine::client::{ClientMessage, ServerMessage};
use synod_engine::ids::ReplicaId;
use synod_engine::seams::{Arrival, Network};
use synod_transport::{
    AuthorityKey, Certificate, CertificateSet, Client, ClientConfig, ClientError, ClientIdentity,
    Clock, Fingerprint, Holder, Identity, IdentityError, Inbox, Life, Limits, QuicNetwork, Revoked,
    start,
};
use tokio::task::JoinHandle;

const DAY_S: u64 = 86_400;

/// A clock that stands until it is set.
#[derive(Clone)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn at(seconds: u64) -> Hands {
        Hands(Arc::new(AtomicU64::new(seconds)))
    }

    fn set(&self, seconds: u64) {
        self.0.store(seconds, Relaxed);
    }

    fn clock(&self) -> Clock {
        let hands = Arc::clone(&self.0);
        Clock::new(move || hands.load(Relaxed))
    }
}

fn now() -> u64 {
    Clock::default().now()
}

fn open(directory: &Path) -> CertificateSet {
    CertificateSet::open(directory, None, now()).expect("a set with its CA's key")
}

fn holder(text: &str) -> Holder {
    text.parse().expect(text)
}

fn fingerprint(directory: &Path, who: &str) -> Fingerprint {
    let path = directory.join(format!("{who}.pem"));
    Certificate::read_all(&path).expect("a certificate")[0].fingerprint
}

fn revoked(directory: &Path, whom: &[Fingerprint]) -> Revoked {
    let path = directory.join("revoked.txt");
    let lines: Vec<String> = whom.iter().map(ToString::to_string).collect();
    std::fs::write(&path, lines.join("\n")).expect("written");
    Revoked::read(&path).expect("a list")
}

async fn connects(config: ClientConfig) -> Result<(), ClientError> {
    let client = Client::observe(config)?;
    guard("an answer", client.status(ReplicaId(1)))
        .await
        .map(|_| ())
}

/// Why a client without a session is turned away.
async fn refused(mut config: ClientConfig) -> String {
    // A client that observes goes on for ever; one that opens a session ends with the first lasting refusal.
    config.deadline = common::HANG;
    match guard("a refusal", Client::connect(config))
        .await
        .map(|_| ())
    {
        Err(error) => error.to_string(),
        Ok(()) => panic!("it got in"),
    }
}

/// A replica that answers the status questions of observing clients, as the engine would.
struct Answering {
    revoked: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

fn answer(mut network: QuicNetwork, mut inbox: Inbox) -> Answering {
    let revoked = Arc::new(AtomicU64::new(0));
    let shown = Arc::clone(&revoked);
    let task = tokio::spawn(async move {
        let mut arrivals = Vec::new();
        loop {
            shown.store(counter(&network, "revoked_connections"), Relaxed);
            let _ = tokio::time::timeout(Duration::from_millis(5), inbox.notified()).await;
            inbox.drain(&mut arrivals);
            for arrival in arrivals.drain(..) {
                if let Arrival::Client { client, frame } = arrival
                    && matches!(ClientMessage::decode(frame), Ok(ClientMessage::Status))
                {
                    network.reply(client, ServerMessage::StatusReply(Vec::new()).encode());
                }
            }
            network.flush();
        }
    });
    Answering { revoked, task }
}

impl Answering {
    async fn end(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

#[tokio::test]
async fn an_ended_certificate_gets_in_nowhere_and_a_renewed_one_does() {
    let cluster = Cluster::new(1);
    let directory = cluster.directory.path();
    let set = open(directory);
    let short = Life {
        now: now(),
        seconds: 60,
    };
    set.issue(&holder("client:short"), short).expect("issued");
    let hands = Hands::at(now());
    let mut config = cluster.config(1, Limits::default());
    config.identity = config.identity.with_clock(hands.clock());
    let (network, inbox) = start(config).expect("it starts");
    let one = answer(network, inbox);

    let mut client = cluster.client(1);
    client.identity = identity(directory, "client-short");
    connects(client.clone())
        .await
        .expect("it is valid for a minute");

    // The replica's clock goes on, the client's stands: what the replica says counts.
    hands.set(now() + 120);
    let error = refused(client.clone()).await;
    assert!(
        error.contains("Expired") || error.contains("expired"),
        "{error}"
    );
    // A client whose clock goes right does not even try.
    client.identity = client.identity.with_clock(hands.clock());
    let error = refused(client.clone()).await;
    assert!(
        error.contains("client-short.pem") && error.contains("--renew"),
        "{error}"
    );

    set.renew(&holder("client:short"), set.life(30))
        .expect("renewed");
    client.identity = identity(directory, "client-short").with_clock(hands.clock());
    connects(client).await.expect("it is renewed");
    one.end().await;
}

#[tokio::test]
async fn a_replica_takes_new_certificates_while_its_links_stay() {
    let cluster = Cluster::new(2);
    let directory = cluster.directory.path();
    let hands = Hands::at(now());
    let config = |id: u8| {
        let mut config = cluster.config(id, Limits::default());
        config.identity = config.identity.with_clock(hands.clock());
        config
    };
    let replica = |id: u8| start(config(id)).expect("it starts");
    let (one, _inbox_one) = replica(1);
    let (two, inbox_two) = replica(2);
    linked(&one, 1).await;
    linked(&two, 1).await;
    let left = counter(&one, "certificate_expires_s");
    assert!((364 * DAY_S..=365 * DAY_S).contains(&left), "{left}");

    // A year on, both certificates have ended. The link is not asked.
    hands.set(now() + 400 * DAY_S);
    assert_eq!(counter(&one, "certificate_expires_s"), 0);
    assert_eq!(one.links_up(), 1);

    // What has ended itself does not replace anything.
    let old = identity(directory, "replica-1").with_clock(hands.clock());
    let error = one.renewal().renew(old).expect_err("it has ended");
    assert!(error.to_string().contains("replica-1.pem"), "{error}");
    // Nor does another's.
    let set = CertificateSet::open(directory, None, now() + 400 * DAY_S).expect("its CA lives");
    set.renew(&holder("replica:2"), set.life(365))
        .expect("renewed");
    let other = identity(directory, "replica-2").with_clock(hands.clock());
    one.renewal().renew(other.clone()).expect_err("another's");
    assert_eq!(counter(&one, "certificate_renewals_refused"), 2);

    set.renew(&holder("replica:1"), set.life(365))
        .expect("renewed");
    let own = identity(directory, "replica-1").with_clock(hands.clock());
    one.renewal().renew(own).expect("it is good");
    two.renewal().renew(other).expect("it is good");
    assert_eq!(counter(&one, "certificate_renewals"), 1);
    assert_eq!(counter(&one, "link_reconnects"), 0);
    assert_eq!(one.links_up(), 1, "the link broke");

    // The link is made again with the new ones in both directions.
    drop(inbox_two);
    two.close().await;
    until("the link is down", || one.links_up() == 0).await;
    let mut again = start(config(2));
    while again.is_err() {
        // The old socket is not closed yet.
        tokio::time::sleep(Duration::from_millis(10)).await;
        again = start(config(2));
    }
    let (two, _inbox_two) = again.expect("it starts");
    linked(&two, 1).await;
    linked(&one, 1).await;
}

#[tokio::test]
async fn a_revoked_client_is_turned_away_and_told_why() {
    let cluster = Cluster::new(1);
    let directory = cluster.directory.path();
    let set = open(directory);
    for name in ["client:alice", "client:bob"] {
        set.issue(&holder(name), set.life(30)).expect("issued");
    }
    let (network, inbox) = cluster.start(1);
    let renewal = network.renewal();
    let one = answer(network, inbox);
    let client = |who: &str, seed| {
        let mut config = cluster.client(seed);
        config.identity = identity(directory, who);
        config
    };
    let alice = Client::observe(client("client-alice", 1)).expect("a client");
    guard("alice", alice.status(ReplicaId(1)))
        .await
        .expect("she is in");
    let bob = Client::observe(client("client-bob", 2)).expect("a client");
    guard("bob", bob.status(ReplicaId(1)))
        .await
        .expect("he is in");

    let list = revoked(directory, &[fingerprint(directory, "client-alice")]);
    let current = renewal.identity().expect("it runs");
    renewal
        .renew(current.with_revoked(list))
        .expect("the same files");
    // Her connection ends, his stays.
    until("alice is out", || one.revoked.load(Relaxed) == 1).await;
    let error = refused(client("client-alice", 3)).await;
    assert!(error.to_lowercase().contains("revoked"), "{error}");
    guard("bob", bob.status(ReplicaId(1)))
        .await
        .expect("he is still in");
    assert_eq!(bob.counters().reconnects, 0);
    connects(client("client", 4))
        .await
        .expect("the unnamed one is in");

    // A new key and certificate of the same name are another matter.
    set.replace(&holder("client:alice"), set.life(30))
        .expect("replaced");
    connects(client("client-alice", 5))
        .await
        .expect("she is in again");
    drop((alice, bob));
    one.end().await;
}

#[tokio::test]
async fn a_revoked_replica_is_refused_by_those_that_dial_it_and_those_it_dials() {
    let cluster = Cluster::new(3);
    let directory = cluster.directory.path();
    let list = revoked(directory, &[fingerprint(directory, "replica-2")]);
    let replica = |id: u8| {
        let mut config = cluster.config(id, Limits::default());
        if id != 2 {
            config.identity = config.identity.with_revoked(list.clone());
        }
        start(config).expect("it starts")
    };
    // Replica 1 dials 2, and 2 dials 3.
    let (one, _inbox_one) = replica(1);
    let (three, _inbox_three) = replica(3);
    let (two, _inbox_two) = replica(2);
    linked(&one, 1).await;
    linked(&three, 1).await;
    for network in [&one, &three] {
        until("it refuses", || counter(network, "handshake_failures") >= 2).await;
        assert_eq!(network.links_up(), 1);
    }
    assert_eq!(two.links_up(), 0);

    // A link that is up ends when its certificate is revoked.
    let list = revoked(directory, &[fingerprint(directory, "replica-3")]);
    let current = one.renewal().identity().expect("it runs");
    one.renewal()
        .renew(current.with_revoked(list))
        .expect("the same files");
    until("the link ends", || {
        counter(&one, "revoked_connections") == 1
    })
    .await;
}

#[tokio::test]
async fn the_ca_changes_without_a_restart() {
    let cluster = Cluster::new(1);
    let directory = cluster.directory.path();
    let second = tempfile::tempdir().expect("a temporary directory");
    let set =
        CertificateSet::make(second.path(), CLUSTER, AuthorityKey::Kept, now()).expect("a CA");
    for who in ["replica:1", "client"] {
        set.issue(&holder(who), set.life(30)).expect("issued");
    }
    let load = |ca: &Path, of: &Path, who: &str| {
        let file = |ending: &str| of.join(format!("{who}.{ending}"));
        Identity::load(ca, &file("pem"), &file("key")).expect("an identity")
    };
    let (old, new) = (directory.join("ca.pem"), second.path().join("ca.pem"));
    let both = second.path().join("both");
    let read = |path: &Path| std::fs::read(path).expect("a file");
    std::fs::write(&both, [read(&old), read(&new)].concat()).expect("written");

    let (network, inbox) = cluster.start(1);
    let renewal = network.renewal();
    let one = answer(network, inbox);
    let connects = |ca: &Path, of: &Path, seed| {
        let mut config = cluster.client(seed);
        config.identity = load(ca, of, "client");
        connects(config)
    };
    // Both CAs are trusted, then the new certificate is used, then the old CA is not trusted any more.
    renewal
        .renew(load(&both, directory, "replica-1"))
        .expect("good");
    connects(&old, directory, 1).await.expect("an old client");
    connects(&both, second.path(), 2)
        .await
        .expect("a new client that trusts both");
    renewal
        .renew(load(&both, second.path(), "replica-1"))
        .expect("good");
    connects(&both, directory, 3)
        .await
        .expect("an old client that trusts both");
    connects(&new, second.path(), 4)
        .await
        .expect("a new client");
    renewal
        .renew(load(&new, second.path(), "replica-1"))
        .expect("good");
    connects(&new, second.path(), 5)
        .await
        .expect("a new client");
    let mut config = cluster.client(6);
    config.identity = load(&both, directory, "client");
    let error = refused(config).await;
    assert!(error.contains("certificate"), "{error}");
    one.end().await;
}

#[test]
fn interrupted_sets_go_on_and_nothing_is_overwritten() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    let life = Life::days(now(), 30);
    let set =
        CertificateSet::make(directory.path(), CLUSTER, AuthorityKey::Kept, now()).expect("a CA");
    assert!(set.issue(&holder("replica:1"), life).expect("issued"));
    let first = std::fs::read(path("replica-1.pem")).expect("a file");
    // Each point at which a process may end: without the CA's certificate, and without one of a replica.
    std::fs::remove_file(path("ca.pem")).expect("removed");
    let key = std::fs::read(path("ca.key")).expect("a file");
    let set = CertificateSet::make(directory.path(), CLUSTER, AuthorityKey::Kept, now())
        .expect("it goes on");
    assert_eq!(std::fs::read(path("ca.key")).expect("a file"), key);
    assert!(set.issue(&holder("replica:2"), life).expect("issued"));
    let key = std::fs::read(path("replica-2.key")).expect("a file");
    std::fs::remove_file(path("replica-2.pem")).expect("removed");
    std::fs::write(path(".replica-2.pem.new"), "half").expect("written");
    assert!(set.issue(&holder("replica:2"), life).expect("it goes on"));
    assert_eq!(std::fs::read(path("replica-2.key")).expect("a file"), key);
    for who in ["replica-1", "replica-2"] {
        identity(directory.path(), who);
    }
    assert!(!path(".replica-2.pem.new").exists());

    assert!(!set.issue(&holder("replica:1"), life).expect("it is there"));
    assert_eq!(std::fs::read(path("replica-1.pem")).expect("a file"), first);
    let again = CertificateSet::make(directory.path(), CLUSTER, AuthorityKey::Kept, now());
    assert!(matches!(again.err(), Some(IdentityError::Exists { .. })));

    // Without the CA's key nothing is added; the error says what is missing.
    std::fs::remove_file(path("ca.key")).expect("removed");
    let error = CertificateSet::open(directory.path(), None, now())
        .err()
        .expect("no key");
    assert!(error.to_string().contains("ca.key is missing"), "{error}");
}

#[test]
fn a_renewed_certificate_keeps_its_key_and_does_not_need_it() {
    let cluster = Cluster::new(1);
    let path = |name: &str| cluster.directory.path().join(name);
    let set = open(cluster.directory.path());
    let before = Certificate::read_all(&path("replica-1.pem"))
        .expect("one")
        .swap_remove(0);
    let key = std::fs::read(path("replica-1.key")).expect("a key");
    std::fs::rename(path("replica-1.key"), path("elsewhere")).expect("moved");
    let at =
        CertificateSet::open(cluster.directory.path(), None, now() + 300 * DAY_S).expect("open");
    at.renew(&holder("replica:1"), at.life(365))
        .expect("renewed");
    std::fs::rename(path("elsewhere"), path("replica-1.key")).expect("moved back");
    let after = Certificate::read_all(&path("replica-1.pem"))
        .expect("one")
        .swap_remove(0);
    assert!(after.not_after >= before.not_after + 299 * DAY_S);
    assert_eq!(after.holder(), before.holder());
    assert_ne!(after.fingerprint, before.fingerprint);
    identity(cluster.directory.path(), "replica-1");

    set.replace(&holder("replica:1"), set.life(365))
        .expect("replaced");
    assert_ne!(std::fs::read(path("replica-1.key")).expect("a key"), key);
    identity(cluster.directory.path(), "replica-1");

    // It never outlives its CA.
    set.renew(&holder("client"), set.life(36_500))
        .expect("renewed");
    let ca = Certificate::read_all(&path("ca.pem"))
        .expect("one")
        .swap_remove(0);
    let client = Certificate::read_all(&path("client.pem"))
        .expect("one")
        .swap_remove(0);
    assert_eq!(client.not_after, ca.not_after);
    // A machine whose clock is half an hour behind takes it.
    assert!(client.not_before + 1_800 < now());
    assert_eq!(
        set.holders().expect("a directory"),
        [holder("replica:1"), holder("client")]
    );
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let cluster = Cluster::new(1);
    let path = |name: &str| cluster.directory.path().join(name);
    let load = || Identity::load(&path("ca.pem"), &path("client.pem"), &path("client.key"));
    let mode = |mode| {
        let key = path("client.key");
        std::fs::set_permissions(key, PermissionsExt::from_mode(mode)).expect("ours");
    };
    load().expect("0600");
    for open in [0o604, 0o644, 0o620] {
        mode(open);
        let error = load().expect_err("others can read it").to_string();
        assert!(
            error.contains("client.key") && error.contains("chmod 600"),
            "{error}"
        );
    }
    mode(0o400);
    load().expect("0400");
}

#[test]
fn a_client_is_known_by_the_name_in_its_certificate() {
    let cluster = Cluster::new(1);
    let set = open(cluster.directory.path());
    set.issue(&holder("client:alice"), set.life(30))
        .expect("issued");
    let client = |who: &str| identity(cluster.directory.path(), who).client(CLUSTER);
    let alice = client("client-alice").expect("a client");
    assert_eq!(alice.name(), Some("alice"));
    assert_eq!(client("client").expect("a client"), ClientIdentity::UNNAMED);
    client("replica-1").expect_err("no client");
}
