//! The ResNet block: twice norm, activation, convolution, with t between them; plus the input.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use crate::{
    dropout::DropoutMasks,
    layers::{Conv2d, Linear},
    unet2d::{
        config::{ActivationKind, Unet2dConfig},
        norm::GroupNorm,
    },
};

/// The change of resolution in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resampling {
    /// Means of squares of four pixels.
    Down,
    /// Nearest neighbor.
    Up,
}

/// Two convolutions and a residual connection around them.
#[derive(Module, Debug)]
pub struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    #[module(skip)]
    activation: ActivationKind,
    #[module(skip)]
    has_scale_shift: bool,
    #[module(skip)]
    resampling: Option<Resampling>,
    /// The divisor of the output.
    #[module(skip)]
    divisor: f64,
}

impl ResnetBlock {
    pub fn new(config: &Unet2dConfig, channels: [usize; 2], device: &Device) -> Self {
        let [channels_in, channels_out] = channels;
        let groups = (config.norm_num_groups, config.norm_eps);
        let has_scale_shift = config.has_scale_shift();
        let time_outputs = if has_scale_shift { 2 * channels_out } else { channels_out };
        Self {
            norm1: GroupNorm::new(channels_in, groups, device),
            conv1: Conv2d::new(channels, 3, device),
            time_emb_proj: Linear::new(config.time_dim(), time_outputs, device),
            norm2: GroupNorm::new(channels_out, groups, device),
            conv2: Conv2d::new([channels_out; 2], 3, device),
            conv_shortcut: (channels_in != channels_out).then(|| Conv2d::new(channels, 1, device)),
            activation: config.act_fn,
            has_scale_shift,
            resampling: None,
            divisor: 1.0,
        }
    }

    /// The block with a change of resolution.
    pub fn resampling(self, resampling: Resampling) -> Self {
        Self { resampling: Some(resampling), ..self }
    }

    /// The block with its output divided by a number.
    pub fn divided_by(self, divisor: f64) -> Self {
        Self { divisor, ..self }
    }

    /// # Shapes
    /// - `x`: `[batch, height, width, channels_in]`
    /// - `time`: the activation of the embedding of t, `[batch, time_dim]`
    /// - result: `[batch, height, width, channels_out]`, or half or twice the height and width
    pub fn forward(&self, x: Tensor<4>, time: &Tensor<2>, dropout: &mut DropoutMasks) -> Tensor<4> {
        let h = self.norm1.forward_activated(x.clone(), self.activation, None);
        let (x, h) = match self.resampling {
            None => (x, self.conv1.forward(h)),
            Some(Resampling::Down) => (halved(x), self.conv1.forward(halved(h))),
            Some(Resampling::Up) => (kernels::composed::upsample_nearest(x), self.conv1.forward_upsampled(h)),
        };
        let time = self.time_emb_proj.forward(time.clone());
        let h = if self.has_scale_shift {
            self.norm2.forward_activated(h, self.activation, Some(time))
        } else {
            let [batch, channels] = time.dims();
            self.norm2.forward_activated(h + time.reshape([batch, 1, 1, channels]), self.activation, None)
        };
        let h = dropout.apply(h);
        let x = match &self.conv_shortcut {
            Some(conv) => conv.forward(x),
            None => x,
        };
        divided(self.conv2.forward_add(h, x), self.divisor)
    }
}

/// `x / divisor`, without a pass where it is 1.
pub fn divided(x: Tensor<4>, divisor: f64) -> Tensor<4> {
    if divisor == 1.0 { x } else { x / divisor }
}

/// The means of squares of four pixels.
fn halved(x: Tensor<4>) -> Tensor<4> {
    let [batch, height, width, channels] = x.dims();
    let squares = x.reshape([batch, height / 2, 2, width / 2, 2, channels]);
    squares.mean_dim(4).mean_dim(2).reshape([batch, height / 2, width / 2, channels])
}
