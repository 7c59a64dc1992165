//! Bad input gives one clear line and a non-zero exit, and loses nothing.

mod common;

use std::path::Path;

use common::{Files, Finished, directory, one_at_a_time, run};

const USAGE: Option<i32> = Some(2);

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

fn refused(finished: &Finished, code: Option<i32>, expected: &[&str]) {
    let complaint = finished.complaint();
    assert_eq!(finished.code, code, "{complaint}");
    for part in expected {
        assert!(complaint.contains(part), "`{complaint}` lacks `{part}`");
    }
}

/// Writes a variant of replica 1's configuration and starts it.
fn replica_with(files: &Files, change: impl FnOnce(String) -> String, flags: &[&str]) -> Finished {
    let config = files.directory.join("variant.toml");
    std::fs::write(&config, change(files.replica_toml(1))).expect("written");
    let mut arguments = vec!["replica", "--exit-with-parent", "--config", text(&config)];
    arguments.extend_from_slice(flags);
    run(&arguments)
}

#[test]
fn segments_that_do_not_take_a_whole_batch_are_refused_before_anything_is_made() {
    let directory = directory();
    let files = Files::make(directory.path(), 3);
    let small = |toml| format!("{toml}\n[storage]\nsegment_bytes = 1048576\n");
    let finished = replica_with(&files, small, &["--init"]);
    let expected = ["1048576", "batch_bytes_max is 1048576", "segment_bytes"];
    refused(&finished, USAGE, &expected);
    assert!(!files.data(1).exists());
}

#[test]
fn the_command_line() {
    refused(&run(&["run", "--frob"]), USAGE, &["--frob"]);
    refused(&run(&["frob"]), USAGE, &["frob"]);
    refused(&run(&[]), USAGE, &["a command is missing"]);
    refused(&run(&["wal"]), USAGE, &["a command is missing"]);
    refused(
        &run(&["run", "--replicas", "16"]),
        USAGE,
        &["16", "--replicas"],
    );
    refused(
        &run(&["run", "--rate", "5", "--outstanding", "5"]),
        USAGE,
        &["--rate"],
    );
    refused(
        &run(&["run", "--payload", "8"]),
        USAGE,
        &["--payload 8", "at least 16"],
    );
    refused(
        &run(&["run", "--payload", "32", "--state-machine", "kv"]),
        USAGE,
        &["at least 40"],
    );
    refused(
        &run(&["run", "--payload", "999999"]),
        USAGE,
        &["the limit is 262144 bytes"],
    );
    refused(
        &run(&["run", "--outstanding", "900000", "--clients", "1"]),
        USAGE,
        &["--outstanding 900000", "65536"],
    );
    refused(
        &run(&["run", "--kill-leader-after", "10"]),
        USAGE,
        &["kill leader at 10s", "--seconds"],
    );
    refused(&run(&["run", "--surge", "5x@3s+3s"]), USAGE, &["--rate"]);
    refused(
        &run(&["run", "--rate", "5", "--surge", "5x@3s"]),
        USAGE,
        &["FACTORx@START+LENGTH"],
    );
    refused(
        &run(&["run", "--rate", "5", "--surge", "5x@3s+7s"]),
        USAGE,
        &["5x@3000ms+7000ms", "--seconds"],
    );
    refused(&run(&["run", "--name", "../x"]), USAGE, &["--name ../x"]);
    refused(
        &run(&["certs", "--out", "x", "--cluster", "zz"]),
        USAGE,
        &["--cluster", "zz"],
    );
    refused(&run(&["client", "get", "a"]), USAGE, &["--ca is missing"]);
    let help = run(&["run", "--help"]);
    assert_eq!(help.code, Some(0));
    assert!(help.stdout.contains("Examples:"));
}

#[test]
fn the_configuration_of_a_replica() {
    let directory = directory();
    let files = Files::make(directory.path(), 3);
    let missing = run(&[
        "replica",
        "--config",
        text(&files.directory.join("none.toml")),
    ]);
    refused(&missing, USAGE, &["none.toml", "cannot be read"]);
    let unknown = replica_with(&files, |toml| format!("frob = 1\n{toml}"), &[]);
    refused(&unknown, USAGE, &["variant.toml:1", "unknown field `frob`"]);
    let own_id = replica_with(
        &files,
        |toml| toml.replace("replica = 1\n", "replica = 9\n"),
        &[],
    );
    refused(&own_id, USAGE, &["variant.toml", "replica = 9", "[peers]"]);
    let no_certificate = replica_with(
        &files,
        |toml| toml.replace("ca.pem", "none.pem"),
        &["--init"],
    );
    refused(&no_certificate, USAGE, &["none.pem"]);
    let other_certificate = replica_with(
        &files,
        |toml| toml.replace("certs/replica-1", "certs/replica-2"),
        &[],
    );
    refused(&other_certificate, USAGE, &["replica-2.pem", "is not for"]);
}

