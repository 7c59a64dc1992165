//! What a turn of the event loop did: in which order its parts come, so that whoever has a clock can tell which one took
//! long, and how much work it was, in numbers that need no clock. Everything else waits for the end of a turn, heartbeats
//! too.

/// The parts of a turn, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// What the snapshot store finished, and an install.
    Store,
    /// Messages of peers and clients.
    Arrivals,
    /// What became durable, deadlines, proposals.
    Core,
    /// Handing records to the WAL.
    Persist,
    /// Encoding messages and handing them to the links.
    Replicate,
    /// Executing what is chosen, with its replies.
    Apply,
    /// Reading slots back for peers, snapshots, the status.
    Serve,
    /// Handing everything to the network.
    Flush,
}

impl Stage {
    pub const ALL: [Stage; 8] = [
        Stage::Store,
        Stage::Arrivals,
        Stage::Core,
        Stage::Persist,
        Stage::Replicate,
        Stage::Apply,
        Stage::Serve,
        Stage::Flush,
    ];
}

/// What one turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Frames of peers and clients.
    pub messages: u64,
    /// Commands executed, or recognised as repeated, ahead of their turn or of no session.
    pub commands: u64,
    /// Sessions opened, evicted or searched for replies that can go.
    pub sessions: u64,
    /// Bytes of the values applied and of the replies written.
    pub bytes: u64,
}

/// Bytes that are about as much work as a command is besides its bytes.
const BYTES_PER_UNIT: u64 = 256;

impl Work {
    /// About how many hundreds of nanoseconds it takes.
    pub fn units(&self) -> u64 {
        self.messages + self.commands + self.sessions + self.bytes / BYTES_PER_UNIT
    }

    /// What was done since `before`, of counts that only grow.
    pub fn since(&self, before: &Work) -> Work {
        Work {
            messages: self.messages.saturating_sub(before.messages),
            commands: self.commands.saturating_sub(before.commands),
            sessions: self.sessions.saturating_sub(before.sessions),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
}
