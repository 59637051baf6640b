//! What a model file says of itself.

use burn::tensor::Tensor;
use documented::DocumentedFields;
use sampler::{SamplerKind, Variance};
use schedule::{Objective, ScheduleConfig, Spacing};
use serde::{Deserialize, Serialize};
use unet::UnetConfig;

/// Version of the file format; raised when an older build could misread a file.
pub const FORMAT_VERSION: u32 = 1;

/// Everything that sampling needs besides the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// The network.
    pub unet: UnetConfig,
    /// The noise schedule.
    pub schedule: ScheduleConfig,
    /// What the network predicts.
    pub objective: Objective,
    /// The images.
    pub image: ImageFormat,
    /// Names of the classes, in the order of the labels; empty without labels.
    pub classes: Vec<String>,
    /// How to sample, unless asked otherwise.
    pub sampling: SamplingConfig,
}

impl Header {
    /// A header with the defaults for everything but network and images.
    pub fn new(unet: UnetConfig, image: ImageFormat) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            unet,
            schedule: ScheduleConfig::default(),
            objective: Objective::V,
            image,
            classes: Vec::new(),
            sampling: SamplingConfig::default(),
        }
    }
}

/// Size of the images that the network sees and of those that are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageFormat {
    /// 1 gray, 3 color, 4 color and alpha.
    pub channels: usize,
    /// Height that the network sees.
    pub height: usize,
    /// Width that the network sees.
    pub width: usize,
    /// Height of the picture; less than `height` where the data was padded, and then samples are cropped back.
    pub content_height: usize,
    /// Width of the picture, likewise.
    pub content_width: usize,
    /// Bits of a value, 8 or 16: what the images were, and what samples are written with.
    #[serde(default = "eight", skip_serializing_if = "is_eight")]
    pub bits: u8,
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
        Self { channels, height, width, content_height: height, content_width: width, bits: eight() }
    }

    /// The content of padded images: `[batch, channels, height, width]` to `[batch, channels, content_height, content_width]`.
    pub fn cropped(&self, images: Tensor<4>) -> Tensor<4> {
        let (top, left) = ((self.height - self.content_height) / 2, (self.width - self.content_width) / 2);
        images.narrow(2, top, self.content_height).narrow(3, left, self.content_width)
    }
}

/// What is done with the two predictions of a guided network, that with the class and that without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuidanceKind {
    /// Classifier-free guidance ([`sampler::Guided`]).
    #[default]
    Cfg,
    /// CFG++ ([`sampler::CfgPlusPlus`]), with a scale from 0 to 1; needs the sampler `ddim` and eta 0.
    CfgPlusPlus,
}

/// How images are drawn: the table `[sampling]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingConfig {
    /// `ddpm`, `ddim`, `euler`, `euler_ancestral`, `heun`, `edm`, `dpmpp_2m`, `dpmpp_3m`, `dpmpp_2m_sde`, `dpmpp_3m_sde`,
    /// `unipc`, `deis` or `pndm`.
    pub sampler: SamplerKind,
    /// Number of steps, at most the schedule's. The article's `sampling_timesteps`.
    pub steps: usize,
    /// Which timesteps: `lucidrains`, `leading`, `trailing`, `linspace`, `uniform`, `karras`, `exponential` or `flow`.
    pub spacing: Spacing,
    /// How random DDIM is, at least 0: 0 is deterministic. lucidrains' `ddim_sampling_eta`.
    pub eta: f64,
    /// How much noise `edm` adds in all (S_churn), at least 0.
    pub churn: f64,
    /// The variance of DDPM: `posterior`, `beta` or `learned`.
    pub variance: Variance,
    /// Whether x_0 is clipped to [-1, 1] at every step.
    pub clip: bool,
    /// Scale of classifier-free guidance; 1 is none. Matters only with classes.
    pub guidance: f64,
    /// `cfg` or `cfg_plus_plus`.
    pub guidance_kind: GuidanceKind,
    /// Only between these sigmas is there guidance ([`sampler::Guided::interval`]); everywhere if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_interval: Option<[f64; 2]>,
    /// How far the contrast of guided images is brought back ([`sampler::Guided::rescale`]), from 0 to 1.
    pub guidance_rescale: f64,
    /// How many images are drawn in training and for the final grid.
    pub count: usize,
    /// How many images go through the network at a time.
    pub batch_size: usize,
    /// Parts that such a batch is cut into, computed at the same time on as many threads: worth it on a CPU.
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
