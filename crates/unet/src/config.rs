//! The architecture of a [`Unet`](crate::Unet).

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

/// The attention of a level of the U-Net.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionKind {
    /// None.
    Off,
    /// Linear attention: cost grows with the number of pixels (Katharopoulos et al. 2020, arXiv:2006.16236; Shen et al.
    /// 2018, arXiv:1812.01243).
    Linear,
    /// Full softmax attention: cost grows with the square of the number of pixels.
    Full,
}

/// The architecture of a [`Unet`](crate::Unet). Names and defaults are those of lucidrains' `Unet` where it has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct UnetConfig {
    /// Channels of the first level, and the size of the sinusoidal embedding; even, at least 4.
    pub dim: usize,
    /// Channels of the stem; `dim` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_dim: Option<usize>,
    /// Channels of the output; those of the image if not given, twice as many with a learned variance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_dim: Option<usize>,
    /// Channels of each level as multiples of `dim`. Each level but the last halves height and width.
    pub dim_mults: Vec<usize>,
    /// Channels of the image: 1 gray, 3 color, 4 color and alpha; any count is possible.
    pub channels: usize,
    /// Side of the square patches that become one pixel of the network; 1 is lucidrains'. With 2 a 28x28 image costs as
    /// much as a 14x14 one.
    pub patch_size: usize,
    /// Attention of each level, outermost first. Empty is lucidrains' choice: linear everywhere, full innermost.
    pub attention: Vec<AttentionKind>,
    /// Heads of each attention.
    pub attention_heads: usize,
    /// Channels of each head.
    pub attention_head_dim: usize,
    /// Number of classes; 0 for a network without labels. The label `classes` is the null class.
    pub classes: usize,
    /// Whether the network also takes an earlier prediction of x_0 (Chen et al. 2022, arXiv:2208.04202).
    pub self_condition: bool,
    /// Whether the output has a second half that interpolates the variance (Nichol and Dhariwal 2021, arXiv:2102.09672).
    pub learned_variance: bool,
    /// Whether learned Fourier features of t replace the sinusoidal embedding.
    pub learned_sinusoidal_cond: bool,
    /// Whether random, fixed Fourier features of t replace the sinusoidal embedding.
    pub random_fourier_features: bool,
    /// Number of Fourier features; even.
    pub learned_sinusoidal_dim: usize,
    /// The longest period of the sinusoidal embedding.
    pub sinusoidal_pos_emb_theta: f64,
    /// Probability in [0, 1) that an element is dropped after the first half of a ResNet block, in training.
    pub dropout: f64,
}

impl Default for UnetConfig {
    fn default() -> Self {
        Self {
            dim: 64,
            init_dim: None,
            out_dim: None,
            dim_mults: vec![1, 2, 4, 8],
            channels: 3,
            patch_size: 1,
            attention: Vec::new(),
            attention_heads: 4,
            attention_head_dim: 32,
            classes: 0,
            self_condition: false,
            learned_variance: false,
            learned_sinusoidal_cond: false,
            random_fourier_features: false,
            learned_sinusoidal_dim: 16,
            sinusoidal_pos_emb_theta: 10_000.0,
            dropout: 0.0,
        }
    }
}

/// A configuration or image size that a network cannot have.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UnetError {
    /// A value is out of its range.
    #[error("unet.{key} = {value} is not possible: {reason}")]
    Invalid {
        /// The key of the configuration.
        key: &'static str,
        /// Its value.
        value: String,
        /// The condition it breaks.
        reason: &'static str,
    },
    /// The attention list does not fit the levels.
    #[error(
        "unet.attention has {attention} entries but unet.dim_mults has {levels}: give one for each level, or an empty \
         list for linear attention everywhere and full attention innermost"
    )]
    Attention {
        /// Entries of the list.
        attention: usize,
        /// Levels of the network.
        levels: usize,
    },
    /// Height or width cannot be halved as often as the network has levels.
    #[error(
        "images of {height}x{width} cannot go through this network: height and width must be divisible by {factor} \
         (patch size {patch_size} times 2 for each of {levels} levels but the last). Pad or resize the images (next \
         larger: {next_height}x{next_width}), or use fewer unet.{key}"
    )]
    NotDivisible {
        /// Height of the images.
        height: usize,
        /// Width of the images.
        width: usize,
        /// The factor that both must be divisible by.
        factor: usize,
        /// The patch size.
        patch_size: usize,
        /// The number of levels.
        levels: usize,
        /// The next height that works.
        next_height: usize,
        /// The next width that works.
        next_width: usize,
        /// The key with an entry for each level.
        key: &'static str,
    },
}

