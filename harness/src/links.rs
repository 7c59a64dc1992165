//! Bad and long links without privileges: what the replicas of a run send each other passes a process of its own, which
//! delays, loses and cuts it. Its CPU time is not the replicas', and what it achieved is measured and reported.
//!
//! Between clients and replicas nothing is done: a client is thought of as beside its replica.

mod alarm;
mod emulator;
mod presets;
pub mod proxy;
mod serve;
mod tcp;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use synod_engine::ids::ReplicaId;

use crate::failure::usage;
use crate::toml_file;
pub use emulator::{Emulator, LinksReport};
use proxy::Weather;
pub use serve::run;

/// What links are called that only lose.
const LOSS_ALONE: &str = "loopback";
/// Of a router with a rate, if nothing is said: what operators give a link, and one round trip of a long one.
const QUEUE_MS: f64 = 100.0;
/// A delay beyond this is a mistyped unit.
const DELAY_MS_MAX: f64 = 10_000.0;

/// What the links of a run are like.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Links {
    /// The preset or the file.
    pub name: String,
    pub links: Vec<Link>,
}

/// From one replica to another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    pub from: u8,
    pub to: u8,
    pub shape: Shape,
}

/// What a direction does to what is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shape {
    /// One way.
    pub delay_ms: f64,
    /// Up to this much more, evenly spread; it reorders nothing.
    pub jitter_ms: f64,
    /// Of the datagrams; of TCP see `links/tcp.rs`.
    pub loss_percent: f64,
    /// Datagrams that skip the delay and so overtake others; none of TCP.
    pub reorder_percent: f64,
    /// 0: as fast as it goes.
    pub mbit_per_s: f64,
    /// What may wait for its turn in the router, as time at `mbit_per_s`; what comes beyond is dropped. If absent, 100 or
    /// the link's round trip, if that is longer: a router with more would hide from every sender that it sends too much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<f64>,
}

/// A file for `--links`: what all links have in common, and those that differ, each for both directions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinksFile {
    #[serde(default)]
    all: Shape,
    #[serde(default)]
    between: Vec<Between>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Between {
    replicas: [u8; 2],
    shape: Shape,
}

/// The shape of the link from one replica to another.
type ShapeOf = Box<dyn Fn(u8, u8) -> Shape>;

/// What replicas speak with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    Udp,
    Tcp,
}

/// What the process is told, as a file: part of the published configuration of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmulatorFile {
    pub carrier: Carrier,
    pub seed: u64,
    /// Where they really are.
    pub replicas: BTreeMap<String, SocketAddr>,
    /// Links that are not here do nothing.
    pub links: Vec<Link>,
}

impl Links {
    /// The longest way there and back, rounded up.
    pub fn round_trip_ms_max(&self) -> u64 {
        let ways = self.links.iter().map(|link| link.shape);
        let longest = ways.map(|shape| 2.0 * (shape.delay_ms + shape.jitter_ms));
        longest.fold(0.0, f64::max).ceil() as u64
    }

    /// As results name them, such as `5-region, 1 % loss`.
    pub fn label(&self) -> String {
        let mut losses: Vec<f64> = self
            .links
            .iter()
            .map(|link| link.shape.loss_percent)
            .collect();
        losses.dedup();
        match losses[..] {
            [0.0] | [] => self.name.clone(),
            [loss] if self.name == LOSS_ALONE => format!("{loss} % loss"),
            [loss] => format!("{}, {loss} % loss", self.name),
            [..] => format!("{}, some loss", self.name),
        }
    }

    /// By the name of a preset or of a file, with `loss_percent` on every link if it is given.
    pub fn find(
        name: Option<&str>,
        loss_percent: Option<f64>,
        replicas: u8,
    ) -> anyhow::Result<Option<Links>> {
        let (name, shape): (&str, ShapeOf) = match name {
            None if loss_percent.is_none() => return Ok(None),
            None => (LOSS_ALONE, Box::new(|_, _| Shape::default())),
            Some(name) => match presets::find(name) {
                Some(preset) => (name, Box::new(preset)),
                None => (name, LinksFile::read(name, replicas)?),
            },
        };
        let ids = || 1..=replicas;
        let pairs = ids().flat_map(|from| ids().map(move |to| (from, to)));
        let links = pairs.filter(|(from, to)| from != to).map(|(from, to)| {
            let mut shape = shape(from, to);
            shape.loss_percent = loss_percent.unwrap_or(shape.loss_percent);
            shape.check(name)?;
            Ok(Link { from, to, shape })
        });
        Ok(Some(Links {
            name: name.to_owned(),
            links: links.collect::<anyhow::Result<_>>()?,
        }))
    }
}

