//! Native operations on the CPU, over plain slices of `f32`.
//!
//! Images are channels-last and contiguous. Every function splits its work by the shape alone and adds in a fixed order,
//! so the result does not depend on the number of threads. A function checks the lengths of its slices and panics where
//! they do not fit the shape.
//!
//! Each file holds one operation; its head gives the mathematics, the backward and the source. Shared by them: `simd`
//! (lanes), `parallel` (tasks), `scratch` (reused buffers), `matrix` (strided matrix products), `epilogue` (what is fused
//! into a normalisation), and `operation`, which makes burn operations of them.

#[macro_use]
mod simd;

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod convolution;
mod epilogue;
pub(crate) mod linear_attention;
mod matrix;
pub(crate) mod operation;
pub(crate) mod optimiser;
mod parallel;
pub(crate) mod resample;
pub(crate) mod rms_norm;
mod scratch;
mod softmax;
