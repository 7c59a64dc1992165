//! The entries of a table at fixed places, in pieces that are never moved: a vector of millions would be copied as a whole
//! each time it grows.

use std::ops::{Index, IndexMut};

/// Places in one piece: a power of two.
const PIECE_PLACES: usize = 4096;

#[derive(Clone, Debug)]
pub struct Places<T> {
    pieces: Vec<Vec<T>>,
    len: usize,
}

impl<T> Places<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn push(&mut self, entry: T) {
        if self.len == self.pieces.len() * PIECE_PLACES {
            self.pieces.push(Vec::with_capacity(PIECE_PLACES));
        }
        let last = self.pieces.last_mut().expect("there is room");
        last.push(entry);
        self.len += 1;
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten()
    }
}

impl<T> Default for Places<T> {
    fn default() -> Places<T> {
        Places {
            pieces: Vec::new(),
            len: 0,
        }
    }
}

impl<T> Index<usize> for Places<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.pieces[at / PIECE_PLACES][at % PIECE_PLACES]
    }
}

impl<T> IndexMut<usize> for Places<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.pieces[at / PIECE_PLACES][at % PIECE_PLACES]
    }
}
