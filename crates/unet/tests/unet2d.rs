//! Equal to diffusers' `UNet2DModel`: outputs, losses and gradients. `golden/unet2d/make.py` wrote the values.

use std::{collections::BTreeMap, path::Path};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Distribution, Int, Tensor, TensorData},
};
use safetensors::{Dtype, SafeTensors};
use unet::{
    ActivationKind, ClassEmbedding, Condition, DownBlock, MidBlock, Network, NetworkConfig, ResampleKind,
    TimeEmbeddingKind, TimeScaleShift, Unet2d, Unet2dConfig, UnetConfig, UnetError, UpBlock,
};

type Tensors = BTreeMap<String, TensorData>;

fn golden(name: &str) -> Tensors {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/unet2d").join(format!("{name}.safetensors"));
    let bytes = std::fs::read(path).expect("a golden file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let values = |view: &safetensors::tensor::TensorView| -> Vec<f32> {
        match view.dtype() {
            Dtype::F32 => view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::I64 => view.data().chunks_exact(8).map(|b| f32::from(b[0]) + 256.0 * f32::from(b[1])).collect(),
            other => panic!("{other:?}"),
        }
    };
    file.iter().map(|(name, view)| (name.to_owned(), TensorData::new(values(&view), view.shape().to_vec()))).collect()
}

/// What the golden files share.
fn base() -> Unet2dConfig {
    Unet2dConfig {
        block_out_channels: vec![4, 8],
        down_block_types: vec![DownBlock::Plain; 2],
        up_block_types: vec![UpBlock::Plain; 2],
        layers_per_block: 1,
        norm_num_groups: 2,
        norm_eps: 1e-5,
        downsample_padding: 1,
        flip_sin_to_cos: true,
        freq_shift: 0.0,
        time_embedding_dim: Some(6),
        dropout: 0.0,
        ..Unet2dConfig::default()
    }
}

fn cases() -> Vec<(&'static str, Unet2dConfig)> {
    vec![
        (
            "attention",
            Unet2dConfig {
                block_out_channels: vec![4, 6],
                attention_head_dim: Some(3),
                down_block_types: vec![DownBlock::Plain, DownBlock::Attention],
                up_block_types: vec![UpBlock::Attention, UpBlock::Plain],
                ..base()
            },
        ),
        (
            "ddpm",
            Unet2dConfig {
                channels: 1,
                block_out_channels: vec![4, 6],
                layers_per_block: 2,
                downsample_padding: 0,
                flip_sin_to_cos: false,
                freq_shift: 1.0,
                norm_eps: 1e-6,
                down_block_types: vec![DownBlock::Attention, DownBlock::Plain],
                up_block_types: vec![UpBlock::Plain, UpBlock::Attention],
                ..base()
            },
        ),
        (
            "resnets",
            Unet2dConfig {
                channels: 2,
                learned_variance: true,
                classes: 10,
                class_embed_type: ClassEmbedding::Timestep,
                block_out_channels: vec![2, 4, 4],
                attention_head_dim: Some(2),
                down_block_types: vec![DownBlock::Resnet, DownBlock::Attention, DownBlock::Plain],
                up_block_types: vec![UpBlock::Resnet, UpBlock::Attention, UpBlock::Plain],
                downsample_type: ResampleKind::Resnet,
                upsample_type: ResampleKind::Resnet,
                resnet_time_scale_shift: TimeScaleShift::ScaleShift,
                act_fn: ActivationKind::Mish,
                mid_block_scale_factor: 1.5,
                center_input_sample: true,
                ..base()
            },
        ),
        (
            "fourier",
            Unet2dConfig {
                time_embedding_type: TimeEmbeddingKind::Fourier,
                act_fn: ActivationKind::Gelu,
                classes: 5,
                add_attention: false,
                downsample_padding: 0,
                ..base()
            },
        ),
        (
            "learned",
            Unet2dConfig {
                time_embedding_type: TimeEmbeddingKind::Learned,
                num_train_timesteps: Some(20),
                act_fn: ActivationKind::Relu,
                mid_block_type: MidBlock::Nothing,
                attention_head_dim: Some(3),
                down_block_types: vec![DownBlock::Attention, DownBlock::Plain],
                up_block_types: vec![UpBlock::Plain, UpBlock::Attention],
                ..base()
            },
        ),
        (
            "scale_shift",
            Unet2dConfig {
                resnet_time_scale_shift: TimeScaleShift::ScaleShift,
                class_embed_type: ClassEmbedding::Identity,
                attn_norm_num_groups: Some(2),
                freq_shift: 0.5,
                attention_head_dim: Some(3),
                ..base()
            },
        ),
        (
            "one_level",
            Unet2dConfig {
                block_out_channels: vec![6],
                down_block_types: vec![DownBlock::Plain],
                up_block_types: vec![UpBlock::Plain],
                time_embedding_dim: None,
                resnet_time_scale_shift: TimeScaleShift::ScaleShift,
                ..base()
            },
        ),
    ]
}

