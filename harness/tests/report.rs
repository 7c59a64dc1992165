//! `synod report` and `synod diff` on made-up and published results, and on what is none.

mod common;
mod made_up;

use std::path::{Path, PathBuf};

use common::{Finished, directory, run};
use made_up::{Noise, Run};

const USAGE: Option<i32> = Some(2);

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

fn published(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../results/published")
        .join(name)
}

fn succeeded(finished: Finished) -> String {
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    finished.stdout
}

fn refused(finished: &Finished, expected: &[&str]) {
    let complaint = finished.complaint();
    assert_eq!(finished.code, USAGE, "{complaint}");
    for part in expected {
        assert!(complaint.contains(part), "`{complaint}` lacks `{part}`");
    }
}

/// Every tag that is opened is closed, in order; attributes are quoted; nothing is loaded from anywhere.
fn check_markup(name: &str, markup: &str) {
    const VOID: [&str; 5] = ["meta", "link", "wbr", "br", "!DOCTYPE"];
    let mut open: Vec<&str> = Vec::new();
    let mut rest = markup;
    while let Some((before, after)) = rest.split_once('<') {
        assert!(
            !before.contains('>') || open.last() == Some(&"style"),
            "{name}: stray > in {before}"
        );
        let (tag, left) = after
            .split_once('>')
            .unwrap_or_else(|| panic!("{name}: {after}"));
        rest = left;
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "{name}");
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{name}: <{tag}>");
        let word = tag.split([' ', '\n', '/']).next().expect("a first word");
        if !tag.ends_with('/') && !tag.starts_with('?') && !VOID.contains(&word) {
            open.push(word);
        }
    }
    assert!(open.is_empty(), "{name}: {open:?} not closed");
    let elsewhere = markup.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for word in ["http", "src=", "url(", "@import", "<script", "NaN", "inf\""] {
        assert!(!elsewhere.contains(word), "{name} contains {word}");
    }
}

/// All SVG files beside a page, each checked.
fn plots(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.join("plots")).expect("plots") {
        let path = entry.expect("readable").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let svg = std::fs::read_to_string(&path).expect("text");
        assert!(name.ends_with(".svg") && svg.starts_with("<svg"), "{name}");
        assert!(!svg.contains("var(--"), "{name}: colours are resolved");
        check_markup(&name, &svg);
        names.push(name);
    }
    names.sort();
    names
}

#[test]
fn the_report_of_a_comparison() {
    let directory = directory();
    let folder = directory.path();
    made_up::comparison(folder);
    succeeded(run(&["report", text(folder)]));
    let page = std::fs::read_to_string(folder.join("report.html")).expect("written");
    check_markup("report.html", &page);
    for part in [
        "prefers-color-scheme",
        "@media print",
        "746e9d61d178",
        "synod compare --systems synod,raft-rs",
        "rabbitmq did not take part",
        "&lt;apt-get install rabbitmq-server&gt;",
        "interval too wide",
        "What was equal, and what was not",
        "Throughput against latency",
        "var(--s-raft-rs)",
    ] {
        assert!(page.contains(part), "the page lacks {part}");
    }
    let names = plots(folder);
    // Two hockey sticks; at three loads four bar charts, a distribution, and a timeline of each of eight systems.
    assert_eq!(names.len(), 2 + 3 * (4 + 1 + 8), "{names:?}");
    assert_eq!(page.matches("role=\"img\"").count(), names.len());
    let csv = std::fs::read_to_string(folder.join("summary.csv")).expect("written");
    assert_eq!(csv.lines().count(), 1 + 24 * 6, "six figures of each cell");
    assert!(
        csv.lines().all(|line| line.matches(',').count() >= 15),
        "{csv}"
    );

    // The same files give the same page.
    let again = folder.join("again/page.html");
    succeeded(run(&["report", text(folder), "--out", text(&again)]));
    assert_eq!(std::fs::read_to_string(&again).expect("written"), page);
    assert_eq!(plots(&folder.join("again")), names);
}

#[test]
fn the_report_of_a_sweep_has_curves_over_the_cluster_size() {
    let directory = directory();
    made_up::sweep(directory.path());
    succeeded(run(&["report", text(directory.path())]));
    let names = plots(directory.path());
    let curves = names.iter().filter(|name| name.contains("by-cluster-size"));
    assert_eq!(curves.count(), 4, "{names:?}");
    // The runs of a comparison may be gone: the summary is enough for the figures.
    std::fs::remove_dir_all(directory.path().join("runs")).expect("removed");
    let finished = run(&["report", text(directory.path())]);
    assert!(
        finished.stderr.contains("has no result.json"),
        "{}",
        finished.stderr
    );
    succeeded(finished);
}

