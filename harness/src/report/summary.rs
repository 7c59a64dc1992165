//! The tables of the page.

use crate::comparison::Ratios;
use crate::report::format::{self, escape};
use crate::report::plot::Table;
use crate::report::view::{Entry, View, load_label};
use crate::results::{Better, Figure, RunFolder};
use crate::statistics::{Ratio, Spread};

/// One table per set of conditions: every system, with intervals and ratios.
pub fn tables(view: &View<'_>) -> String {
    let baseline = escape(&view.collection.comparison.baseline_system);
    let mut html = String::new();
    for (conditions, replicas, load, entries) in view.by_point() {
        let figures: Vec<Figure> = Figure::ALL
            .into_iter()
            .filter(|figure| entries.iter().any(|entry| spread(entry, *figure).is_some()))
            .collect();
        let ratios = entries
            .iter()
            .any(|entry| entry.loaded.cell.ratio.is_some());
        html.push_str(&format!(
            "<div class=\"scroll\"><table class=\"figures\"><caption><b>{}</b> · {}</caption>\n<thead><tr><th scope=\"col\">System</th>",
            load_label(&load),
            escape(&View::full_place(&conditions, replicas))
        ));
        for figure in &figures {
            html.push_str(&format!(
                "<th scope=\"col\" class=\"n\">{}</th>",
                heading(*figure)
            ));
        }
        html.push_str("<th scope=\"col\" class=\"n\">Runs</th>");
        if ratios {
            for name in ["throughput", "p99", "CPU"] {
                html.push_str(&format!(
                    "<th scope=\"col\" class=\"n r\"><span>{baseline} ÷ system</span>{name}</th>"
                ));
            }
        }
        html.push_str("</tr></thead>\n<tbody>\n");
        for entry in &entries {
            html.push_str(&row(entry, &figures, ratios));
        }
        html.push_str("</tbody></table></div>\n");
    }
    html
}

fn spread(entry: &Entry<'_>, figure: Figure) -> Option<Spread> {
    figure.of_summary(&entry.loaded.cell.summary)
}

fn heading(figure: Figure) -> &'static str {
    match figure {
        Figure::Throughput => "Throughput",
        Figure::P50 => "p50",
        Figure::P99 => "p99",
        Figure::P999 => "p99.9",
        Figure::ReplicaCpu => "Replica CPU / command",
        Figure::CommandsPerSync => "Commands / sync",
        Figure::Gap => "Longest gap",
    }
}

fn row(entry: &Entry<'_>, figures: &[Figure], ratios: bool) -> String {
    let cell = &entry.loaded.cell;
    let flags: String = cell
        .flags
        .iter()
        .map(|flag| format!("<span class=\"flag\">{}</span>", escape(flag)))
        .collect();
    let mut html = format!(
        "<tr><th scope=\"row\">{}{}<small>{}</small>{flags}</th>",
        swatch(entry),
        escape(&entry.series.name),
        escape(&cell.version)
    );
    for figure in figures {
        html.push_str(&match spread(entry, *figure) {
            Some(spread) => format!(
                "<td class=\"n\">{}<small>{}</small></td>",
                format::figure(*figure, spread.median),
                breakable(&format::interval(*figure, &spread))
            ),
            None => "<td class=\"n\">–</td>".into(),
        });
    }
    html.push_str(&format!(
        "<td class=\"n\">{}</td>",
        cell.summary.throughput_per_s.n
    ));
    if ratios {
        html.push_str(&ratio_cells(cell.ratio.as_ref()));
    }
    html.push_str("</tr>\n");
    html
}

pub fn swatch(entry: &Entry<'_>) -> String {
    format!(
        "<span class=\"swatch\" style=\"background:var(--{})\"></span>",
        entry.series.role.name
    )
}

fn ratio_cells(ratios: Option<&Ratios>) -> String {
    let Some(ratios) = ratios else {
        return "<td class=\"n\">–</td>".repeat(3);
    };
    [
        (Figure::Throughput, Some(ratios.throughput)),
        (Figure::P99, Some(ratios.p99)),
        (Figure::ReplicaCpu, ratios.cpu),
    ]
    .into_iter()
    .map(|(figure, ratio)| match ratio {
        Some(ratio) => ratio_cell(figure, &ratio),
        None => "<td class=\"n\">–</td>".into(),
    })
    .collect()
}

/// Colour only repeats what the word says.
fn ratio_cell(figure: Figure, ratio: &Ratio) -> String {
    let (class, word) = match figure.better() {
        _ if !ratio.is_decided() => ("open", "undecided"),
        Better::More if ratio.ratio > 1.0 => ("good", "better"),
        Better::Less if ratio.ratio < 1.0 => ("good", "better"),
        Better::More | Better::Less => ("bad", "worse"),
        Better::Neither => ("open", ""),
    };
    format!(
        "<td class=\"n {class}\"><b>{}</b><small>{}</small><small>{word}</small></td>",
        format::ratio(ratio),
        breakable(&format::ratio_interval(ratio))
    )
}

/// In a narrow column an interval breaks between its ends and nowhere else.
fn breakable(interval: &str) -> String {
    interval.replace(' ', "\u{a0}").replace('…', "…<wbr>")
}

