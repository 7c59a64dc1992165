//! Batches: how requests gather.

use synod_engine::batch::Intake;
use synod_engine::client::REQUEST_HEADER_BYTES;

use super::one::request;

const BATCH_BYTES_MAX: usize = 1_000;

/// The lengths of the batches that requests of so many bytes gather to.
fn batches(requests: &[usize]) -> Vec<usize> {
    let mut intake = Intake::new(BATCH_BYTES_MAX);
    for bytes in requests {
        intake.push(&request(bytes - REQUEST_HEADER_BYTES));
    }
    assert_eq!(intake.bytes(), requests.iter().sum::<usize>());
    let batches: Vec<usize> = std::iter::from_fn(|| intake.take())
        .map(|value| value.len())
        .collect();
    assert_eq!(intake.bytes(), 0);
    batches
}

#[test]
fn requests_share_a_batch_as_long_as_they_fit() {
    assert_eq!(batches(&[400, 600]), [1_000]);
    assert_eq!(batches(&[400, 601]), [400, 601]);
    assert_eq!(batches(&[40, 50, 60]), [150]);
    assert_eq!(batches(&[1_000, 40, 960, 40]), [1_000, 1_000, 40]);
}

#[test]
fn what_is_forgotten_is_not_proposed() {
    let mut intake = Intake::new(BATCH_BYTES_MAX);
    for _ in 0..3 {
        intake.push(&request(500));
    }
    intake.clear();
    assert_eq!(intake.bytes(), 0);
    assert_eq!(intake.take(), None);
    // It gathers as before.
    intake.push(&request(500));
    assert_eq!(
        intake.take().map(|value| value.len()),
        Some(500 + REQUEST_HEADER_BYTES)
    );
}
