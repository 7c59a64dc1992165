//! Figures for people: three digits and the unit that reads best.

use crate::results::Figure;
pub use crate::run::progress::thousands;
use crate::statistics::{Ratio, Spread};

/// `655923` as `656 k`.
pub fn count(value: f64) -> String {
    match value {
        value if value >= 999.5e6 => format!("{} G", digits(value / 1e9)),
        value if value >= 999.5e3 => format!("{} M", digits(value / 1e6)),
        value if value >= 9_995.0 => format!("{} k", digits(value / 1e3)),
        value if value >= 999.5 => thousands(value.round() as u64),
        value => digits(value),
    }
}

/// Microseconds.
pub fn micros(value: f64) -> String {
    match value {
        value if value >= 999.5e3 => format!("{} s", digits(value / 1e6)),
        value if value >= 999.5 => format!("{} ms", digits(value / 1e3)),
        value => format!("{} µs", digits(value)),
    }
}

/// A round figure on an axis: without the zeros that say how exact a measured one is.
pub fn tick(text: &str) -> String {
    let (number, unit) = text.split_at(text.find([' ', '/']).unwrap_or(text.len()));
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    };
    format!("{number}{unit}")
}

/// Three significant digits.
fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.0995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A value of a figure in its own unit.
pub fn figure(figure: Figure, value: f64) -> String {
    match figure {
        Figure::Throughput => format!("{}/s", count(value)),
        Figure::P50 | Figure::P99 | Figure::P999 | Figure::ReplicaCpu => micros(value),
        Figure::CommandsPerSync => count(value),
        Figure::Gap => micros(value * 1e3),
    }
}

/// `620 k…713 k/s`; of one run there is no interval.
pub fn interval(of: Figure, spread: &Spread) -> String {
    if spread.n < 2 {
        return "one run".into();
    }
    let (low, high) = (figure(of, spread.low), figure(of, spread.high));
    // The unit is said once if both have the same one.
    match (low.rsplit_once(' '), high.rsplit_once(' ')) {
        (Some((value, unit)), Some((_, other))) if unit == other => format!("{value}…{high}"),
        _ => format!("{}…{high}", low.trim_end_matches("/s")),
    }
}

pub fn ratio(ratio: &Ratio) -> String {
    format!("{}×", digits(ratio.ratio))
}

pub fn ratio_interval(ratio: &Ratio) -> String {
    if ratio.confidence > 0.0 {
        format!("{}…{}", bound(ratio.low), bound(ratio.high))
    } else {
        "no interval".into()
    }
}

/// Three digits, or more where rounding would hide on which side of 1 the end of an interval lies.
fn bound(value: f64) -> String {
    let shown = digits(value);
    let hides = value != 1.0 && shown.parse::<f64>().is_ok_and(|shown| shown == 1.0);
    if hides { format!("{value:.4}") } else { shown }
}

/// What people read as text, as text of HTML or SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        for (value, text) in [
            (0.0, "0"),
            (9.996, "10.0"),
            (523.4, "523"),
            (1_234.0, "1,234"),
            (9_999.0, "10.0 k"),
            (655_923.0, "656 k"),
            (999_999.0, "1.00 M"),
        ] {
            assert_eq!(count(value), text);
        }
        assert_eq!(micros(443.6), "444 µs");
        assert_eq!(micros(999.7), "1.00 ms");
        assert_eq!(micros(1_395.2), "1.40 ms");
        assert_eq!(micros(1.568), "1.57 µs");
        assert_eq!(tick(&micros(1_000.0)), "1 ms");
        assert_eq!(tick(&count(1.5e6)), "1.5 M");
        assert_eq!(tick(&count(500e3)), "500 k");
        assert_eq!(figure(Figure::Gap, 351.27), "351 ms");
        let spread = Spread::of(&[620e3, 656e3, 713e3]).unwrap();
        assert_eq!(interval(Figure::Throughput, &spread), "620…713 k/s");
        assert_eq!(escape("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
    }
}
