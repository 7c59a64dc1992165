//! What more replicas cost.

use crate::report::format;
use crate::report::picture::{Curve, Panel, Picture, Point};
use crate::report::plot::{Drawing, Plot, Table, stem};
use crate::report::scale::{Axis, Scale};
use crate::report::view::{Entry, View, curves};
use crate::results::Figure;

pub const NOTE: &str = "Medians with 95 % intervals. Replicas and clients share the cores of one machine, so in a \
                        larger cluster each replica also has less of them.";

const FIGURES: [Figure; 4] = [
    Figure::Throughput,
    Figure::P50,
    Figure::P99,
    Figure::ReplicaCpu,
];

pub fn plots(view: &View<'_>) -> Vec<Plot> {
    let mut plots = Vec::new();
    for (conditions, load, entries) in view.by_load() {
        let mut sizes: Vec<u8> = entries
            .iter()
            .map(|entry| entry.loaded.cell.replicas)
            .collect();
        sizes.sort_unstable();
        sizes.dedup();
        if sizes.len() < 2 {
            continue;
        }
        for figure in FIGURES {
            let words = format!("{} by cluster size", figure.label());
            let title = view.title(&words, &view.place(&conditions, None, Some(load)));
            plots.extend(plot(title, figure, &sizes, &entries));
        }
    }
    plots
}

/// `None` if no system tells the figure.
fn plot(title: String, figure: Figure, sizes: &[u8], entries: &[&Entry<'_>]) -> Option<Plot> {
    let mut table = Table::new(&["System", "Replicas", figure.label(), "95 % interval"]);
    let mut drawn = Vec::new();
    for (series, mut members) in curves(entries) {
        members.sort_by_key(|entry| entry.loaded.cell.replicas);
        let mut points = Vec::new();
        for entry in members {
            let Some(spread) = figure.of_summary(&entry.loaded.cell.summary) else {
                continue;
            };
            let replicas = entry.loaded.cell.replicas;
            points.push(Point {
                x: f64::from(replicas),
                y: spread.median,
                interval: (spread.n > 1).then_some((spread.low, spread.high)),
            });
            table.row(vec![
                series.name.clone(),
                replicas.to_string(),
                format::figure(figure, spread.median),
                format::interval(figure, &spread),
            ]);
        }
        drawn.push(Curve {
            name: series.name,
            role: series.role,
            style: series.style,
            points,
        });
    }
    let points = drawn.iter().flat_map(|curve| &curve.points);
    let highest = points.map(|point| point.interval.map_or(point.y, |(_, high)| high));
    let highest = highest.fold(0.0, f64::max);
    let (first, last) = (f64::from(sizes[0]), f64::from(sizes[sizes.len() - 1]));
    let room = (last - first) * 0.06;
    let panel = Panel {
        height: 240,
        x: Axis {
            label: "replicas".into(),
            scale: Scale::Linear,
            from: first - room,
            to: last + room,
            ticks: sizes
                .iter()
                .map(|size| (f64::from(*size), size.to_string()))
                .collect(),
        },
        y: Axis::from_zero(figure.label(), highest, |value| {
            format::figure(figure, value)
        }),
        curves: drawn,
        bands: Vec::new(),
    };
    (highest > 0.0).then(|| Plot {
        name: stem(&title),
        caption: String::new(),
        drawing: Drawing::Curves(Picture {
            title: title.clone(),
            panels: vec![panel],
        }),
        title,
        table,
    })
}
