//! What a host answers, told from what the start files of its shell print in front of it: a greeting, a quota, a fortune.
//!
//! The command line prints [`MARK`] on a line of its own before the answer begins. `echo`, `;` and `exec` mean the same in
//! the shells that people log in with: sh, bash, zsh, fish, tcsh.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// No greeting says this.
const MARK: &str = "--- the answer to synod begins here ---";
/// A start file that prints more than this runs on for ever.
const NOISE_BYTES_MAX: usize = 1 << 20;

/// `line`, a command of the shell, with the mark in front. An end of line first: a greeting may have none.
pub fn marked(line: &str) -> String {
    format!("echo; echo '{MARK}'; exec {line}")
}

/// What follows the mark; `None` if there is none.
pub fn behind_mark(bytes: &[u8]) -> Option<&[u8]> {
    let mut begin = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        begin += line.len();
        if is_mark(line) {
            return Some(&bytes[begin..]);
        }
    }
    None
}

/// Reads up to the mark. `false`: the stream ended before.
pub async fn skip_to_mark(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<bool> {
    let (mut line, mut skipped) = (Vec::new(), 0);
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(false);
        }
        if is_mark(&line) {
            return Ok(true);
        }
        skipped += read;
        if skipped > NOISE_BYTES_MAX {
            let what = "the start files of its shell print without end";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
    }
}

fn is_mark(line: &[u8]) -> bool {
    line.trim_ascii_end() == MARK.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whatever_is_in_front_is_skipped_and_nothing_behind() {
        let answer: &[u8] = b"{\"a\": 1}\n\xff\x00\n";
        for noise in ["", "hello\n", "no end of line", "\n\n", "\u{1b}[1mhi\r\n"] {
            let mut all = format!("{noise}\n{MARK}\n").into_bytes();
            all.extend_from_slice(answer);
            assert_eq!(behind_mark(&all), Some(answer), "{noise:?}");
            let mut reader = &all[..];
            assert!(skip_to_mark(&mut reader).await.unwrap());
            assert_eq!(reader, answer, "{noise:?}");
        }
        assert_eq!(behind_mark(b"hello\n"), None);
        assert!(!skip_to_mark(&mut &b"hello\n"[..]).await.unwrap());
        let endless = vec![b'\n'; NOISE_BYTES_MAX + 2];
        assert!(skip_to_mark(&mut &endless[..]).await.is_err());
    }

    #[test]
    fn a_shell_prints_the_mark_and_becomes_the_command() {
        let line = format!("printf noise; {}", marked("printf '%s' 'it is'"));
        let output = std::process::Command::new("sh")
            .args(["-c", &line])
            .output();
        assert_eq!(behind_mark(&output.unwrap().stdout), Some(&b"it is"[..]));
    }
}
