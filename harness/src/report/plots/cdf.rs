//! Which share of the commands took longer, down to one in ten thousand.

use crate::report::format;
use crate::report::picture::{Curve, CurveStyle, Marker, Panel, Picture, Point};
use crate::report::plot::{Drawing, Plot, Table, stem};
use crate::report::scale::Axis;
use crate::report::view::{Entry, View};
use crate::results::Latencies;

pub const NOTE: &str = "All commands of all runs of a system together. Farther left is better; each step upwards is \
                        another nine. A curve ends where fewer than five commands lie beyond.";

const QUANTILE_MAX: f64 = 0.9999;
/// A curve ends where fewer commands than this lie beyond: there it would be an anecdote.
const BEYOND_MIN: f64 = 5.0;
const POINTS_PER_NINE: i32 = 30;
const TABLE: [(f64, &str); 5] = [
    (0.5, "p50"),
    (0.9, "p90"),
    (0.99, "p99"),
    (0.999, "p99.9"),
    (0.9999, "p99.99"),
];

pub fn plots(view: &View<'_>) -> Vec<Plot> {
    let groups = view.by_point();
    groups
        .into_iter()
        .filter_map(|(conditions, replicas, load, entries)| {
            let place = view.place(&conditions, Some(replicas), Some(load));
            let title = view.title("latency distribution", &place);
            plot(title, &entries)
        })
        .collect()
}

/// `None` without a latency log.
fn plot(title: String, entries: &[&Entry<'_>]) -> Option<Plot> {
    let mut header = vec!["System", "Commands"];
    header.extend(TABLE.map(|(_, name)| name));
    let mut table = Table::new(&header);
    let mut drawn = Vec::new();
    for entry in entries {
        let logs = entry
            .loaded
            .runs
            .iter()
            .filter_map(|run| run.latencies.as_ref());
        let merged = Latencies::merged(logs);
        if merged.count() == 0 {
            continue;
        }
        let told = |quantile: f64| (1.0 - quantile) * merged.count() as f64 >= BEYOND_MIN;
        let steps = 0..=POINTS_PER_NINE * 4;
        let quantiles =
            steps.map(|step| 1.0 - 10f64.powf(-f64::from(step) / f64::from(POINTS_PER_NINE)));
        let points = quantiles
            .filter(|quantile| told(*quantile))
            .map(|quantile| Point {
                x: merged.quantile_us(quantile),
                y: quantile.min(QUANTILE_MAX),
                interval: None,
            });
        drawn.push(Curve {
            name: entry.series.name.clone(),
            role: entry.series.role,
            style: CurveStyle {
                marker: Marker::None,
                ..entry.series.style
            },
            points: points.collect(),
        });
        let mut row = vec![entry.series.name.clone(), format::thousands(merged.count())];
        row.extend(TABLE.map(|(quantile, _)| {
            if told(quantile) {
                format::micros(merged.quantile_us(quantile))
            } else {
                "–".into()
            }
        }));
        table.row(row);
    }
    if drawn.is_empty() {
        return None;
    }
    let values = drawn
        .iter()
        .flat_map(|curve| &curve.points)
        .map(|point| point.x);
    let panel = Panel {
        height: 280,
        x: Axis::log("latency, log scale", values, format::micros),
        y: Axis::nines("share of commands that took no longer", QUANTILE_MAX),
        curves: drawn.clone(),
        bands: Vec::new(),
    };
    Some(Plot {
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
