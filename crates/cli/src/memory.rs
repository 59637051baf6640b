//! Out of device memory: the error says what to lower.

use anyhow::anyhow;
use device::memory::OutOfMemory;

use crate::describe;

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
    let advise = |error: OutOfMemory| anyhow!("{error}. {advice}");
    let result = device::memory::guarded(command).map_err(advise)?;
    result.map_err(|error| OutOfMemory::in_message(&describe(&error)).map_or(error, advise))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_and_errors_about_memory_become_one_error_and_others_stay() {
        let as_panic = || -> anyhow::Result<()> { panic!("wgpu error: Out of Memory") };
        let as_error = || -> anyhow::Result<()> { Err(anyhow!("wgpu error: Out of Memory").context("while reading")) };
        for (advice, error) in [(TRAINING, guarded(TRAINING, as_panic)), (SAMPLING, guarded(SAMPLING, as_error))] {
            let text = error.expect_err("an error").to_string();
            assert!(text.starts_with("the memory of the device does not suffice ("), "{text}");
            assert!(text.contains(advice) && text.contains("batch_size"), "{text}");
        }
        assert_eq!(guarded("", || Ok(3)).expect("three"), 3);
        assert_eq!(guarded::<()>("", || Err(anyhow!("other"))).expect_err("an error").to_string(), "other");
    }
}
