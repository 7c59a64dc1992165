//! One turn of the production loop on a single replica with a free disk and network: request in, reply out.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use synod_bench::{FreeNetwork, FreeWal, request};
use synod_engine::client::{ClientMessage, ServerMessage};
use synod_engine::config::Config;
use synod_engine::driver::Driver;
use synod_engine::ids::{ClientId, ReplicaId, SessionId, Time};
use synod_engine::machine::LogMachine;
use synod_engine::recovery::{OnDisk, Recovery};
use synod_engine::seams::Arrival;
use synod_engine::snapshot::NoSnapshots;

const CLIENT: ClientId = ClientId(1);

struct Replica {
    driver: Driver<FreeWal, FreeNetwork, LogMachine>,
    now: u64,
    arrivals: Vec<Arrival>,
}

impl Replica {
    fn new() -> Replica {
        let recovery = Recovery::new(Config::new(ReplicaId(1), 1, 1), LogMachine::default());
        let wal = FreeWal::default();
        let network = FreeNetwork::default();
        let driver = recovery.start(
            Time(0),
            wal,
            network,
            NoSnapshots::default(),
            OnDisk::default(),
        );
        let mut replica = Replica {
            driver: driver.expect("nothing was trimmed"),
            now: 0,
            arrivals: Vec::new(),
        };
        for _ in 0..100 {
            replica.turn();
        }
        assert!(replica.driver.replica().serves(), "a lone replica leads");
        replica
    }

    fn turn(&mut self) {
        self.now += 10_000_000;
        self.driver
            .turn(Time(self.now), &mut self.arrivals)
            .expect("a free disk does not fail");
    }

    fn send(&mut self, message: &ClientMessage) {
        let frame = message.encode().slice(4..);
        self.arrivals.push(Arrival::Client {
            client: CLIENT,
            frame,
        });
    }

    fn open(&mut self) -> SessionId {
        self.send(&ClientMessage::Open { token: 5 });
        self.turn();
        self.turn();
        let replies = std::mem::take(&mut self.driver.network_mut().replies);
        for (_, frame) in replies {
            if let Ok(ServerMessage::Opened { session, .. }) =
                ServerMessage::decode(frame.slice(4..))
            {
                return session;
            }
        }
        panic!("the session was not opened");
    }
}

fn turn(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("turn");
    for count in [1_u32, 64, 512] {
        group.throughput(Throughput::Elements(u64::from(count)));
        group.bench_function(format!("{count} commands of 128 bytes"), |bencher| {
            let mut replica = Replica::new();
            let session = replica.open();
            let mut first = 1;
            bencher.iter(|| {
                let request = request(session, first, count, 128);
                replica.send(&ClientMessage::Request(request));
                first += u64::from(count);
                // Taken in and proposed in the first turn, durable and so chosen in the second.
                replica.turn();
                replica.turn();
                let replies = &mut replica.driver.network_mut().replies;
                assert_eq!(replies.len(), 1, "one replies frame for the request");
                replies.clear();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, turn);
criterion_main!(benches);
