//! The architecture of a [`Unet2d`](crate::Unet2d).

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::config::{LARGEST, UnetError};

/// A level on the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlock {
    /// ResNet blocks, then a convolution of stride 2.
    #[serde(rename = "DownBlock2D")]
    Plain,
    /// The same with attention behind each ResNet block.
    #[serde(rename = "AttnDownBlock2D")]
    Attention,
    /// ResNet blocks, of which the last halves height and width.
    #[serde(rename = "ResnetDownsampleBlock2D")]
    Resnet,
}

/// The middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MidBlock {
    /// Two ResNet blocks, with attention between them if `add_attention` says so.
    #[serde(rename = "UNetMidBlock2D")]
    Plain,
    /// Nothing.
    #[serde(rename = "none")]
    Nothing,
}

/// A level on the way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlock {
    /// ResNet blocks, then a convolution of the doubled image.
    #[serde(rename = "UpBlock2D")]
    Plain,
    /// The same with attention behind each ResNet block.
    #[serde(rename = "AttnUpBlock2D")]
    Attention,
    /// ResNet blocks, of which the last doubles height and width.
    #[serde(rename = "ResnetUpsampleBlock2D")]
    Resnet,
}

/// How a level with attention changes the resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResampleKind {
    /// By a convolution.
    Conv,
    /// By a ResNet block.
    Resnet,
}

/// The activation of the ResNet blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActivationKind {
    /// `x sigmoid(x)`, also called swish.
    #[serde(alias = "swish")]
    Silu,
    /// `x tanh(ln(1 + e^x))`.
    Mish,
    /// `x Phi(x)`.
    Gelu,
    /// `max(x, 0)`.
    Relu,
}

/// The features of t.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeEmbeddingKind {
    /// Sines and cosines of fixed frequencies.
    Positional,
    /// Sines and cosines of ln t times random, fixed frequencies; the output is divided by t.
    Fourier,
    /// A learned vector for each timestep.
    Learned,
}

/// How t enters a ResNet block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeScaleShift {
    /// Added before the second norm.
    Default,
    /// Scale and shift behind the second norm.
    ScaleShift,
}

/// How class labels enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassEmbedding {
    /// A learned vector for each class.
    Table,
    /// As t does: features of the label, then a perceptron of its own.
    Timestep,
    /// As vectors that a caller brings; labels are not possible, and the vector is 0.
    Identity,
}

