//! Counts and times acknowledgements over the measured window.
//!
//! Throughput and gaps count what was acknowledged inside the window. Latency is that of the commands that
//! *started* inside it, whenever their reply came: otherwise a stall at the end of a run would go unseen.

use std::cmp::Reverse;
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;

use crate::load::surge::Surge;
use crate::load::surge_watch::SurgeWatch;

/// Latencies beyond this are recorded as this.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;
/// Tools that read such logs take values for nanoseconds and `Interval_Max` for milliseconds.
const INTERVAL_MAX_DIVISOR: f64 = 1e6;
const NANOS_PER_S: u64 = 1_000_000_000;
/// The width of one row of the timeline.
pub const INTERVAL_MS: u64 = 100;
/// Shorter silences are not remembered one by one.
pub const SILENCE_NS_MIN: u64 = 5_000_000;
/// Of more than twice this many, the longest are kept.
const SILENCES_MAX: usize = 2_000;
const INTERVAL_NS: u64 = INTERVAL_MS * 1_000_000;
pub const INTERVALS_PER_SECOND: usize = 10;
pub const SECONDS_PER_MINUTE: usize = 60;

/// All times are nanoseconds on the load's own monotonic clock.
pub struct Recorder {
    window_start_ns: u64,
    window_end_ns: u64,
    acknowledged: u64,
    acknowledged_total: u64,
    last_acknowledged_ns: u64,
    longest_gap_ns: u64,
    /// Begin and end, from the start of the window.
    silences: Vec<(u64, u64)>,
    /// Acknowledged per interval of the window.
    intervals: Vec<u64>,
    seconds: Vec<Percentiles>,
    /// Of the finished intervals; the last of all have none if nothing came in them.
    of_intervals: Vec<Percentiles>,
    of_interval: Histogram<u64>,
    minutes: Vec<Percentiles>,
    /// The latencies of the minute that is not over.
    minute: Histogram<u64>,
    current: Histogram<u64>,
    merged: Histogram<u64>,
    /// Lines of the interval log, one per finished second.
    log: Vec<u8>,
    surge: Option<SurgeWatch>,
}

/// The latencies of the replies that came in one second, interval or minute of the window; 0 of none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
}

