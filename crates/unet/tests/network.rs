//! What holds for both networks.

use std::cell::RefCell;

use burn::tensor::{Device, Int, Tensor};
use unet::{ClassEmbedding, Condition, DownBlock, NetworkConfig, Unet2dConfig, UnetConfig, UpBlock};

/// lucidrains' network for gray images.
fn unet(classes: usize) -> NetworkConfig {
    UnetConfig { dim: 8, dim_mults: vec![1, 2], channels: 1, classes, ..UnetConfig::default() }.into()
}

/// diffusers' network for gray images.
fn unet2d(classes: usize, class_embed_type: ClassEmbedding) -> NetworkConfig {
    Unet2dConfig {
        channels: 1,
        block_out_channels: vec![4, 8],
        down_block_types: vec![DownBlock::Plain; 2],
        up_block_types: vec![UpBlock::Plain; 2],
        layers_per_block: 1,
        norm_num_groups: 2,
        classes,
        class_embed_type,
        ..Unet2dConfig::default()
    }
    .into()
}

#[test]
fn labels_change_the_output_and_no_label_is_the_null_class() {
    let device = Device::flex();
    for config in [unet(3), unet2d(3, ClassEmbedding::Table), unet2d(3, ClassEmbedding::Timestep)] {
        let network = config.init(&device).expect("a possible configuration");
        let predict = |labels: Option<[i64; 1]>| {
            let condition = Condition {
                labels: labels.map(|labels| Tensor::<1, Int>::from_ints(labels, &device)),
                ..Condition::default()
            };
            let t = Tensor::<1>::from_floats([10.0], &device);
            network.forward(Tensor::<4>::ones([1, 1, 8, 8], &device), t, condition).into_data()
        };
        assert_eq!(predict(None), predict(Some([3])), "{config:?}");
        assert_ne!(predict(None), predict(Some([0])), "{config:?}");
        assert_ne!(predict(Some([1])), predict(Some([0])), "{config:?}");
    }
}

#[test]
fn every_block_has_its_own_dropout_mask() {
    let device = Device::flex();
    let cases = [
        (unet(0), 11, "two blocks per level and side, two in the middle, one in the head"),
        (unet2d(0, ClassEmbedding::Table), 8, "one per level down, two in the middle and per level up"),
    ];
    for (config, expected, blocks) in cases {
        let network = config.init(&device).expect("a possible configuration");
        let layers = RefCell::new(Vec::new());
        let masks = |layer: usize, shape: [usize; 4]| {
            layers.borrow_mut().push(layer);
            Tensor::<4>::zeros(shape, &device)
        };
        let x = || Tensor::<4>::ones([1, 1, 8, 8], &device);
        let t = || Tensor::<1>::from_floats([10.0], &device);
        let dropped = network.forward(x(), t(), Condition { dropout: Some(&masks), ..Condition::default() });
        assert_eq!(*layers.borrow(), (0..expected).collect::<Vec<_>>(), "{blocks}");
        assert_ne!(dropped.into_data(), network.forward(x(), t(), Condition::default()).into_data());
    }
}
