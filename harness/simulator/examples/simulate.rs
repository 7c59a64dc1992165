//! The simulator without the harness around it, for builds that should be quick:
//! `cargo run --release -p synod-simulator --example simulate -- --seeds 1000`.

use std::process::ExitCode;

use synod_simulator::front::{Request, run};

fn main() -> ExitCode {
    match Request::parse(std::env::args().skip(1)) {
        Ok(request) => ExitCode::from(run(&request)),
        Err(message) => {
            eprintln!("simulate: {message}");
            ExitCode::from(2)
        }
    }
}
