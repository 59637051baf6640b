//! Out of device memory: the panic or error of a backend becomes an error that says what to lower.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::OnceLock,
};

use anyhow::anyhow;

use crate::describe;

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

/// Advice for a training.
pub const TRAINING: &str = "Lower training.batch_size and raise training.gradient_accumulate_every as much (the step stays the same), \
     set training.gradient_checkpointing = true, or lower sampling.batch_size if samples were being drawn; a smaller network \
     (unet.dim) needs another run. Saved checkpoints are unchanged: go on with --resume and these settings (--set KEY=VALUE)";

/// Advice for drawing and judging images.
pub const SAMPLING: &str = "Lower the number of images that go through the network at a time (sampling.batch_size in a training, --batch-size of \
     diffuse sample), or use a device with more memory (--device). Saved files are unchanged";

/// Runs a command. If it fails because a device has no memory left, by a panic or an error, the error says so with `advice` and
/// nothing else is printed; other panics and errors pass unchanged.
pub fn guarded<T>(advice: &str, command: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    static FOUND: OnceLock<String> = OnceLock::new();
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if let Some(reason) = reason(info.payload_as_str().unwrap_or_default()) {
            drop(FOUND.set(reason));
        } else if FOUND.get().is_none() {
            // later panics only follow from the first
            default(info);
        }
    }));
    let without_memory = |reason: &str| anyhow!("the memory of the device does not suffice ({reason}). {advice}");
    match panic::catch_unwind(AssertUnwindSafe(command)) {
        Ok(result) => result.map_err(|error| match reason(&describe(&error)) {
            Some(reason) => without_memory(&reason),
            None => error,
        }),
        Err(panic) => match FOUND.get() {
            Some(reason) => Err(without_memory(reason)),
            None => panic::resume_unwind(panic),
        },
    }
}

/// The line of a message that reports a lack of memory.
fn reason(message: &str) -> Option<String> {
    // a message that is quoted in another has `\n` for ends of lines
    let mut lines = message.lines().flat_map(|line| line.split("\\n"));
    lines.find(|line| SIGNS.iter().any(|sign| line.contains(sign))).map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages of the crates in Cargo.lock: cubecl-runtime's `server/base.rs` within burn's `ExecutionError` and the `expect` of
    /// `Tensor::into_data`; cubecl-wgpu's `compute/device_poison.rs`; wgpu-core's `resource.rs`.
    const MESSAGES: [(&str, &str); 6] = [
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

    #[test]
    fn messages_of_backends_about_memory_are_recognized_and_no_others() {
        for (message, expected) in MESSAGES {
            assert_eq!(reason(message).as_deref(), Some(expected));
        }
        for other in ["", "index out of bounds: the len is 3 but the index is 3", "wgpu error: Validation Error"] {
            assert_eq!(reason(other), None);
        }
    }

    #[test]
    fn panics_and_errors_about_memory_become_one_error_and_others_stay() {
        // in another thread, as for a part of a batch: the panic of the scope that follows has no word of memory
        let in_a_thread = || -> anyhow::Result<()> {
            std::thread::scope(|scope| drop(scope.spawn(|| panic!("{}", MESSAGES[0].0))));
            Ok(())
        };
        let as_error = || -> anyhow::Result<()> { Err(anyhow!(MESSAGES[4].0).context("while reading")) };
        for (advice, error) in [(TRAINING, guarded(TRAINING, in_a_thread)), (SAMPLING, guarded(SAMPLING, as_error))] {
            let text = error.expect_err("an error").to_string();
            assert!(text.starts_with("the memory of the device does not suffice ("), "{text}");
            assert!(text.contains(advice) && text.contains("batch_size") && !text.contains("Backtrace"), "{text}");
        }
        assert_eq!(guarded("", || Ok(3)).expect("three"), 3);
        assert_eq!(guarded::<()>("", || Err(anyhow!("other"))).expect_err("an error").to_string(), "other");
    }
}