#[test]
fn reports_of_published_runs() {
    let directory = directory();
    let page_of = |name: &str| {
        let page = directory.path().join(name).join("report.html");
        succeeded(run(&[
            "report",
            text(&published(name)),
            "--out",
            text(&page),
        ]));
        let page = std::fs::read_to_string(page).expect("written");
        check_markup(name, &page);
        page
    };
    let kill = page_of("kill");
    for part in [
        "kill leader (longest gap 351 ms)",
        "631 k/s",
        "5.85 ms",
        "1.64 µs",
        "the run passed",
    ] {
        assert!(kill.contains(part), "lacks {part}");
    }
    assert_eq!(plots(&directory.path().join("kill")).len(), 2);
    let all = page_of("");
    assert!(all.contains("open loop of 300 k/s") && all.contains("one\u{a0}run"));
}

#[test]
fn the_report_of_an_overloaded_run_says_what_was_refused() {
    let directory = directory();
    let folder = directory.path().join("surge");
    std::fs::create_dir(&folder).expect("made");
    for file in std::fs::read_dir(published("kill")).expect("a folder") {
        let file = file.expect("readable").path();
        let to = folder.join(file.file_name().expect("a name"));
        std::fs::copy(file, to).expect("copied");
    }
    let path = folder.join("result.json");
    let result = std::fs::read(&path).expect("a result");
    let mut result: serde_json::Value = serde_json::from_slice(&result).expect("JSON");
    result["offer"] = serde_json::json!({
        "offered": 7_000, "admitted": 6_000, "refused": 1_000,
        "offered_per_s": 700_000.0, "goodput_per_s": 600_000.0, "busy_replies": 3,
    });
    result["surge"] = serde_json::json!({
        "surge": "5x@3s+3s", "goodput_per_s": 650_000.0, "goodput_before_per_s": 1.0,
        "p50_us": 1.0, "p99_us": 2_500.0, "max_us": 9.0, "normal_after_ms": 400,
    });
    result["generator"] = serde_json::json!({
        "busy_share": 0.4, "longest_pause_ms": 31.5, "pauses_ms": 80.0,
        "lateness_us": { "p50": 500.0, "p99": 1_700.0, "p999": 9_000.0, "max": 31_000.0 },
    });
    std::fs::write(&path, result.to_string()).expect("written");
    succeeded(run(&["report", text(&folder)]));
    let page = std::fs::read_to_string(folder.join("report.html")).expect("written");
    check_markup("surge", &page);
    for part in [
        "700 k/s",
        "6,000 admitted, 1,000 refused",
        "650 k/s",
        "as before within 400 ms",
        "Longest pause of the load process",
        "busy for 40 % of its one thread",
    ] {
        assert!(page.contains(part), "lacks {part}");
    }
}

#[test]
fn diff_of_repeated_runs() {
    let directory = directory();
    let mut noise = Noise(11);
    let mut side = |name: &str, slower: f64| {
        for repeat in 0..5 {
            let run = Run {
                throughput: 600e3 / slower * noise.factor(0.03),
                cpu_us: 1.6 * slower,
                seconds: 4,
                ..Run::TYPICAL
            };
            run.write(
                &directory.path().join(name).join(format!("run-{repeat}")),
                &mut noise,
            );
        }
        directory.path().join(name)
    };
    let (before, same, slow) = (side("before", 1.0), side("same", 1.0), side("slow", 1.25));
    let calm = run(&["diff", text(&before), text(&same), "--fail-on-regression"]);
    let calm = succeeded(calm);
    assert!(
        calm.contains("no change") && !calm.contains("slower"),
        "{calm}"
    );

    let moved = succeeded(run(&["diff", text(&before), text(&slow)]));
    let throughput = moved
        .lines()
        .find(|line| line.trim_start().starts_with("throughput"));
    let throughput = throughput.expect("a line for throughput");
    assert!(
        throughput.contains("slower by ") && throughput.contains("certain"),
        "{moved}"
    );
    assert!(moved.contains("costlier by 2"), "{moved}");
    let failed = run(&["diff", text(&before), text(&slow), "--fail-on-regression"]);
    assert_eq!(failed.code, Some(1));
    assert!(
        failed.complaint().contains("throughput of synod (quic)"),
        "{}",
        failed.stderr
    );
    // Faster is no regression, and neither is what the threshold allows.
    let faster = run(&["diff", text(&slow), text(&before), "--fail-on-regression"]);
    assert!(succeeded(faster).contains("faster by "));
    succeeded(run(&[
        "diff",
        text(&before),
        text(&slow),
        "--fail-on-regression",
        "--threshold",
        "60%",
    ]));

    let json = run(&["diff", text(&before), text(&slow), "--json"]).json();
    let figure = &json["cells"][0]["figures"][0];
    assert_eq!(
        (figure["figure"].as_str(), figure["verdict"].as_str()),
        (Some("throughput_per_s"), Some("worse"))
    );
    let change = figure["change"].as_f64().expect("a number");
    assert!((-0.26..-0.14).contains(&change), "{change}");
}

