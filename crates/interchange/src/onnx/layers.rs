//! The layers of networks as nodes. Images are `[N, channels, height, width]`; parameters are named as in the state dict.

use super::graph::{Graph, Value, int, ints, real, text};
use crate::InterchangeError;

/// An image of the graph with its sizes.
#[derive(Clone)]
pub(super) struct Image {
    pub value: Value,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
}

impl Image {
    /// Another value of the same sizes.
    fn with(&self, value: Value) -> Self {
        Self { value, ..*self }
    }
}

type Result<T> = std::result::Result<T, InterchangeError>;

/// Zeros around an image: before and behind its rows and columns.
#[derive(Clone, Copy)]
pub(super) struct Padding {
    before: usize,
    behind: usize,
}

impl Padding {
    /// None.
    const NONE: Self = Self::all(0);
    /// One row and column at the end.
    pub(super) const END: Self = Self { before: 0, behind: 1 };

    /// The same number of zeros on all sides.
    pub(super) const fn all(count: usize) -> Self {
        Self { before: count, behind: count }
    }
}

/// A convolution of stride 1 that keeps height and width, with a bias if the network has one.
pub(super) fn conv2d(graph: &mut Graph, name: &str, x: &Image) -> Result<Image> {
    let kernel = graph.parameter_shape(&format!("{name}.weight"))?[2];
    convolve(graph, name, x, 1, Padding::all(kernel / 2))
}

/// A convolution with a bias if the network has one.
pub(super) fn convolve(graph: &mut Graph, name: &str, x: &Image, stride: usize, padding: Padding) -> Result<Image> {
    let shape = graph.parameter_shape(&format!("{name}.weight"))?;
    let weight = graph.parameter(&format!("{name}.weight"))?;
    convolve_with(graph, name, x, (weight, shape[0], shape[2]), stride, padding)
}

/// An affine map of each pixel, whose weight is a matrix.
pub(super) fn pixelwise(graph: &mut Graph, name: &str, x: &Image) -> Result<Image> {
    let weight = format!("{name}.weight");
    let channels = graph.parameter_shape(&weight)?[0];
    let weight = graph.parameter_in(&weight, ".1x1", &[channels, x.channels, 1, 1], |values| values)?;
    convolve_with(graph, name, x, (weight, channels, 1), 1, Padding::NONE)
}

/// A convolution by a weight, given with its output channels and the side of its kernel.
fn convolve_with(
    graph: &mut Graph,
    name: &str,
    x: &Image,
    (weight, channels, kernel): (Value, usize, usize),
    stride: usize,
    Padding { before, behind }: Padding,
) -> Result<Image> {
    let bias_name = format!("{name}.bias");
    let bias = if graph.has_parameter(&bias_name) { Some(graph.parameter(&bias_name)?) } else { None };
    let inputs: Vec<&Value> = [&x.value, &weight].into_iter().chain(&bias).collect();
    let attributes = vec![
        ints("kernel_shape", &[kernel as i64; 2]),
        ints("strides", &[stride as i64; 2]),
        ints("pads", &[before, before, behind, behind].map(|count| count as i64)),
    ];
    let value = graph.node(name, "Conv", &inputs, attributes);
    let side = |length: usize| (length + before + behind - kernel) / stride + 1;
    Ok(Image { value, channels, height: side(x.height), width: side(x.width) })
}

/// Half height and width: squares of four pixels become channels, then a 1x1 convolution. Together they are a 2x2 convolution
/// of stride 2 whose weights lie in the same order.
pub(super) fn downsample(graph: &mut Graph, name: &str, x: &Image) -> Result<Image> {
    let channels = graph.parameter_shape(&format!("{name}.weight"))?[0];
    let shape = [channels, x.channels, 2, 2];
    let weight = graph.parameter_in(&format!("{name}.weight"), ".2x2", &shape, |values| values)?;
    convolve_with(graph, name, x, (weight, channels, 2), 2, Padding::NONE)
}

/// Half height and width: the means of squares of four pixels.
pub(super) fn halve(graph: &mut Graph, place: &str, x: &Image) -> Image {
    let attributes = vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])];
    let value = graph.node(place, "AveragePool", &[&x.value], attributes);
    Image { value, channels: x.channels, height: x.height / 2, width: x.width / 2 }
}

