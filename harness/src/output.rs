//! Answers on stdout and files of results. A reader that has gone (`| head`) is an error like any other, not a panic.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::log;

/// Like `println!`, with a result.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::output::line(format_args!($($text)*))
    };
}
pub(crate) use say;

/// The answer of a command found no reader, or no room.
#[derive(Debug, thiserror::Error)]
#[error("stdout cannot be written: {0}")]
pub struct Unheard(io::Error);

impl Unheard {
    /// Whoever closes its end has read enough, and needs no explanation.
    pub fn reader_is_gone(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

pub fn line(text: Arguments<'_>) -> anyhow::Result<()> {
    answer(|stdout| {
        stdout.write_fmt(text)?;
        stdout.write_all(b"\n")
    })
}

/// Writes to stdout, behind everything that was said on stderr before.
pub fn answer(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    log::flush();
    // Not locked for the whole time: a simulation writes from a thread of its own.
    let mut stdout = io::stdout();
    write(&mut stdout)
        .and_then(|()| stdout.flush())
        .map_err(|error| Unheard(error).into())
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
    let directory = path.parent().unwrap_or(Path::new(""));
    let directory = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    let mut partial = tempfile::Builder::new()
        .prefix(".synod-")
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .with_context(unwritten)?;
    partial
        .write_all(content.as_bytes())
        .with_context(unwritten)?;
    partial.persist(path).with_context(unwritten)?;
    Ok(())
}
