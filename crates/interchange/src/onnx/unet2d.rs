//! diffusers' `UNet2DModel` as nodes. Where its parts are optional, the parameters say whether they are there.

use std::f32::consts::TAU;

use unet::{ActivationKind, ClassEmbedding, TimeEmbeddingKind, TimeScaleShift, Unet2dConfig};

use super::{
    graph::{Graph, Value, int},
    layers::{
        Image, Padding, add, concat_channels, conv2d, convolve, double, gelu, group_norm, halve, linear, pixelwise,
        silu, sines_and_cosines, softmax_attention,
    },
    network::Inputs,
    proto::data_type,
};
use crate::InterchangeError;

/// The longest period of the sines and cosines.
const LONGEST_PERIOD: f64 = 10_000.0;

type Result<T> = std::result::Result<T, InterchangeError>;

/// The raw prediction of a network of this configuration.
pub(super) fn unet2d(graph: &mut Graph, config: &Unet2dConfig, inputs: &Inputs) -> Result<Image> {
    let mut network = Network { graph, config };
    let mut x = inputs.x_t.clone();
    if config.center_input_sample {
        let (two, one) = (network.graph.float(2.0), network.graph.float(1.0));
        let doubled = network.graph.node("center", "Mul", &[&x.value, &two], vec![]);
        x.value = network.graph.node("center", "Sub", &[&doubled, &one], vec![]);
    }
    let time = network.embed(inputs)?;
    x = conv2d(network.graph, "conv_in", &x)?;
    let mut skips = vec![x.clone()];
    for level in 0..config.down_block_types.len() {
        x = network.down(&format!("down_blocks.{level}"), x, &time, &mut skips)?;
    }
    x = network.middle(x, &time)?;
    for level in 0..config.up_block_types.len() {
        x = network.up(&format!("up_blocks.{level}"), x, &time, &mut skips)?;
    }
    x = group_norm(network.graph, "conv_norm_out", &x, config.norm_num_groups, config.norm_eps)?;
    x.value = silu(network.graph, "conv_norm_out", &x.value);
    x = conv2d(network.graph, "conv_out", &x)?;
    if config.time_embedding_type == TimeEmbeddingKind::Fourier {
        let axes = network.graph.integers(&[1, 2, 3]);
        let t = network.graph.node("over_t", "Unsqueeze", &[&inputs.t, &axes], vec![]);
        x.value = network.graph.node("over_t", "Div", &[&x.value, &t], vec![]);
    }
    Ok(x)
}

/// A graph that the parts of a network of this configuration are added to.
struct Network<'a> {
    graph: &'a mut Graph,
    config: &'a Unet2dConfig,
}

