//! Whose a folder on a host is: the file `owner` in it, written when it was made.
//!
//! Two people who use one host, one user and one `data` directory easily give their clusters one name. So before a folder
//! is removed, its file is compared with what would have been written from here.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cluster::inventory::Inventory;
use crate::probe::pid_file::PidFile;

/// The commands that make folders, as `user@host:inventory`.
pub fn whoami(inventory: &Inventory) -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| {
        let uid = rustix::process::geteuid();
        format!("uid-{}", uid.as_raw())
    });
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let path = inventory.path.canonicalize();
    let path = path.unwrap_or_else(|_| inventory.path.clone());
    format!("{user}@{}:{}", host.trim(), path.display())
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// What it was made for, such as `cluster 1f…` or `run x`.
    pub purpose: String,
    /// Who made it, as [`whoami`] says it.
    pub who: String,
    /// The process that did, on the machine of `who`.
    maker: Option<PidFile>,
}

impl Owner {
    pub fn new(purpose: &str, who: &str) -> Owner {
        Owner {
            purpose: purpose.to_owned(),
            who: who.to_owned(),
            maker: PidFile::of_self(None).ok(),
        }
    }

    pub fn line(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// `None` of a folder without such a file, or with one of somebody else's.
    pub fn parse(line: &str) -> Option<Owner> {
        serde_json::from_str(line).ok()
    }

    /// Whether the process that made it goes on. Only its own machine can tell.
    pub fn is_at_work(&self) -> bool {
        let maker = self.maker.as_ref();
        maker.is_some_and(|maker| maker.is_running().unwrap_or(true))
    }

    /// As a person is told.
    pub fn describe(&self) -> String {
        format!("{} of {}", self.purpose, self.who)
    }
}

/// What was found of a folder before it is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub path: String,
    pub owner: Option<Owner>,
}

impl Found {
    /// Whether it may go without a question: made from here, or for the cluster that is remembered here.
    pub fn is_ours(&self, who: &str, cluster: Option<&str>) -> bool {
        self.owner.as_ref().is_some_and(|owner| {
            let same = cluster.is_some_and(|cluster| owner.purpose == purpose_of_cluster(cluster));
            owner.who == who || same
        })
    }

    pub fn describe(&self) -> String {
        match &self.owner {
            Some(owner) => format!("{} is {}", self.path, owner.describe()),
            None => format!("{} does not say whose it is", self.path),
        }
    }

    /// The run that it is of, by its name.
    pub fn run(&self) -> Option<&str> {
        let name = Path::new(&self.path).file_name()?.to_str()?;
        name.strip_prefix("synod-run-")
    }
}

pub fn purpose_of_cluster(cluster: &str) -> String {
    format!("cluster {cluster}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_what_was_made_from_here_or_for_this_cluster() {
        let owner = Owner::new("cluster 1f", "me@here:/x/lab.toml");
        let line = owner.line().unwrap();
        assert_eq!(Owner::parse(&line), Some(owner.clone()));
        assert!(owner.is_at_work(), "that is this process");
        let found = Found {
            path: "/data/synod-lab".into(),
            owner: Some(owner),
        };
        assert!(found.is_ours("me@here:/x/lab.toml", None));
        assert!(found.is_ours("me@elsewhere:/x/lab.toml", Some("1f")));
        assert!(!found.is_ours("you@here:/x/lab.toml", None));
        assert!(!found.is_ours("you@here:/x/lab.toml", Some("2f")));
        let silent = Found {
            owner: None,
            ..found
        };
        assert!(!silent.is_ours("me@here:/x/lab.toml", Some("1f")));
        assert_eq!(Owner::parse("hello"), None);
    }
}
