//! The command line of `synod cluster`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::{BackendChoice, DurabilityChoice, MachineChoice};

#[derive(Args)]
#[command(after_help = CLUSTER_EXAMPLES)]
pub struct ClusterArguments {
    /// The machines and what each is for
    #[arg(
        long,
        global = true,
        default_value = "cluster.toml",
        value_name = "FILE"
    )]
    pub inventory: PathBuf,
    /// Where the state of a started cluster is kept [default: next to the inventory, NAME.state]
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Print one JSON object to stdout instead of a table
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: ClusterCommand,
}

#[derive(Subcommand)]
pub enum ClusterCommand {
    /// Look at every host: ssh, kernel, disk, clock, round trips, ports, limits; exit code 1 if one cannot be used
    Check,
    /// Copy the executable, make and distribute certificates, start the replicas, wait until one leads
    Up(UpArguments),
    /// Print how every replica is, as each host sees its own
    Status,
    /// SIGKILL the replicas of a host; `leader` is the host of whichever replica leads
    Kill {
        #[arg(value_name = "HOST")]
        host: String,
    },
    /// Start the replicas of a host again on what its disk holds; running ones are stopped first
    Restart {
        #[arg(value_name = "HOST")]
        host: String,
    },
    /// Cut every packet between two hosts, except ssh's, by nftables on both
    Partition {
        #[arg(value_name = "HOST")]
        first: String,
        #[arg(value_name = "HOST")]
        second: String,
        /// Heal by itself after this time, such as 5s or 500ms; the hosts' kernels see to it
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        duration: Option<Duration>,
    },
    /// Undo every partition
    Heal,
    /// Print the last lines of the replicas' logs
    Logs {
        /// Only of this host
        #[arg(value_name = "HOST")]
        host: Option<String>,
        #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
        lines: u32,
    },
    /// Fetch the logs and the configuration of every replica, and what each host is
    Collect {
        /// A directory that is not there yet
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The replicas' write-ahead logs as well; of a running replica a copy may end in the middle of a write
        #[arg(long)]
        wal: bool,
    },
    /// Stop every replica and remove everything of the cluster from every host, and what killed runs left there
    Down {
        /// Also a cluster that was not started from here, or that does not say by whom it was
        #[arg(long)]
        force: bool,
    },
}

#[derive(Args)]
pub struct UpArguments {
    /// What the replicas apply the commands to
    #[arg(long, value_enum, default_value = "kv")]
    pub state_machine: MachineChoice,
    #[arg(long, value_enum, default_value = "sync")]
    pub durability: DurabilityChoice,
    /// How the disk is written
    #[arg(long, value_enum, default_value = "auto")]
    pub backend: BackendChoice,
    /// Largest UDP payload in bytes that path discovery may reach [default: what the interfaces to
    /// the other replicas carry]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(1200..))]
    pub mtu: Option<u16>,
    /// Leave the key of the CA beside the certificates, so that `synod certs` can add and renew
    #[arg(long)]
    pub keep_ca_key: bool,
}

/// `5s`, `500ms`, or a number of seconds; up to a day.
fn duration(text: &str) -> Result<Duration, String> {
    let (digits, milliseconds) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => (digits, 1),
        (None, Some(digits)) => (digits, 1_000),
        (None, None) => (text, 1_000),
    };
    match digits.parse::<u64>() {
        Ok(number) if (1..=86_400_000 / milliseconds).contains(&number) => {
            Ok(Duration::from_millis(number * milliseconds))
        }
        Ok(_) | Err(_) => Err("a time of up to a day, such as 5s or 500ms".into()),
    }
}

const CLUSTER_EXAMPLES: &str = "\
An inventory, cluster.toml:\n\
\x20 port = 7400                                # UDP, one per replica; the default. etcd, ZooKeeper, NATS: 3 TCP each\n\
\x20 [[host]]\n\
\x20 name = \"a\"\n\
\x20 address = \"10.0.0.1\"                       # where replicas and clients reach it; a name if it may move\n\
\x20 listen = \"0.0.0.0\"                         # optional: if the host does not have that address itself (NAT)\n\
\x20 ssh = { user = \"bench\", port = 22, identity = \"~/.ssh/bench\" }   # all optional, as is address\n\
\x20 roles = [\"replica\", \"client\"]\n\
\x20 data = \"/var/lib/synod\"                    # a directory that is there, on the disk to be used\n\
\x20 cpus = \"0-3\"                               # optional\n\
\x20 interface = \"eth0\"                         # optional\n\
This machine alone is an inventory as well: connection = \"local\", replicas = 3.\n\
\n\
Examples:\n\
\x20 synod cluster check                        is every host fit, and how far apart are they?\n\
\x20 synod cluster up                           start; cluster.state/client.toml is for `synod client`\n\
\x20 synod cluster kill leader                  SIGKILL; `restart HOST` brings it back\n\
\x20 synod cluster partition a b --for 5s\n\
\x20 synod cluster down                         nothing stays on any host\n\
\n\
ssh is the system's own, with your configuration, agent and known hosts. Exit codes: 0 done, 1 a host failed or is\n\
unfit, 2 wrong usage or inventory.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_strictly() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        for bad in ["", "s", "-1s", "0s", "1h", "99999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
