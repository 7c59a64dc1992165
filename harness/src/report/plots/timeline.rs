//! A run as it went: commands per second above, latencies below, faults marked.

use crate::report::format;
use crate::report::picture::{Band, Curve, CurveStyle, Marker, Panel, Picture, Point};
use crate::report::plot::{Drawing, Plot, Table, stem};
use crate::report::scale::Axis;
use crate::report::view::{Entry, View};
use crate::results::{Percentiles, RunFolder, Timeline};

/// Peaks of this many times the median are cut off.
const PEAK_MAX: f64 = 4.0;

pub const NOTE: &str = "Above, acknowledged commands per interval of the timeline, peaks cut off; below, latencies of \
                        the replies of each interval, or of each second where the result has no finer ones. Red marks \
                        the time from the begin of a fault until it was taken back: killed replicas were running again.";

pub fn plots(view: &View<'_>) -> Vec<Plot> {
    let mut plots = Vec::new();
    for (conditions, replicas, load, entries) in view.by_point() {
        for entry in entries {
            let Some((run, timeline)) = typical(entry) else {
                continue;
            };
            let place = view.place(&conditions, Some(replicas), Some(load));
            let title = view.title(&format!("{} over time", entry.series.name), &place);
            plots.push(plot(title, entry, run, timeline));
        }
    }
    plots
}

/// The run with the median throughput, of two the slower one.
pub fn typical<'e>(entry: &Entry<'e>) -> Option<(&'e RunFolder, &'e Timeline)> {
    let mut runs: Vec<(&RunFolder, &Timeline)> = entry
        .loaded
        .runs
        .iter()
        .filter_map(|run| run.timeline.as_ref().map(|timeline| (run, timeline)))
        .filter(|(_, timeline)| timeline.acknowledged.len() > 1)
        .collect();
    runs.sort_by(|(a, _), (b, _)| {
        a.result
            .throughput_per_s
            .total_cmp(&b.result.throughput_per_s)
    });
    let middle = runs.len().saturating_sub(1) / 2;
    runs.get(middle).copied()
}

fn plot(title: String, entry: &Entry<'_>, run: &RunFolder, timeline: &Timeline) -> Plot {
    let mut panels = vec![throughput(entry, run, timeline)];
    panels.extend(latencies(entry, run, timeline));
    let total = entry.loaded.runs.len();
    let which = if total > 1 {
        format!("{}, by throughput the median of {total} runs.", run.name())
    } else {
        String::new()
    };
    Plot {
        name: stem(&title),
        caption: match run.result.faults.len() {
            0 | 1 => which,
            _ => format!("{which} {}", list_of_faults(run)).trim().to_owned(),
        },
        drawing: Drawing::Curves(Picture {
            title: title.clone(),
            panels,
        }),
        title,
        table: table(timeline),
    }
}

pub fn time_axis(timeline: &Timeline, label: &str) -> Axis {
    let end = (timeline.acknowledged.len() as u64 * timeline.interval_ms) as f64 / 1e3;
    Axis::linear(label, 0.0, end, |second| format!("{second:.1}"))
}

/// The top of an axis of rates. What an open loop has to catch up with after a silence comes within an interval, and
/// would press everything else flat.
pub fn top(rates: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = rates.iter().copied().filter(|rate| *rate > 0.0).collect();
    sorted.sort_by(f64::total_cmp);
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    let highest = sorted.last().copied().unwrap_or(0.0);
    highest.min(PEAK_MAX * median)
}

/// Of several faults the labels are numbers, which [`list_of_faults`] explains.
pub fn bands(run: &RunFolder) -> Vec<Band> {
    let faults = run.result.faults.iter();
    let alone = faults.len() == 1;
    faults
        .zip(1..)
        .map(|(fault, number)| Band {
            from: fault.killed_at_ms as f64 / 1e3,
            to: fault.ready_at_ms.max(fault.killed_at_ms) as f64 / 1e3,
            label: match alone {
                true => format!(
                    "{} (longest gap {})",
                    fault.kind.replace('-', " "),
                    format::micros(run.result.longest_gap_ms * 1e3)
                ),
                false => number.to_string(),
            },
        })
        .collect()
}

