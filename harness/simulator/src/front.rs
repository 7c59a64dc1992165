//! What a person sees of a sweep: progress, summary, failures. `synod simulate` and the example share it.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::faults::{Fault, FaultSet};
use crate::isolation::isolated;
use crate::partitions::{PROGRESS_WITHIN_TIMEOUTS, Topology, recovery_millitimeouts};
use crate::run::{LEADER_WITHIN_TIMEOUTS, simulate};
use crate::seams::Honest;
use crate::shrink::{Shrunk, shrink};
use crate::swarm::{Bounds, Plan};
use crate::sweep::{FIRST_SEED, FailedSeed, Summary, Sweep, sweep};
use crate::trace::Trace;

const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What is to be run, as the command line says it.
#[derive(Clone, Debug)]
pub struct Request {
    pub seeds: u64,
    pub first_seed: u64,
    /// Only this seed, with its whole trace if `trace` is set.
    pub seed: Option<u64>,
    pub trace: bool,
    pub replicas: Vec<u8>,
    pub virtual_seconds: u64,
    pub faults: FaultSet,
    pub jobs: usize,
    pub json: bool,
    /// Not a sweep, but how long each partial partition keeps the cluster without a leader that makes progress.
    pub partial_partitions: bool,
}

impl Default for Request {
    fn default() -> Request {
        Request {
            seeds: 1_000,
            first_seed: FIRST_SEED,
            seed: None,
            trace: false,
            replicas: vec![3, 5, 7],
            virtual_seconds: 60,
            faults: FaultSet::ALL,
            jobs: 2,
            json: false,
            partial_partitions: false,
        }
    }
}

impl Request {
    /// Reads `--name value` arguments; for the example, which does without a parser.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Request, String> {
        let mut request = Request::default();
        while let Some(name) = arguments.next() {
            let mut number = || {
                let value = arguments.next().unwrap_or_default();
                value
                    .parse::<u64>()
                    .map_err(|_| format!("{name} needs a number, not `{value}`"))
            };
            match name.as_str() {
                "--seeds" => request.seeds = number()?,
                "--first-seed" => request.first_seed = number()?,
                "--seed" => request.seed = Some(number()?),
                "--virtual-seconds" => request.virtual_seconds = number()?,
                "--jobs" => request.jobs = number()?.max(1) as usize,
                "--trace" => request.trace = true,
                "--json" => request.json = true,
                "--partial-partitions" => request.partial_partitions = true,
                "--faults" => {
                    let list = arguments.next().unwrap_or_default();
                    request.faults = FaultSet::parse(&list).map_err(|error| error.to_string())?;
                }
                "--replicas" => {
                    let list = arguments.next().unwrap_or_default();
                    request.replicas = parse_replicas(&list)?;
                }
                _ => return Err(format!("unknown argument `{name}`")),
            }
        }
        Ok(request)
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            replicas: self.replicas.clone(),
            faults: self.faults,
            virtual_ns: self.virtual_seconds * 1_000_000_000,
        }
    }
}

/// Cluster sizes, separated by commas.
pub fn parse_replicas(list: &str) -> Result<Vec<u8>, String> {
    let size = |text: &str| {
        let size = text.trim().parse::<u8>().ok();
        size.filter(|size| (1..=15).contains(size)).ok_or_else(|| {
            format!("`{text}` is no cluster size; sizes are 1 to 15, separated by commas")
        })
    };
    list.split(',').map(size).collect()
}

/// Runs it, writes to `out` what came of it and tells `note` how it goes, and returns the exit code. Fails only where
/// `out` does.
pub fn run(request: &Request, out: &mut dyn Write, note: &dyn Fn(&str)) -> io::Result<u8> {
    if request.partial_partitions {
        return run_partitions(request, out);
    }
    match request.seed {
        Some(seed) if request.trace => Ok(run_traced(request, seed, note)),
        Some(seed) => {
            let request = Request {
                seeds: 1,
                first_seed: seed,
                jobs: 1,
                ..request.clone()
            };
            run_sweep(&request, out, note)
        }
        None => run_sweep(request, out, note),
    }
}

fn run_traced(request: &Request, seed: u64, note: &dyn Fn(&str)) -> u8 {
    let bounds = request.bounds();
    let outcome = isolated(move || {
        let mut out = std::io::BufWriter::new(io::stdout());
        // A reader that went away (`| head`) ends the trace, not the simulation.
        let sink = move |line: &str| writeln!(out, "{line}").unwrap_or_default();
        simulate(Plan::draw(seed, &bounds), Honest, Trace::to(Box::new(sink)))
    });
    match outcome {
        Ok(_) => 0,
        Err(violation) => {
            note(&format!("seed {seed} fails: {violation}\n"));
            1
        }
    }
}

