//! `synod report`: one HTML file that opens offline, with the same plots as SVG files and the figures as CSV.

pub mod arguments;
mod bars;
mod csv;
pub mod format;
mod page;
mod picture;
mod plot;
mod plots;
mod profile;
mod scale;
mod summary;
mod theme;
mod view;

use std::path::{Path, PathBuf};

use crate::failure::usage;
use crate::log::note;
use crate::output::{say, write_whole};
use crate::report::arguments::ReportArguments;
use crate::results::Collection;
use view::View;

pub fn run(arguments: &ReportArguments) -> anyhow::Result<()> {
    let collection = Collection::read(&arguments.directory)?;
    for note in &collection.notes {
        note!("note: {note}");
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
    let plots = write(&collection, &html)?;
    say!(
        "{} ({plots} plots, also in {})",
        html.display(),
        beside(&html, "plots").display()
    )
}

/// The report of a folder, inside it.
pub fn write_beside(directory: &Path) -> anyhow::Result<()> {
    let collection = Collection::read(directory)?;
    write(&collection, &directory.join("report.html"))?;
    Ok(())
}

/// Returns how many plots there are.
fn write(collection: &Collection, html: &Path) -> anyhow::Result<usize> {
    // Everything is made before anything is written.
    let view = View::new(collection);
    let sections = plots::sections(&view);
    let mut files = vec![
        (html.to_owned(), page::html(&view, &sections)?),
        (beside(html, "summary.csv"), csv::summary(&view)),
    ];
    for plot in sections.iter().flat_map(|section| &section.plots) {
        let name = format!("plots/{}.svg", plot.name);
        files.push((beside(html, &name), plot.svg(true)?));
    }
    for (path, content) in &files {
        write_whole(path, content)?;
    }
    Ok(files.len() - 2)
}

fn beside(html: &Path, name: &str) -> PathBuf {
    html.parent().unwrap_or(Path::new("")).join(name)
}
