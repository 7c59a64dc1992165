//! The configuration: each rule at its boundary, and the limits that follow from others.

use synod_engine::config::{BATCH_BYTES_CEILING, Config, ConfigError, WINDOW_BYTES_CEILING};
use synod_engine::ids::ReplicaId;
use synod_engine::persist::{OWED_BYTES_MAX, OWED_PROMISE_BYTES_MAX};
use synod_engine::quorum::Quorums;
use synod_engine::sessions::REPLY_BYTES_MAX;

/// What is wrong with the defaults after a change: the name of the rule, if any.
fn broken(change: impl Fn(&mut Config)) -> Option<&'static str> {
    let mut config = Config::new(ReplicaId(1), 3, 0);
    change(&mut config);
    match config.check() {
        Ok(()) => None,
        Err(ConfigError::Replicas(_)) => Some("replicas"),
        Err(ConfigError::Replica { .. }) => Some("replica"),
        Err(ConfigError::Quorums { .. }) => Some("quorums"),
        Err(ConfigError::Limit { name, .. }) => Some(name),
    }
}

#[test]
fn each_limit_holds_up_to_its_boundary_and_not_beyond() {
    let window = |slots| broken(|config| config.limits.window_slots_max = slots);
    let name = Some("window_slots_max");
    assert_eq!([0, 1, 65_536, 65_537].map(window), [name, None, None, name]);
    let batch = |bytes| broken(|config| config.limits.batch_bytes_max = bytes);
    let name = Some("batch_bytes_max");
    assert_eq!(
        [BATCH_BYTES_CEILING, BATCH_BYTES_CEILING + 1].map(batch),
        [None, name]
    );
    let request = |bytes| {
        broken(|config| {
            config.limits.batch_bytes_max = 1_000;
            config.limits.command_bytes_max = 10;
            config.limits.request_bytes_max = bytes;
        })
    };
    assert_eq!(
        [1_000, 1_001].map(request),
        [None, Some("request_bytes_max")]
    );
    let command = |bytes| {
        broken(|config| {
            config.limits.request_bytes_max = 1_000;
            config.limits.command_bytes_max = bytes;
        })
    };
    assert_eq!([936, 937].map(command), [None, Some("command_bytes_max")]);
    let window = |bytes| broken(|config| config.limits.window_bytes_max = bytes);
    let name = Some("window_bytes_max");
    assert_eq!(
        [WINDOW_BYTES_CEILING, WINDOW_BYTES_CEILING + 1].map(window),
        [None, name]
    );
    let intake = |less| {
        broken(|config| config.limits.intake_bytes_max = config.limits.batch_bytes_max - less)
    };
    assert_eq!([0, 1].map(intake), [None, Some("intake_bytes_max")]);
}

#[test]
fn a_timeout_is_three_heartbeats_at_least() {
    let timers = |heartbeat_ns, election_timeout_ns| {
        broken(|config| {
            config.timers.heartbeat_ns = heartbeat_ns;
            config.timers.election_timeout_ns = election_timeout_ns;
        })
    };
    let name = Some("election_timeout_ns");
    assert_eq!(timers(100, 300), None);
    assert_eq!(timers(100, 299), name);
    assert_eq!(timers(0, 300), name);
}

#[test]
fn a_replica_is_one_of_its_cluster() {
    let cluster = |replica, replicas| {
        broken(|config| {
            config.replica = ReplicaId(replica);
            config.replicas = replicas;
            config.quorums = Quorums::majority(replicas);
        })
    };
    assert_eq!(cluster(1, 0), Some("replicas"));
    assert_eq!(cluster(1, 1), None);
    assert_eq!(cluster(15, 15), None);
    assert_eq!(cluster(1, 16), Some("replicas"));
    assert_eq!(cluster(0, 3), Some("replica"));
    assert_eq!(cluster(4, 3), Some("replica"));
    assert_eq!(
        broken(|config| config.quorums = Quorums::majority(5)),
        Some("quorums")
    );
    assert_eq!(broken(|config| config.quorums.accept = 1), Some("quorums"));
}

#[test]
fn an_acceptor_goes_ahead_by_two_windows_and_two_batches() {
    let mut config = Config::new(ReplicaId(1), 3, 0);
    config.limits.window_slots_max = 100;
    config.limits.window_bytes_max = 1_000;
    config.limits.batch_bytes_max = 30;
    assert_eq!(config.accept_ahead_slots_max(), 202);
    assert_eq!(config.accept_ahead_bytes_max(), 2_060);
}

#[test]
fn everything_that_is_held_in_memory_is_in_the_budget() {
    let mut config = Config::new(ReplicaId(1), 3, 0);
    config.limits.intake_bytes_max = 3;
    config.limits.cache_bytes_max = 5;
    config.limits.fetch_bytes_max = 7;
    config.limits.snapshot_kept_bytes_max = 11;
    let budget = config.memory_budget();
    let of = |wanted: &str| {
        let named: Vec<u64> = budget
            .iter()
            .filter(|(name, _)| *name == wanted)
            .map(|(_, bytes)| *bytes)
            .collect();
        assert_eq!(named.len(), 1, "{wanted}");
        named[0] as usize
    };
    let wanted = [
        ("intake_bytes_max", 3),
        ("accept_ahead_bytes_max", config.accept_ahead_bytes_max()),
        ("cache_bytes_max", 5),
        ("owed_bytes_max", OWED_BYTES_MAX + OWED_PROMISE_BYTES_MAX),
        ("reply_bytes_max", REPLY_BYTES_MAX),
        ("fetches_waiting", 16 * 7),
        ("snapshot_kept_bytes_max", 11),
    ];
    for (name, bytes) in wanted {
        assert_eq!(of(name), bytes, "{name}");
    }
}
