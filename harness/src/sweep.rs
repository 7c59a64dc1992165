//! `synod sweep`: a matrix from a file. The same command goes on where an earlier one was interrupted.

use anyhow::Context;

use crate::comparison::Kind;
use crate::failure::usage;
use crate::matrix::arguments::SweepArguments;
use crate::matrix::{self, Contestants, Matrix, Session};
use crate::output::make_folder;
use crate::system::Programs;
use crate::toml_file;

/// The matrix as it was when the sweep began.
const MATRIX: &str = "matrix.toml";

pub fn run(arguments: &SweepArguments) -> anyhow::Result<()> {
    let matrix: Matrix = toml_file::read(&arguments.matrix)?;
    matrix
        .check()
        .map_err(|error| usage(format!("{}: {error}", arguments.matrix.display())))?;
    let programs = Programs::new(arguments.programs.as_deref())?;
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => {
            let stem = arguments.matrix.file_stem().context("a file has a name")?;
            format!("sweep-{}", stem.to_string_lossy())
        }
    };
    let path = arguments.out.join(name);
    let known = path.join(MATRIX);
    if known.exists() && toml_file::read::<Matrix>(&known)? != matrix {
        return Err(usage(format!(
            "{}: holds a sweep of another matrix; give another --name, or remove it",
            path.display()
        )));
    }
    if path.exists() && !known.exists() {
        return Err(usage(format!(
            "{}: exists already and is no sweep; give another --name",
            path.display()
        )));
    }
    let contestants = Contestants::find(&matrix, &programs)?;
    let directory = make_folder(&path).map_err(|error| usage(format!("--out: {error:#}")))?;
    toml_file::write(&directory.join(MATRIX), &matrix)?;
    let session = Session {
        matrix: &matrix,
        kind: Kind::Sweep,
        directory,
        data: arguments.data.clone(),
        contestants,
        command_line: std::env::args().collect::<Vec<_>>().join(" "),
    };
    let finished = session.perform()?;
    matrix::finish(&session, &finished, arguments.json)
}
