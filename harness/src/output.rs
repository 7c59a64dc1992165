//! Answers on stdout. A reader that has gone (`| head`) is an error like any other, not a panic.

use std::fmt::Arguments;
use std::io::Write;

use anyhow::Context;

/// Like `println!`, with a result.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::output::line(format_args!($($text)*))
    };
}
pub(crate) use say;

pub fn line(text: Arguments<'_>) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_fmt(text)
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush())
        .context("stdout cannot be written")
}
