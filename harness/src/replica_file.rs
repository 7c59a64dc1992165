//! `replica.toml`: everything that one replica is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use synod_engine::config::{Config, Limits, Timers};
use synod_engine::ids::{ClusterId, ReplicaId};
use synod_storage as storage;
use synod_transport::{Address, Family};

use crate::certs::parse_cluster;
use crate::cli::{BackendChoice, DurabilityChoice, MachineChoice};
use crate::client_file::{self, Certificates};
use crate::failure::usage;
use crate::toml_file;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaFile {
    /// The cluster id, in hexadecimal.
    pub cluster: String,
    pub replica: u8,
    /// What this replica binds. Others find it where `peers` says, which may be another address or a name.
    pub listen: SocketAddr,
    /// The data directory; a relative path counts from the directory of this file.
    pub data: PathBuf,
    #[serde(default = "log_machine")]
    pub state_machine: MachineChoice,
    #[serde(default = "sync")]
    pub durability: DurabilityChoice,
    #[serde(default = "auto")]
    pub backend: BackendChoice,
    /// Largest UDP payload that path discovery may reach, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu_max: Option<u16>,
    /// How long a replica that was just active stays awake before it sleeps, in microseconds; 0 turns it off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_spin_us: Option<u64>,
    #[serde(default)]
    pub seed: u64,
    /// Every replica of the cluster, this one as well: the table is the same everywhere.
    pub peers: BTreeMap<String, Address>,
    pub certificates: Certificates,
    #[serde(default, skip_serializing_if = "TimersTable::is_empty")]
    pub timers: TimersTable,
    #[serde(default, skip_serializing_if = "LimitsTable::is_empty")]
    pub limits: LimitsTable,
    #[serde(default, skip_serializing_if = "StorageTable::is_empty")]
    pub storage: StorageTable,
}

