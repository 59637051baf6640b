//! Reused memory of results: every training step makes and drops tensors of the same sizes, and fresh memory costs a page
//! fault every 4 KiB and a pass of zeros (docs/performance.md).
//!
//! A buffer goes back to the pool when the last tensor that holds it is dropped. The pool serves exact lengths only, and
//! frees buffers that were not used during the last [`LIFE`] requests, so that shapes which do not occur again hold no memory.

use std::{
    collections::BTreeMap,
    mem::MaybeUninit,
    sync::{Mutex, PoisonError},
};

use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes};

/// Buffers of fewer elements are left to the allocator.
const LEAST: usize = 16 * 1024;
/// Requests after which an unused buffer is freed.
const LIFE: u64 = 20_000;

/// Free buffers by length, each with the number of requests at its return.
struct Pool {
    free: BTreeMap<usize, Vec<(u64, Vec<f32>)>>,
    requests: u64,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: BTreeMap::new(), requests: 0 });

/// `length` floats with arbitrary values.
pub(crate) fn take(length: usize) -> Vec<f32> {
    if length < LEAST {
        return vec![0.0; length];
    }
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    pool.requests += 1;
    let now = pool.requests;
    if now.is_multiple_of(LIFE) {
        pool.free.retain(|_, buffers| {
            buffers.retain(|(returned, _)| now - returned < LIFE);
            !buffers.is_empty()
        });
    }
    let found = pool.free.get_mut(&length).and_then(Vec::pop);
    drop(pool);
    found.map_or_else(|| vec![0.0; length], |(_, buffer)| buffer)
}

/// The buffer as burn's bytes; it returns to the pool when they are dropped.
pub(crate) fn bytes(buffer: Vec<f32>) -> Bytes {
    if buffer.len() < LEAST {
        return Bytes::from_elems(buffer);
    }
    let length = size_of_val(buffer.as_slice());
    #[expect(unsafe_code, reason = "the caller of `from_controller` promises initialized bytes")]
    // SAFETY: a vector of floats is initialized memory of this length.
    unsafe {
        Bytes::from_controller(Box::new(Pooled(buffer)), length)
    }
}

/// The owner of a buffer in use.
struct Pooled(Vec<f32>);

impl Drop for Pooled {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        let now = pool.requests;
        pool.free.entry(buffer.len()).or_default().push((now, buffer));
    }
}

#[expect(unsafe_code, reason = "floats seen as the bytes that burn works on")]
impl AllocationController for Pooled {
    fn alloc_align(&self) -> usize {
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self, _: AccessPolicy) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let values = self.0.as_mut_slice();
        // SAFETY: the bytes of the floats, borrowed as long as they; the caller promises to write initialized bytes only,
        // and any four of them are a float.
        Ok(unsafe { core::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) })
    }

    fn memory(&self, _: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let values = self.0.as_slice();
        // SAFETY: the bytes of the floats, borrowed as long as they.
        Ok(unsafe { core::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let length = LEAST + 12_345;
        let mut buffer = take(length);
        buffer[7] = 3.0;
        let place = buffer.as_ptr();
        let bytes = bytes(buffer);
        assert_eq!(bytes.len(), 4 * length);
        assert_eq!(bytes[28..32], 3f32.to_ne_bytes());
        drop(bytes);
        let again = take(length);
        assert_eq!((again.as_ptr(), again[7]), (place, 3.0));
        let another = take(length);
        assert_ne!(another.as_ptr(), place, "a buffer has one user at a time");
    }
}