fn run_sweep(request: &Request, out: &mut dyn Write, note: &dyn Fn(&str)) -> io::Result<u8> {
    let search = Sweep {
        first_seed: request.first_seed,
        seeds: request.seeds,
        bounds: request.bounds(),
        jobs: request.jobs,
    };
    let mut progress = Progress::new(request.seeds, note);
    let (summary, failed) = sweep(&search, Honest, |summary| progress.show(summary));
    progress.end();
    let shrunk = failed.as_ref().and_then(|failed| {
        note(&format!(
            "seed {} fails: {}; shrinking it\n",
            failed.seed, failed.violation
        ));
        shrink(failed.seed, &search.bounds, &Honest)
    });
    if request.json {
        let json = json(&summary, failed.as_ref(), shrunk.as_ref(), request);
        writeln!(out, "{json}")?;
    } else {
        print_summary(&summary, out)?;
        if let Some(failed) = &failed {
            print_failure(failed, shrunk.as_ref(), request, out)?;
        }
    }
    Ok(u8::from(failed.is_some()))
}

/// Median and worst over the seeds, per topology; exit code 1 if the worst is over the bound.
fn run_partitions(request: &Request, out: &mut dyn Write) -> io::Result<u8> {
    let mut code = 0;
    let mut objects = Vec::new();
    for topology in Topology::ALL {
        let mut times = Vec::new();
        for seed in (0..request.seeds).map(|i| request.first_seed.wrapping_add(i)) {
            match isolated(move || recovery_millitimeouts(topology, seed)) {
                Ok(time) => times.push((time, seed)),
                Err(violation) => {
                    writeln!(out, "{}: seed {seed} fails: {violation}", topology.name())?;
                    return Ok(1);
                }
            }
        }
        times.sort_unstable();
        let (median, _) = times.get(times.len() / 2).copied().unwrap_or_default();
        let (worst, seed) = times.last().copied().unwrap_or_default();
        let over = worst > PROGRESS_WITHIN_TIMEOUTS * 1_000;
        code |= u8::from(over);
        objects.push(format!(
            "{}:{{\"seeds\":{},\"median\":{},\"worst\":{},\"worst_seed\":{seed}}}",
            quoted(topology.name()),
            times.len(),
            thousandths(median),
            thousandths(worst)
        ));
        if !request.json {
            writeln!(
                out,
                "{:<22} median {} worst {} election timeouts until a leader makes progress (seed {seed}; {} seeds, \
                 allowed {PROGRESS_WITHIN_TIMEOUTS}){}",
                topology.name(),
                thousandths(median),
                thousandths(worst),
                times.len(),
                if over { " FAILED" } else { "" }
            )?;
        }
    }
    if request.json {
        writeln!(out, "{{{}}}", objects.join(","))?;
    }
    Ok(code)
}

fn thousandths(value: u64) -> String {
    format!("{}.{:03}", value / 1_000, value % 1_000)
}

struct Progress<'a> {
    seeds: u64,
    shown: Instant,
    overwrites: bool,
    note: &'a dyn Fn(&str),
}

