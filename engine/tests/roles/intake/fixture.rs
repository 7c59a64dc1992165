//! A door before a session table, and requests to knock with.

use super::*;

/// A run of commands, each of `bytes` bytes that say its number.
pub fn request(session: SessionId, first: u64, count: u32, bytes: usize) -> Request {
    let mut commands = BytesMut::new();
    for number in first..first + u64::from(count) {
        commands.put_u32_le(bytes as u32);
        commands.put_bytes(number as u8, bytes);
    }
    Request {
        session,
        first: CommandNumber(first),
        acknowledged: CommandNumber(0),
        count,
        commands: commands.freeze(),
    }
}

pub struct Fixture {
    pub door: Door,
    pub sessions: Sessions,
    pub limits: Limits,
    pub session: SessionId,
    pub has_room: bool,
    pub slot: u64,
}

impl Fixture {
    pub fn new() -> Fixture {
        let mut fixture = Fixture {
            door: Door::default(),
            sessions: Sessions::default(),
            limits: Limits::default(),
            session: session_id(Slot(1), 0),
            has_room: true,
            slot: 0,
        };
        fixture.execute(&Request::open(1, Owner::UNNAMED));
        fixture.attach(CLIENT, fixture.session, 1);
        fixture
    }

    pub fn execute(&mut self, request: &Request) -> Applied {
        self.slot += 1;
        let mut machine = LogMachine::default();
        let slot = Slot(self.slot);
        self.sessions
            .apply(slot, 0, request, &mut machine, &mut Scratch::default())
    }

    pub fn attach(&mut self, client: ClientId, session: SessionId, token: u64) -> Attaching {
        let applied = Slot(self.slot);
        self.door
            .attach(client, session, token, &self.sessions, applied)
    }

    /// The frame that answers a request that executes now.
    pub fn frame(&mut self, first: u64, count: u32) -> Bytes {
        match self.execute(&request(self.session, first, count, 1)) {
            Applied::Executed(frame) => frame,
            other => panic!("{other:?}"),
        }
    }

    pub fn offer(&mut self, request: Request) -> Admission {
        let (sessions, limits) = (&self.sessions, &self.limits);
        self.door
            .admit(CLIENT, request, sessions, self.has_room, limits)
    }

    pub fn admit(&mut self, first: u64, count: u32) -> Admission {
        self.offer(request(self.session, first, count, 1))
    }

    pub fn admitted(&self, first: u64, count: u32) -> Admission {
        Admission::Admit(request(self.session, first, count, 1))
    }
}