/// Twice height and width: each pixel four times.
pub(super) fn double(graph: &mut Graph, place: &str, x: &Image) -> Image {
    let scales = graph.floats("scales", &[4], &[1.0, 1.0, 2.0, 2.0]);
    let attributes = vec![
        text("mode", "nearest"),
        text("coordinate_transformation_mode", "asymmetric"),
        text("nearest_mode", "floor"),
    ];
    let no_region = Value::new("");
    let value = graph.node(place, "Resize", &[&x.value, &no_region, &scales], attributes);
    Image { value, channels: x.channels, height: 2 * x.height, width: 2 * x.width }
}

/// Twice height and width: each pixel four times, then a convolution.
pub(super) fn upsample(graph: &mut Graph, name: &str, x: &Image) -> Result<Image> {
    let doubled = double(graph, name, x);
    conv2d(graph, name, &doubled)
}

/// An affine map of `[N, features_in]`.
pub(super) fn linear(graph: &mut Graph, name: &str, x: &Value) -> Result<Value> {
    let weight = graph.parameter(&format!("{name}.weight"))?;
    let bias = graph.parameter(&format!("{name}.bias"))?;
    Ok(graph.node(name, "Gemm", &[x, &weight, &bias], vec![int("transB", 1)]))
}

/// x times its sigmoid.
pub(super) fn silu(graph: &mut Graph, place: &str, x: &Value) -> Value {
    let sigmoid = graph.node(place, "Sigmoid", &[x], vec![]);
    graph.node(place, "Mul", &[x, &sigmoid], vec![])
}

/// GELU with the error function, of opset 18, which has no operation for it.
pub(super) fn gelu(graph: &mut Graph, place: &str, x: &Value) -> Value {
    let (root, one, half) = (graph.float(std::f32::consts::SQRT_2), graph.float(1.0), graph.float(0.5));
    let scaled = graph.node(place, "Div", &[x, &root], vec![]);
    let erf = graph.node(place, "Erf", &[&scaled], vec![]);
    let share = graph.node(place, "Add", &[&erf, &one], vec![]);
    let product = graph.node(place, "Mul", &[x, &share], vec![]);
    graph.node(place, "Mul", &[&product, &half], vec![])
}

/// x over its norm along the channels, without the gain.
fn normalized(graph: &mut Graph, place: &str, x: &Image) -> Value {
    let (axes, least) = (graph.integers(&[1]), graph.float(1e-12));
    let norm = graph.node(place, "ReduceL2", &[&x.value, &axes], vec![int("keepdims", 1)]);
    let norm = graph.node(place, "Max", &[&norm, &least], vec![]);
    graph.node(place, "Div", &[&x.value, &norm], vec![])
}

/// The gain of an RMS norm times the root of the number of channels: `[1, channels, 1, 1]`.
fn gain(graph: &mut Graph, name: &str, channels: usize) -> Result<Value> {
    let root = (channels as f32).sqrt();
    let scaled = |values: Vec<f32>| values.into_iter().map(|value| value * root).collect();
    graph.parameter_in(&format!("{name}.g"), ".scaled", &[1, channels, 1, 1], scaled)
}

/// RMS norm over the channels.
pub(super) fn rms_norm(graph: &mut Graph, name: &str, x: &Image) -> Result<Image> {
    let normalized = normalized(graph, name, x);
    let gain = gain(graph, name, x.channels)?;
    Ok(x.with(graph.node(name, "Mul", &[&normalized, &gain], vec![])))
}

/// RMS norm with scale and shift, each `[N, channels, 1, 1]`: the gain is times `scale + 1`.
fn rms_norm_scale_shift(graph: &mut Graph, name: &str, x: &Image, [scale, shift]: &[Value; 2]) -> Result<Image> {
    let normalized = normalized(graph, name, x);
    let (gain, one) = (gain(graph, name, x.channels)?, graph.float(1.0));
    let factor = graph.node(name, "Add", &[scale, &one], vec![]);
    let factor = graph.node(name, "Mul", &[&factor, &gain], vec![]);
    let scaled = graph.node(name, "Mul", &[&normalized, &factor], vec![]);
    Ok(x.with(graph.node(name, "Add", &[&scaled, shift], vec![])))
}