impl<'a> Progress<'a> {
    fn new(seeds: u64, note: &'a dyn Fn(&str)) -> Progress<'a> {
        Progress {
            seeds,
            shown: Instant::now(),
            overwrites: io::stderr().is_terminal(),
            note,
        }
    }

    fn show(&mut self, summary: &Summary) {
        if self.shown.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.shown = Instant::now();
        let left = summary.wall_ns / summary.seeds.max(1) * (self.seeds - summary.seeds);
        let line = format!(
            "{}/{} seeds, {} virtual s, {} operations, {} virtual s per s and core, {} s left",
            summary.seeds,
            self.seeds,
            summary.virtual_ns / 1_000_000_000,
            summary.operations,
            summary.speed(),
            left / 1_000_000_000
        );
        if self.overwrites {
            (self.note)(&format!("\r\x1b[K{line}"));
        } else {
            (self.note)(&format!("{line}\n"));
        }
    }

    fn end(&self) {
        if self.overwrites {
            (self.note)("\r\x1b[K");
        }
    }
}

fn print_summary(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{} seeds passed", summary.seeds)?;
    writeln!(
        out,
        "{:>14} virtual seconds",
        summary.virtual_ns / 1_000_000_000
    )?;
    writeln!(out, "{:>14} client operations checked", summary.operations)?;
    writeln!(
        out,
        "{:>14} virtual seconds per wall second and core",
        summary.speed()
    )?;
    writeln!(
        out,
        "{:>14} election timeouts from healing to a leader at worst (seed {}; allowed: {LEADER_WITHIN_TIMEOUTS})",
        thousandths(summary.leader_millitimeouts_worst),
        summary.leader_worst_seed
    )?;
    writeln!(
        out,
        "{:>14} ms from healing to equal state at worst (seed {})",
        summary.converged_ns_worst / 1_000_000,
        summary.converged_worst_seed
    )?;
    writeln!(out, "\n{:<24}{:>12}", "milestone", "reached")?;
    for (name, count) in summary.milestones.iter() {
        writeln!(out, "{name:<24}{count:>12}")?;
    }
    writeln!(out, "\n{:<24}{:>12}", "fault", "struck")?;
    for fault in Fault::ALL {
        writeln!(out, "{:<24}{:>12}", fault.name(), summary.strikes.of(fault))?;
    }
    Ok(())
}

fn print_failure(
    failed: &FailedSeed,
    shrunk: Option<&Shrunk>,
    request: &Request,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "\nFAILED: seed {}: {}", failed.seed, failed.violation)?;
    writeln!(
        out,
        "repeat it with: {}",
        repeat_command(failed.seed, request.faults, request)
    )?;
    let Some(shrunk) = shrunk else {
        writeln!(
            out,
            "it did not fail again: the simulation is not deterministic, which is a bug of its own"
        )?;
        return Ok(());
    };
    writeln!(out, "faults needed: {}", shrunk.faults)?;
    writeln!(
        out,
        "repeat only these: {}",
        repeat_command(failed.seed, shrunk.faults, request)
    )?;
    writeln!(out, "with them: {}", shrunk.violation)?;
    writeln!(out, "the last events before:")?;
    for line in &shrunk.trace {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

fn repeat_command(seed: u64, faults: FaultSet, request: &Request) -> String {
    let defaults = Request::default();
    let mut command = format!("synod simulate --seed {seed} --trace");
    if request.replicas != defaults.replicas {
        let sizes: Vec<String> = request.replicas.iter().map(u8::to_string).collect();
        command.push_str(&format!(" --replicas {}", sizes.join(",")));
    }
    if request.virtual_seconds != defaults.virtual_seconds {
        command.push_str(&format!(" --virtual-seconds {}", request.virtual_seconds));
    }
    if faults != FaultSet::ALL {
        command.push_str(&format!(" --faults {faults}"));
    }
    command
}

/// One JSON object. The texts in it are names and messages; what JSON has to escape is escaped.
fn json(
    summary: &Summary,
    failed: Option<&FailedSeed>,
    shrunk: Option<&Shrunk>,
    request: &Request,
) -> String {
    let strikes: Vec<String> = Fault::ALL
        .iter()
        .map(|fault| format!("\"{fault}\":{}", summary.strikes.of(*fault)))
        .collect();
    let milestones: Vec<String> = summary
        .milestones
        .iter()
        .map(|(name, count)| format!("\"{name}\":{count}"))
        .collect();
    let failure = failed.map_or("null".to_string(), |failed| {
        let command = repeat_command(failed.seed, request.faults, request);
        let needed = shrunk.map_or(request.faults, |shrunk| shrunk.faults);
        let trace: Vec<String> = shrunk
            .map(|shrunk| shrunk.trace.iter().map(|line| quoted(line)).collect())
            .unwrap_or_default();
        format!(
            "{{\"seed\":{},\"violation\":{},\"repeat\":{},\"faults_needed\":{},\"trace\":[{}]}}",
            failed.seed,
            quoted(&failed.violation.to_string()),
            quoted(&command),
            quoted(&needed.to_string()),
            trace.join(",")
        )
    });
    format!(
        "{{\"seeds_passed\":{},\"virtual_seconds\":{},\"operations_checked\":{},\"virtual_seconds_per_wall_second_per_core\":{},\
         \"wall_ms\":{},\"leader_election_timeouts_worst\":{},\"converged_ms_worst\":{},\"milestones\":{{{}}},\"strikes\":{{{}}},\"failure\":{failure}}}",
        summary.seeds,
        summary.virtual_ns / 1_000_000_000,
        summary.operations,
        summary.speed(),
        summary.wall_ns / 1_000_000,
        thousandths(summary.leader_millitimeouts_worst),
        summary.converged_ns_worst / 1_000_000,
        milestones.join(","),
        strikes.join(",")
    )
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", control as u32)),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
