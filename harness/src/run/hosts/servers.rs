//! Servers of other projects on other machines, as a [`Target`]: the adapter of each host writes its server's files, a
//! guard of ours runs the server, and the adapter on the client hosts plays the clients.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use synod_engine::ids::ReplicaId;

use crate::cluster::fleet::{all, each};
use crate::cluster::folder::Folder;
use crate::cluster::inventory::ReplicaPlace;
use crate::cluster::replicas::Placed;
use crate::load::event::LoadResult;
use crate::load::load_file::{Load, LoadPart};
use crate::run::counters::Status;
use crate::run::external::{EXIT_MISSING, READY_S, Recipe, Server, load_flags, said, verdict};
use crate::run::hosts::remote::Programs;
use crate::run::hosts::{ClientPlace, several_loads};
use crate::run::layout::Layout;
use crate::run::load_process::LoadProcess;
use crate::run::plan::Plan;
use crate::run::process::Process;
use crate::run::progress::Progress;
use crate::run::target::{Conclusion, LinkId, Target};
use crate::system::{NotInstalled, System};

/// A server takes this many ports, one behind the other.
const PORTS_PER_SERVER: u16 = 3;

pub struct RemoteServers<'a> {
    layout: &'a Layout,
    plan: &'a Plan,
    programs: &'a Programs,
    addresses: String,
    servers: BTreeMap<ReplicaId, RemoteServer>,
    clients: Vec<ClientPlace>,
}

struct RemoteServer {
    placed: Placed,
    /// Our own executable on its host.
    executable: String,
    server: Server,
    process: Process,
}

/// Where clients reach each server. Servers of one address share its ports out, from the lowest of its replicas' on.
pub fn addresses(places: &[ReplicaPlace]) -> anyhow::Result<Vec<SocketAddr>> {
    let mut next: BTreeMap<IpAddr, Option<u16>> = BTreeMap::new();
    let address = |place: &ReplicaPlace| {
        let ip = place.address.ip();
        let port = next.entry(ip).or_insert(Some(place.address.port()));
        let first = port.context("the inventory's port leaves no room: choose a lower one")?;
        *port = first.checked_add(PORTS_PER_SERVER);
        Ok(SocketAddr::new(ip, first))
    };
    places.iter().map(address).collect()
}

/// Asks the adapter on a host for a recipe; `more` says which servers.
pub async fn recipe(
    folder: &Folder,
    adapter: &str,
    system: System,
    more: &[&str],
) -> anyhow::Result<Recipe> {
    let (name, host) = (system.name(), &folder.host);
    let mut words = vec![adapter, "servers", "--system", &name];
    words.extend(more);
    let output = host.output(&words).await?;
    let complaint = format!("host {}: {}", host.name(), said(&output.stderr));
    if output.status.code() == Some(EXIT_MISSING) {
        return Err(NotInstalled(complaint).into());
    }
    anyhow::ensure!(output.status.success(), "{complaint}");
    Recipe::parse(Path::new(adapter), &output.stdout)
}

