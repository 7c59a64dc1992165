//! How far two cells are apart in each figure. Runs are the unit: a million commands of one run are still one run.

use crate::results::{Figure, LoadedCell};
use crate::statistics::{Difference, geometric_mean};

pub struct Judged {
    pub figure: Figure,
    /// The geometric mean of the runs.
    pub before: f64,
    pub after: f64,
    /// `Err` has the reason why nothing can be told.
    pub difference: Result<Difference, Lack>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// One run on a side: how much runs scatter is not known.
    SingleRun,
    /// Only the summary of a comparison is there.
    NoRuns,
}

impl Lack {
    pub fn words(self) -> &'static str {
        match self {
            Lack::SingleRun => {
                "a single run does not tell how much runs scatter; repeat it, five times on each side"
            }
            Lack::NoRuns => "the folders of the runs are not there",
        }
    }
}

/// Every figure that both sides tell.
pub fn cell(before: &LoadedCell, after: &LoadedCell) -> Vec<Judged> {
    let figures = Figure::ALL.into_iter();
    figures
        .filter_map(|figure| judge(figure, before, after))
        .collect()
}

fn judge(figure: Figure, before: &LoadedCell, after: &LoadedCell) -> Option<Judged> {
    let told = |loaded: &LoadedCell| -> Vec<f64> {
        let runs = loaded.runs.iter();
        runs.filter_map(|run| figure.of_run(&run.result)).collect()
    };
    let (a, b) = (told(before), told(after));
    let without_runs = |loaded: &LoadedCell| {
        let spread = figure.of_summary(&loaded.cell.summary);
        spread
            .map(|spread| spread.median)
            .filter(|median| *median > 0.0)
    };
    if a.is_empty() || b.is_empty() {
        return Some(Judged {
            figure,
            before: without_runs(before)?,
            after: without_runs(after)?,
            difference: Err(Lack::NoRuns),
        });
    }
    Some(Judged {
        figure,
        before: geometric_mean(&a)?,
        after: geometric_mean(&b)?,
        difference: Difference::between(&a, &b).ok_or(Lack::SingleRun),
    })
}
