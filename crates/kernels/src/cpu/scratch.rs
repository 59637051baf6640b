//! Buffers kept per thread, so that a task does not allocate and fault in its working memory on every call.

use std::cell::Cell;

thread_local! {
    static BUFFER: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Calls `function` with a buffer of `length` floats of any content.
///
/// The buffer is taken out of its place while in use: a call from within finds none there and makes its own.
#[inline(always)]
pub(crate) fn with<R>(length: usize, function: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = BUFFER.take();
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    let result = function(&mut buffer[..length]);
    BUFFER.set(buffer);
    result
}
