//! What a difference comes to, in words.

use serde::Serialize;

use crate::diff::judge::Judged;
use crate::results::Better;
use crate::statistics::CONFIDENCE;

/// From here on "no change" would promise too much without saying how little would have been seen.
const BLIND: f64 = 0.2;

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

/// `p` is corrected for all figures that are judged together.
pub fn of(
    judged: &Judged,
    p: Option<f64>,
    interval: Option<(f64, f64)>,
    threshold: f64,
) -> (Verdict, String) {
    let (Some(difference), Some(p), Some((low, high))) = (judged.difference, p, interval) else {
        return (
            Verdict::CannotTell,
            format!("can't tell: {}", judged.evidence.lack()),
        );
    };
    let change = difference.change();
    // What growth the interval reaches over its middle is the smallest that would have been told from none.
    let detectable = (1.0 + high) / (1.0 + change) - 1.0;
    let significant = p < 1.0 - CONFIDENCE && judged.ranks_agree;
    if significant && change.abs() >= threshold {
        let (up, down) = judged.figure.words();
        let (word, near, far) = if change > 0.0 {
            (up, low, high)
        } else {
            (down, -high, -low)
        };
        let text = format!(
            "{word} by {} ({}…{}), {}",
            percent(change.abs()),
            bare(near),
            percent(far),
            judged.evidence.certainty()
        );
        let verdict = match (judged.figure.better(), change > 0.0) {
            (Better::More, true) | (Better::Less, false) => Verdict::Better,
            (Better::More, false) | (Better::Less, true) => Verdict::Worse,
            (Better::Neither, _) => Verdict::Different,
        };
        return (verdict, text);
    }
    let range = format!("{}…{}", signed(low).trim_end_matches(" %"), signed(high));
    let text = if significant {
        format!("no change that matters ({range}, certain)")
    } else if detectable > BLIND {
        format!(
            "no change seen ({range}); one of less than {} would not show",
            percent(detectable)
        )
    } else {
        format!("no change ({range})")
    };
    (Verdict::NoChange, text)
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
