//! The networks that are measured, and number formats.

use burn::tensor::{DType, Device};
use train::MixedPrecision;

use super::Session;
use crate::step::Case;

/// Those of the presets of these names, with images of noise; for `article` a batch that is quick, and the article's.
const NETWORKS: [Case; 4] = [
    Case { name: "cifar10", dim: 64, dim_mults: &[1, 2, 4, 8], channels: 3, side: 32, batch: 128 },
    Case { name: "article-8", dim: 64, dim_mults: &[1, 2, 4, 8], channels: 3, side: 128, batch: 8 },
    Case { name: "digits", dim: 32, dim_mults: &[1, 2, 4], channels: 1, side: 32, batch: 32 },
    Case { name: "article-32", dim: 64, dim_mults: &[1, 2, 4, 8], channels: 3, side: 128, batch: 32 },
];

/// One for a CPU that takes the place of a GPU.
const SMALL: [Case; 1] = [Case { name: "small", dim: 8, dim_mults: &[1, 2], channels: 1, side: 16, batch: 4 }];

/// The networks, the one that matters most first.
pub fn networks(session: &Session) -> &'static [Case] {
    if session.small { &SMALL } else { &NETWORKS }
}

/// A number format of the forward and backward pass.
#[derive(Clone, Copy)]
pub struct Format {
    /// Its name on the command line and in results.
    pub name: &'static str,
    /// Its type in burn.
    pub dtype: DType,
    /// Its key in a configuration.
    pub precision: MixedPrecision,
    /// Whether tensor cores may round the factors of f32 to TF32.
    pub tf32: bool,
}

/// All number formats, the one that matters least last.
pub const FORMATS: [Format; 4] = [
    Format { name: "tf32", dtype: DType::F32, precision: MixedPrecision::No, tf32: true },
    Format { name: "bf16", dtype: DType::BF16, precision: MixedPrecision::Bf16, tf32: true },
    Format { name: "f16", dtype: DType::F16, precision: MixedPrecision::F16, tf32: true },
    Format { name: "f32", dtype: DType::F32, precision: MixedPrecision::No, tf32: false },
];

impl Format {
    /// The format of a name.
    pub fn named(name: &str) -> Option<Self> {
        FORMATS.into_iter().find(|format| format.name == name)
    }

    /// Whether the device computes in it.
    pub fn is_supported(self, device: &Device) -> bool {
        match self.dtype {
            DType::F32 => !self.tf32 || kernels::tensor_cores::uses_tf32(device),
            dtype => device.supports_dtype(dtype),
        }
    }
}

/// The network and the format of a part such as `cifar10/bf16`.
pub fn of_part(session: &Session, part: &str) -> anyhow::Result<(&'static Case, Format)> {
    let (network, format) = part.split_once('/').unwrap_or((part, ""));
    let network = networks(session).iter().find(|case| case.name == network);
    network.zip(Format::named(format)).ok_or_else(|| anyhow::anyhow!("there is no network and format `{part}`"))
}
