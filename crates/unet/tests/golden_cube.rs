//! lucidrains' golden values on a GPU, or on Mesa's lavapipe: `cargo test --workspace --features wgpu --test golden_cube`.
#![cfg(feature = "cube")]

mod cases;

use burn::tensor::Device;

/// The device with the name in `KERNELS_DEVICE`, or `wgpu`.
fn device() -> Device {
    let name = std::env::var("KERNELS_DEVICE").unwrap_or_else(|_| "wgpu".to_owned());
    device::open(&name).expect("a device; Mesa's lavapipe is one of wgpu")
}
