//! The page: one file, no scripts, nothing from elsewhere.

use crate::comparison::Comparison;
use crate::report::format::escape;
use crate::report::plot::{Plot, Section, Table, stem};
use crate::report::view::{View, load_label, replicas_label};
use crate::report::{profile, summary, theme};
use crate::results::Source;
use crate::utc;

const STYLE: &str = include_str!("page.css");

pub fn html(view: &View<'_>, sections: &[Section]) -> anyhow::Result<String> {
    let collection = view.collection;
    let title = title(view);
    let mut body = header(view, &title);
    body.push_str(&problems(view));
    let single = match (collection.source, &collection.cells[..]) {
        (Source::Run, [loaded]) => loaded.runs.first(),
        _ => None,
    };
    match single {
        Some(run) => body.push_str(&section("Result", "result", &summary::headline(run))),
        None => {
            let tables = format!("{}{}", summary::tables(view), LEGEND);
            body.push_str(&section("Result", "result", &tables));
        }
    }
    body.push_str(&plots(sections, single.is_some())?);
    if let Some(run) = single
        && let Some(content) = profile::section(&run.path)?
    {
        body.push_str(&section("Profile", "profile", &content));
    }
    let equality = summary::equality(view);
    if !equality.is_empty() {
        body.push_str(&section(
            "What was equal, and what was not",
            "equal",
            &equality,
        ));
    }
    body.push_str(&section("Settings", "settings", &settings(view)));
    body.push_str(&section(
        "Machine",
        "machine",
        &machine(&collection.comparison),
    ));
    body.push_str(&section("Exact commands", "commands", &commands(view)));
    if let Some(run) = single.filter(|run| !run.result.replica_counters.is_empty()) {
        let table = table(&summary::counters(run));
        let counters = format!("<details><summary>Show all</summary>{table}</details>");
        body.push_str(&section("Counters", "counters", &counters));
    }
    body.push_str(&section("How to read this", "reading", READING));
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{}</title>\n<style>\n:root{{{}}}\n\
         @media screen and (prefers-color-scheme:dark){{:root{{{}}}}}\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(&title),
        theme::variables(false),
        theme::variables(true)
    ))
}

const LEGEND: &str = "<p class=\"note\">Each figure is the median of its runs; below it the runs between which the true \
median lies. Ratios have the baseline above the line: for throughput more than 1 is better for the baseline, for p99 and \
CPU less than 1 is. All intervals of ratios on this page hold together at 95 %. A ratio is undecided if its interval holds \
1 or if there is none.</p>";

const READING: &str = "<ul>\
<li>Throughput counts what was acknowledged inside the measured window. Latency is that of the commands that started \
inside it, in an open loop from their intended start, so a stall is seen by every command that it delayed.</li>\
<li>Runs are the unit of noise, not commands. The interval of a median lies between two of its runs and covers the true \
median in 75 % of cases with 3 runs, 94 % with 5, at least 95 % from 6 on. One run has no interval.</li>\
<li>Ratios are of geometric means, judged by Welch's t-test on logarithms; each interval is so wide that all ratios of one \
comparison together mislead in at most one of twenty comparisons. How much runs scatter is learned from the runs.</li>\
<li>On a shared machine absolute figures drift by ±20 % within hours. Ratios of interleaved runs, CPU per command and \
commands per sync are steadier.</li>\
<li>Replica CPU is that of all replicas together. Commands per sync are those that one sync of one replica made \
durable, on average.</li>\
<li>Beside this page: <code>summary.csv</code>, <code>plots/*.svg</code>, and in each run's folder \
<code>result.json</code>, <code>timeline.csv</code> and <code>latency.hlog</code> (HdrHistogram log, nanoseconds).</li></ul>";

fn title(view: &View<'_>) -> String {
    let comparison = &view.collection.comparison;
    let mut systems: Vec<&str> = Vec::new();
    for entry in &view.entries {
        let system = entry.loaded.cell.system.as_str();
        if !systems.contains(&system) {
            systems.push(system);
        }
    }
    match view.collection.source {
        Source::Run => {
            let first = view
                .entries
                .first()
                .and_then(|entry| entry.loaded.runs.first());
            let name = first.map_or_else(String::new, |run| match run.result.name.as_str() {
                "" => run.name(),
                name => name.to_owned(),
            });
            format!("{}: run {name}", systems.join(", "))
        }
        Source::Runs => format!("{}: {} runs", systems.join(", "), run_count(view)),
        Source::Comparison => match systems.len() {
            0 | 1 => format!("{} by itself", comparison.baseline_system),
            _ => format!("{} side by side", systems.join(", ")),
        },
        Source::Sweep => format!("Sweep of {}", systems.join(", ")),
    }
}

