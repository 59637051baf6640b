//! Own operations for GPUs, in CubeCL: the same code on wgpu, Vulkan, Metal, CUDA and ROCm.
//!
//! Images are channels-last and contiguous; tensors are f32, bf16 or f16, and every sum is f32. Work is split by the shape
//! alone, and sums have a fixed order: nothing is added atomically, so a device gives the same bits every time.
//!
//! Each file holds one operation: its head gives the mathematics, the backward pass and the launches, its end the burn
//! operation. They share `operation` (burn operations made of them), `launch` (tensors and sizes of launches) and
//! `fold` (sums over units of a cube).
//!
//! Indices in kernels are 32-bit: a tensor has fewer than 2^32 elements.
#![expect(
    unsafe_code,
    reason = "kernels are launched without bounds checks; each compares its indices with the sizes that it is given, which \
              are those of the tensors"
)]

pub(crate) mod activation;
pub(crate) mod adam;
pub(crate) mod attention;
pub(crate) mod concatenate;
pub(crate) mod convolution;
mod fold;
pub(crate) mod group_norm;
mod launch;
pub(crate) mod linear_attention;
pub(crate) mod loss;
pub(crate) mod operation;
pub(crate) mod rms_norm;
pub(crate) mod softmax;
