//! What a completion of io_uring says about the write that it ends.

use std::io;

use super::retries::{is_full, is_transient};
use crate::format::PAGE;

#[derive(Debug)]
pub enum Completion {
    Whole,
    /// This many bytes are durable, in whole pages; the rest is to be written.
    Part(usize),
    /// No room. A write is durable by itself, so nothing was lost that an earlier one had: it is tried again as it is.
    Full,
    /// The same write may succeed in a moment.
    Transient(io::Error),
    Failed(io::Error),
}

impl Completion {
    /// `wanted` are the bytes that were asked for, `result` is what the kernel says.
    pub fn of(result: i32, wanted: usize) -> Completion {
        let Ok(written) = usize::try_from(result) else {
            let error = io::Error::from_raw_os_error(result.saturating_neg());
            return match error {
                error if is_full(&error) => Completion::Full,
                error if is_transient(&error) => Completion::Transient(error),
                error => Completion::Failed(error),
            };
        };
        // What is written again of the last page is the same as what stands there.
        let pages = written - written % PAGE;
        match written {
            written if written == wanted => Completion::Whole,
            written if written > wanted => Completion::Failed(io::Error::other(format!(
                "the kernel wrote {written} of {wanted} bytes"
            ))),
            _ if pages > 0 => Completion::Part(pages),
            // Without progress it must not go on for ever.
            _ => Completion::Transient(io::Error::new(
                io::ErrorKind::WriteZero,
                format!("short write of {written} of {wanted} bytes"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_has_its_meaning() {
        let kind = |result, wanted| match Completion::of(result, wanted) {
            Completion::Whole => "whole".to_owned(),
            Completion::Part(bytes) => format!("part {bytes}"),
            Completion::Full => "full".to_owned(),
            Completion::Transient(_) => "transient".to_owned(),
            Completion::Failed(_) => "failed".to_owned(),
        };
        assert_eq!(kind(8192, 8192), "whole");
        assert_eq!(kind(4096, 8192), "part 4096");
        assert_eq!(kind(8191, 8192), "part 4096");
        assert_eq!(kind(512, 8192), "transient");
        assert_eq!(kind(0, 8192), "transient");
        assert_eq!(kind(8193, 8192), "failed");
        for code in [libc::EINTR, libc::EAGAIN, libc::EBUSY, libc::ENOMEM] {
            assert_eq!(kind(-code, 8192), "transient");
        }
        for code in [libc::ENOSPC, libc::EDQUOT] {
            assert_eq!(kind(-code, 8192), "full");
        }
        for code in [libc::EIO, libc::EFBIG, libc::EROFS, libc::ECANCELED] {
            assert_eq!(kind(-code, 8192), "failed");
        }
        assert_eq!(kind(i32::MIN, 8192), "failed");
    }
}
