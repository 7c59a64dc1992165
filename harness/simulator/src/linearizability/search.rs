//! The search for one key: breadth first over the history's events in the order of time.
//!
//! What happened up to an event is summed up by the *configurations* that explain it: a value, and which of the
//! pending operations have had their moment. An invocation adds an operation to the pending ones. A return demands
//! that its operation has had its moment, so each configuration is extended, just in time, by every sequence of
//! pending operations that ends with it (Lowe, section 5). Equal configurations are kept once, which is the
//! memoisation. When none is left, the history up to this return is not linearizable, while that before it was. An
//! operation that is under way counts with the reply that it is going to get.
//!
//! Two more rules keep the configurations few, and neither changes the verdict:
//! - An operation that observes without effect has its moment as soon as the value fits: it never gets in the way.
//! - An operation without a reply need not have its moment at all. So a configuration that used fewer of them makes
//!   another one superfluous that is equal otherwise.

use std::collections::HashMap;

use super::violation::Checkpoint;
use super::{
    Action, CONCURRENT_MAX, CONFIGURATIONS_MAX, CheckError, Limit, OPEN_MAX, Operation, Reply,
    Value, Violation,
};

/// A value of the key, interned. 0: the key is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct ValueId(u32);

impl ValueId {
    const ABSENT: ValueId = ValueId(0);
}

/// An operation as the model sees it once its reply is known.
#[derive(Clone, Copy, Debug)]
enum Effect {
    /// No effect; it fits one value.
    Observes(ValueId),
    Writes {
        needs: Needs,
        value: ValueId,
    },
    /// No store could reply so.
    Impossible,
}

#[derive(Clone, Copy, Debug)]
enum Needs {
    Anything,
    Exactly(ValueId),
    Presence,
}

/// One explanation of the history so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Configuration {
    value: ValueId,
    /// Which pending operations that return later have had their moment, by slot.
    closed: u64,
    /// The same for operations that never return.
    open: u128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// Before returns of the same time: operations that touch overlap, since a clock has a grain.
    Invoke,
    Return,
}

struct Search<'a> {
    operations: &'a [&'a Operation],
    effects: Vec<Effect>,
    values: Vec<&'a Value>,
    /// Pending operations that return, by slot.
    closed: Vec<Option<usize>>,
    /// Operations that never return, by slot.
    open: Vec<Option<usize>>,
    configurations: Configurations,
    configurations_max: usize,
    checkpoint: Checkpoint,
}

/// Returns the most configurations that had to be kept at once.
pub fn check_key(operations: &[&Operation]) -> Result<usize, CheckError> {
    let mut search = Search::new(operations);
    let mut invoked = Vec::new();
    for (_, event, at) in events(operations) {
        match event {
            Event::Invoke => {
                invoked.push(at);
                search.invoke(at).map_err(|why| CheckError::TooHard {
                    key: operations[at].key.clone(),
                    operations: invoked.len(),
                    why,
                })?;
            }
            Event::Return => {
                let explained = search.returns(at).map_err(|why| CheckError::TooHard {
                    key: operations[at].key.clone(),
                    operations: invoked.len(),
                    why,
                })?;
                if !explained {
                    let violation = search.violation(at, &invoked);
                    return Err(CheckError::NotLinearizable(Box::new(violation)));
                }
                search.note_checkpoint(invoked.len());
            }
        }
    }
    Ok(search.configurations_max)
}

/// By time; an operation without a reply has no return, and one without effect and reply nothing at all.
fn events(operations: &[&Operation]) -> Vec<(u64, Event, usize)> {
    let mut events = Vec::with_capacity(2 * operations.len());
    for (at, operation) in operations.iter().enumerate() {
        match &operation.returned {
            None if operation.action == Action::Get => {}
            None => events.push((operation.invoked_ns, Event::Invoke, at)),
            Some(returned) => {
                assert!(
                    returned.at_ns >= operation.invoked_ns,
                    "an operation returned before its invocation: {operation:?}"
                );
                events.push((operation.invoked_ns, Event::Invoke, at));
                events.push((returned.at_ns, Event::Return, at));
            }
        }
    }
    events.sort_unstable();
    events
}

