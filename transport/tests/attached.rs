//! Whose session it is, and what one client can do to a replica, over real connections.

mod common;

use bytes::Bytes;
use common::{Cluster, counter, guard};
use synod_engine::client::{ClientMessage, Reason, Request, ServerMessage};
use synod_engine::config;
use synod_engine::ids::{Ballot, ClientId, CommandNumber, Owner, ReplicaId, SessionId, Slot};
use synod_engine::intake::{Admission, Attaching, Door};
use synod_engine::machine::LogMachine;
use synod_engine::reply::Scratch;
use synod_engine::seams::{Arrival, Network};
use synod_engine::sessions::Sessions;
use synod_transport::{Client, Inbox, QuicNetwork, RawClient};
use tokio::sync::oneshot;

/// The engine's door and its session table behind the gateway, and no log between them.
struct Lone {
    network: QuicNetwork,
    inbox: Inbox,
    door: Door,
    sessions: Sessions,
    machine: LogMachine,
    scratch: Scratch,
    slot: Slot,
}

/// What is left of it: its network, to be asked for counters, and how many frames came from clients.
type Left = (QuicNetwork, usize);

impl Lone {
    async fn run(mut self, mut over: oneshot::Receiver<()>) -> Left {
        let mut arrivals = Vec::new();
        let mut frames = 0;
        loop {
            tokio::select! {
                () = self.inbox.notified() => {}
                _ = &mut over => return (self.network, frames),
            }
            self.inbox.drain(&mut arrivals);
            for arrival in arrivals.drain(..) {
                match arrival {
                    Arrival::Client { client, frame } => {
                        frames += 1;
                        match ClientMessage::decode(frame) {
                            Ok(message) => self.take(client, message),
                            Err(_) => self.network.expel(client),
                        }
                    }
                    Arrival::ClientGone { client } => self.door.client_gone(client),
                    Arrival::ClientNamed { .. } | Arrival::Peer { .. } => {}
                }
            }
            self.door.tidy(&self.sessions);
            self.network.flush();
        }
    }

    fn take(&mut self, client: ClientId, message: ClientMessage) {
        match message {
            ClientMessage::Open { token } => {
                self.door.opening(token, client);
                self.apply(&Request::open(token, Owner::UNNAMED));
            }
            ClientMessage::Attach { session, token } => {
                let attaching = self
                    .door
                    .attach(client, session, token, &self.sessions, self.slot);
                if let Attaching::Refused(reason) = attaching {
                    self.refuse(client, session, CommandNumber(0), reason);
                }
            }
            ClientMessage::Request(request) => {
                let limits = config::Limits::default();
                let (session, sessions) = (request.session, &self.sessions);
                match self.door.admit(client, request, sessions, true, &limits) {
                    Admission::Admit(request) | Admission::Partly(_, request) => {
                        self.apply(&request);
                    }
                    Admission::Repeat(frames) => {
                        for frame in frames {
                            self.network.reply(client, frame);
                        }
                    }
                    Admission::Refuse { expected, reason } => {
                        self.refuse(client, session, expected, reason);
                    }
                }
            }
            ClientMessage::Close { .. } | ClientMessage::Status => {}
        }
    }

    fn apply(&mut self, request: &Request) {
        self.slot = self.slot.next();
        let (slot, machine) = (self.slot, &mut self.machine);
        let applied = self
            .sessions
            .apply(slot, 0, request, machine, &mut self.scratch);
        if let Some((client, frame)) = self.door.answer(request, applied) {
            self.network.reply(client, frame);
        }
    }

    fn refuse(
        &mut self,
        client: ClientId,
        session: SessionId,
        expected: CommandNumber,
        reason: Reason,
    ) {
        let refused = synod_engine::client::Refused {
            session,
            expected,
            reason,
        };
        let frame = ServerMessage::Refused(refused).encode();
        self.network.reply(client, frame);
    }
}

