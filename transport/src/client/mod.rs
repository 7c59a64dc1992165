//! The client library: an exactly-once session with the cluster, pipelined, over connections to every replica.
//!
//! [`session`] holds all decisions and does no IO; the rest of this module moves its frames. Connections to all
//! replicas are kept, so that the news of a new leader arrives from anyone within a round trip.

mod connection;
mod core;
mod endpoints;
mod error;
mod event;
mod routing;
mod runs;
pub mod session;

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use quinn::{Endpoint, VarInt};
use synod_engine::client::{LENGTH_BYTES, Replies};
use synod_engine::ids::{ClusterId, CommandNumber, ReplicaId, ReplicaSet, SessionId};
use tokio::task::AbortHandle;

use self::connection::Dialler;
use self::core::{Mode, Ready, Shared};
use self::endpoints::Endpoints;
use self::session::{Session, SessionConfig, SubmitError};
use crate::address::Address;
use crate::close::CloseCode;
use crate::endpoint::{self, Role};
use crate::handshake::{HANDSHAKE_MS, Local};
use crate::identity::Identity;
use crate::lookup::{Lookup, Resolver};

pub use self::error::ClientError;
pub use self::session::{OUTSTANDING_BYTES_MAX, REQUEST_BYTES_MAX, SessionFailed};

/// The oldest request is sent again when nothing came back for this long.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The longest frame a replica may send: the replies of one batch.
const REPLIES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long [`Client::close`] waits for the replicas to hear of it.
const CLOSE_WAIT: Duration = Duration::from_millis(300);

#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub cluster: ClusterId,
    pub replicas: Vec<(ReplicaId, Address)>,
    /// Finds what is behind names.
    pub resolver: Resolver,
    pub identity: Identity,
    /// Per command, and for opening the session.
    pub deadline: Duration,
    /// Commands without a reply, or whose reply was not taken yet.
    pub outstanding_max: u32,
    pub mtu_max: u16,
    /// Of the jitter in reconnect delays. Different for every client.
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounters {
    /// Times that nothing came back for too long, so that everything was sent again.
    pub retries: u64,
    /// Times that requests went to another replica.
    pub redirects: u64,
    /// Commands sent more than once.
    pub resent: u64,
    /// Busy answers.
    pub busy: u64,
    pub timed_out: u64,
    /// Connections that came up again.
    pub reconnects: u64,
}

/// One session. Either [`Client::call`] it, from any number of tasks, or [`Client::submit`] runs and take their
/// [`Client::replies`]; not both.
///
/// A command that times out stays in the session: whether it is executed is unknown, and later commands of the
/// session are executed after it.
pub struct Client {
    shared: Arc<Shared>,
    endpoints: Vec<Endpoint>,
    tasks: Vec<AbortHandle>,
    config: ClientConfig,
}

impl Client {
    /// Connects to every replica and opens a session. Fails at the deadline, or as soon as every replica has
    /// refused this client for a reason that lasts.
    pub async fn connect(config: ClientConfig) -> Result<Client, ClientError> {
        let deadline = config.deadline;
        let client = Client::start(config, false)?;
        let opened = tokio::time::timeout(deadline, client.opened()).await;
        match opened {
            Ok(result) => result?,
            Err(_) => {
                let detail = client.describe_failures();
                return Err(ClientError::Connect { detail });
            }
        }
        Ok(client)
    }

    /// Connects without a session: only [`Client::status`] and [`Client::leader`] are of use, and no leader is
    /// needed for them.
    pub fn observe(config: ClientConfig) -> Result<Client, ClientError> {
        Client::start(config, true)
    }

    /// One command, one reply.
    pub async fn call(&self, command: Bytes) -> Result<Bytes, ClientError> {
        let mut run = BytesMut::with_capacity(LENGTH_BYTES + command.len());
        run.put_u32_le(
            u32::try_from(command.len()).map_err(|_| SubmitError::TooLong {
                bytes: command.len(),
            })?,
        );
        run.put_slice(&command);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        {
            let now = self.shared.now();
            let mut core = self.shared.lock();
            core.enter(Mode::Calls)?;
            let number = core.session.submit(now, run.freeze(), 1)?;
            core.calls.push_back((number, sender));
        }
        self.shared.work.notify_one();
        let answer = receiver.await;
        answer.expect("every call is answered, times out or fails while its client lives")
    }

