//! A panic of the product is a finding, not the end of the search, whether this build unwinds or aborts.
//!
//! Release builds abort on a panic, because a replica that lost its footing must not go on. Here the panic hook runs
//! before that, on the thread that panicked: it reports the failure and then keeps the thread for ever, so that the
//! abort never comes. Searches stop at the first failure and shrinking tries a bounded number of variants, so only
//! few threads are kept.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::mpsc::channel;

use crate::checker::{PANIC, Violation};

type OnPanic = Box<dyn FnOnce(Violation)>;

thread_local! {
    /// Set while this thread runs a simulation: who is told of a panic.
    static GUARD: RefCell<Option<OnPanic>> = const { RefCell::new(None) };
}

/// Runs `work`. If it panics, `on_panic` is told; then this returns `None`, or never, if panics abort here.
pub fn guarded<T>(
    on_panic: impl FnOnce(Violation) + 'static,
    work: impl FnOnce() -> T,
) -> Option<T> {
    install_hook();
    GUARD.with(|guard| *guard.borrow_mut() = Some(Box::new(on_panic)));
    let outcome = panic::catch_unwind(AssertUnwindSafe(work)).ok();
    GUARD.with(|guard| *guard.borrow_mut() = None);
    outcome
}

/// Runs `work` on a thread of its own; a panic comes back as a violation.
pub fn isolated<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Violation> + Send + 'static,
) -> Result<T, Violation> {
    let (outcomes, outcome) = channel();
    let panics = outcomes.clone();
    std::thread::spawn(move || {
        // The receiver waits for exactly one outcome, so neither send can fail before it came.
        let tell = move |violation| panics.send(Err(violation)).unwrap_or_default();
        if let Some(done) = guarded(tell, work) {
            outcomes.send(done).unwrap_or_default();
        }
    });
    let lost = || Violation::new(PANIC, "the simulation's thread vanished".into());
    outcome.recv().unwrap_or_else(|_| Err(lost()))
}

fn install_hook() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let on_panic = GUARD.with(|guard| guard.borrow_mut().take());
            let Some(on_panic) = on_panic else {
                return others(info);
            };
            on_panic(Violation::new(PANIC, info.to_string()));
            while cfg!(panic = "abort") {
                std::thread::park();
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_violation_with_its_message() {
        let outcome: Result<(), _> = isolated(|| panic!("the product fell over {}", 7));
        let violation = outcome.expect_err("it panicked");
        assert_eq!(violation.property, PANIC);
        assert!(violation.what.contains("fell over 7") && violation.what.contains(".rs"));
        assert_eq!(isolated(|| Ok(5)), Ok(5));
    }
}
