//! What peers ask of this replica.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use openraft::Raft;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use synod_engine::ids::ReplicaId;
use synod_engine::seams::Lane;
use tokio::sync::mpsc;

use crate::codec::Rpc;
use crate::machine::Machine;
use crate::shared::Shared;
use crate::types::Types;

/// Streams of all peers: one of entries and one of heartbeats each, and some that end just now.
const STREAMS_MAX: usize = 256;

pub struct Server {
    shared: Arc<Shared>,
    raft: Raft<Types, Machine>,
    streams: HashMap<(ReplicaId, u64), mpsc::UnboundedSender<AppendEntriesRequest<Types>>>,
}

impl Server {
    pub fn new(shared: Arc<Shared>, raft: Raft<Types, Machine>) -> Server {
        Server {
            shared,
            raft,
            streams: HashMap::new(),
        }
    }

    pub fn raft(&self) -> &Raft<Types, Machine> {
        &self.raft
    }

    pub fn take(&mut self, from: ReplicaId, rpc: Rpc) {
        match rpc {
            Rpc::Vote { id, request } => self.vote(from, id, request, false),
            Rpc::PreVote { id, request } => self.vote(from, id, request, true),
            Rpc::VoteReply { id, reply } => {
                let asker = self.shared.lock().votes.remove(&id);
                if let Some(asker) = asker {
                    // Whoever gave up waiting needs no answer.
                    let _ = asker.send(reply);
                }
            }
            Rpc::Append { id, request } => self.append(from, id, request),
            Rpc::AppendEnd { id } => {
                self.streams.remove(&(from, id));
            }
            Rpc::AppendReply { id, reply } => {
                let state = self.shared.lock();
                if let Some(stream) = state.streams.get(&id) {
                    // A stream that was given up needs no answers.
                    let _ = stream.send(reply);
                }
            }
        }
    }

    fn vote(&self, to: ReplicaId, id: u64, request: VoteRequest<Types>, pre: bool) {
        let (shared, raft) = (Arc::clone(&self.shared), self.raft.clone());
        tokio::spawn(async move {
            let reply = match pre {
                true => raft.pre_vote(request).await,
                false => raft.vote(request).await,
            };
            // An error means that the library has stopped, which the next turn reports.
            if let Ok(reply) = reply {
                shared.send(to, Lane::Control, Rpc::VoteReply { id, reply });
            }
        });
    }

    fn append(&mut self, from: ReplicaId, id: u64, request: AppendEntriesRequest<Types>) {
        let known = self.streams.get(&(from, id));
        if known.is_none() {
            self.streams.retain(|_, stream| !stream.is_closed());
            if self.streams.len() >= STREAMS_MAX {
                return;
            }
        }
        let stream = self
            .streams
            .entry((from, id))
            .or_insert_with(|| serve(&self.shared, &self.raft, from, id));
        // It ended with an error that the peer was told.
        let _ = stream.send(request);
    }
}

/// Starts answering one stream of requests, in order.
fn serve(
    shared: &Arc<Shared>,
    raft: &Raft<Types, Machine>,
    to: ReplicaId,
    id: u64,
) -> mpsc::UnboundedSender<AppendEntriesRequest<Types>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let requests = stream::unfold(receiver, |mut receiver| async move {
        let request = receiver.recv().await?;
        Some((request, receiver))
    });
    let replies = raft.stream_append(requests);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let mut replies = Box::pin(replies);
        while let Some(Ok(reply)) = replies.next().await {
            shared.send(to, Lane::Control, Rpc::AppendReply { id, reply });
        }
    });
    sender
}