impl<'a> RemoteServers<'a> {
    /// `places` are the replicas of the inventory, in the order of `placed`'s ids.
    pub async fn start(
        plan: &'a Plan,
        layout: &'a Layout,
        programs: &'a Programs,
        places: &[ReplicaPlace],
        placed: Vec<Placed>,
        clients: Vec<ClientPlace>,
    ) -> anyhow::Result<RemoteServers<'a>> {
        let texts: Vec<String> = addresses(places)?.iter().map(ToString::to_string).collect();
        let addresses = texts.join(",");
        let system = plan.subject.system;
        let mut work = Vec::new();
        for placed in placed {
            let adapter = programs.adapter_in(&placed.folder)?;
            work.push((placed, adapter, addresses.clone()));
        }
        let prepared = each(work, |(placed, adapter, addresses)| async move {
            let id = placed.id.0.to_string();
            let directory = placed.folder.file(&format!("server-{id}"));
            let more = [
                "--addresses",
                &addresses,
                "--only",
                &id,
                "--directory",
                &directory,
            ];
            let recipe = recipe(&placed.folder, &adapter, system, &more).await?;
            let server = recipe.servers.into_iter().next();
            Ok((placed, server.context("the recipe has no server")?))
        });
        let mut cluster = RemoteServers {
            layout,
            plan,
            programs,
            addresses,
            servers: BTreeMap::new(),
            clients,
        };
        for (placed, server) in all(prepared.await)? {
            let process = cluster.launch(&placed, &server)?;
            let executable = programs.own.path_in(&placed.folder);
            let server = RemoteServer {
                placed,
                executable,
                server,
                process,
            };
            cluster.servers.insert(server.placed.id, server);
        }
        Ok(cluster)
    }

    fn launch(&self, placed: &Placed, server: &Server) -> anyhow::Result<Process> {
        let own = self.programs.own.path_in(&placed.folder);
        let cpus = placed.host().entry.cpus.as_ref().map(ToString::to_string);
        let words = server_words(&own, &placed.pid_file(), cpus.as_deref(), server)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let name = format!("server {} on host {}", placed.id.0, placed.host().name());
        let log = self.layout.replica_log(placed.id);
        Process::start_on(placed.host(), &words, &name, &log)
    }

    /// Until the cluster serves a write.
    async fn wait(&mut self) -> anyhow::Result<()> {
        let waited = self.ask("wait", &["--seconds", READY_S]).await;
        // A server that ended says more than the client that misses it.
        self.check().await?;
        waited.map(|_| ())
    }

    /// What the adapter answers on a client host: the servers need not be reached from here.
    async fn ask(&self, command: &str, more: &[&str]) -> anyhow::Result<String> {
        let place = self.clients.first().context("there is a client")?;
        let adapter = self.programs.adapter_in(&place.folder)?;
        let system = self.plan.subject.system.name();
        let mut words = vec![&adapter, command, "--system", &system];
        words.extend(["--addresses", &self.addresses]);
        words.extend(more);
        let output = place.folder.host.output(&words).await?;
        anyhow::ensure!(
            output.status.success(),
            "host {}: {}",
            place.folder.host.name(),
            said(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn server(&mut self, id: ReplicaId) -> anyhow::Result<&mut RemoteServer> {
        let server = self.servers.get_mut(&id);
        server.with_context(|| format!("there is no server {}", id.0))
    }
}

impl Target for RemoteServers<'_> {
    fn backend(&self) -> String {
        "its own".into()
    }

    fn replicas(&self) -> Vec<ReplicaId> {
        self.servers.keys().copied().collect()
    }

    async fn wait_for_leader(&mut self) -> anyhow::Result<ReplicaId> {
        self.wait().await?;
        self.leader(&self.replicas())
            .await
            .context("the cluster serves, but names no leader")
    }

    async fn leader(&self, _up: &[ReplicaId]) -> Option<ReplicaId> {
        let answer = self.ask("leader", &[]).await.ok()?;
        let position: usize = answer.parse().ok()?;
        // Addresses and servers are in the same order.
        self.servers.keys().copied().nth(position.checked_sub(1)?)
    }

    async fn statuses(&self, up: &[ReplicaId]) -> anyhow::Result<BTreeMap<ReplicaId, Status>> {
        let asked = self.servers.values();
        let asked = asked.filter(|server| up.contains(&server.placed.id));
        let asked = asked.map(|server| (server.placed.clone(), server.executable.clone()));
        let states = each(asked.collect(), |(placed, executable)| async move {
            let usage = placed.usage(&executable).await?;
            let status = Status::from([
                ("process_cpu_us".to_owned(), usage.cpu_us),
                ("disk_bytes_written".to_owned(), usage.disk_bytes_written),
            ]);
            Ok((placed.id, status))
        });
        Ok(all(states.await)?.into_iter().collect())
    }

    async fn check(&mut self) -> anyhow::Result<()> {
        for server in self.servers.values_mut() {
            server.process.check().await?;
        }
        Ok(())
    }

    async fn kill(&mut self, victims: &[ReplicaId]) -> anyhow::Result<()> {
        let mut orders = Vec::new();
        for id in victims {
            let server = self.server(*id)?;
            orders.push((server.placed.clone(), server.executable.clone()));
        }
        let killed = each(orders, |(placed, executable)| async move {
            placed.end(&executable, "kill").await
        });
        all(killed.await)?;
        for id in victims {
            self.server(*id)?.process.reap().await?;
        }
        Ok(())
    }

    async fn restart(&mut self, victims: &[ReplicaId]) -> anyhow::Result<()> {
        for id in victims {
            let server = self.server(*id)?;
            let (placed, recipe) = (server.placed.clone(), server.server.clone());
            let process = self.launch(&placed, &recipe)?;
            self.server(*id)?.process = process;
        }
        self.wait().await
    }

    async fn pause(&mut self, victims: &[ReplicaId], paused: bool) -> anyhow::Result<()> {
        for id in victims {
            let server = self.server(*id)?;
            server.placed.halt(&server.executable, paused).await?;
        }
        Ok(())
    }

    async fn cut(&mut self, _links: &BTreeSet<LinkId>) -> anyhow::Result<()> {
        anyhow::bail!("the links of these servers cannot be cut")
    }

    fn start_load(&self, progress: &Arc<Progress>) -> anyhow::Result<LoadProcess> {
        let mut parts = Vec::new();
        for place in &self.clients {
            let (folder, host) = (&place.folder, place.folder.host.name());
            let own = self.programs.own.path_in(folder);
            let pid = folder.file("load.pid");
            let adapter = self.programs.adapter_in(folder)?;
            let load = load_words(self.plan, &self.addresses, folder.path(), place.part);
            let mut words = vec![&own, "probe", "exec", "--pid-file", &pid, "--", &adapter];
            words.extend(load.iter().map(String::as_str));
            let log = self.layout.results.join(format!("load-{host}.log"));
            let name = format!("the load on host {host}");
            parts.push(several_loads::Part {
                process: Process::start_on(&folder.host, &words, &name, &log)?,
                folder: folder.clone(),
            });
        }
        let results = self.layout.results.clone();
        Ok(several_loads::follow(parts, results, Arc::clone(progress)))
    }

    /// The load itself has read back what was acknowledged, while the cluster was there.
    async fn conclude(
        mut self,
        _plan: &Plan,
        load: &LoadResult,
        progress: &Arc<Progress>,
    ) -> anyhow::Result<Conclusion> {
        let started = Instant::now();
        for server in self.servers.values_mut() {
            // How it takes SIGTERM is its own affair.
            server.placed.end(&server.executable, "term").await?;
            server.process.reap().await?;
        }
        Ok(Conclusion {
            verdict: verdict(load, progress)?,
            verify_seconds: started.elapsed().as_secs_f64(),
            complaints: Vec::new(),
            links: None,
        })
    }
}

/// How a server is started on its host, where `own` is our executable.
fn server_words(
    own: &str,
    pid_file: &str,
    cpus: Option<&str>,
    server: &Server,
) -> anyhow::Result<Vec<String>> {
    let text = |path: &Path| {
        let text = path.to_str().map(str::to_owned);
        text.context("a path of the host is not valid UTF-8")
    };
    let mut words: Vec<String> = [own, "probe", "guard", "--pid-file", pid_file, "--directory"]
        .map(str::to_owned)
        .to_vec();
    words.push(text(&server.directory)?);
    if let Some(cpus) = cpus {
        words.extend(["--cpus".to_owned(), cpus.to_owned()]);
    }
    words.push("--".to_owned());
    if !server.environment.is_empty() {
        words.push("env".to_owned());
        let pairs = server.environment.iter();
        words.extend(pairs.map(|(name, value)| format!("{name}={value}")));
    }
    words.push(text(&server.program)?);
    words.extend(server.arguments.iter().cloned());
    Ok(words)
}

/// What the adapter of a client host is told, behind its name.
fn load_words(plan: &Plan, addresses: &str, out: &str, part: LoadPart) -> Vec<String> {
    let (Load::Closed { clients, .. } | Load::Open { clients, .. }) = plan.load;
    let LoadPart {
        first_client,
        clients: here,
    } = part;
    let mut words = vec!["load".to_owned()];
    words.extend(["--system".to_owned(), plan.subject.system.name()]);
    words.extend(["--addresses".to_owned(), addresses.to_owned()]);
    words.extend(load_flags(plan));
    words.extend(["--clients".to_owned(), clients.to_string()]);
    words.extend(["--part".to_owned(), format!("{first_client}:{here}")]);
    words.extend(["--out".to_owned(), out.to_owned()]);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(id: u8, host: usize, address: &str) -> ReplicaPlace {
        ReplicaPlace {
            id: ReplicaId(id),
            host,
            address: address.parse().unwrap(),
            advertised: address.parse().unwrap(),
        }
    }

    #[test]
    fn servers_of_one_machine_share_its_ports_out() {
        let places = [
            place(1, 0, "10.0.0.1:7400"),
            place(2, 0, "10.0.0.1:7401"),
            place(3, 1, "10.0.0.2:7400"),
            place(4, 2, "10.0.0.1:7402"),
        ];
        let found: Vec<String> = addresses(&places)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "10.0.0.1:7400",
                "10.0.0.1:7403",
                "10.0.0.2:7400",
                "10.0.0.1:7406"
            ]
        );
        let last = [place(1, 0, "[::1]:65534"), place(2, 0, "[::1]:65535")];
        let error = addresses(&last).unwrap_err();
        assert!(error.to_string().contains("choose a lower one"), "{error}");
    }

    #[test]
    fn a_server_is_guarded_and_starts_where_its_files_are() {
        let json = r#"{"id": 2, "program": "/usr/bin/etcd", "arguments": ["--name=server-2"], "environment": {},
            "directory": "/d/server-2/2", "client_address": "10.0.0.2:7400"}"#;
        let mut server: Server = serde_json::from_str(json).unwrap();
        let words = server_words("/d/bin/synod-1", "/d/replica-2.pid", None, &server).unwrap();
        assert_eq!(
            words.join(" "),
            "/d/bin/synod-1 probe guard --pid-file /d/replica-2.pid --directory /d/server-2/2 -- \
             /usr/bin/etcd --name=server-2"
        );
        server.environment.insert("HEAP".into(), "1 g".into());
        let words = server_words("s", "p", Some("0-3"), &server).unwrap();
        let expected = ["--cpus", "0-3", "--", "env", "HEAP=1 g", "/usr/bin/etcd"];
        assert!(
            words.ends_with(
                &[&expected[..], &["--name=server-2"]]
                    .concat()
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()[..]
            )
        );
    }
}