fn load(config: &Unet2dConfig, golden: &Tensors, device: &Device) -> Unet2d {
    let unet = config.init(device).expect("a possible configuration");
    let names = unet.parameter_names();
    let theirs = golden.keys().filter(|name| name.starts_with("weights.")).count();
    assert_eq!(names.len(), theirs, "as many parameters: {names:?}");
    unet.load_state_dict(|name| golden.get(&format!("weights.{name}")).cloned()).expect("diffusers' names and shapes")
}

fn predict(unet: &Unet2d, golden: &Tensors, device: &Device) -> Tensor<4> {
    let labels = golden.get("labels").map(|data| Tensor::<1, Int>::from_data(data.clone().convert::<i64>(), device));
    let x = Tensor::from_data(golden["x"].clone(), device);
    let t = Tensor::from_data(golden["t"].clone(), device);
    unet.forward(x, t, Condition { labels, ..Condition::default() })
}

/// Largest difference over the largest value: the relative error of a whole tensor.
fn relative_error(ours: &TensorData, theirs: &TensorData) -> f64 {
    assert_eq!(ours.shape(), theirs.shape());
    let (ours, theirs) = (ours.as_slice::<f32>().expect("f32"), theirs.as_slice::<f32>().expect("f32"));
    let largest = theirs.iter().fold(0f64, |m, v| m.max(f64::from(v.abs())));
    ours.iter().zip(theirs).fold(0f64, |m, (a, b)| m.max(f64::from((a - b).abs()))) / largest.max(1e-12)
}

#[test]
fn outputs_are_those_of_diffusers() {
    let device = Device::flex();
    for (name, config) in cases() {
        let golden = golden(name);
        let unet = load(&config, &golden, &device);
        let error = relative_error(&predict(&unet, &golden, &device).into_data(), &golden["y"]);
        assert!(error < 1e-5, "{name}: the output differs by {error:e} of its largest value");
    }
}

#[test]
fn gradients_are_those_of_diffusers() {
    struct Collect {
        gradients: burn::tensor::Gradients,
        found: Vec<Option<TensorData>>,
    }
    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push(param.val().grad(&self.gradients).map(Tensor::into_data));
        }
    }
    let device = Device::flex().autodiff();
    for (name, config) in cases().into_iter().filter(|(name, _)| ["attention", "resnets"].contains(name)) {
        let golden = golden(name);
        let unet = load(&config, &golden, &device);
        let target = Tensor::from_data(golden["target"].clone(), &device);
        let loss = (predict(&unet, &golden, &device) - target).powi_scalar(2).mean();
        assert!(relative_error(&loss.clone().into_data(), &golden["loss"]) < 1e-5, "{name}: the loss differs");
        let mut collect = Collect { gradients: loss.backward(), found: Vec::new() };
        unet.visit(&mut collect);
        let names = unet.parameter_names();
        // a convolution before a norm of one value for each group has a bias without effect: only rounding is left
        let largest = names.iter().map(|name| {
            let values = golden[&format!("grads.{name}")].iter::<f32>();
            values.fold(0f32, |largest, value| largest.max(value.abs()))
        });
        let largest = f64::from(largest.fold(0f32, f32::max));
        for (parameter, ours) in names.iter().zip(collect.found) {
            let ours = ours.unwrap_or_else(|| panic!("{name}: {parameter} has no gradient"));
            let theirs = &golden[&format!("grads.{parameter}")];
            let pairs = ours.iter::<f64>().zip(theirs.iter::<f64>());
            let error = pairs.fold(0f64, |error, (a, b)| error.max((a - b).abs())) / largest;
            assert!(error < 1e-5, "{name}: the gradient of {parameter} differs by {error:e} of the largest");
        }
    }
}