/// The architecture of a [`Unet2d`](crate::Unet2d): names are those of diffusers' `UNet2DModel`, except for `channels`,
/// `learned_variance` and `classes`, which [`UnetConfig`](crate::UnetConfig) has, too. The defaults are the CIFAR-10 network of
/// Ho et al. 2020 (arXiv:2006.11239).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct Unet2dConfig {
    /// Channels of the image: 1 gray, 3 color, 4 color and alpha; any count is possible. diffusers' `in_channels`.
    pub channels: usize,
    /// Whether the output has a second half that interpolates the variance (Nichol and Dhariwal 2021, arXiv:2102.09672).
    pub learned_variance: bool,
    /// Number of classes; 0 for a network without labels. The label `classes` is the null class, which adds nothing. diffusers'
    /// `num_class_embeds`.
    pub classes: usize,
    /// Channels of each level, outermost first; each level but the last halves height and width.
    pub block_out_channels: Vec<usize>,
    /// The levels on the way down: `DownBlock2D`, `AttnDownBlock2D` or `ResnetDownsampleBlock2D` for each.
    pub down_block_types: Vec<DownBlock>,
    /// The middle: `UNetMidBlock2D` or `none`.
    pub mid_block_type: MidBlock,
    /// The levels on the way up, innermost first: `UpBlock2D`, `AttnUpBlock2D` or `ResnetUpsampleBlock2D` for each.
    pub up_block_types: Vec<UpBlock>,
    /// ResNet blocks of each level down; a level up has one more.
    pub layers_per_block: usize,
    /// Whether the middle has attention.
    pub add_attention: bool,
    /// Channels of each attention head; one head of all channels if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_head_dim: Option<usize>,
    /// Groups of the norm of the attention in the middle; if not given, `norm_num_groups`, and no norm with `scale_shift`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attn_norm_num_groups: Option<usize>,
    /// Groups of the other norms; they divide the channels of every norm.
    pub norm_num_groups: usize,
    /// Added to the variance in the norms.
    pub norm_eps: f64,
    /// `silu` (or `swish`), `mish`, `gelu` or `relu`.
    pub act_fn: ActivationKind,
    /// How t enters a ResNet block: `default` (added) or `scale_shift`.
    pub resnet_time_scale_shift: TimeScaleShift,
    /// Zeros around the image before a convolution that halves it: 1, or 0 for one row and column at the end only.
    pub downsample_padding: usize,
    /// How levels with attention halve the image: `conv` or `resnet`.
    pub downsample_type: ResampleKind,
    /// How levels with attention double the image: `conv` or `resnet`.
    pub upsample_type: ResampleKind,
    /// What the outputs of the blocks in the middle are divided by; not 0.
    pub mid_block_scale_factor: f64,
    /// The features of t: `positional`, `fourier` or `learned`.
    pub time_embedding_type: TimeEmbeddingKind,
    /// Channels of the embedding of t; four times those of the first level if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_embedding_dim: Option<usize>,
    /// Whether the cosines come before the sines.
    pub flip_sin_to_cos: bool,
    /// The number that the divisor of the frequencies' exponents is less than half the features: 1 in Ho et al. 2020.
    pub freq_shift: f64,
    /// Number of timesteps that a `learned` embedding has vectors for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_train_timesteps: Option<usize>,
    /// How labels enter: `table`, `timestep` or `identity` (not as labels).
    pub class_embed_type: ClassEmbedding,
    /// Whether the input is first mapped from [0, 1] to [-1, 1].
    pub center_input_sample: bool,
    /// Probability in [0, 1) that an element is dropped before the last convolution of a ResNet block, in training.
    pub dropout: f64,
}

impl Default for Unet2dConfig {
    fn default() -> Self {
        Self {
            channels: 3,
            learned_variance: false,
            classes: 0,
            block_out_channels: vec![128, 256, 256, 256],
            down_block_types: vec![DownBlock::Plain, DownBlock::Attention, DownBlock::Plain, DownBlock::Plain],
            mid_block_type: MidBlock::Plain,
            up_block_types: vec![UpBlock::Plain, UpBlock::Plain, UpBlock::Attention, UpBlock::Plain],
            layers_per_block: 2,
            add_attention: true,
            attention_head_dim: None,
            attn_norm_num_groups: None,
            norm_num_groups: 32,
            norm_eps: 1e-6,
            act_fn: ActivationKind::Silu,
            resnet_time_scale_shift: TimeScaleShift::Default,
            downsample_padding: 0,
            downsample_type: ResampleKind::Conv,
            upsample_type: ResampleKind::Conv,
            mid_block_scale_factor: 1.0,
            time_embedding_type: TimeEmbeddingKind::Positional,
            time_embedding_dim: None,
            flip_sin_to_cos: false,
            freq_shift: 1.0,
            num_train_timesteps: None,
            class_embed_type: ClassEmbedding::Table,
            center_input_sample: false,
            dropout: 0.1,
        }
    }
}

/// The sizes of a level.
pub(crate) struct Stage {
    /// Channels in and out of each ResNet block.
    pub resnets: Vec<[usize; 2]>,
    /// Channels of its output.
    pub channels: usize,
    pub has_attention: bool,
    pub resample: Option<ResampleKind>,
    /// How often its ResNet blocks find the image halved.
    pub depth: usize,
}

