//! `synod cluster check`: looks at every host, and at the paths between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use serde::Serialize;

use crate::certs::random_u64;
use crate::certs::show::Listed;
use crate::cluster::findings::{Finding, Findings};
use crate::cluster::fleet::{Fleet, each};
use crate::cluster::folder::{Executable, Folder};
use crate::cluster::inventory::{HostEntry, Inventory};
use crate::cluster::replicas::folder_name;
use crate::cluster::server::{ClockOffset, Server};
use crate::cluster::table::Table;
use crate::cluster::{all_hosts, with_reached};
use crate::failure::describe;
use crate::output::say;
use crate::probe::facts::Facts;
use crate::probe::protocol::RoundTrips;

const PINGS: u32 = 20;

#[derive(Serialize)]
struct Report {
    ok: bool,
    hosts: Vec<HostReport>,
    /// From each host that was reached to each other one.
    round_trips: Vec<Path>,
    findings: Vec<Finding>,
    /// Hosts of which nothing is known, and why.
    failed: Vec<String>,
}

#[derive(Serialize)]
struct HostReport {
    name: String,
    facts: Facts,
    clock: ClockOffset,
}

#[derive(Serialize)]
struct Path {
    from: String,
    to: String,
    #[serde(flatten)]
    times: RoundTrips,
}

/// A host in the middle of its check.
struct Examined {
    entry: HostEntry,
    server: Server,
    facts: Facts,
    clock: ClockOffset,
    /// Of the cluster, if it is up there.
    certificates: Vec<Listed>,
}

pub async fn run(inventory: &Inventory, json: bool) -> anyhow::Result<()> {
    let report = with_reached(inventory, &all_hosts(inventory), async |fleet, errors| {
        examine_all(fleet, &folder_name(inventory), errors).await
    })
    .await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        say!("{}", text(&report))?;
    }
    let unfit = report.findings.iter().filter(|finding| finding.unfit);
    let mut complaints: Vec<String> = report.failed.clone();
    complaints.extend(unfit.map(|finding| {
        format!(
            "host {}: {}; {}",
            finding.host, finding.what, finding.remedy
        )
    }));
    anyhow::ensure!(report.ok, "{}", complaints.join("; "));
    Ok(())
}

async fn examine_all(
    fleet: &Fleet,
    cluster: &str,
    errors: Vec<anyhow::Error>,
) -> anyhow::Result<Report> {
    let token = random_u64()?;
    // A name of its own: a check does not meet a cluster that is up.
    let name = format!("synod-check-{token:016x}");
    let executable = Arc::new(Executable::own()?);
    let mut folders = Vec::new();
    for (_, host) in fleet.connected() {
        let folder = Folder::of(&host, &name)?;
        fleet.begin(&folder);
        folders.push(folder);
    }
    let examined = each(folders, |folder| {
        let (executable, cluster) = (Arc::clone(&executable), cluster.to_owned());
        async move { examine(&folder, &executable, token, &cluster).await }
    });
    let mut failed: Vec<String> = errors.iter().map(describe).collect();
    let mut hosts = Vec::new();
    for host in examined.await {
        match host {
            Ok(host) => hosts.push(host),
            Err(error) => failed.push(describe(&error)),
        }
    }
    let mut findings: Vec<Finding> = hosts.iter().flat_map(findings).collect();
    let (hosts, round_trips) = measure_paths(hosts, &mut findings, &mut failed).await;
    Ok(Report {
        ok: failed.is_empty() && !findings.iter().any(|finding| finding.unfit),
        hosts,
        round_trips,
        findings,
        failed,
    })
}

async fn examine(
    folder: &Folder,
    executable: &Executable,
    token: u64,
    cluster: &str,
) -> anyhow::Result<Examined> {
    folder.make("check").await?;
    let executable = folder.install(executable).await?;
    let mut server = Server::start(folder, &executable, token).await?;
    Ok(Examined {
        entry: folder.host.entry.clone(),
        facts: server.facts().await?,
        clock: server.clock().await?,
        certificates: certificates(folder, &executable, cluster).await?,
        server,
    })
}

/// What lies in the folder of a cluster that is up on the host.
async fn certificates(
    folder: &Folder,
    executable: &str,
    cluster: &str,
) -> anyhow::Result<Vec<Listed>> {
    const SCRIPT: &str = "\
        if [ -f \"$0/ca.pem\" ]; then exec \"$1\" certs --show \"$0\" --json; fi";
    let host = &folder.host;
    let there = Folder::of(host, cluster)?;
    let text = host.script(SCRIPT, &[there.path(), executable]).await?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&text)
        .with_context(|| format!("host {}: `{text}` is no list of certificates", host.name()))
}

fn findings(host: &Examined) -> Vec<Finding> {
    let mut findings = Findings::of(&host.entry);
    findings.facts(&host.facts);
    findings.ports(&host.server.taken);
    findings.clock(&host.clock);
    findings.certificates(&host.certificates);
    findings.into_list()
}

