//! Our folder on a host: all that a cluster or a run puts there, so that removing it removes everything.
//!
//! ```text
//! DATA/synod-NAME/  owner  bin/{synod,replica,adapter}-HASH  ca.pem  client.{pem,key,toml}
//!                   replica-N.{toml,pem,key,pid,out,log}  replica-N/  server-N/
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use xxhash_rust::xxh3::xxh3_128;

use crate::cluster::host::Host;
use crate::cluster::owner::{Found, Owner};

/// What the executable is called on hosts, before its hash.
const OWN: &str = "synod";
/// Folders of commands that end by themselves, and that only a killed one leaves.
const SHORT_LIVED: [&str; 4] = ["synod-run-", "synod-look-", "synod-check-", "synod-down-"];
/// Of those, how many of a host are looked at.
const LEFT_OVER_MAX: usize = 256;
/// In a script, `fits DIRECTORY`: nobody but its owner (and root) can put something else in the place of what is in it.
const FITS: &str = "fits() { [ -z \"$(find \"$1/\" -prune -perm -0002 ! -perm -1000)\" ]; }; ";
/// In a script, `ours FOLDER`: a folder, not a link, that belongs to who asks.
const OURS: &str =
    "ours() { [ -n \"$(find \"$1\" -prune -type d -user \"$(id -u)\" 2> /dev/null)\" ]; }; ";

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

    /// Where one with this name would be.
    pub fn sibling(&self, name: &str) -> String {
        let data = self.host.entry.data.to_str().unwrap_or_default();
        format!("{}/{name}", data.trim_end_matches('/'))
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Makes it for `purpose`; it must not be there yet. Goes on if it is dropped in the middle, and [`Folder::unmake`] waits for
    /// it: a folder that is made after its removal would stay.
    pub async fn make(&self, purpose: &str) -> anyhow::Result<()> {
        // The file `owner` comes first: whatever is in the folder, it says whose it is.
        const SCRIPT: &str = "\
            if [ ! -d \"$1\" ]; then echo \"$1 is no directory there: make it, or correct \\`data\\` in the inventory\" >&2; exit 1; fi; \
            if [ ! -w \"$1\" ]; then echo \"$1 cannot be written by $(id -un): change its owner, or ssh.user\" >&2; exit 1; fi; \
            if ! fits \"$1\"; then echo \"$1 can be written by everybody there: make it sticky (chmod +t) or its owner's (chmod o-w), or choose another \\`data\\`\" >&2; exit 1; fi; \
            if [ -e \"$0\" ] || [ -L \"$0\" ]; then echo \"$0 is there already: \\`synod cluster down\\` removes what was left of a cluster\" >&2; exit 1; fi; \
            umask 077; mkdir \"$0\" && { printf '%s\\n' \"$2\" > \"$0/owner\" && mkdir \"$0/bin\" || { rm -f \"$0/owner\"; rmdir \"$0\"; exit 1; }; }";
        let folder = self.clone();
        let owner = Owner::new(purpose, &self.host.who).line()?;
        let turn = Arc::clone(&self.host.making).lock_owned().await;
        let made = tokio::spawn(async move {
            let data = folder.host.entry.data.to_str().unwrap_or_default();
            let script = format!("{FITS}{SCRIPT}");
            let words = [&*folder.path, data, &*owner];
            let made = folder.host.script(&script, &words).await;
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
            // It was made by this very process, and nobody else can have changed it.
            true => self.remove_with(Remover::InFolder).await,
            false => Ok(()),
        }
    }

    /// What of this folder is on the host, under its own name or that which it has while it is removed.
    pub async fn find(&self) -> anyhow::Result<Option<Found>> {
        let gone = format!("{}.gone", self.path);
        let mut found = self.look(&[&self.path, &gone]).await?;
        // Of two, the one under its own name is the newer one.
        Ok((!found.is_empty()).then(|| found.swap_remove(0)))
    }

    /// What commands that were killed left on the host beside it.
    pub async fn left_over(&self) -> anyhow::Result<Vec<Found>> {
        const SCRIPT: &str = "\
            for name in \"$@\"; do for one in \"$0/$name\"*; do if [ -d \"$one\" ]; then printf '%s\\n' \"$one\"; fi; done; done";
        let data = self.host.entry.data.to_str().unwrap_or_default();
        let mut words = vec![data.trim_end_matches('/')];
        words.extend(SHORT_LIVED);
        let listed = self.host.script(SCRIPT, &words).await?;
        let mut found = Vec::new();
        for path in listed.lines().take(LEFT_OVER_MAX) {
            // What belongs to other users is theirs to take away.
            found.extend(self.look(&[path]).await.unwrap_or_default());
        }
        Ok(found)
    }

    /// Another one of the same host.
    pub fn beside(&self, path: &str) -> Folder {
        Folder {
            host: Arc::clone(&self.host),
            path: path.trim_end_matches(".gone").to_owned(),
            made: Arc::default(),
        }
    }

    /// Those of `paths` that are there, with what they say about their owners. One of another user is an error.
    async fn look(&self, paths: &[&str]) -> anyhow::Result<Vec<Found>> {
        const SCRIPT: &str = "\
            for one in \"$0\" \"$@\"; do \
              if [ ! -e \"$one\" ] && [ ! -L \"$one\" ]; then continue; fi; \
              if ! ours \"$one\"; then echo \"$one belongs to somebody else there: nothing of it is run or removed\" >&2; exit 1; fi; \
              printf '%s\\t%s\\n' \"$one\" \"$(head -n 1 \"$one/owner\" 2> /dev/null)\"; \
            done";
        let said = self.host.script(&format!("{OURS}{SCRIPT}"), paths).await?;
        let found = said.lines().filter_map(|line| {
            let (path, owner) = line.split_once('\t')?;
            Some(Found {
                path: path.to_owned(),
                owner: Owner::parse(owner),
            })
        });
        Ok(found.collect())
    }

    /// Stops every process that was started from it and removes it, with a program that was just brought there: what
    /// is found in a folder is not run. It may be gone already.
    pub async fn remove(&self, executable: &Executable) -> anyhow::Result<()> {
        const MAKE: &str = "\
            if ! fits \"$0\"; then echo \"$0 can be written by everybody there: make it sticky (chmod +t) or its owner's (chmod o-w) first\" >&2; exit 1; fi; \
            umask 077; fresh=$(mktemp -d \"$0/synod-down-XXXXXXXX\") && printf '%s\\n' \"$1\" > \"$fresh/owner\" && printf '%s\\n' \"$fresh\"";
        const REMOVE: &str = "rm -f \"$0/synod\" \"$0/owner\" && rmdir \"$0\"";
        let owner = Owner::new("down", &self.host.who).line()?;
        let data = self.sibling("");
        let mut refusal = None;
        // The disk that is to be emptied may be full.
        for place in [data.trim_end_matches('/'), "/tmp"] {
            let script = format!("{FITS}{MAKE}");
            let fresh = self.host.script(&script, &[place, &owner]).await?;
            let fresh = fresh.trim_end();
            let program = format!("{fresh}/synod");
            let brought = self.host.put(&executable.path, &program, "700").await;
            let removed = match &brought {
                Ok(()) => self.remove_with(Remover::Brought(&program)).await,
                Err(_) => Ok(()),
            };
            self.host.script(REMOVE, &[fresh]).await?;
            match brought {
                Ok(()) => return removed,
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        Err(refusal.context("there are two places")?)
    }

    async fn remove_with(&self, remover: Remover<'_>) -> anyhow::Result<()> {
        // Moved first: from then on nobody finds a program here to start, and whatever was started is found by its
        // executable. What an earlier removal could not end (it hung in the kernel) keeps its name until it is over.
        const SCRIPT: &str = "\
            end() { \
              ours \"$1.gone\" || { echo \"$1.gone belongs to somebody else there\" >&2; exit 1; }; \
              if [ -d \"$1.gone/bin\" ]; then \
                program=\"$2\"; \
                if [ -z \"$program\" ]; then for program in \"$1.gone/bin/$3\"-*; do if [ -x \"$program\" ]; then break; fi; done; fi; \
                if [ -x \"$program\" ]; then \"$program\" probe end --executables \"$1.gone/bin\" || exit 1; fi; \
              fi; \
              rm -rf \"$1.gone\" 2> /dev/null || rm -rf \"$1.gone\" || exit 1; \
            }; \
            if [ -e \"$0.gone\" ]; then end \"$0\" \"$1\" \"$2\"; fi; \
            if [ -d \"$0\" ]; then \
              ours \"$0\" || { echo \"$0 belongs to somebody else there\" >&2; exit 1; }; \
              mv \"$0\" \"$0.gone\" || exit 1; end \"$0\" \"$1\" \"$2\"; \
            fi";
        let program = match remover {
            Remover::InFolder => "",
            Remover::Brought(path) => path,
        };
        let script = format!("{OURS}{SCRIPT}");
        let words = [&*self.path, program, OWN];
        self.host.script(&script, &words).await?;
        Ok(())
    }
}

/// What ends the processes of a folder.
enum Remover<'a> {
    /// Ours, which this process put there.
    InFolder,
    /// Brought for this.
    Brought(&'a str),
}
