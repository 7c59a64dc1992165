//! Page-aligned memory, as direct IO asks for, without unsafe code.

/// Alignment of direct IO: of memory, file offset and length.
pub const PAGE_BYTES: usize = 4096;

/// A fixed stretch of zeroed memory that starts at a page boundary and never moves.
pub struct AlignedBuffer {
    /// One page more than asked for, so that an aligned stretch is inside. Never resized: the kernel may know
    /// its address.
    storage: Vec<u8>,
    start: usize,
    len: usize,
    index: u16,
}

impl AlignedBuffer {
    pub fn new(len: usize) -> AlignedBuffer {
        AlignedBuffer::numbered(len, 0)
    }

    /// `index` is the number under which a ring knows the buffer.
    pub fn numbered(len: usize, index: u16) -> AlignedBuffer {
        let storage = vec![0; len + PAGE_BYTES];
        let start = storage.as_ptr().align_offset(PAGE_BYTES);
        assert!(start <= PAGE_BYTES, "no aligned stretch in a buffer");
        AlignedBuffer {
            storage,
            start,
            len,
            index,
        }
    }

    pub fn index(&self) -> u16 {
        self.index
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.len]
    }
}