#[test]
fn the_data_directory_of_a_replica() {
    let directory = directory();
    let files = Files::make(directory.path(), 3);
    let data = files.data(1);
    let start =
        |change: &dyn Fn(String) -> String, flags: &[&str]| replica_with(&files, change, flags);
    let same = |toml: String| toml;
    refused(&start(&same, &[]), USAGE, &[text(&data), "--init"]);
    assert!(!data.exists(), "asking makes nothing");
    // A regular file where a directory has to be made: not writable by anyone, root included.
    let under_a_file = |toml: String| toml.replace("\"data-1\"", "\"client.toml/data\"");
    refused(
        &start(&under_a_file, &["--init"]),
        USAGE,
        &["client.toml/data"],
    );

    // Initialised by replica 1, with its port taken so that it goes no further.
    let port = std::net::UdpSocket::bind(("127.0.0.1", files.ports[0])).expect("it is free");
    let in_use = start(&same, &["--init"]);
    refused(
        &in_use,
        USAGE,
        &["cannot listen", &files.ports[0].to_string()],
    );
    drop(port);
    let before = contents(&data);
    refused(
        &start(&same, &["--init"]),
        USAGE,
        &[text(&data), "initialised already"],
    );
    let as_other = |toml: String| {
        let toml = toml.replace("replica = 1\n", "replica = 2\n");
        toml.replace("certs/replica-1", "certs/replica-2")
    };
    refused(
        &start(&as_other, &[]),
        USAGE,
        &[text(&data), "belongs to replica"],
    );
    assert_eq!(contents(&data), before, "a refusal changes nothing");

    let identity = data.join("identity");
    let mut bytes = std::fs::read(&identity).expect("made by init");
    bytes[8] = 99;
    std::fs::write(&identity, bytes).expect("written");
    refused(&start(&same, &[]), USAGE, &["identity", "version 99"]);
    let inspected = run(&["wal", "verify", text(&data)]);
    refused(&inspected, USAGE, &["version 99"]);
}

/// Every file of a directory but the lock, which names the process that last used it.
fn contents(directory: &Path) -> Vec<(String, u64, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("a directory")
        .map(|file| file.expect("readable"))
        .map(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            let mut bytes = std::fs::read(file.path()).expect("readable");
            let length = bytes.len() as u64;
            bytes.truncate(1 << 16);
            (name, length, bytes)
        })
        .filter(|(name, _, _)| name != "lock")
        .collect();
    files.sort();
    files
}

#[test]
fn strangers_are_turned_away_and_change_nothing() {
    let _turn = one_at_a_time();
    let (ours, theirs) = (directory(), directory());
    let files = Files::make(ours.path(), 1);
    let other = Files::make(theirs.path(), 1);
    let _replica = files.start(1, true);
    assert_eq!(files.client(&["put", "key", "value"]).code, Some(0));

    // Another authority's client certificate, on our address.
    let stranger = |ca: &Path, certs: &Path, cluster: &str| {
        let (ca, cert, key) = (
            ca.join("certs/ca.pem"),
            certs.join("certs/client.pem"),
            certs.join("certs/client.key"),
        );
        let address = format!("1=127.0.0.1:{}", files.ports[0]);
        run(&[
            "client",
            "--deadline-ms",
            "5000",
            "--ca",
            text(&ca),
            "--cert",
            text(&cert),
            "--key",
            text(&key),
            "--cluster",
            cluster,
            "--replica",
            &address,
            "put",
            "key",
            "stolen",
        ])
    };
    let (ours, theirs) = (&files.directory, &other.directory);
    // A certificate that does not even claim to be of this cluster is refused before anything is sent.
    let mismatch = stranger(ours, theirs, &files.cluster);
    refused(&mismatch, Some(1), &["client.pem", "is not for client"]);
    let wrong_authority = stranger(theirs, theirs, &other.cluster);
    refused(&wrong_authority, Some(1), &["no session", "UnknownIssuer"]);
    let wrong_cluster = stranger(ours, ours, "1234");
    refused(
        &wrong_cluster,
        Some(1),
        &["client.pem", "is not for client"],
    );

    // Garbage on the port.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    for length in [1, 20, 1_200, 9_000] {
        let garbage: Vec<u8> = (0..length).map(|at| (at * 7 + length) as u8).collect();
        socket
            .send_to(&garbage, ("127.0.0.1", files.ports[0]))
            .expect("sent");
    }
    assert_eq!(files.client(&["get", "key"]).stdout, "value\n");
}
