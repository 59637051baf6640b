//! Out of device memory: the panic or message of a backend becomes an error.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::OnceLock,
};

/// Parts of the messages with which backends report that a device has no memory left.
const SIGNS: [&str; 10] = [
    // cubecl-runtime: IoError and LaunchError, on every GPU
    "out of device memory allocating",
    "can't allocate buffer of size",
    "every page size the memory tracks still holds live allocations",
    "An out-of-memory error happened during launch",
    // the drivers, through cudarc and cubecl-hip
    "CUDA_ERROR_OUT_OF_MEMORY",
    "hipErrorOutOfMemory",
    // wgpu, also of a buffer that is larger than the device allows
    "wgpu error: Out of Memory",
    "Not enough memory left",
    "is greater than the maximum buffer size",
    "max_*_buffer_binding_size",
];

/// A device has no memory left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory of the device does not suffice ({reason})")]
pub struct OutOfMemory {
    /// The line of the backend's message.
    reason: String,
}

impl OutOfMemory {
    /// The lack of memory that a message of a backend reports, if it reports one.
    pub fn in_message(message: &str) -> Option<Self> {
        // a message that is quoted in another has `\n` for ends of lines
        let mut lines = message.lines().flat_map(|line| line.split("\\n"));
        let line = lines.find(|line| SIGNS.iter().any(|sign| line.contains(sign)))?;
        Some(Self { reason: line.trim().to_owned() })
    }
}

/// Runs a function, for a program's `main`: it sets the hook for panics of the whole process, for good.
///
/// # Errors
/// [`OutOfMemory`] instead of a panic, in any thread, because a device has no memory left; nothing is printed of it. Other
/// panics pass unchanged.
pub fn guarded<T>(function: impl FnOnce() -> T) -> Result<T, OutOfMemory> {
    static FOUND: OnceLock<OutOfMemory> = OnceLock::new();
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if let Some(found) = OutOfMemory::in_message(info.payload_as_str().unwrap_or_default()) {
            drop(FOUND.set(found));
        } else if FOUND.get().is_none() {
            // later panics only follow from the first
            default(info);
        }
    }));
    panic::catch_unwind(AssertUnwindSafe(function)).or_else(|panic| match FOUND.get() {
        Some(found) => Err(found.clone()),
        None => panic::resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_backends_about_memory_are_recognized_and_no_others() {
        // of the crates in Cargo.lock: cubecl-runtime's `server/base.rs` within burn's `ExecutionError` and the `expect` of
        // `Tensor::into_data`; cubecl-wgpu's `compute/device_poison.rs`; wgpu-core's `resource.rs`
        let messages = [
            (
                "Error while reading data: use `try_into_data` instead to catch the error at runtime: An error happened during execution\n\
                 Caused by:\n  out of device memory allocating 4294967296 bytes\nBacktrace\n   0: start",
                "out of device memory allocating 4294967296 bytes",
            ),
            (
                "Error while reading data: WithContext { reason: \"An IO error happened\\n  can't allocate buffer of size: 1099511627776\\n\" }",
                "can't allocate buffer of size: 1099511627776",
            ),
            (
                "An out-of-memory error happened during launch\nCaused by:\n  out of memory launching kernel 7",
                "An out-of-memory error happened during launch",
            ),
            (
                "CUDA allocation error: DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
                "CUDA allocation error: DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
            ),
            ("wgpu error: Out of Memory", "wgpu error: Out of Memory"),
            (
                "wgpu error: Validation Error\n\nCaused by:\n  In Device::create_buffer\n    Buffer size 5 is greater than the maximum buffer size (4)",
                "Buffer size 5 is greater than the maximum buffer size (4)",
            ),
        ];
        for (message, reason) in messages {
            assert_eq!(OutOfMemory::in_message(message), Some(OutOfMemory { reason: reason.to_owned() }));
        }
        for other in ["", "index out of bounds: the len is 3 but the index is 3", "wgpu error: Validation Error"] {
            assert_eq!(OutOfMemory::in_message(other), None);
        }
    }

    #[test]
    fn a_panic_about_memory_in_a_thread_becomes_an_error() {
        assert_eq!(guarded(|| 3), Ok(3));
        // as for a part of a batch: the panic of the scope that follows has no word of memory
        let in_a_thread = || std::thread::scope(|scope| drop(scope.spawn(|| panic!("wgpu error: Out of Memory"))));
        let error = guarded(in_a_thread).expect_err("no memory");
        assert_eq!(error.to_string(), "the memory of the device does not suffice (wgpu error: Out of Memory)");
    }
}
