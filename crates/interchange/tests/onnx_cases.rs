//! Writes models, their ONNX files, inputs and our outputs, which `peers/onnx_files.py` and `peers/page.mjs` compare with other
//! programs: `ONNX_CASES=FOLDER cargo test --workspace --test onnx_cases -- --ignored`.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use checkpoint::{Header, ImageFormat, Model, SamplerKind};
use interchange::onnx;
use noise::{Noise, Purpose};
use pipeline::{Request, generate};
use safetensors::{Dtype, tensor::TensorView};
use schedule::{Objective, Spacing};
use unet::{
    ActivationKind, AttentionKind, ClassEmbedding, Condition, DownBlock, MidBlock, Network, NetworkConfig,
    ResampleKind, TimeEmbeddingKind, TimeScaleShift, Unet2dConfig, UnetConfig, UpBlock,
};

/// Sizes of the batches that are compared.
const BATCHES: [usize; 2] = [1, 3];
/// Steps of a chain.
const STEPS: usize = 20;

fn small() -> UnetConfig {
    UnetConfig { dim: 8, dim_mults: vec![1, 2], channels: 1, attention_head_dim: 8, ..UnetConfig::default() }
}

/// Each option of lucidrains' network, with the height and width of its images.
fn networks() -> Vec<(&'static str, UnetConfig, [usize; 2])> {
    use AttentionKind::{Full, Linear, Off};
    vec![
        ("two_levels", small(), [8, 8]),
        ("four_levels", UnetConfig { dim_mults: vec![1, 2, 4, 8], channels: 3, ..small() }, [16, 24]),
        ("one_level", UnetConfig { dim_mults: vec![1], ..small() }, [5, 7]),
        ("init_dim", UnetConfig { init_dim: Some(12), channels: 3, out_dim: Some(5), ..small() }, [8, 8]),
        ("learned_fourier", UnetConfig { learned_sinusoidal_cond: true, learned_sinusoidal_dim: 6, ..small() }, [8, 8]),
        ("random_fourier", UnetConfig { random_fourier_features: true, ..small() }, [8, 8]),
        ("theta", UnetConfig { sinusoidal_pos_emb_theta: 100.0, ..small() }, [8, 8]),
        ("full_and_off", UnetConfig { attention: vec![Full, Off], attention_heads: 2, ..small() }, [8, 12]),
        ("off_and_linear", UnetConfig { attention: vec![Off, Linear], attention_heads: 1, ..small() }, [8, 8]),
        ("classes", UnetConfig { classes: 10, ..small() }, [8, 8]),
        ("self_condition", UnetConfig { self_condition: true, channels: 2, ..small() }, [8, 8]),
        ("learned_variance", UnetConfig { learned_variance: true, channels: 3, ..small() }, [8, 8]),
        ("patches", UnetConfig { patch_size: 2, channels: 3, ..small() }, [12, 8]),
        ("dropout", UnetConfig { dropout: 0.3, ..small() }, [8, 8]),
        ("everything", everything(), [8, 8]),
    ]
}

fn small2d() -> Unet2dConfig {
    Unet2dConfig {
        channels: 1,
        block_out_channels: vec![4, 8],
        down_block_types: vec![DownBlock::Plain; 2],
        up_block_types: vec![UpBlock::Plain; 2],
        layers_per_block: 1,
        norm_num_groups: 2,
        ..Unet2dConfig::default()
    }
}

/// Each option of diffusers' network.
fn networks2d() -> Vec<(&'static str, Unet2dConfig)> {
    vec![
        ("2d_plain", Unet2dConfig { layers_per_block: 2, channels: 3, ..small2d() }),
        (
            "2d_attention",
            Unet2dConfig {
                down_block_types: vec![DownBlock::Attention, DownBlock::Plain],
                up_block_types: vec![UpBlock::Plain, UpBlock::Attention],
                attention_head_dim: Some(2),
                downsample_padding: 1,
                flip_sin_to_cos: true,
                freq_shift: 0.0,
                ..small2d()
            },
        ),
        (
            "2d_resnets",
            Unet2dConfig {
                channels: 2,
                learned_variance: true,
                classes: 10,
                class_embed_type: ClassEmbedding::Timestep,
                block_out_channels: vec![2, 4, 4],
                down_block_types: vec![DownBlock::Resnet, DownBlock::Attention, DownBlock::Plain],
                up_block_types: vec![UpBlock::Resnet, UpBlock::Attention, UpBlock::Plain],
                downsample_type: ResampleKind::Resnet,
                upsample_type: ResampleKind::Resnet,
                resnet_time_scale_shift: TimeScaleShift::ScaleShift,
                attn_norm_num_groups: Some(4),
                act_fn: ActivationKind::Mish,
                mid_block_scale_factor: 1.5,
                center_input_sample: true,
                freq_shift: 0.5,
                ..small2d()
            },
        ),
        (
            "2d_fourier",
            Unet2dConfig {
                time_embedding_type: TimeEmbeddingKind::Fourier,
                act_fn: ActivationKind::Gelu,
                classes: 5,
                add_attention: false,
                ..small2d()
            },
        ),
        (
            "2d_learned",
            Unet2dConfig {
                time_embedding_type: TimeEmbeddingKind::Learned,
                num_train_timesteps: Some(1000),
                act_fn: ActivationKind::Relu,
                mid_block_type: MidBlock::Nothing,
                ..small2d()
            },
        ),
        ("2d_odd", Unet2dConfig { block_out_channels: vec![5, 10], norm_num_groups: 5, ..small2d() }),
        ("2d_one_level", one_level2d()),
    ]
}