fn run_count(view: &View<'_>) -> u32 {
    let counts = view
        .entries
        .iter()
        .map(|entry| entry.loaded.cell.summary.throughput_per_s.n);
    counts.sum()
}

fn header(view: &View<'_>, title: &str) -> String {
    let comparison = &view.collection.comparison;
    let machine = &comparison.machine;
    let mut facts = Vec::new();
    if let [loaded] = &view.collection.cells[..] {
        let cell = &loaded.cell;
        facts.push(format!(
            "{} · {} · {} B · {} s after {} s of warm-up · {} · {}",
            load_label(&cell.load),
            replicas_label(cell.replicas),
            cell.payload_bytes,
            cell.seconds,
            cell.warmup_s,
            cell.transport,
            if cell.durability == "none" {
                "not durable"
            } else {
                "durable"
            }
        ));
    } else {
        facts.push(format!(
            "{} runs in {} cells",
            run_count(view),
            view.entries.len()
        ));
    }
    facts.push(format!(
        "{} · commit {} ({} build)",
        utc::readable(comparison.unix_time_s),
        comparison.commit,
        machine.build_profile
    ));
    facts.push(machine.summary());
    let lines: String = facts
        .iter()
        .map(|fact| format!("<p>{}</p>", escape(fact)))
        .collect();
    format!("<header><h1>{}</h1>{lines}</header>\n", escape(title))
}

