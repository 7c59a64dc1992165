//! Latency against throughput as the load grows: flat as long as the system keeps up, steep when it is full.

use crate::report::format;
use crate::report::picture::{Curve, Panel, Picture, Point};
use crate::report::plot::{Drawing, Plot, Table, stem};
use crate::report::scale::Axis;
use crate::report::view::{Entry, View, curves, load_label, load_order};
use crate::results::Figure;

pub const NOTE: &str = "Each curve is a system under growing load: flat as long as it keeps up, steep when it is full. \
                        Farther right and lower is better. Points are medians, whiskers 95 % intervals.";

pub fn plots(view: &View<'_>) -> Vec<Plot> {
    let mut plots = Vec::new();
    for (conditions, replicas, entries) in view.by_size() {
        let curved = curves(&entries)
            .iter()
            .any(|(_, members)| members.len() > 1);
        if !curved {
            continue;
        }
        for figure in [Figure::P50, Figure::P99] {
            let words = format!("{} against throughput", figure.label());
            let title = view.title(&words, &view.place(&conditions, Some(replicas), None));
            plots.push(plot(title, figure, &entries));
        }
    }
    plots
}

fn plot(title: String, figure: Figure, entries: &[&Entry<'_>]) -> Plot {
    let latency = |entry: &Entry<'_>| figure.of_summary(&entry.loaded.cell.summary);
    let mut table = Table::new(&["System", "Load", "Throughput", figure.label()]);
    let mut drawn = Vec::new();
    for (series, mut members) in curves(entries) {
        members.sort_by_key(|entry| load_order(&entry.loaded.cell.load));
        let mut points = Vec::new();
        for entry in members {
            let throughput = entry.loaded.cell.summary.throughput_per_s;
            let Some(latency) = latency(entry).filter(|latency| latency.median > 0.0) else {
                continue;
            };
            if throughput.median <= 0.0 {
                continue;
            }
            points.push(Point {
                x: throughput.median,
                y: latency.median,
                interval: (latency.n > 1).then_some((latency.low, latency.high)),
            });
            table.row(vec![
                series.name.clone(),
                load_label(&entry.loaded.cell.load),
                format::figure(Figure::Throughput, throughput.median),
                format::figure(figure, latency.median),
            ]);
        }
        drawn.push(Curve {
            name: series.name,
            role: series.role,
            style: series.style,
            points,
        });
    }
    let points = || drawn.iter().flat_map(|curve| &curve.points);
    let heights = points().flat_map(|point| {
        let (low, high) = point.interval.unwrap_or((point.y, point.y));
        [low, point.y, high]
    });
    let panel = Panel {
        height: 300,
        x: Axis::log(
            "commands/s, log scale",
            points().map(|point| point.x),
            format::count,
        ),
        y: Axis::log(
            &format!("{}, log scale", figure.label()),
            heights,
            format::micros,
        ),
        curves: drawn.clone(),
        bands: Vec::new(),
    };
    Plot {
        name: stem(&title),
        caption: format!("Points from left to right: {}.", loads(entries)),
        drawing: Drawing::Curves(Picture {
            title: title.clone(),
            panels: vec![panel],
        }),
        title,
        table,
    }
}

fn loads(entries: &[&Entry<'_>]) -> String {
    let mut loads: Vec<_> = entries.iter().map(|entry| entry.loaded.cell.load).collect();
    loads.sort_by_key(load_order);
    loads.dedup();
    let labels: Vec<String> = loads.iter().map(load_label).collect();
    labels.join(", ")
}
