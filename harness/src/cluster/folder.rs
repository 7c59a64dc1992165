//! Our folder on a host: all that a cluster or a run puts there, so that removing it removes everything.
//!
//! ```text
//! DATA/synod-NAME/  bin/synod-HASH  ca.pem  client.{pem,key,toml}
//!                   replica-N.{toml,pem,key,pid,out,log}  replica-N/
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use xxhash_rust::xxh3::xxh3_128;

use crate::cluster::host::Host;

/// The executable, found by its hash: a host that has the file has this very build.
pub struct Executable {
    path: PathBuf,
    hash: u128,
}

impl Executable {
    /// The one that runs.
    pub fn own() -> anyhow::Result<Executable> {
        Executable::at(&std::env::current_exe().context("this executable has no path")?)
    }

    pub fn at(path: &Path) -> anyhow::Result<Executable> {
        let bytes =
            std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        Ok(Executable {
            hash: xxh3_128(&bytes),
            path: path.to_owned(),
        })
    }

    /// Where it is on a host that has it.
    pub fn path_in(&self, folder: &Folder) -> String {
        folder.file(&format!("bin/synod-{:032x}", self.hash))
    }
}

#[derive(Clone)]
pub struct Folder {
    pub host: Arc<Host>,
    /// Absolute.
    path: String,
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
        })
    }

    pub fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Makes it; it must not be there yet.
    pub async fn make(&self) -> anyhow::Result<()> {
        const SCRIPT: &str = "\
            if [ ! -d \"$1\" ]; then echo \"$1 is no directory there: make it, or correct \\`data\\` in the inventory\" >&2; exit 1; fi; \
            if [ ! -w \"$1\" ]; then echo \"$1 cannot be written by $(id -un): change its owner, or ssh.user\" >&2; exit 1; fi; \
            if [ -e \"$0\" ]; then echo \"$0 is there already: \\`synod cluster down\\` removes what was left of a cluster\" >&2; exit 1; fi; \
            mkdir -m 700 \"$0\" \"$0/bin\"";
        let data = self.host.entry.data.to_str().unwrap_or_default();
        self.host.script(SCRIPT, &[&self.path, data]).await?;
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

    /// Stops every process that was started from it and removes it. It may be gone already.
    pub async fn remove(&self) -> anyhow::Result<()> {
        // Moved first: whatever is just being started from it then fails, instead of being missed.
        const SCRIPT: &str = "\
            if [ -d \"$0\" ]; then rm -rf \"$0.gone\"; mv \"$0\" \"$0.gone\" || exit 1; fi; \
            [ -d \"$0.gone\" ] || exit 0; \
            for pid in \"$0.gone\"/*.pid; do \
              [ -e \"$pid\" ] || continue; \
              for synod in \"$0.gone\"/bin/synod-*; do break; done; \
              \"$synod\" probe signal --pid-file \"$pid\" --signal term > /dev/null || exit 1; \
            done; \
            rm -rf \"$0.gone\" 2> /dev/null || rm -rf \"$0.gone\"";
        self.host.script(SCRIPT, &[&self.path]).await?;
        Ok(())
    }
}
