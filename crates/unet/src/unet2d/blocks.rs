//! Levels on the way down and up, and the middle.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use crate::{
    dropout::DropoutMasks,
    layers::Conv2d,
    unet2d::{
        attention::Attention,
        config::{ResampleKind, Stage, Unet2dConfig},
        resnet::{Resampling, ResnetBlock},
    },
};

/// A convolution that halves height and width.
#[derive(Module, Debug)]
pub struct Downsampling {
    conv: Conv2d,
    #[module(skip)]
    padding: usize,
}

impl Downsampling {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, height, width, _] = x.dims();
        if self.padding == 1 {
            return self.conv.forward_halved(x, 1);
        }
        // One row and column of zeros at the end are two of zeros on all sides, without the first outputs: position i of the
        // latter reads pixels 2 i - 2 to 2 i, position i of the former 2 i to 2 i + 2.
        self.conv.forward_halved(x, 2).narrow(1, 1, height / 2).narrow(2, 1, width / 2)
    }
}

/// A convolution of the doubled image.
#[derive(Module, Debug)]
pub struct Upsampling {
    conv: Conv2d,
}

/// The change of resolution at the end of a level down.
#[allow(clippy::large_enum_variant, reason = "a network has few of them")]
#[derive(Module, Debug)]
pub enum Downsampler {
    /// By a convolution.
    Conv(Downsampling),
    /// By a ResNet block.
    Resnet(ResnetBlock),
}

/// The change of resolution at the end of a level up.
#[allow(clippy::large_enum_variant, reason = "a network has few of them")]
#[derive(Module, Debug)]
pub enum Upsampler {
    /// By a convolution.
    Conv(Upsampling),
    /// By a ResNet block.
    Resnet(ResnetBlock),
}

/// A level on the way down.
#[derive(Module, Debug)]
pub struct DownLevel {
    /// One for each ResNet block, or none.
    attentions: Vec<Attention>,
    resnets: Vec<ResnetBlock>,
    /// One, or none.
    downsamplers: Vec<Downsampler>,
}

impl DownLevel {
    pub fn new(config: &Unet2dConfig, stage: &Stage, device: &Device) -> Self {
        let downsampler = |kind| match kind {
            ResampleKind::Conv => Downsampler::Conv(Downsampling {
                conv: Conv2d::new([stage.channels; 2], 3, device),
                padding: config.downsample_padding,
            }),
            ResampleKind::Resnet => {
                Downsampler::Resnet(ResnetBlock::new(config, [stage.channels; 2], device).resampling(Resampling::Down))
            }
        };
        let (attentions, resnets) = layers(config, stage, device);
        Self { attentions, resnets, downsamplers: stage.resample.map(downsampler).into_iter().collect() }
    }

    /// The input of the next level; each output goes to `skips`.
    pub fn forward(
        &self,
        mut x: Tensor<4>,
        time: &Tensor<2>,
        dropout: &mut DropoutMasks,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for (index, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, time, dropout);
            if let Some(attention) = self.attentions.get(index) {
                x = attention.forward(x);
            }
            skips.push(x.clone());
        }
        for downsampler in &self.downsamplers {
            x = match downsampler {
                Downsampler::Conv(downsampling) => downsampling.forward(x),
                Downsampler::Resnet(resnet) => resnet.forward(x, time, dropout),
            };
            skips.push(x.clone());
        }
        x
    }
}

/// A level on the way up.
#[derive(Module, Debug)]
pub struct UpLevel {
    /// One for each ResNet block, or none.
    attentions: Vec<Attention>,
    resnets: Vec<ResnetBlock>,
    /// One, or none.
    upsamplers: Vec<Upsampler>,
}

impl UpLevel {
    pub fn new(config: &Unet2dConfig, stage: &Stage, device: &Device) -> Self {
        let upsampler = |kind| match kind {
            ResampleKind::Conv => Upsampler::Conv(Upsampling { conv: Conv2d::new([stage.channels; 2], 3, device) }),
            ResampleKind::Resnet => {
                Upsampler::Resnet(ResnetBlock::new(config, [stage.channels; 2], device).resampling(Resampling::Up))
            }
        };
        let (attentions, resnets) = layers(config, stage, device);
        Self { attentions, resnets, upsamplers: stage.resample.map(upsampler).into_iter().collect() }
    }

    /// The input of the next level; each ResNet block takes the last of `skips`.
    pub fn forward(
        &self,
        mut x: Tensor<4>,
        time: &Tensor<2>,
        dropout: &mut DropoutMasks,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for (index, resnet) in self.resnets.iter().enumerate() {
            if let Some(skip) = skips.pop() {
                x = kernels::concat_channels(x, skip);
            }
            x = resnet.forward(x, time, dropout);
            if let Some(attention) = self.attentions.get(index) {
                x = attention.forward(x);
            }
        }
        for upsampler in &self.upsamplers {
            x = match upsampler {
                Upsampler::Conv(upsampling) => upsampling.conv.forward_upsampled(x),
                Upsampler::Resnet(resnet) => resnet.forward(x, time, dropout),
            };
        }
        x
    }
}

fn layers(config: &Unet2dConfig, stage: &Stage, device: &Device) -> (Vec<Attention>, Vec<ResnetBlock>) {
    let attention = || Attention::new(config, stage.channels, Some(config.norm_num_groups), device);
    let attentions = if stage.has_attention { stage.resnets.len() } else { 0 };
    let resnets = stage.resnets.iter().map(|channels| ResnetBlock::new(config, *channels, device));
    ((0..attentions).map(|_| attention()).collect(), resnets.collect())
}

/// The middle: a ResNet block, attention, another ResNet block.
#[derive(Module, Debug)]
pub struct Middle {
    /// One, or none.
    attentions: Vec<Attention>,
    resnets: Vec<ResnetBlock>,
}

impl Middle {
    pub fn new(config: &Unet2dConfig, device: &Device) -> Self {
        let (channels, divisor) = (config.middle(), config.mid_block_scale_factor);
        let attention = || Attention::new(config, channels, config.mid_attention_groups(), device).divided_by(divisor);
        let resnet = || ResnetBlock::new(config, [channels; 2], device).divided_by(divisor);
        Self {
            attentions: config.has_mid_attention().then(attention).into_iter().collect(),
            resnets: vec![resnet(), resnet()],
        }
    }

    pub fn forward(&self, mut x: Tensor<4>, time: &Tensor<2>, dropout: &mut DropoutMasks) -> Tensor<4> {
        for (index, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, time, dropout);
            if let (0, Some(attention)) = (index, self.attentions.first()) {
                x = attention.forward(x);
            }
        }
        x
    }
}