async fn lone(cluster: &Cluster) -> (oneshot::Sender<()>, tokio::task::JoinHandle<Left>) {
    let (mut network, inbox) = cluster.start(1);
    let leader = ServerMessage::Leader {
        ballot: Ballot {
            round: 1,
            replica: ReplicaId(1),
        },
        leader: Some(ReplicaId(1)),
    };
    network.announce(leader.encode());
    let lone = Lone {
        network,
        inbox,
        door: Door::default(),
        sessions: Sessions::default(),
        machine: LogMachine::default(),
        scratch: Scratch::default(),
        slot: Slot::ZERO,
    };
    let (end, over) = oneshot::channel();
    (end, tokio::spawn(lone.run(over)))
}

async fn raw(cluster: &Cluster) -> RawClient {
    let client = cluster.client(2);
    let connecting = RawClient::connect(
        &client.identity,
        client.cluster,
        cluster.address(1),
        ReplicaId(1),
    );
    guard("connects", connecting).await.expect("connected")
}

/// The next thing that is said to this client beside who leads.
async fn answer(client: &mut RawClient) -> ServerMessage {
    loop {
        let frame = guard("an answer", client.read()).await.expect("connected");
        let message = ServerMessage::decode(frame).expect("well-formed");
        if !matches!(message, ServerMessage::Leader { .. }) {
            return message;
        }
    }
}

fn foreign(session: SessionId, first: u64) -> Bytes {
    let request = Request {
        session,
        first: CommandNumber(first),
        acknowledged: CommandNumber(u64::MAX),
        count: 1,
        commands: Bytes::from_static(b"\x06\0\0\0stolen"),
    };
    ClientMessage::Request(request).encode()
}

#[tokio::test]
async fn somebody_elses_session_is_refused_and_its_client_notices_nothing() {
    let cluster = Cluster::new(1);
    let (end, task) = lone(&cluster).await;
    let client = guard("opens", Client::connect(cluster.client(1))).await;
    let client = client.expect("a session");
    let first = guard("a reply", client.call(Bytes::from_static(b"1"))).await;
    first.expect("a reply");
    let session = client.session().expect("it is open");
    let mut other = raw(&cluster).await;
    for number in [1, 2, 3] {
        other.write(&foreign(session, number)).await;
        match answer(&mut other).await {
            ServerMessage::Refused(refused) => assert_eq!(refused.reason, Reason::NotAttached),
            message => panic!("{message:?}"),
        }
    }
    for token in 0..3 {
        let attach = ClientMessage::Attach { session, token };
        other.write(&attach.encode()).await;
        match answer(&mut other).await {
            ServerMessage::Refused(refused) => assert_eq!(refused.reason, Reason::UnknownSession),
            message => panic!("{message:?}"),
        }
    }
    for _ in 0..3 {
        let reply = guard("a reply", client.call(Bytes::from_static(b"mine"))).await;
        reply.expect("the session goes on");
    }
    assert_eq!(client.counters().resent, 0);
    drop(end);
    task.await.expect("no panic");
}

#[tokio::test]
async fn a_million_questions_are_a_few_arrivals_and_garbage_ends_the_connection() {
    let cluster = Cluster::new(1);
    let (end, task) = lone(&cluster).await;
    let mut flood = raw(&cluster).await;
    let status = ClientMessage::Status.encode();
    let mut written = 0;
    while written < 1_000_000 {
        // What finds no room is kept, but not without end.
        let before = flood.sent;
        flood.write(&status.repeat(1_000)).await;
        written += (flood.sent - before) / status.len() as u64;
    }
    for _ in 0..2_000 {
        flood.write(b"\x03\0\0\0\xffno").await;
    }
    guard("disconnected", async {
        while !flood.is_closed() {
            flood.write(b"\x03\0\0\0\xffno").await;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    })
    .await;
    drop(end);
    let (network, frames) = task.await.expect("no panic");
    let dropped = counter(&network, "inbox_status_coalesced");
    assert!(dropped > 500_000, "{frames} frames reached the engine");
    assert!(
        (frames as u64) < 500_000,
        "{frames} frames reached the engine"
    );
    assert_eq!(counter(&network, "protocol_violations"), 1);
}
