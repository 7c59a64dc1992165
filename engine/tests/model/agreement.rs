//! Agreement and validity: over what replicas learned, and over what quorums accepted whether or not anyone knows.

use std::collections::BTreeMap;

use synod_engine::ids::{Ballot, Slot};
use synod_engine::message::Value;

use crate::model::property::{Property, Violation, check};
use crate::model::scope::{REPLICAS, Scope};
use crate::model::words;

/// What one replica has to say about what is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// Accepted durably, at whatever ballot.
    pub votes: Vec<(Slot, Ballot, Value)>,
    /// Learned as chosen, from slot 1 on.
    pub learned: Vec<Value>,
}

pub fn check_all(
    scope: &Scope,
    facts: [&Facts; REPLICAS as usize],
    requests: u8,
) -> Result<(), Violation> {
    let chosen = chosen(&facts)?;
    for (index, one) in facts.iter().enumerate() {
        for (offset, value) in one.learned.iter().enumerate() {
            let slot = Slot(offset as u64 + 1);
            for other in facts[..index].iter().filter_map(|f| f.learned.get(offset)) {
                check(other == value, Property::Agreement, || {
                    let (one, other) = (words::of_value(value), words::of_value(other));
                    format!("{one} and {other} were learned in {slot}")
                })?;
            }
            check(
                scope.agreement_only || chosen.get(&slot) == Some(&value),
                Property::Validity,
                || {
                    let value = words::of_value(value);
                    format!("{value} was learned in {slot} and accepted by no quorum")
                },
            )?;
        }
    }
    if scope.agreement_only {
        return Ok(());
    }
    check_proposed(&chosen, requests)
}

/// What a majority accepted at one ballot is chosen, whoever knows of it.
fn chosen<'a>(
    facts: &[&'a Facts; REPLICAS as usize],
) -> Result<BTreeMap<Slot, &'a Value>, Violation> {
    let mut chosen: BTreeMap<Slot, &Value> = BTreeMap::new();
    for (index, one) in facts.iter().enumerate() {
        for (slot, ballot, value) in &one.votes {
            let votes = facts[index + 1..].iter().flat_map(|other| &other.votes);
            for (_, _, other) in votes.filter(|(s, b, _)| (s, b) == (slot, ballot)) {
                check(other == value, Property::BallotReuse, || {
                    let (one, other) = (words::of_value(value), words::of_value(other));
                    format!("{one} and {other} were accepted in {slot} at {ballot}")
                })?;
                let known = *chosen.entry(*slot).or_insert(value);
                check(known == value, Property::Agreement, || {
                    let (one, other) = (words::of_value(known), words::of_value(value));
                    format!("quorums accepted both {one} and {other} in {slot}")
                })?;
            }
        }
    }
    Ok(chosen)
}

/// Every chosen value consists of values that clients sent, each in one slot only.
fn check_proposed(chosen: &BTreeMap<Slot, &Value>, requests: u8) -> Result<(), Violation> {
    let mut seen = Vec::new();
    for (slot, value) in chosen {
        for client_value in words::client_values(value) {
            check(
                client_value < requests && !seen.contains(&client_value),
                Property::Validity,
                || {
                    let value = words::of_value(value);
                    format!("{value} was chosen in {slot}, never sent or chosen elsewhere too")
                },
            )?;
            seen.push(client_value);
        }
    }
    Ok(())
}
