//! The command line of `synod client`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Args)]
#[command(
    after_help = CLIENT_EXAMPLES
)]
pub struct ClientArguments {
    /// Where the cluster is and who we are; the flags below override it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The authority's certificate
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The client's certificate
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// The client's private key
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The cluster id in hexadecimal
    #[arg(long, value_name = "HEX")]
    pub cluster: Option<String>,
    /// A replica, as ID=HOST:PORT, an address or a name; once per replica
    #[arg(long = "replica", value_name = "ID=ADDR")]
    pub replicas: Vec<String>,
    /// Give up a command after this many milliseconds
    #[arg(long, value_name = "MS")]
    pub deadline_ms: Option<u64>,
    #[command(subcommand)]
    pub command: ClientCommand,
}

#[derive(Subcommand)]
pub enum ClientCommand {
    /// Set KEY to VALUE
    Put { key: String, value: String },
    /// Print the value of KEY; exit code 1 if there is none
    Get { key: String },
    /// Remove KEY
    Delete { key: String },
    /// Set KEY to NEW if its value is OLD (or if it has none, with --absent); exit code 1 if it was not
    Cas {
        key: String,
        /// OLD and NEW, or only NEW with --absent
        #[arg(num_args = 1..=2, required = true)]
        values: Vec<String>,
        #[arg(long)]
        absent: bool,
    },
    /// Print the counters of every replica
    Status,
    /// Read commands from stdin, one per line (`help` lists them)
    Repl,
}

const CLIENT_EXAMPLES: &str = "\
Examples:\n\
\x20 synod client --config client.toml put colour blue\n\
\x20 synod client --config client.toml get colour\n\
\x20 synod client --config client.toml repl\n\
\x20 synod client --ca ca.pem --cert client.pem --key client.key --cluster 1f… --replica 1=127.0.0.1:7001 get colour";
