//! `synod probe`: what the harness does on a host, by the same executable that runs the replicas there.
//!
//! Hidden: only `synod cluster` and `synod run --inventory` call it, over ssh. Answers are JSON on stdout.

pub mod arguments;
mod disk_sync;
pub mod echo;
mod end;
mod exec;
pub mod facts;
mod guard;
mod pause;
pub mod pid_file;
pub mod protocol;
mod serve;
mod start;
mod status;
mod stop;
mod usage;

use crate::output::say;
use arguments::{ProbeArguments, ProbeCommand};

pub fn run(arguments: &ProbeArguments) -> anyhow::Result<()> {
    match &arguments.command {
        ProbeCommand::Serve(arguments) => serve::run(arguments),
        ProbeCommand::Exec(arguments) => exec::run(arguments),
        ProbeCommand::Guard(arguments) => guard::run(arguments),
        ProbeCommand::Start(arguments) => start::run(arguments),
        ProbeCommand::Signal(arguments) => {
            say!("{}", serde_json::to_string(&stop::run(arguments)?)?)
        }
        ProbeCommand::End(arguments) => end::run(arguments),
        ProbeCommand::Status(arguments) => {
            say!("{}", serde_json::to_string(&status::run(arguments)?)?)
        }
        ProbeCommand::Pause(arguments) => {
            say!("{}", serde_json::to_string(&pause::run(arguments)?)?)
        }
        ProbeCommand::Usage(arguments) => {
            say!("{}", serde_json::to_string(&usage::run(arguments)?)?)
        }
    }
}
