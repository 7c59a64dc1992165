//! A folder of our own: made by us, and therefore ours to remove.
//!
//! Its last component is made here and must not have been there before. A file in it says whose it is, and is locked as
//! long as its maker lives, so that what a killed maker left can be told from what somebody uses.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The file in the folder that says whose it is.
const OWNER: &str = "owner";

pub struct OwnFolder {
    path: PathBuf,
    /// Locked until the folder is gone or we are.
    _owner: File,
    keep: bool,
}

impl OwnFolder {
    /// Makes `path`; those above it must be there. `owner` is one line.
    pub fn make(path: &Path, owner: &str) -> io::Result<OwnFolder> {
        std::fs::create_dir(path)?;
        let claim = || {
            let path = path.canonicalize()?;
            let mut file = File::create_new(path.join(OWNER))?;
            file.lock()?;
            writeln!(file, "{owner}")?;
            Ok(OwnFolder {
                path,
                _owner: file,
                keep: false,
            })
        };
        claim().inspect_err(|_| {
            // Only while there is nothing else in it.
            let _ = std::fs::remove_file(path.join(OWNER));
            let _ = std::fs::remove_dir(path);
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It stays when this handle goes.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    pub fn is_kept(&self) -> bool {
        self.keep
    }

    /// Removes the folder if a process that was killed made it for this same owner. Anything else is left alone.
    pub fn reclaim(path: &Path, owner: &str) -> anyhow::Result<()> {
        let file = path.join(OWNER);
        let Ok(text) = std::fs::read_to_string(&file) else {
            return Ok(());
        };
        if text.trim_end_matches('\n') != owner {
            return Ok(());
        }
        let lock = File::open(&file).with_context(|| file.display().to_string())?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "{}: its maker still runs; wait for it, or end it",
                path.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| file.display().to_string());
            }
        }
        std::fs::remove_dir_all(path).with_context(|| format!("{}: not removed", path.display()))
    }
}

/// However its user ends, what may be gigabytes goes.
impl Drop for OwnFolder {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!("{}: not removed: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_is_neither_taken_nor_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("precious"), "1").unwrap();
        let error = OwnFolder::make(&path, "me").err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        OwnFolder::reclaim(&path, "me").unwrap();
        assert!(path.join("precious").exists() && !path.join(OWNER).exists());
        // An empty one and a link are somebody else's as well.
        std::fs::create_dir(directory.path().join("empty")).unwrap();
        std::os::unix::fs::symlink(&path, directory.path().join("link")).unwrap();
        for name in ["empty", "link"] {
            let path = directory.path().join(name);
            assert!(OwnFolder::make(&path, "me").is_err());
            OwnFolder::reclaim(&path, "me").unwrap();
            assert!(path.exists(), "{name}");
        }
        assert!(path.join("precious").exists());
    }

    #[test]
    fn only_the_same_owner_takes_back_what_a_dead_maker_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let mut made = OwnFolder::make(&path, "me").unwrap();
        std::fs::write(path.join("wal"), "1").unwrap();
        let error = OwnFolder::reclaim(&path, "me").unwrap_err();
        assert!(error.to_string().contains("still runs"), "{error}");
        made.keep();
        drop(made);
        OwnFolder::reclaim(&path, "somebody else").unwrap();
        assert!(path.join("wal").exists());
        OwnFolder::reclaim(&path, "me").unwrap();
        assert!(!path.exists());
        drop(OwnFolder::make(&path, "me").unwrap());
        assert!(!path.exists());
    }
}
