//! What a difference comes to, in words.

use serde::Serialize;

use crate::diff::judge::Judged;
use crate::results::Better;
use crate::statistics::{Difference, Family, Ratio};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Better,
    Worse,
    /// It moved, and neither way is better in itself.
    Different,
    NoChange,
    CannotTell,
}

/// `family` is that of all figures that are judged together.
pub fn of(judged: &Judged, family: Family, threshold: f64) -> (Verdict, String) {
    let difference = match &judged.difference {
        Ok(difference) => difference,
        Err(lack) => return (Verdict::CannotTell, format!("can't tell: {}", lack.words())),
    };
    let ratio = family.of_difference(difference);
    let change = ratio.ratio - 1.0;
    if !ratio.is_decided() {
        return (
            Verdict::NoChange,
            undecided(&ratio, difference, family, threshold),
        );
    }
    let (low, high) = (ratio.low - 1.0, ratio.high - 1.0);
    if change.abs() < threshold {
        let range = format!("{}…{}", signed(low).trim_end_matches(" %"), signed(high));
        return (
            Verdict::NoChange,
            format!("no change that matters ({range}, certain)"),
        );
    }
    let (up, down) = judged.figure.words();
    let (word, near, far) = if change > 0.0 {
        (up, low, high)
    } else {
        (down, -high, -low)
    };
    let text = format!(
        "{word} by {} ({}…{}), certain",
        percent(change.abs()),
        bare(near),
        percent(far)
    );
    let verdict = match (judged.figure.better(), change > 0.0) {
        (Better::More, true) | (Better::Less, false) => Verdict::Better,
        (Better::More, false) | (Better::Less, true) => Verdict::Worse,
        (Better::Neither, _) => Verdict::Different,
    };
    (verdict, text)
}

/// Whoever reads that no change was seen has to know how large a one may have been missed.
fn undecided(ratio: &Ratio, difference: &Difference, family: Family, threshold: f64) -> String {
    let (low, high) = (ratio.low - 1.0, ratio.high - 1.0);
    let range = format!("{}…{}", signed(low).trim_end_matches(" %"), signed(high));
    if low > -threshold && high < threshold {
        return format!("no change ({range})");
    }
    // The interval's half width is what would have been told from nothing.
    let detectable = ratio.high / ratio.ratio - 1.0;
    let effect = if threshold > 0.0 { threshold } else { 0.05 };
    let more = match family.runs_to_find(effect, difference) {
        Some(runs) => format!("{} runs on each side would find {}", runs, percent(effect)),
        None => format!("runs scatter too much to find {}", percent(effect)),
    };
    format!(
        "no change seen ({range}); a change below {} would go unnoticed; {more}",
        percent(detectable)
    )
}

fn bare(share: f64) -> String {
    percent(share).trim_end_matches(" %").to_owned()
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent.abs() < 9.95 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

fn signed(share: f64) -> String {
    let sign = if share < 0.0 { "−" } else { "+" };
    format!("{sign}{}", percent(share.abs()))
}
