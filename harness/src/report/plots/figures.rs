//! One bar per system: throughput, latency, and what a command costs.

use crate::report::bars::{Bar, Bars};
use crate::report::format;
use crate::report::plot::{Drawing, Plot, Table, stem};
use crate::report::view::{Entry, View};
use crate::results::{Better, Figure};

pub const NOTE: &str = "Bars are medians, whiskers 95 % intervals, the dots below single runs.";

const FIGURES: [Figure; 5] = [
    Figure::Throughput,
    Figure::P99,
    Figure::ReplicaCpu,
    Figure::CommandsPerSync,
    Figure::Gap,
];

pub fn plots(view: &View<'_>) -> Vec<Plot> {
    let mut plots = Vec::new();
    for (conditions, load, entries) in view.by_load() {
        // One bar would be a number with decoration, and several sizes have curves.
        let replicas = entries[0].loaded.cell.replicas;
        let one_size = entries
            .iter()
            .all(|entry| entry.loaded.cell.replicas == replicas);
        if entries.len() < 2 || !one_size {
            continue;
        }
        for figure in FIGURES {
            let place = view.place(&conditions, Some(replicas), Some(load));
            let title = view.title(figure.label(), &place);
            plots.extend(plot(title, figure, &entries));
        }
    }
    plots
}

/// `None` if fewer than two systems tell the figure.
fn plot(title: String, figure: Figure, entries: &[&Entry<'_>]) -> Option<Plot> {
    let mut table = Table::new(&[
        "System",
        figure.label(),
        "95 % interval",
        "Lowest",
        "Highest",
        "Runs",
    ]);
    let mut rows = Vec::new();
    for entry in entries {
        let Some(spread) = figure.of_summary(&entry.loaded.cell.summary) else {
            continue;
        };
        let text = format::figure(figure, spread.median);
        table.row(vec![
            entry.series.name.clone(),
            text.clone(),
            format::interval(figure, &spread),
            format::figure(figure, spread.min),
            format::figure(figure, spread.max),
            spread.n.to_string(),
        ]);
        rows.push(Bar {
            name: entry.series.name.clone(),
            role: entry.series.role,
            value: spread.median,
            interval: (spread.n > 1).then_some((spread.low, spread.high)),
            runs: entry.runs(figure),
            text,
        });
    }
    let better = match figure.better() {
        Better::More => ", longer is better",
        Better::Less => ", shorter is better",
        Better::Neither => ", explains the others",
    };
    (rows.len() > 1).then(|| Plot {
        name: stem(&title),
        caption: String::new(),
        drawing: Drawing::Bars(Bars {
            title: title.clone(),
            label: format!("{}{better}", figure.label()),
            rows,
        }),
        title,
        table,
    })
}