/// Learned keys and values of each attention head.
pub(crate) const MEMORY: usize = 4;

/// Larger sizes are refused as mistakes or hostile files.
pub(crate) const LARGEST: usize = 1 << 16;

impl UnetConfig {
    /// Checks every value; called by [`init`](Self::init).
    ///
    /// # Errors
    /// [`UnetError`] names the key, its value and what is possible.
    pub fn validate(&self) -> Result<(), UnetError> {
        let check = UnetError::check_size;
        check("dim", self.dim, self.dim >= 4 && self.dim.is_multiple_of(2), "it must be even and at least 4")?;
        check("channels", self.channels, self.channels > 0, "it must be at least 1")?;
        check("init_dim", self.init_dim(), self.init_dim() > 0, "it must be at least 1")?;
        check("out_dim", self.out_dim(), self.out_dim() > 0, "it must be at least 1")?;
        let levels = self.dim_mults.len();
        check("dim_mults", levels, (1..=16).contains(&levels), "it needs 1 to 16 levels")?;
        for &multiple in &self.dim_mults {
            check("dim_mults", multiple, (1..=1024).contains(&multiple), "each multiple must be 1 to 1024")?;
            check("dim_mults", multiple.saturating_mul(self.dim), true, "")?;
        }
        check("patch_size", self.patch_size, (1..=64).contains(&self.patch_size), "it must be 1 to 64")?;
        check("attention_heads", self.attention_heads, self.attention_heads > 0, "it must be at least 1")?;
        check("attention_head_dim", self.attention_head_dim, self.attention_head_dim > 0, "it must be at least 1")?;
        check("classes", self.classes, true, "")?;
        let fourier = self.learned_sinusoidal_dim;
        check("learned_sinusoidal_dim", fourier, fourier >= 2 && fourier.is_multiple_of(2), "it must be even")?;
        let invalid = |key, value: f64, reason| Err(UnetError::Invalid { key, value: value.to_string(), reason });
        if !(0.0..1.0).contains(&self.dropout) {
            return invalid("dropout", self.dropout, "it is a probability: at least 0 and below 1");
        }
        if !(self.sinusoidal_pos_emb_theta.is_finite() && self.sinusoidal_pos_emb_theta > 1.0) {
            return invalid("sinusoidal_pos_emb_theta", self.sinusoidal_pos_emb_theta, "it must be above 1");
        }
        if !self.attention.is_empty() && self.attention.len() != levels {
            return Err(UnetError::Attention { attention: self.attention.len(), levels });
        }
        Ok(())
    }

    /// Number of parameters, counted without building the network, so that a hostile or mistaken configuration is found
    /// before memory is allocated.
    pub fn parameters(&self) -> u128 {
        let dims: Vec<u128> = self.dims().into_iter().map(|dim| dim as u128).collect();
        let (levels, time_dim) = (self.dim_mults.len(), 4 * self.dim as u128);
        let convolution = |from: u128, to: u128, kernel: u128| from * to * kernel * kernel + to;
        let linear = |from: u128, to: u128| from * to + to;
        let resnet = |from: u128, to: u128| {
            let skip = if from == to { 0 } else { convolution(from, to, 1) };
            linear(time_dim, 2 * to) + convolution(from, to, 3) + to + convolution(to, to, 3) + to + skip
        };
        let hidden = self.attention_heads as u128 * self.attention_head_dim as u128;
        let attention = |kind: AttentionKind, channels: u128| {
            let memory = 2 * hidden * MEMORY as u128;
            let full = channels + memory + 3 * channels * hidden + convolution(hidden, channels, 1);
            match kind {
                AttentionKind::Off => 0,
                AttentionKind::Linear => full + channels,
                AttentionKind::Full => full,
            }
        };
        let level = |index: usize| {
            let (outer, inner, kind) = (dims[index], dims[index + 1], self.attention_of(index));
            let innermost = index + 1 == levels;
            let down = if innermost { convolution(outer, inner, 3) } else { convolution(4 * outer, inner, 1) };
            2 * resnet(outer, outer)
                + attention(kind, outer)
                + down
                + 2 * resnet(inner + outer, inner)
                + attention(kind, inner)
                + convolution(inner, outer, 3)
        };
        let fourier = self.learned_sinusoidal_dim as u128;
        let features = if self.has_fourier_features() {
            fourier / 2 + linear(fourier + 1, time_dim)
        } else {
            linear(self.dim as u128, time_dim)
        };
        let labels = if self.classes > 0 { (self.classes as u128 + 1) * time_dim } else { 0 };
        let (stem, middle) = (dims[0], dims[levels]);
        let patch_area = (self.patch_size * self.patch_size) as u128;
        let input = self.channels as u128 * patch_area * if self.self_condition { 2 } else { 1 };
        convolution(input, stem, 7)
            + features
            + linear(time_dim, time_dim)
            + labels
            + (0..levels).map(level).sum::<u128>()
            + 2 * resnet(middle, middle)
            + attention(AttentionKind::Full, middle)
            + resnet(2 * stem, stem)
            + convolution(stem, self.out_dim() as u128 * patch_area, 1)
    }

