//! One run: its result and, where they are there, its timeline and its latencies.

use std::path::{Path, PathBuf};

use crate::results::file;
use crate::results::run_result::{FILE_NAME, RunResult, SCHEMA_VERSION};
use crate::results::{Latencies, Timeline};

#[derive(Clone, Debug)]
pub struct RunFolder {
    pub path: PathBuf,
    pub result: RunResult,
    pub timeline: Option<Timeline>,
    pub latencies: Option<Latencies>,
}

impl RunFolder {
    /// `None` if there is no result in it.
    pub fn read(path: &Path) -> anyhow::Result<Option<RunFolder>> {
        let result_path = path.join(FILE_NAME);
        let Some(bytes) = file::read(&result_path)? else {
            return Ok(None);
        };
        let result = file::parse(&result_path, &bytes, SCHEMA_VERSION..=SCHEMA_VERSION)?;
        let timeline_path = path.join("timeline.csv");
        let timeline = match file::read(&timeline_path)? {
            Some(bytes) => Some(Timeline::parse(&timeline_path, &bytes)?),
            None => None,
        };
        let log_path = path.join("latency.hlog");
        let latencies = match file::read(&log_path)? {
            Some(bytes) => Some(Latencies::parse(&log_path, &bytes)?),
            None => None,
        };
        Ok(Some(RunFolder {
            path: path.to_owned(),
            result,
            timeline,
            latencies,
        }))
    }

    /// The same run under another path: no two runs agree in all of these.
    pub fn is_copy_of(&self, other: &RunFolder) -> bool {
        let told = |run: &RunFolder| {
            let result = &run.result;
            let latency = result.latency_us;
            (
                (
                    result.unix_time_s,
                    result.acknowledged,
                    result.system.clone(),
                ),
                [
                    result.throughput_per_s,
                    latency.p50,
                    latency.p99,
                    latency.p999,
                    latency.max,
                    result.replica_cpu_us_per_command,
                ],
            )
        };
        told(self) == told(other)
    }

    /// The name that the run was given, or that of its folder.
    pub fn name(&self) -> String {
        let folder = self.path.file_name().map(|name| name.to_string_lossy());
        match folder {
            Some(folder) => folder.into_owned(),
            None => self.result.name.clone(),
        }
    }
}
