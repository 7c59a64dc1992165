//! No turn does more work than is stated here: everything else waits for its end, heartbeats too.

use synod_engine::ids::ReplicaId;
use synod_engine::work::Work;

use super::{BOUNDED_TURNS, Violation};

/// What one turn may do besides looking at what arrived, in units of [`Work::units`]: some times what the limits of the
/// simulated clusters allow (a window of values of 256 KiB in small requests, with their replies). What arrived is
/// bounded by the inbox.
pub const TURN_WORK_MAX: u64 = 10_000;

pub fn check_work(at: ReplicaId, work: &Work) -> Result<(), Violation> {
    let units = work.units() - work.messages;
    if units > TURN_WORK_MAX {
        let what = format!(
            "{at} did {units} units of work in one turn, the limit is {TURN_WORK_MAX}: {work:?}"
        );
        return Err(Violation::new(BOUNDED_TURNS, what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_over_the_limit_is_a_violation_and_a_full_inbox_is_not() {
        let work = |messages, commands| Work {
            messages,
            commands,
            ..Work::default()
        };
        let checked = |messages, commands| check_work(ReplicaId(2), &work(messages, commands));
        assert_eq!(checked(10_000, TURN_WORK_MAX), Ok(()));
        let violation = checked(0, TURN_WORK_MAX + 1).expect_err("over the limit");
        assert_eq!(violation.property, BOUNDED_TURNS);
    }
}