impl Unet2dConfig {
    /// Checks every value; called by [`init`](Self::init).
    ///
    /// # Errors
    /// [`UnetError`] names the key, its value and what is possible.
    pub fn validate(&self) -> Result<(), UnetError> {
        let check = UnetError::check_size;
        let positive = |key, value: usize| check(key, value, value > 0, "it must be at least 1");
        let levels = self.block_out_channels.len();
        check("block_out_channels", levels, (1..=16).contains(&levels), "it needs 1 to 16 levels")?;
        for &channels in &self.block_out_channels {
            positive("block_out_channels", channels)?;
        }
        let (down, up) = (self.down_block_types.len(), self.up_block_types.len());
        check("down_block_types", down, down == levels, "one for each entry of unet.block_out_channels is needed")?;
        check("up_block_types", up, up == levels, "one for each entry of unet.block_out_channels is needed")?;
        positive("channels", self.channels)?;
        check("classes", self.classes, true, "")?;
        let layers = self.layers_per_block;
        check("layers_per_block", layers, (1..=64).contains(&layers), "it must be 1 to 64")?;
        check("downsample_padding", self.downsample_padding, self.downsample_padding < 2, "it must be 0 or 1")?;
        positive("time_embedding_dim", self.time_dim())?;
        if self.class_embed_type == ClassEmbedding::Identity {
            let reason = "labels are not possible with unet.class_embed_type = \"identity\"";
            check("classes", self.classes, self.classes == 0, reason)?;
        }
        self.validate_embedding()?;
        self.validate_norms()?;
        self.validate_heads()?;
        let invalid = |key, value: f64, reason| Err(UnetError::Invalid { key, value: value.to_string(), reason });
        if !(0.0..1.0).contains(&self.dropout) {
            return invalid("dropout", self.dropout, "it is a probability: at least 0 and below 1");
        }
        if !(self.norm_eps.is_finite() && self.norm_eps > 0.0) {
            return invalid("norm_eps", self.norm_eps, "it must be above 0");
        }
        let factor = self.mid_block_scale_factor;
        if !factor.is_finite() || factor == 0.0 {
            return invalid("mid_block_scale_factor", factor, "it must be finite and not 0");
        }
        Ok(())
    }

    fn validate_embedding(&self) -> Result<(), UnetError> {
        let invalid = |key, value: String, reason| Err(UnetError::Invalid { key, value, reason });
        match self.time_embedding_type {
            TimeEmbeddingKind::Positional => {
                let half = self.block_out_channels[0] / 2;
                if half == 0 {
                    return invalid(
                        "block_out_channels",
                        self.block_out_channels[0].to_string(),
                        "t needs two channels",
                    );
                }
                if !self.freq_shift.is_finite() || self.freq_shift == half as f64 {
                    let reason = "it must be finite and not half the channels of the first level";
                    return invalid("freq_shift", self.freq_shift.to_string(), reason);
                }
            }
            TimeEmbeddingKind::Fourier => {}
            TimeEmbeddingKind::Learned => {
                let count = self.num_train_timesteps.unwrap_or(0);
                if !(1..=LARGEST).contains(&count) {
                    let reason = "unet.time_embedding_type = \"learned\" needs the number of timesteps, 1 to 65536";
                    return invalid("num_train_timesteps", count.to_string(), reason);
                }
            }
        }
        Ok(())
    }

    fn validate_norms(&self) -> Result<(), UnetError> {
        let mut channels: Vec<usize> = self.stages().flat_map(|stage| stage.resnets).flatten().collect();
        channels.push(self.block_out_channels[0]);
        let divide = |key, groups: usize, channels: &[usize]| {
            let divides = |count: &usize| groups > 0 && count.is_multiple_of(groups);
            let reason = "it must divide the channels of every norm: those of unet.block_out_channels, and the sums of two \
                          that meet on the way up";
            if channels.iter().all(divides) {
                Ok(())
            } else {
                Err(UnetError::Invalid { key, value: groups.to_string(), reason })
            }
        };
        divide("norm_num_groups", self.norm_num_groups, &channels)?;
        match self.mid_attention_groups() {
            Some(groups) if self.has_mid_attention() => divide("attn_norm_num_groups", groups, &[self.middle()]),
            _ => Ok(()),
        }
    }