/// Whatever is left out keeps its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimersTable {
    pub heartbeat_ms: Option<u64>,
    pub election_timeout_ms: Option<u64>,
    pub election_jitter_ms: Option<u64>,
    pub retransmit_ms: Option<u64>,
    pub disk_stall_ms: Option<u64>,
    pub slot_pace_us: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsTable {
    pub window_slots_max: Option<u64>,
    pub window_bytes_max: Option<usize>,
    pub peer_bytes_max: Option<usize>,
    pub owed_bytes_max: Option<usize>,
    pub batch_bytes_max: Option<usize>,
    pub request_bytes_max: Option<usize>,
    pub command_bytes_max: Option<usize>,
    pub intake_bytes_max: Option<usize>,
    pub cache_bytes_max: Option<usize>,
    pub fetch_bytes_max: Option<usize>,
    pub fetches_max: Option<usize>,
    pub clients_max: Option<usize>,
    pub snapshot_distance_bytes: Option<u64>,
    pub snapshot_step_bytes: Option<usize>,
    pub snapshot_kept_bytes_max: Option<usize>,
    pub snapshot_backlog_bytes_max: Option<usize>,
    pub snapshot_part_bytes: Option<u32>,
    pub snapshot_bytes_per_s: Option<u64>,
    pub snapshot_pin_bytes_max: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageTable {
    pub segment_bytes: Option<u64>,
    pub segments_ready: Option<usize>,
    /// Left out, it follows from the distance of snapshots.
    pub segments_recycled_max: Option<usize>,
    pub writes_in_flight_max: Option<usize>,
}

fn log_machine() -> MachineChoice {
    MachineChoice::Log
}

fn sync() -> DurabilityChoice {
    DurabilityChoice::Sync
}

fn auto() -> BackendChoice {
    BackendChoice::Auto
}

impl TimersTable {
    fn is_empty(&self) -> bool {
        *self == TimersTable::default()
    }
}

impl LimitsTable {
    fn is_empty(&self) -> bool {
        *self == LimitsTable::default()
    }
}

impl StorageTable {
    fn is_empty(&self) -> bool {
        *self == StorageTable::default()
    }
}

/// A checked `replica.toml`.
#[derive(Debug)]
pub struct ReplicaSettings {
    pub cluster: ClusterId,
    pub file: ReplicaFile,
    /// The other replicas.
    pub peers: Vec<(ReplicaId, Address)>,
    pub engine: Config,
    pub storage: storage::Config,
}

/// Snapshots closer together would be all that a disk does.
const SNAPSHOT_DISTANCE_BYTES_FLOOR: u64 = 64 << 10;
/// A step is between two turns; this much takes about a millisecond.
const SNAPSHOT_STEP_BYTES_CEILING: usize = 1 << 20;

/// Long enough to bridge a durable write of a peer, short enough that an idle cluster sleeps.
const IDLE_SPIN_US_DEFAULT: u64 = 200;

impl ReplicaSettings {
    pub fn idle_spin(&self) -> Duration {
        Duration::from_micros(self.file.idle_spin_us.unwrap_or(IDLE_SPIN_US_DEFAULT))
    }

    pub fn read(path: &Path) -> anyhow::Result<ReplicaSettings> {
        let mut file: ReplicaFile = toml_file::read(path)?;
        file.certificates = file.certificates.relative_to(path);
        file.data = path.parent().unwrap_or(Path::new(".")).join(&file.data);
        ReplicaSettings::check(file)
            .map_err(|message| usage(format!("{}: {message}", path.display())))
    }

    fn check(file: ReplicaFile) -> Result<ReplicaSettings, String> {
        let cluster = parse_cluster(&file.cluster).map_err(|error| format!("cluster: {error}"))?;
        let own = ReplicaId(file.replica);
        let mut peers =
            client_file::replicas(&file.peers).map_err(|error| format!("[peers]: {error}"))?;
        let replicas = peers.len() as u8;
        // Complete and the same everywhere: a table that lacks a replica would make another quorum.
        if peers
            .iter()
            .zip(1..)
            .any(|((id, _), expected)| id.0 != expected)
        {
            return Err(format!(
                "[peers]: {replicas} replicas are listed; their ids must be 1 to {replicas}"
            ));
        }
        if !peers.iter().any(|(id, _)| *id == own) {
            return Err(format!(
                "replica = {}: [peers] must list every replica, this one as well",
                file.replica
            ));
        }
        peers.retain(|(id, _)| *id != own);
        check_families(file.listen, &peers)?;
        let mut engine = Config::new(own, replicas, file.seed);
        file.timers.apply(&mut engine.timers);
        file.limits.apply(&mut engine.limits);
        engine.check().map_err(|error| error.to_string())?;
        check_snapshots(&engine.limits)?;
        let storage = file.storage(cluster, own, engine.limits.snapshot_distance_bytes)?;
        Ok(ReplicaSettings {
            cluster,
            peers,
            engine,
            storage,
            file,
        })
    }
}

/// A socket that cannot reach a peer would dial it for ever. What is behind a name is seen when it is dialled.
fn check_families(listen: SocketAddr, peers: &[(ReplicaId, Address)]) -> Result<(), String> {
    let family = Family::of_listener(listen.ip());
    for (id, address) in peers {
        if address.socket().is_some_and(|at| !family.reaches(at)) {
            let port = listen.port();
            return Err(format!(
                "listen = \"{listen}\" is of another address family than peer {} at {address}: \
                 listen = \"[::]:{port}\" is for both, or give all of them addresses of one family",
                id.0
            ));
        }
    }
    Ok(())
}

impl ReplicaFile {
    fn storage(
        &self,
        cluster: ClusterId,
        own: ReplicaId,
        distance_bytes: u64,
    ) -> Result<storage::Config, String> {
        use storage::config::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_RECYCLED_LIMIT};
        let mut storage = storage::Config::new(self.data.clone(), cluster, own, self.seed);
        storage.backend = match self.backend {
            BackendChoice::Auto => storage::BackendChoice::Auto,
            BackendChoice::IoUring => storage::BackendChoice::Uring,
            BackendChoice::Blocking => storage::BackendChoice::Blocking,
        };
        storage.durability = match self.durability {
            DurabilityChoice::Sync => storage::Durability::Sync,
            DurabilityChoice::None => storage::Durability::None,
        };
        set(&mut storage.segment_bytes, self.storage.segment_bytes);
        set(&mut storage.segments_ready, self.storage.segments_ready);
        set(
            &mut storage.writes_in_flight_max,
            self.storage.writes_in_flight_max,
        );
        let segment = storage.segment_bytes;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment)
            || !segment.is_multiple_of(4096)
        {
            return Err(format!(
                "segment_bytes = {segment}: must be whole pages of 4096, {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}"
            ));
        }
        for (name, value) in [
            ("segments_ready", storage.segments_ready),
            ("writes_in_flight_max", storage.writes_in_flight_max),
        ] {
            if !(1..=64).contains(&value) {
                return Err(format!("{name} = {value}: must be 1 to 64"));
            }
        }
        let recycled = self.storage.segments_recycled_max;
        storage.segments_recycled_max =
            recycled.unwrap_or_else(|| recycled_max(distance_bytes, segment));
        if storage.segments_recycled_max > SEGMENTS_RECYCLED_LIMIT {
            return Err(format!(
                "segments_recycled_max = {}: must be at most {SEGMENTS_RECYCLED_LIMIT}",
                storage.segments_recycled_max
            ));
        }
        Ok(storage)
    }
}

