use super::*;

const GOOD: &str = r#"
port = 7500
[[host]]
name = "a"
address = "10.0.0.1"
roles = ["replica"]
data = "/data"
cpus = "0-1,4"
[[host]]
name = "b"
address = "10.0.0.2"
ssh = { user = "bench", port = 2222 }
roles = ["replica", "client"]
replicas = 2
data = "/data"
"#;

fn read(text: &str) -> Result<Inventory, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.toml");
    std::fs::write(&path, text).unwrap();
    Inventory::read(&path).map_err(|error| format!("{error:#}"))
}

#[test]
fn replicas_are_numbered_over_the_hosts() {
    let inventory = read(GOOD).unwrap();
    let places: Vec<(u8, usize, String)> = inventory
        .replicas
        .iter()
        .map(|place| (place.id.0, place.host, place.address.to_string()))
        .collect();
    let expected = [
        (1, 0, "10.0.0.1:7500"),
        (2, 1, "10.0.0.2:7500"),
        (3, 1, "10.0.0.2:7501"),
    ];
    assert_eq!(
        places,
        expected.map(|(id, host, at)| (id, host, at.to_owned()))
    );
    assert_eq!(inventory.name, "cluster");
    assert_eq!(inventory.with_role(Role::Client), [1]);
}

#[test]
fn a_machine_named_twice_shares_its_ports() {
    let inventory = read(&GOOD.replace("10.0.0.2", "10.0.0.1")).unwrap();
    let ports: Vec<u16> = inventory
        .replicas
        .iter()
        .map(|place| place.address.port())
        .collect();
    assert_eq!(ports, [7500, 7501, 7502]);
}

#[test]
fn each_mistake_is_named_with_its_line() {
    let cases = [
        (
            GOOD.replace("cpus", "cpu"),
            "cluster.toml:8: unknown field `cpu`",
        ),
        (
            GOOD.replace("\"b\"", "\"a\""),
            "cluster.toml:9: there are two hosts named `a`",
        ),
        (
            GOOD.replace("\"b\"", "\"b/c\""),
            "cluster.toml:9: name of a host `b/c`",
        ),
        (
            GOOD.replace("0-1,4", "4-1"),
            "cluster.toml:3: cpus = \"4-1\"",
        ),
        (
            GOOD.replace("\"/data\"\ncpus", "\"data\"\ncpus"),
            "must be an absolute path",
        ),
        (
            GOOD.replace("[\"replica\"]", "[\"server\"]"),
            "cluster.toml:6: unknown variant `server`",
        ),
        (GOOD.replace("[\"replica\"]", "[]"), "roles of host a"),
        (
            GOOD.replace("[\"replica\", ", "[\"client\", "),
            "cluster.toml:9: roles of host b: \"replica\", \"client\" or both, each once",
        ),
        (
            GOOD.replace("replicas = 2", "replicas = 15"),
            "16 replicas are too many",
        ),
        (
            GOOD.replace("port = 2222", "prot = 2222"),
            "unknown field `prot`",
        ),
        (
            GOOD.replace("10.0.0.1", "no such name"),
            "cluster.toml:3: address `no such name`",
        ),
        (
            GOOD.replace("[\"replica\", \"client\"]", "[\"client\"]"),
            "cluster.toml:9: host b has replicas but",
        ),
        ("port = 1\n".to_owned(), "there is no host"),
    ];
    for (text, expected) in cases {
        let error = read(&text).expect_err(expected);
        assert!(error.contains(expected), "{error} lacks {expected}");
        assert!(!error.contains('\n'));
    }
}

#[test]
fn a_host_may_be_found_elsewhere_than_it_listens() {
    let with = |listen: &str| {
        let line = format!("address = \"10.0.0.1\"\nlisten = \"{listen}\"");
        read(&GOOD.replace("address = \"10.0.0.1\"", &line))
    };
    for listen in ["0.0.0.0", "192.168.1.5", "::"] {
        let inventory = with(listen).unwrap();
        assert_eq!(inventory.hosts[0].listen.to_string(), listen);
        assert_eq!(inventory.hosts[0].address.to_string(), "10.0.0.1");
    }
    let error = with("fd00::1").unwrap_err();
    assert!(
        error.contains("cluster.toml:3: ") && error.contains("address family"),
        "{error}"
    );
    // A name stays a name in what replicas and clients are told.
    let named = read(&GOOD.replace("10.0.0.1", "localhost")).unwrap();
    assert_eq!(named.replicas[0].advertised.to_string(), "localhost:7500");
}
