//! The map of a key-value machine, laid out so that a snapshot can walk over it while commands change it.
//!
//! Entries stand at fixed places and the walk takes them in the order of their places. Whatever changes an entry that
//! the walk has not reached saves it first, as it was: so a snapshot costs a command at most one copy of what it
//! overwrites, and nothing is copied that does not change. Without a snapshot under way a change costs one branch more.

use std::collections::VecDeque;

use bytes::{BufMut, BytesMut};

use super::index::Index;
use super::places::Places;

/// Bytes in front of each entry of a piece: the lengths of key and value.
const ENTRY_HEADER_BYTES: usize = 2 + 4;
/// Saved entries gather in parts of about this many bytes, so that none is moved while it grows.
const SAVED_PART_BYTES: usize = 64 << 10;

#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The place of each key.
    index: Index,
    places: Places<Place>,
    /// Places without an entry.
    free: Vec<u32>,
    /// How many walks began: what carries the number of the present one is not the walk's any more.
    walks: u64,
    walk: Option<Walk>,
}

#[derive(Clone, Debug)]
struct Place {
    /// `None` while free.
    key: Option<Box<[u8]>>,
    value: Box<[u8]>,
    /// The walk for which this place was saved, or during which its entry came.
    walk: u64,
}

#[derive(Clone, Debug)]
struct Walk {
    next: usize,
    /// The places there were when it began.
    end: usize,
    saved: VecDeque<BytesMut>,
    saved_bytes: usize,
}

impl Place {
    fn is(&self, key: &[u8]) -> bool {
        self.key.as_deref() == Some(key)
    }
}

impl Table {
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let place = self.find(self.index.hash(key), key)?;
        Some(&self.places[place as usize].value)
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        self.index
            .get(hash, |place| self.places[place as usize].is(key))
    }

    /// Every entry, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.places
            .iter()
            .filter_map(|place| Some((place.key.as_deref()?, &place.value[..])))
    }

    /// Overwrites in place where a value of the same length is there: the steady state then allocates nothing.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        let hash = self.index.hash(key);
        let Some(place) = self.find(hash, key) else {
            return self.insert(hash, key, value);
        };
        self.save(place);
        let present = &mut self.places[place as usize].value;
        if present.len() == value.len() {
            present.copy_from_slice(value);
        } else {
            *present = value.into();
        }
    }

    /// Returns whether the key was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let (hash, places) = (self.index.hash(key), &self.places);
        let removed = self
            .index
            .remove(hash, |place| places[place as usize].is(key));
        let Some(place) = removed else {
            return false;
        };
        self.save(place);
        let freed = &mut self.places[place as usize];
        freed.key = None;
        freed.value = Box::default();
        self.free.push(place);
        true
    }

    fn insert(&mut self, hash: u64, key: &[u8], value: &[u8]) {
        let entry = Place {
            key: Some(key.into()),
            value: value.into(),
            walk: self.walks,
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = entry;
                place
            }
            None => {
                let place = u32::try_from(self.places.len()).expect("fewer than 2^32 keys");
                self.places.push(entry);
                place
            }
        };
        self.index.insert(hash, place);
    }

    /// Starts a walk over what is here now; a former one ends.
    pub fn begin_walk(&mut self) {
        self.walks += 1;
        self.walk = Some(Walk {
            next: 0,
            end: self.places.len(),
            saved: VecDeque::new(),
            saved_bytes: 0,
        });
    }

    pub fn end_walk(&mut self) {
        self.walk = None;
    }

    /// Bytes of saved entries that the walk has not handed out.
    pub fn saved_bytes(&self) -> usize {
        self.walk.as_ref().map_or(0, |walk| walk.saved_bytes)
    }

    /// Appends the walk's next entries, about `bytes_max` bytes of them. Returns whether more are to come.
    pub fn step_walk(&mut self, bytes_max: usize, out: &mut BytesMut) -> bool {
        let Some(walk) = &mut self.walk else {
            return false;
        };
        let start = out.len();
        while out.len() - start < bytes_max {
            if let Some(saved) = walk.saved.pop_front() {
                walk.saved_bytes -= saved.len();
                out.put_slice(&saved);
                continue;
            }
            if walk.next == walk.end {
                self.walk = None;
                return false;
            }
            let place = &self.places[walk.next];
            if let Some(key) = &place.key
                && place.walk != self.walks
            {
                put_entry(out, key, &place.value);
            }
            walk.next += 1;
        }
        true
    }

    /// Hands the entry of a place to the walk as it is, if the walk has yet to come by.
    fn save(&mut self, place: u32) {
        let Some(walk) = &mut self.walk else {
            return;
        };
        let index = place as usize;
        let place = &mut self.places[index];
        if !(walk.next..walk.end).contains(&index) || place.walk == self.walks {
            return;
        }
        place.walk = self.walks;
        let key = place.key.as_ref().expect("only what is there is changed");
        let length = ENTRY_HEADER_BYTES + key.len() + place.value.len();
        if walk
            .saved
            .back()
            .is_none_or(|part| part.len() + length > part.capacity())
        {
            walk.saved
                .push_back(BytesMut::with_capacity(SAVED_PART_BYTES.max(length)));
        }
        let part = walk.saved.back_mut().expect("one was just added");
        put_entry(part, key, &place.value);
        walk.saved_bytes += length;
    }

    /// Takes entries back, as a walk gave them. Returns false if they can't be.
    pub fn restore(&mut self, mut entries: &[u8]) -> bool {
        while !entries.is_empty() {
            let Some((key, value, rest)) = take_entry(entries) else {
                return false;
            };
            // A walk gives each key once.
            let hash = self.index.hash(key);
            if self.find(hash, key).is_some() {
                return false;
            }
            self.insert(hash, key, value);
            entries = rest;
        }
        true
    }
}

