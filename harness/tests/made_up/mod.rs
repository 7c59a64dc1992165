//! Results that nobody measured: written as `synod run` and `synod compare` write them, the same every time.

#![allow(
    dead_code,
    reason = "each test binary compiles this module and uses its own part"
)]

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use serde_json::{Value, json};

/// SplitMix64; a seed gives the same results on every machine.
pub struct Noise(pub u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Close to a standard normal variable.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    /// Around 1, with this standard deviation of the logarithm.
    pub fn factor(&mut self, deviation: f64) -> f64 {
        (self.normal() * deviation).exp()
    }
}

#[derive(Clone, Copy)]
pub struct Run {
    pub system: &'static str,
    pub transport: &'static str,
    pub outstanding: u32,
    pub replicas: u8,
    pub throughput: f64,
    pub cpu_us: f64,
    pub seconds: u32,
    pub kill_at_s: Option<u32>,
}

impl Run {
    pub const TYPICAL: Run = Run {
        system: "synod",
        transport: "quic, mTLS 1.3",
        outstanding: 1_024,
        replicas: 3,
        throughput: 600_000.0,
        cpu_us: 1.6,
        seconds: 10,
        kill_at_s: None,
    };

    /// By Little's law; half of it is the median where the tail is long.
    fn p50_us(&self) -> f64 {
        f64::from(self.outstanding) / self.throughput * 1e6 * 0.85
    }

    /// Writes the folder of a run.
    pub fn write(&self, folder: &Path, noise: &mut Noise) {
        std::fs::create_dir_all(folder).expect("made");
        let rates = self.rates(noise);
        let histograms: Vec<Histogram<u64>> = (0..self.seconds)
            .map(|second| self.latencies(second, noise))
            .collect();
        std::fs::write(folder.join("timeline.csv"), timeline(&rates, &histograms))
            .expect("written");
        std::fs::write(folder.join("latency.hlog"), log(&histograms)).expect("written");
        let result = self.result(&rates, &histograms, noise);
        let text = serde_json::to_string_pretty(&result).expect("JSON");
        std::fs::write(folder.join("result.json"), text).expect("written");
    }

    /// Acknowledged per 100 ms, with neighbours alike.
    fn rates(&self, noise: &mut Noise) -> Vec<u64> {
        let mut drift = 0.0;
        (0..self.seconds * 10)
            .map(|interval| {
                drift = drift * 0.7 + noise.normal() * 0.05;
                let dead = self
                    .kill_at_s
                    .is_some_and(|at| (at * 10..at * 10 + 4).contains(&interval));
                let alive = if dead { 0.0 } else { 1.0 };
                (self.throughput / 10.0 * (1.0 + drift).max(0.1) * alive) as u64
            })
            .collect()
    }

    fn latencies(&self, second: u32, noise: &mut Noise) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("bounds");
        let commands = self.throughput as u64;
        let middle_ns = self.p50_us() * 1e3 * noise.factor(0.03);
        const STEPS: u64 = 4_000;
        for step in 0..STEPS {
            let quantile = (step as f64 + 0.5) / STEPS as f64;
            let body = middle_ns * (quantile / (1.0 - quantile)).powf(0.22);
            let tail = middle_ns * 0.02 * (1.0 / (1.0 - quantile)).powf(0.75);
            histogram.saturating_record_n((body + tail) as u64, (commands / STEPS).max(1));
        }
        if self.kill_at_s == Some(second) {
            histogram.saturating_record_n(351_000_000, u64::from(self.outstanding));
        }
        histogram
    }

    fn result(&self, rates: &[u64], histograms: &[Histogram<u64>], noise: &mut Noise) -> Value {
        let mut merged = histograms[0].clone();
        for histogram in &histograms[1..] {
            merged.add(histogram).expect("the same bounds");
        }
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let at = |quantile| micros(merged.value_at_quantile(quantile));
        let acknowledged: u64 = rates.iter().sum();
        let faults: Vec<Value> = self
            .kill_at_s
            .map(|at| json!({"kind": "kill-leader", "replicas": [1], "killed_at_ms": at * 1_000, "ready_at_ms": at * 1_000 + 2_200}))
            .into_iter()
            .collect();
        json!({
            "schema_version": 1, "system": self.system, "name": "made-up", "unix_time_s": 1_795_349_805u64,
            "commit": "746e9d61d178", "ok": true, "problems": [],
            "throughput_per_s": acknowledged as f64 / f64::from(self.seconds),
            "latency_us": {
                "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999),
                "max": micros(merged.max()), "mean": merged.mean() / 1e3, "count": merged.len()
            },
            "acknowledged": acknowledged, "acknowledged_total": acknowledged, "failed": 0, "lost": 0,
            "duplicated": 0, "disordered": 0, "diverged": 0,
            "longest_gap_ms": if self.kill_at_s.is_some() { 351.3 } else { 9.0 },
            "replica_cpu_us_per_command": self.cpu_us * noise.factor(0.03),
            "client_cpu_us_per_command": 0.3, "syncs": 30_000,
            "commands_per_sync": (f64::from(self.outstanding) / 2.0).max(1.0) * noise.factor(0.02),
            "elections": faults.len(), "load": load(self.outstanding), "loop_kind": "closed loop",
            "replicas": self.replicas, "payload_bytes": 128, "state_machine": "log", "durability": "sync",
            "backend": "io_uring (direct, registered buffers, a sync with each write)",
            "transport": self.transport, "mtu_max": 65_000, "seed": 1, "seconds": self.seconds, "warmup_s": 2,
            "faults": faults, "machine": machine(), "command_line": "synod run --made-up", "a_later_key": [1, 2, 3],
        })
    }
}

