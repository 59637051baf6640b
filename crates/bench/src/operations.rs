//! The operations of crate `kernels` at the shapes of a U-Net, each beside its composition of burn's operations.

use burn::tensor::Tensor;
use kernels::{Convolution, Loss, composed};

/// A function of flat tensors.
pub type Operation = Box<dyn Fn(&[Tensor<1>]) -> Tensor<1>>;

/// An operation, its inputs and its work.
pub struct Case {
    /// With its shapes.
    pub name: String,
    /// Lengths of the inputs.
    pub lengths: Vec<usize>,
    /// The operation as a network calls it.
    pub ours: Operation,
    /// The same of burn's operations.
    pub composed: Operation,
    /// Multiplications and additions of the forward pass, or elements for an operation bound by memory.
    pub work: usize,
}

/// All operations; `batch` replaces the usual batch size of a shape, and the channels of convolutions are divided by `narrower`,
/// a power of two up to 32.
pub fn operations(batch: impl Fn(usize) -> usize, narrower: usize) -> Vec<Case> {
    let [eight, one] = [batch(8), batch(1)];
    [
        convolutions(&batch, narrower),
        norms(eight, one),
        attentions(eight),
        vec![linear(eight), loss(eight)],
        elementwise(eight),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Numbers uniform in (-1, 1).
pub fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut values = vec![0f32; count];
    noise::Noise::new(seed).stream(noise::Purpose::InitialNoise).uniform(0, 0, &mut values);
    values.iter_mut().for_each(|value| *value = 2.0 * *value - 1.0);
    values
}

fn convolutions(batch: impl Fn(usize) -> usize, narrower: usize) -> Vec<Case> {
    // batch, side of the input, channels in and out, kernel
    let same = [
        (8, 32, 64, 64, 3),
        (8, 32, 128, 64, 3),
        (8, 16, 128, 128, 3),
        (8, 8, 256, 256, 3),
        (8, 4, 512, 512, 3),
        (32, 14, 64, 64, 3),
        (1, 28, 32, 32, 3),
        (8, 32, 3, 64, 7),
        (8, 32, 64, 384, 1),
        (8, 4, 512, 384, 1),
    ];
    let others = [
        (8, 8, 256, 128, 3, Convolution::upsampled(3)),
        (8, 16, 128, 64, 3, Convolution::upsampled(3)),
        (8, 32, 64, 64, 2, Convolution::patches(2)),
    ];
    let same = same.map(|(batch, side, from, to, kernel)| (batch, side, from, to, kernel, Convolution::same(kernel)));
    let case = |(usual, side, channels_in, channels_out, kernel, options): (_, _, usize, usize, _, Convolution)| {
        let batch = batch(usual);
        let narrow = |channels: usize| if channels < 32 { channels } else { channels / narrower };
        let (channels_in, channels_out) = (narrow(channels_in), narrow(channels_out));
        let upsampled = if options.upsample { " upsampled" } else { "" };
        let out_side = if options.upsample { 2 * side } else { side / options.stride };
        let weights = channels_out * channels_in * kernel * kernel;
        type Conv2d = fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, Convolution) -> Tensor<4>;
        let operation = |conv2d: Conv2d| -> Operation {
            Box::new(move |leaves| {
                let x = leaves[0].clone().reshape([batch, side, side, channels_in]);
                let weight = leaves[1].clone().reshape([channels_out, channels_in, kernel, kernel]);
                conv2d(x, weight, Some(leaves[2].clone()), options).flatten(0, 3)
            })
        };
        Case {
            name: format!("conv {kernel}x{kernel}{upsampled} {batch}x{side}x{side}x{channels_in} to {channels_out}"),
            lengths: vec![batch * side * side * channels_in, weights, channels_out],
            ours: operation(kernels::conv2d),
            composed: operation(composed::conv2d),
            work: 2 * batch * out_side * out_side * weights,
        }
    };
    same.into_iter().chain(others).map(case).collect()
}

fn norms(eight: usize, one: usize) -> Vec<Case> {
    let with_scale = |(batch, side, channels)| {
        let elements = batch * side * side * channels;
        type Norm = fn(Tensor<4>, Tensor<1>, Option<Tensor<2>>) -> Tensor<4>;
        let operation = |norm: Norm| -> Operation {
            Box::new(move |leaves| {
                let x = leaves[0].clone().reshape([batch, side, side, channels]);
                let scale_shift = leaves[2].clone().reshape([batch, 2 * channels]);
                norm(x, leaves[1].clone(), Some(scale_shift)).flatten(0, 3)
            })
        };
        Case {
            name: format!("rms norm, scale-shift, silu {batch}x{side}x{side}x{channels}"),
            lengths: vec![elements, channels, batch * 2 * channels],
            ours: operation(kernels::rms_norm_silu),
            composed: operation(composed::rms_norm_silu),
            work: elements,
        }
    };
    let (side, channels) = (32, 64);
    let elements = eight * side * side * channels;
    let plain = |norm: fn(Tensor<4>, Tensor<1>) -> Tensor<4>| -> Operation {
        Box::new(move |leaves| {
            norm(leaves[0].clone().reshape([eight, side, side, channels]), leaves[1].clone()).flatten(0, 3)
        })
    };
    type GroupNorm = fn(Tensor<4>, Tensor<1>, Tensor<1>, (usize, f64), bool, Option<Tensor<2>>) -> Tensor<4>;
    let grouped = |norm: GroupNorm| -> Operation {
        Box::new(move |leaves| {
            let x = leaves[0].clone().reshape([eight, side, side, channels]);
            let scale_shift = leaves[3].clone().reshape([eight, 2 * channels]);
            norm(x, leaves[1].clone(), leaves[2].clone(), (8, 1e-5), true, Some(scale_shift)).flatten(0, 3)
        })
    };
    let shape = format!("{eight}x{side}x{side}x{channels}");
    let mut cases: Vec<Case> =
        [(eight, 32, 64), (eight, 16, 128), (eight, 4, 512), (one, 28, 32)].map(with_scale).into();
    cases.push(Case {
        name: format!("rms norm {shape}"),
        lengths: vec![elements, channels],
        ours: plain(kernels::rms_norm),
        composed: plain(composed::rms_norm),
        work: elements,
    });
    cases.push(Case {
        name: format!("group norm, scale-shift, silu {shape}"),
        lengths: vec![elements, channels, channels, eight * 2 * channels],
        ours: grouped(kernels::group_norm),
        composed: grouped(composed::group_norm),
        work: elements,
    });
    cases
}

