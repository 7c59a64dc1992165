//! The plainest possible judge: tries every order. For a handful of operations of one key only.

use synod_simulator::linearizability::{Action, Operation, Reply, Value};

/// What a store with one key does and says.
pub fn execute(present: &mut Option<Value>, action: &Action) -> Reply {
    match action {
        Action::Get => match present {
            Some(value) => Reply::Value(value.clone()),
            None => Reply::NotFound,
        },
        Action::Put { value } => {
            *present = Some(value.clone());
            Reply::Done
        }
        Action::Delete => match present.take() {
            Some(_) => Reply::Done,
            None => Reply::NotFound,
        },
        Action::Cas { expected, value } => {
            if present == expected {
                *present = Some(value.clone());
                Reply::Done
            } else {
                Reply::Mismatch(present.clone())
            }
        }
    }
}

/// Whether some order explains every reply.
pub fn explained(history: &[Operation]) -> bool {
    let all: Vec<&Operation> = history.iter().collect();
    search(&all, &None)
}

fn search(left: &[&Operation], present: &Option<Value>) -> bool {
    if left.iter().all(|one| one.returned.is_none()) {
        return true;
    }
    (0..left.len()).any(|at| {
        let next = left[at];
        let too_early = left.iter().any(|other| {
            let returned = other.returned.as_ref();
            returned.is_some_and(|returned| returned.at_ns < next.invoked_ns)
        });
        let mut after = present.clone();
        let reply = execute(&mut after, &next.action);
        let fits = next
            .returned
            .as_ref()
            .is_none_or(|told| told.reply == reply);
        let mut rest = left.to_vec();
        rest.remove(at);
        !too_early && fits && search(&rest, &after)
    })
}
