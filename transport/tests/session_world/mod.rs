//! A session and the cluster as it sees it, driven by a script.

use super::*;

/// The cluster as the session sees it: one replicated table, one leader, a stream each way per replica.
pub struct World {
    pub now: Time,
    pub session: Session,
    pub ballot: Ballot,
    pub leader: Option<ReplicaId>,
    pub connected: HashMap<u8, Streams>,
    /// What was executed: replicated, so it survives everything.
    pub executed: Vec<u64>,
    /// Requests that the leader answers Busy before it takes any.
    pub busy: u32,
    /// The replicas that know this client at present.
    pub attached: HashSet<u8>,
    pub closed: bool,
    pub submitted: u64,
    pub replied: u64,
}

#[derive(Default)]
pub struct Streams {
    pub up: VecDeque<Bytes>,
    pub down: VecDeque<ServerMessage>,
}

#[derive(Clone, Debug)]
pub enum Act {
    Submit(u32),
    /// The replica handles one frame.
    Up(u8),
    /// The client hears one message.
    Down(u8),
    Connect(u8),
    Disconnect(u8),
    Lead(u8),
    LoseLeader,
    Busy(u32),
    /// The last replies are lost with their stream, or come twice.
    RepeatReplies(u8),
    Pass(u64),
}

pub fn acts() -> impl Strategy<Value = Vec<Act>> {
    let replica = 1..=REPLICAS;
    let act = prop_oneof![
        6 => (1u32..6).prop_map(Act::Submit),
        8 => replica.clone().prop_map(Act::Up),
        8 => replica.clone().prop_map(Act::Down),
        2 => replica.clone().prop_map(Act::Connect),
        2 => replica.clone().prop_map(Act::Disconnect),
        2 => replica.clone().prop_map(Act::Lead),
        1 => Just(Act::LoseLeader),
        1 => (1u32..4).prop_map(Act::Busy),
        1 => replica.prop_map(Act::RepeatReplies),
        2 => (1u64..900).prop_map(Act::Pass),
    ];
    prop::collection::vec(act, 0..200)
}

impl World {
    pub fn new() -> World {
        let config = SessionConfig {
            replicas: ReplicaSet::first(REPLICAS),
            token: 4,
            outstanding_max: 1_000_000,
            retry_after_ns: 500 * MS,
            deadline_ns: 3_600_000 * MS,
        };
        World {
            now: Time(1),
            session: Session::new(config),
            ballot: Ballot::ZERO,
            leader: None,
            connected: HashMap::new(),
            executed: Vec::new(),
            busy: 0,
            attached: HashSet::new(),
            closed: false,
            submitted: 0,
            replied: 0,
        }
    }

    pub fn act(&mut self, act: &Act) {
        match act {
            Act::Submit(count) => self.submit(*count),
            Act::Up(replica) => self.up(*replica),
            Act::Down(replica) => self.down(*replica),
            Act::Connect(replica) => self.connect(*replica),
            Act::Disconnect(replica) => {
                if self.connected.remove(replica).is_some() {
                    self.attached.remove(replica);
                    self.session.on_disconnected(ReplicaId(*replica));
                }
            }
            Act::Lead(replica) => self.lead(*replica),
            Act::LoseLeader => self.leader = None,
            Act::Busy(times) => self.busy = *times,
            Act::RepeatReplies(replica) => {
                if let Some(streams) = self.connected.get_mut(replica)
                    && let Some(last) = streams.down.back().cloned()
                {
                    streams.down.push_back(last);
                }
            }
            Act::Pass(millis) => self.now = self.now.plus(millis * MS),
        }
        self.settle();
    }

    pub fn submit(&mut self, count: u32) {
        let mut run = BytesMut::new();
        for number in self.submitted + 1..=self.submitted + u64::from(count) {
            run.put_u32_le(8);
            run.put_u64_le(number);
        }
        if let Ok(first) = self.session.submit(self.now, run.freeze(), count) {
            assert_eq!(first, CommandNumber(self.submitted + 1));
            self.submitted += u64::from(count);
        }
    }

    pub fn connect(&mut self, replica: u8) {
        if self.connected.contains_key(&replica) {
            return;
        }
        let mut streams = Streams::default();
        streams.down.push_back(self.announcement());
        self.connected.insert(replica, streams);
        self.session.on_connected(self.now, ReplicaId(replica));
    }

    pub fn lead(&mut self, replica: u8) {
        self.leader = Some(ReplicaId(replica));
        self.ballot = Ballot {
            round: self.ballot.round + 1,
            replica: ReplicaId(replica),
        };
        let announcement = self.announcement();
        for streams in self.connected.values_mut() {
            streams.down.push_back(announcement.clone());
        }
    }

    pub fn announcement(&self) -> ServerMessage {
        ServerMessage::Leader {
            ballot: self.ballot,
            leader: self.leader,
        }
    }

