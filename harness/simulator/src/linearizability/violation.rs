//! What is told about a history that is not linearizable.

use std::fmt;

use super::{Action, Key, Operation, Reply, Value};

/// Lines of operations that a report shows at most.
const SHOWN_MAX: usize = 40;
/// Operations that a report shows from before, for orientation.
const BEFORE_MAX: usize = 8;

/// The shortest prefix of one key's history that no order of its operations explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub key: Key,
    /// Operations that were invoked up to the return that cannot be explained, that one included.
    pub prefix: usize,
    /// The operation that returned.
    pub culprit: Operation,
    /// What the value may have been at that time, were it not for the culprit.
    pub possible: Vec<Option<Value>>,
    /// The value at the last moment at which only one explanation was left.
    pub from: Option<Value>,
    /// The operations since then, by invocation: not linearizable by themselves, starting with that value.
    pub segment: Vec<Operation>,
    /// A few operations from before that, by invocation.
    pub before: Vec<Operation>,
}

/// The last moment at which there was but one explanation.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    pub value: Option<Value>,
    /// Operations that were under way and had not had their moment.
    pub pending: Vec<usize>,
    /// How many operations had been invoked.
    pub invoked: usize,
}

impl Violation {
    pub(super) fn new(
        operations: &[&Operation],
        culprit: usize,
        invoked: &[usize],
        checkpoint: &Checkpoint,
        possible: Vec<Option<Value>>,
    ) -> Violation {
        let (earlier, later) = invoked.split_at(checkpoint.invoked);
        let named = |at: &usize| operations[*at].clone();
        let mut segment: Vec<Operation> =
            checkpoint.pending.iter().chain(later).map(named).collect();
        segment.sort_by_key(|operation| operation.invoked_ns);
        let earlier = earlier.iter().rev();
        let settled = earlier.filter(|at| !checkpoint.pending.contains(at));
        let mut before: Vec<Operation> = settled.take(BEFORE_MAX).map(named).collect();
        before.reverse();
        Violation {
            key: operations[culprit].key.clone(),
            prefix: invoked.len(),
            culprit: operations[culprit].clone(),
            possible,
            from: checkpoint.value.clone(),
            segment,
            before,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "key {} is not linearizable: no order of its first {} operations explains this reply:",
            quoted(&self.key),
            self.prefix
        )?;
        writeln!(f, "  {}", line(&self.culprit))?;
        let possible: Vec<String> = self.possible.iter().map(optional).collect();
        writeln!(f, "possible values at that time: {}", possible.join(", "))?;
        writeln!(f, "before:")?;
        for operation in &self.before {
            writeln!(f, "  {}", line(operation))?;
        }
        writeln!(
            f,
            "then the value was certainly {}; what was under way or came after that:",
            optional(&self.from)
        )?;
        let hidden = self.segment.len().saturating_sub(SHOWN_MAX);
        if hidden > 0 {
            writeln!(f, "  ({hidden} earlier ones)")?;
        }
        for operation in &self.segment[hidden..] {
            writeln!(f, "  {}", line(operation))?;
        }
        Ok(())
    }
}

/// One operation in one line, times in milliseconds.
fn line(operation: &Operation) -> String {
    let (end, reply) = match &operation.returned {
        Some(returned) => (millis(returned.at_ns), replied(&returned.reply)),
        None => ("?".into(), "unknown".into()),
    };
    format!(
        "{} to {} ms, client {}: {} -> {reply}",
        millis(operation.invoked_ns),
        end,
        operation.client,
        asked(&operation.action)
    )
}

fn asked(action: &Action) -> String {
    match action {
        Action::Get => "get".into(),
        Action::Put { value } => format!("put {}", quoted(value)),
        Action::Delete => "delete".into(),
        Action::Cas { expected, value } => {
            format!("cas {} to {}", optional(expected), quoted(value))
        }
    }
}

fn replied(reply: &Reply) -> String {
    match reply {
        Reply::Done => "done".into(),
        Reply::Value(value) => quoted(value),
        Reply::NotFound => "not found".into(),
        Reply::Mismatch(actual) => format!("mismatch, it is {}", optional(actual)),
    }
}

fn optional(value: &Option<Value>) -> String {
    value
        .as_ref()
        .map_or("absent".into(), |value| quoted(value))
}

pub fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}

fn millis(nanos: u64) -> String {
    format!("{}.{:06}", nanos / 1_000_000, nanos % 1_000_000)
}
