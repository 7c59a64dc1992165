//! Flame graphs: width is CPU time, a box stands on its caller.

use std::path::Path;

use anyhow::Context;
use inferno::flamegraph::{self, Options};

use crate::output::write_whole;
use crate::profile::stacks::Stacks;

/// Draws `stacks` to an SVG file that can be searched and zoomed in a browser.
pub fn draw(stacks: &Stacks, title: &str, path: &Path) -> anyhow::Result<()> {
    let mut options = Options::default();
    options.title = title.to_owned();
    options.count_name = "samples".to_owned();
    // The same function has the same colour in every picture.
    options.hash = true;
    let lines = stacks.lines();
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
        .with_context(|| format!("{}: cannot be drawn", path.display()))?;
    write_whole(
        path,
        &String::from_utf8(svg).context("a flame graph is text")?,
    )
}
