//! How many packets go into one train: as many of the size in use as one `sendmsg` takes.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The longest UDP payload over IPv4, and so the longest train that one `sendmsg` takes.
pub const TRAIN_BYTES_MAX: usize = 65_507;
/// The kernel joins no more (`UDP_MAX_SEGMENTS` of the older ones).
const PACKETS_MAX: usize = 64;
/// The size in use is looked for again after this many sends.
const SENDS: usize = 256;
/// So many of them have a size if it is in use: probes of path discovery are larger, and few.
const SENDS_OF_SIZE: usize = 8;

/// Watches what is sent. The size in use is what several of the last packets had, not what discovery may reach one day: on
/// a network of 1,500 bytes, a cap made for packets of 65,000 would leave trains of one packet.
#[derive(Debug)]
pub struct Trains {
    /// Sends since the last look, by how many packets of their size a train may have.
    sends: [AtomicUsize; PACKETS_MAX + 1],
    count: AtomicUsize,
    packets_max: AtomicUsize,
}

impl Default for Trains {
    fn default() -> Trains {
        Trains {
            sends: std::array::from_fn(|_| AtomicUsize::new(0)),
            count: AtomicUsize::new(0),
            packets_max: AtomicUsize::new(PACKETS_MAX),
        }
    }
}

impl Trains {
    /// How many packets a train may have at the moment.
    pub fn packets_max(&self) -> usize {
        self.packets_max.load(Relaxed)
    }

    /// Notes that packets of `bytes` each are sent.
    pub fn note(&self, bytes: usize) {
        let packets = packets_of(bytes);
        self.sends[packets].fetch_add(1, Relaxed);
        if self.count.fetch_add(1, Relaxed) + 1 >= SENDS {
            self.count.store(0, Relaxed);
            self.look();
        }
    }

    /// A train of packets of `bytes` was too long: so is the next one.
    pub fn was_too_long(&self, bytes: usize) {
        self.packets_max.fetch_min(packets_of(bytes), Relaxed);
    }

    /// The largest size in use decides, because whose train the next one is, nobody says.
    fn look(&self) {
        let mut sends = 0;
        let mut packets_max = PACKETS_MAX;
        for (packets, of_size) in self.sends.iter().enumerate() {
            sends += of_size.swap(0, Relaxed);
            if sends >= SENDS_OF_SIZE {
                packets_max = packets_max.min(packets);
            }
        }
        self.packets_max.store(packets_max, Relaxed);
    }
}

/// How many packets of this size one train takes, at least one.
pub fn packets_of(bytes: usize) -> usize {
    (TRAIN_BYTES_MAX / bytes.max(1)).clamp(1, PACKETS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(sizes: &[usize]) -> usize {
        let trains = Trains::default();
        for size in sizes.iter().cycle().take(4 * SENDS) {
            trains.note(*size);
        }
        trains.packets_max()
    }

    #[test]
    fn trains_are_as_long_as_the_size_in_use_allows() {
        assert_eq!(after(&[1_452]), 45);
        assert_eq!(after(&[1_452, 40, 40]), 45);
        assert_eq!(after(&[8_952]), 7);
        assert_eq!(after(&[65_000]), 1);
        // Of two paths, the wider one decides.
        assert_eq!(after(&[65_000, 1_452]), 1);
    }

    #[test]
    fn probes_do_not_shorten_trains_and_a_narrower_path_lengthens_them() {
        let trains = Trains::default();
        let send = |size: usize, times: usize| (0..times).for_each(|_| trains.note(size));
        send(1_452, SENDS - 7);
        send(65_000, 7);
        assert_eq!(trains.packets_max(), 45);
        send(8_952, SENDS);
        assert_eq!(trains.packets_max(), 7);
        send(1_452, SENDS);
        assert_eq!(trains.packets_max(), 45);
    }

    #[test]
    fn one_train_that_was_too_long_is_the_last() {
        let trains = Trains::default();
        trains.note(65_000);
        trains.was_too_long(65_000);
        assert_eq!(trains.packets_max(), 1);
    }
}
