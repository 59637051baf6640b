//! The U-Net itself.

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, assert_shape},
};

use crate::{
    attention::{Attention, FullAttention},
    config::{UnetConfig, UnetError},
    embedding::{LabelEmbedding, TimeEmbedding},
    layers::Conv2d,
    ops,
    resnet::ResnetBlock,
};

/// What a prediction may depend on besides x_t and t.
#[derive(Clone, Default)]
pub struct Condition<'a> {
    /// Class of each sample, `[batch]`, 0 to `classes`, where `classes` is the null class. None is the null class for
    /// all. Ignored by a network without classes.
    pub labels: Option<Tensor<1, Int>>,
    /// An earlier estimate of x_0, shape of x_t; None is zeros. Ignored by a network without self-conditioning.
    pub self_condition: Option<Tensor<4>>,
    /// Masks for dropout, in training: called with the number of the layer and its shape `[batch, height, width,
    /// channels]`; gives 0 where an element is dropped and 1 / (1 - probability) elsewhere. None drops nothing.
    pub dropout: Option<&'a dyn Fn(usize, [usize; 4]) -> Tensor<4>>,
}

/// Counts the dropout layers of one forward pass.
pub struct DropoutMasks<'a> {
    masks: Option<&'a dyn Fn(usize, [usize; 4]) -> Tensor<4>>,
    layer: usize,
}

impl DropoutMasks<'_> {
    pub fn apply(&mut self, x: Tensor<4>) -> Tensor<4> {
        self.layer += 1;
        match self.masks {
            Some(mask) => {
                let mask = mask(self.layer - 1, x.dims());
                x * mask
            }
            None => x,
        }
    }
}

/// A level on the way down or up: two ResNet blocks, attention, and the way to the next level.
#[derive(Module, Debug)]
struct Level {
    resnet_1: ResnetBlock,
    resnet_2: ResnetBlock,
    attention: Option<Attention>,
    resample: Resample,
}

/// How a level hands on to the next.
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
            Self::Down(conv) => conv.forward_squares(x),
            Self::Up(conv) => conv.forward_upsampled(x),
            Self::Same(conv) => conv.forward(x),
        }
    }
}

impl Level {
    fn attend(&self, x: Tensor<4>) -> Tensor<4> {
        match &self.attention {
            Some(attention) => attention.forward(x.clone()) + x,
            None => x,
        }
    }
}

/// The denoising U-Net. Made by [`UnetConfig::init`].
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
    /// Builds the network on `device` with PyTorch's default initial weights, drawn from burn's random numbers; use
    /// [`Unet::initialize`] for weights that follow from a seed alone.
    ///
    /// # Errors
    /// [`UnetError`] if [`validate`](Self::validate) finds something.
    pub fn init(&self, device: &Device) -> Result<Unet, UnetError> {
        self.validate()?;
        let time_dim = 4 * self.dim;
        let levels = self.dim_mults.len();
        let (heads, head_dim) = (self.attention_heads, self.attention_head_dim);
        let patch_area = self.patch_size * self.patch_size;
        let dims: Vec<usize> = core::iter::once(self.init_dim())
            .chain(self.dim_mults.iter().map(|multiple| multiple * self.dim))
            .collect();
        let resnet = |channels_in, channels_out| ResnetBlock::new([channels_in, channels_out], time_dim, device);

        let downs = (0..levels)
            .map(|level| {
                let (channels, next, innermost) = (dims[level], dims[level + 1], level + 1 == levels);
                Level {
                    resnet_1: resnet(channels, channels),
                    resnet_2: resnet(channels, channels),
                    attention: Attention::new(self.attention_of(level), channels, heads, head_dim, device),
                    resample: match innermost {
                        true => Resample::Same(Conv2d::new([channels, next], 3, device)),
                        false => Resample::Down(Conv2d::new([4 * channels, next], 1, device)),
                    },
                }
            })
            .collect();
        let ups = (0..levels)
            .rev()
            .map(|level| {
                let (next, channels) = (dims[level], dims[level + 1]);
                let conv = Conv2d::new([channels, next], 3, device);
                Level {
                    resnet_1: resnet(channels + next, channels),
                    resnet_2: resnet(channels + next, channels),
                    attention: Attention::new(self.attention_of(level), channels, heads, head_dim, device),
                    resample: if level == 0 { Resample::Same(conv) } else { Resample::Up(conv) },
                }
            })
            .collect();

        let middle = dims[levels];
        let input = self.channels * patch_area * if self.self_condition { 2 } else { 1 };
        Ok(Unet {
            init_conv: Conv2d::new([input, dims[0]], 7, device),
            time_mlp: TimeEmbedding::new(self, device),
            label_embedding: (self.classes > 0).then(|| LabelEmbedding::new(self.classes, time_dim, device)),
            downs,
            mid_block1: resnet(middle, middle),
            mid_attn: FullAttention::new(middle, heads, head_dim, device),
            mid_block2: resnet(middle, middle),
            ups,
            final_res_block: resnet(2 * dims[0], dims[0]),
            final_conv: Conv2d::new([dims[0], self.out_dim() * patch_area], 1, device),
            config: self.clone(),
        })
    }
}

