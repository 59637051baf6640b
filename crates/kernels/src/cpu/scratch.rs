//! Buffers that outlive a call, so that large intermediate results cost neither an allocation nor page faults.
//!
//! Every thread keeps a few buffers. [`Scratch::take`] moves one out and dropping it puts it back, so nothing is borrowed
//! while rayon runs another task on the same thread, which takes another buffer.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
};

/// Buffers that a thread keeps at most.
const KEPT: usize = 8;
/// Alignment in floats: one cache line, so that a 512-bit vector never straddles two.
const ALIGNMENT: usize = 16;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer aligned to a cache line. Its values are arbitrary until written.
pub(crate) struct Scratch {
    buffer: Vec<f32>,
    start: usize,
    len: usize,
}

impl Scratch {
    /// A buffer of `len` floats with arbitrary values: the smallest kept one that is long enough, or else the largest.
    pub fn take(len: usize) -> Self {
        let room = len + ALIGNMENT;
        let mut buffer = FREE.with_borrow_mut(|free| {
            let fits = |buffer: &Vec<f32>| (buffer.len() < room, buffer.len().abs_diff(room));
            let best = (0..free.len()).min_by_key(|&i| fits(&free[i]));
            best.map(|i| free.swap_remove(i)).unwrap_or_default()
        });
        if buffer.len() < room {
            // not `resize`, which copies the old values
            buffer = vec![0.0; room];
        }
        let start = buffer.as_ptr().align_offset(ALIGNMENT * size_of::<f32>()).min(ALIGNMENT);
        Self { buffer, start, len }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // at the end of a thread its storage may be gone; the buffer is then freed
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(buffer);
            }
        });
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[self.start..][..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[self.start..][..self.len]
    }
}
