//! From acknowledgements to a commit index.

use criterion::{Criterion, criterion_group, criterion_main};
use synod_engine::ids::{ReplicaId, Slot};
use synod_engine::quorum::{Quorums, Tally};

fn quorum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("quorum");
    for replicas in [3, 5, 9] {
        let accept = Quorums::majority(replicas).accept;
        group.bench_function(format!("one acknowledgement among {replicas}"), |bencher| {
            let mut tally = Tally::new(replicas);
            let mut slot = 0;
            bencher.iter(|| {
                slot += 1;
                let from = ReplicaId(1 + (slot % u64::from(replicas)) as u8);
                tally.acknowledge(from, Slot(slot));
                tally.chosen(accept)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, quorum);
criterion_main!(benches);
