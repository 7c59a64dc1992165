mod model;

use model::scope::Scope;
use model::search::Search;

fn num(name: &str, default: u8) -> u8 {
    std::env::var(name).map_or(default, |v| v.parse().unwrap())
}

#[test]
fn probe() {
    let scope = Scope {
        name: "probe",
        stands: [num("S1", 1), num("S2", 1)],
        requests: num("RQ", 1),
        crashes: num("CR", 0),
        led: num("LED", 0) == 1,
        resends: num("RS", 0) == 1,
        evicts: num("EV", 0) == 1,
        fetches: num("FE", 0) == 1,
        bug: None,
    };
    match Search::run(&scope) {
        Ok(explored) => println!("{explored:?}"),
        Err(found) => panic!("{}\n{}", found.violation, found.path),
    }
}
