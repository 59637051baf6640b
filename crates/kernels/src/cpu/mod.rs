//! Native operations on the CPU, over slices of `f32`.
//!
//! Images are channels-last and contiguous. Every function splits its work by the shape alone and adds in a fixed order, so
//! the result does not depend on the number of threads. A function checks the lengths of its slices and panics where they
//! do not fit the shape.
//!
//! Each file holds one operation: its head gives the mathematics, the backward pass and the source, its end the burn
//! operation. They share `simd` (lanes), `parallel` (tasks), `scratch` (reused buffers), `pool` (memory of results),
//! `matrix` (strided matrix products), `epilogue` (operations fused into a normalization), and `operation` (burn operations
//! made of them).

pub mod activation;
pub mod attention;
pub mod concatenate;
pub mod convolution;
mod epilogue;
pub mod group_norm;
pub mod linear_attention;
pub mod loss;
mod matrix;
pub(crate) mod operation;
pub mod optimizer;
mod parallel;
mod pool;
pub mod rms_norm;
mod scratch;
mod simd;
pub mod softmax;

pub use epilogue::{Epilogue, Shape};