/// What happened, one after the other.
pub fn list_of_faults(run: &RunFolder) -> String {
    let faults = run.result.faults.iter().zip(1..).map(|(fault, number)| {
        let gap = fault.gap_ms.map_or("no gap".into(), |ms| {
            format!("a gap of {}", format::micros(ms * 1e3))
        });
        let full = fault.full_after_ms.map_or(String::new(), |ms| {
            format!(", full throughput after {:.1} s", ms as f64 / 1e3)
        });
        format!("{number}: {}: {gap}{full}.", fault.label())
    });
    faults.collect::<Vec<_>>().join(" ")
}

fn throughput(entry: &Entry<'_>, run: &RunFolder, timeline: &Timeline) -> Panel {
    let rates = timeline.rates();
    let top = top(&rates);
    let step = timeline.interval_ms as f64 / 1e3;
    let points = rates.iter().enumerate().map(|(index, rate)| Point {
        x: (index as f64 + 0.5) * step,
        y: rate.min(top),
        interval: None,
    });
    Panel {
        height: 170,
        x: time_axis(timeline, ""),
        y: Axis::from_zero("commands/s", top, format::count),
        curves: vec![Curve {
            name: String::new(),
            role: entry.series.role,
            style: CurveStyle {
                marker: Marker::None,
                dashed: false,
            },
            points: points.collect(),
        }],
        bands: bands(run),
    }
}

/// `None` if no second was long enough for percentiles.
fn latencies(entry: &Entry<'_>, run: &RunFolder, timeline: &Timeline) -> Option<Panel> {
    let (told, width_ms) = match timeline.intervals.is_empty() {
        true => (&timeline.seconds, 1_000.0),
        false => (&timeline.intervals, timeline.interval_ms as f64),
    };
    let middle = |start_ms: u64| ((start_ms + timeline.interval_ms) as f64 - width_ms / 2.0) / 1e3;
    let curve = |name: &str, marker: Marker, of: fn(&Percentiles) -> f64| Curve {
        name: name.into(),
        role: entry.series.role,
        style: CurveStyle {
            marker,
            dashed: marker == Marker::Cross,
        },
        points: told
            .iter()
            // A second without a reply has no latencies.
            .filter(|second| of(second) > 0.0)
            .map(|second| Point {
                x: middle(second.start_ms),
                y: of(second),
                interval: None,
            })
            .collect(),
    };
    let curves = vec![
        curve("p50", Marker::Dot, |second| second.p50_us),
        curve("p99", Marker::Triangle, |second| second.p99_us),
        curve("highest", Marker::Cross, |second| second.max_us),
    ];
    let values = curves
        .iter()
        .flat_map(|curve| &curve.points)
        .map(|point| point.y);
    (values.clone().count() > 0).then(|| Panel {
        height: 150,
        x: time_axis(timeline, "seconds of the measured window"),
        y: Axis::log("latency, log scale", values, format::micros),
        curves: curves.clone(),
        bands: bands(run)
            .into_iter()
            .map(|band| Band {
                label: String::new(),
                ..band
            })
            .collect(),
    })
}

fn table(timeline: &Timeline) -> Table {
    const ROWS_MAX: usize = 120;
    let mut table = Table::new(&["Second", "Commands", "p50", "p99", "Highest"]);
    let per_second = timeline.per_second();
    for (index, (commands, second)) in per_second
        .iter()
        .zip(&timeline.seconds)
        .take(ROWS_MAX)
        .enumerate()
    {
        table.row(vec![
            (index + 1).to_string(),
            format::thousands(*commands as u64),
            format::micros(second.p50_us),
            format::micros(second.p99_us),
            format::micros(second.max_us),
        ]);
    }
    table
}
