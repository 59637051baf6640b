//! The networks as nodes: lucidrains' U-Net here, diffusers' in `unet2d`.

use std::f32::consts::TAU;

use unet::{AttentionKind, NetworkConfig, UnetConfig};

use super::{
    graph::{Graph, Value, int},
    layers::{
        Image, attention, concat_channels, conv2d, depth_to_space, downsample, gelu, linear, linear_attention,
        resnet_block, silu, sines_and_cosines, space_to_depth, upsample,
    },
    unet2d::unet2d,
};
use crate::InterchangeError;

/// The inputs of a network.
pub(super) struct Inputs {
    /// `[N, channels, height, width]`
    pub x_t: Image,
    /// `[N]`
    pub t: Value,
    /// `[N]`; of a network with classes.
    pub labels: Option<Value>,
    /// Like `x_t`; of a network with self-conditioning.
    pub self_condition: Option<Value>,
}

type Result<T> = std::result::Result<T, InterchangeError>;

/// The raw prediction of a network.
pub(super) fn network(graph: &mut Graph, config: &NetworkConfig, inputs: &Inputs) -> Result<Image> {
    match config {
        NetworkConfig::Unet(config) => unet(graph, config, inputs),
        NetworkConfig::Unet2d(config) => unet2d(graph, config, inputs),
    }
}

/// The raw prediction of lucidrains' U-Net.
fn unet(graph: &mut Graph, config: &UnetConfig, inputs: &Inputs) -> Result<Image> {
    let x_t = &inputs.x_t;
    let batch = graph.node("batch", "Shape", &[&x_t.value], vec![int("start", 0), int("end", 1)]);
    let time = embed(graph, config, inputs)?;
    let x = match &inputs.self_condition {
        Some(x_0) => concat_channels(graph, "self_condition", &Image { value: x_0.clone(), ..*x_t }, x_t),
        None => x_t.clone(),
    };
    let patches = space_to_depth(graph, "patches", &x, config.patch_size);
    let stem = conv2d(graph, "init_conv", &patches)?;
    let levels = config.dim_mults.len();

    let mut x = stem.clone();
    let mut skips = Vec::with_capacity(levels);
    for level in 0..levels {
        let name = format!("downs.{level}");
        let first = resnet_block(graph, &format!("{name}.0"), &x, &time)?;
        let second = resnet_block(graph, &format!("{name}.1"), &first, &time)?;
        let second = attend(graph, &format!("{name}.2"), config.attention_of(level), &second, &batch)?;
        x = if level + 1 == levels {
            conv2d(graph, &format!("{name}.3"), &second)?
        } else {
            downsample(graph, &format!("{name}.3.1"), &second)?
        };
        skips.push([first, second]);
    }

    x = resnet_block(graph, "mid_block1", &x, &time)?;
    x = attention(graph, "mid_attn", &x, &batch)?;
    x = resnet_block(graph, "mid_block2", &x, &time)?;

    for (index, [first, second]) in skips.iter().rev().enumerate() {
        let (level, name) = (levels - 1 - index, format!("ups.{index}"));
        let joined = concat_channels(graph, &name, &x, second);
        x = resnet_block(graph, &format!("{name}.0"), &joined, &time)?;
        let joined = concat_channels(graph, &name, &x, first);
        x = resnet_block(graph, &format!("{name}.1"), &joined, &time)?;
        x = attend(graph, &format!("{name}.2"), config.attention_of(level), &x, &batch)?;
        x = if level == 0 {
            conv2d(graph, &format!("{name}.3"), &x)?
        } else {
            upsample(graph, &format!("{name}.3.1"), &x)?
        };
    }

    let joined = concat_channels(graph, "final_res_block", &x, &stem);
    x = resnet_block(graph, "final_res_block", &joined, &time)?;
    x = conv2d(graph, "final_conv", &x)?;
    Ok(depth_to_space(graph, "pixels", &x, config.patch_size))
}

fn attend(graph: &mut Graph, name: &str, kind: AttentionKind, x: &Image, batch: &Value) -> Result<Image> {
    match kind {
        AttentionKind::Off => Ok(x.clone()),
        AttentionKind::Linear => linear_attention(graph, name, x, batch),
        AttentionKind::Full => attention(graph, name, x, batch),
    }
}

/// SiLU of the embedding of t and the labels, `[N, 4 dim]`.
fn embed(graph: &mut Graph, config: &UnetConfig, inputs: &Inputs) -> Result<Value> {
    let place = "time_mlp";
    let axes = graph.integers(&[1]);
    let t = graph.node(place, "Unsqueeze", &[&inputs.t, &axes], vec![]);
    let fourier = "time_mlp.0.weights";
    let features = if graph.has_parameter(fourier) {
        let half = graph.parameter_shape(fourier)?[0];
        let frequencies = graph.parameter_in(fourier, ".row", &[1, half], |values| values)?;
        let [sines, cosines] = sines_and_cosines(graph, place, &t, &frequencies, TAU);
        graph.node(place, "Concat", &[&t, &sines, &cosines], vec![int("axis", 1)])
    } else {
        let half = config.dim / 2;
        let frequency = |i: usize| (-config.sinusoidal_pos_emb_theta.ln() * i as f64 / (half - 1) as f64).exp() as f32;
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let frequencies = graph.floats("time_mlp.frequencies", &[1, half], &frequencies);
        let [sines, cosines] = sines_and_cosines(graph, place, &t, &frequencies, 1.0);
        graph.node(place, "Concat", &[&sines, &cosines], vec![int("axis", 1)])
    };
    let hidden = linear(graph, "time_mlp.1", &features)?;
    let hidden = gelu(graph, place, &hidden);
    let mut time = linear(graph, "time_mlp.3", &hidden)?;
    if let Some(labels) = &inputs.labels {
        let table = graph.parameter("label_embedding.weight")?;
        let label = graph.node("label_embedding", "Gather", &[&table, labels], vec![int("axis", 0)]);
        time = graph.node("label_embedding", "Add", &[&time, &label], vec![]);
    }
    Ok(silu(graph, place, &time))
}