    fn validate_heads(&self) -> Result<(), UnetError> {
        let Some(head_dim) = self.attention_head_dim else { return Ok(()) };
        let stages = self.stages().filter(|stage| stage.has_attention).map(|stage| stage.channels);
        let middle = self.has_mid_attention().then(|| self.middle());
        if head_dim == 0 || stages.chain(middle).any(|channels| channels < head_dim) {
            return Err(UnetError::Invalid {
                key: "attention_head_dim",
                value: head_dim.to_string(),
                reason: "it must be 1 to the channels of each level with attention",
            });
        }
        Ok(())
    }

    /// Number of parameters, counted without building the network, so that a hostile or mistaken configuration is found
    /// before memory is allocated.
    pub fn parameters(&self) -> u128 {
        let time_dim = self.time_dim() as u128;
        let convolution =
            |from: usize, to: usize, kernel: u128| from as u128 * to as u128 * kernel * kernel + to as u128;
        let linear = |from: u128, to: u128| from * to + to;
        let time_outputs = if self.has_scale_shift() { 2 } else { 1 };
        let resnet = |[from, to]: [usize; 2]| {
            let skip = if from == to { 0 } else { convolution(from, to, 1) };
            let norms = 2 * (from as u128 + to as u128);
            norms
                + convolution(from, to, 3)
                + linear(time_dim, time_outputs * to as u128)
                + convolution(to, to, 3)
                + skip
        };
        let attention = |channels: usize, has_norm: bool| {
            let inner: u128 = self.heads(channels).iter().map(|count| *count as u128).product();
            let norm = if has_norm { 2 * channels as u128 } else { 0 };
            norm + 3 * linear(channels as u128, inner) + linear(inner, channels as u128)
        };
        let stage = |stage: Stage| {
            let blocks = stage.resnets.len() as u128;
            let resample = match stage.resample {
                None => 0,
                Some(ResampleKind::Conv) => convolution(stage.channels, stage.channels, 3),
                Some(ResampleKind::Resnet) => resnet([stage.channels; 2]),
            };
            let attentions = if stage.has_attention { blocks * attention(stage.channels, true) } else { 0 };
            stage.resnets.iter().map(|channels| resnet(*channels)).sum::<u128>() + attentions + resample
        };
        let (stem, middle) = (self.first(), self.middle());
        let features = linear(self.time_features() as u128, time_dim) + linear(time_dim, time_dim);
        let projection = match self.time_embedding_type {
            TimeEmbeddingKind::Positional => 0,
            TimeEmbeddingKind::Fourier => stem as u128,
            TimeEmbeddingKind::Learned => stem as u128 * self.num_train_timesteps.unwrap_or(0) as u128,
        };
        let labels = match self.class_embed_type {
            _ if self.classes == 0 => 0,
            ClassEmbedding::Table => self.classes as u128 * time_dim,
            ClassEmbedding::Timestep => features,
            ClassEmbedding::Identity => 0,
        };
        let mid_attention =
            if self.has_mid_attention() { attention(middle, self.mid_attention_groups().is_some()) } else { 0 };
        let mid = if self.has_middle() { 2 * resnet([middle; 2]) + mid_attention } else { 0 };
        convolution(self.channels, stem, 3)
            + projection
            + features
            + labels
            + self.stages().map(stage).sum::<u128>()
            + mid
            + 2 * stem as u128
            + convolution(stem, self.out_dim(), 3)
    }

    /// Least number of saved activations per image of this size: the outputs of the two convolutions of each ResNet block.
    /// The others depend on the backend and can be several times as many.
    pub fn saved_activations(&self, height: usize, width: usize) -> u128 {
        let halved = |side: usize, depth: usize| side.checked_shr(depth as u32).unwrap_or(0) as u128;
        let outputs = |stage: Stage| {
            let channels = 2 * (stage.resnets.len() * stage.channels) as u128;
            channels * halved(height, stage.depth) * halved(width, stage.depth)
        };
        self.stages().map(outputs).sum()
    }

