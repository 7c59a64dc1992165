//! One client of a load: submits runs of commands and takes their replies.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use synod_engine::client::LENGTH_BYTES;
use synod_transport::client::OUTSTANDING_BYTES_MAX;
use synod_transport::{Client, ClientCounters};

use crate::certs::parse_cluster;
use crate::client_file::{self, client_config};
use crate::failure::{describe, usage};
use crate::load::Shared;
use crate::load::in_flight::{InFlight, Start};
use crate::load::load_file::{Load, LoadFile};
use crate::load::offering::{Offered, Offering};
use crate::load::pace::{self, Pacer};
use crate::load::schedule::Schedule;
use crate::load::workload::{Workload, splitmix};
use crate::verify::ClientAccount;

/// Open loop: commands in flight per client, as far as their bytes allow. Reaching it means that the system does
/// not hold the rate.
const OPEN_OUTSTANDING_MAX: u32 = 65_536;
/// And over all clients: what is in flight when a system is overloaded is what admitted commands wait for.
const OPEN_BYTES_MAX: usize = OUTSTANDING_BYTES_MAX;

pub struct ClientLoop {
    client: Client,
    tag: u64,
    workload: Workload,
    in_flight: InFlight,
    offer: Offer,
    outstanding_max: u32,
    acknowledged: u64,
    /// Open loop: the most commands that were due at once and had no room.
    held_back: u64,
    /// Open loop: up to which command of its schedule the loop has looked.
    looked: u64,
    offered: Option<Offered>,
}

/// How this client offers its share of the load.
#[derive(Clone, Copy)]
enum Offer {
    Closed { outstanding: u32 },
    Open { schedule: Schedule },
}

/// The books of one client at its end.
pub struct ClientEnd {
    pub account: ClientAccount,
    pub held_back: u64,
    /// Of an open loop, if it refuses what finds no room.
    pub offered: Option<Offered>,
    pub counters: Vec<(&'static str, u64)>,
    pub error: Option<String>,
}

impl ClientLoop {
    pub async fn connect(file: &LoadFile, index: u32) -> anyhow::Result<ClientLoop> {
        let mut seed = file.seed.wrapping_add(u64::from(index));
        let seed = splitmix(&mut seed);
        let offer = match file.load {
            Load::Closed {
                outstanding,
                clients,
            } => Offer::Closed {
                // The first clients take the remainder.
                outstanding: outstanding / clients + u32::from(index < outstanding % clients),
            },
            Load::Open { rate, clients } => {
                let schedule = Schedule::new(0, rate, clients, index);
                let window_start_ns = u64::from(file.warmup_s) * 1_000_000_000;
                Offer::Open {
                    schedule: match &file.surge {
                        Some(surge) => schedule.with_surge(surge, window_start_ns),
                        None => schedule,
                    },
                }
            }
        };
        let outstanding_max = match offer {
            Offer::Closed { outstanding } => outstanding,
            Offer::Open { .. } => {
                let command_bytes = file.payload_bytes as usize + LENGTH_BYTES;
                let own_bytes = OPEN_BYTES_MAX / file.clients as usize;
                OPEN_OUTSTANDING_MAX.min((own_bytes / command_bytes).max(1) as u32)
            }
        };
        let mut config = client_config(
            parse_cluster(&file.cluster).map_err(usage)?,
            client_file::replicas(&file.replicas)?,
            file.certificates.load()?,
        )?;
        config.deadline = Duration::from_millis(file.deadline_ms);
        config.outstanding_max = outstanding_max;
        config.seed = seed;
        if let Some(mtu_max) = file.mtu_max {
            config.mtu_max = mtu_max;
        }
        let tag = u64::from(index) + 1;
        Ok(ClientLoop {
            client: Client::connect(config)
                .await
                .with_context(|| format!("client {tag} cannot connect"))?,
            tag,
            workload: Workload::new(file.state_machine, file.payload_bytes, tag, seed),
            in_flight: InFlight::default(),
            offer,
            outstanding_max,
            acknowledged: 0,
            held_back: 0,
            looked: 0,
            offered: None,
        })
    }

    /// Runs until the window is over and everything is answered, or until the client library gives up.
    pub async fn run(mut self, shared: Rc<Shared>) -> ClientEnd {
        let session = self.client.session().map(|session| session.0);
        let result = match self.offer {
            Offer::Closed { outstanding } => self.closed(&shared, outstanding).await,
            Offer::Open { schedule } => {
                let (start_ns, end_ns) = (shared.window_start_ns, shared.window_end_ns);
                let mut offering = Offering::new(schedule, start_ns, end_ns);
                let result = self.open(&shared, &mut offering).await;
                self.offered = Some(offering.finish());
                result
            }
        };
        let counters = named(self.client.counters());
        self.client.close().await;
        ClientEnd {
            account: ClientAccount {
                tag: self.tag,
                submitted: self.workload.next_number() - 1,
                acknowledged: self.acknowledged,
                session,
            },
            held_back: self.held_back,
            offered: self.offered,
            counters,
            error: result
                .err()
                .map(|error| format!("client {}: {}", self.tag, describe(&error))),
        }
    }

