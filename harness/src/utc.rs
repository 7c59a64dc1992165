//! The date in names and reports, without a calendar library.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now as `20261122-101500` (UTC): sorts by time, and is a file name everywhere.
pub fn compact_now() -> String {
    compact(unix_seconds_now())
}

pub fn unix_seconds_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn compact(unix_seconds: u64) -> String {
    let (year, month, day) = civil((unix_seconds / 86_400) as i64);
    let second = unix_seconds % 86_400;
    format!(
        "{year:04}{month:02}{day:02}-{:02}{:02}{:02}",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

/// As `2026-11-22 10:15 UTC`.
pub fn readable(unix_seconds: u64) -> String {
    let (year, month, day) = civil((unix_seconds / 86_400) as i64);
    let minute = unix_seconds % 86_400 / 60;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02} UTC",
        minute / 60,
        minute % 60
    )
}

/// Days since 1970 to (year, month, day), counting years from March so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        assert_eq!(compact(0), "19700101-000000");
        assert_eq!(compact(951_782_399), "20000228-235959");
        assert_eq!(compact(951_782_400), "20000229-000000");
        assert_eq!(compact(1_795_342_500), "20261122-101500");
        assert_eq!(readable(1_795_342_500), "2026-11-22 10:15 UTC");
    }
}
