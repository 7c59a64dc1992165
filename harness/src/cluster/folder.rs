//! Our folder on a host: all that a cluster or a run puts there, so that removing it removes everything.
//!
//! ```text
//! DATA/synod-NAME/  bin/{synod,replica,adapter}-HASH  ca.pem  client.{pem,key,toml}
//!                   replica-N.{toml,pem,key,pid,out,log}  replica-N/  server-N/
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use xxhash_rust::xxh3::xxh3_128;

use crate::cluster::host::Host;

/// What [`Folder::remove`] asks to end the others.
const OWN: &str = "synod";

/// The executable, found by its hash: a host that has the file has this very build.
pub struct Executable {
    path: PathBuf,
    /// What its file is called on hosts, before the hash.
    name: &'static str,
    hash: u128,
}

impl Executable {
    /// The one that runs.
    pub fn own() -> anyhow::Result<Executable> {
        let path = std::env::current_exe().context("this executable has no path")?;
        Executable::read(&path, OWN)
    }

    /// One that runs as a replica in the place of ours, and knows nothing of `synod probe`.
    pub fn of_replica(path: &Path) -> anyhow::Result<Executable> {
        Executable::read(path, "replica")
    }

    /// The adapter of other projects' systems.
    pub fn of_adapter(path: &Path) -> anyhow::Result<Executable> {
        Executable::read(path, "adapter")
    }

    fn read(path: &Path, name: &'static str) -> anyhow::Result<Executable> {
        let bytes =
            std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        Ok(Executable {
            hash: xxh3_128(&bytes),
            path: path.to_owned(),
            name,
        })
    }

    /// Where it is on a host that has it.
    pub fn path_in(&self, folder: &Folder) -> String {
        folder.file(&format!("bin/{}-{:032x}", self.name, self.hash))
    }
}

#[derive(Clone)]
pub struct Folder {
    pub host: Arc<Host>,
    /// Absolute.
    path: String,
    /// By [`Folder::make`] of this or a clone of it, so that it is ours to remove.
    made: Arc<AtomicBool>,
}

impl Folder {
    /// `name` says whose it is: `synod-` and the name of the cluster or the run.
    pub fn of(host: &Arc<Host>, name: &str) -> anyhow::Result<Folder> {
        let data = host
            .entry
            .data
            .to_str()
            .context("a data directory is not valid UTF-8")?;
        Ok(Folder {
            host: Arc::clone(host),
            path: format!("{}/{name}", data.trim_end_matches('/')),
            made: Arc::default(),
        })
    }

    pub fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Makes it; it must not be there yet. Goes on if it is dropped in the middle, and [`Folder::unmake`] waits for
    /// it: a folder that is made after its removal would stay.
    pub async fn make(&self) -> anyhow::Result<()> {
        const SCRIPT: &str = "\
            if [ ! -d \"$1\" ]; then echo \"$1 is no directory there: make it, or correct \\`data\\` in the inventory\" >&2; exit 1; fi; \
            if [ ! -w \"$1\" ]; then echo \"$1 cannot be written by $(id -un): change its owner, or ssh.user\" >&2; exit 1; fi; \
            if [ -e \"$0\" ]; then echo \"$0 is there already: \\`synod cluster down\\` removes what was left of a cluster\" >&2; exit 1; fi; \
            mkdir -m 700 \"$0\" && { mkdir -m 700 \"$0/bin\" || { rmdir \"$0\"; exit 1; }; }";
        let folder = self.clone();
        let turn = Arc::clone(&self.host.making).lock_owned().await;
        let made = tokio::spawn(async move {
            let data = folder.host.entry.data.to_str().unwrap_or_default();
            let made = folder.host.script(SCRIPT, &[&folder.path, data]).await;
            folder.made.store(made.is_ok(), Ordering::Relaxed);
            drop(turn);
            made
        });
        made.await.context("making a folder does not panic")??;
        Ok(())
    }

    /// Copies the executable if the host has it not, and returns where it is.
    pub async fn install(&self, executable: &Executable) -> anyhow::Result<String> {
        let path = executable.path_in(self);
        let found = self
            .host
            .script("if [ -x \"$0\" ]; then echo there; fi", &[&path])
            .await?;
        if found.trim() != "there" {
            self.host.put(&executable.path, &path, "700").await?;
        }
        Ok(path)
    }

    /// Removes it if it was made here: what was there before belongs to somebody else.
    pub async fn unmake(&self) -> anyhow::Result<()> {
        let _turn = self.host.making.lock().await;
        match self.made.load(Ordering::Relaxed) {
            true => self.remove().await,
            false => Ok(()),
        }
    }

    /// Stops every process that was started from it and removes it. It may be gone already.
    pub async fn remove(&self) -> anyhow::Result<()> {
        // Moved first: from then on nobody finds a program here to start, and whatever was started is found by its
        // executable. While there is none, there is no process either.
        const SCRIPT: &str = "\
            if [ -d \"$0\" ]; then rm -rf \"$0.gone\"; mv \"$0\" \"$0.gone\" || exit 1; fi; \
            [ -d \"$0.gone\" ] || exit 0; \
            for synod in \"$0.gone\"/bin/\"$1\"-*; do \
              [ -x \"$synod\" ] || continue; \
              \"$synod\" probe end --executables \"$0.gone/bin\" || exit 1; \
              break; \
            done; \
            rm -rf \"$0.gone\" 2> /dev/null || rm -rf \"$0.gone\"";
        self.host.script(SCRIPT, &[&self.path, OWN]).await?;
        Ok(())
    }
}
