//! The checker against histories known to be good or bad, and against an oracle that tries every order.

mod oracle;

use oracle::{execute, explained};
use proptest::prelude::*;
use synod_simulator::linearizability::{
    Action, CheckError, Checked, Key, Limit, Operation, Reply, Returned, Value, Violation, check,
};

fn value(text: &str) -> Value {
    text.as_bytes().to_vec()
}

fn operation(
    client: u64,
    action: Action,
    invoked_ns: u64,
    returned: Option<Returned>,
) -> Operation {
    Operation {
        client,
        key: b"k".to_vec(),
        action,
        invoked_ns,
        returned,
    }
}

/// An operation on the one key from `from` to `to`.
fn closed(client: u64, from: u64, to: u64, action: Action, reply: Reply) -> Operation {
    operation(client, action, from, Some(Returned { at_ns: to, reply }))
}

fn put(client: u64, from: u64, to: u64, text: &str) -> Operation {
    closed(
        client,
        from,
        to,
        Action::Put { value: value(text) },
        Reply::Done,
    )
}

fn get(client: u64, from: u64, to: u64, text: &str) -> Operation {
    let reply = match text {
        "" => Reply::NotFound,
        text => Reply::Value(value(text)),
    };
    closed(client, from, to, Action::Get, reply)
}

fn cas(client: u64, from: u64, to: u64, old: &str, new: &str, reply: Reply) -> Operation {
    closed(client, from, to, swap(old, new), reply)
}

fn swap(old: &str, new: &str) -> Action {
    Action::Cas {
        expected: (!old.is_empty()).then(|| value(old)),
        value: value(new),
    }
}

fn open(client: u64, from: u64, action: Action) -> Operation {
    operation(client, action, from, None)
}

fn delete(client: u64, from: u64, to: u64, reply: Reply) -> Operation {
    closed(client, from, to, Action::Delete, reply)
}

fn accepted(history: &[Operation]) -> Checked {
    check(history).unwrap_or_else(|error| panic!("{error}"))
}

fn rejected(history: &[Operation]) -> Violation {
    match check(history) {
        Err(CheckError::NotLinearizable(violation)) => *violation,
        other => panic!("{other:?}"),
    }
}

fn put_action(text: &str) -> Action {
    Action::Put { value: value(text) }
}

#[test]
fn overlapping_operations_may_take_effect_in_either_order() {
    accepted(&[put(1, 0, 10, "a"), get(2, 5, 6, ""), get(3, 7, 8, "a")]);
    accepted(&[put(1, 0, 10, "a"), get(2, 5, 6, "a"), get(3, 7, 8, "a")]);
    // What was seen once is there.
    rejected(&[put(1, 0, 10, "a"), get(2, 5, 6, "a"), get(3, 7, 8, "")]);
    // Times that touch overlap.
    accepted(&[put(1, 0, 10, "a"), get(2, 10, 11, "")]);
    rejected(&[put(1, 0, 10, "a"), get(2, 11, 12, "")]);
}

#[test]
fn a_stale_read_is_found_and_explained() {
    let history = [
        put(1, 0, 1, "a"),
        put(1, 2, 3, "b"),
        get(2, 4, 5, "a"),
        get(2, 6, 7, "b"),
    ];
    let violation = rejected(&history);
    assert_eq!(violation.key, b"k");
    assert_eq!(violation.prefix, 3, "what comes later does not matter");
    assert_eq!(violation.culprit, history[2]);
    assert_eq!(violation.possible, [Some(value("b"))]);
    assert_eq!(violation.from, Some(value("b")));
    assert_eq!(violation.segment, history[2..3]);
    let text = violation.to_string();
    for part in ["key \"k\"", "client 2: get -> \"a\"", "certainly \"b\""] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
}

#[test]
fn a_lost_update_is_found() {
    // Both compare-and-swaps saw "a" and succeeded.
    let history = [
        put(1, 0, 1, "a"),
        cas(1, 2, 6, "a", "b", Reply::Done),
        cas(2, 3, 7, "a", "c", Reply::Done),
    ];
    let violation = rejected(&history);
    assert_eq!(violation.before, history[..2]);
    assert_eq!(violation.segment, history[2..]);
    let lost = [put(1, 0, 1, "a"), put(2, 2, 3, "b"), get(1, 4, 5, "a")];
    rejected(&lost);
    // An acknowledged put that is gone.
    rejected(&[put(1, 0, 1, "a"), get(1, 2, 3, "")]);
}

#[test]
fn a_double_execution_is_found() {
    // The put of "a" is executed again after "b".
    let twice = [
        put(1, 0, 1, "a"),
        put(2, 2, 3, "b"),
        get(2, 4, 5, "b"),
        get(2, 6, 7, "a"),
    ];
    assert_eq!(rejected(&twice).prefix, 4);
    // A retried delete that was executed already says that there is nothing.
    let retried = [put(1, 0, 1, "a"), delete(1, 2, 3, Reply::NotFound)];
    rejected(&retried);
    // A retried compare-and-swap finds its own value.
    let mismatch = Reply::Mismatch(Some(value("b")));
    rejected(&[put(1, 0, 1, "a"), cas(1, 2, 3, "a", "b", mismatch)]);
}

