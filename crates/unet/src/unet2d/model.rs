//! The network: stem, levels down, middle, levels up, head.

use burn::{
    module::Module,
    tensor::{DType, Device, Int, Tensor, assert_shape},
};

use crate::{
    config::UnetError,
    dropout::DropoutMasks,
    layers::Conv2d,
    model::{Condition, check_inputs},
    unet2d::{
        blocks::{DownLevel, Middle, UpLevel},
        config::{ActivationKind, TimeEmbeddingKind, Unet2dConfig},
        embedding::{LabelEmbedding, Perceptron, Projection, features},
        norm::{GroupNorm, activate},
    },
};

/// The U-Net of Ho et al. 2020, built by [`Unet2dConfig::init`]. Fields have the names of the state dict of diffusers'
/// `UNet2DModel`.
#[derive(Module, Debug)]
pub struct Unet2d {
    conv_in: Conv2d,
    time_proj: Option<Projection>,
    time_embedding: Perceptron,
    class_embedding: Option<LabelEmbedding>,
    down_blocks: Vec<DownLevel>,
    up_blocks: Vec<UpLevel>,
    mid_block: Option<Middle>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    #[module(skip)]
    config: Unet2dConfig,
}

impl Unet2dConfig {
    /// Builds the network on `device` with PyTorch's default initial weights, drawn from burn's random numbers;
    /// [`Unet2d::initialize`] gives it weights that follow from a seed alone.
    ///
    /// # Errors
    /// [`UnetError`] of [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> Result<Unet2d, UnetError> {
        self.validate()?;
        let stem = self.first();
        Ok(Unet2d {
            conv_in: Conv2d::new([self.channels, stem], 3, device),
            time_proj: Projection::new(self, device),
            time_embedding: Perceptron::new(self.time_features(), self.time_dim(), device),
            class_embedding: LabelEmbedding::new(self, device),
            down_blocks: self.downs().map(|stage| DownLevel::new(self, &stage, device)).collect(),
            up_blocks: self.ups().map(|stage| UpLevel::new(self, &stage, device)).collect(),
            mid_block: self.has_middle().then(|| Middle::new(self, device)),
            conv_norm_out: GroupNorm::new(stem, (self.norm_num_groups, self.norm_eps), device),
            conv_out: Conv2d::new([stem, self.out_dim()], 3, device),
            config: self.clone(),
        })
    }
}

impl Unet2d {
    /// The configuration that the network was built from.
    pub fn config(&self) -> &Unet2dConfig {
        &self.config
    }

    /// The device of its parameters.
    pub fn device(&self) -> Device {
        self.conv_out.weight.lazy_device()
    }

    /// The number format of its parameters.
    pub fn dtype(&self) -> DType {
        self.conv_out.weight.val().dtype()
    }

    /// The prediction, whose meaning the objective defines.
    ///
    /// # Shapes
    /// - `x_t`: `[batch, channels, height, width]`, height and width divisible by
    ///   [`downsample_factor`](Unet2dConfig::downsample_factor)
    /// - `t`: `[batch]`, 0 to T - 1; above 0 with Fourier features
    /// - result: `[batch, out_dim, height, width]`
    ///
    /// # Panics
    /// If a shape does not fit; [`Unet2dConfig::check_image_size`] asks before.
    pub fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, condition: Condition) -> Tensor<4> {
        check_inputs(&x_t, &t, self.config.channels, |height, width| self.config.check_image_size(height, width));
        let x = if self.config.center_input_sample { x_t * 2.0 - 1.0 } else { x_t };
        let time = self.embed(t.clone(), condition.labels);
        let mut dropout = DropoutMasks { masks: condition.dropout, layer: 0 };

        // images are channels-last from here on
        let mut x = self.conv_in.forward(x.permute([0, 2, 3, 1]));
        let mut skips = vec![x.clone()];
        for level in &self.down_blocks {
            x = level.forward(x, &time, &mut dropout, &mut skips);
        }
        if let Some(middle) = &self.mid_block {
            x = middle.forward(x, &time, &mut dropout);
        }
        for level in &self.up_blocks {
            x = level.forward(x, &time, &mut dropout, &mut skips);
        }
        let x = self.conv_norm_out.forward_activated(x, ActivationKind::Silu, None);
        let y = self.conv_out.forward(x).permute([0, 3, 1, 2]);
        match self.config.time_embedding_type {
            TimeEmbeddingKind::Fourier => {
                let dtype = y.dtype();
                let [batch] = t.dims();
                y / t.cast(dtype).reshape([batch, 1, 1, 1])
            }
            TimeEmbeddingKind::Positional | TimeEmbeddingKind::Learned => y,
        }
    }

    /// The activation of the embedding of t and the labels, with which every ResNet block begins: `[batch, time_dim]`.
    fn embed(&self, t: Tensor<1>, labels: Option<Tensor<1, Int>>) -> Tensor<2> {
        let [batch] = t.dims();
        let projection = self.time_proj.as_ref();
        let features = features(&self.config, projection, t).cast(self.time_embedding.dtype());
        let mut embedding = self.time_embedding.forward(features);
        if let (Some(classes), Some(labels)) = (&self.class_embedding, labels) {
            assert_shape!(labels, [batch]);
            embedding = embedding + classes.forward(&self.config, projection, labels);
        }
        activate(self.config.act_fn, embedding)
    }
}
