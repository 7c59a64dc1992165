//! `synod report`: one HTML file that opens offline, with the same plots as SVG files and the figures as CSV.

mod bars;
mod csv;
pub mod format;
mod page;
mod picture;
mod plot;
mod plots;
mod scale;
mod summary;
mod theme;
mod view;

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::ReportArguments;
use crate::failure::usage;
use crate::output::say;
use crate::results::Collection;
use view::View;

pub fn run(arguments: &ReportArguments) -> anyhow::Result<()> {
    let collection = Collection::read(&arguments.directory)?;
    for note in &collection.notes {
        eprintln!("note: {note}");
    }
    let html = match &arguments.out {
        Some(file) => file.clone(),
        None => arguments.directory.join("report.html"),
    };
    if html.is_dir() {
        return Err(usage(format!(
            "--out {}: is a folder; name a file",
            html.display()
        )));
    }
    // Everything is made before anything is written.
    let view = View::new(&collection);
    let sections = plots::sections(&view);
    let mut files = vec![
        (html.clone(), page::html(&view, &sections)?),
        (beside(&html, "summary.csv"), csv::summary(&view)),
    ];
    for plot in sections.iter().flat_map(|section| &section.plots) {
        let name = format!("plots/{}.svg", plot.name);
        files.push((beside(&html, &name), plot.svg(true)?));
    }
    for (path, content) in &files {
        write(path, content)?;
    }
    say!(
        "{} ({} plots, also in {})",
        html.display(),
        files.len() - 2,
        beside(&html, "plots").display()
    )
}

fn beside(html: &Path, name: &str) -> PathBuf {
    html.parent().unwrap_or(Path::new("")).join(name)
}

/// A reader never sees half of a file.
fn write(path: &Path, content: &str) -> anyhow::Result<()> {
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
