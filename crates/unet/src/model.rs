//! The denoising U-Net: stem, levels down, middle, levels up, head.

use burn::{
    module::Module,
    tensor::{DType, Device, Int, Tensor, assert_shape},
};

use crate::{
    attention::{Attention, FullAttention},
    config::{UnetConfig, UnetError},
    dropout::DropoutMasks,
    embedding::{LabelEmbedding, TimeEmbedding},
    layers::Conv2d,
    resnet::ResnetBlock,
};

/// The inputs of a prediction besides x_t and t.
#[derive(Clone, Default)]
pub struct Condition<'a> {
    /// Class of each sample, `[batch]`, 0 to `classes`, where `classes` is the null class. None is the null class for
    /// all. Ignored by a network without classes.
    pub labels: Option<Tensor<1, Int>>,
    /// An earlier prediction of x_0, shape of x_t; None is zeros. Ignored by a network without self-conditioning.
    pub self_condition: Option<Tensor<4>>,
    /// Dropout masks, in training: called with the index of the layer and its shape `[batch, height, width, channels]`,
    /// returns 0 where an element is dropped and 1 / (1 - probability) elsewhere. None drops nothing.
    pub dropout: Option<&'a dyn Fn(usize, [usize; 4]) -> Tensor<4>>,
}

/// A level on the way down or up: two ResNet blocks, attention, and a change of resolution.
#[derive(Module, Debug)]
struct Level {
    resnet_1: ResnetBlock,
    resnet_2: ResnetBlock,
    attention: Option<Attention>,
    resample: Resample,
}

/// The change of resolution at the end of a level.
#[derive(Module, Debug)]
enum Resample {
    /// Half height and width: squares of four pixels become channels, then a 1x1 convolution.
    Down(Conv2d),
    /// Twice height and width: nearest neighbor, then a 3x3 convolution.
    Up(Conv2d),
    /// The innermost level down and the outermost up keep the resolution: a 3x3 convolution.
    Same(Conv2d),
}

impl Resample {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Down(conv) => conv.forward_patches(x),
            Self::Up(conv) => conv.forward_upsampled(x),
            Self::Same(conv) => conv.forward(x),
        }
    }
}

impl Level {
    /// The input of the next level down, and the two skips for the level up of this resolution.
    fn down(&self, x: Tensor<4>, time: &Tensor<2>, dropout: &mut DropoutMasks) -> (Tensor<4>, [Tensor<4>; 2]) {
        let first = self.resnet_1.forward(x, time, dropout);
        let second = self.attend(self.resnet_2.forward(first.clone(), time, dropout));
        (self.resample.forward(second.clone()), [first, second])
    }

    /// The input of the next level up.
    fn up(&self, x: Tensor<4>, skips: [Tensor<4>; 2], time: &Tensor<2>, dropout: &mut DropoutMasks) -> Tensor<4> {
        let [first, second] = skips;
        let x = self.resnet_1.forward(kernels::concat_channels(x, second), time, dropout);
        let x = self.resnet_2.forward(kernels::concat_channels(x, first), time, dropout);
        self.resample.forward(self.attend(x))
    }

    fn attend(&self, x: Tensor<4>) -> Tensor<4> {
        match &self.attention {
            Some(attention) => attention.forward(x),
            None => x,
        }
    }
}

/// The denoising U-Net, built by [`UnetConfig::init`]. Fields have the names of lucidrains' state dict.
#[derive(Module, Debug)]
pub struct Unet {
    init_conv: Conv2d,
    time_mlp: TimeEmbedding,
    label_embedding: Option<LabelEmbedding>,
    downs: Vec<Level>,
    mid_block1: ResnetBlock,
    mid_attn: FullAttention,
    mid_block2: ResnetBlock,
    ups: Vec<Level>,
    final_res_block: ResnetBlock,
    final_conv: Conv2d,
    #[module(skip)]
    config: UnetConfig,
}

impl UnetConfig {
    /// Builds the network on `device` with PyTorch's default initial weights, drawn from burn's random numbers;
    /// [`Unet::initialize`] gives it weights that follow from a seed alone.
    ///
    /// # Errors
    /// [`UnetError`] of [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> Result<Unet, UnetError> {
        self.validate()?;
        let time_dim = 4 * self.dim;
        let levels = self.dim_mults.len();
        let (heads, head_dim) = (self.attention_heads, self.attention_head_dim);
        let patch_area = self.patch_size * self.patch_size;
        let dims = self.dims();
        let conv = |channels_in, channels_out, kernel| Conv2d::new([channels_in, channels_out], kernel, device);
        let resnet = |channels_in, channels_out| ResnetBlock::new([channels_in, channels_out], time_dim, device);
        let level = |index: usize, channels_in, channels_out, resample| Level {
            resnet_1: resnet(channels_in, channels_out),
            resnet_2: resnet(channels_in, channels_out),
            attention: Attention::new(self.attention_of(index), channels_out, heads, head_dim, device),
            resample,
        };
        let down = |index: usize| {
            let (outer, inner) = (dims[index], dims[index + 1]);
            let resample = if index + 1 == levels {
                Resample::Same(conv(outer, inner, 3))
            } else {
                Resample::Down(conv(4 * outer, inner, 1))
            };
            level(index, outer, outer, resample)
        };
        let up = |index: usize| {
            let (outer, inner) = (dims[index], dims[index + 1]);
            let resample = if index == 0 { Resample::Same } else { Resample::Up };
            level(index, inner + outer, inner, resample(conv(inner, outer, 3)))
        };
        let (stem, middle) = (dims[0], dims[levels]);
        let input = self.channels * patch_area * if self.self_condition { 2 } else { 1 };
        Ok(Unet {
            init_conv: conv(input, stem, 7),
            time_mlp: TimeEmbedding::new(self, device),
            label_embedding: (self.classes > 0).then(|| LabelEmbedding::new(self.classes, time_dim, device)),
            downs: (0..levels).map(down).collect(),
            mid_block1: resnet(middle, middle),
            mid_attn: FullAttention::new(middle, heads, head_dim, device),
            mid_block2: resnet(middle, middle),
            ups: (0..levels).rev().map(up).collect(),
            final_res_block: resnet(2 * stem, stem),
            final_conv: conv(stem, self.out_dim() * patch_area, 1),
            config: self.clone(),
        })
    }
}