impl<'a> Search<'a> {
    fn new(operations: &'a [&'a Operation]) -> Search<'a> {
        let mut interner = Interner::default();
        let effects = operations
            .iter()
            .map(|operation| interner.effect(operation))
            .collect();
        let mut configurations = Configurations::default();
        configurations.add(Configuration {
            value: ValueId::ABSENT,
            closed: 0,
            open: 0,
        });
        Search {
            operations,
            effects,
            values: interner.values,
            closed: Vec::new(),
            open: Vec::new(),
            configurations,
            configurations_max: 1,
            checkpoint: Checkpoint::default(),
        }
    }

    fn invoke(&mut self, at: usize) -> Result<(), Limit> {
        if self.operations[at].returned.is_none() {
            self.forget_used_up();
            return put_in_slot(&mut self.open, at, OPEN_MAX).ok_or(Limit::Open);
        }
        put_in_slot(&mut self.closed, at, CONCURRENT_MAX).ok_or(Limit::Concurrent)?;
        let settled = std::mem::take(&mut self.configurations);
        for configuration in settled.into_iter() {
            let observed = self.observe(configuration);
            self.configurations.add(observed);
        }
        Ok(())
    }

    /// Demands that the operation has had its moment. Returns whether any configuration explains that.
    fn returns(&mut self, at: usize) -> Result<bool, Limit> {
        let slot = self.closed.iter().position(|held| *held == Some(at));
        let slot = slot.expect("an operation returns after its invocation");
        let had_moment = 1u64 << slot;
        let mut before = std::mem::take(&mut self.configurations);
        let mut left: Vec<Configuration> = before.iter().collect();
        let mut after = Configurations::default();
        while let Some(configuration) = left.pop() {
            if configuration.closed & had_moment != 0 {
                after.add(Configuration {
                    closed: configuration.closed & !had_moment,
                    ..configuration
                });
                continue;
            }
            self.successors(configuration, |next| {
                if before.add(next) {
                    left.push(next);
                }
            });
            if before.len() > CONFIGURATIONS_MAX {
                return Err(Limit::Configurations);
            }
        }
        self.configurations_max = self.configurations_max.max(before.len());
        if after.len() == 0 {
            self.configurations = before;
            return Ok(false);
        }
        self.closed[slot] = None;
        self.configurations = after;
        Ok(true)
    }

    /// Gives each pending operation with an effect its moment, if the value allows it.
    fn successors(&self, from: Configuration, mut each: impl FnMut(Configuration)) {
        for (slot, at) in self.closed.iter().enumerate() {
            let bit = 1u64 << slot;
            if let Some(value) = at.and_then(|at| self.write(at, from.value))
                && from.closed & bit == 0
            {
                each(self.observe(Configuration {
                    value,
                    closed: from.closed | bit,
                    open: from.open,
                }));
            }
        }
        for (slot, at) in self.open.iter().enumerate() {
            let bit = 1u128 << slot;
            if let Some(value) = at.and_then(|at| self.write(at, from.value))
                && from.open & bit == 0
            {
                each(self.observe(Configuration {
                    value,
                    closed: from.closed,
                    open: from.open | bit,
                }));
            }
        }
    }

    /// The value after an operation with an effect, if it can happen at `value`.
    fn write(&self, at: usize, present: ValueId) -> Option<ValueId> {
        let Effect::Writes { needs, value } = self.effects[at] else {
            return None;
        };
        let fits = match needs {
            Needs::Anything => true,
            Needs::Exactly(expected) => present == expected,
            Needs::Presence => present != ValueId::ABSENT,
        };
        fits.then_some(value)
    }

    /// Gives every pending operation that fits the value and has no effect its moment.
    fn observe(&self, mut configuration: Configuration) -> Configuration {
        for (slot, at) in self.closed.iter().enumerate() {
            if let Some(Effect::Observes(value)) = at.map(|at| self.effects[at])
                && value == configuration.value
            {
                configuration.closed |= 1 << slot;
            }
        }
        configuration
    }

    /// Frees the slots of open operations that every configuration has used.
    fn forget_used_up(&mut self) {
        let used = self.configurations.iter().map(|each| each.open);
        let used = used.fold(u128::MAX, |all, each| all & each);
        for (slot, held) in self.open.iter_mut().enumerate() {
            if used & (1 << slot) != 0 && held.take().is_some() {
                self.configurations.forget_open(slot);
            }
        }
    }

    /// A moment at which only one explanation was left is where a report can begin.
    fn note_checkpoint(&mut self, invoked: usize) {
        let mut all = self.configurations.iter();
        let (Some(only), None) = (all.next(), all.next()) else {
            return;
        };
        let closed = self.closed.iter().enumerate();
        let closed = closed.filter(|(slot, _)| only.closed & (1 << slot) == 0);
        let open = self.open.iter().enumerate();
        let open = open.filter(|(slot, _)| only.open & (1 << slot) == 0);
        self.checkpoint = Checkpoint {
            value: self.shown(only.value),
            pending: closed.chain(open).filter_map(|(_, at)| *at).collect(),
            invoked,
        };
    }

    fn shown(&self, value: ValueId) -> Option<Value> {
        let at = (value.0 as usize).checked_sub(1)?;
        Some(self.values[at].clone())
    }

    fn violation(&self, culprit: usize, invoked: &[usize]) -> Violation {
        let mut possible: Vec<ValueId> = self.configurations.iter().map(|c| c.value).collect();
        possible.sort_unstable();
        possible.dedup();
        let possible = possible.into_iter().map(|value| self.shown(value));
        Violation::new(
            self.operations,
            culprit,
            invoked,
            &self.checkpoint,
            possible.collect(),
        )
    }
}

