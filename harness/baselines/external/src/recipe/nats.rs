//! NATS JetStream: a Raft group per stream, its own text protocol, an append-only stream in files.

use std::path::Path;

use super::{
    BATCHING, CLIENT_PATH, Condition, DURABILITY, Found, Port, Recipe, SERVER_NAME, STATE_MACHINE,
    Site, TRANSPORT, assemble,
};
use crate::program::{self, Missing, Version};
use crate::system::System;

pub const SETTINGS: &str =
    "stream with as many replicas as servers, file storage, sync_interval: always; else defaults";
pub const SETTINGS_DEFAULT: &str =
    "stream with as many replicas as servers, file storage; all defaults (sync every 2 minutes)";

const TRANSPORT_CONDITION: Condition = (
    TRANSPORT,
    "TCP, plaintext, between servers and to clients",
    false,
);
const CLIENT_CONDITION: Condition = (
    CLIENT_PATH,
    "async-nats, any server takes messages and forwards them, no sessions: a retried publish may be stored twice",
    false,
);
const BATCHING_CONDITION: Condition = (
    BATCHING,
    "JetStream's own: messages that wait share an entry of its Raft log; one message per publish",
    false,
);
const MACHINE_CONDITION: Condition = (
    STATE_MACHINE,
    "append-only stream in files, written besides the Raft log",
    false,
);
pub const EQUALITY: &[Condition] = &[
    (
        DURABILITY,
        "a quorum has synced before the acknowledgement",
        true,
    ),
    TRANSPORT_CONDITION,
    CLIENT_CONDITION,
    BATCHING_CONDITION,
    MACHINE_CONDITION,
];
pub const EQUALITY_DEFAULT: &[Condition] = &[
    (
        DURABILITY,
        "not durable: acknowledged from the page caches of a quorum",
        false,
    ),
    TRANSPORT_CONDITION,
    CLIENT_CONDITION,
    BATCHING_CONDITION,
    MACHINE_CONDITION,
];

/// The first that can sync before it acknowledges.
const SYNC_ALWAYS_SINCE: Version = Version::new(2, 10, 0);
/// What a server gives to streams. By default it would be three quarters of the disk.
const STORE_MAX: &str = "16GB";

pub fn find(system: System, given: Option<&Path>) -> anyhow::Result<Found> {
    let program = program::executable("nats-server", given, system.package())?;
    let version = program::version(system, &program)?;
    if system.durable() && version < SYNC_ALWAYS_SINCE {
        return Err(Missing(format!(
            "{} is {version}, and `sync_interval: always` needs {SYNC_ALWAYS_SINCE} (Debian: nats-server from trixie on); \
             nats-default runs",
            program.display()
        ))
        .into());
    }
    Ok(Found { program, version })
}

pub fn recipe(system: System, found: &Found, site: &Site) -> Recipe {
    let sync = match system.durable() {
        true => "  sync_interval: always\n",
        false => "",
    };
    let servers = site
        .ids()
        .map(|id| {
            let home = site.home(id);
            let config = home.join("nats.conf");
            let arguments = vec!["--config".to_owned(), config.display().to_string()];
            let content = format!(
                "server_name: {SERVER_NAME}{id}\nlisten: \"{}\"\n\
                 jetstream {{\n  store_dir: \"{}\"\n  max_file_store: {STORE_MAX}\n{sync}}}\n\
                 {}",
                site.address(id, Port::Client),
                home.join("data").display(),
                cluster_section(site, id),
            );
            site.server(id, &found.program, arguments)
                .with_file(config, content)
        })
        .collect();
    assemble(system, found.version, servers)
}

/// A server without others has no cluster: alone in one it would wait for them.
fn cluster_section(site: &Site, id: u8) -> String {
    if site.replicas == 1 {
        return String::new();
    }
    let routes: Vec<String> = site
        .ids()
        .map(|id| format!("\"nats://{}\"", site.address(id, Port::Peer)))
        .collect();
    format!(
        "cluster {{\n  name: synod-compare\n  listen: \"{}\"\n  routes: [{}]\n}}\n",
        site.address(id, Port::Peer),
        routes.join(", ")
    )
}
