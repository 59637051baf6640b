//! Buffers kept per thread, so that a task does not allocate and fault in its working memory on every call.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

thread_local! {
    static BUFFER: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// A buffer of floats of any content, given back to its thread when dropped.
///
/// It is taken out of its place while in use: a second one on the same thread makes its own.
pub(crate) struct Scratch {
    buffer: Vec<f32>,
    length: usize,
}

impl Scratch {
    pub fn new(length: usize) -> Self {
        let mut buffer = BUFFER.take();
        if buffer.len() < length {
            buffer.resize(length, 0.0);
        }
        Self { buffer, length }
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[..self.length]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.length]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        BUFFER.set(std::mem::take(&mut self.buffer));
    }
}
