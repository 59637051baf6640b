//! What tensor cores may do to f32.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{DType, Device};

/// The environment variable that keeps every operation off tensor cores, with the value `0`, to find out whether they are at
/// fault; with the value `emulated`, their instructions are written out, which is how tests run without them.
pub const VARIABLE: &str = "KERNELS_TENSOR_CORES";

static TF32: AtomicBool = AtomicBool::new(true);

/// Permits or forbids TF32 in this process: convolutions in f32 on tensor cores, whose factors are rounded to 10 bits of
/// mantissa (relative error 5e-4), as PyTorch's are by default. Without it they are computed elsewhere, exactly and more slowly.
pub fn allow_tf32(allow: bool) {
    TF32.store(allow, Ordering::Relaxed);
}

/// Whether [`allow_tf32`] permits TF32; it does at first.
pub fn tf32_is_allowed() -> bool {
    TF32.load(Ordering::Relaxed)
}

/// Whether convolutions in f32 on this device use TF32.
pub fn uses_tf32(device: &Device) -> bool {
    compute_in(device, DType::F32)
}

/// Whether this device has tensor cores that compute in a number format: f32 (by way of TF32), bf16 or f16.
pub fn compute_in(device: &Device, dtype: DType) -> bool {
    #[cfg(feature = "cube")]
    return crate::cube::operation::has_tensor_cores(device, dtype);
    #[cfg(not(feature = "cube"))]
    {
        let _ = (device, dtype);
        false
    }
}

/// What [`VARIABLE`] says of tensor cores.
#[cfg(feature = "cube")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Off,
    On,
    /// Their instructions are written out, so that a device without them runs what those with them run.
    Emulated,
}

#[cfg(feature = "cube")]
static USE: std::sync::OnceLock<Use> = std::sync::OnceLock::new();

#[cfg(feature = "cube")]
pub(crate) fn in_use() -> Use {
    *USE.get_or_init(|| match std::env::var(VARIABLE).as_deref() {
        Ok("0") => Use::Off,
        Ok("emulated") => Use::Emulated,
        _ => Use::On,
    })
}

/// Does what the value `emulated` of [`VARIABLE`] does, for tests: it must come before the first convolution.
#[cfg(feature = "cube")]
pub fn emulate() {
    // a second call finds what the first has set
    let _ = USE.set(Use::Emulated);
    assert_eq!(in_use(), Use::Emulated, "tensor cores were in use before");
}
