//! `synod certs`, and certificates that change under a cluster of real processes.

mod common;

use std::path::Path;

use common::{Files, run, wait_until};

fn certs(directory: &Path, words: &[&str]) -> common::Finished {
    let directory = directory.to_str().expect("utf-8");
    let mut all = vec!["certs", "--out", directory];
    all.extend_from_slice(words);
    run(&all)
}

fn listed(directory: &Path) -> Vec<serde_json::Value> {
    let shown = run(&[
        "certs",
        "--show",
        directory.to_str().expect("utf-8"),
        "--json",
    ]);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    serde_json::from_str(&shown.stdout).expect("a list")
}

fn fingerprint(directory: &Path, file: &str) -> String {
    let listed = listed(directory);
    let found = listed.iter().find(|each| each["file"] == file);
    let found = found.unwrap_or_else(|| panic!("{file} is not listed"));
    found["fingerprint"].as_str().expect("a string").to_owned()
}

/// A `client.toml` that goes by another certificate.
fn client_as(files: &Files, name: &str, arguments: &[&str]) -> common::Finished {
    let toml = files
        .client_toml()
        .replace("certs/client.", &format!("certs/client-{name}."));
    let path = files.directory.join(format!("client-{name}.toml"));
    std::fs::write(&path, toml).expect("written");
    let mut all = vec!["client", "--config", path.to_str().expect("utf-8")];
    all.extend_from_slice(arguments);
    run(&all)
}

