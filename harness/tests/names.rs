//! A cluster of real processes whose files have names in them.

mod common;

use common::{Files, wait_until};

#[test]
fn replicas_and_clients_find_each_other_by_name() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let files = Files::make(directory.path(), 3);
    for id in 1..=3 {
        let toml = files.replica_toml(id);
        let (own, peers) = toml.split_once("[peers]").expect("a table");
        let mut peers = peers.replace("127.0.0.1", "localhost");
        if id == 1 {
            // Its table leads to nobody; it is a line in the log, and the other two are a quorum.
            let port = files.ports[2];
            peers = peers.replace(
                &format!("localhost:{port}"),
                &format!("nobody.invalid:{port}"),
            );
        }
        std::fs::write(files.config(id), format!("{own}[peers]{peers}")).expect("written");
    }
    let client = files.client_toml().replace("127.0.0.1", "localhost");
    std::fs::write(files.client_config(), client).expect("written");
    let replicas: Vec<_> = (1..=3).map(|id| files.start(id, true)).collect();
    let put = files.client(&["put", "colour", "blue"]);
    assert_eq!(put.code, Some(0), "{}", put.stderr);
    wait_until("the link of 2 and 3", || {
        files.counter(3, "links_up") == Some(1)
    });
    let log = || std::fs::read_to_string(files.log(1)).expect("a log");
    wait_until("the name is told", || {
        log().contains("the name nobody.invalid ")
    });
    for replica in replicas {
        assert_eq!(replica.stop(), Some(0));
    }
}