    /// A new command for each reply: a run of replies is answered by a run of commands.
    async fn closed(&mut self, shared: &Shared, outstanding: u32) -> anyhow::Result<()> {
        self.submit(shared, outstanding, None)?;
        while self.in_flight.commands() > 0 {
            let count = self.take_replies(shared).await?;
            if !shared.stopping.get() {
                self.submit(shared, count, None)?;
            }
        }
        Ok(())
    }

    /// Commands at their intended times, replies whenever they come.
    async fn open(&mut self, shared: &Shared, offering: &mut Offering) -> anyhow::Result<()> {
        let pacer = Pacer::new()?;
        let mut over = false;
        while !over || self.in_flight.commands() > 0 {
            let now_ns = shared.now_ns();
            if !over {
                // Once more after the end of the window, for what was due at the last moment.
                over = shared.stopping.get();
                self.submit_due(shared, offering, now_ns)?;
            }
            let sleep_ns = pace::sleep_ns(now_ns, offering.next_ns());
            let waiting = self.in_flight.commands() > 0;
            if over && !waiting {
                break;
            }
            tokio::select! {
                result = self.client.replies(), if waiting => {
                    self.note_replies(shared, result?)?;
                }
                result = pacer.sleep(sleep_ns), if !over => result?,
            }
        }
        Ok(())
    }

    fn submit_due(
        &mut self,
        shared: &Shared,
        offering: &mut Offering,
        now_ns: u64,
    ) -> anyhow::Result<()> {
        shared.punctuality.borrow_mut().look(
            offering.schedule(),
            &mut self.looked,
            offering.seen(now_ns),
            now_ns,
        );
        let due = offering.due(now_ns);
        let room = u64::from(self.outstanding_max).saturating_sub(self.in_flight.commands());
        self.held_back = self.held_back.max(due.saturating_sub(room));
        let count = due.min(room);
        let nth = offering.submit(count);
        self.submit(shared, count as u32, Some((offering.schedule(), nth)))?;
        if offering.refuse(now_ns) > 0 {
            shared.recorder.borrow_mut().refused(now_ns);
        }
        Ok(())
    }

    fn submit(
        &mut self,
        shared: &Shared,
        mut count: u32,
        mut scheduled: Option<(&Schedule, u64)>,
    ) -> anyhow::Result<()> {
        while count > 0 {
            let taken = count.min(self.workload.run_commands_max());
            let first = self.workload.next_number();
            let run = self.workload.run(taken);
            let start = match &mut scheduled {
                Some((schedule, next)) => {
                    let nth = *next;
                    *next += u64::from(taken);
                    Start::Scheduled {
                        schedule: **schedule,
                        nth,
                    }
                }
                None => Start::Sent {
                    at_ns: shared.now_ns(),
                },
            };
            self.in_flight.sent(first, taken, start);
            shared
                .outstanding
                .set(shared.outstanding.get() + u64::from(taken));
            let number = self.client.submit(run, taken)?;
            anyhow::ensure!(
                number.0 == first,
                "the session numbered command {first} as {}",
                number.0
            );
            count -= taken;
        }
        Ok(())
    }

    async fn take_replies(&mut self, shared: &Shared) -> anyhow::Result<u32> {
        let replies = self.client.replies().await?;
        let count = replies.count;
        self.note_replies(shared, replies)?;
        Ok(count)
    }

    fn note_replies(
        &mut self,
        shared: &Shared,
        replies: synod_engine::client::Replies,
    ) -> anyhow::Result<()> {
        let count = replies.count;
        self.in_flight.acknowledged(
            replies.first.0,
            count,
            shared.now_ns(),
            &mut shared.recorder.borrow_mut(),
        )?;
        self.acknowledged += u64::from(count);
        shared
            .outstanding
            .set(shared.outstanding.get() - u64::from(count));
        Ok(())
    }
}

fn named(counters: ClientCounters) -> Vec<(&'static str, u64)> {
    let ClientCounters {
        retries,
        redirects,
        resent,
        busy,
        timed_out,
        reconnects,
    } = counters;
    vec![
        ("retries", retries),
        ("redirects", redirects),
        ("resent", resent),
        ("busy", busy),
        ("timed_out", timed_out),
        ("reconnects", reconnects),
    ]
}