pub fn load(outstanding: u32) -> Value {
    json!({"kind": "closed", "outstanding": outstanding, "clients": outstanding.min(4)})
}

pub fn machine() -> Value {
    json!({
        "kernel": "6.18.44", "architecture": "x86_64", "cpu": "AMD EPYC", "cores": 2, "memory_bytes": 25_276_502_016u64,
        "governor": "unknown",
        "data": {"mount_point": "/", "filesystem": "ext4", "device": "/dev/vda", "mount_options": "rw,relatime", "scheduler": "mq-deadline"},
        "rustc": "rustc 1.95.0", "build_profile": "release", "commit": "746e9d61d178",
    })
}

fn timeline(rates: &[u64], histograms: &[Histogram<u64>]) -> String {
    let mut csv = String::from("start_ms,acknowledged,second_p50_us,second_p99_us,second_max_us\n");
    for (index, rate) in rates.iter().enumerate() {
        write!(csv, "{},{rate},", index * 100).expect("a string");
        let ends_second = (index + 1) % 10 == 0;
        match histograms.get(index / 10).filter(|_| ends_second) {
            Some(second) => {
                let micros = |nanos: u64| nanos as f64 / 1e3;
                let (p50, p99) = (
                    second.value_at_quantile(0.5),
                    second.value_at_quantile(0.99),
                );
                writeln!(
                    csv,
                    "{},{},{}",
                    micros(p50),
                    micros(p99),
                    micros(second.max())
                )
            }
            None => writeln!(csv, ",,"),
        }
        .expect("a string");
    }
    csv
}

fn log(histograms: &[Histogram<u64>]) -> Vec<u8> {
    let mut log = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .begin_log_with(&mut log, &mut serializer)
        .expect("a vector");
    for (second, histogram) in histograms.iter().enumerate() {
        let start = Duration::from_secs(second as u64);
        writer
            .write_histogram(histogram, start, Duration::from_secs(1), None)
            .expect("a vector");
    }
    log
}

/// A system's name, its transport, commands per second at 1, 64 and 1,024 outstanding, CPU per command.
type System = (&'static str, &'static str, [f64; 3], f64);

const SYSTEMS: [System; 8] = [
    ("synod", "quic", [2_050.0, 92_000.0, 656_000.0], 1.57),
    ("raft-rs", "quic", [1_600.0, 61_000.0, 410_000.0], 3.1),
    ("raft-rs", "tcp", [2_100.0, 99_000.0, 590_000.0], 1.9),
    ("openraft", "tcp", [1_900.0, 70_000.0, 430_000.0], 3.0),
    ("omnipaxos", "tcp", [2_200.0, 96_000.0, 660_000.0], 1.62),
    ("etcd", "own client", [1_000.0, 8_800.0, 15_700.0], 91.0),
    (
        "zookeeper",
        "own client",
        [1_300.0, 19_400.0, 27_900.0],
        60.0,
    ),
    ("nats", "own client", [1_000.0, 20_200.0, 68_400.0], 21.0),
];
pub const LOADS: [u32; 3] = [1, 64, 1_024];

/// Eight systems at three loads, three runs each.
pub fn comparison(folder: &Path) {
    let mut noise = Noise(42);
    let mut cells = Vec::new();
    for (system, transport, throughputs, cpu_us) in SYSTEMS {
        for (outstanding, throughput) in LOADS.into_iter().zip(throughputs) {
            let run = Run {
                system,
                transport,
                outstanding,
                throughput,
                cpu_us,
                seconds: 6,
                ..Run::TYPICAL
            };
            let cell = cell(folder, run, 3, &mut noise);
            cells.push(cell);
        }
    }
    write_comparison(folder, "comparison", cells);
}