    /// The levels down, outermost first, then those up, innermost first.
    pub(crate) fn stages(&self) -> impl Iterator<Item = Stage> + '_ {
        self.downs().chain(self.ups())
    }

    pub(crate) fn downs(&self) -> impl Iterator<Item = Stage> + '_ {
        self.down_block_types.iter().zip(&self.block_out_channels).enumerate().map(|(level, (kind, &channels))| {
            let before = self.block_out_channels[level.saturating_sub(1)];
            let resample = match kind {
                DownBlock::Plain => ResampleKind::Conv,
                DownBlock::Attention => self.downsample_type,
                DownBlock::Resnet => ResampleKind::Resnet,
            };
            let resnet = |layer: usize| [if layer == 0 { before } else { channels }, channels];
            Stage {
                resnets: (0..self.layers_per_block).map(resnet).collect(),
                channels,
                has_attention: *kind == DownBlock::Attention,
                resample: (level + 1 < self.block_out_channels.len()).then_some(resample),
                depth: level,
            }
        })
    }

    pub(crate) fn ups(&self) -> impl Iterator<Item = Stage> + '_ {
        let reversed: Vec<usize> = self.block_out_channels.iter().rev().copied().collect();
        self.up_block_types.iter().take(reversed.len()).enumerate().map(move |(level, kind)| {
            let (before, channels) = (reversed[level.saturating_sub(1)], reversed[level]);
            let last = reversed.len() - 1;
            let outer = reversed[(level + 1).min(last)];
            let resample = match kind {
                UpBlock::Plain => ResampleKind::Conv,
                UpBlock::Attention => self.upsample_type,
                UpBlock::Resnet => ResampleKind::Resnet,
            };
            let resnet = |layer: usize| {
                let skip = if layer == self.layers_per_block { outer } else { channels };
                [if layer == 0 { before } else { channels } + skip, channels]
            };
            Stage {
                resnets: (0..=self.layers_per_block).map(resnet).collect(),
                channels,
                has_attention: *kind == UpBlock::Attention,
                resample: (level < last).then_some(resample),
                depth: last - level,
            }
        })
    }

    /// Channels of the stem.
    pub(crate) fn first(&self) -> usize {
        self.block_out_channels.first().copied().unwrap_or(0)
    }

    /// Channels of the middle.
    pub(crate) fn middle(&self) -> usize {
        self.block_out_channels.last().copied().unwrap_or(0)
    }

    pub(crate) fn has_middle(&self) -> bool {
        self.mid_block_type == MidBlock::Plain
    }

    pub(crate) fn has_mid_attention(&self) -> bool {
        self.has_middle() && self.add_attention
    }

    pub(crate) fn has_scale_shift(&self) -> bool {
        self.resnet_time_scale_shift == TimeScaleShift::ScaleShift
    }

    /// Groups of the norm of the attention in the middle; None for no norm.
    pub(crate) fn mid_attention_groups(&self) -> Option<usize> {
        self.attn_norm_num_groups.or((!self.has_scale_shift()).then_some(self.norm_num_groups))
    }

    /// Number of heads, and channels of each.
    pub(crate) fn heads(&self, channels: usize) -> [usize; 2] {
        let head_dim = self.attention_head_dim.unwrap_or(channels).max(1);
        [channels / head_dim, head_dim]
    }

    /// Channels of the embedding of t.
    pub(crate) fn time_dim(&self) -> usize {
        self.time_embedding_dim.unwrap_or(self.first().saturating_mul(4))
    }

    /// Number of features of t.
    pub(crate) fn time_features(&self) -> usize {
        self.first() * if self.time_embedding_type == TimeEmbeddingKind::Fourier { 2 } else { 1 }
    }

    /// Channels of the output.
    pub fn out_dim(&self) -> usize {
        self.channels * if self.learned_variance { 2 } else { 1 }
    }

    /// The factor that height and width of an image must be divisible by.
    pub fn downsample_factor(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }

    /// Checks that images of this size can go through the network.
    ///
    /// # Errors
    /// [`UnetError::NotDivisible`] with the next size that works.
    pub fn check_image_size(&self, height: usize, width: usize) -> Result<(), UnetError> {
        let levels = self.block_out_channels.len();
        UnetError::check_divisible([height, width], self.downsample_factor(), (1, levels), "block_out_channels")
    }
}
