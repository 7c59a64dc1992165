//! Several systems through the same faults, in one picture.

use crate::load::load_file::Load;
use crate::report::format;
use crate::report::picture::{Curve, CurveStyle, Marker, Panel, Picture, Point};
use crate::report::plot::{Drawing, Plot, Table, stem};
use crate::report::plots::timeline::{bands, list_of_faults, time_axis, top, typical};
use crate::report::scale::Axis;
use crate::report::view::{Conditions, Entry, View, load_order};
use crate::results::{RunFolder, Timeline};

pub const NOTE: &str = "Acknowledged commands per interval of the timeline, for each system that went through the same \
                        faults; peaks are cut off. Red marks the faults as the first of the systems had them; when each \
                        of the others had its own is in the table.";

/// One curve and what it is drawn from.
type Member<'e, 'a> = (&'e Entry<'a>, &'e RunFolder, &'e Timeline);

pub fn plots(view: &View<'_>) -> Vec<Plot> {
    let mut plots = Vec::new();
    for (conditions, replicas, load, entries) in groups(view) {
        let members: Vec<Member<'_, '_>> = entries
            .into_iter()
            .filter_map(|entry| typical(entry).map(|(run, timeline)| (entry, run, timeline)))
            .filter(|(_, run, _)| !run.result.faults.is_empty())
            .collect();
        if members.len() < 2 {
            continue;
        }
        let place = view.place(&conditions, Some(replicas), Some(load));
        plots.push(plot(view.title("Systems through faults", &place), &members));
    }
    plots
}

/// As [`View::by_point`], whatever the state machines are: how long a system is silent does not depend on them, and
/// servers of other projects have their own.
fn groups<'v, 'a>(view: &'v View<'a>) -> Vec<(Conditions, u8, Load, Vec<&'v Entry<'a>>)> {
    let mut groups: Vec<(Conditions, u8, Load, Vec<&Entry<'a>>)> = Vec::new();
    for (mut conditions, replicas, load, entries) in view.by_point() {
        conditions.state_machine.clear();
        let key = (&conditions, replicas, load_order(&load));
        let known = groups
            .iter_mut()
            .find(|group| (&group.0, group.1, load_order(&group.2)) == key);
        match known {
            Some((.., members)) => members.extend(entries),
            None => groups.push((conditions, replicas, load, entries)),
        }
    }
    groups
}

fn plot(title: String, members: &[Member<'_, '_>]) -> Plot {
    let (_, first, timeline) = members[0];
    let rates = members.iter().flat_map(|(_, _, timeline)| timeline.rates());
    let top = top(&rates.collect::<Vec<f64>>());
    let panel = Panel {
        height: 220,
        x: time_axis(timeline, "seconds of the measured window"),
        y: Axis::from_zero("commands/s", top, format::count),
        curves: members.iter().map(|member| curve(member, top)).collect(),
        bands: bands(first),
    };
    Plot {
        name: stem(&title),
        caption: list_of_faults(first),
        drawing: Drawing::Curves(Picture {
            title: title.clone(),
            panels: vec![panel],
        }),
        title,
        table: table(members),
    }
}

fn curve((entry, _, timeline): &Member<'_, '_>, top: f64) -> Curve {
    let step = timeline.interval_ms as f64 / 1e3;
    let points = timeline.rates().into_iter().enumerate();
    Curve {
        name: entry.series.name.clone(),
        role: entry.series.role,
        style: CurveStyle {
            marker: Marker::None,
            dashed: entry.series.style.dashed,
        },
        points: points
            .map(|(index, rate)| Point {
                x: (index as f64 + 0.5) * step,
                y: rate.min(top),
                interval: None,
            })
            .collect(),
    }
}

fn table(members: &[Member<'_, '_>]) -> Table {
    let mut table = Table::new(&[
        "System",
        "Fault",
        "From",
        "To",
        "Gap",
        "Full throughput after",
    ]);
    for (entry, run, _) in members {
        for fault in &run.result.faults {
            let seconds = |ms: u64| format!("{:.2} s", ms as f64 / 1e3);
            table.row(vec![
                entry.series.name.clone(),
                fault.label(),
                seconds(fault.killed_at_ms),
                seconds(fault.ready_at_ms),
                fault
                    .gap_ms
                    .map_or("-".into(), |ms| format::micros(ms * 1e3)),
                fault.full_after_ms.map_or("-".into(), seconds),
            ]);
        }
    }
    table
}