/// All hosts answer while all ask.
async fn measure_paths(
    hosts: Vec<Examined>,
    findings: &mut Vec<Finding>,
    failed: &mut Vec<String>,
) -> (Vec<HostReport>, Vec<Path>) {
    let places: BTreeMap<SocketAddr, String> = hosts
        .iter()
        .map(|host| {
            (
                SocketAddr::new(host.entry.address, host.entry.ports[0]),
                host.entry.name.clone(),
            )
        })
        .collect();
    let targets: Arc<Vec<SocketAddr>> = Arc::new(places.keys().copied().collect());
    let asked = each(hosts, |mut host| {
        let targets = Arc::clone(&targets);
        async move {
            let others = targets
                .iter()
                .filter(|target| target.ip() != host.entry.address);
            let paths = host.server.ping(others.copied().collect(), PINGS).await;
            (host, paths)
        }
    });
    let (mut reports, mut round_trips) = (Vec::new(), Vec::new());
    for (host, paths) in asked.await {
        match paths {
            Ok(paths) => {
                for times in paths {
                    let to = places[&times.target].clone();
                    path_findings(&host, &to, &times, findings);
                    round_trips.push(Path {
                        from: host.entry.name.clone(),
                        to,
                        times,
                    });
                }
            }
            Err(error) => failed.push(describe(&error)),
        }
        reports.push(HostReport {
            name: host.entry.name,
            facts: host.facts,
            clock: host.clock,
        });
    }
    (reports, round_trips)
}

fn path_findings(host: &Examined, to: &str, times: &RoundTrips, findings: &mut Vec<Finding>) {
    let mut found = Findings::of(&host.entry);
    let port = times.target.port();
    if times.received == 0 {
        let what = format!("nothing comes back from host {to} on UDP port {port}");
        found.unfit(
            what,
            "open the port in the firewalls, and check the routes between them",
        );
    } else if times.received < times.sent {
        let lost = times.sent - times.received;
        let what = format!("{lost} of {} datagrams to host {to} were lost", times.sent);
        found.warn(what, "look for errors on the link (ip -s link)");
    }
    findings.extend(found.into_list());
}

fn text(report: &Report) -> String {
    let mut parts = Vec::new();
    if !report.hosts.is_empty() {
        parts.push(host_table(&report.hosts));
    }
    if !report.round_trips.is_empty() {
        parts.push(format!(
            "round trip, median of UDP datagrams (µs)\n{}",
            matrix(report)
        ));
    }
    for failure in &report.failed {
        parts.push(format!("FAILED   {failure}"));
    }
    for finding in &report.findings {
        let word = if finding.unfit { "UNFIT" } else { "warning" };
        parts.push(format!(
            "{word:<8} host {}: {}; {}",
            finding.host, finding.what, finding.remedy
        ));
    }
    parts.join("\n")
}

fn host_table(hosts: &[HostReport]) -> String {
    let mut table = Table::new(&[
        "host", "kernel", "cores", "governor", "disk", "sync p50", "p99", "free", "WAL by",
        "clock", "MTU",
    ]);
    for HostReport { name, facts, clock } in hosts {
        let environment = &facts.environment;
        let mtu = facts.interface.as_ref().and_then(|interface| interface.mtu);
        let backend = facts.wal_backend.split(' ').next().unwrap_or("unknown");
        table.row(&[
            name,
            &environment.kernel,
            &environment.cores.to_string(),
            &environment.governor,
            &format!(
                "{} on {}",
                environment.data.filesystem, environment.data.device
            ),
            &format!("{:.0} µs", facts.sync.p50_us),
            &format!("{:.0} µs", facts.sync.p99_us),
            &format!("{} GiB", facts.free_bytes >> 30),
            backend,
            &format!("{:+.1} ± {:.1} ms", clock.offset_ms, clock.uncertainty_ms),
            &mtu.map_or_else(|| "?".to_owned(), |mtu| mtu.to_string()),
        ]);
    }
    table.text()
}

fn matrix(report: &Report) -> String {
    let names: Vec<&str> = report.hosts.iter().map(|host| &*host.name).collect();
    let mut header = vec!["from \\ to"];
    header.extend(&names);
    let mut table = Table::new(&header);
    for from in &names {
        let mut row = vec![(*from).to_owned()];
        for to in &names {
            let path = report
                .round_trips
                .iter()
                .find(|path| path.from == *from && path.to == *to);
            row.push(match path {
                Some(path) if path.times.received > 0 => format!("{:.0}", path.times.median_us),
                Some(_) => "lost".to_owned(),
                None => "-".to_owned(),
            });
        }
        let cells: Vec<&str> = row.iter().map(String::as_str).collect();
        table.row(&cells);
    }
    table.text()
}
