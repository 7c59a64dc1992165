//! `timeline.csv`: what was acknowledged in each interval of the measured window, and percentiles per second and
//! per interval.

use std::path::Path;

use crate::failure::usage;

/// A day in intervals of 100 ms; what has more rows is not ours.
const ROWS_MAX: usize = 864_000;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    pub interval_ms: u64,
    pub acknowledged: Vec<u64>,
    pub seconds: Vec<Percentiles>,
    /// Of each interval that had a reply; none in older results, and in those of several client machines.
    pub intervals: Vec<Percentiles>,
}

/// Latencies of the replies that came in one second or interval, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentiles {
    /// The interval, or the last one of the second, begins here.
    pub start_ms: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

const HEADER: &str = "start_ms,acknowledged,second_p50_us,second_p99_us,second_max_us";
/// What newer results have after it.
const HEADER_OF_INTERVALS: &str = ",p50_us,p99_us,max_us";

impl Timeline {
    pub fn parse(path: &Path, bytes: &[u8]) -> anyhow::Result<Timeline> {
        let refuse = |row: usize, what: &str| {
            usage(format!(
                "{}:{row}: {what}: cut off or not a timeline of ours; take the file away to go on without it",
                path.display()
            ))
        };
        let text = std::str::from_utf8(bytes).map_err(|_| refuse(1, "not text"))?;
        if !text.ends_with('\n') {
            return Err(refuse(text.lines().count(), "no end of line"));
        }
        let mut lines = text.lines();
        let header = lines.next().and_then(|line| line.strip_prefix(HEADER));
        if header.is_none_or(|more| !more.is_empty() && more != HEADER_OF_INTERVALS) {
            return Err(refuse(1, "another header"));
        }
        let mut timeline = Timeline::default();
        for (index, line) in lines.enumerate() {
            let row = index + 2;
            if index >= ROWS_MAX {
                return Err(refuse(row, "too many rows"));
            }
            timeline
                .push(line)
                .ok_or_else(|| refuse(row, "not a row of its fields in equal steps"))?;
        }
        Ok(timeline)
    }

    fn push(&mut self, line: &str) -> Option<()> {
        let fields: Vec<&str> = line.split(',').collect();
        let (start_ms, acknowledged, second, interval) = match fields[..] {
            [start_ms, acknowledged, p50, p99, max] => {
                (start_ms, acknowledged, [p50, p99, max], [""; 3])
            }
            [start_ms, acknowledged, p50, p99, max, own50, own99, own] => {
                (start_ms, acknowledged, [p50, p99, max], [own50, own99, own])
            }
            _ => return None,
        };
        let start_ms: u64 = start_ms.parse().ok()?;
        let index = self.acknowledged.len() as u64;
        if index == 1 {
            self.interval_ms = start_ms;
        }
        if start_ms != index * self.interval_ms {
            return None;
        }
        self.acknowledged.push(acknowledged.parse().ok()?);
        if let Some(second) = Percentiles::read(start_ms, second)? {
            self.end_second(second);
        }
        self.intervals
            .extend(Percentiles::read(start_ms, interval)?);
        Some(())
    }

    /// Newer timelines have the percentiles of a second in each of its rows, older ones in its last.
    fn end_second(&mut self, second: Percentiles) {
        let before = self.seconds.last();
        if before.is_some_and(|before| before.start_ms / 1_000 == second.start_ms / 1_000) {
            self.seconds.pop();
        }
        self.seconds.push(second);
    }

    /// How many intervals make a second; 0 if the timeline is too short to tell.
    pub fn intervals_per_second(&self) -> usize {
        1_000u64.checked_div(self.interval_ms).unwrap_or(0) as usize
    }

    /// Commands per second in each interval.
    pub fn rates(&self) -> Vec<f64> {
        let scale = 1_000.0 / self.interval_ms.max(1) as f64;
        self.acknowledged
            .iter()
            .map(|count| *count as f64 * scale)
            .collect()
    }

    /// Commands in each whole second.
    pub fn per_second(&self) -> Vec<f64> {
        let each = self.intervals_per_second().max(1);
        self.acknowledged
            .chunks_exact(each)
            .map(|second| second.iter().sum::<u64>() as f64)
            .collect()
    }
}

impl Percentiles {
    /// `Some(None)` of empty fields.
    fn read(start_ms: u64, fields: [&str; 3]) -> Option<Option<Percentiles>> {
        if fields.iter().all(|field| field.is_empty()) {
            return Some(None);
        }
        let [p50, p99, max] = fields;
        Some(Some(Percentiles {
            start_ms,
            p50_us: p50.parse().ok()?,
            p99_us: p99.parse().ok()?,
            max_us: max.parse().ok()?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Timeline> {
        Timeline::parse(Path::new("timeline.csv"), text.as_bytes())
    }

    #[test]
    fn rows_and_seconds() {
        let text = format!("{HEADER}\n0,5,,,\n500,7,1,2.5,3\n1000,1,,,\n1500,2,4,5,6\n");
        let timeline = parse(&text).unwrap();
        assert_eq!(timeline.rates(), [10.0, 14.0, 2.0, 4.0]);
        assert_eq!(timeline.per_second(), [12.0, 3.0]);
        assert_eq!(timeline.seconds[0].p99_us, 2.5);
        assert!(timeline.intervals.is_empty());
        let repeated =
            format!("{HEADER}\n0,5,1,2.5,3\n500,7,1,2.5,3\n1000,1,4,5,6\n1500,2,4,5,6\n");
        assert_eq!(parse(&repeated).unwrap(), timeline);
        let newer = format!("{HEADER}{HEADER_OF_INTERVALS}\n0,5,,,,1,2,3\n100,0,,,,,,\n");
        let timeline = parse(&newer).unwrap();
        assert!(timeline.seconds.is_empty());
        assert_eq!(timeline.intervals.len(), 1);
        assert_eq!(timeline.intervals[0].max_us, 3.0);
    }

    #[test]
    fn damage_names_its_line() {
        for (text, line) in [
            ("", ":0:"),
            ("a,b\n", ":1:"),
            (&*format!("{HEADER}\n0,5,,,\n100,7\n"), ":3:"),
            (&*format!("{HEADER}\n0,5,,,\n100,7,,,\n300,7,,,\n"), ":4:"),
            (&*format!("{HEADER}\n0,5,,,\n100,7,,"), ":3:"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(line), "{error}");
        }
    }
}
