//! What the file system under a data directory asks for.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags, statfs};

const FUSE_SUPER_MAGIC: u32 = 0x6573_5546;
const BTRFS_SUPER_MAGIC: u32 = 0x9123_683E;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// A process answers for it (virtiofs and fuseblk as well). Where that writes less than it was asked to, the ring
    /// of the kernel tells of a whole write all the same.
    Fuse,
    /// Overwriting takes new room and new metadata, unless a file was made with the flag against it.
    Btrfs,
    Other,
}

impl FileSystem {
    /// Without an answer of the kernel it is as any other.
    pub fn of(directory: &Path) -> FileSystem {
        // The type is a word of any width; its numbers have 32 bits.
        statfs(directory).map_or(FileSystem::Other, |found| {
            FileSystem::of_magic(found.f_type as u32)
        })
    }

    fn of_magic(magic: u32) -> FileSystem {
        match magic {
            FUSE_SUPER_MAGIC => FileSystem::Fuse,
            BTRFS_SUPER_MAGIC => FileSystem::Btrfs,
            _ => FileSystem::Other,
        }
    }

    /// Why no ring is used on it, if that is so.
    pub fn refuses_uring(self) -> Option<&'static str> {
        match self {
            FileSystem::Fuse => Some(
                "it is a FUSE file system, where the kernel takes a short write of a ring for a whole one",
            ),
            FileSystem::Btrfs | FileSystem::Other => None,
        }
    }
}

/// Has files that are made in `directory` from now on overwritten in place, if their file system would copy them. Their
/// groups have checksums of their own, so those of the file system, which go with the copying, are not missed.
pub fn overwrite_in_place(directory: &Path) -> io::Result<()> {
    if FileSystem::of(directory) != FileSystem::Btrfs {
        return Ok(());
    }
    let handle = File::open(directory)?;
    let flags = ioctl_getflags(&handle)?;
    Ok(ioctl_setflags(&handle, flags | IFlags::NOCOW)?)
}

/// Whether overwriting a file made in `directory` copies it; `None` where no file system does that.
pub fn copies_on_write(directory: &Path) -> Option<bool> {
    if FileSystem::of(directory) != FileSystem::Btrfs {
        return None;
    }
    let flags = File::open(directory).and_then(|handle| Ok(ioctl_getflags(&handle)?));
    Some(!flags.is_ok_and(|flags| flags.contains(IFlags::NOCOW)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_magic_number_has_its_meaning() {
        assert_eq!(FileSystem::of_magic(0x6573_5546), FileSystem::Fuse);
        assert_eq!(FileSystem::of_magic(0x9123_683E), FileSystem::Btrfs);
        // ext4, xfs, tmpfs.
        for magic in [0xEF53, 0x5846_5342, 0x0102_1994] {
            assert_eq!(FileSystem::of_magic(magic), FileSystem::Other);
        }
        assert!(FileSystem::Fuse.refuses_uring().is_some());
        assert!(FileSystem::Btrfs.refuses_uring().is_none());
    }

    #[test]
    fn what_is_no_btrfs_is_left_as_it_is() {
        // Of the kernel itself: nothing could be set there.
        let proc = Path::new("/proc/self");
        assert_eq!(FileSystem::of(proc), FileSystem::Other);
        overwrite_in_place(proc).unwrap();
        assert_eq!(copies_on_write(proc), None);
    }
}