#[test]
fn parameters_are_counted_without_building_the_network() {
    for (name, config) in cases() {
        let unet = config.init(&Device::flex()).expect("a possible network");
        assert_eq!(config.parameters(), unet.num_params() as u128, "{name}");
    }
    // google/ddpm-cifar10-32 and ddpm-celebahq-256, by their model cards
    assert_eq!(Unet2dConfig::default().parameters(), 35_746_307);
    let celeba = Unet2dConfig {
        block_out_channels: vec![128, 128, 256, 256, 512, 512],
        down_block_types: [vec![DownBlock::Plain; 4], vec![DownBlock::Attention, DownBlock::Plain]].concat(),
        up_block_types: [vec![UpBlock::Plain, UpBlock::Attention], vec![UpBlock::Plain; 4]].concat(),
        ..Unet2dConfig::default()
    };
    assert_eq!(celeba.parameters(), 113_673_219);
    let absurd = Unet2dConfig {
        block_out_channels: vec![65_536; 16],
        down_block_types: vec![DownBlock::Plain; 16],
        up_block_types: vec![UpBlock::Plain; 16],
        ..Unet2dConfig::default()
    };
    assert!(absurd.parameters() > 1 << 40);
    assert!(absurd.saved_activations(1 << 14, 1 << 14) > 1 << 40);
}

#[test]
fn an_impossible_configuration_is_refused_with_its_key() {
    let device = Device::flex();
    let fails = |config: Unet2dConfig| config.init(&device).expect_err("impossible").to_string();
    for (config, said) in [
        (Unet2dConfig { norm_num_groups: 3, ..base() }, "unet.norm_num_groups = 3"),
        (Unet2dConfig { norm_num_groups: 0, ..base() }, "unet.norm_num_groups = 0"),
        (Unet2dConfig { attention_head_dim: Some(9), ..base() }, "unet.attention_head_dim = 9"),
        (Unet2dConfig { attention_head_dim: Some(0), ..base() }, "unet.attention_head_dim = 0"),
        (Unet2dConfig { attn_norm_num_groups: Some(3), ..base() }, "unet.attn_norm_num_groups = 3"),
        (Unet2dConfig { block_out_channels: vec![], ..base() }, "unet.block_out_channels = 0"),
        (Unet2dConfig { block_out_channels: vec![4, 1 << 62], ..base() }, "unet.block_out_channels"),
        (Unet2dConfig { block_out_channels: vec![4, 0], ..base() }, "unet.block_out_channels = 0"),
        (Unet2dConfig { up_block_types: vec![UpBlock::Plain; 3], ..base() }, "unet.up_block_types = 3"),
        (Unet2dConfig { layers_per_block: 0, ..base() }, "unet.layers_per_block = 0"),
        (Unet2dConfig { downsample_padding: 2, ..base() }, "unet.downsample_padding = 2"),
        (Unet2dConfig { freq_shift: 2.0, ..base() }, "unet.freq_shift = 2"),
        (Unet2dConfig { norm_eps: f64::NAN, ..base() }, "unet.norm_eps = NaN"),
        (Unet2dConfig { mid_block_scale_factor: 0.0, ..base() }, "unet.mid_block_scale_factor = 0"),
        (Unet2dConfig { time_embedding_type: TimeEmbeddingKind::Learned, ..base() }, "unet.num_train_timesteps = 0"),
        (Unet2dConfig { classes: 2, class_embed_type: ClassEmbedding::Identity, ..base() }, "unet.classes = 2"),
        (Unet2dConfig { dropout: 1.0, ..base() }, "unet.dropout = 1"),
    ] {
        let error = fails(config);
        assert!(error.contains(said), "{said}: {error}");
    }
    let error = Unet2dConfig::default().check_image_size(28, 28).expect_err("28 is not divisible by 8");
    assert!(matches!(error, UnetError::NotDivisible { factor: 8, next_height: 32, .. }));
    assert!(error.to_string().contains("block_out_channels"));
}

