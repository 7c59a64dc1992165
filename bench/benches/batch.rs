//! Gathering requests into a batch, and taking it apart again.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use synod_bench::{request, value};
use synod_engine::batch::{Intake, requests};
use synod_engine::ids::SessionId;

fn batch(criterion: &mut Criterion) {
    let one = request(SessionId(7), 1, 128, 128);
    let mut group = criterion.benchmark_group("batch");
    group.throughput(Throughput::Elements(512));
    group.bench_function("gather 4 requests of 128 commands", |bencher| {
        bencher.iter_batched(
            || Intake::new(1 << 20),
            |mut intake| {
                for _ in 0..4 {
                    intake.push(&one);
                }
                intake.take()
            },
            BatchSize::SmallInput,
        );
    });
    let value = value(4, 128, 128);
    group.bench_function("take 4 requests of 128 commands apart", |bencher| {
        bencher.iter(|| {
            requests(value.clone())
                .expect("the value is well-formed")
                .map(|request| request.iter().map(<[u8]>::len).sum::<usize>())
                .sum::<usize>()
        });
    });
    group.finish();
}

criterion_group!(benches, batch);
criterion_main!(benches);
