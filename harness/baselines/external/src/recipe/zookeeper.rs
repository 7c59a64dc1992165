//! ZooKeeper: Zab, its own protocol, a tree in memory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::{
    BATCHING, CLIENT_PATH, Condition, DURABILITY, Found, Port, Recipe, STATE_MACHINE, Site,
    TRANSPORT, assemble,
};
use crate::program::{self, Version};
use crate::system::System;

pub const SETTINGS: &str = "defaults (tick 2 s, sync limit 5 ticks, forceSync, snapshot every 100,000 writes), heap 1,000 MB as its \
     script gives, no limit of connections, admin server off";
pub const EQUALITY: &[Condition] = &[
    (
        DURABILITY,
        "a quorum has synced before the acknowledgement",
        true,
    ),
    (
        TRANSPORT,
        "TCP, plaintext, between servers and to clients",
        false,
    ),
    (
        CLIENT_PATH,
        "zookeeper-client, sessions spread over the servers, followers forward; a retried setData may run twice",
        false,
    ),
    (
        BATCHING,
        "ZooKeeper's own: queued writes share a sync; one setData per request",
        false,
    ),
    (
        STATE_MACHINE,
        "tree in memory, each write sets one of 16,384 nodes",
        false,
    ),
];

/// What `zkEnv.sh` of the distribution gives a server.
const HEAP: &str = "-Xmx1000m";
/// Where Debian and the project's own archive put the jar; its manifest names the rest of the class path.
const JARS: [&str; 3] = [
    "/usr/share/java/zookeeper.jar",
    "/usr/share/zookeeper/lib/zookeeper.jar",
    "/usr/share/zookeeper/zookeeper.jar",
];

/// The jar and the Java that runs it.
pub struct Jar {
    java: PathBuf,
    jar: PathBuf,
    version: Version,
}

#[cfg(test)]
impl Jar {
    pub fn test(jar: &str) -> Jar {
        Jar {
            java: PathBuf::from("/usr/bin/java"),
            jar: PathBuf::from(jar),
            version: Version::new(3, 8, 0),
        }
    }
}

pub fn find(given: Option<&Path>) -> anyhow::Result<Jar> {
    let package = System::Zookeeper.package();
    let jar = match given {
        Some(given) => program::executable("zookeeper.jar", Some(given), package)?,
        None => JARS
            .iter()
            .map(PathBuf::from)
            .find(|jar| jar.is_file())
            .ok_or_else(|| program::not_installed("ZooKeeper", package))?,
    };
    let java = program::executable("java", None, "default-jre-headless")?;
    let version = version(&java, &jar)?;
    Ok(Jar { java, jar, version })
}

/// The server itself has no flag for it, but the jar has a program.
fn version(java: &Path, jar: &Path) -> anyhow::Result<Version> {
    let output = Command::new(java)
        .args(["-cp", &class_path(jar)])
        .arg("org.apache.zookeeper.version.VersionInfoMain")
        .output()
        .with_context(|| format!("{}: cannot be run", java.display()))?;
    Version::find(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("{}: tells no version", jar.display()))
}

pub fn recipe(found: &Jar, site: &Site) -> Recipe {
    // A server without others runs alone, which is another mode.
    let peers: String = site
        .ids()
        .filter(|_| site.replicas > 1)
        .map(|id| {
            let peer = site.address(id, Port::Peer);
            let election = site.address(id, Port::Election).port();
            format!("server.{id}={peer}:{election}\n")
        })
        .collect();
    let servers = site
        .ids()
        .map(|id| {
            let home = site.home(id);
            let data = home.join("data");
            let config = home.join("zoo.cfg");
            let arguments = vec![
                HEAP.to_owned(),
                "-cp".to_owned(),
                class_path(&found.jar),
                "org.apache.zookeeper.server.quorum.QuorumPeerMain".to_owned(),
                config.display().to_string(),
            ];
            let client = site.address(id, Port::Client);
            let content = format!(
                "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPortAddress={}\nclientPort={}\n\
                 maxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=srvr\n{peers}",
                data.display(),
                client.ip(),
                client.port(),
            );
            site.server(id, &found.java, arguments)
                .with_file(data.join("myid"), format!("{id}\n"))
                .with_file(config, content)
        })
        .collect();
    let found = Found {
        program: found.java.clone(),
        version: found.version,
    };
    assemble(System::Zookeeper, found.version, servers)
}

/// The jar's manifest names what else it needs; in the project's own archive everything lies beside it.
fn class_path(jar: &Path) -> String {
    let beside = jar.parent().map(|folder| folder.join("*"));
    match beside {
        Some(beside) if jar.ends_with("lib/zookeeper.jar") => beside.display().to_string(),
        Some(_) | None => jar.display().to_string(),
    }
}