#[test]
fn a_set_is_made_completed_added_to_renewed_and_listed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let set = directory.path().join("certs");
    let made = certs(&set, &["--replicas", "2", "--days", "30"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let again = certs(&set, &["--replicas", "2"]);
    assert_eq!(again.code, Some(2), "{}", again.stderr);
    assert!(
        again.stderr.contains("nothing is overwritten"),
        "{}",
        again.stderr
    );

    // What an interruption left out is made; the rest stays.
    let client = fingerprint(&set, "client.pem");
    std::fs::remove_file(set.join("replica-2.pem")).expect("removed");
    let completed = certs(&set, &["--replicas", "2"]);
    assert_eq!(completed.code, Some(0), "{}", completed.stderr);
    assert_eq!(completed.stdout, made.stdout, "another cluster");
    assert_eq!(fingerprint(&set, "client.pem"), client);

    let added = certs(&set, &["--add", "client:alice", "--add", "replica:3"]);
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    let all = listed(&set);
    let roles: Vec<&str> = all
        .iter()
        .map(|each| each["role"].as_str().expect("a string"))
        .collect();
    let expected = [
        "CA",
        "client alice",
        "the unnamed client",
        "replica 1",
        "replica 2",
        "replica 3",
    ];
    assert_eq!(roles, expected);
    let shown = run(&["certs", "--show", set.to_str().expect("utf-8")]);
    assert!(
        shown.stdout.contains(&client) && shown.stdout.contains("client alice"),
        "{}",
        shown.stdout
    );

    let renewed = certs(&set, &["--renew", "--only", "client", "--days", "60"]);
    assert_eq!(renewed.code, Some(0), "{}", renewed.stderr);
    assert_ne!(fingerprint(&set, "client.pem"), client);
    let left = |file: &str| {
        let all = listed(&set);
        let found = all
            .iter()
            .find(|each| each["file"] == file)
            .expect("listed");
        found["expires_s"].as_u64().expect("a number") / 86_400
    };
    assert!((59..=60).contains(&left("client.pem")));
    assert!((29..=30).contains(&left("replica-1.pem")));
    let renewed = certs(&set, &["--renew"]);
    assert_eq!(renewed.code, Some(0), "{}", renewed.stderr);
    assert!(left("replica-1.pem") > 300);

    for (words, named) in [
        (&["--add", "client:A B"][..], "no name of a client"),
        (&["--add", "server:1"], "expected replica:N"),
        (&["--renew", "--only", "replica:9"], "replica-9.pem"),
        (&["--only", "client"], "--renew"),
        (&["--renew", "--cluster", "7"], "leave out --cluster"),
    ] {
        let refused = certs(&set, words);
        assert_eq!(refused.code, Some(2), "{words:?}: {}", refused.stderr);
        assert!(
            refused.stderr.contains(named),
            "{words:?}: {}",
            refused.stderr
        );
        assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    }
    std::fs::remove_file(set.join("ca.key")).expect("removed");
    for words in [&["--renew"][..], &["--add", "client:bob"]] {
        let refused = certs(&set, words);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(
            refused.stderr.contains("ca.key is missing"),
            "{}",
            refused.stderr
        );
    }
}

#[test]
fn a_running_cluster_takes_in_renewed_added_and_revoked_certificates() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let files = Files::make(directory.path(), 3);
    let set = directory.path().join("certs");
    let mut replicas: Vec<_> = (1..=3).map(|id| files.start(id, true)).collect();
    let put = files.client(&["put", "colour", "blue"]);
    assert_eq!(put.code, Some(0), "{}", put.stderr);
    for id in 1..=3 {
        wait_until("the links come up", || {
            files.counter(id, "links_up") == Some(2)
        });
    }
    let days = |id| files.counter(id, "certificate_expires_s").unwrap_or(0) / 86_400;
    assert!((364..=365).contains(&days(1)), "{}", days(1));

    // Renewed: taken in by themselves, and by SIGHUP at once.
    let renewed = certs(&set, &["--renew", "--days", "700"]);
    assert_eq!(renewed.code, Some(0), "{}", renewed.stderr);
    let hangup = rustix::process::Signal::HUP;
    rustix::process::kill_process(replicas[0].id(), hangup).expect("our child");
    for id in 1..=3 {
        wait_until("the renewed certificate is in use", || days(id) > 600);
        assert_eq!(files.counter(id, "link_reconnects"), Some(0));
        assert_eq!(files.counter(id, "links_up"), Some(2));
    }

    // A restart, whose links are made with the new ones.
    let three = replicas.pop().expect("three");
    assert_eq!(three.stop(), Some(0));
    replicas.push(files.start(3, false));
    for id in 1..=3 {
        wait_until("the links come back", || {
            files.counter(id, "links_up") == Some(2)
        });
    }

    // A client that is added gets in, until it is revoked; the others do not notice.
    let added = certs(&set, &["--add", "client:alice"]);
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    let got = client_as(&files, "alice", &["get", "colour"]);
    assert_eq!(
        (got.code, got.stdout.trim()),
        (Some(0), "blue"),
        "{}",
        got.stderr
    );
    let line = format!(
        "{} # left the team\n",
        fingerprint(&set, "client-alice.pem")
    );
    std::fs::write(set.join("revoked.txt"), line).expect("written");
    for (id, replica) in (1..).zip(&replicas) {
        let before = files
            .counter(id, "certificate_renewals")
            .expect("it answers");
        rustix::process::kill_process(replica.id(), hangup).expect("our child");
        wait_until("the list is read", || {
            files
                .counter(id, "certificate_renewals")
                .is_some_and(|now| now > before)
        });
    }
    let refused = client_as(&files, "alice", &["get", "colour"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stdout);
    assert!(
        refused.stderr.to_lowercase().contains("revoked"),
        "{}",
        refused.stderr
    );
    let got = files.client(&["get", "colour"]);
    assert_eq!(got.stdout.trim(), "blue", "{}", got.stderr);

    // Files that are no good are refused with a line, and what was in use stays so.
    std::fs::write(set.join("replica-1.pem"), "nonsense").expect("written");
    let refusals = || files.counter(1, "certificate_renewals_refused");
    wait_until("the bad file is refused", || refusals() == Some(1));
    let log = std::fs::read_to_string(files.log(1)).expect("a log");
    let line = log
        .lines()
        .find(|line| line.contains("the old ones stay"))
        .expect("a line");
    assert!(line.contains("replica-1.pem"), "{line}");
    assert!(days(1) > 600);
    let put = files.client(&["put", "colour", "red"]);
    assert_eq!(put.code, Some(0), "{}", put.stderr);
    for replica in replicas {
        assert_eq!(replica.stop(), Some(0));
    }
}

#[test]
fn a_certificate_that_ends_soon_is_told_by_its_replica() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let files = Files::make(directory.path(), 1);
    let set = directory.path().join("certs");
    let renewed = certs(&set, &["--renew", "--days", "5"]);
    assert_eq!(renewed.code, Some(0), "{}", renewed.stderr);
    let replica = files.start(1, true);
    let log = || std::fs::read_to_string(files.log(1)).expect("a log");
    // Five days are left for a second, and then four and a bit.
    wait_until("the end is told", || {
        ["4 days", "5 days"]
            .iter()
            .any(|left| log().contains(&format!("the certificate ends in {left}")))
    });
    assert_eq!(replica.stop(), Some(0));
    assert_eq!(log().matches("the certificate ends").count(), 1);

    let key = set.join("replica-1.key");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&key, mode).expect("ours");
    let config = files.config(1);
    let refused = run(&["replica", "--config", config.to_str().expect("utf-8")]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    let line = refused.stderr.lines().last().expect("a line");
    assert!(
        line.contains("replica-1.key") && line.contains("chmod 600"),
        "{line}"
    );
}