/// Puts an operation into the first free slot; `None` if `limit` slots are taken.
fn put_in_slot(slots: &mut Vec<Option<usize>>, at: usize, limit: usize) -> Option<()> {
    if let Some(free) = slots.iter_mut().find(|slot| slot.is_none()) {
        *free = Some(at);
        return Some(());
    }
    if slots.len() == limit {
        return None;
    }
    slots.push(Some(at));
    Some(())
}

/// A set of configurations without those that another one makes superfluous.
#[derive(Default)]
struct Configurations {
    /// By value and closed operations: the minimal sets of open operations used.
    minimal: HashMap<(ValueId, u64), Vec<u128>>,
    count: usize,
}

impl Configurations {
    /// Returns whether it was needed.
    fn add(&mut self, new: Configuration) -> bool {
        let held = self.minimal.entry((new.value, new.closed)).or_default();
        if held.iter().any(|open| open & !new.open == 0) {
            return false;
        }
        let before = held.len();
        held.retain(|open| new.open & !open != 0);
        self.count -= before - held.len();
        held.push(new.open);
        self.count += 1;
        true
    }

    fn len(&self) -> usize {
        self.count
    }

    fn iter(&self) -> impl Iterator<Item = Configuration> {
        self.minimal.iter().flat_map(|(&(value, closed), held)| {
            held.iter().map(move |&open| Configuration {
                value,
                closed,
                open,
            })
        })
    }

    fn into_iter(self) -> impl Iterator<Item = Configuration> {
        self.minimal
            .into_iter()
            .flat_map(|((value, closed), held)| {
                held.into_iter().map(move |open| Configuration {
                    value,
                    closed,
                    open,
                })
            })
    }

    fn forget_open(&mut self, slot: usize) {
        for open in self.minimal.values_mut().flatten() {
            *open &= !(1 << slot);
        }
    }
}

#[derive(Default)]
struct Interner<'a> {
    ids: HashMap<&'a [u8], ValueId>,
    values: Vec<&'a Value>,
}

impl<'a> Interner<'a> {
    fn id(&mut self, value: &'a Value) -> ValueId {
        let next = ValueId(self.values.len() as u32 + 1);
        let id = *self.ids.entry(value).or_insert(next);
        if id == next {
            self.values.push(value);
        }
        id
    }

    fn optional(&mut self, value: &'a Option<Value>) -> ValueId {
        value
            .as_ref()
            .map_or(ValueId::ABSENT, |value| self.id(value))
    }

    fn effect(&mut self, operation: &'a Operation) -> Effect {
        let reply = operation.returned.as_ref().map(|returned| &returned.reply);
        match (&operation.action, reply) {
            (Action::Get, Some(Reply::Value(value))) => Effect::Observes(self.id(value)),
            (Action::Get | Action::Delete, Some(Reply::NotFound)) => {
                Effect::Observes(ValueId::ABSENT)
            }
            (Action::Put { value }, Some(Reply::Done) | None) => Effect::Writes {
                needs: Needs::Anything,
                value: self.id(value),
            },
            (Action::Delete, Some(Reply::Done) | None) => Effect::Writes {
                needs: Needs::Presence,
                value: ValueId::ABSENT,
            },
            (Action::Cas { expected, value }, Some(Reply::Done) | None) => Effect::Writes {
                needs: Needs::Exactly(self.optional(expected)),
                value: self.id(value),
            },
            (Action::Cas { expected, .. }, Some(Reply::Mismatch(actual))) if actual != expected => {
                Effect::Observes(self.optional(actual))
            }
            (Action::Get | Action::Put { .. } | Action::Delete | Action::Cas { .. }, _) => {
                Effect::Impossible
            }
        }
    }
}