/// What was the same for all systems and what was not.
pub fn equality(view: &View<'_>) -> String {
    let mut seen: Vec<String> = Vec::new();
    let mut table = String::new();
    for entry in &view.entries {
        let cell = &entry.loaded.cell;
        if cell.equality.is_empty() || seen.contains(&entry.series.name) {
            continue;
        }
        seen.push(entry.series.name.clone());
        for (index, row) in cell.equality.iter().enumerate() {
            let head = if index == 0 {
                format!(
                    "<th scope=\"rowgroup\" rowspan=\"{}\">{}{}</th>",
                    cell.equality.len(),
                    swatch(entry),
                    escape(&entry.series.name)
                )
            } else {
                String::new()
            };
            let (class, word) = if row.equal {
                ("same", "equal")
            } else {
                ("differs", "differs")
            };
            table.push_str(&format!(
                "<tr{}>{head}<td>{}</td><td>{}</td><td class=\"{class}\">{word}</td></tr>\n",
                if index == 0 { " class=\"first\"" } else { "" },
                escape(&row.what),
                escape(&row.value)
            ));
        }
    }
    if table.is_empty() {
        return String::new();
    }
    format!(
        "<div class=\"scroll\"><table><thead><tr><th scope=\"col\">System</th><th scope=\"col\">What</th>\
         <th scope=\"col\">There</th><th scope=\"col\">Against {}</th></tr></thead>\n<tbody>{table}</tbody></table></div>",
        escape(&view.collection.comparison.baseline_system)
    )
}

/// The figures of one run, as large as they deserve.
pub fn headline(run: &RunFolder) -> String {
    let tiles = [
        speed_tiles(run),
        offer_tiles(run),
        generator_tiles(run),
        cost_tiles(run),
        check_tiles(run),
    ]
    .concat();
    format!("<dl class=\"tiles\">{}</dl>", tiles.concat())
}

fn tile(name: &str, value: &str, note: &str) -> String {
    format!(
        "<div><dt>{name}</dt><dd>{}<small>{}</small></dd></div>",
        escape(value),
        escape(note)
    )
}

fn speed_tiles(run: &RunFolder) -> Vec<String> {
    let result = &run.result;
    let latency = &result.latency_us;
    vec![
        tile(
            "Throughput",
            &format::figure(Figure::Throughput, result.throughput_per_s),
            &format!(
                "{} acknowledged in {} s",
                format::thousands(result.acknowledged),
                result.seconds
            ),
        ),
        tile(
            "p50 latency",
            &format::micros(latency.p50),
            &format!("p90 {}", format::micros(latency.p90)),
        ),
        tile(
            "p99 latency",
            &format::micros(latency.p99),
            &format!("p99.9 {}", format::micros(latency.p999)),
        ),
        tile(
            "Longest gap",
            &format::micros(result.longest_gap_ms * 1e3),
            &format!("highest latency {}", format::micros(latency.max)),
        ),
    ]
}

/// What an open loop offered, and what a surge did.
fn offer_tiles(run: &RunFolder) -> Vec<String> {
    let offer = run.result.offer.as_ref().map(|offer| {
        tile(
            "Offered",
            &format::figure(Figure::Throughput, offer.offered_per_s),
            &format!(
                "{} admitted, {} refused",
                format::thousands(offer.commands.admitted),
                format::thousands(offer.commands.refused)
            ),
        )
    });
    let surge = run.result.surge.as_ref().map(|surge| {
        tile(
            "Goodput in the surge",
            &format::figure(Figure::Throughput, surge.goodput_per_s),
            &format!(
                "p99 {}, {}",
                format::micros(surge.p99_us),
                match surge.normal_after_ms {
                    Some(ms) => format!("as before within {ms} ms"),
                    None => "never as before again".to_owned(),
                }
            ),
        )
    });
    offer.into_iter().chain(surge).collect()
}

/// That what is told of the system is not the load process's own.
fn generator_tiles(run: &RunFolder) -> Vec<String> {
    let generator = run.result.generator.as_ref().map(|generator| {
        let late = generator.lateness_us.map_or_else(String::new, |late| {
            format!(", commands late by p99 {}", format::micros(late.p99))
        });
        tile(
            "Longest pause of the load process",
            &format::micros(generator.longest_pause_ms * 1e3),
            &format!(
                "busy for {:.0} % of its one thread{late}",
                generator.busy_share * 100.0
            ),
        )
    });
    generator.into_iter().collect()
}

fn cost_tiles(run: &RunFolder) -> Vec<String> {
    let result = &run.result;
    let plural = if result.elections == 1 { "" } else { "s" };
    vec![
        tile(
            "Replica CPU / command",
            &format::micros(result.replica_cpu_us_per_command),
            &format!(
                "clients {}",
                format::micros(result.client_cpu_us_per_command)
            ),
        ),
        tile(
            "Commands / sync",
            &format::count(result.commands_per_sync),
            &format!("{} election{plural}", result.elections),
        ),
    ]
}

fn check_tiles(run: &RunFolder) -> Vec<String> {
    let result = &run.result;
    let wrong = result.lost + result.duplicated + result.disordered + result.diverged;
    let (verdict, checked) = match &result.verification {
        // Zeros that nobody checked are no zeros.
        None => ("–".to_owned(), "not checked".to_owned()),
        Some(check) => (
            if wrong == 0 {
                "none".to_owned()
            } else {
                format::thousands(wrong)
            },
            format!(
                "{} commands in {} slots checked",
                format::thousands(check.commands_executed),
                format::thousands(check.slots)
            ),
        ),
    };
    let passed = if result.ok {
        "the run passed"
    } else {
        "the run did not pass"
    };
    vec![
        tile("Lost, repeated, disordered, diverged", &verdict, &checked),
        tile("Failed", &format::thousands(result.failed), passed),
    ]
}

/// The counters of a run, where it kept any.
pub fn counters(run: &RunFolder) -> Table {
    let mut table = Table::new(&["Counter", "All replicas, in the measured window"]);
    for (name, value) in &run.result.replica_counters {
        table.row(vec![name.clone(), format::thousands(*value)]);
    }
    table
}
