//! The simulator without the harness around it, for builds that should be quick:
//! `cargo run --release -p synod-simulator --example simulate -- --seeds 1000`.

use std::io::Write;
use std::process::ExitCode;

use synod_simulator::front::{Request, run};

fn main() -> ExitCode {
    match Request::parse(std::env::args().skip(1)) {
        Ok(request) => {
            let note = |text: &str| {
                std::io::stderr()
                    .write_all(text.as_bytes())
                    .unwrap_or_default()
            };
            match run(&request, &mut std::io::stdout(), &note) {
                Ok(code) => ExitCode::from(code),
                // Nobody reads: nobody is left who could be told.
                Err(_) => ExitCode::FAILURE,
            }
        }
        Err(message) => {
            eprintln!("simulate: {message}");
            ExitCode::from(2)
        }
    }
}
