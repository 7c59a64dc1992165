//! The command line of `synod probe`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cluster::cpus::Cpus;

#[derive(Args)]
pub struct ProbeArguments {
    #[command(subcommand)]
    pub command: ProbeCommand,
}

#[derive(Subcommand)]
pub enum ProbeCommand {
    /// Answer questions about this host, one JSON object per line of stdin, until stdin closes
    Serve(ServeArguments),
    /// Become a program, with its process id in a file
    Exec(ExecArguments),
    /// Run a program until it ends, stdin closes or this command is ended
    Guard(GuardArguments),
    /// Start a program that outlives this command, and wait until it is ready
    Start(StartArguments),
    /// Send a signal to a program that was started here
    Signal(SignalArguments),
    /// End every other program whose executable is in a folder
    End(EndArguments),
    /// Print how a replica of this host is
    Status(StatusArguments),
    /// Stop a program that was started here with SIGSTOP, and continue it after a while
    Pause(PauseArguments),
    /// Print what the kernel counts for a program that was started here
    Usage(UsageArguments),
}

#[derive(Args)]
pub struct ServeArguments {
    /// Where the disk is measured
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where round trips are answered
    #[arg(long)]
    pub address: IpAddr,
    #[arg(long, value_delimiter = ',', required = true)]
    pub ports: Vec<u16>,
    /// Only datagrams with this number are answered
    #[arg(long)]
    pub token: u64,
    /// The network interface to look at, if not the one that has the address
    #[arg(long)]
    pub interface: Option<String>,
}

#[derive(Args)]
pub struct ExecArguments {
    /// Where the process id is kept
    #[arg(long, value_name = "FILE")]
    pub pid_file: PathBuf,
    /// The CPUs that the program may use
    #[arg(long, value_parser = Cpus::parse)]
    pub cpus: Option<Cpus>,
    /// Leave the session, so that its end does not end the program
    #[arg(long)]
    pub detach: bool,
    /// The systemd unit that this runs in
    #[arg(long)]
    pub unit: Option<String>,
    /// The process that this one must not outlive
    #[arg(long, value_name = "PID")]
    pub parent: Option<i32>,
    #[arg(last = true, required = true)]
    pub program: Vec<String>,
}

#[derive(Args)]
pub struct GuardArguments {
    /// Where the program's process id is kept
    #[arg(long, value_name = "FILE")]
    pub pid_file: PathBuf,
    /// The CPUs that the program may use
    #[arg(long, value_parser = Cpus::parse)]
    pub cpus: Option<Cpus>,
    /// Where the program starts
    #[arg(long, value_name = "DIR")]
    pub directory: PathBuf,
    #[arg(last = true, required = true)]
    pub program: Vec<String>,
}

#[derive(Args)]
pub struct PauseArguments {
    #[arg(long, value_name = "FILE")]
    pub pid_file: PathBuf,
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub milliseconds: u64,
}

#[derive(Args)]
pub struct UsageArguments {
    #[arg(long, value_name = "FILE")]
    pub pid_file: PathBuf,
}

#[derive(Args)]
pub struct StartArguments {
    /// The name of the systemd unit, where there is systemd
    #[arg(long)]
    pub unit: String,
    #[arg(long, value_name = "FILE")]
    pub pid_file: PathBuf,
    /// What the program prints; replaced
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// What the program logs; appended to
    #[arg(long, value_name = "FILE")]
    pub log: PathBuf,
    #[arg(long, value_parser = Cpus::parse)]
    pub cpus: Option<Cpus>,
    #[arg(last = true, required = true)]
    pub program: Vec<String>,
}

#[derive(Args)]
pub struct SignalArguments {
    #[arg(long, value_name = "FILE")]
    pub pid_file: PathBuf,
    #[arg(long, value_enum)]
    pub signal: SignalChoice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SignalChoice {
    /// SIGKILL, and wait for the end
    Kill,
    /// SIGTERM, then SIGKILL if that is not enough
    Term,
    /// SIGSTOP
    Stop,
    /// SIGCONT
    Cont,
}

#[derive(Args)]
pub struct EndArguments {
    /// The folder of the executables
    #[arg(long, value_name = "DIR")]
    pub executables: PathBuf,
}

#[derive(Args)]
pub struct StatusArguments {
    /// How to reach the replica
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    #[arg(long)]
    pub replica: u8,
    #[arg(long, value_name = "FILE")]
    pub pid_file: PathBuf,
}