/// Group norm with weight and bias per channel: of each group as of one channel.
pub(super) fn group_norm(graph: &mut Graph, name: &str, x: &Image, groups: usize, epsilon: f64) -> Result<Image> {
    let (channels, height, width) = (x.channels as i64, x.height as i64, x.width as i64);
    let grouped = graph.integers(&[0, groups as i64, channels / groups as i64 * height * width]);
    let grouped = graph.node(name, "Reshape", &[&x.value, &grouped], vec![]);
    let one = graph.floats(&format!("ones.{groups}"), &[groups], &vec![1.0; groups]);
    let zero = graph.floats(&format!("zeros.{groups}"), &[groups], &vec![0.0; groups]);
    let attributes = vec![real("epsilon", epsilon as f32)];
    let normed = graph.node(name, "InstanceNormalization", &[&grouped, &one, &zero], attributes);
    let shape = graph.integers(&[0, channels, height, width]);
    let normed = graph.node(name, "Reshape", &[&normed, &shape], vec![]);
    let shape = [1, x.channels, 1, 1];
    let weight = graph.parameter_in(&format!("{name}.weight"), ".4d", &shape, |values| values)?;
    let bias = graph.parameter_in(&format!("{name}.bias"), ".4d", &shape, |values| values)?;
    let scaled = graph.node(name, "Mul", &[&normed, &weight], vec![]);
    Ok(x.with(graph.node(name, "Add", &[&scaled, &bias], vec![])))
}

/// The sum of two images of one size.
pub(super) fn add(graph: &mut Graph, place: &str, first: &Image, second: &Image) -> Image {
    first.with(graph.node(place, "Add", &[&first.value, &second.value], vec![]))
}

/// The channels of two images, one behind the other.
pub(super) fn concat_channels(graph: &mut Graph, place: &str, first: &Image, second: &Image) -> Image {
    let value = graph.node(place, "Concat", &[&first.value, &second.value], vec![int("axis", 1)]);
    Image { value, channels: first.channels + second.channels, ..*first }
}

/// lucidrains' ResNet block; `time` is SiLU of the time embedding, `[N, features]`.
pub(super) fn resnet_block(graph: &mut Graph, name: &str, x: &Image, time: &Value) -> Result<Image> {
    let embedded = linear(graph, &format!("{name}.mlp.1"), time)?;
    let h = conv2d(graph, &format!("{name}.block1.proj"), x)?;
    let channels = h.channels as i64;
    let shape = graph.integers(&[0, 2 * channels, 1, 1]);
    let embedded = graph.node(name, "Reshape", &[&embedded, &shape], vec![]);
    let halves = graph.integers(&[channels, channels]);
    let scale_shift = graph.node_with_outputs(name, "Split", &[&embedded, &halves], vec![int("axis", 1)]);
    let norm = format!("{name}.block1.norm");
    let h = rms_norm_scale_shift(graph, &norm, &h, &scale_shift)?;
    let h = h.with(silu(graph, &norm, &h.value));
    let h = conv2d(graph, &format!("{name}.block2.proj"), &h)?;
    let norm = format!("{name}.block2.norm");
    let h = rms_norm(graph, &norm, &h)?;
    let h = h.with(silu(graph, &norm, &h.value));
    let skip = format!("{name}.res_conv");
    let skip = if graph.has_parameter(&format!("{skip}.weight")) { conv2d(graph, &skip, x)? } else { x.clone() };
    Ok(add(graph, name, &h, &skip))
}

/// Query, key and value of the heads, each `[N, heads, head_dim, height * width]`.
fn heads(graph: &mut Graph, name: &str, x: &Image, heads: usize, head_dim: usize) -> Result<[Value; 3]> {
    let normed = rms_norm(graph, &format!("{name}.norm"), x)?;
    let qkv = conv2d(graph, &format!("{name}.to_qkv"), &normed)?;
    let hidden = (heads * head_dim) as i64;
    let thirds = graph.integers(&[hidden; 3]);
    let parts: [Value; 3] = graph.node_with_outputs(name, "Split", &[&qkv.value, &thirds], vec![int("axis", 1)]);
    let shape = graph.integers(&[0, heads as i64, head_dim as i64, (x.height * x.width) as i64]);
    Ok(parts.map(|part| graph.node(name, "Reshape", &[&part, &shape], vec![])))
}