fn put_entry(out: &mut BytesMut, key: &[u8], value: &[u8]) {
    out.put_u16_le(u16::try_from(key.len()).expect("keys are short"));
    out.put_u32_le(u32::try_from(value.len()).expect("values are part of a command"));
    out.put_slice(key);
    out.put_slice(value);
}

fn take_entry(entries: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (key_bytes, rest) = entries.split_first_chunk::<2>()?;
    let (value_bytes, rest) = rest.split_first_chunk::<4>()?;
    let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*key_bytes)))?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value_bytes) as usize)?;
    Some((key, value, rest))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Act {
        Put(u8, Vec<u8>),
        Remove(u8),
        Begin,
        Step(usize),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (0u8..12, proptest::collection::vec(any::<u8>(), 0..6)).prop_map(|(k, v)| Act::Put(k, v)),
            2 => (0u8..12).prop_map(Act::Remove),
            1 => Just(Act::Begin),
            4 => (1usize..30).prop_map(Act::Step),
        ]
    }

    type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

    fn contents(table: &Table) -> Contents {
        table
            .iter()
            .map(|(k, v)| (k.to_vec(), v.to_vec()))
            .collect()
    }

    proptest! {
        #[test]
        fn a_walk_gives_what_was_there_when_it_began_whatever_changes_meanwhile(
            acts in proptest::collection::vec(act(), 0..120),
        ) {
            let mut table = Table::default();
            let mut walked: Option<(Contents, BytesMut)> = None;
            let mut oracle = BTreeMap::new();
            for act in acts {
                match act {
                    Act::Put(key, value) => {
                        table.put(&[key], &value);
                        oracle.insert(vec![key], value);
                    }
                    Act::Remove(key) => {
                        prop_assert_eq!(table.remove(&[key]), oracle.remove(&vec![key]).is_some());
                    }
                    Act::Begin => {
                        table.begin_walk();
                        walked = Some((oracle.clone(), BytesMut::new()));
                    }
                    Act::Step(bytes) => {
                        if let Some((then, out)) = &mut walked
                            && !table.step_walk(bytes, out)
                        {
                            let mut restored = Table::default();
                            prop_assert!(restored.restore(out));
                            prop_assert_eq!(&contents(&restored), &*then);
                            prop_assert_eq!(table.saved_bytes(), 0);
                            walked = None;
                        }
                    }
                }
                prop_assert_eq!(&contents(&table), &oracle);
                prop_assert_eq!(table.len(), oracle.len());
            }
        }

        #[test]
        fn garbage_is_refused_not_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Table::default().restore(&bytes);
        }
    }
}
