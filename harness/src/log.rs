//! What a person reads on stderr: the log, progress, notes, and the line that explains a failure; and the line on
//! stdout by which a replica says that it is ready. None of it can stop or end a process ([`Lines`]).

use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::lines::Lines;

/// How long an end, or an answer on stdout, waits for what was said on stderr before.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// Like `eprintln!`, but without waiting for a reader, and without a panic if there is none.
macro_rules! note {
    ($($text:tt)*) => {
        $crate::log::line(format_args!($($text)*))
    };
}
pub(crate) use note;

/// Made when somebody speaks first. `None` where no thread could be started: then whoever speaks writes, and what
/// cannot be written is lost.
type Output = OnceLock<Option<Lines>>;

static STDERR: Output = OnceLock::new();
static STDOUT: Output = OnceLock::new();

fn stderr() -> Option<&'static Lines> {
    STDERR
        .get_or_init(|| Lines::new(io::stderr()).ok())
        .as_ref()
}

/// `SYNOD_LOG=debug` shows more; what a command prints as its answer never goes through here.
pub fn start() {
    let filter = EnvFilter::try_from_env("SYNOD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Stderr)
        // It would print its own troubles on stderr, and panic if that fails.
        .log_internal_errors(false)
        .with_ansi(false)
        .init();
    // The standard hook writes by itself, and so waits for a reader that stands still.
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("?");
        let trace = std::backtrace::Backtrace::capture();
        let trace = match trace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("\n{trace}"),
            _ => String::new(),
        };
        note!("thread '{name}' {info}{trace}");
        flush();
    }));
}

/// Text as it stands: lines with their ends, or what a terminal shows for a moment.
pub fn text(text: &str) {
    match stderr() {
        Some(lines) => lines.push(text.as_bytes()),
        None => io::stderr().write_all(text.as_bytes()).unwrap_or_default(),
    }
}

pub fn line(line: std::fmt::Arguments<'_>) {
    text(&format!("{line}\n"));
}

/// Before an end, or before stdout says what comes after: within a bound.
pub fn flush() {
    for lines in [&STDOUT, &STDERR] {
        if let Some(Some(lines)) = lines.get() {
            lines.flush(FLUSH_MAX);
        }
    }
}

/// Lines that were lost on stderr.
pub fn lost() -> u64 {
    let lines = STDERR.get().and_then(Option::as_ref);
    lines.map_or(0, Lines::lost)
}

/// Says a line on stdout and goes on, whether anybody reads it or not: for a process that has other work to do.
pub fn announce(line: &str) {
    match STDOUT.get_or_init(|| Lines::new(io::stdout()).ok()) {
        Some(lines) => lines.push(format!("{line}\n").as_bytes()),
        None => writeln!(io::stdout(), "{line}").unwrap_or_default(),
    }
}

/// Where the log goes.
struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Stderr;

    fn make_writer(&'a self) -> Stderr {
        Stderr
    }
}

impl Write for Stderr {
    /// One whole line, as the log formats it.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match stderr() {
            Some(lines) => lines.push(bytes),
            None => io::stderr().write_all(bytes).unwrap_or_default(),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