fn one_level2d() -> Unet2dConfig {
    Unet2dConfig {
        block_out_channels: vec![4],
        down_block_types: vec![DownBlock::Plain],
        up_block_types: vec![UpBlock::Plain],
        time_embedding_dim: Some(6),
        resnet_time_scale_shift: TimeScaleShift::ScaleShift,
        ..small2d()
    }
}

/// All networks with the height and width of their images, and three times that they can be asked for.
fn all_networks() -> Vec<(&'static str, NetworkConfig, [usize; 2], [f32; 3])> {
    let times = [999.0, 0.0, 417.5];
    let unets = networks().into_iter().map(|(name, config, size)| (name, config.into(), size, times));
    let unets2d = networks2d().into_iter().map(|(name, config)| {
        // the output is divided by t
        let is_fourier = config.time_embedding_type == TimeEmbeddingKind::Fourier;
        (name, config.into(), [8, 12], if is_fourier { [2.5, 1.0, 417.5] } else { times })
    });
    unets.chain(unets2d).collect()
}

fn everything() -> UnetConfig {
    UnetConfig { classes: 3, self_condition: true, learned_variance: true, patch_size: 2, channels: 3, ..small() }
}

/// A chain: a name, a network and the change of its header.
type ChainCase = (&'static str, NetworkConfig, fn(&mut Header));

fn chains() -> Vec<ChainCase> {
    vec![
        ("chain_epsilon", small().into(), |header| header.objective = Objective::Epsilon),
        ("chain_x0", small().into(), |header| header.objective = Objective::X0),
        ("chain_v", UnetConfig { channels: 3, ..small() }.into(), |header| header.objective = Objective::V),
        ("chain_flow", small().into(), |header| header.objective = Objective::Flow),
        ("chain_edm", small().into(), |header| header.objective = Objective::Edm { sigma_data: 0.4 }),
        ("chain_karras", small().into(), |header| header.sampling.spacing = Spacing::Karras),
        ("chain_unclipped", small().into(), |header| header.sampling.clip = false),
        ("chain_zero_snr", small().into(), |header| header.schedule.zero_terminal_snr = true),
        ("chain_guided", UnetConfig { classes: 4, ..small() }.into(), |header| header.sampling.guidance = 2.5),
        ("chain_without_class", UnetConfig { classes: 4, ..small() }.into(), |header| header.sampling.guidance = 0.0),
        ("chain_2d", Unet2dConfig { classes: 4, ..small2d() }.into(), |header| {
            header.objective = Objective::Epsilon;
            header.sampling.guidance = 3.0;
        }),
        ("chain_everything", everything().into(), |header| {
            (header.image.content_height, header.image.content_width) = (7, 5);
            header.sampling.guidance = 2.0;
            header.sampling.guidance_interval = Some([0.3, 5.0]);
        }),
    ]
}

/// Numbers of a linear congruential generator, in [-1, 1): the cases need no more of them than to differ.
fn numbers(seed: &str) -> impl Iterator<Item = f32> {
    let mut state = seed.bytes().fold(1u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32) / (1u64 << 23) as f32 - 1.0
    })
}

/// A network whose weights follow from their names and have about the sizes of trained ones; gains are around 1.
fn network(config: &NetworkConfig, device: &Device) -> Network {
    let unet = config.init(device).expect("a possible configuration");
    let shapes: std::collections::HashMap<String, Vec<usize>> =
        unet.state_dict().into_iter().map(|(name, data)| (name, data.shape().to_vec())).collect();
    let loaded = unet.load_state_dict(|name| {
        let shape = shapes[name].clone();
        let inputs: usize = shape.iter().skip(1).product();
        let (middle, range) = match name {
            _ if name.ends_with(".g") || name.contains("norm") && name.ends_with("weight") => (1.0, 0.5),
            _ if shape.len() > 1 && name.ends_with("weight") => (0.0, (3.0 / inputs as f32).sqrt()),
            _ if name.ends_with("bias") => (0.0, 0.2),
            _ => (0.0, 1.5),
        };
        let count = shape.iter().product();
        Some(TensorData::new(
            numbers(name).take(count).map(|value| middle + range * value).collect::<Vec<f32>>(),
            shape,
        ))
    });
    loaded.expect("the shapes of the network")
}