impl Unet {
    /// What the network was built from.
    pub fn config(&self) -> &UnetConfig {
        &self.config
    }

    /// Where its parameters lie.
    pub fn device(&self) -> Device {
        self.final_conv.weight.lazy_device()
    }

    /// The number format of its parameters.
    pub fn dtype(&self) -> burn::tensor::DType {
        self.final_conv.weight.val().dtype()
    }

    /// The raw prediction; what it means is the objective's business.
    ///
    /// # Shapes
    /// - `x_t`: `[batch, channels, height, width]`, height and width divisible by
    ///   [`downsample_factor`](UnetConfig::downsample_factor)
    /// - `t`: `[batch]`, in steps 0 to T - 1
    /// - result: `[batch, out_dim, height, width]`
    ///
    /// # Panics
    /// If a shape does not fit; [`UnetConfig::check_image_size`] asks before.
    pub fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, condition: Condition) -> Tensor<4> {
        let [batch, channels, height, width] = x_t.dims();
        assert_shape!(x_t, [batch, self.config.channels, height, width]);
        assert_shape!(t, [batch]);
        if let Err(error) = self.config.check_image_size(height, width) {
            panic!("{error}");
        }

        let x = if self.config.self_condition {
            let estimate = condition.self_condition.unwrap_or_else(|| x_t.zeros_like());
            assert_shape!(estimate, [batch, channels, height, width]);
            Tensor::cat(vec![estimate, x_t], 1)
        } else {
            x_t
        };
        let mut time = self.time_mlp.forward(t);
        if let Some(embedding) = &self.label_embedding {
            time = time
                + match condition.labels {
                    Some(labels) => {
                        assert_shape!(labels, [batch]);
                        embedding.forward(labels)
                    }
                    None => embedding.null(batch),
                };
        }
        // every ResNet block begins with SiLU of the same embedding
        let time = ops::silu(time);
        let mut dropout = DropoutMasks { masks: condition.dropout, layer: 0 };

        // inside, images are channels-last
        let x = ops::space_to_depth(x.permute([0, 2, 3, 1]), self.config.patch_size);
        let mut x = self.init_conv.forward(x);
        let stem = x.clone();
        let mut skips = Vec::with_capacity(2 * self.downs.len());

        for level in &self.downs {
            x = level.resnet_1.forward(x, time.clone(), &mut dropout);
            skips.push(x.clone());
            x = level.resnet_2.forward(x, time.clone(), &mut dropout);
            x = level.attend(x);
            skips.push(x.clone());
            x = level.resample.forward(x);
        }

        x = self.mid_block1.forward(x, time.clone(), &mut dropout);
        x = self.mid_attn.forward(x.clone()) + x;
        x = self.mid_block2.forward(x, time.clone(), &mut dropout);

        let mut with_skip = |x: Tensor<4>| match skips.pop() {
            Some(skip) => ops::concat_channels(x, skip),
            None => unreachable!("a level up takes the two skips that its level down pushed"),
        };
        for level in &self.ups {
            x = level.resnet_1.forward(with_skip(x), time.clone(), &mut dropout);
            x = level.resnet_2.forward(with_skip(x), time.clone(), &mut dropout);
            x = level.attend(x);
            x = level.resample.forward(x);
        }

        x = self.final_res_block.forward(ops::concat_channels(x, stem), time, &mut dropout);
        ops::depth_to_space(self.final_conv.forward(x), self.config.patch_size).permute([0, 3, 1, 2])
    }
}