#[test]
fn an_unknown_outcome_may_show_at_any_time_or_never() {
    let unknown = open(1, 2, put_action("b"));
    let before = put(1, 0, 1, "a");
    accepted(&[before.clone(), unknown.clone(), get(2, 100, 101, "a")]);
    accepted(&[before.clone(), unknown.clone(), get(2, 100, 101, "b")]);
    let late = [get(2, 100, 101, "a"), get(2, 102, 103, "b")];
    accepted(&[[before.clone(), unknown.clone()].as_slice(), &late].concat());
    // But once, and not before it was asked for.
    let back = [get(2, 100, 101, "b"), get(2, 102, 103, "a")];
    rejected(&[[before.clone(), unknown.clone()].as_slice(), &back].concat());
    rejected(&[before, get(2, 1, 1, "b"), unknown]);
    let again = [
        put(1, 0, 1, "b"),
        open(2, 2, put_action("c")),
        get(3, 3, 4, "c"),
    ];
    let again = [again.as_slice(), &[put(3, 5, 6, "d"), get(3, 7, 8, "c")]].concat();
    rejected(&again);
}

#[test]
fn unknown_deletes_and_swaps_obey_the_model_too() {
    accepted(&[
        put(1, 0, 1, "a"),
        open(2, 2, Action::Delete),
        get(1, 3, 4, ""),
    ]);
    accepted(&[
        put(1, 0, 1, "a"),
        open(2, 2, swap("a", "b")),
        get(1, 3, 4, "a"),
        get(1, 5, 6, "b"),
    ]);
    // It expects what never was.
    rejected(&[
        put(1, 0, 1, "a"),
        open(2, 2, swap("x", "b")),
        get(1, 3, 4, "b"),
    ]);
    // Two deletes cannot both find the only value, unless a put of unknown outcome gave another.
    let two = [
        put(1, 0, 1, "a"),
        delete(1, 2, 3, Reply::Done),
        delete(1, 4, 5, Reply::Done),
    ];
    rejected(&two);
    accepted(&[two.as_slice(), &[open(2, 0, put_action("z"))]].concat());
    // A get without a reply says nothing.
    assert_eq!(accepted(&[open(1, 0, Action::Get)]).open, 1);
}

#[test]
fn compare_and_swap_tells_what_it_found() {
    accepted(&[
        cas(1, 0, 1, "", "a", Reply::Done),
        cas(1, 2, 3, "", "b", Reply::Mismatch(Some(value("a")))),
        cas(1, 4, 5, "x", "b", Reply::Mismatch(Some(value("a")))),
        delete(1, 6, 7, Reply::Done),
        cas(1, 8, 9, "a", "b", Reply::Mismatch(None)),
    ]);
    // It failed although the value was the expected one.
    rejected(&[
        put(1, 0, 1, "a"),
        cas(1, 2, 3, "a", "b", Reply::Mismatch(Some(value("a")))),
    ]);
    rejected(&[put(1, 0, 1, "a"), cas(1, 2, 3, "x", "b", Reply::Done)]);
}

#[test]
fn replies_that_do_not_belong_to_the_question_are_found() {
    rejected(&[closed(1, 0, 1, Action::Get, Reply::Done)]);
    rejected(&[closed(1, 0, 1, put_action("a"), Reply::NotFound)]);
}

#[test]
fn keys_are_independent_and_the_broken_one_is_named() {
    let mut history = Vec::new();
    for key in 0..50u64 {
        for mut one in [put(1, 0, 1, "a"), put(1, 2, 3, "b"), get(2, 4, 5, "b")] {
            one.key = format!("key-{key}").into_bytes();
            history.push(one);
        }
    }
    assert_eq!(accepted(&history).keys, 50);
    let broken = &mut history[3 * 31 + 2];
    broken.returned = get(2, 4, 5, "a").returned;
    assert_eq!(rejected(&history).key, b"key-31");
}

