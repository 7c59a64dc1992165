//! A time of an open loop in which much more is offered than before and after it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const MILLIS_PER_S: u64 = 1_000;

/// As on the command line: `5x@3s+3s` offers five times the rate from the third second of the measured window on, for
/// three seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Surge {
    pub factor: u32,
    /// In milliseconds from the start of the measured window.
    pub at_ms: u64,
    pub lasts_ms: u64,
}

impl Surge {
    pub fn end_ms(&self) -> u64 {
        self.at_ms + self.lasts_ms
    }
}

const FORM: &str =
    "a surge is FACTORx@START+LENGTH with whole factors from 2 and times such as 3s or 1500ms";

impl FromStr for Surge {
    type Err = String;

    fn from_str(text: &str) -> Result<Surge, String> {
        let parts = || {
            let (factor, times) = text.split_once("x@")?;
            let (at, lasts) = times.split_once('+')?;
            Some(Surge {
                factor: factor.parse().ok()?,
                at_ms: millis(at)?,
                lasts_ms: millis(lasts)?,
            })
        };
        match parts() {
            // Without a time before it nobody knows what normal is.
            Some(surge)
                if surge.factor >= 2 && surge.at_ms >= MILLIS_PER_S && surge.lasts_ms > 0 =>
            {
                Ok(surge)
            }
            Some(surge) if surge.at_ms < MILLIS_PER_S => Err(
                "a surge begins after a second or later, so that it can be compared with before"
                    .into(),
            ),
            Some(_) | None => Err(FORM.into()),
        }
    }
}

/// `3s` or `1500ms`, up to a day.
fn millis(text: &str) -> Option<u64> {
    let millis = match text.strip_suffix("ms") {
        Some(number) => number.parse().ok()?,
        None => text
            .strip_suffix('s')?
            .parse::<u64>()
            .ok()?
            .checked_mul(MILLIS_PER_S)?,
    };
    (millis <= 86_400 * MILLIS_PER_S).then_some(millis)
}

impl fmt::Display for Surge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x@{}ms+{}ms", self.factor, self.at_ms, self.lasts_ms)
    }
}

impl From<Surge> for String {
    fn from(surge: Surge) -> String {
        surge.to_string()
    }
}

impl TryFrom<String> for Surge {
    type Error = String;

    fn try_from(text: String) -> Result<Surge, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_surge_is_read_as_it_is_written() {
        let surge = Surge {
            factor: 5,
            at_ms: 3_000,
            lasts_ms: 1_500,
        };
        for text in ["5x@3s+1500ms", "5x@3000ms+1500ms", &surge.to_string()] {
            assert_eq!(text.parse(), Ok(surge), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_form() {
        for text in [
            "",
            "5x",
            "5x@3s",
            "1x@3s+3s",
            "5x@3+3",
            "5x@3s+0s",
            "x@3s+1s",
            "5x@3s+-1s",
        ] {
            let error = text.parse::<Surge>().expect_err(text);
            assert!(error.contains("FACTORx@START+LENGTH"), "{text}: {error}");
        }
        let early = "5x@999ms+3s".parse::<Surge>().expect_err("too early");
        assert!(early.contains("after a second"), "{early}");
    }
}
