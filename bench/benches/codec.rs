//! Encoding and decoding of an Accept and of a client request.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use synod_bench::{request, value};
use synod_engine::client::ClientMessage;
use synod_engine::codec;
use synod_engine::ids::{Ballot, ReplicaId, SessionId, Slot};
use synod_engine::message::{Accept, Message};

fn codec(criterion: &mut Criterion) {
    let accept = Message::Accept(Accept {
        ballot: Ballot {
            round: 3,
            replica: ReplicaId(1),
        },
        slot: Slot(1000),
        commit_index: Slot(998),
        value: value(4, 128, 128),
    });
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(512));
    group.bench_function("encode accept of 512 commands", |bencher| {
        bencher.iter(|| codec::encode(&accept));
    });
    let frame = codec::encode(&accept);
    let whole: bytes::Bytes = [&frame.head[4..], &frame.body[..]].concat().into();
    group.bench_function("decode accept of 512 commands", |bencher| {
        bencher.iter(|| codec::decode(whole.clone()));
    });
    let message = ClientMessage::Request(request(SessionId(7), 1, 512, 128));
    group.bench_function("encode request of 512 commands", |bencher| {
        bencher.iter(|| message.encode());
    });
    let encoded = message.encode().slice(4..);
    group.bench_function("decode request of 512 commands", |bencher| {
        bencher.iter(|| ClientMessage::decode(encoded.clone()));
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
