//! Reads TOML files so that a mistake names its file and line.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{one_line, usage};

pub fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| usage(format!("{}: cannot be read: {error}", path.display())))?;
    toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(String::new(), |span| {
            let before = text.get(..span.start).unwrap_or("");
            format!(":{}", before.matches('\n').count() + 1)
        });
        let message = one_line(error.message());
        usage(format!("{}{line}: {message}", path.display()))
    })
}

pub fn write<T: Serialize>(path: &Path, value: &T) -> anyhow::Result<()> {
    let text = toml::to_string(value)
        .map_err(|error| anyhow::anyhow!("{}: cannot be encoded: {error}", path.display()))?;
    std::fs::write(path, text)
        .map_err(|error| anyhow::anyhow!("{}: cannot be written: {error}", path.display()))
}