    /// Hands over a run of `count` commands, encoded as count × (length u32 | command). Never waits; on
    /// [`ClientError::WouldExceed`] nothing was taken.
    ///
    /// # Panics
    /// If `commands` is not such a run.
    pub fn submit(&self, commands: Bytes, count: u32) -> Result<CommandNumber, ClientError> {
        let now = self.shared.now();
        let number = {
            let mut core = self.shared.lock();
            core.enter(Mode::Runs)?;
            let commands_max = self.config.outstanding_max;
            let outstanding = core.session.outstanding() + core.ready_commands + u64::from(count);
            if outstanding > u64::from(commands_max) {
                return Err(ClientError::WouldExceed { commands_max });
            }
            core.session.submit(now, commands, count)?
        };
        self.shared.work.notify_one();
        Ok(number)
    }

    /// Waits for the next run of replies: in order, each number exactly once. [`ClientError::Timeout`] tells once
    /// of each run that is late; its replies may follow all the same. For one task at a time.
    pub async fn replies(&self) -> Result<Replies, ClientError> {
        loop {
            {
                let mut core = self.shared.lock();
                core.enter(Mode::Runs)?;
                match core.ready.pop_front() {
                    Some(Ready::Replies(replies)) => {
                        core.ready_commands -= u64::from(replies.count);
                        return Ok(replies);
                    }
                    Some(Ready::TimedOut { first, count }) => {
                        return Err(ClientError::Timeout { first, count });
                    }
                    Some(Ready::Gone { first, count }) => {
                        core.ready_commands -= u64::from(count);
                        return Err(ClientError::ReplyGone { first, count });
                    }
                    None => {}
                }
                if let Some(failure) = &core.failed {
                    return Err(failure.clone().into());
                }
            }
            self.shared.ready.notified().await;
        }
    }

    /// The counters and watermarks of one replica, whether it leads or not.
    pub async fn status(&self, replica: ReplicaId) -> Result<Vec<(String, u64)>, ClientError> {
        if !self
            .config
            .replicas
            .iter()
            .any(|(known, _)| *known == replica)
        {
            return Err(ClientError::UnknownReplica(replica));
        }
        let asking = async {
            loop {
                let changed = self.shared.changed.notified();
                let asked = self.shared.lock().ask_status(replica);
                match asked {
                    // The connection may break before the answer; then it is asked again.
                    Some(answer) => {
                        if let Ok(status) = answer.await {
                            return status;
                        }
                    }
                    None => changed.await,
                }
            }
        };
        tokio::time::timeout(self.config.deadline, asking)
            .await
            .map_err(|_| ClientError::NotConnected {
                replica,
                detail: self.describe_failure(replica),
            })
    }

    /// The session that a connected client has, unless it ended.
    pub fn session(&self) -> Option<SessionId> {
        self.shared.lock().session.id()
    }

    /// Who leads, as far as this client has heard.
    pub fn leader(&self) -> Option<ReplicaId> {
        self.shared.lock().session.leader()
    }

    pub fn counters(&self) -> ClientCounters {
        let core = self.shared.lock();
        let session = core.session.counters();
        ClientCounters {
            retries: session.retries,
            redirects: session.redirects,
            resent: session.resent,
            busy: session.busy,
            timed_out: session.timed_out,
            reconnects: core.reconnects,
        }
    }

    /// Ends the session and disconnects. What is outstanding may or may not be executed: take the replies first.
    /// Where no leader answers in time, the session is left to be evicted.
    pub async fn close(self) {
        let _ = tokio::time::timeout(CLOSE_WAIT, self.end_session()).await;
        let endpoints = self.endpoints.clone();
        drop(self);
        let idle = async {
            for endpoint in &endpoints {
                endpoint.wait_idle().await;
            }
        };
        // A replica that does not answer in time finds out by a timeout.
        let _ = tokio::time::timeout(CLOSE_WAIT, idle).await;
    }

    async fn end_session(&self) {
        let now = self.shared.now();
        if !self.shared.lock().session.close(now) {
            return;
        }
        self.shared.work.notify_one();
        loop {
            let changed = self.shared.changed.notified();
            if self.shared.lock().session.id().is_none() {
                return;
            }
            changed.await;
        }
    }

    fn start(config: ClientConfig, observing: bool) -> Result<Client, ClientError> {
        if config.replicas.is_empty() {
            return Err(ClientError::NoReplicas);
        }
        let identity = &config.identity;
        identity
            .client(config.cluster)
            .and_then(|_| identity.expect_alive())
            .map_err(crate::TransportError::from)?;
        let ids: Vec<ReplicaId> = config
            .replicas
            .iter()
            .map(|(replica, _)| *replica)
            .collect();
        let shared = Arc::new(Shared::new(session(&config, &ids)?, &ids, observing));
        let mut client = Client {
            shared,
            endpoints: Vec::new(),
            tasks: Vec::new(),
            config,
        };
        client.spawn()?;
        Ok(client)
    }