/// Key and value behind the learned ones ("memory") along the positions. `memory` has those as
/// `[2 (key, value), heads, head_dim, positions]` under a suffix of the parameter's name; `batch` is the number of images, `[1]`.
fn with_memory(
    graph: &mut Graph,
    name: &str,
    [key, value]: [&Value; 2],
    memory: (&[usize; 3], [Vec<f32>; 2]),
    batch: &Value,
) -> [Value; 2] {
    let (&[heads, head_dim, positions], [memory_key, memory_value]) = memory;
    let sizes = graph.integers(&[heads as i64, head_dim as i64, positions as i64]);
    let shape = graph.node(name, "Concat", &[batch, &sizes], vec![int("axis", 0)]);
    [(key, "key", memory_key), (value, "value", memory_value)].map(|(own, part, values)| {
        let learned = graph.floats(&format!("{name}.mem_kv.{part}"), &[1, heads, head_dim, positions], &values);
        let learned = graph.node(name, "Expand", &[&learned, &shape], vec![]);
        graph.node(name, "Concat", &[&learned, own], vec![int("axis", 3)])
    })
}

/// `[N, heads, head_dim, height * width]` to an image.
fn join_heads(graph: &mut Graph, name: &str, out: &Value, x: &Image, hidden: usize) -> Image {
    let shape = graph.integers(&[0, hidden as i64, x.height as i64, x.width as i64]);
    let value = graph.node(name, "Reshape", &[out, &shape], vec![]);
    Image { value, channels: hidden, ..*x }
}

/// Exchanges the last two of four dimensions.
fn transpose(graph: &mut Graph, name: &str, x: &Value) -> Value {
    graph.node(name, "Transpose", &[x], vec![ints("perm", &[0, 1, 3, 2])])
}

/// Softmax attention of query, key and value, each `[N, heads, head_dim, positions]`; the result is like the query.
pub(super) fn softmax_attention(
    graph: &mut Graph,
    name: &str,
    [query, key, value]: [&Value; 3],
    head_dim: usize,
) -> Value {
    let scale = graph.float((head_dim as f32).powf(-0.5));
    let query = graph.node(name, "Mul", &[query, &scale], vec![]);
    let query = transpose(graph, name, &query);
    let scores = graph.node(name, "MatMul", &[&query, key], vec![]);
    let weights = graph.node(name, "Softmax", &[&scores], vec![int("axis", 3)]);
    let value = transpose(graph, name, value);
    let out = graph.node(name, "MatMul", &[&weights, &value], vec![]);
    transpose(graph, name, &out)
}

/// lucidrains' full attention, with its residual connection.
pub(super) fn attention(graph: &mut Graph, name: &str, x: &Image, batch: &Value) -> Result<Image> {
    let memory_name = format!("{name}.mem_kv");
    let [_, count, positions, head_dim] = four(&graph.parameter_shape(&memory_name)?, &memory_name)?;
    let [query, key, value] = heads(graph, name, x, count, head_dim)?;
    // [2, heads, positions, head_dim] in the layout of the images
    let parts = graph.halves(&memory_name)?.map(|half| transposed(&half, count, positions, head_dim));
    let [key, value] = with_memory(graph, name, [&key, &value], (&[count, head_dim, positions], parts), batch);
    let out = softmax_attention(graph, name, [&query, &key, &value], head_dim);
    let out = join_heads(graph, name, &out, x, count * head_dim);
    let out = conv2d(graph, &format!("{name}.to_out"), &out)?;
    Ok(add(graph, name, &out, x))
}

