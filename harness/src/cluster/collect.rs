//! `synod cluster logs` and `collect`.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context;

use crate::certs::random_u64;
use crate::cluster::fleet::{all, all_of, each};
use crate::cluster::folder::{Executable, Folder};
use crate::cluster::host::complaint;
use crate::cluster::inventory::Inventory;
use crate::cluster::replicas::{folder_name, placed};
use crate::cluster::server::Server;
use crate::cluster::state::State;
use crate::cluster::{not_up, replica_hosts, with, with_reached};
use crate::failure::usage;
use crate::output::say;

pub async fn logs(
    inventory: &Inventory,
    state: &State,
    host: Option<&str>,
    lines: u32,
) -> anyhow::Result<()> {
    if state.read()?.is_none() {
        return Err(not_up(inventory));
    }
    let wanted = match host {
        Some(name) => vec![inventory.host(name)?],
        None => replica_hosts(inventory),
    };
    with(inventory, &wanted, async |fleet| {
        let lines = lines.to_string();
        for replica in placed(fleet, inventory, &folder_name(inventory))? {
            let log = replica.folder.file(&format!("{}.log", replica.name()));
            let text = replica
                .host()
                .run(&["tail", "-n", &lines, "--", &log])
                .await?;
            for line in text.lines() {
                say!("{} {}: {line}", replica.host().name(), replica.name())?;
            }
        }
        Ok(())
    })
    .await
}

/// A host that is gone does not keep the others' files from us.
pub async fn run(
    inventory: &Inventory,
    state: &State,
    out: &Path,
    wal: bool,
) -> anyhow::Result<()> {
    if state.read()?.is_none() {
        return Err(not_up(inventory));
    }
    std::fs::create_dir(out).map_err(|error| {
        let out = out.display();
        usage(format!(
            "--out {out}: cannot be made: {error}; name a directory that is not there yet"
        ))
    })?;
    with_reached(
        inventory,
        &replica_hosts(inventory),
        async |fleet, mut errors| {
            let mut folders = Vec::new();
            for (_, host) in fleet.connected() {
                let to = out.join(host.name());
                std::fs::create_dir(&to)
                    .with_context(|| format!("{}: cannot be made", to.display()))?;
                folders.push((Folder::of(&host, &folder_name(inventory))?, to));
            }
            let fetched = each(folders, |(folder, to)| async move {
                fetch(&folder, &to, wal).await?;
                describe_host(&folder, &to).await
            });
            if let Err(error) = all(fetched.await) {
                errors.push(error);
            }
            say!("collected: {}", out.display())?;
            match errors.is_empty() {
                true => Ok(()),
                false => Err(all_of(errors).context("not everything was collected")),
            }
        },
    )
    .await
}

/// Packs the files there and unpacks them here. Keys and the executable stay where they are.
async fn fetch(folder: &Folder, to: &Path, wal: bool) -> anyhow::Result<()> {
    const SCRIPT: &str = "cd \"$0\" && find replica-* -maxdepth \"$1\" -type f \
         ! -name '*.key' ! -name '*.pem' ! -name '*.pid' | tar -cSf - -T - || [ $? = 1 ]";
    // 1 says that a file changed while it was read, as the log of a running replica does.
    let depth = if wal { "1" } else { "0" };
    unpack(folder, SCRIPT, &[folder.path(), depth], to).await
}

/// Runs a script that prints an archive, and unpacks that into `to`.
pub async fn unpack(
    folder: &Folder,
    script: &str,
    words: &[&str],
    to: &Path,
) -> anyhow::Result<()> {
    let name = folder.host.name();
    let mut all = vec!["sh", "-c", script];
    all.extend_from_slice(words);
    // Whoever we are: what comes from a host is ours here, and nothing in it runs as somebody else.
    let mut unpacking = tokio::process::Command::new("tar");
    unpacking
        .args(["-x", "--no-same-owner", "--no-same-permissions", "-f", "-"])
        .arg("-C")
        .arg(to)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut unpacking = unpacking.spawn().context("`tar` cannot be started")?;
    let archive = unpacking.stdin.take().context("no stdin")?;
    let (packed, unpacked) = tokio::join!(
        folder.host.carry(&all, archive),
        unpacking.wait_with_output()
    );
    let (packed, unpacked) = (packed?, unpacked?);
    anyhow::ensure!(
        packed.status.success(),
        "host {name}: {}",
        complaint(&packed.stderr)
    );
    let here = complaint(&unpacked.stderr);
    anyhow::ensure!(unpacked.status.success(), "{}: {here}", to.display());
    Ok(())
}

async fn describe_host(folder: &Folder, to: &Path) -> anyhow::Result<()> {
    let executable = folder.install(&Executable::own()?).await?;
    let mut server = Server::start(folder, &executable, random_u64()?).await?;
    let facts = server.facts().await?;
    let path = to.join("facts.json");
    std::fs::write(&path, serde_json::to_string_pretty(&facts)?)
        .with_context(|| format!("{}: cannot be written", path.display()))
}
