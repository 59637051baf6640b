//! Models of other systems in and out, and models as ONNX.
#![forbid(unsafe_code)]

mod account;
pub mod diffusers;
mod error;
pub mod lucidrains;
pub mod onnx;
pub mod page;
pub mod torch_file;

pub use account::Account;
pub use error::InterchangeError;
