//! etcd: Raft, gRPC, a B+tree on disk.

use std::path::Path;

use super::{
    BATCHING, CLIENT_PATH, Condition, DURABILITY, Found, Port, Recipe, SERVER_NAME, STATE_MACHINE,
    Site, TRANSPORT, assemble,
};
use crate::program;
use crate::system::System;

pub const SETTINGS: &str =
    "defaults (heartbeat 100 ms, election 1 s, snapshot every 100,000 entries), space quota 8 GiB";
pub const EQUALITY: &[Condition] = &[
    (
        DURABILITY,
        "a quorum has synced before the acknowledgement",
        true,
    ),
    (
        TRANSPORT,
        "HTTP/2 over TCP, plaintext, between servers and to clients",
        false,
    ),
    (
        CLIENT_PATH,
        "etcd-client (gRPC), any server takes writes and forwards them, no sessions: a retried put may run twice",
        false,
    ),
    (
        BATCHING,
        "etcd's own: the entries of a Raft turn share a sync; one put per request",
        false,
    ),
    (
        STATE_MACHINE,
        "multi-version key-value store, every put a new key, B+tree written every 100 ms",
        false,
    ),
];

/// Bytes that the store may grow to: the default of 2 GiB would stop a long load by an alarm.
const SPACE_QUOTA_BYTES: u64 = 8 << 30;

pub fn find(given: Option<&Path>) -> anyhow::Result<Found> {
    let program = program::executable("etcd", given, System::Etcd.package())?;
    let version = program::version(System::Etcd, &program)?;
    Ok(Found { program, version })
}

pub fn recipe(found: &Found, site: &Site) -> Recipe {
    let url = |id, port| format!("http://{}", site.address(id, port));
    let cluster: Vec<String> = site
        .ids()
        .map(|id| format!("{SERVER_NAME}{id}={}", url(id, Port::Peer)))
        .collect();
    let cluster = cluster.join(",");
    let servers = site
        .ids()
        .map(|id| {
            let data = site.home(id).join("data").display().to_string();
            let arguments = [
                ("name", format!("{SERVER_NAME}{id}")),
                ("data-dir", data),
                ("listen-client-urls", url(id, Port::Client)),
                ("advertise-client-urls", url(id, Port::Client)),
                ("listen-peer-urls", url(id, Port::Peer)),
                ("initial-advertise-peer-urls", url(id, Port::Peer)),
                ("initial-cluster", cluster.clone()),
                ("initial-cluster-state", "new".to_owned()),
                ("initial-cluster-token", "synod-compare".to_owned()),
                ("quota-backend-bytes", SPACE_QUOTA_BYTES.to_string()),
                ("logger", "zap".to_owned()),
                ("log-level", "warn".to_owned()),
            ];
            let arguments = arguments
                .into_iter()
                .map(|(name, value)| format!("--{name}={value}"))
                .collect();
            site.server(id, &found.program, arguments)
        })
        .collect();
    assemble(System::Etcd, found.version, servers)
}