/// Nobody is let through whose runs lost something, and three copies of one run are one run.
#[test]
fn a_failed_run_is_a_regression_and_a_copy_is_no_repeat() {
    let directory = directory();
    let mut noise = Noise(11);
    let mut side = |name: &str| {
        for repeat in 0..5 {
            Run::TYPICAL.write(
                &directory.path().join(name).join(repeat.to_string()),
                &mut noise,
            );
        }
        directory.path().join(name)
    };
    let (before, after) = (side("before"), side("after"));
    let gate = || run(&["diff", text(&before), text(&after), "--fail-on-regression"]);
    succeeded(gate());

    let path = after.join("3/result.json");
    let whole = std::fs::read_to_string(&path).expect("written");
    let failed = whole.replace("\"ok\": true", "\"ok\": false").replace(
        "\"problems\": []",
        "\"problems\": [\"5 acknowledged commands were lost\"]",
    );
    assert_ne!(failed, whole);
    std::fs::write(&path, failed).expect("written");
    let refused_by_gate = gate();
    assert_eq!(refused_by_gate.code, Some(1));
    assert!(
        refused_by_gate
            .complaint()
            .contains("5 acknowledged commands were lost"),
        "{}",
        refused_by_gate.stderr
    );
    let json = run(&["diff", text(&before), text(&after), "--json"]).json();
    assert_eq!(json["failed_runs"][0]["side"].as_str(), Some("B"), "{json}");
    std::fs::write(&path, whole).expect("written");

    for copy in 1..5 {
        for file in ["result.json", "timeline.csv", "latency.hlog"] {
            std::fs::copy(
                after.join("0").join(file),
                after.join(copy.to_string()).join(file),
            )
            .expect("copied");
        }
    }
    let copies = gate();
    assert_eq!(copies.code, Some(2), "{}", copies.stderr);
    assert!(copies.stderr.contains("is a copy of"), "{}", copies.stderr);
}

#[test]
fn diff_of_single_runs_and_of_strangers() {
    let (peak, kill) = (published("peak"), published("kill"));
    let same = succeeded(run(&["diff", text(&peak), text(&peak)]));
    assert!(
        same.contains("can't tell: a single run does not tell how much runs scatter"),
        "{same}"
    );
    // A gate that can't judge neither passes nor fails.
    refused(
        &run(&["diff", text(&peak), text(&peak), "--fail-on-regression"]),
        &[
            "--fail-on-regression needs 5 runs on each side",
            "--min-runs",
        ],
    );
    refused(
        &run(&["diff", text(&peak), text(&kill)]),
        &["nothing to compare", "kill leader"],
    );
    refused(
        &run(&["diff", text(&peak), text(&peak), "--threshold", "much"]),
        &["--threshold", "5%"],
    );
}

#[test]
fn what_is_no_result_is_named_and_nothing_is_written() {
    let directory = directory();
    let folder = directory.path().join("run");
    let report = || run(&["report", text(&folder)]);
    refused(&report(), &["run: no such folder"]);
    std::fs::create_dir(&folder).expect("made");
    refused(&report(), &["neither result.json nor comparison.json"]);
    std::fs::write(folder.join("config.toml"), "").expect("written");
    refused(&report(), &["the run did not finish"]);

    Run::TYPICAL.write(&folder, &mut Noise(3));
    let result = std::fs::read_to_string(folder.join("result.json")).expect("written");
    let with =
        |file: &str, content: &[u8]| std::fs::write(folder.join(file), content).expect("written");
    with("result.json", &result.as_bytes()[..result.len() / 2]);
    refused(&report(), &["result.json: cut off at line"]);
    with(
        "result.json",
        result
            .replace("\"schema_version\": 1", "\"schema_version\": 9")
            .as_bytes(),
    );
    refused(
        &report(),
        &["result.json", "schema_version 9 found, 1 expected"],
    );
    with("result.json", b"{\"a\": 1}");
    refused(&report(), &["no schema_version"]);
    with("result.json", result.as_bytes());

    for file in ["timeline.csv", "latency.hlog"] {
        let whole = std::fs::read(folder.join(file)).expect("written");
        with(file, &whole[..whole.len() * 2 / 3]);
        refused(&report(), &[file, "cut off"]);
        with(file, &whole);
    }
    with("comparison.json", b"{\"schema_version\": 9}");
    refused(
        &report(),
        &["comparison.json", "schema_version 9 found, 2 expected"],
    );
    refused(
        &run(&["diff", text(&folder), text(&folder)]),
        &["comparison.json"],
    );
    let (good, here) = (published("peak"), text(&folder));
    refused(
        &run(&["report", text(&good), "--out", here]),
        &["--out", "is a folder"],
    );
    for made in ["report.html", "summary.csv", "plots"] {
        assert!(!folder.join(made).exists(), "{made} was written");
    }
}

/// A comparison does not make the reader open files elsewhere.
#[test]
fn a_comparison_names_folders_below_its_own() {
    let directory = directory();
    made_up::sweep(directory.path());
    let path = directory.path().join("comparison.json");
    let text_of = std::fs::read_to_string(&path).expect("written");
    std::fs::write(&path, text_of.replacen("runs/01", "../runs/01", 1)).expect("written");
    refused(
        &run(&["report", text(directory.path())]),
        &["comparison.json", "is not a folder below it"],
    );
}