    pub fn up(&mut self, replica: u8) {
        let frame = self
            .connected
            .get_mut(&replica)
            .and_then(|streams| streams.up.pop_front());
        let Some(mut frame) = frame else { return };
        assert_eq!(frame.get_u32_le() as usize, frame.len());
        let message = ClientMessage::decode(frame).expect("well-formed");
        let leads = self.leader == Some(ReplicaId(replica));
        let answer = match message {
            ClientMessage::Attach { session, token } => {
                assert_eq!((session, token), (SESSION, 4));
                self.attached.insert(replica);
                return;
            }
            ClientMessage::Close { session } if leads => {
                assert_eq!(session, SESSION);
                self.closed = true;
                ServerMessage::Closed { session }
            }
            ClientMessage::Close { session } => refused(session, u64::MAX, Reason::NotLeader),
            ClientMessage::Open { token } if leads => {
                self.attached.insert(replica);
                ServerMessage::Opened {
                    token,
                    session: SESSION,
                }
            }
            ClientMessage::Open { .. } => refused(SessionId::NONE, 0, Reason::NotLeader),
            ClientMessage::Request(request) if leads && !self.attached.contains(&replica) => {
                refused(SESSION, request.first.0, Reason::NotAttached)
            }
            ClientMessage::Request(request) => self.request(&request, leads),
            ClientMessage::Status => panic!("nobody asked"),
        };
        let streams = self.connected.get_mut(&replica).expect("connected");
        streams.down.push_back(answer);
    }

    pub fn request(&mut self, request: &Request, leads: bool) -> ServerMessage {
        assert_eq!(request.session, SESSION);
        assert!(
            request.acknowledged.0 <= self.replied + 1,
            "acknowledged what it never saw"
        );
        let expected = self.executed.len() as u64 + 1;
        if !leads {
            return refused(SESSION, expected, Reason::NotLeader);
        }
        if self.busy > 0 {
            self.busy -= 1;
            // At the door, nobody knows what the session's next command is.
            return refused(
                SESSION,
                request.first.0,
                Reason::Busy {
                    retry_after_us: 2_000,
                },
            );
        }
        if request.first.0 > expected {
            return refused(SESSION, expected, Reason::Gap);
        }
        let mut replies = BytesMut::new();
        for (number, command) in (request.first.0..).zip(request.iter()) {
            if number > self.executed.len() as u64 {
                self.executed
                    .push(u64::from_le_bytes(command.try_into().expect("a number")));
            }
            replies.put_u32_le(8);
            replies.put_u64_le(number);
        }
        ServerMessage::Replies(Replies {
            session: SESSION,
            first: request.first,
            count: request.count,
            replies: replies.freeze(),
        })
    }

    pub fn down(&mut self, replica: u8) {
        let message = self
            .connected
            .get_mut(&replica)
            .and_then(|streams| streams.down.pop_front());
        if let Some(message) = message {
            self.session
                .on_message(self.now, ReplicaId(replica), message);
        }
    }

    /// What the shell does after each event.
    pub fn settle(&mut self) {
        self.session.tick(self.now);
        while let Some((to, frame)) = self.session.poll(self.now) {
            let mut whole = BytesMut::from(&frame.head[..]);
            whole.put_slice(&frame.body);
            let streams = self
                .connected
                .get_mut(&to.0)
                .expect("sent to a connected replica");
            streams.up.push_back(whole.freeze());
        }
        while let Some(event) = self.session.event() {
            match event {
                Event::Opened => {}
                Event::Replies(replies) => {
                    assert_eq!(
                        replies.first.0,
                        self.replied + 1,
                        "a reply is missing or repeated"
                    );
                    assert_eq!(replies.iter().count(), replies.count as usize);
                    for reply in replies.iter() {
                        self.replied += 1;
                        assert_eq!(reply, self.replied.to_le_bytes());
                    }
                }
                Event::Gone { .. } => panic!("every reply was kept"),
                Event::Closed => {}
                Event::TimedOut { .. } | Event::Failed(_) => panic!("unexpected: {event:?}"),
            }
        }
        let expected: Vec<u64> = (1..=self.executed.len() as u64).collect();
        assert_eq!(self.executed, expected, "executed twice, or out of order");
    }

    /// Everything heals; the session has to finish.
    pub fn heal(&mut self) {
        self.busy = 0;
        for replica in 1..=REPLICAS {
            self.act(&Act::Connect(replica));
        }
        if self.leader.is_none() {
            self.lead(2);
        }
        for _ in 0..2_000 {
            for replica in 1..=REPLICAS {
                self.act(&Act::Up(replica));
                self.act(&Act::Down(replica));
            }
            let idle = self
                .connected
                .values()
                .all(|s| s.up.is_empty() && s.down.is_empty());
            if idle && self.session.is_open() && self.session.outstanding() == 0 {
                return;
            }
            if idle {
                self.now = self
                    .session
                    .deadline()
                    .expect("it waits for something")
                    .max(self.now);
                self.settle();
            }
        }
        panic!("the session does not finish");
    }
}
