//! Which plots the data allows.

mod cdf;
mod cluster_size;
mod figures;
mod hockey_stick;
mod overlay;
mod timeline;

use crate::report::plot::Section;
use crate::report::view::View;

/// A page with more plots than this is not read by anyone.
const PLOTS_MAX: usize = 240;

pub fn sections(view: &View<'_>) -> Vec<Section> {
    let mut sections: Vec<Section> = [
        (
            "Throughput against latency",
            hockey_stick::NOTE,
            hockey_stick::plots(view),
        ),
        (
            "Cluster size",
            cluster_size::NOTE,
            cluster_size::plots(view),
        ),
        (
            "Figures with intervals",
            figures::NOTE,
            figures::plots(view),
        ),
        ("Latency distribution", cdf::NOTE, cdf::plots(view)),
        ("Through faults", overlay::NOTE, overlay::plots(view)),
        ("Over time", timeline::NOTE, timeline::plots(view)),
    ]
    .into_iter()
    .filter(|(_, _, plots)| !plots.is_empty())
    .map(|(heading, note, plots)| Section {
        heading,
        note,
        plots,
        left_out: 0,
    })
    .collect();
    make_names_unique(&mut sections);
    let mut left = PLOTS_MAX;
    for section in &mut sections {
        section.left_out = section.plots.len().saturating_sub(left);
        section.plots.truncate(left);
        left -= section.plots.len();
    }
    sections
}

fn make_names_unique(sections: &mut [Section]) {
    let mut taken: Vec<String> = Vec::new();
    let plots = sections.iter_mut().flat_map(|section| &mut section.plots);
    for plot in plots {
        let base = plot.name.clone();
        let mut number = 2;
        while taken.contains(&plot.name) {
            plot.name = format!("{base}-{number}");
            number += 1;
        }
        taken.push(plot.name.clone());
    }
}