/// Whatever speaks against the figures stands before them.
fn problems(view: &View<'_>) -> String {
    let mut lines: Vec<String> = Vec::new();
    let machine = &view.collection.comparison.machine;
    lines.extend(machine.spoilers());
    if view.collection.comparison.commit.ends_with("+dirty") {
        lines.push(
            "the build has changes that are not committed: nobody can repeat it exactly".into(),
        );
    }
    for skipped in &view.collection.comparison.skipped {
        lines.push(format!(
            "{} did not take part: {}",
            skipped.system, skipped.why
        ));
    }
    lines.extend(view.collection.notes.iter().cloned());
    for entry in &view.entries {
        let cell = &entry.loaded.cell;
        let place = format!(
            "{}, {}, {}",
            entry.series.name,
            load_label(&cell.load),
            replicas_label(cell.replicas)
        );
        lines.extend(cell.flags.iter().map(|flag| format!("{place}: {flag}")));
        for run in &entry.loaded.runs {
            let problems = run.result.problems.iter();
            lines.extend(problems.map(|problem| format!("{place}, {}: {problem}", run.name())));
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    let items: String = lines
        .iter()
        .map(|line| format!("<li>{}</li>", escape(line)))
        .collect();
    format!("<aside><h2>Read this first</h2><ul>{items}</ul></aside>\n")
}

fn section(heading: &str, id: &str, content: &str) -> String {
    format!(
        "<section id=\"{id}\"><h2>{}</h2>\n{content}\n</section>\n",
        escape(heading)
    )
}

fn figure(plot: &Plot, note: &str, with_note: bool) -> anyhow::Result<String> {
    let svg = theme::follow_style_sheet(&plot.svg(false)?);
    // The drawing's own start tag gets a role and a name; size comes from the style sheet.
    let (start, rest) = svg.split_once('>').unwrap_or(("<svg", ""));
    let view_box = start
        .split("viewBox=\"")
        .nth(1)
        .and_then(|text| text.split('"').next());
    let id = &plot.name;
    let title = escape(&capitalised(&plot.title));
    let description = escape(format!("{note} {}", plot.caption).trim_end());
    let caption = if with_note {
        description.clone()
    } else {
        escape(&plot.caption)
    };
    Ok(format!(
        "<figure><h3>{title}</h3>\n<svg viewBox=\"{}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\" \
         xmlns=\"http://www.w3.org/2000/svg\"><title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{description}</desc>{}\n\
         <figcaption>{caption}</figcaption>\n<details><summary>Figures</summary>{}</details></figure>\n",
        view_box.unwrap_or("0 0 600 300"),
        rest.trim(),
        table(&plot.table)
    ))
}

/// A section with more plots than this is shown on demand: it holds details, not the answer.
const OPEN_MAX: usize = 16;

/// The few plots of one run stand beside each other, many under headings of their own.
fn plots(sections: &[Section], together: bool) -> anyhow::Result<String> {
    let mut html = String::new();
    let mut all = String::new();
    for group in sections {
        let mut figures = String::new();
        for plot in &group.plots {
            figures.push_str(&figure(plot, group.note, together)?);
        }
        if together {
            all.push_str(&figures);
        } else {
            let mut content = format!("<div class=\"plots\">{figures}</div>");
            if group.plots.len() > OPEN_MAX {
                let count = group.plots.len();
                content = format!(
                    "<details><summary>Show all {count} plots</summary>{content}</details>"
                );
            }
            let left_out = match group.left_out {
                0 => String::new(),
                more => format!(" <b>{more} more are left out: report fewer runs at once.</b>"),
            };
            let note = escape(group.note);
            let content = format!("<p class=\"note\">{note}{left_out}</p>\n{content}");
            html.push_str(&section(group.heading, &stem(group.heading), &content));
        }
    }
    if !all.is_empty() {
        html.push_str(&section(
            "Plots",
            "plots",
            &format!("<div class=\"plots\">{all}</div>"),
        ));
    }
    Ok(html)
}

fn capitalised(text: &str) -> String {
    let is_figure =
        text.starts_with('p') && text[1..].starts_with(|letter: char| letter.is_ascii_digit());
    let mut letters = text.chars();
    match letters.next() {
        // p99 is a name.
        Some(first) if !is_figure => first.to_uppercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
}

fn table(table: &Table) -> String {
    let head: String = table
        .header
        .iter()
        .map(|cell| format!("<th scope=\"col\">{}</th>", escape(&capitalised(cell))))
        .collect();
    let mut rows = String::new();
    for row in &table.rows {
        let cells: String = row
            .iter()
            .map(|cell| format!("<td>{}</td>", escape(cell)))
            .collect();
        rows.push_str(&format!("<tr>{cells}</tr>\n"));
    }
    format!(
        "<div class=\"scroll\"><table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )
}

fn settings(view: &View<'_>) -> String {
    let mut seen: Vec<(String, String)> = Vec::new();
    let mut rows = String::new();
    for entry in &view.entries {
        let cell = &entry.loaded.cell;
        let key = (entry.series.name.clone(), cell.settings.clone());
        if seen.contains(&key) {
            continue;
        }
        rows.push_str(&format!(
            "<tr><th scope=\"row\">{}{}</th><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            summary::swatch(entry),
            escape(&entry.series.name),
            escape(&cell.version),
            escape(&cell.durability),
            escape(&cell.settings)
        ));
        seen.push(key);
    }
    format!(
        "<div class=\"scroll\"><table><thead><tr><th scope=\"col\">System</th><th scope=\"col\">Version</th>\
         <th scope=\"col\">Durability</th><th scope=\"col\">Set up as</th></tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )
}

fn machine(comparison: &Comparison) -> String {
    let machine = &comparison.machine;
    let disk = &machine.data;
    let rows = [
        (
            "CPU",
            format!(
                "{} × {}, {}, governor {}",
                machine.cores, machine.cpu, machine.architecture, machine.governor
            ),
        ),
        (
            "Memory",
            format!(
                "{:.1} GiB",
                machine.memory_bytes as f64 / f64::from(1u32 << 30)
            ),
        ),
        ("Kernel", machine.kernel.clone()),
        (
            "Disk",
            format!(
                "{} on {}, mounted at {} ({}), scheduler {}",
                disk.filesystem, disk.device, disk.mount_point, disk.mount_options, disk.scheduler
            ),
        ),
        (
            "Build",
            format!(
                "commit {}, {}, {}",
                machine.commit, machine.build_profile, machine.rustc
            ),
        ),
    ];
    let rows: String = rows
        .iter()
        .map(|(name, value)| {
            format!(
                "<tr><th scope=\"row\">{name}</th><td>{}</td></tr>",
                escape(value)
            )
        })
        .collect();
    format!("<div class=\"scroll\"><table class=\"facts\"><tbody>{rows}</tbody></table></div>")
}

fn commands(view: &View<'_>) -> String {
    let own = &view.collection.comparison.command_line;
    let mut html = format!("<pre>{}</pre>", escape(own));
    let is_one_command = matches!(view.collection.source, Source::Comparison | Source::Sweep);
    let runs = view.entries.iter().flat_map(|entry| &entry.loaded.runs);
    let lines: Vec<String> = runs
        .filter(|run| !run.result.command_line.is_empty())
        .map(|run| format!("{}\n    {}", run.path.display(), run.result.command_line))
        .collect();
    if is_one_command && !lines.is_empty() {
        html.push_str(&format!(
            "<details><summary>Of each run</summary><pre>{}</pre></details>",
            escape(&lines.join("\n"))
        ));
    }
    html
}
