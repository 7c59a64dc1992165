//! Links that people know, by name.
//!
//! `5-region`: N. Virginia, Oregon, Ireland, Tokyo and Sydney, in the order of the replicas. The figures are those that
//! "AWS Regions" (acomputerscientistlearnsaws.blogspot.com, April 2017) quotes as average latency in milliseconds from
//! another blog's "Latency Between AWS Global Regions". They are taken for round trips here, which the page does not
//! say, half each way. Of its two figures per pair, which differ by at most 2 %, the first in this order is used.
//!
//! `3-az`: typical figures, nobody's measurement. For their order of magnitude: "Network Latency Inside And Across Amazon
//! EC2 Availability Zones" (orensol.com, 2009-05-24) has averages of 0.94 to 1.13 ms there and back between the zones of
//! us-east-1.
//!
//! `lan`: a round figure, 0.1 ms there and back. The jitter of all three, and what is between replicas of the same place,
//! are round figures as well.

use super::Shape;

pub const NAMES: [&str; 3] = ["lan", "3-az", "5-region"];

const LAN_MS: f64 = 0.1;
/// Round trips in milliseconds, by zone: typical, not measured.
const ZONES: [[f64; 3]; 3] = [[LAN_MS, 0.5, 1.0], [0.5, LAN_MS, 1.5], [1.0, 1.5, LAN_MS]];
/// Round trips in milliseconds, by region; within one they are those between two zones.
const REGIONS: [[f64; 5]; 5] = [
    [1.0, 86.98, 80.55, 145.3, 230.0],
    [86.98, 1.0, 137.0, 89.1, 162.2],
    [80.55, 137.0, 1.0, 212.4, 309.6],
    [145.3, 89.1, 212.4, 1.0, 103.9],
    [230.0, 162.2, 309.6, 103.9, 1.0],
];

/// From a replica to another; more replicas than places begin again with the first place.
pub fn find(name: &str) -> Option<fn(u8, u8) -> Shape> {
    match name {
        "lan" => Some(|_, _| shape(LAN_MS, 0.0)),
        "3-az" => Some(|from, to| shape(round_trip(&ZONES, from, to), 0.05)),
        "5-region" => Some(|from, to| shape(round_trip(&REGIONS, from, to), 1.0)),
        _ => None,
    }
}

fn shape(round_trip_ms: f64, jitter_ms: f64) -> Shape {
    Shape {
        delay_ms: round_trip_ms / 2.0,
        jitter_ms,
        ..Shape::default()
    }
}

fn round_trip<const N: usize>(table: &[[f64; N]; N], from: u8, to: u8) -> f64 {
    let place = |id: u8| (usize::from(id) - 1) % N;
    table[place(from)][place(to)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_symmetric_and_repeat() {
        for name in NAMES {
            let shape = find(name).unwrap();
            for from in 1..=9 {
                for to in 1..=9 {
                    assert_eq!(shape(from, to), shape(to, from), "{name} {from} {to}");
                }
            }
        }
        let regions = find("5-region").unwrap();
        assert_eq!(regions(1, 5).delay_ms, 115.0);
        assert_eq!(regions(6, 10), regions(1, 5));
    }
}