    /// Least number of saved activations per image of this size: the outputs of the two convolutions of each ResNet block.
    /// The others depend on the backend and can be several times as many.
    pub fn saved_activations(&self, height: usize, width: usize) -> u128 {
        let patch = self.patch_size.max(1);
        let halved = |side: usize, level: usize| (side / patch).checked_shr(level as u32).unwrap_or(0) as u128;
        let pixels = |level: usize| halved(height, level) * halved(width, level);
        // two blocks on the way down, two on the way up
        let dims = self.dims();
        let levels = dims.windows(2).enumerate();
        levels.map(|(level, dims)| 4 * (dims[0] as u128 + dims[1] as u128) * pixels(level)).sum()
    }

    /// Channels of the stem, then of each level.
    pub(crate) fn dims(&self) -> Vec<usize> {
        let levels = self.dim_mults.iter().map(|multiple| multiple.saturating_mul(self.dim));
        core::iter::once(self.init_dim()).chain(levels).collect()
    }

    /// Whether Fourier features of t replace the sinusoidal embedding.
    pub(crate) fn has_fourier_features(&self) -> bool {
        self.learned_sinusoidal_cond || self.random_fourier_features
    }

    /// Channels of the stem.
    pub fn init_dim(&self) -> usize {
        self.init_dim.unwrap_or(self.dim)
    }

    /// Channels of the output.
    pub fn out_dim(&self) -> usize {
        self.out_dim.unwrap_or(self.channels * if self.learned_variance { 2 } else { 1 })
    }

    /// Attention of a level, outermost first.
    pub fn attention_of(&self, level: usize) -> AttentionKind {
        let innermost = level + 1 == self.dim_mults.len();
        let lucidrains = if innermost { AttentionKind::Full } else { AttentionKind::Linear };
        self.attention.get(level).copied().unwrap_or(lucidrains)
    }

    /// The factor that height and width of an image must be divisible by.
    pub fn downsample_factor(&self) -> usize {
        self.patch_size << (self.dim_mults.len().saturating_sub(1))
    }

    /// Checks that images of this size can go through the network.
    ///
    /// # Errors
    /// [`UnetError::NotDivisible`] with the next size that works.
    pub fn check_image_size(&self, height: usize, width: usize) -> Result<(), UnetError> {
        UnetError::check_divisible(
            [height, width],
            self.downsample_factor(),
            (self.patch_size, self.dim_mults.len()),
            "dim_mults",
        )
    }
}

impl UnetError {
    /// Checks that a size is `good` and not too large; `reason` is that of one that is not good.
    pub(crate) fn check_size(key: &'static str, value: usize, good: bool, reason: &'static str) -> Result<(), Self> {
        if good && value <= LARGEST {
            return Ok(());
        }
        let reason = if good { "sizes above 65536 are not supported" } else { reason };
        Err(Self::Invalid { key, value: value.to_string(), reason })
    }

    /// Checks that a factor divides height and width; `key` is that of the levels.
    pub(crate) fn check_divisible(
        [height, width]: [usize; 2],
        factor: usize,
        (patch_size, levels): (usize, usize),
        key: &'static str,
    ) -> Result<(), Self> {
        if height > 0 && width > 0 && height.is_multiple_of(factor) && width.is_multiple_of(factor) {
            return Ok(());
        }
        Err(Self::NotDivisible {
            height,
            width,
            factor,
            patch_size,
            levels,
            next_height: height.max(1).next_multiple_of(factor),
            next_width: width.max(1).next_multiple_of(factor),
            key,
        })
    }
}