impl TimersTable {
    fn apply(&self, timers: &mut Timers) {
        const MS: u64 = 1_000_000;
        let nanos = |value: Option<u64>, unit: u64| value.map(|value| value.saturating_mul(unit));
        set(&mut timers.heartbeat_ns, nanos(self.heartbeat_ms, MS));
        set(
            &mut timers.election_timeout_ns,
            nanos(self.election_timeout_ms, MS),
        );
        set(
            &mut timers.election_jitter_ns,
            nanos(self.election_jitter_ms, MS),
        );
        set(&mut timers.retransmit_ns, nanos(self.retransmit_ms, MS));
        set(&mut timers.disk_stall_ns, nanos(self.disk_stall_ms, MS));
        set(&mut timers.slot_pace_ns, nanos(self.slot_pace_us, 1_000));
    }
}

impl LimitsTable {
    fn apply(&self, limits: &mut Limits) {
        set(&mut limits.window_slots_max, self.window_slots_max);
        set(&mut limits.window_bytes_max, self.window_bytes_max);
        set(&mut limits.peer_bytes_max, self.peer_bytes_max);
        set(&mut limits.owed_bytes_max, self.owed_bytes_max);
        set(&mut limits.batch_bytes_max, self.batch_bytes_max);
        set(&mut limits.request_bytes_max, self.request_bytes_max);
        set(&mut limits.command_bytes_max, self.command_bytes_max);
        set(&mut limits.intake_bytes_max, self.intake_bytes_max);
        set(&mut limits.cache_bytes_max, self.cache_bytes_max);
        set(&mut limits.fetch_bytes_max, self.fetch_bytes_max);
        set(&mut limits.fetches_max, self.fetches_max);
        set(
            &mut limits.snapshot_distance_bytes,
            self.snapshot_distance_bytes,
        );
        set(&mut limits.snapshot_step_bytes, self.snapshot_step_bytes);
        set(
            &mut limits.snapshot_kept_bytes_max,
            self.snapshot_kept_bytes_max,
        );
        set(
            &mut limits.snapshot_backlog_bytes_max,
            self.snapshot_backlog_bytes_max,
        );
        set(&mut limits.snapshot_part_bytes, self.snapshot_part_bytes);
        set(&mut limits.snapshot_bytes_per_s, self.snapshot_bytes_per_s);
        set(
            &mut limits.snapshot_pin_bytes_max,
            self.snapshot_pin_bytes_max,
        );
    }
}

/// What the store and the disk need of the engine's limits.
fn check_snapshots(limits: &Limits) -> Result<(), String> {
    let backlog = limits.snapshot_backlog_bytes_max;
    // A step may stand out by a whole piece.
    if backlog > storage::config::SNAPSHOT_BACKLOG_BYTES_MAX / 2 {
        return Err(format!(
            "snapshot_backlog_bytes_max = {backlog}: must be at most {}",
            storage::config::SNAPSHOT_BACKLOG_BYTES_MAX / 2
        ));
    }
    let step = limits.snapshot_step_bytes;
    if step > SNAPSHOT_STEP_BYTES_CEILING {
        return Err(format!(
            "snapshot_step_bytes = {step}: must be at most {SNAPSHOT_STEP_BYTES_CEILING}, or the loop stalls"
        ));
    }
    let distance = limits.snapshot_distance_bytes;
    if distance < SNAPSHOT_DISTANCE_BYTES_FLOOR {
        return Err(format!(
            "snapshot_distance_bytes = {distance}: must be at least {SNAPSHOT_DISTANCE_BYTES_FLOOR}"
        ));
    }
    Ok(())
}

