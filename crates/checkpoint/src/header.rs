//! The header of a model file.

use burn::tensor::Tensor;
use documented::DocumentedFields;
use sampler::{SamplerKind, Variance};
use schedule::{Objective, ScheduleConfig, Spacing};
use serde::{Deserialize, Serialize};
use unet::NetworkConfig;

/// The highest version of the format of model files that is read; raised when an older build could misread a file.
pub const FORMAT_VERSION: u32 = 2;

/// The version of the format of a model file: 1, and 2 for a network that builds of version 1 do not have.
pub fn format_version(unet: &NetworkConfig) -> u32 {
    match unet {
        NetworkConfig::Unet(_) => 1,
        NetworkConfig::Unet2d(_) => 2,
    }
}

/// Everything that sampling needs besides the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The [`format_version`] of the network.
    pub format_version: u32,
    /// The network.
    pub unet: NetworkConfig,
    /// The noise schedule.
    pub schedule: ScheduleConfig,
    /// The objective that the network was trained for.
    pub objective: Objective,
    /// The images.
    pub image: ImageFormat,
    /// Names of the classes, in the order of the labels; empty without labels.
    pub classes: Vec<String>,
    /// The default options of sampling.
    pub sampling: SamplingConfig,
}

impl Header {
    /// A header with the defaults for everything but network and images.
    pub fn new(unet: impl Into<NetworkConfig>, image: ImageFormat) -> Self {
        let unet = unet.into();
        Self {
            format_version: format_version(&unet),
            unet,
            schedule: ScheduleConfig::default(),
            objective: Objective::V,
            image,
            classes: Vec::new(),
            sampling: SamplingConfig::default(),
        }
    }
}

/// Size and format of the images, for the network and for pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageFormat {
    /// 1 (gray), 3 (RGB), 4 (RGBA), or another number of bands.
    pub channels: usize,
    /// Height of the input of the network.
    pub height: usize,
    /// Width of the input of the network.
    pub width: usize,
    /// Height of the picture; less than `height` if the data was padded: samples are cropped back.
    pub content_height: usize,
    /// Width of the picture, likewise.
    pub content_width: usize,
    /// Bits of a value, 8 or 16, of the training images and of written samples.
    #[serde(default = "eight", skip_serializing_if = "is_eight")]
    pub bits: u8,
    /// The channels that pictures show as red, green and blue, counted from 0, where the channels have no colors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview_channels: Option<[usize; 3]>,
}

fn eight() -> u8 {
    8
}

fn is_eight(bits: &u8) -> bool {
    *bits == eight()
}

impl ImageFormat {
    /// Images of 8 bits that were not padded.
    pub fn new(channels: usize, height: usize, width: usize) -> Self {
        let (content_height, content_width) = (height, width);
        let preview_channels = (!matches!(channels, 1 | 3 | 4)).then(|| Self::first_channels(channels));
        Self { channels, height, width, content_height, content_width, bits: eight(), preview_channels }
    }

    /// The first three of these channels; of two the first alone, as gray.
    pub fn first_channels(channels: usize) -> [usize; 3] {
        if channels > 2 { [0, 1, 2] } else { [0; 3] }
    }

    /// The content of padded images: `[batch, channels, height, width]` to `[batch, channels, content_height, content_width]`.
    pub fn cropped(&self, images: Tensor<4>) -> Tensor<4> {
        let (top, left) = ((self.height - self.content_height) / 2, (self.width - self.content_width) / 2);
        images.narrow(2, top, self.content_height).narrow(3, left, self.content_width)
    }
}

/// How the predictions with and without the class are combined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuidanceKind {
    /// Classifier-free guidance ([`sampler::Guided`]).
    #[default]
    Cfg,
    /// CFG++ ([`sampler::CfgPlusPlus`]), with a scale from 0 to 1; needs the sampler `ddim` and eta 0.
    CfgPlusPlus,
}

/// The options of sampling: the table `[sampling]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingConfig {
    /// `ddpm`, `ddim`, `euler`, `euler_ancestral`, `heun`, `edm`, `dpmpp_2m`, `dpmpp_3m`, `dpmpp_2m_sde`, `dpmpp_3m_sde`,
    /// `unipc`, `deis` or `pndm`.
    pub sampler: SamplerKind,
    /// Number of steps, at most the schedule's. The article's `sampling_timesteps`.
    pub steps: usize,
    /// The timesteps: `lucidrains`, `leading`, `trailing`, `linspace`, `uniform`, `karras`, `exponential` or `flow`.
    pub spacing: Spacing,
    /// The noise of DDIM, at least 0, where 0 is deterministic and 1 as in DDPM. lucidrains' `ddim_sampling_eta`.
    pub eta: f64,
    /// The noise that `edm` adds in all (S_churn), at least 0.
    pub churn: f64,
    /// The variance of DDPM: `posterior`, `beta` or `learned`.
    pub variance: Variance,
    /// Whether x_0 is clipped to [-1, 1] at every step.
    pub clip: bool,
    /// Scale of classifier-free guidance; 1 for none. Only with classes.
    pub guidance: f64,
    /// `cfg` or `cfg_plus_plus`.
    pub guidance_kind: GuidanceKind,
    /// The sigmas between which guidance is applied ([`sampler::Guided::interval`]); all if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_interval: Option<[f64; 2]>,
    /// Rescaling of guided images to the contrast of unguided ones ([`sampler::Guided::rescale`]), 0 (none) to 1.
    pub guidance_rescale: f64,
    /// The number of images in the grids of a training.
    pub count: usize,
    /// The number of images in a batch.
    pub batch_size: usize,
    /// The number of parts of a batch, each computed by its own thread: faster on a CPU.
    pub parallel_parts: usize,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self {
            sampler: SamplerKind::Ddim,
            steps: 50,
            spacing: Spacing::Lucidrains,
            eta: 0.0,
            churn: 30.0,
            variance: Variance::Posterior,
            clip: true,
            guidance: 1.0,
            guidance_kind: GuidanceKind::Cfg,
            guidance_interval: None,
            guidance_rescale: 0.0,
            count: 25,
            batch_size: 64,
            parallel_parts: 1,
        }
    }
}