impl Recorder {
    pub fn new(window_start_ns: u64, window_end_ns: u64) -> anyhow::Result<Recorder> {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, SIGNIFICANT_DIGITS)?;
        let intervals = (window_end_ns - window_start_ns).div_ceil(INTERVAL_NS) as usize;
        Ok(Recorder {
            window_start_ns,
            window_end_ns,
            acknowledged: 0,
            acknowledged_total: 0,
            last_acknowledged_ns: window_start_ns,
            longest_gap_ns: 0,
            silences: Vec::new(),
            intervals: vec![0; intervals],
            seconds: Vec::new(),
            of_intervals: Vec::new(),
            of_interval: histogram.clone(),
            minutes: Vec::new(),
            minute: histogram.clone(),
            current: histogram.clone(),
            merged: histogram,
            log: Vec::new(),
            surge: None,
        })
    }

    /// Looks at the commands of `surge` apart.
    pub fn watch(&mut self, surge: Surge) {
        let (start_ns, end_ns) = (self.window_start_ns, self.window_end_ns);
        let mut histogram = self.merged.clone();
        histogram.reset();
        self.surge = Some(SurgeWatch::new(surge, start_ns, end_ns, histogram));
    }

    /// `count` commands were acknowledged at `now_ns`. Call once per run of replies, before [`Recorder::latency`].
    pub fn acknowledged(&mut self, now_ns: u64, count: u64) {
        self.acknowledged_total += count;
        if now_ns < self.window_start_ns {
            return;
        }
        if now_ns >= self.window_end_ns {
            return self.close_gap(self.window_end_ns);
        }
        self.roll(now_ns);
        self.roll_intervals(now_ns);
        self.close_gap(now_ns);
        self.acknowledged += count;
        self.intervals[((now_ns - self.window_start_ns) / INTERVAL_NS) as usize] += count;
    }

    /// `count` of the commands acknowledged at `now_ns` had started, or were meant to, at `started_ns`.
    pub fn latency(&mut self, started_ns: u64, now_ns: u64, count: u64) {
        if let Some(surge) = &mut self.surge {
            surge.acknowledged(started_ns, now_ns, count);
        }
        if started_ns < self.window_start_ns || started_ns >= self.window_end_ns {
            return;
        }
        let latency_ns = now_ns.saturating_sub(started_ns).max(1);
        self.current.saturating_record_n(latency_ns, count);
        self.of_interval.saturating_record_n(latency_ns, count);
    }

    /// Commands found no room for too long, and were never submitted.
    pub fn refused(&mut self, now_ns: u64) {
        if let Some(surge) = &mut self.surge {
            surge.refused(now_ns);
        }
    }

    /// The window is over and every reply that will come has come.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        self.close_gap(self.window_end_ns);
        self.roll_intervals(self.window_start_ns + self.intervals.len() as u64 * INTERVAL_NS);
        let seconds = (self.window_end_ns - self.window_start_ns).div_ceil(NANOS_PER_S) as usize;
        while self.seconds.len() < seconds {
            self.close_second()?;
        }
        self.finish_minutes();
        Ok(())
    }

    /// The last second is over: a minute that it leaves unfinished is a short one.
    pub fn finish_minutes(&mut self) {
        if !self.seconds.len().is_multiple_of(SECONDS_PER_MINUTE) {
            self.close_minute();
        }
    }

    /// The window ends now, before its time.
    pub fn end_at(&mut self, now_ns: u64) {
        self.window_end_ns = now_ns.clamp(self.window_start_ns, self.window_end_ns);
        let intervals = (self.window_end_ns - self.window_start_ns).div_ceil(INTERVAL_NS) as usize;
        self.intervals.truncate(intervals);
    }

    /// One second of the window, from what other recorders had in it.
    pub fn add_second<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a Histogram<u64>>,
    ) -> anyhow::Result<()> {
        for part in parts {
            self.current.add(part)?;
        }
        self.close_second()
    }

    /// What another recorder counted in each interval of the same window.
    pub fn add_intervals(&mut self, part: &[u64]) {
        for (interval, count) in self.intervals.iter_mut().zip(part) {
            *interval += count;
        }
        self.acknowledged += part.iter().sum::<u64>();
    }

    /// The longer times without an acknowledgement, in order.
    pub fn silences(&self) -> Vec<(u64, u64)> {
        let mut silences = self.silences.clone();
        silences.sort_unstable();
        silences
    }

    pub fn count(&self) -> u64 {
        self.acknowledged
    }

    pub fn count_total(&self) -> u64 {
        self.acknowledged_total
    }

    pub fn longest_gap_ns(&self) -> u64 {
        self.longest_gap_ns
    }

    pub fn intervals(&self) -> &[u64] {
        &self.intervals
    }

    /// Of intervals that several recorders share, nothing is known.
    pub fn percentiles_of_intervals(&self) -> &[Percentiles] {
        &self.of_intervals
    }

    pub fn seconds(&self) -> &[Percentiles] {
        &self.seconds
    }

    /// Complete after [`Recorder::finish`]; the last one may be shorter.
    pub fn minutes(&self) -> &[Percentiles] {
        &self.minutes
    }

    /// Every latency of the window; complete after [`Recorder::finish`].
    pub fn merged(&self) -> &Histogram<u64> {
        &self.merged
    }

    pub fn surge(&self) -> Option<&SurgeWatch> {
        self.surge.as_ref()
    }

    /// The interval log in HdrHistogram's own format, one histogram per second of the window.
    pub fn interval_log(&self, unix_seconds: u64) -> Vec<u8> {
        let mut log = format!(
            "#[Synod: latencies in nanoseconds, Interval_Max in milliseconds, one interval per second of the measured window]\n\
             #[StartTime: {unix_seconds}.000 (seconds since epoch)]\n\
             #[Histogram log format version 1.3]\n\
             \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n"
        )
        .into_bytes();
        log.extend_from_slice(&self.log);
        log
    }

    fn close_gap(&mut self, now_ns: u64) {
        let gap_ns = now_ns.saturating_sub(self.last_acknowledged_ns);
        self.longest_gap_ns = self.longest_gap_ns.max(gap_ns);
        if gap_ns >= SILENCE_NS_MIN {
            let begin_ns = self.last_acknowledged_ns - self.window_start_ns;
            self.silences.push((begin_ns, begin_ns + gap_ns));
            if self.silences.len() > 2 * SILENCES_MAX {
                self.silences
                    .sort_unstable_by_key(|(begin, end)| Reverse(end - begin));
                self.silences.truncate(SILENCES_MAX);
            }
        }
        self.last_acknowledged_ns = self.last_acknowledged_ns.max(now_ns);
    }

    /// Closes the seconds that ended before `now_ns`, which is inside the window.
    fn roll(&mut self, now_ns: u64) {
        let second = ((now_ns - self.window_start_ns) / NANOS_PER_S) as usize;
        while self.seconds.len() < second {
            if self.close_second().is_err() {
                // Encoding into memory fails only for values that the bounds exclude.
                unreachable!("a histogram within its bounds is encodable");
            }
        }
    }

    /// Closes the intervals before that of `now_ns`. An empty histogram need not be reset, so a silence costs little.
    fn roll_intervals(&mut self, now_ns: u64) {
        let interval = ((now_ns - self.window_start_ns) / INTERVAL_NS) as usize;
        while self.of_intervals.len() < interval.min(self.intervals.len()) {
            self.of_intervals.push(Percentiles::of(&self.of_interval));
            if !self.of_interval.is_empty() {
                self.of_interval.reset();
            }
        }
    }

    fn close_second(&mut self) -> anyhow::Result<()> {
        let current = &self.current;
        let start = Duration::from_secs(self.seconds.len() as u64);
        self.seconds.push(Percentiles::of(current));
        let mut serializer = V2DeflateSerializer::new();
        let mut lines = Vec::new();
        IntervalLogWriterBuilder::new()
            .with_max_value_divisor(INTERVAL_MAX_DIVISOR)
            .begin_log_with(&mut lines, &mut serializer)?
            .write_histogram(current, start, Duration::from_secs(1), None)
            .map_err(|error| anyhow::anyhow!("a histogram cannot be encoded: {error:?}"))?;
        // Each writer begins with a header; the log has one of its own.
        let data = lines
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| line.first().is_some_and(u8::is_ascii_digit));
        for line in data {
            self.log.extend_from_slice(line);
        }
        self.merged.add(&self.current)?;
        self.minute.add(&self.current)?;
        self.current.reset();
        if self.seconds.len().is_multiple_of(SECONDS_PER_MINUTE) {
            self.close_minute();
        }
        Ok(())
    }

    fn close_minute(&mut self) {
        self.minutes.push(Percentiles::of(&self.minute));
        self.minute.reset();
    }
}

