//! What leaves a replica is checked, and written to the trace if somebody listens.

use bytes::Bytes;

use synod_engine::client::ServerMessage;
use synod_engine::codec;
use synod_engine::ids::ReplicaId;

use crate::seams::Seams;
use crate::trace;

use super::World;

impl<S: Seams> World<S> {
    pub(super) fn check_frame(&mut self, from: ReplicaId, frame: &Bytes) {
        let message = codec::decode(frame.clone()).expect("replicas send well-formed frames");
        let member = &mut self.members[usize::from(from.0) - 1];
        let checked = member
            .shadow
            .check_sent(&message, member.life, &self.agreement);
        self.violate(checked);
    }

    pub(super) fn trace_frame(&mut self, from: ReplicaId, to: ReplicaId, frame: &Bytes) {
        if self.trace.listens() {
            let message = codec::decode(frame.clone()).expect("replicas send well-formed frames");
            let text = trace::message(&message);
            let cut = if self.links.open(from, to) {
                ""
            } else {
                " (cut)"
            };
            self.trace_line(format_args!("{from} -> {to} {text}{cut}"));
        }
    }

    pub(super) fn trace_answer(&mut self, from: ReplicaId, client: usize, message: &ServerMessage) {
        if self.trace.listens() {
            let text = trace::answer(message);
            self.trace_line(format_args!("{from} -> client {client} {text}"));
        }
    }
}
