//! Messages that arrive other than they were sent: bugs put around the product, to see that the search finds them.

use synod_engine::ids::Ballot;
use synod_engine::message::{Accept, Accepted, AcceptedValue, Message, Promise};

use crate::model::node::{Event, Node, Sent, peers};
use crate::model::property::Violation;
use crate::model::scope::{Bug, Scope};
use crate::model::universe::Envelope;

pub fn deliver(
    scope: &Scope,
    bug: Bug,
    node: &Node,
    envelope: &Envelope,
) -> Result<Option<(Node, Sent)>, Violation> {
    let message = tampered(bug, node, &envelope.message);
    let mut after = node.after(scope, Event::Deliver(envelope.from, &message))?;
    if bug == Bug::AcknowledgedTwice && matches!(message, Message::Accepted(_)) {
        for other in peers(node.id()).filter(|peer| *peer != envelope.from) {
            let Some((node, mut sent)) = after.take() else {
                break;
            };
            after = node.after(scope, Event::Deliver(other, &message))?;
            if let Some((_, more)) = &mut after {
                sent.append(more);
                *more = sent;
            }
        }
    }
    Ok(after)
}

fn tampered(bug: Bug, node: &Node, message: &Message) -> Message {
    match (bug, message.clone()) {
        (Bug::StaleAcknowledgement, Message::Accepted(accepted)) => Message::Accepted(Accepted {
            ballot: node.replica.promised(),
            ..accepted
        }),
        (Bug::PromiseWithoutValues, Message::Promise(promise)) => Message::Promise(Promise {
            accepted: Vec::new(),
            ..promise
        }),
        (Bug::LowestBallotWins, Message::Promise(promise)) => Message::Promise(Promise {
            accepted: promise.accepted.iter().map(turned_over).collect(),
            ..promise
        }),
        (Bug::AcceptTakenForChosen, Message::Accept(accept)) => Message::Accept(Accept {
            commit_index: accept.slot,
            ..accept
        }),
        (_, message) => message,
    }
}

/// The same value with the order of the ballots turned over.
fn turned_over(accepted: &AcceptedValue) -> AcceptedValue {
    AcceptedValue {
        ballot: Ballot {
            round: 100 - accepted.ballot.round,
            ..accepted.ballot
        },
        ..accepted.clone()
    }
}
