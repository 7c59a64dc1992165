//! Answers on stdout and files of results. A reader that has gone (`| head`) is an error like any other, not a panic.

use std::fmt::Arguments;
use std::io::Write;
use std::path::{Path, PathBuf};

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

/// Makes a folder and those above it; returns its full path.
pub fn make_folder(path: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(path)
        .and_then(|()| path.canonicalize())
        .with_context(|| format!("{} cannot be made", path.display()))
}

/// Writes a file and the folder for it. A reader never sees half of it.
pub fn write_whole(path: &Path, content: &str) -> anyhow::Result<()> {
    let unwritten = || format!("{}: cannot be written", path.display());
    if let Some(directory) = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    {
        std::fs::create_dir_all(directory).with_context(unwritten)?;
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, content).with_context(unwritten)?;
    std::fs::rename(&partial, path).with_context(unwritten)
}
