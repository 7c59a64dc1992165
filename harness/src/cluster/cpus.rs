//! A set of CPUs as `taskset` and the kernel write it: `0-3,8`.

use std::fmt;

use anyhow::Context;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Not empty; what is in it is below [`CpuSet::MAX_CPU`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus {
    text: String,
    numbers: Vec<usize>,
}

impl Cpus {
    pub fn parse(text: &str) -> Result<Cpus, String> {
        let mut numbers = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| match text.trim().parse::<usize>() {
                Ok(number) if number < CpuSet::MAX_CPU => Ok(number),
                Ok(_) | Err(_) => Err(format!(
                    "`{part}` is not a CPU or a range of CPUs such as 0-3"
                )),
            };
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("`{part}` runs backwards"));
            }
            numbers.extend(first..=last);
        }
        Ok(Cpus {
            text: text.to_owned(),
            numbers,
        })
    }

    pub fn numbers(&self) -> &[usize] {
        &self.numbers
    }

    /// Confines this process, and what it starts, to the set.
    pub fn confine(&self) -> anyhow::Result<()> {
        let mut set = CpuSet::new();
        for number in &self.numbers {
            set.set(*number);
        }
        sched_setaffinity(None, &set)
            .with_context(|| format!("cpus {self}: this machine does not have them"))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_are_read_strictly() {
        assert_eq!(Cpus::parse("0-2,5").unwrap().numbers(), [0, 1, 2, 5]);
        for bad in ["", "a", "1-", "-1", "3-1", "1,,2", "99999"] {
            assert!(Cpus::parse(bad).is_err(), "{bad}");
        }
    }
}
