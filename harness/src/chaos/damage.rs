//! Bit rot, made by hand.

use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use synod_storage::Replayed;

use super::random::Random;

/// Flipped in a row; less than a sector.
const BYTES: usize = 16;
/// Records at the end of the WAL that are left alone: a damaged tail cannot be told from a torn one.
const TAIL_RECORDS: usize = 64;
/// A record's own header is longer than this, so that the flipped bytes are inside the record.
const INTO_RECORD: u64 = 24;

/// Flips bytes of one record in the middle half of a stopped replica's WAL. Says where, or `None` if the WAL is too
/// short to have a middle.
pub fn flip(directory: &Path, draw: u64) -> anyhow::Result<Option<String>> {
    let mut records: Vec<(PathBuf, u64)> = Vec::new();
    let mut note = |replayed| {
        if let Replayed::Record(at, _) = replayed {
            records.push((at.file, at.offset));
        }
    };
    synod_storage::scan(directory, &mut note)
        .with_context(|| format!("{} cannot be read", directory.display()))?;
    let whole = records.len().saturating_sub(TAIL_RECORDS) as u64;
    if whole < 4 {
        return Ok(None);
    }
    let at = Random::new(draw, 4).within(whole / 4..3 * whole / 4);
    let (file, offset) = &records[at as usize];
    flip_at(file, offset + INTO_RECORD)?;
    Ok(Some(format!(
        "{BYTES} bytes flipped in record {} of {}, {} at offset {}",
        at + 1,
        records.len(),
        file.display(),
        offset + INTO_RECORD
    )))
}

fn flip_at(path: &Path, offset: u64) -> anyhow::Result<()> {
    let flip = || -> std::io::Result<()> {
        let mut file = std::fs::File::options().read(true).write(true).open(path)?;
        let mut bytes = [0; BYTES];
        file.read_exact_at(&mut bytes, offset)?;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(&bytes.map(|byte| !byte))?;
        file.sync_data()
    };
    flip().with_context(|| format!("{}: cannot be damaged", path.display()))
}

/// Takes away everything in a directory, which itself may be where a file system is mounted.
pub fn empty(directory: &Path) -> std::io::Result<()> {
    for item in std::fs::read_dir(directory)? {
        let item = item?;
        match item.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(item.path())?,
            false => std::fs::remove_file(item.path())?,
        }
    }
    Ok(())
}