    fn spawn(&mut self) -> Result<(), ClientError> {
        let config = self.config.clone();
        let dialling = endpoint::client_config(&config.identity, Role::Client, config.mtu_max)?;
        let endpoints = Endpoints::bind(&config)?;
        self.endpoints = endpoints.all();
        for (replica, address) in &config.replicas {
            let (family, resolver) = (endpoints.family(), config.resolver.clone());
            let dialler = Dialler {
                endpoints: endpoints.clone(),
                config: dialling.clone(),
                lookup: Lookup::new(address.clone(), family, resolver),
                replica: *replica,
                local: Local {
                    cluster: config.cluster,
                    replica: None,
                    frame_bytes_max: REPLIES_BYTES_MAX,
                    timeout: Duration::from_millis(HANDSHAKE_MS),
                },
                seed: config.seed ^ (u64::from(replica.0) << 56),
            };
            let task = tokio::spawn(dialler.keep_connected(Arc::clone(&self.shared)));
            self.tasks.push(task.abort_handle());
        }
        let driver = tokio::spawn(drive(Arc::clone(&self.shared)));
        self.tasks.push(driver.abort_handle());
        Ok(())
    }

    async fn opened(&self) -> Result<(), ClientError> {
        loop {
            let changed = self.shared.changed.notified();
            {
                let core = self.shared.lock();
                if core.session.is_open() {
                    return Ok(());
                }
                if let Some(failure) = &core.failed {
                    return Err(failure.clone().into());
                }
                if core.is_refused() {
                    drop(core);
                    let detail = self.describe_failures();
                    return Err(ClientError::Connect { detail });
                }
            }
            changed.await;
        }
    }

    fn describe_failures(&self) -> String {
        let each = self.config.replicas.iter().map(|(replica, address)| {
            let detail = self.describe_failure(*replica);
            format!("replica {} at {address}: {detail}", replica.0)
        });
        each.collect::<Vec<_>>().join("; ")
    }

    fn describe_failure(&self, replica: ReplicaId) -> String {
        let mut core = self.shared.lock();
        let leader = core.session.leader();
        let state = core.replica(replica);
        match (&state.queue, &state.failure, leader) {
            (Some(_), _, None) => "connected, but no leader is known".to_owned(),
            (Some(_), _, Some(leader)) => {
                format!("connected, replica {} leads, but no answer came", leader.0)
            }
            (None, Some(reason), _) => reason.clone(),
            (None, None, _) => "no answer yet".to_owned(),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        let code = VarInt::from_u32(CloseCode::Shutdown as u32);
        for endpoint in &self.endpoints {
            endpoint.close(code, b"the client closes");
        }
    }
}

fn session(config: &ClientConfig, ids: &[ReplicaId]) -> Result<Session, ClientError> {
    let mut replicas = ReplicaSet::EMPTY;
    for id in ids {
        let in_range = (1..=synod_engine::ids::REPLICAS_MAX).contains(&id.0);
        if !in_range || replicas.contains(*id) {
            return Err(crate::TransportError::ReplicaIds(*id).into());
        }
        replicas.insert(*id);
    }
    Ok(Session::new(SessionConfig {
        replicas,
        token: token()?,
        outstanding_max: config.outstanding_max,
        retry_after_ns: nanos(RETRY_AFTER),
        deadline_ns: nanos(config.deadline),
    }))
}

/// Whoever guesses it could use the session.
fn token() -> Result<u64, ClientError> {
    let mut bytes = [0; 8];
    let random = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&random, &mut bytes).map_err(|_| ClientError::NoRandomness)?;
    Ok(u64::from_le_bytes(bytes))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Sends what was submitted, and keeps the session's time.
async fn drive(shared: Arc<Shared>) {
    let far = Duration::from_secs(3600);
    let timer = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(timer);
    loop {
        let deadline = shared.drive();
        let at = deadline.map_or_else(
            || tokio::time::Instant::now() + far,
            |at| shared.instant(at).into(),
        );
        // The deadline moves with every reply. Waking too early once costs less than moving the timer each time.
        if at < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(at);
        }
        tokio::select! {
            () = shared.work.notified() => {}
            () = &mut timer => {}
        }
    }
}