#[test]
fn initial_weights_depend_on_the_random_numbers_alone() {
    let make = || {
        let config = Unet2dConfig { classes: 3, time_embedding_type: TimeEmbeddingKind::Fourier, ..base() };
        config
            .init(&Device::flex())
            .expect("a possible configuration")
            .initialize(|_, out| out.fill(2.0), |i, out| out.fill(0.25 + 0.5 * (i % 2) as f32))
    };
    assert_eq!(make().state_dict(), make().state_dict());
    for (name, data) in make().state_dict() {
        let value = data.iter::<f32>().next().expect("a value");
        match name.as_str() {
            "time_proj.weight" => assert_eq!(value, 32.0),
            "class_embedding.weight" => assert_eq!(value, 2.0),
            // 3 x 3 x 3 inputs
            "conv_in.weight" => assert!((value.abs() - 0.5 / 27f32.sqrt()).abs() < 1e-6, "{value}"),
            _ if name.contains("norm") => assert_eq!(value, if name.ends_with("weight") { 1.0 } else { 0.0 }, "{name}"),
            _ => assert!(value.abs() < 0.5, "{name}"),
        }
    }
}

#[test]
fn a_network_of_either_kind_is_written_with_its_architecture_and_read_back() {
    let old = UnetConfig { dim: 8, ..UnetConfig::default() };
    let text = serde_json::to_string(&NetworkConfig::from(old.clone())).expect("JSON");
    assert_eq!(text, serde_json::to_string(&old).expect("JSON"), "as before there was another");
    assert_eq!(serde_json::from_str::<NetworkConfig>(&text).expect("read"), old.into());
    for (_, config) in cases() {
        let config = NetworkConfig::from(config);
        let text = serde_json::to_string(&config).expect("JSON");
        assert!(text.starts_with("{\"architecture\":\"unet2d\",\"channels\":"), "{text}");
        assert_eq!(serde_json::from_str::<NetworkConfig>(&text).expect("read"), config);
    }
    let error = |text: &str| serde_json::from_str::<NetworkConfig>(text).expect_err(text).to_string();
    assert!(error(r#"{"architecture": "vit"}"#).contains("vit"));
    assert!(error(r#"{"architecture": "unet2d", "dim": 8}"#).contains("unet.dim: unknown field"));
    assert!(error(r#"{"dim": "eight"}"#).contains("unet.dim: invalid type"));
}

#[test]
fn both_networks_are_one_type() {
    let device = Device::flex();
    let configs: [NetworkConfig; 2] = [
        UnetConfig { dim: 8, dim_mults: vec![1, 2], channels: 1, ..UnetConfig::default() }.into(),
        Unet2dConfig { channels: 1, ..base() }.into(),
    ];
    for config in configs {
        let network: Network = config.init(&device).expect("a network");
        assert_eq!(network.config(), config);
        let random = Tensor::<4>::random([2, 1, 8, 8], Distribution::Default, &device);
        let t = || Tensor::<1>::from_floats([3.0, 7.0], &device);
        let y = network.forward(random.clone(), t(), Condition::default());
        assert_eq!(y.dims(), [2, 1, 8, 8]);
        let state = network.state_dict();
        assert_eq!(network.parameter_names().len(), state.len());
        assert!(state.iter().all(|(name, _)| !name.contains("Unet")), "names are those of the library");
        let find = |name: &str| state.iter().find(|(other, _)| other == name).map(|(_, data)| data.clone());
        let other = config.init(&device).expect("a network").load_state_dict(find).expect("the same shapes");
        assert_eq!(other.forward(random, t(), Condition::default()).into_data(), y.into_data());
    }
}