/// Tensors of a case by their names, as safetensors: `x_t.3`, `prediction.3` for a batch of 3.
#[derive(Default)]
struct Tensors(Vec<(String, Dtype, Vec<usize>, Vec<u8>)>);

impl Tensors {
    fn floats<const D: usize>(&mut self, name: String, tensor: Tensor<D>) {
        let shape = tensor.dims().to_vec();
        let values: Vec<f32> = tensor.into_data().iter().collect();
        self.0.push((name, Dtype::F32, shape, bytemuck::cast_slice(&values).to_vec()));
    }

    fn integers(&mut self, name: String, values: &[i64]) {
        self.0.push((name, Dtype::I64, vec![values.len()], bytemuck::cast_slice(values).to_vec()));
    }

    fn write(&self, path: &Path) {
        let views = self.0.iter().map(|(name, dtype, shape, bytes)| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).expect("bytes of the shape"))
        });
        let bytes = safetensors::serialize(views, None).expect("safetensors");
        std::fs::write(path, bytes).expect("the folder of the case");
    }
}

fn labels_of(batch: usize, classes: usize) -> Vec<i64> {
    // the null class comes last
    (0..batch).map(|index| ((index * 2 + 1) % (classes + 1)) as i64).collect()
}

/// A model, its ONNX file in a new folder, and the folder.
fn case(folder: &Path, name: &str, model: &Model, chain: Option<usize>) -> PathBuf {
    let case = folder.join(name);
    std::fs::create_dir_all(&case).expect("a writable folder");
    model.save(&case.join("model.safetensors")).expect("a model");
    onnx::export(model, onnx::Options { chain }, &case.join("model.onnx")).expect("a possible model");
    case
}

#[test]
#[ignore = "writes files for the scripts of tests/peers"]
fn write_the_cases() {
    let folder = PathBuf::from(std::env::var_os("ONNX_CASES").expect("ONNX_CASES is the folder to write to"));
    let device = Device::flex();
    for (name, config, [height, width], times) in all_networks() {
        let header = Header::new(config.clone(), ImageFormat::new(config.channels(), height, width));
        let model = Model { unet: network(&config, &device), header };
        let case = case(&folder, name, &model, None);
        let mut tensors = Tensors::default();
        for batch in BATCHES {
            let shape = [batch, config.channels(), height, width];
            let image = |seed| {
                let values: Vec<f32> = numbers(seed).take(shape.iter().product()).map(|value| 2.0 * value).collect();
                Tensor::<4>::from_data(TensorData::new(values, shape), &device)
            };
            let (x_t, x_0) = (image("x_t"), image("x_0"));
            let times: Vec<f32> = times.into_iter().take(batch).collect();
            let t = Tensor::<1>::from_data(TensorData::new(times, [batch]), &device);
            let labels = labels_of(batch, config.classes());
            let condition = Condition {
                labels: Some(Tensor::<1, Int>::from_data(TensorData::new(labels.clone(), [batch]), &device)),
                self_condition: Some(x_0.clone()),
                ..Condition::default()
            };
            let prediction = model.unet.forward(x_t.clone(), t.clone(), condition);
            tensors.floats(format!("x_t.{batch}"), x_t);
            tensors.floats(format!("t.{batch}"), t);
            tensors.integers(format!("labels.{batch}"), &labels);
            tensors.floats(format!("self_condition.{batch}"), x_0);
            tensors.floats(format!("prediction.{batch}"), prediction);
        }
        tensors.write(&case.join("tensors.safetensors"));
    }
    for (name, config, change) in chains() {
        let mut header = Header::new(config.clone(), ImageFormat::new(config.channels(), 8, 8));
        (header.sampling.sampler, header.sampling.steps) = (SamplerKind::Ddim, STEPS);
        change(&mut header);
        let model = Model { unet: network(&config, &device), header };
        let case = case(&folder, name, &model, Some(STEPS));
        let mut tensors = Tensors::default();
        for batch in BATCHES {
            let noise = Noise::new(7);
            let indices: Vec<u64> = (0..batch as u64).collect();
            let shape = [config.channels(), 8, 8];
            let x_t = noise.stream(Purpose::InitialNoise).normal_images(&indices, 0, shape, &device);
            let labels: Vec<usize> = (0..batch).map(|index| index % config.classes().max(1)).collect();
            let request = Request { noise_indices: indices, labels: (config.classes() > 0).then(|| labels.clone()) };
            let images = generate(&model, &request, &noise, &mut |_| ()).expect("a possible chain");
            let labels: Vec<i64> = labels.into_iter().map(|label| label as i64).collect();
            tensors.floats(format!("noise.{batch}"), x_t);
            tensors.integers(format!("labels.{batch}"), &labels);
            tensors.floats(format!("images.{batch}"), images);
        }
        tensors.write(&case.join("tensors.safetensors"));
        onnx::export(&model, onnx::Options::default(), &case.join("network.onnx")).expect("a possible model");
    }
}