/// Checks the shapes of the inputs of a network for images of `channels`.
///
/// # Panics
/// If one does not fit, or the size of the images is refused by `check_size`.
pub(crate) fn check_inputs(
    x_t: &Tensor<4>,
    t: &Tensor<1>,
    channels: usize,
    check_size: impl FnOnce(usize, usize) -> Result<(), UnetError>,
) {
    let [batch, _, height, width] = x_t.dims();
    assert_shape!(x_t, [batch, channels, height, width]);
    assert_shape!(t, [batch]);
    if let Err(error) = check_size(height, width) {
        panic!("{error}");
    }
}

impl Unet {
    /// The configuration that the network was built from.
    pub fn config(&self) -> &UnetConfig {
        &self.config
    }

    /// The device of its parameters.
    pub fn device(&self) -> Device {
        self.final_conv.weight.lazy_device()
    }

    /// Whether they are on a GPU, which evaluates one large batch sooner than two small ones.
    pub fn is_on_gpu(&self) -> bool {
        kernels::is_gpu(&self.device())
    }

    /// The number format of its parameters.
    pub fn dtype(&self) -> DType {
        self.final_conv.weight.val().dtype()
    }

    /// The prediction, whose meaning the objective defines.
    ///
    /// # Shapes
    /// - `x_t`: `[batch, channels, height, width]`, height and width divisible by
    ///   [`downsample_factor`](UnetConfig::downsample_factor)
    /// - `t`: `[batch]`, 0 to T - 1
    /// - result: `[batch, out_dim, height, width]`
    ///
    /// # Panics
    /// If a shape does not fit; [`UnetConfig::check_image_size`] asks before.
    pub fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, condition: Condition) -> Tensor<4> {
        check_inputs(&x_t, &t, self.config.channels, |height, width| self.config.check_image_size(height, width));
        let x = self.with_self_condition(x_t, condition.self_condition);
        let time = self.embed(t, condition.labels);
        let mut dropout = DropoutMasks { masks: condition.dropout, layer: 0 };

        // stem; images are channels-last from here on
        let stem = self.init_conv.forward(kernels::space_to_depth(x.permute([0, 2, 3, 1]), self.config.patch_size));

        let mut x = stem.clone();
        let mut skips = Vec::with_capacity(self.downs.len());
        for level in &self.downs {
            let level_skips;
            (x, level_skips) = level.down(x, &time, &mut dropout);
            skips.push(level_skips);
        }

        x = self.mid_block1.forward(x, &time, &mut dropout);
        x = self.mid_attn.forward(x);
        x = self.mid_block2.forward(x, &time, &mut dropout);

        for (level, level_skips) in self.ups.iter().zip(skips.into_iter().rev()) {
            x = level.up(x, level_skips, &time, &mut dropout);
        }

        // head
        x = self.final_res_block.forward(kernels::concat_channels(x, stem), &time, &mut dropout);
        kernels::depth_to_space(self.final_conv.forward(x), self.config.patch_size).permute([0, 3, 1, 2])
    }

    /// x_t behind the channels of the earlier prediction of x_0, where the network is self-conditioned.
    fn with_self_condition(&self, x_t: Tensor<4>, x_0: Option<Tensor<4>>) -> Tensor<4> {
        if !self.config.self_condition {
            return x_t;
        }
        let x_0 = x_0.unwrap_or_else(|| x_t.zeros_like());
        assert_eq!(x_0.dims(), x_t.dims(), "self_condition has the shape of x_t");
        Tensor::cat(vec![x_0, x_t], 1)
    }

    /// SiLU of the embedding of t and the labels, with which every ResNet block begins: `[batch, 4 dim]`.
    fn embed(&self, t: Tensor<1>, labels: Option<Tensor<1, Int>>) -> Tensor<2> {
        let [batch] = t.dims();
        let time = self.time_mlp.forward(t);
        let Some(label_embedding) = &self.label_embedding else { return kernels::silu(time) };
        let label = match labels {
            Some(labels) => {
                assert_shape!(labels, [batch]);
                label_embedding.forward(labels)
            }
            None => label_embedding.null(batch),
        };
        kernels::silu(time + label)
    }
}
