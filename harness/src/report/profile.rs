//! What `synod profile` left in a run's folder: the table of CPU per command, and the flame graphs.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::failure::usage;
use crate::profile::stage::Stage;
use crate::profile::table::{FILE_NAME, ProcessProfile, Profile};
use crate::report::format::escape;
use crate::results::file;

/// `None` if the run was not profiled.
pub fn section(folder: &Path) -> anyhow::Result<Option<String>> {
    let Some(profile) = Profile::read(folder)? else {
        return Ok(None);
    };
    let mut html = format!(
        "<p>CPU in µs per command by stage of the command path, of {} commands in {:.1} s: a stage's share of the \
         samples, of the CPU that the kernel accounted.</p>\n{}",
        profile.commands,
        profile.recorded_s,
        table(&profile)
    );
    let notes = profile.limits.iter();
    let notes: String = notes
        .map(|limit| format!("<li>{}</li>", escape(limit)))
        .collect();
    if !notes.is_empty() {
        html.push_str(&format!("\n<ul>{notes}</ul>"));
    }
    for process in &profile.processes {
        html.push_str(&picture(folder, process)?);
    }
    Ok(Some(html))
}

fn table(profile: &Profile) -> String {
    let head: String = profile
        .processes
        .iter()
        .map(|process| format!("<th scope=\"col\">{}</th>", escape(&process.role)))
        .collect();
    let row = |name: &str, cell: &dyn Fn(&ProcessProfile) -> String| {
        let cells = profile.processes.iter();
        let cells: String = cells
            .map(|process| format!("<td>{}</td>", cell(process)))
            .collect();
        format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", escape(name))
    };
    let mut rows = String::new();
    for stage in Stage::ALL {
        if profile
            .processes
            .iter()
            .any(|process| process.of(stage).is_some())
        {
            rows.push_str(&row(stage.name(), &|process| {
                process.of(stage).map_or(String::new(), |share| {
                    format!("{:.3} ({:.1} %)", share.cpu_us_per_command, share.percent)
                })
            }));
        }
    }
    rows.push_str(&row("measured CPU", &|process| {
        format!("{:.3}", process.cpu_us_per_command)
    }));
    rows.push_str(&row("samples less measured", &|process| {
        format!("{:+.1} %", process.residual_percent)
    }));
    rows.push_str(&row("wait for a CPU", &|process| {
        format!("{:.3}", process.wait_us_per_command)
    }));
    format!(
        "<div class=\"scroll\"><table><thead><tr><th scope=\"col\">Stage</th>{head}</tr></thead>\n\
         <tbody>{rows}</tbody></table></div>"
    )
}

/// As an image, so that the page has no scripts; the file beside it can be searched and zoomed.
fn picture(folder: &Path, process: &ProcessProfile) -> anyhow::Result<String> {
    // It becomes part of a path.
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if process.role.is_empty() || !process.role.chars().all(plain) {
        return Err(usage(format!(
            "{}: role `{}`: lower-case letters, digits and `-` only; is the file ours?",
            folder.join(FILE_NAME).display(),
            process.role.escape_debug()
        )));
    }
    let name = format!("flame-{}.svg", process.role);
    let Some(svg) = file::read(&folder.join(&name))? else {
        return Ok(String::new());
    };
    let (name, role) = (escape(&name), escape(&process.role));
    Ok(format!(
        "\n<figure><h3>CPU of the {role}</h3>\n<img style=\"width:100%\" alt=\"flame graph of the {role}\" \
         src=\"data:image/svg+xml;base64,{}\">\n<figcaption>Width is CPU time; a box stands on its caller. \
         <code>{name}</code> in the run's folder can be searched and zoomed.</figcaption></figure>\n",
        STANDARD.encode(svg)
    ))
}
