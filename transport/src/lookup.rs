//! The addresses behind a name, asked for when somebody dials, and never waited for by anybody else.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::address::Address;

/// Then the attempt to dial goes on with what was known before, or fails. The question stays, and its answer is taken by a
/// later attempt.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// An answer is good for this long: attempts to dial come several times a second.
const ANSWER_GOOD: Duration = Duration::from_secs(1);
/// More addresses behind one name are not tried.
const ANSWER_ADDRESSES_MAX: usize = 16;

type Answer = io::Result<Vec<SocketAddr>>;
type Resolve = dyn Fn(&str, u16) -> Answer + Send + Sync;

/// Finds the addresses of a host. It may take its time: it is called on a thread of its own.
#[derive(Clone)]
pub struct Resolver(Arc<Resolve>);

impl Resolver {
    pub fn new(resolve: impl Fn(&str, u16) -> Answer + Send + Sync + 'static) -> Resolver {
        Resolver(Arc::new(resolve))
    }
}

/// The system's: `/etc/hosts`, DNS, and whatever else it is told to ask.
impl Default for Resolver {
    fn default() -> Resolver {
        Resolver::new(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// Which addresses a socket reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
    /// A socket on `[::]`, or one of each.
    Both,
}

impl Family {
    pub fn of_listener(listen: IpAddr) -> Family {
        match listen {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(ip) if ip.is_unspecified() => Family::Both,
            IpAddr::V6(_) => Family::V6,
        }
    }

    pub fn reaches(self, address: SocketAddr) -> bool {
        match self {
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
            Family::Both => true,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LookupFailed {
    #[error("the name {host} cannot be resolved: {source}")]
    Failed { host: Arc<str>, source: io::Error },
    #[error("the name {host} is not resolved within {} s", ANSWER_WAIT.as_secs())]
    Late { host: Arc<str> },
    #[error("the name {host} has no addresses")]
    Nothing { host: Arc<str> },
    #[error(
        "{address} cannot be reached from a socket of {family:?} only: listen on [::], which is for both families, or \
         give it an address of the other one"
    )]
    Family { address: Address, family: Family },
}

/// Where one replica is, as far as it is known.
pub struct Lookup {
    address: Address,
    family: Family,
    resolver: Resolver,
    known: Vec<SocketAddr>,
    answered: Option<Instant>,
    pending: Option<oneshot::Receiver<Answer>>,
    /// The address that answered last is tried first.
    reached: Option<SocketAddr>,
    wait: Duration,
}

impl Lookup {
    pub fn new(address: Address, family: Family, resolver: Resolver) -> Lookup {
        Lookup {
            address,
            family,
            resolver,
            known: Vec::new(),
            answered: None,
            pending: None,
            reached: None,
            wait: ANSWER_WAIT,
        }
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What to dial, in this order; at least one. A name is looked up unless that was done a moment ago.
    pub async fn addresses(&mut self) -> Result<Vec<SocketAddr>, LookupFailed> {
        let mut all = match self.address.clone() {
            Address::Socket(address) => vec![address],
            Address::Name { host, port } => {
                let good = self.answered.is_some_and(|at| at.elapsed() < ANSWER_GOOD);
                if !good {
                    let asked = self.ask(host, port).await;
                    // An old answer is better than none: the name server may be what is down.
                    if self.known.is_empty() {
                        asked?;
                    }
                }
                self.known.clone()
            }
        };
        all.retain(|address| self.family.reaches(*address));
        if all.is_empty() {
            return Err(LookupFailed::Family {
                address: self.address.clone(),
                family: self.family,
            });
        }
        all.sort_by_key(|address| Some(*address) != self.reached);
        Ok(all)
    }

    /// Somebody answered there.
    pub fn reached(&mut self, address: SocketAddr) {
        self.reached = Some(address);
    }

    async fn ask(&mut self, host: Arc<str>, port: u16) -> Result<(), LookupFailed> {
        let pending = match &mut self.pending {
            Some(pending) => pending,
            none => none.insert(question(&self.resolver, &host, port)),
        };
        let Ok(answer) = tokio::time::timeout(self.wait, pending).await else {
            return Err(LookupFailed::Late { host });
        };
        self.pending = None;
        let failed = |source| LookupFailed::Failed {
            host: Arc::clone(&host),
            source,
        };
        let ended = |_| io::Error::other("the resolver ended without an answer");
        let mut found = answer
            .map_err(ended)
            .and_then(|answer| answer)
            .map_err(failed)?;
        found.truncate(ANSWER_ADDRESSES_MAX);
        if found.is_empty() {
            return Err(LookupFailed::Nothing { host });
        }
        self.known = found;
        self.answered = Some(Instant::now());
        Ok(())
    }
}

/// On a thread, which is not waited for when the process ends: a name server that is down takes half a minute.
fn question(resolver: &Resolver, host: &Arc<str>, port: u16) -> oneshot::Receiver<Answer> {
    let (sender, receiver) = oneshot::channel();
    let (resolver, host) = (resolver.clone(), Arc::clone(host));
    let work = move || {
        // Whoever asked may be gone.
        let _ = sender.send((resolver.0)(&host, port));
    };
    let started = std::thread::Builder::new()
        .name("resolver".into())
        .spawn(work);
    if let Err(error) = started {
        // The sender is gone with its thread, which the receiver notices.
        tracing::warn!("no thread to resolve a name: {error}");
    }
    receiver
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn lookup(family: Family, resolver: Resolver) -> Lookup {
        Lookup::new("r1.local:7001".parse().expect("a name"), family, resolver)
    }

    /// Answers what stands in the cell.
    fn told(answer: &Arc<Mutex<Result<Vec<SocketAddr>, ()>>>) -> Resolver {
        let answer = Arc::clone(answer);
        Resolver::new(move |host, port| {
            assert_eq!((host, port), ("r1.local", 7001));
            let answer = answer.lock().expect("a cell").clone();
            answer.map_err(|()| io::Error::other("no such name"))
        })
    }

    fn let_time_pass(lookup: &mut Lookup) {
        lookup.answered = None;
    }

    #[tokio::test]
    async fn a_name_that_moves_is_found_again() {
        let (old, new) = (at("10.0.0.1:7001"), at("10.0.0.9:7001"));
        let answer = Arc::new(Mutex::new(Err(())));
        let mut lookup = lookup(Family::V4, told(&answer));
        let error = lookup
            .addresses()
            .await
            .expect_err("no such name")
            .to_string();
        assert!(
            error.contains("r1.local cannot be resolved: no such name"),
            "{error}"
        );
        *answer.lock().expect("a cell") = Ok(vec![old]);
        assert_eq!(lookup.addresses().await.expect("an answer"), [old]);
        *answer.lock().expect("a cell") = Ok(vec![new]);
        assert_eq!(
            lookup.addresses().await.expect("an answer"),
            [old],
            "asked again at once"
        );
        let_time_pass(&mut lookup);
        assert_eq!(lookup.addresses().await.expect("an answer"), [new]);
        // Without a name server it goes on with what is known.
        *answer.lock().expect("a cell") = Err(());
        let_time_pass(&mut lookup);
        assert_eq!(lookup.addresses().await.expect("the old answer"), [new]);
        *answer.lock().expect("a cell") = Ok(Vec::new());
        let_time_pass(&mut lookup);
        assert_eq!(lookup.addresses().await.expect("the old answer"), [new]);
    }

    #[tokio::test]
    async fn every_address_that_the_socket_reaches_is_tried_the_good_one_first() {
        let all = [
            at("[fd00::1]:7001"),
            at("10.0.0.1:7001"),
            at("10.0.0.2:7001"),
        ];
        let answer = Arc::new(Mutex::new(Ok(all.to_vec())));
        let mut both = lookup(Family::Both, told(&answer));
        assert_eq!(both.addresses().await.expect("an answer"), all);
        both.reached(all[2]);
        assert_eq!(
            both.addresses().await.expect("an answer"),
            [all[2], all[0], all[1]]
        );
        let mut old = lookup(Family::V4, told(&answer));
        assert_eq!(old.addresses().await.expect("an answer"), all[1..]);
        let mut new = lookup(Family::V6, told(&answer));
        assert_eq!(new.addresses().await.expect("an answer"), all[..1]);
        *answer.lock().expect("a cell") = Ok(all[..1].to_vec());
        let mut old = lookup(Family::V4, told(&answer));
        let error = old
            .addresses()
            .await
            .expect_err("another family")
            .to_string();
        assert!(
            error.contains("r1.local:7001") && error.contains("[::]"),
            "{error}"
        );
        let many = (0..40).map(|n| at(&format!("10.0.1.{n}:7001")));
        *answer.lock().expect("a cell") = Ok(many.collect());
        let_time_pass(&mut both);
        assert_eq!(
            both.addresses().await.expect("an answer").len(),
            ANSWER_ADDRESSES_MAX
        );
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_holds_up_nobody_and_is_asked_once() {
        let (release, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        let asked = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&asked);
        let mut lookup = lookup(
            Family::V4,
            Resolver::new(move |_, _| {
                *counted.lock().expect("a cell") += 1;
                let _ = held.lock().expect("a cell").recv();
                Ok(vec![at("10.0.0.1:7001")])
            }),
        );
        lookup.wait = Duration::from_millis(20);
        for _ in 0..3 {
            let error = lookup.addresses().await.expect_err("it hangs");
            assert!(matches!(error, LookupFailed::Late { .. }), "{error}");
        }
        release.send(()).expect("it waits");
        // Its answer is taken by whoever asks then.
        let found = loop {
            if let Ok(found) = lookup.addresses().await {
                break found;
            }
        };
        assert_eq!(found, [at("10.0.0.1:7001")]);
        assert_eq!(*asked.lock().expect("a cell"), 1);
    }
}
