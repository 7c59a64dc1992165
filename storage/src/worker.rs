//! Work beside the loop: on a thread with real files, in place with the memory disk.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, channel, sync_channel};
use std::thread::JoinHandle;

use crate::signal::Signal;

/// Takes every job that waits and hands on one outcome per job, in order.
pub type Work<J, O> = Box<dyn FnMut(&mut Vec<J>, &mut dyn FnMut(O)) + Send>;

pub struct Worker<J, O> {
    kind: Kind<J, O>,
}

enum Kind<J, O> {
    Inline {
        work: Work<J, O>,
        done: VecDeque<O>,
    },
    Thread {
        jobs: Option<SyncSender<J>>,
        done: Receiver<O>,
        handle: Option<JoinHandle<()>>,
    },
}

impl<J: Send + 'static, O: Send + 'static> Worker<J, O> {
    /// A thread that raises `signal` after each outcome, or no thread at all if there is nothing to signal.
    pub fn new(
        name: &str,
        jobs_max: usize,
        signal: Option<Signal>,
        mut work: Work<J, O>,
    ) -> std::io::Result<Worker<J, O>> {
        let Some(signal) = signal else {
            let done = VecDeque::new();
            return Ok(Worker {
                kind: Kind::Inline { work, done },
            });
        };
        let (jobs, queue) = sync_channel::<J>(jobs_max);
        let (outcomes, done) = channel();
        let body = move || {
            let mut batch = Vec::new();
            while let Ok(job) = queue.recv() {
                batch.push(job);
                batch.extend(queue.try_iter());
                work(&mut batch, &mut |outcome| {
                    // The loop is gone: nobody is left who could be told.
                    let _ = outcomes.send(outcome);
                    signal.notify();
                });
                assert!(batch.is_empty(), "a worker left jobs undone");
            }
        };
        let handle = std::thread::Builder::new()
            .name(name.to_string())
            .spawn(body)?;
        Ok(Worker {
            kind: Kind::Thread {
                jobs: Some(jobs),
                done,
                handle: Some(handle),
            },
        })
    }

    /// Never blocks: who hands out more jobs than the queue was made for has a bug.
    pub fn start(&mut self, job: J) {
        match &mut self.kind {
            Kind::Inline { work, done } => {
                work(&mut vec![job], &mut |outcome| done.push_back(outcome));
            }
            Kind::Thread { jobs, .. } => {
                let jobs = jobs.as_ref().expect("a worker runs until it is dropped");
                match jobs.try_send(job) {
                    Ok(()) => {}
                    Err(TrySendError::Full(_)) => panic!("more jobs than the worker's limit"),
                    Err(TrySendError::Disconnected(_)) => panic!("a storage thread panicked"),
                }
            }
        }
    }

    pub fn take(&mut self) -> Option<O> {
        match &mut self.kind {
            Kind::Inline { done, .. } => done.pop_front(),
            Kind::Thread { done, .. } => match done.try_recv() {
                Ok(outcome) => Some(outcome),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => panic!("a storage thread panicked"),
            },
        }
    }
}

impl<J, O> Drop for Worker<J, O> {
    /// Waits for the thread, so that nothing touches the directory once its lock is given back.
    fn drop(&mut self) {
        if let Kind::Thread { jobs, handle, .. } = &mut self.kind {
            drop(jobs.take());
            if let Some(handle) = handle.take() {
                // A panic of the thread was reported where it happened.
                let _ = handle.join();
            }
        }
    }
}
