//! Whose things on a machine are: what was not made from here is neither run nor removed.

use crate::REPLICA;
use crate::common::one_at_a_time;
use crate::machines::bed::{Bed, text};
use crate::machines::must;

#[test]
fn only_what_was_made_from_here_is_run_or_removed() {
    let _turn = one_at_a_time();
    let Some(bed) = Bed::make(&[("a", REPLICA)]) else {
        return;
    };
    let data = bed.machines.data("a");
    let chmod = |mode: &str| must("chmod", &[mode, text(&data)]);
    // Where everybody may put something else in the place of a program, none is run.
    chmod("0777");
    let refused = bed.cluster(&["up"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(
        refused.complaint().contains("chmod +t"),
        "{}",
        refused.stderr
    );
    bed.assert_nothing_left();
    chmod("1777");
    // Somebody else's folder, with a program that would tell that it was run.
    let folder = data.join("synod-lab.gone");
    std::fs::create_dir_all(folder.join("bin")).expect("made");
    let trap = folder.join("bin/synod-x");
    let ran = bed.directory.path().join("ran");
    std::fs::write(&trap, format!("#!/bin/sh\ntouch {}\n", text(&ran))).expect("written");
    must("chmod", &["-R", "777", text(&folder)]);
    must("chown", &["-R", "nobody", text(&folder)]);
    let refused = bed.cluster(&["down", "--force"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(
        refused.complaint().contains("belongs to somebody else"),
        "{}",
        refused.stderr
    );
    assert!(trap.exists() && !ran.exists());
    // Of our own user, but made by nobody that says who: not run either, and gone only when that is asked for.
    must("chown", &["-R", "root", text(&folder)]);
    let refused = bed.cluster(&["down"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.complaint().contains("does not say whose it is"),
        "{}",
        refused.stderr
    );
    assert!(trap.exists());
    bed.done(&["down", "--force"]);
    assert!(!ran.exists(), "a program that was found was run");
    bed.assert_nothing_left();
    another_persons_cluster(&bed);
}

/// Two people with inventories of one name share a host, its user and its directory.
fn another_persons_cluster(bed: &Bed) {
    bed.done(&["up"]);
    let theirs = bed.directory.path().join("theirs");
    std::fs::create_dir(&theirs).expect("made");
    let inventory = std::fs::read_to_string(&bed.inventory).expect("ours");
    let config = bed.directory.path().join("ssh_config");
    let inventory = inventory.replace("\"ssh_config\"", &format!("\"{}\"", text(&config)));
    let path = theirs.join("lab.toml");
    std::fs::write(&path, inventory).expect("written");
    let refused = bed.with(&path, &["down"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    let complaint = refused.complaint();
    assert!(
        complaint.contains(&format!(":{}", text(&bed.inventory))),
        "{complaint}"
    );
    assert!(
        complaint.contains("is cluster ") && complaint.contains("--force"),
        "{complaint}"
    );
    assert_eq!(bed.client(&["put", "colour", "blue"]).code, Some(0));
    // Certificates beside a state that is not ours stay.
    let certificates = theirs.join("mine/certificates");
    std::fs::create_dir_all(&certificates).expect("made");
    std::fs::write(certificates.join("ca.key"), "precious").expect("written");
    let forced = bed.with(
        &path,
        &["--state", text(&theirs.join("mine")), "down", "--force"],
    );
    assert_eq!(forced.code, Some(0), "{}", forced.stderr);
    assert!(certificates.join("ca.key").exists());
    // Its owner finds nothing left, and nothing in the way.
    bed.done(&["down"]);
    bed.assert_nothing_left();
}