/// lucidrains' linear attention, with its residual connection.
pub(super) fn linear_attention(graph: &mut Graph, name: &str, x: &Image, batch: &Value) -> Result<Image> {
    let memory_name = format!("{name}.mem_kv");
    let [_, count, head_dim, positions] = four(&graph.parameter_shape(&memory_name)?, &memory_name)?;
    let [query, key, value] = heads(graph, name, x, count, head_dim)?;
    let parts = graph.halves(&memory_name)?;
    let [key, value] = with_memory(graph, name, [&key, &value], (&[count, head_dim, positions], parts), batch);
    let query = graph.node(name, "Softmax", &[&query], vec![int("axis", 2)]);
    let scale = graph.float((head_dim as f32).powf(-0.5));
    let query = graph.node(name, "Mul", &[&query, &scale], vec![]);
    let key = graph.node(name, "Softmax", &[&key], vec![int("axis", 3)]);
    // [head_dim of value, head_dim of key]
    let key = transpose(graph, name, &key);
    let context = graph.node(name, "MatMul", &[&value, &key], vec![]);
    let out = graph.node(name, "MatMul", &[&context, &query], vec![]);
    let out = join_heads(graph, name, &out, x, count * head_dim);
    let out = conv2d(graph, &format!("{name}.to_out.0"), &out)?;
    let out = rms_norm(graph, &format!("{name}.to_out.1"), &out)?;
    Ok(add(graph, name, &out, x))
}

fn four(shape: &[usize], name: &str) -> Result<[usize; 4]> {
    shape.try_into().map_err(|_| InterchangeError::NoTwin {
        reason: format!("the parameter `{name}` has the shape {shape:?}, not one of four sizes"),
    })
}

/// Matrices of `[rows, columns]`, one behind the other, as `[columns, rows]`.
fn transposed(values: &[f32], matrices: usize, rows: usize, columns: usize) -> Vec<f32> {
    let mut result = Vec::with_capacity(values.len());
    for matrix in 0..matrices {
        for column in 0..columns {
            result.extend((0..rows).map(|row| values[(matrix * rows + row) * columns + column]));
        }
    }
    result
}

/// Patches become channels: `b c (h p) (w p) -> b (c p p) h w`.
pub(super) fn space_to_depth(graph: &mut Graph, place: &str, x: &Image, patch: usize) -> Image {
    if patch == 1 {
        return x.clone();
    }
    let (channels, height, width) = (x.channels, x.height / patch, x.width / patch);
    let squares = [0, channels, height, patch, width, patch].map(|size| size as i64);
    let joined = [0, channels * patch * patch, height, width].map(|size| size as i64);
    let value = rearrange(graph, place, &x.value, (&squares, &[0, 1, 3, 5, 2, 4], &joined));
    Image { value, channels: channels * patch * patch, height, width }
}

/// Channels become patches: the inverse of [`space_to_depth`].
pub(super) fn depth_to_space(graph: &mut Graph, place: &str, x: &Image, patch: usize) -> Image {
    if patch == 1 {
        return x.clone();
    }
    let channels = x.channels / (patch * patch);
    let (height, width) = (x.height * patch, x.width * patch);
    let squares = [0, channels, patch, patch, x.height, x.width].map(|size| size as i64);
    let joined = [0, channels, height, width].map(|size| size as i64);
    let value = rearrange(graph, place, &x.value, (&squares, &[0, 1, 4, 2, 5, 3], &joined));
    Image { value, channels, height, width }
}

/// Reshape, transpose, reshape.
fn rearrange(graph: &mut Graph, place: &str, x: &Value, (from, order, to): (&[i64], &[i64], &[i64])) -> Value {
    let (from, to) = (graph.integers(from), graph.integers(to));
    let squares = graph.node(place, "Reshape", &[x, &from], vec![]);
    let ordered = graph.node(place, "Transpose", &[&squares], vec![ints("perm", order)]);
    graph.node(place, "Reshape", &[&ordered, &to], vec![])
}

/// Sines and cosines of `t` (`[N, 1]`) times these frequencies times `factor`, all sines first: `[N, 2 frequencies]`. As in the
/// network, t is multiplied first: angles of thousands leave no room for another rounding.
pub(super) fn sines_and_cosines(
    graph: &mut Graph,
    place: &str,
    t: &Value,
    frequencies: &Value,
    factor: f32,
) -> [Value; 2] {
    let mut angles = graph.node(place, "Mul", &[t, frequencies], vec![]);
    if factor != 1.0 {
        let factor = graph.float(factor);
        angles = graph.node(place, "Mul", &[&angles, &factor], vec![]);
    }
    [graph.node(place, "Sin", &[&angles], vec![]), graph.node(place, "Cos", &[&angles], vec![])]
}
