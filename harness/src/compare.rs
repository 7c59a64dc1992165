//! `synod compare`: systems side by side, under equal conditions and in one run.

use crate::comparison::Kind;
use crate::failure::usage;
use crate::matrix::arguments::CompareArguments;
use crate::matrix::{self, Contestants, Matrix, Session};
use crate::output::make_folder;
use crate::run::plan;
use crate::system::{Programs, Transport};
use crate::toml_file;

const OUTSTANDING_DEFAULT: [u32; 3] = [1, 64, 1_024];

pub fn run(arguments: &CompareArguments) -> anyhow::Result<()> {
    let matrix = matrix(arguments);
    matrix.check()?;
    let name = plan::name("compare", &arguments.out, arguments.name.as_deref())?;
    let programs = Programs::new(arguments.programs.as_deref())?;
    let contestants = Contestants::find(&matrix, &programs)?;
    let directory = make_folder(&arguments.out.join(name))
        .map_err(|error| usage(format!("--out: {error:#}")))?;
    toml_file::write(&directory.join("matrix.toml"), &matrix)?;
    let session = Session {
        matrix: &matrix,
        kind: Kind::Comparison,
        directory,
        data: arguments.data.clone(),
        contestants,
        command_line: std::env::args().collect::<Vec<_>>().join(" "),
    };
    let finished = session.perform()?;
    matrix::finish(&session, &finished, arguments.json)
}

fn matrix(arguments: &CompareArguments) -> Matrix {
    let mut systems = arguments.systems.clone();
    if systems.is_empty() {
        systems = matrix::systems_in_the_box();
    }
    let outstanding = match (&arguments.outstanding[..], &arguments.rate[..]) {
        ([], []) => OUTSTANDING_DEFAULT.to_vec(),
        (given, _) => given.to_vec(),
    };
    let transports = match &arguments.transport[..] {
        [] => vec![Transport::Quic],
        given => given.to_vec(),
    };
    Matrix {
        title: String::new(),
        systems: distinct(systems),
        transports: distinct(transports),
        replicas: vec![arguments.replicas],
        payload_bytes: vec![arguments.payload],
        outstanding: distinct(outstanding),
        rates: distinct(arguments.rate.clone()),
        repeat: arguments.repeat,
        seconds: arguments.seconds,
        warmup_s: arguments.warmup,
        clients: arguments.clients,
        durability: arguments.durability,
        state_machine: arguments.state_machine,
        kill_leader_after_s: arguments.kill_leader_after,
    }
}

/// In the order given: naming something twice does not run it twice.
fn distinct<T: PartialEq>(values: Vec<T>) -> Vec<T> {
    let mut kept = Vec::new();
    for value in values {
        if !kept.contains(&value) {
            kept.push(value);
        }
    }
    kept
}
