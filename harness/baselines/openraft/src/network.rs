//! The library's way to one peer: votes as questions with an answer, entries as a pipelined stream.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, OptionalSend, RaftNetworkFactory, alias};
use synod_engine::ids::ReplicaId;
use synod_engine::seams::Lane;
use tokio::sync::{mpsc, oneshot};

use crate::codec::Rpc;
use crate::shared::Shared;
use crate::types::{Types, Vote};

/// Requests of one stream without an answer: what raft-rs' inflight window is set to.
const IN_FLIGHT_MAX: usize = 256;
/// A stream on which nothing was answered for this long is given up, and the library opens another one.
const SILENCE_MAX: Duration = Duration::from_millis(1_500);

pub struct Factory(pub Arc<Shared>);

/// A way to one peer.
pub struct Peer {
    shared: Arc<Shared>,
    peer: ReplicaId,
    /// Heartbeats overtake entries.
    lane: Lane,
}

/// One stream of requests, from its first to its end.
struct Appending<S> {
    shared: Arc<Shared>,
    peer: ReplicaId,
    lane: Lane,
    id: u64,
    requests: Option<S>,
    replies: mpsc::UnboundedReceiver<StreamAppendResult<Types>>,
    in_flight: usize,
}

type Answer = Result<StreamAppendResult<Types>, RPCError<Types>>;

impl RaftNetworkFactory<Types> for Factory {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Peer {
        self.peer(target, Lane::Data)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &EmptyNode) -> Peer {
        self.peer(target, Lane::Control)
    }
}

impl Factory {
    fn peer(&self, target: u64, lane: Lane) -> Peer {
        Peer {
            shared: Arc::clone(&self.0),
            peer: ReplicaId(target as u8),
            lane,
        }
    }
}

impl Peer {
    async fn ask(
        &self,
        option: &RPCOption,
        rpc: impl FnOnce(u64) -> Rpc,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let id = self.shared.next_id();
        let (sender, receiver) = oneshot::channel();
        self.shared.lock().votes.insert(id, sender);
        self.shared.send(self.peer, Lane::Control, rpc(id));
        let answer = tokio::time::timeout(option.soft_ttl(), receiver).await;
        self.shared.lock().votes.remove(&id);
        match answer {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) | Err(_) => Err(Unreachable::from_string("no answer to a vote").into()),
        }
    }
}

impl<S> Appending<S>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Unpin,
{
    /// The next answer, in the order of the requests. Sends requests as they come meanwhile. `None` when the requests
    /// have ended and all of them are answered: that is no error.
    async fn next(&mut self) -> Option<Answer> {
        loop {
            if self.requests.is_none() && self.in_flight == 0 {
                return None;
            }
            let (sending, waiting) = (self.in_flight < IN_FLIGHT_MAX, self.in_flight > 0);
            tokio::select! {
                biased;
                reply = self.replies.recv(), if waiting => {
                    self.in_flight -= 1;
                    return reply.map(Ok);
                }
                request = request(&mut self.requests), if sending => match request {
                    Some(request) => {
                        self.in_flight += 1;
                        let id = self.id;
                        self.shared.send(self.peer, self.lane, Rpc::Append { id, request });
                    }
                    None => self.end(),
                },
                () = tokio::time::sleep(SILENCE_MAX), if waiting => {
                    return Some(Err(NetworkError::from_string("no answer to entries").into()));
                }
            }
        }
    }

    fn end(&mut self) {
        if self.requests.take().is_some() {
            let id = self.id;
            self.shared
                .send(self.peer, self.lane, Rpc::AppendEnd { id });
        }
    }
}

/// The next request; never, once they have ended.
async fn request<S>(requests: &mut Option<S>) -> Option<AppendEntriesRequest<Types>>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Unpin,
{
    match requests {
        Some(requests) => requests.next().await,
        None => std::future::pending().await,
    }
}

impl<S> Drop for Appending<S> {
    fn drop(&mut self) {
        self.shared.lock().streams.remove(&self.id);
        if self.requests.take().is_some() {
            let id = self.id;
            self.shared
                .send(self.peer, self.lane, Rpc::AppendEnd { id });
        }
    }
}

impl NetStreamAppend<Types> for Peer {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Answer>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let id = self.shared.next_id();
        let (sender, replies) = mpsc::unbounded_channel();
        self.shared.lock().streams.insert(id, sender);
        let appending = Appending {
            shared: Arc::clone(&self.shared),
            peer: self.peer,
            lane: self.lane,
            id,
            requests: Some(input),
            replies,
            in_flight: 0,
        };
        let answers = stream::unfold(Some(appending), |appending| async move {
            let mut appending = appending?;
            let answer = appending.next().await?;
            let goes_on = matches!(answer, Ok(Ok(_)));
            Some((answer, goes_on.then_some(appending)))
        });
        let answers: BoxStream<'s, Answer> = Box::pin(answers);
        Box::pin(async move { Ok(answers) })
    }
}

impl NetVote<Types> for Peer {
    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(&option, |id| Rpc::Vote { id, request }).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask(&option, |id| Rpc::PreVote { id, request }).await
    }
}

impl NetSnapshot<Types> for Peer {
    type SnapshotData = ();

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: alias::SnapshotOf<Types, ()>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(Unreachable::from_string("no baseline makes snapshots").into())
    }
}

impl NetTransferLeader<Types> for Peer {
    async fn transfer_leader(
        &mut self,
        _request: TransferLeaderRequest<Types>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        Err(Unreachable::from_string("leadership is never handed over").into())
    }
}

impl NetBackoff<Types> for Peer {
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}
