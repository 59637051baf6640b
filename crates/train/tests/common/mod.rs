//! A small training on a few digits, for all tests of trainings.
#![allow(dead_code, reason = "each test uses a part")]

use burn::tensor::Device;
use data::ImageSet;
use train::{Config, Trainer};
use unet::{DownBlock, Unet2dConfig, UnetConfig, UpBlock};

/// A training of lucidrains' network on 40 digits; the tests set its steps.
pub fn few_digits() -> Config {
    let mut config = Config::preset("digits").expect("a preset");
    let network = unet(&mut config);
    (network.dim, network.dim_mults, network.attention) = (8, vec![1], Vec::new());
    config.data.limit = Some(40);
    (config.sampling.steps, config.sampling.count) = (2, 10);
    config
}

/// The network of a configuration, which is lucidrains'.
pub fn unet(config: &mut Config) -> &mut UnetConfig {
    config.unet.as_unet_mut().expect("lucidrains' network")
}

/// diffusers' network with attention.
pub fn unet2d() -> Unet2dConfig {
    Unet2dConfig {
        channels: 1,
        block_out_channels: vec![4, 8],
        down_block_types: vec![DownBlock::Plain, DownBlock::Attention],
        up_block_types: vec![UpBlock::Attention, UpBlock::Plain],
        layers_per_block: 1,
        norm_num_groups: 4,
        attention_head_dim: Some(4),
        ..Unet2dConfig::default()
    }
}

pub fn images(config: &Config) -> ImageSet {
    data::open(&config.data.path, &config.load_options()).expect("the digits of the repository").images
}

pub fn trainer(config: &Config) -> Trainer {
    Trainer::new(config.clone(), images(config), &Device::flex()).expect("a possible run")
}
