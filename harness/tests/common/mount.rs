//! File systems of a test's own, on loop devices. They need root and the tools; where these are missing, a test says so
//! in a line and does nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system. It goes when this is dropped, and so does its loop device.
pub struct Mount(PathBuf);

impl Mount {
    /// `make` is the tool that makes the file system, with its arguments. Says why not, if not.
    pub fn new(directory: &Path, make: &[&str], bytes: u64) -> Result<Mount, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("it needs root".to_owned());
        }
        let (image, point) = (directory.join("disk.img"), directory.join("disk"));
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(bytes))
            .and_then(|()| std::fs::create_dir(&point))
            .map_err(|error| error.to_string())?;
        let (image, at) = (text(&image), text(&point));
        tool(&[make, &[&image]].concat())?;
        tool(&["mount", "-o", "loop", &image, &at])?;
        Ok(Mount(point))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a process that just ended may still be in it. The loop device goes with the last user.
        let _ = tool(&["umount", "--lazy", &text(&self.0)]);
    }
}

/// Runs a tool of the system.
pub fn tool(words: &[&str]) -> Result<(), String> {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.map_err(|error| format!("{}: {error}", words[0]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let told = format!("{}: {}", words.join(" "), said.trim());
    output.status.success().then_some(()).ok_or(told)
}

fn text(path: &Path) -> String {
    path.to_str().expect("utf-8").to_owned()
}
