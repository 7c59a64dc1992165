//! `synod simulate`: whole clusters in simulated time.

use std::process::ExitCode;

use synod_simulator::front::{self, Request};

use crate::cli::SimulateArguments;
use crate::output::answer;
use crate::{failure, log};

const SEEDS: u64 = 1_000;
const SEEDS_PARTITIONED: u64 = 100;

pub fn run(arguments: &SimulateArguments) -> ExitCode {
    let default = if arguments.partial_partitions {
        SEEDS_PARTITIONED
    } else {
        SEEDS
    };
    let request = Request {
        seeds: arguments.seeds.unwrap_or(default),
        first_seed: arguments.first_seed,
        seed: arguments.seed,
        trace: arguments.trace,
        replicas: arguments.replicas.clone(),
        virtual_seconds: arguments.virtual_seconds,
        faults: arguments.faults,
        jobs: usize::from(arguments.jobs),
        json: arguments.json,
        partial_partitions: arguments.partial_partitions,
    };
    let mut code = 0;
    let said = answer(|stdout| {
        code = front::run(&request, stdout, &log::text)?;
        Ok(())
    });
    match said {
        Ok(()) => ExitCode::from(code),
        Err(error) => failure::report(&error),
    }
}