/// Two systems with 1 to 9 replicas.
pub fn sweep(folder: &Path) {
    let mut noise = Noise(43);
    let mut cells = Vec::new();
    for (system, transport, throughputs, cpu_us) in [SYSTEMS[0], SYSTEMS[2]] {
        for replicas in [1u8, 3, 5, 7, 9] {
            let slower = 2.2 / (1.2 + f64::from(replicas) / 3.0);
            let run = Run {
                system,
                transport,
                replicas,
                throughput: throughputs[2] * slower,
                cpu_us: cpu_us / slower,
                seconds: 6,
                ..Run::TYPICAL
            };
            cells.push(cell(folder, run, 3, &mut noise));
        }
    }
    write_comparison(folder, "sweep", cells);
}

fn write_comparison(folder: &Path, kind: &str, mut cells: Vec<Value>) {
    for cell in &mut cells {
        let own = cell["summary"].clone();
        if cell["system"] != "synod" {
            cell["ratio"] = json!({
                "throughput": ratio(656e3, &own["throughput_per_s"]),
                "p99": ratio(4_200.0, &own["p99_us"]),
                "cpu": ratio(1.57, &own["replica_cpu_us_per_command"]),
            });
        }
    }
    let comparison = json!({
        "schema_version": 1, "kind": kind,
        "command_line": "synod compare --systems synod,raft-rs,openraft,omnipaxos,etcd,zookeeper,nats --outstanding 1,64,1024 --repeat 3",
        "commit": "746e9d61d178", "unix_time_s": 1_795_349_805u64, "machine": machine(), "baseline_system": "synod",
        "cells": cells,
        "skipped": [{"system": "rabbitmq", "why": "rabbitmq-server is not installed <apt-get install rabbitmq-server>"}],
    });
    let text = serde_json::to_string_pretty(&comparison).expect("JSON");
    std::fs::write(folder.join("comparison.json"), text).expect("written");
}

/// Not the right interval, but one of the right form.
fn ratio(baseline: f64, of: &Value) -> Value {
    let part = |name: &str| baseline / of[name].as_f64().expect("a number");
    json!({"median": part("median"), "low": part("max"), "high": part("min")})
}

fn cell(folder: &Path, run: Run, repeats: u32, noise: &mut Noise) -> Value {
    let mut names = Vec::new();
    let mut results = Vec::new();
    for repeat in 1..=repeats {
        let name = format!(
            "runs/{repeat:02}-{}-{}-r{}-o{}",
            run.system,
            run.transport.replace(' ', "-"),
            run.replicas,
            run.outstanding
        );
        let noisy = Run {
            throughput: run.throughput * noise.factor(0.05),
            ..run
        };
        noisy.write(&folder.join(&name), noise);
        let text = std::fs::read(folder.join(&name).join("result.json")).expect("written above");
        results.push(serde_json::from_slice::<Value>(&text).expect("JSON"));
        names.push(name);
    }
    let spread = |of: &dyn Fn(&Value) -> f64| {
        let mut figures: Vec<f64> = results.iter().map(of).collect();
        figures.sort_by(f64::total_cmp);
        let (low, high) = (figures[0], figures[figures.len() - 1]);
        json!({"median": figures[figures.len() / 2], "low": low, "high": high, "min": low, "max": high, "n": figures.len()})
    };
    let number =
        |name: &'static str| move |result: &Value| result[name].as_f64().expect("a number");
    let latency = |name: &'static str| {
        move |result: &Value| result["latency_us"][name].as_f64().expect("a number")
    };
    json!({
        "system": run.system, "version": "1.2.3", "transport": run.transport, "replicas": run.replicas,
        "payload_bytes": 128, "load": load(run.outstanding), "seconds": run.seconds, "warmup_s": 2,
        "durability": "sync", "state_machine": "log",
        "equality": [
            {"what": "durability", "value": "a quorum synced before the reply", "equal": true},
            {"what": "transport", "value": run.transport, "equal": run.transport == "quic"},
            {"what": "client path", "value": "Synod's load client", "equal": run.transport != "own client"},
            {"what": "state machine", "value": "hash chain", "equal": true},
        ],
        "settings": "batch_append, async persistence, inflight 256", "runs": names,
        "summary": {
            "throughput_per_s": spread(&number("throughput_per_s")), "p50_us": spread(&latency("p50")),
            "p99_us": spread(&latency("p99")), "p999_us": spread(&latency("p999")),
            "replica_cpu_us_per_command": spread(&number("replica_cpu_us_per_command")),
            "commands_per_sync": spread(&number("commands_per_sync")), "gap_ms": null,
        },
        "ratio": null,
        "flags": if run.system == "openraft" && run.outstanding == 64 { json!(["not steady", "interval too wide"]) } else { json!([]) },
    })
}