#[test]
fn a_history_beyond_the_limits_has_no_verdict() {
    let many: Vec<Operation> = (0..200u64)
        .map(|at| open(at, at, put_action(&at.to_string())))
        .collect();
    let error = check(&many).expect_err("more than can be told apart");
    assert!(
        matches!(
            error,
            CheckError::TooHard {
                why: Limit::Open,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("128 operations of unknown outcome")
    );
}

/// One step of a sequential execution, and how its interval is stretched around it.
#[derive(Clone, Debug)]
struct Step {
    key: u8,
    action: Action,
    early_ns: u64,
    late_ns: u64,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// Executed, and the reply was lost.
    Unanswered,
    /// Never executed.
    Lost,
}

fn action() -> impl Strategy<Value = Action> {
    let text = || (0u8..4).prop_map(|value| vec![b'a' + value]);
    prop_oneof![
        3 => Just(Action::Get),
        3 => text().prop_map(|value| Action::Put { value }),
        1 => Just(Action::Delete),
        2 => (proptest::option::of(text()), text())
            .prop_map(|(expected, value)| Action::Cas { expected, value }),
    ]
}

fn steps(count: usize, keys: u8, stretch_ns: u64) -> impl Strategy<Value = Vec<Step>> {
    let fate =
        prop_oneof![20 => Just(Fate::Answered), 1 => Just(Fate::Unanswered), 1 => Just(Fate::Lost)];
    let step = (0..keys, action(), 0..stretch_ns, 0..stretch_ns, fate);
    let step = step.prop_map(|(key, action, early_ns, late_ns, fate)| Step {
        key,
        action,
        early_ns,
        late_ns,
        fate,
    });
    proptest::collection::vec(step, 1..count)
}

/// Executes the steps one after the other, ten nanoseconds apart, and stretches each interval.
fn history(steps: &[Step]) -> Vec<Operation> {
    let mut values = std::collections::BTreeMap::<Key, Option<Value>>::new();
    let mut history = Vec::new();
    for (step, at) in steps.iter().zip(1_000u64..) {
        let key = vec![b'0' + step.key];
        let at_ns = at * 10;
        let reply = match step.fate {
            Fate::Lost => None,
            Fate::Answered | Fate::Unanswered => Some(execute(
                values.entry(key.clone()).or_default(),
                &step.action,
            )),
        };
        let returned = reply
            .filter(|_| step.fate == Fate::Answered)
            .map(|reply| Returned {
                at_ns: at_ns + step.late_ns,
                reply,
            });
        history.push(Operation {
            client: at,
            key,
            action: step.action.clone(),
            invoked_ns: at_ns - step.early_ns,
            returned,
        });
    }
    history
}

/// The history just before `culprit` returned, when what was under way could still get any reply; and with it.
fn around(history: &[Operation], culprit: &Operation) -> (Vec<Operation>, Vec<Operation>) {
    let end = |one: &Operation| one.returned.as_ref().map(|returned| returned.at_ns);
    let cut = end(culprit).expect("it returned");
    let with: Vec<Operation> = history
        .iter()
        .filter(|one| one.invoked_ns <= cut)
        .cloned()
        .collect();
    let mut before = with.clone();
    for one in &mut before {
        if end(one) >= Some(cut) {
            one.returned = None;
        }
    }
    (before, with)
}

fn reply() -> impl Strategy<Value = Reply> {
    let text = || (0u8..4).prop_map(|value| vec![b'a' + value]);
    prop_oneof![
        Just(Reply::Done),
        Just(Reply::NotFound),
        text().prop_map(Reply::Value),
        proptest::option::of(text()).prop_map(Reply::Mismatch),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sequential_executions_with_stretched_intervals_are_accepted(steps in steps(200, 3, 40)) {
        let history = history(&steps);
        let checked = check(&history);
        prop_assert!(checked.is_ok(), "{}", checked.unwrap_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Both verdicts come up often: about half of the mutated histories stay linearizable.
    #[test]
    fn the_verdict_is_that_of_trying_every_order(
        steps in steps(7, 1, 40),
        mutations in proptest::collection::vec((0usize..7, reply()), 0..3),
    ) {
        let mut history = history(&steps);
        for (at, reply) in mutations {
            let count = history.len();
            if let Some(returned) = &mut history[at % count].returned {
                returned.reply = reply;
            }
        }
        let verdict = check(&history);
        prop_assert_eq!(verdict.is_ok(), explained(&history), "{:?}", verdict);
        if let Err(CheckError::NotLinearizable(violation)) = verdict {
            let (before, with) = around(&history, &violation.culprit);
            prop_assert!(explained(&before), "a shorter prefix is as bad: {violation}");
            prop_assert!(!explained(&with), "the prefix is good: {violation}");
        }
    }
}

/// As large as the histories of a long run: 100,000 operations, 8 clients on each of 50 keys.
#[test]
fn a_hundred_thousand_operations_of_eight_clients_a_key() {
    let mut random = 7u64;
    let mut next = move |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut steps = Vec::new();
    for number in 0..100_000u64 {
        let unique = |number: u64| number.to_le_bytes().to_vec();
        let action = match next(10) {
            0..4 => Action::Get,
            4..8 => Action::Put {
                value: unique(number),
            },
            8 => Action::Delete,
            _ => Action::Cas {
                expected: Some(unique(next(number + 1))),
                value: unique(number),
            },
        };
        // Ten nanoseconds a step over 50 keys: up to eight steps of the same key overlap.
        steps.push(Step {
            key: (number % 50) as u8,
            action,
            early_ns: next(2_000),
            late_ns: next(2_000),
            fate: if next(2_000) == 0 {
                Fate::Unanswered
            } else {
                Fate::Answered
            },
        });
    }
    let started = std::time::Instant::now();
    let mut history = history(&steps);
    let checked = accepted(&history);
    println!("{checked:?} in {:?}", started.elapsed());
    assert_eq!((checked.operations, checked.keys), (100_000, 50));
    let broken = history
        .iter()
        .rposition(|one| one.action == Action::Get)
        .expect("gets");
    history[broken].returned = Some(Returned {
        at_ns: history[broken].invoked_ns,
        reply: Reply::Value(b"never written".to_vec()),
    });
    assert_eq!(rejected(&history).culprit, history[broken]);
}
