//! Who may talk to whom, and what the error says otherwise.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::{CLUSTER, Cluster, counter, identity, until};
use synod_engine::ids::{ClusterId, ReplicaId};
use synod_transport::{
    AuthorityKey, Client, ClientError, Identity, IdentityError, Limits, make_certificates, start,
};

const IDS: [ReplicaId; 2] = [ReplicaId(1), ReplicaId(2)];

/// The error of a client that is refused for a reason that lasts.
async fn refused(config: synod_transport::ClientConfig) -> String {
    let result = common::guard("the client is refused", Client::connect(config)).await;
    match result.map(|_| ()) {
        Err(error @ ClientError::Connect { .. }) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

fn directory_for(cluster: ClusterId) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    make_certificates(directory.path(), cluster, &IDS, AuthorityKey::Kept).expect("certificates");
    directory
}

#[tokio::test]
async fn a_client_of_another_ca_is_refused_by_both_sides() {
    let cluster = Cluster::new(1);
    let (network, _inbox) = cluster.start(1);
    let other = directory_for(CLUSTER);

    // The client does not trust the replica.
    let mut config = cluster.client(1);
    config.identity = identity(other.path(), "client");
    let error = refused(config).await;
    assert!(
        error.contains("replica 1 at") && error.contains("certificate"),
        "{error}"
    );

    // The client trusts the replica, but the replica does not trust the client.
    let mixed = tempfile::tempdir().expect("a temporary directory");
    for (from, name) in [
        (cluster.directory.path(), "ca.pem"),
        (other.path(), "client.pem"),
        (other.path(), "client.key"),
    ] {
        std::fs::copy(from.join(name), mixed.path().join(name)).expect("copied");
    }
    let mut config = cluster.client(2);
    config.identity = identity(mixed.path(), "client");
    let error = refused(config).await;
    assert!(
        error.contains("certificate") || error.contains("CA"),
        "{error}"
    );
    until("the replica counts it", || {
        counter(&network, "handshake_failures") >= 1
    })
    .await;
    assert_eq!(counter(&network, "gateway_accepted"), 0);
}

#[tokio::test]
async fn a_replica_certificate_does_not_make_a_client() {
    let cluster = Cluster::new(1);
    let mut config = cluster.client(1);
    config.identity = identity(cluster.directory.path(), "replica-1");
    let error = Client::connect(config).await.err().expect("refused");
    assert!(
        error
            .to_string()
            .contains("replica-1.pem is not for client."),
        "{error}"
    );
}

#[tokio::test]
async fn a_wrong_replica_at_an_address_is_noticed_by_the_dialler() {
    let cluster = Cluster::new(2);
    let (_two, _inbox) = cluster.start(2);
    // Replica 1's address is given as that of replica 2.
    let mut config = cluster.client(1);
    config.replicas = vec![(ReplicaId(1), cluster.address(2).into())];
    let error = refused(config).await;
    assert!(
        error.contains("replica 1 at") && error.contains("name"),
        "{error}"
    );
}

#[tokio::test]
async fn a_client_of_another_cluster_is_refused() {
    let cluster = Cluster::new(1);
    let (_one, _inbox) = cluster.start(1);
    let wrong = ClusterId(77);
    let other = directory_for(wrong);
    let mut config = cluster.client(1);
    config.cluster = wrong;
    config.identity = identity(other.path(), "client");
    let error = refused(config).await;
    assert!(error.contains("certificate"), "{error}");
}

/// Two replicas with certificates of the same CA for different ids: the one that is not in the list is refused.
#[tokio::test]
async fn a_replica_that_is_not_a_peer_is_refused() {
    let cluster = Cluster::new(3);
    // Replica 3 knows of replica 2 only, so replica 1 is a stranger to it.
    let mut config = cluster.config(3, Limits::default());
    config.peers.retain(|(peer, _)| *peer == ReplicaId(2));
    let (three, _inbox_three) = start(config).expect("it starts");
    let (one, _inbox_one) = cluster.start(1);
    until("the replica refuses", || {
        counter(&three, "handshake_failures") >= 1
    })
    .await;
    until("the dialler notices", || {
        counter(&one, "handshake_failures") >= 1
    })
    .await;
    assert_eq!(three.links_up(), 0);
}

#[tokio::test]
async fn a_replica_with_anothers_certificate_does_not_start() {
    let cluster = Cluster::new(2);
    let mut config = cluster.config(1, Limits::default());
    config.identity = identity(cluster.directory.path(), "replica-2");
    let error = start(config).err().expect("not its certificate");
    assert!(
        error
            .to_string()
            .contains("replica-2.pem is not for replica-1."),
        "{error}"
    );

    let mut config = cluster.config(1, Limits::default());
    config.cluster = ClusterId(99);
    let error = start(config).err().expect("not its cluster");
    assert!(
        error
            .to_string()
            .contains("replica-1.pem is not for replica-1."),
        "{error}"
    );
}

#[test]
fn keys_are_private_and_nothing_is_overwritten() {
    let directory = directory_for(CLUSTER);
    let path = |name: &str| directory.path().join(name);
    for key in ["ca.key", "replica-1.key", "replica-2.key", "client.key"] {
        let mode = std::fs::metadata(path(key))
            .expect(key)
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    let before = std::fs::read(path("ca.pem")).expect("ca.pem");
    let error = make_certificates(directory.path(), CLUSTER, &IDS, AuthorityKey::Kept)
        .expect_err("files exist");
    assert!(matches!(&error, IdentityError::Exists { path } if path.ends_with("ca.pem")));
    assert_eq!(std::fs::read(path("ca.pem")).expect("ca.pem"), before);
}

#[test]
fn bad_files_are_named() {
    let directory = directory_for(CLUSTER);
    let path = |name: &str| directory.path().join(name);
    let load = |ca: &Path, cert: &Path, key: &Path| Identity::load(ca, cert, key).err();
    let (ca, cert, key) = (path("ca.pem"), path("replica-1.pem"), path("replica-1.key"));
    assert!(load(&ca, &cert, &key).is_none());

    std::fs::write(
        path("junk"),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .expect("written");
    std::fs::write(path("empty"), "").expect("written");
    for bad in ["missing", "junk", "empty"] {
        let bad = path(bad);
        for error in [
            load(&bad, &cert, &key),
            load(&ca, &bad, &key),
            load(&ca, &cert, &bad),
        ] {
            let text = error.expect("refused").to_string();
            assert!(text.contains(&bad.display().to_string()), "{text}");
        }
    }
    let error = load(&ca, &cert, &path("replica-2.key")).expect("another's key");
    assert!(
        matches!(error, IdentityError::KeyMismatch { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("replica-2.key"), "{error}");
}