impl LinksFile {
    fn read(name: &str, replicas: u8) -> anyhow::Result<ShapeOf> {
        let path = Path::new(name);
        if !path.is_file() {
            return Err(usage(format!(
                "--links {name}: neither a preset ({}) nor a file",
                presets::NAMES.join(", ")
            )));
        }
        let file: LinksFile = toml_file::read(path)?;
        for Between { replicas: pair, .. } in &file.between {
            let fits = |id: &u8| (1..=replicas).contains(id);
            if pair[0] == pair[1] || !pair.iter().all(fits) {
                return Err(usage(format!(
                    "{name}: between {pair:?}: two different replicas of 1 to {replicas}"
                )));
            }
        }
        Ok(Box::new(move |from, to| {
            let mut between = file.between.iter().rev();
            let special =
                between.find(|one| one.replicas == [from, to] || one.replicas == [to, from]);
            special.map_or(file.all, |one| one.shape)
        }))
    }
}

impl Shape {
    fn check(&self, name: &str) -> anyhow::Result<()> {
        for (value, most, what) in [
            (self.delay_ms, DELAY_MS_MAX, "delay_ms"),
            (self.jitter_ms, DELAY_MS_MAX, "jitter_ms"),
            (self.loss_percent, 100.0, "loss_percent"),
            (self.reorder_percent, 100.0, "reorder_percent"),
            (self.mbit_per_s, 1e6, "mbit_per_s"),
            (self.queue_ms.unwrap_or(0.0), DELAY_MS_MAX, "queue_ms"),
        ] {
            if !(0.0..=most).contains(&value) {
                return Err(usage(format!(
                    "--links {name}: {what} = {value}: 0 to {most}"
                )));
            }
        }
        if self.queue_ms.is_some() && self.mbit_per_s == 0.0 {
            return Err(usage(format!(
                "--links {name}: queue_ms needs mbit_per_s beside it: without a rate nothing queues"
            )));
        }
        Ok(())
    }

    pub fn weather(&self) -> Weather {
        let ppm = |percent: f64| (percent * 10_000.0).round() as u32;
        Weather {
            delay: Duration::from_secs_f64(self.delay_ms / 1e3),
            jitter: Duration::from_secs_f64(self.jitter_ms / 1e3),
            in_order: true,
            loss_ppm: ppm(self.loss_percent),
            reorder_ppm: ppm(self.reorder_percent),
            bytes_per_s: (self.mbit_per_s > 0.0).then_some((self.mbit_per_s * 125_000.0) as u64),
            queue_max: (self.mbit_per_s > 0.0).then(|| {
                let round_trip_ms = 2.0 * (self.delay_ms + self.jitter_ms);
                let queue_ms = self.queue_ms.unwrap_or(QUEUE_MS.max(round_trip_ms));
                Duration::from_secs_f64(queue_ms / 1e3)
            }),
            ..Weather::default()
        }
    }
}

impl Link {
    pub fn id(&self) -> (ReplicaId, ReplicaId) {
        (ReplicaId(self.from), ReplicaId(self.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_shape_for_all_and_others_for_some() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("links.toml");
        let text = "[all]\ndelay_ms = 5\n[[between]]\nreplicas = [3, 1]\nshape = { delay_ms = 20, loss_percent = 1 }\n";
        std::fs::write(&path, text).unwrap();
        let name = path.to_str().unwrap();
        let links = Links::find(Some(name), None, 3).unwrap().unwrap();
        let delays: Vec<(u8, u8, f64)> = links
            .links
            .iter()
            .map(|link| (link.from, link.to, link.shape.delay_ms))
            .collect();
        assert_eq!(
            delays,
            [
                (1, 2, 5.0),
                (1, 3, 20.0),
                (2, 1, 5.0),
                (2, 3, 5.0),
                (3, 1, 20.0),
                (3, 2, 5.0)
            ]
        );
        assert_eq!(links.links[1].shape.weather().loss_ppm, 10_000);
        let lossy = Links::find(Some(name), Some(0.1), 3).unwrap().unwrap();
        assert!(
            lossy
                .links
                .iter()
                .all(|link| link.shape.weather().loss_ppm == 1_000)
        );
        assert!(
            Links::find(Some(name), None, 2).is_err(),
            "there is no replica 3"
        );
    }

    #[test]
    fn a_queue_is_as_long_as_said_or_as_the_round_trip() {
        let queue_of = |shape: Shape| shape.weather().queue_max;
        let narrow = Shape {
            mbit_per_s: 10.0,
            ..Shape::default()
        };
        let ms = Duration::from_millis;
        assert_eq!(queue_of(narrow), Some(ms(100)));
        let long = Shape {
            delay_ms: 70.0,
            ..narrow
        };
        assert_eq!(queue_of(long), Some(ms(140)));
        let said = Shape {
            queue_ms: Some(5.0),
            ..long
        };
        assert_eq!(queue_of(said), Some(ms(5)));
        assert_eq!(queue_of(Shape::default()), None);
        let useless = Shape {
            queue_ms: Some(5.0),
            ..Shape::default()
        };
        assert!(useless.check("x").is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        for (name, loss) in [
            (Some("moon"), None),
            (None, Some(101.0)),
            (None, Some(-1.0)),
        ] {
            assert!(Links::find(name, loss, 3).is_err(), "{name:?} {loss:?}");
        }
        assert_eq!(Links::find(None, None, 3).unwrap(), None);
    }
}