/// Files to keep for recycling: what one trim drops, which is the distance or, if that is more, the size of a snapshot.
fn recycled_max(distance_bytes: u64, segment_bytes: u64) -> usize {
    use storage::config::{SEGMENTS_RECYCLED_LIMIT, SEGMENTS_RECYCLED_MAX_DEFAULT};
    let dropped = usize::try_from(distance_bytes / segment_bytes).unwrap_or(usize::MAX);
    dropped
        .saturating_add(2)
        .clamp(SEGMENTS_RECYCLED_MAX_DEFAULT, SEGMENTS_RECYCLED_LIMIT)
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
cluster = "1f"
replica = 1
listen = "127.0.0.1:7001"
data = "data"
[peers]
1 = "127.0.0.1:7001"
2 = "127.0.0.1:7002"
3 = "127.0.0.1:7003"
[certificates]
ca = "ca.pem"
cert = "replica-1.pem"
key = "replica-1.key"
"#;

    fn read(text: &str) -> Result<ReplicaSettings, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("replica.toml");
        std::fs::write(&path, text).unwrap();
        ReplicaSettings::read(&path).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn defaults_fill_what_is_left_out() {
        let settings = read(GOOD).unwrap();
        assert_eq!(settings.peers.len(), 2);
        assert_eq!(settings.engine.limits, Limits::default());
        assert_eq!(settings.engine.timers, Timers::default());
        assert!(settings.file.data.is_absolute());
    }

    #[test]
    fn peers_may_have_names_and_listen_be_another_address() {
        let named = GOOD.replace("127.0.0.1:7002", "r2.example:7002");
        let settings = read(&named).unwrap();
        assert_eq!(settings.peers[0].1.to_string(), "r2.example:7002");
        for listen in ["0.0.0.0:7001", "[::]:7001"] {
            let elsewhere = named.replace(
                "listen = \"127.0.0.1:7001\"",
                &format!("listen = \"{listen}\""),
            );
            assert_eq!(read(&elsewhere).unwrap().file.listen.to_string(), listen);
        }
    }

    #[test]
    fn what_a_trim_drops_is_recycled() {
        let recycled = |limits: &str| {
            let settings = read(&format!("{GOOD}{limits}")).unwrap();
            settings.storage.segments_recycled_max
        };
        assert_eq!(recycled(""), 64);
        assert_eq!(
            recycled("[limits]\nsnapshot_distance_bytes = 6442450944\n"),
            98
        );
        assert_eq!(recycled("[storage]\nsegments_recycled_max = 3\n"), 3);
    }

    #[test]
    fn each_mistake_is_named_with_its_place() {
        let cases = [
            (
                GOOD.replace("listen", "lissen"),
                "replica.toml:4: unknown field `lissen`",
            ),
            (GOOD.replace("\"1f\"", "\"xx\""), "`xx` is not a cluster id"),
            (
                GOOD.replace("replica = 1\n", "replica = 4\n"),
                "[peers] must list every replica",
            ),
            (GOOD.replace("3 = ", "9 = "), "must be 1 to 3"),
            (GOOD.replace("3 = ", "x = "), "`x` is not a replica id"),
            (
                GOOD.replace("127.0.0.1:7002", "[::1]:7002"),
                "another address family than peer 2 at [::1]:7002: listen = \"[::]:7001\"",
            ),
            (
                GOOD.replace("127.0.0.1:7002", "r 2:7002"),
                "replica.toml:8: `r 2:7002`: `r 2` is neither",
            ),
            (
                GOOD.replace("127.0.0.1:7001\"\ndata", "nowhere\"\ndata"),
                "replica.toml:4: ",
            ),
            (
                format!("{GOOD}[timers]\nheartbeat_ms = 200\n"),
                "election_timeout_ns",
            ),
            (
                format!("{GOOD}[limits]\nbatch_bytes_max = 9999999\n"),
                "batch_bytes_max",
            ),
            (
                format!("{GOOD}[storage]\nsegment_bytes = 5000\n"),
                "segment_bytes = 5000",
            ),
            (
                format!("{GOOD}[storage]\nsegments_recycled_max = 5000\n"),
                "segments_recycled_max = 5000",
            ),
            (
                format!("{GOOD}[limits]\nsnapshot_distance_bytes = 5\n"),
                "snapshot_distance_bytes = 5",
            ),
            (
                format!("{GOOD}[limits]\nsnapshot_backlog_bytes_max = 99999999\n"),
                "snapshot_backlog_bytes_max = 99999999",
            ),
            (
                format!("{GOOD}[limits]\nsnapshot_step_bytes = 9999999\n"),
                "snapshot_step_bytes = 9999999",
            ),
        ];
        for (text, expected) in cases {
            let error = read(&text).expect_err(expected);
            assert!(error.contains(expected), "{error} lacks {expected}");
            assert!(!error.contains('\n'));
        }
    }
}
