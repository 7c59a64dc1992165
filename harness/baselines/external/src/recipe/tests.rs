use super::*;

/// Two servers: what repeats per server shows, and the text stays short.
fn site(replicas: u8) -> Site {
    Site {
        directory: PathBuf::from("/runs/7"),
        replicas,
        ports: (4_001..)
            .take(usize::from(replicas) * PORTS_PER_SERVER)
            .collect(),
    }
}

fn found(name: &str) -> Found {
    Found {
        program: PathBuf::from("/usr/bin").join(name),
        version: Version::new(3, 4, 5),
    }
}

/// As a person reads it: the command line of each process, then its files.
fn show(recipe: &Recipe) -> String {
    let mut text = String::new();
    for server in &recipe.servers {
        text += &format!(
            "{} {}\n",
            server.program.display(),
            server.arguments.join(" ")
        );
        for (path, content) in &server.contents {
            text += &format!("--- {}\n{content}", path.display());
        }
    }
    text
}

#[test]
fn an_etcd_server_knows_all_and_listens_on_loopback() {
    let recipe = etcd::recipe(&found("etcd"), &site(2));
    let second = recipe.servers[1].arguments.join("\n");
    assert_eq!(
        second,
        "--name=server-2\n--data-dir=/runs/7/2/data\n\
         --listen-client-urls=http://127.0.0.1:4004\n--advertise-client-urls=http://127.0.0.1:4004\n\
         --listen-peer-urls=http://127.0.0.1:4005\n--initial-advertise-peer-urls=http://127.0.0.1:4005\n\
         --initial-cluster=server-1=http://127.0.0.1:4002,server-2=http://127.0.0.1:4005\n\
         --initial-cluster-state=new\n--initial-cluster-token=synod-compare\n\
         --quota-backend-bytes=8589934592\n--logger=zap\n--log-level=warn"
    );
    assert_eq!(recipe.addresses, "127.0.0.1:4001,127.0.0.1:4004");
    assert!(recipe.servers[1].files.is_empty());
}

#[test]
fn a_zookeeper_server_is_java_itself_with_its_files() {
    let jar = zookeeper::Jar::test("/usr/share/java/zookeeper.jar");
    let recipe = zookeeper::recipe(&jar, &site(2));
    let first = Recipe {
        servers: recipe.servers[..1].to_vec(),
        ..recipe
    };
    assert_eq!(
        show(&first),
        "/usr/bin/java -Xmx1000m -cp /usr/share/java/zookeeper.jar \
         org.apache.zookeeper.server.quorum.QuorumPeerMain /runs/7/1/zoo.cfg\n\
         --- /runs/7/1/data/myid\n1\n\
         --- /runs/7/1/zoo.cfg\n\
         tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=/runs/7/1/data\n\
         clientPortAddress=127.0.0.1\nclientPort=4001\nmaxClientCnxns=0\n\
         admin.enableServer=false\n4lw.commands.whitelist=srvr\n\
         server.1=127.0.0.1:4002:4003\nserver.2=127.0.0.1:4005:4006\n"
    );
}

#[test]
fn nats_syncs_always_only_where_it_says_so() {
    let durable = nats::recipe(System::Nats, &found("nats-server"), &site(2));
    let first = Recipe {
        servers: durable.servers[..1].to_vec(),
        ..durable.clone()
    };
    let expected = "/usr/bin/nats-server --config /runs/7/1/nats.conf\n\
         --- /runs/7/1/nats.conf\n\
         server_name: server-1\nlisten: \"127.0.0.1:4001\"\n\
         jetstream {\n  store_dir: \"/runs/7/1/data\"\n  max_file_store: 16GB\n  sync_interval: always\n}\n\
         cluster {\n  name: synod-compare\n  listen: \"127.0.0.1:4002\"\n  \
         routes: [\"nats://127.0.0.1:4002\", \"nats://127.0.0.1:4005\"]\n}\n";
    assert_eq!(show(&first), expected);
    let default = nats::recipe(System::NatsDefault, &found("nats-server"), &site(2));
    assert_eq!(
        show(&default),
        show(&durable).replace("  sync_interval: always\n", "")
    );
    assert!(durable.durable && !default.durable);
    assert!(default.durability.starts_with("not durable"));
}

#[test]
fn a_server_without_others_gets_no_cluster() {
    let nats = nats::recipe(System::Nats, &found("nats-server"), &site(1));
    assert!(!show(&nats).contains("cluster"));
    let jar = zookeeper::Jar::test("/opt/zookeeper/lib/zookeeper.jar");
    let zookeeper = zookeeper::recipe(&jar, &site(1));
    assert!(!show(&zookeeper).contains("server.1="));
    assert_eq!(zookeeper.servers[0].arguments[2], "/opt/zookeeper/lib/*");
}

#[test]
fn every_system_says_each_condition_once() {
    let conditions = [
        etcd::EQUALITY,
        zookeeper::EQUALITY,
        nats::EQUALITY,
        nats::EQUALITY_DEFAULT,
    ];
    for equality in conditions {
        let whats: Vec<&str> = equality.iter().map(|condition| condition.0).collect();
        assert_eq!(
            whats,
            [DURABILITY, TRANSPORT, CLIENT_PATH, BATCHING, STATE_MACHINE]
        );
    }
}

#[test]
fn taken_ports_are_distinct_and_a_busy_one_is_named() {
    let ports = take_ports(PortsFrom::Auto, 9).expect("free ports");
    let distinct: std::collections::BTreeSet<u16> = ports.iter().copied().collect();
    assert_eq!(distinct.len(), 9 * PORTS_PER_SERVER);
    let busy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = busy.local_addr().expect("bound").port();
    let first = std::num::NonZeroU16::new(port).expect("not zero");
    let error = take_ports(PortsFrom::First(first), 1).unwrap_err();
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

/// The shape that `synod compare` reads.
#[test]
fn the_recipe_as_json() {
    let recipe = nats::recipe(System::NatsDefault, &found("nats-server"), &site(1));
    let json = serde_json::to_value(&recipe).expect("a value");
    let keys: Vec<&str> = json
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        [
            "addresses",
            "client",
            "durability",
            "durable",
            "equality",
            "schema_version",
            "servers",
            "settings",
            "state_machine",
            "system",
            "transport",
            "version"
        ]
    );
    assert_eq!(json["system"], "nats-default");
    assert_eq!(
        json["servers"][0],
        serde_json::json!({
            "id": 1,
            "program": "/usr/bin/nats-server",
            "arguments": ["--config", "/runs/7/1/nats.conf"],
            "environment": {},
            "directory": "/runs/7/1",
            "data_directory": "/runs/7/1/data",
            "client_address": "127.0.0.1:4001",
            "files": ["/runs/7/1/nats.conf"],
        })
    );
    assert_eq!(
        json["equality"][0],
        serde_json::json!({
            "what": "durability",
            "value": "not durable: acknowledged from the page caches of a quorum",
            "equal": false,
        })
    );
}