impl Network<'_> {
    /// A level on the way down; each output goes to `skips`.
    fn down(&mut self, name: &str, mut x: Image, time: &Value, skips: &mut Vec<Image>) -> Result<Image> {
        for layer in 0..self.config.layers_per_block {
            x = self.resnet(&format!("{name}.resnets.{layer}"), &x, time, Resampling::Same, 1.0)?;
            x = self.attend(&format!("{name}.attentions.{layer}"), x, self.config.norm_num_groups, 1.0)?;
            skips.push(x.clone());
        }
        let name = format!("{name}.downsamplers.0");
        if self.graph.has_parameter(&format!("{name}.conv.weight")) {
            let padding = if self.config.downsample_padding == 1 { Padding::all(1) } else { Padding::END };
            x = convolve(self.graph, &format!("{name}.conv"), &x, 2, padding)?;
        } else if self.graph.has_parameter(&format!("{name}.conv1.weight")) {
            x = self.resnet(&name, &x, time, Resampling::Down, 1.0)?;
        } else {
            return Ok(x);
        }
        skips.push(x.clone());
        Ok(x)
    }

    /// A ResNet block, attention, another ResNet block, or nothing.
    fn middle(&mut self, mut x: Image, time: &Value) -> Result<Image> {
        if !self.graph.has_parameter("mid_block.resnets.0.conv1.weight") {
            return Ok(x);
        }
        let divisor = self.config.mid_block_scale_factor as f32;
        let groups = self.config.attn_norm_num_groups.unwrap_or(self.config.norm_num_groups);
        x = self.resnet("mid_block.resnets.0", &x, time, Resampling::Same, divisor)?;
        x = self.attend("mid_block.attentions.0", x, groups, divisor)?;
        self.resnet("mid_block.resnets.1", &x, time, Resampling::Same, divisor)
    }

    /// A level on the way up; each ResNet block takes the last of `skips`.
    fn up(&mut self, name: &str, mut x: Image, time: &Value, skips: &mut Vec<Image>) -> Result<Image> {
        for layer in 0..=self.config.layers_per_block {
            if let Some(skip) = skips.pop() {
                x = concat_channels(self.graph, name, &x, &skip);
            }
            x = self.resnet(&format!("{name}.resnets.{layer}"), &x, time, Resampling::Same, 1.0)?;
            x = self.attend(&format!("{name}.attentions.{layer}"), x, self.config.norm_num_groups, 1.0)?;
        }
        let name = format!("{name}.upsamplers.0");
        if self.graph.has_parameter(&format!("{name}.conv.weight")) {
            let doubled = double(self.graph, &name, &x);
            conv2d(self.graph, &format!("{name}.conv"), &doubled)
        } else if self.graph.has_parameter(&format!("{name}.conv1.weight")) {
            self.resnet(&name, &x, time, Resampling::Up, 1.0)
        } else {
            Ok(x)
        }
    }

    /// A ResNet block, whose output is divided by `divisor`.
    fn resnet(&mut self, name: &str, x: &Image, time: &Value, resampling: Resampling, divisor: f32) -> Result<Image> {
        let (groups, epsilon) = (self.config.norm_num_groups, self.config.norm_eps);
        let normed = group_norm(self.graph, &format!("{name}.norm1"), x, groups, epsilon)?;
        let h = self.activated(name, normed);
        let (x, h) = match resampling {
            Resampling::Same => (x.clone(), h),
            Resampling::Down => (halve(self.graph, name, x), halve(self.graph, name, &h)),
            Resampling::Up => (double(self.graph, name, x), double(self.graph, name, &h)),
        };
        let mut h = conv2d(self.graph, &format!("{name}.conv1"), &h)?;
        let time = linear(self.graph, &format!("{name}.time_emb_proj"), time)?;
        let axes = self.graph.integers(&[2, 3]);
        let time = self.graph.node(name, "Unsqueeze", &[&time, &axes], vec![]);
        let norm = format!("{name}.norm2");
        if self.config.resnet_time_scale_shift == TimeScaleShift::ScaleShift {
            let halves = self.graph.integers(&[h.channels as i64; 2]);
            let [scale, shift] = self.graph.node_with_outputs(name, "Split", &[&time, &halves], vec![int("axis", 1)]);
            let one = self.graph.float(1.0);
            let scale = self.graph.node(name, "Add", &[&scale, &one], vec![]);
            h = group_norm(self.graph, &norm, &h, groups, epsilon)?;
            h.value = self.graph.node(name, "Mul", &[&h.value, &scale], vec![]);
            h.value = self.graph.node(name, "Add", &[&h.value, &shift], vec![]);
        } else {
            h.value = self.graph.node(name, "Add", &[&h.value, &time], vec![]);
            h = group_norm(self.graph, &norm, &h, groups, epsilon)?;
        }
        let h = self.activated(name, h);
        let h = conv2d(self.graph, &format!("{name}.conv2"), &h)?;
        let shortcut = format!("{name}.conv_shortcut");
        let has_shortcut = self.graph.has_parameter(&format!("{shortcut}.weight"));
        let x = if has_shortcut { conv2d(self.graph, &shortcut, &x)? } else { x };
        let sum = add(self.graph, name, &h, &x);
        Ok(self.divided(name, sum, divisor))
    }

    /// Attention with its residual connection, if the network has it here.
    fn attend(&mut self, name: &str, x: Image, groups: usize, divisor: f32) -> Result<Image> {
        if !self.graph.has_parameter(&format!("{name}.to_q.weight")) {
            return Ok(x);
        }
        let norm = format!("{name}.group_norm");
        let has_norm = self.graph.has_parameter(&format!("{norm}.weight"));
        let normed =
            if has_norm { group_norm(self.graph, &norm, &x, groups, self.config.norm_eps)? } else { x.clone() };
        let head_dim = self.config.attention_head_dim.unwrap_or(x.channels).max(1);
        let heads = x.channels / head_dim;
        let shape = [0, heads, head_dim, x.height * x.width].map(|size| size as i64);
        let mut parts = Vec::with_capacity(3);
        for part in ["to_q", "to_k", "to_v"] {
            let features = pixelwise(self.graph, &format!("{name}.{part}"), &normed)?;
            let shape = self.graph.integers(&shape);
            parts.push(self.graph.node(name, "Reshape", &[&features.value, &shape], vec![]));
        }
        let out = softmax_attention(self.graph, name, [&parts[0], &parts[1], &parts[2]], head_dim);
        let shape = [0, heads * head_dim, x.height, x.width].map(|size| size as i64);
        let shape = self.graph.integers(&shape);
        let value = self.graph.node(name, "Reshape", &[&out, &shape], vec![]);
        let out =
            pixelwise(self.graph, &format!("{name}.to_out.0"), &Image { value, channels: heads * head_dim, ..x })?;
        let sum = add(self.graph, name, &out, &x);
        Ok(self.divided(name, sum, divisor))
    }

    fn divided(&mut self, name: &str, mut x: Image, divisor: f32) -> Image {
        if divisor != 1.0 {
            let divisor = self.graph.float(divisor);
            x.value = self.graph.node(name, "Div", &[&x.value, &divisor], vec![]);
        }
        x
    }

    fn activated(&mut self, name: &str, mut x: Image) -> Image {
        x.value = self.activate(name, &x.value);
        x
    }

    fn activate(&mut self, name: &str, x: &Value) -> Value {
        match self.config.act_fn {
            ActivationKind::Silu => silu(self.graph, name, x),
            ActivationKind::Gelu => gelu(self.graph, name, x),
            ActivationKind::Mish => self.graph.node(name, "Mish", &[x], vec![]),
            ActivationKind::Relu => self.graph.node(name, "Relu", &[x], vec![]),
        }
    }

    /// The activation of the embedding of t and the labels, `[N, time_dim]`.
    fn embed(&mut self, inputs: &Inputs) -> Result<Value> {
        let features = self.features("time_proj", &inputs.t)?;
        let mut time = self.perceptron("time_embedding", &features)?;
        if let Some(labels) = &inputs.labels {
            let label = self.embed_labels(labels)?;
            time = self.graph.node("class_embedding", "Add", &[&time, &label], vec![]);
        }
        Ok(self.activate("time_embedding", &time))
    }

    /// Labels as vectors; that of the null class is 0.
    fn embed_labels(&mut self, labels: &Value) -> Result<Value> {
        let (place, classes) = ("class_embedding", self.config.classes);
        if self.config.class_embed_type == ClassEmbedding::Timestep {
            let numbers = self.graph.node(place, "Cast", &[labels], vec![int("to", data_type::FLOAT.into())]);
            let features = self.features(place, &numbers)?;
            let vectors = self.perceptron(place, &features)?;
            let null = self.graph.integer(classes as i64);
            let is_class = self.graph.node(place, "Less", &[labels, &null], vec![]);
            let is_class = self.graph.node(place, "Cast", &[&is_class], vec![int("to", data_type::FLOAT.into())]);
            let is_class = self.column(place, &is_class);
            return Ok(self.graph.node(place, "Mul", &[&vectors, &is_class], vec![]));
        }
        let name = "class_embedding.weight";
        let width = self.graph.parameter_shape(name)?[1];
        let with_null = |mut values: Vec<f32>| {
            values.resize((classes + 1) * width, 0.0);
            values
        };
        let table = self.graph.parameter_in(name, ".with_null", &[classes + 1, width], with_null)?;
        Ok(self.graph.node(place, "Gather", &[&table, labels], vec![int("axis", 0)]))
    }

    fn perceptron(&mut self, name: &str, features: &Value) -> Result<Value> {
        let hidden = linear(self.graph, &format!("{name}.linear_1"), features)?;
        let hidden = silu(self.graph, name, &hidden);
        linear(self.graph, &format!("{name}.linear_2"), &hidden)
    }

    /// The features of t, or of labels that enter as t does: `[N]` to `[N, features]`.
    fn features(&mut self, place: &str, t: &Value) -> Result<Value> {
        let weight = "time_proj.weight";
        match self.config.time_embedding_type {
            TimeEmbeddingKind::Positional => {
                let column = self.column(place, t);
                Ok(self.positional(place, &column))
            }
            TimeEmbeddingKind::Fourier => {
                let count = self.graph.parameter_shape(weight)?[0];
                let frequencies = self.graph.parameter_in(weight, ".row", &[1, count], |values| values)?;
                let logarithm = self.graph.node(place, "Log", &[t], vec![]);
                let column = self.column(place, &logarithm);
                let [sines, cosines] = sines_and_cosines(self.graph, place, &column, &frequencies, TAU);
                Ok(self.graph.node(place, "Concat", &[&sines, &cosines], vec![int("axis", 1)]))
            }
            TimeEmbeddingKind::Learned => {
                let last = self.graph.parameter_shape(weight)?[0] - 1;
                let table = self.graph.parameter(weight)?;
                let rounded = self.graph.node(place, "Round", &[t], vec![]);
                let (least, most) = (self.graph.float(0.0), self.graph.float(last as f32));
                let inside = self.graph.node(place, "Clip", &[&rounded, &least, &most], vec![]);
                let row = self.graph.node(place, "Cast", &[&inside], vec![int("to", data_type::INT64.into())]);
                Ok(self.graph.node(place, "Gather", &[&table, &row], vec![int("axis", 0)]))
            }
        }
    }

    /// `[N]` to `[N, 1]`.
    fn column(&mut self, place: &str, x: &Value) -> Value {
        let axes = self.graph.integers(&[1]);
        self.graph.node(place, "Unsqueeze", &[x, &axes], vec![])
    }

    /// Sines and cosines of `t` (`[N, 1]`); the last of an odd number of features is 0.
    fn positional(&mut self, place: &str, t: &Value) -> Value {
        let features = self.config.block_out_channels.first().copied().unwrap_or_default();
        let half = features / 2;
        let exponent = |i: usize| -LONGEST_PERIOD.ln() * i as f64 / (half as f64 - self.config.freq_shift);
        let frequencies: Vec<f32> = (0..half).map(|i| exponent(i).exp() as f32).collect();
        let frequencies = self.graph.floats("time_proj.frequencies", &[1, half], &frequencies);
        let [sines, cosines] = sines_and_cosines(self.graph, place, t, &frequencies, 1.0);
        let parts = if self.config.flip_sin_to_cos { [&cosines, &sines] } else { [&sines, &cosines] };
        let joined = self.graph.node(place, "Concat", &parts, vec![int("axis", 1)]);
        if features.is_multiple_of(2) {
            return joined;
        }
        // no column before, one behind
        let pads = self.graph.integers(&[0, 0, 0, 1]);
        self.graph.node(place, "Pad", &[&joined, &pads], vec![])
    }
}

/// The change of resolution in a ResNet block.
#[derive(Clone, Copy)]
enum Resampling {
    Same,
    /// Means of squares of four pixels.
    Down,
    /// Nearest neighbor.
    Up,
}
