//! From a failure to the least that shows it: which faults are needed, and the last events before it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::checker::Violation;
use crate::faults::FaultSet;
use crate::isolation::isolated;
use crate::run::simulate;
use crate::seams::Seams;
use crate::swarm::{Bounds, Plan};
use crate::trace::Trace;

/// Lines of the trace that are kept.
pub const TRACE_LINES: usize = 60;

/// What is left of a failure after shrinking.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// Without any one of these, the seed does not fail.
    pub faults: FaultSet,
    pub violation: Violation,
    /// The last events before it.
    pub trace: Vec<String>,
}

/// Turns faults off one at a time while the seed still fails. A panic leaves its thread behind in release builds, so
/// the number of runs is what is bounded: one per fault and one for the trace.
pub fn shrink<S: Seams + Clone + Send>(seed: u64, bounds: &Bounds, seams: &S) -> Option<Shrunk> {
    let run = |faults: FaultSet, trace: Option<Arc<Mutex<VecDeque<String>>>>| {
        let bounds = Bounds {
            faults,
            ..bounds.clone()
        };
        let seams = seams.clone();
        isolated(move || {
            let trace = trace.map_or_else(Trace::default, |lines| Trace::to(keep_last(lines)));
            simulate(Plan::draw(seed, &bounds), seams, trace)
        })
    };
    let mut needed = Plan::draw(seed, bounds).faults;
    run(needed, None).err()?;
    for fault in needed.iter() {
        let fewer = needed.without(fault);
        if run(fewer, None).is_err() {
            needed = fewer;
        }
    }
    let lines = Arc::new(Mutex::new(VecDeque::new()));
    let violation = run(needed, Some(lines.clone())).err()?;
    let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    Some(Shrunk {
        faults: needed,
        violation,
        trace: lines.iter().cloned().collect(),
    })
}

fn keep_last(lines: Arc<Mutex<VecDeque<String>>>) -> crate::trace::Sink {
    Box::new(move |line| {
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TRACE_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_string());
    })
}
