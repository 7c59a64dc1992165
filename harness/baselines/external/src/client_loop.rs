//! One connection of a load: keeps writes in flight, or starts them on a schedule.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use synod_harness::load::pace::{self, Pacer};
use synod_harness::load::schedule::Schedule;
use synod_harness::load::{ClientAccount, ClientEnd, Shared};

use crate::books::Books;
use crate::command::{Command, Done};
use crate::keys::Keys;
use crate::target::Target;
use crate::values::Values;

/// How this client offers its share of the load.
#[derive(Clone, Copy)]
pub enum Offer {
    Closed { outstanding: u32 },
    Open { schedule: Schedule },
}

pub struct ClientLoop<T> {
    pub target: Rc<T>,
    /// From 1.
    pub tag: u64,
    pub values: Values,
    pub keys: Keys,
    pub books: Rc<RefCell<Books>>,
    pub offer: Offer,
    pub outstanding_max: usize,
    pub deadline: Duration,
    pub tally: Tally,
    pub in_flight: FuturesUnordered<Pin<Box<dyn Future<Output = Done>>>>,
}

#[derive(Default)]
pub struct Tally {
    submitted: u64,
    acknowledged: u64,
    retries: u64,
    unanswered: u64,
    held_back: u64,
    /// Up to which write of its schedule the loop has looked.
    looked: u64,
    /// Why the last write that failed did.
    error: Option<String>,
}

impl<T: Target> ClientLoop<T> {
    /// Runs until the window is over and everything is answered, or has failed.
    pub async fn run(mut self, shared: Rc<Shared>) -> ClientEnd {
        let result = match self.offer {
            Offer::Closed { outstanding } => {
                self.closed(&shared, outstanding).await;
                Ok(())
            }
            Offer::Open { schedule } => self.open(&shared, &schedule).await,
        };
        let tally = self.tally;
        let error = result.err().map(|error| error.to_string()).or(tally.error);
        ClientEnd {
            account: ClientAccount {
                tag: self.tag,
                submitted: tally.submitted,
                acknowledged: tally.acknowledged,
                session: None,
            },
            held_back: tally.held_back,
            offered: None,
            counters: vec![("retries", tally.retries), ("unanswered", tally.unanswered)],
            error: error.map(|error| format!("client {}: {error}", self.tag)),
        }
    }

    async fn closed(&mut self, shared: &Shared, outstanding: u32) {
        for _ in 0..outstanding {
            self.submit(shared, shared.now_ns());
        }
        while let Some(done) = self.in_flight.next().await {
            self.note(shared, done);
            if !shared.stopping.get() {
                self.submit(shared, shared.now_ns());
            }
        }
    }

    async fn open(&mut self, shared: &Shared, schedule: &Schedule) -> anyhow::Result<()> {
        let pacer = Pacer::new()?;
        while !shared.stopping.get() || !self.in_flight.is_empty() {
            let now_ns = shared.now_ns();
            let stopping = shared.stopping.get();
            if !stopping {
                self.submit_due(shared, schedule, now_ns);
            }
            let next_ns = schedule.intended_ns(self.tally.submitted);
            let sleep_ns = pace::sleep_ns(now_ns, next_ns);
            let waiting = !self.in_flight.is_empty();
            tokio::select! {
                Some(done) = self.in_flight.next(), if waiting => self.note(shared, done),
                result = pacer.sleep(sleep_ns), if !stopping => result?,
            }
        }
        Ok(())
    }

    fn submit_due(&mut self, shared: &Shared, schedule: &Schedule, now_ns: u64) {
        // Writes meant to start after the window belong to nobody.
        let due = schedule.due(now_ns.min(shared.window_end_ns - 1));
        let mut punctuality = shared.punctuality.borrow_mut();
        punctuality.look(schedule, &mut self.tally.looked, due, now_ns);
        drop(punctuality);
        let behind = due.saturating_sub(self.tally.submitted);
        let room = self.outstanding_max.saturating_sub(self.in_flight.len()) as u64;
        self.tally.held_back = self.tally.held_back.max(behind.saturating_sub(room));
        for _ in 0..behind.min(room) {
            self.submit(shared, schedule.intended_ns(self.tally.submitted));
        }
    }

    fn submit(&mut self, shared: &Shared, start_ns: u64) {
        self.tally.submitted += 1;
        let number = self.tally.submitted;
        let command = Command {
            number,
            key: self.keys.take(number),
            start_ns,
            value: self.values.value(number),
        };
        shared.outstanding.set(shared.outstanding.get() + 1);
        self.in_flight.push(Box::pin(
            command.run(Rc::clone(&self.target), self.deadline),
        ));
    }

    fn note(&mut self, shared: &Shared, done: Done) {
        self.tally.retries += done.retries;
        self.tally.unanswered += done.unanswered;
        shared.outstanding.set(shared.outstanding.get() - 1);
        self.keys.give_back(done.key);
        if done.error.is_some() {
            self.tally.error = done.error;
            return;
        }
        let now_ns = shared.now_ns();
        let mut recorder = shared.recorder.borrow_mut();
        recorder.acknowledged(now_ns, 1);
        recorder.latency(done.start_ns, now_ns, 1);
        self.tally.acknowledged += 1;
        self.books.borrow_mut().acknowledged(done.key, done.number);
    }
}
