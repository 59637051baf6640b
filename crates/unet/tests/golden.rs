//! lucidrains' golden values on the CPU.

mod cases;

use burn::tensor::Device;

fn device() -> Device {
    Device::flex()
}