fn attentions(batch: usize) -> Vec<Case> {
    let (heads, head_dim, memory) = (4, 32, 4);
    let case = |(is_linear, positions)| {
        let keys = positions + memory;
        let name = if is_linear { "linear attention" } else { "attention" };
        let products = if is_linear { head_dim * (keys + positions) } else { 2 * keys * positions };
        let shape = if is_linear { [2, heads, head_dim, memory] } else { [2, heads, memory, head_dim] };
        let operation = |attention: fn(Tensor<3>, Tensor<4>) -> Tensor<3>| -> Operation {
            Box::new(move |leaves| {
                let qkv = leaves[0].clone().reshape([batch, positions, 3 * heads * head_dim]);
                attention(qkv, leaves[1].clone().reshape(shape)).flatten(0, 2)
            })
        };
        let (ours, reference) = if is_linear {
            (operation(kernels::linear_attention), operation(composed::linear_attention))
        } else {
            (operation(kernels::attention), operation(composed::attention))
        };
        Case {
            name: format!("{name} {batch}x{positions}, {heads} heads of {head_dim}"),
            lengths: vec![batch * positions * 3 * heads * head_dim, 2 * heads * memory * head_dim],
            ours,
            composed: reference,
            work: 2 * batch * heads * head_dim * products,
        }
    };
    [(true, 1024), (true, 256), (false, 16), (false, 256)].map(case).into()
}

/// A layer of the timestep embedding.
fn linear(batch: usize) -> Case {
    let (features_in, features_out) = (64, 256);
    let operation = |linear: fn(Tensor<2>, Tensor<2>, Tensor<1>) -> Tensor<2>| -> Operation {
        Box::new(move |leaves| {
            let x = leaves[0].clone().reshape([batch, features_in]);
            let weight = leaves[1].clone().reshape([features_out, features_in]);
            linear(x, weight, leaves[2].clone()).flatten(0, 1)
        })
    };
    Case {
        name: format!("linear {batch}x{features_in} to {features_out}"),
        lengths: vec![batch * features_in, features_out * features_in, features_out],
        ours: operation(kernels::linear),
        composed: operation(composed::linear),
        work: 2 * batch * features_in * features_out,
    }
}

fn loss(batch: usize) -> Case {
    let elements = 3 * 32 * 32;
    let operation = |loss: fn(Loss, Tensor<2>, Tensor<2>, Tensor<1>) -> Tensor<1>| -> Operation {
        Box::new(move |leaves| {
            let [prediction, target] = [0, 1].map(|index: usize| leaves[index].clone().reshape([batch, elements]));
            loss(Loss::Squared, prediction, target, leaves[2].clone())
        })
    };
    Case {
        name: format!("squared loss {batch}x{elements}"),
        lengths: vec![batch * elements, batch * elements, batch],
        ours: operation(kernels::loss),
        composed: operation(composed::loss),
        work: batch * elements,
    }
}

/// Operations bound by memory.
fn elementwise(batch: usize) -> Vec<Case> {
    let (side, channels) = (32, 64);
    let length = batch * side * side * channels;
    let activation = |name: &str, ours: fn(Tensor<1>) -> Tensor<1>, composed: fn(Tensor<1>) -> Tensor<1>| Case {
        name: format!("{name} of {length}"),
        lengths: vec![length],
        ours: Box::new(move |leaves| ours(leaves[0].clone())),
        composed: Box::new(move |leaves| composed(leaves[0].clone())),
        work: length,
    };
    let concatenate = |concat: fn(Tensor<4>, Tensor<4>) -> Tensor<4>| -> Operation {
        Box::new(move |leaves| {
            let image = |index: usize| leaves[index].clone().reshape([batch, side, side, channels]);
            concat(image(0), image(1)).flatten(0, 3)
        })
    };
    let columns = 256;
    let softmax = |softmax: fn(Tensor<2>) -> Tensor<2>| -> Operation {
        Box::new(move |leaves| softmax(leaves[0].clone().reshape([length / columns, columns])).flatten(0, 1))
    };
    vec![
        activation("silu", kernels::silu, composed::silu),
        activation("gelu", kernels::gelu, composed::gelu),
        Case {
            name: format!("concat channels {batch}x{side}x{side}x{channels} and {channels}"),
            lengths: vec![length, length],
            ours: concatenate(kernels::concat_channels),
            composed: concatenate(composed::concat_channels),
            work: 2 * length,
        },
        Case {
            name: format!("softmax {}x{columns}", length / columns),
            lengths: vec![length],
            ours: softmax(kernels::softmax),
            composed: softmax(composed::softmax),
            work: length,
        },
    ]
}