impl Percentiles {
    pub fn of(histogram: &Histogram<u64>) -> Percentiles {
        if histogram.is_empty() {
            return Percentiles::default();
        }
        Percentiles {
            p50_ns: histogram.value_at_quantile(0.5),
            p99_ns: histogram.value_at_quantile(0.99),
            max_ns: histogram.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::in_flight::{InFlight, Start};
    use crate::load::schedule::Schedule;

    const MS: u64 = 1_000_000;
    const S: u64 = 1_000 * MS;

    #[test]
    fn only_the_window_counts() {
        let mut recorder = Recorder::new(S, 3 * S).unwrap();
        for (started, now) in [
            (0, S / 2),
            (S / 2, S + 1),
            (S + 1, S + 2),
            (3 * S - 1, 3 * S + 5),
        ] {
            recorder.acknowledged(now, 1);
            recorder.latency(started, now, 1);
        }
        recorder.finish().unwrap();
        assert_eq!(recorder.count_total(), 4);
        assert_eq!(recorder.count(), 2, "acknowledged inside the window");
        assert_eq!(recorder.merged().len(), 2, "started inside the window");
        assert_eq!(recorder.seconds().len(), 2);
        assert_eq!(recorder.intervals()[0], 2);
        assert_eq!(recorder.longest_gap_ns(), 2 * S - 2);
    }

    #[test]
    fn each_interval_has_the_latencies_of_its_own_replies() {
        let mut recorder = Recorder::new(S, 2 * S).unwrap();
        for (now, latency) in [(S + 50 * MS, MS), (S + 310 * MS, 200 * MS)] {
            recorder.acknowledged(now, 1);
            recorder.latency(now - latency, now, 1);
        }
        recorder.finish().unwrap();
        let most: Vec<u64> = recorder
            .percentiles_of_intervals()
            .iter()
            .map(|interval| interval.max_ns / MS)
            .collect();
        assert_eq!(most, [1, 0, 0, 200, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn minutes_are_told_apart_and_the_last_may_be_short() {
        let mut recorder = Recorder::new(S, 91 * S).unwrap();
        for second in 1..91 {
            let latency = if second < 61 { MS } else { 9 * MS };
            recorder.acknowledged(second * S + latency, 1);
            recorder.latency(second * S, second * S + latency, 1);
        }
        recorder.finish().unwrap();
        let worst: Vec<u64> = recorder.minutes().iter().map(|m| m.max_ns / MS).collect();
        assert_eq!(worst, [1, 9]);
    }

    #[test]
    fn a_silent_window_is_one_long_gap() {
        let mut recorder = Recorder::new(S, 3 * S).unwrap();
        recorder.acknowledged(S / 2, 1);
        recorder.finish().unwrap();
        assert_eq!(recorder.longest_gap_ns(), 2 * S);
    }

    #[test]
    fn the_interval_log_is_readable_by_its_own_reader() {
        use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
        let mut recorder = Recorder::new(0, 3 * S).unwrap();
        for second in 0..3 {
            recorder.acknowledged(second * S + 5, 10);
            recorder.latency(second * S, second * S + 5, 10);
        }
        recorder.finish().unwrap();
        let log = recorder.interval_log(1_000);
        let intervals = IntervalLogIterator::new(&log)
            .filter(|entry| matches!(entry, Ok(LogEntry::Interval(_))))
            .count();
        assert_eq!(intervals, 3);
        assert!(IntervalLogIterator::new(&log).all(|entry| entry.is_ok()));
    }

    /// The defence against coordinated omission: a server that answers within 1 ms but stalls for a second must
    /// show that second in the percentiles of an open loop, for every command that was meant to start in it.
    #[test]
    fn a_stall_shows_in_the_percentiles_of_an_open_loop() {
        let schedule = Schedule::new(0, 1_000, 1, 0);
        let mut recorder = Recorder::new(0, 10 * S).unwrap();
        let mut in_flight = InFlight::default();
        let mut sent = 0;
        for tick in 0..12_000 {
            let now = tick * MS;
            let stalled = (4 * S..5 * S).contains(&now);
            // The generator itself is held up as well, as a blocked client is.
            if stalled {
                continue;
            }
            let due = schedule.due(now.min(10 * S - 1));
            if due > sent {
                let count = (due - sent) as u32;
                in_flight.sent(
                    sent + 1,
                    count,
                    Start::Scheduled {
                        schedule,
                        nth: sent,
                    },
                );
                sent = due;
                in_flight
                    .acknowledged(in_flight.first(), count, now + MS, &mut recorder)
                    .unwrap();
            }
        }
        recorder.finish().unwrap();
        let latencies = recorder.merged();
        assert_eq!(latencies.len(), 10_000);
        assert!(latencies.max() >= 990 * MS, "{}", latencies.max());
        assert!(latencies.value_at_quantile(0.99) >= 850 * MS);
        assert!(latencies.value_at_quantile(0.5) <= 2 * MS);
    }
}
