//! Adam, gradient clipping and the EMA over many parameters a launch, with nothing read by the host.
//!
//! Parameters lie in chunks: one after another in a flat tensor of some 16 MB, of which each is a part ([`part`]). A step
//! copies the gradients into chunks of the same layout ([`Gradients::pack`]), which also gives the sum of their squares;
//! decides ([`Gradients::decide`]); and makes new chunks of weights, moments and EMA ([`step`]). The chunks before are freed
//! one by one, so that a step needs memory for one chunk more. Tensors that are not in chunks, as after a checkpoint was
//! read, are copied into some first.

use std::ops::Range;

use burn::{
    backend::{BackendTensor, DispatchTensor, DispatchTensorKind},
    tensor::{DType, Tensor},
};
use burn_cubecl::{kernel::cast, tensor::CubeTensor};
use cubecl::{ir::ElemType, prelude::*};

use crate::{
    adam::{AdamParameter, AdamStep, WeightDecay},
    cube::fold::{Fold, Team, fold_units},
    cube::launch::{aligned, argument, contiguous, cubes, element, empty, part},
};

/// Units of a cube.
const UNITS: usize = 256;
/// Elements that a cube copies.
const BLOCK: usize = 32 * UNITS;
/// The most elements of a chunk of several parameters.
const CHUNK: usize = 4 << 20;
/// The most tensors that a launch copies; fewer where a device binds fewer.
const MOST_TENSORS: usize = 16;

/// Some parameters in a chunk, one after another.
struct Chunk {
    /// Their indices.
    parameters: Range<usize>,
    /// The first element of each.
    starts: Vec<usize>,
    /// Elements in all.
    length: usize,
}

/// The chunks of parameters of these lengths, in their order.
fn chunks(lengths: &[usize]) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for (index, &length) in lengths.iter().enumerate() {
        match chunks.last_mut() {
            Some(chunk) if chunk.length + aligned(length) <= CHUNK => {
                chunk.starts.push(chunk.length);
                chunk.length += aligned(length);
                chunk.parameters.end = index + 1;
            }
            _ => chunks.push(Chunk { parameters: index..index + 1, starts: vec![0], length: aligned(length) }),
        }
    }
    chunks
}

/// The sum of `value` over the units of a cube.
#[cube]
fn sum_of_units(value: f32, shared: &mut [f32]) -> f32 {
    fold_units(value, shared, comptime!(Team { stride: 1, count: UNITS }), Fold::Sum)
}

/// Copies tensors into a chunk. A cube copies one block of one tensor: tensor i has the blocks from `first_blocks[i]` to that
/// of the next. With `with_squares`, the sum of the squares of each block is written.
#[cube(launch_unchecked)]
fn pack_tensors<E: Float>(
    tensors: Sequence<Box<[E]>>,
    first_blocks: Sequence<usize>,
    starts: Sequence<usize>,
    lengths: Sequence<usize>,
    chunk: &mut [f32],
    squares: &mut [f32],
    first_square: usize,
    blocks: usize,
    #[comptime] with_squares: bool,
    #[define(E)] _dtype: ElemType,
) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let block = CUBE_POS;
    let unit = UNIT_POS as usize;
    let count = comptime!(tensors.len());
    let mut which = 0usize.runtime();
    let mut first_block = 0usize.runtime();
    let mut start = 0usize.runtime();
    let mut length = 0usize.runtime();
    #[unroll]
    for index in 0..count {
        if block >= *first_blocks.index(index) {
            which = index.runtime();
            first_block = *first_blocks.index(index);
            start = *starts.index(index);
            length = *lengths.index(index);
        }
    }
    let mut sum = 0.0f32;
    let first = (block - first_block) * BLOCK;
    for round in 0..comptime!(BLOCK / UNITS) {
        let at = first + round * UNITS + unit;
        if at < length {
            let mut value = 0.0f32;
            #[unroll]
            for index in 0..count {
                if which == index {
                    value = f32::cast_from(tensors.index(index)[at]);
                }
            }
            chunk[start + at] = value;
            sum += value * value;
        }
    }
    if comptime!(with_squares) {
        let total = sum_of_units(sum, &mut shared);
        if unit == 0 && block < blocks {
            squares[first_square + block] = total;
        }
    }
}

/// `[norm, factor, is finite]` from the sums of squares of blocks, of gradients that are `1 / unscale` times too large, and a
/// loss.
#[cube(launch_unchecked)]
fn decide(squares: &[f32], loss: &[f32], decision: &mut [f32], blocks: usize, unscale: f32, largest: f32) {
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let unit = UNIT_POS as usize;
    let mut sum = 0.0f32;
    let mut block = unit;
    while block < blocks {
        sum += squares[block];
        block += UNITS;
    }
    let total = sum_of_units(sum, &mut shared);
    if unit == 0 {
        let norm = total.sqrt() * unscale;
        let factor = largest / (norm + 1e-6f32);
        let clipped = largest > 0.0f32 && factor < 1.0f32;
        // x - x is 0 of a finite number alone, and no compiler that keeps NaN may simplify a comparison of magnitudes
        let most = 3.0e38f32;
        let finite = norm <= most && loss[0] <= most && loss[0] >= -most;
        decision[0] = norm;
        decision[1] = select(clipped, factor, 1.0f32) * unscale;
        decision[2] = select(finite, 1.0f32, 0.0f32);
    }
}

/// The numbers of a step, as its kernel needs them.
#[derive(CubeLaunch, CubeType)]
struct Numbers {
    beta_1: f32,
    beta_2: f32,
    /// `1 - beta` as the host rounds it.
    rest_1: f32,
    rest_2: f32,
    /// Learning rate over the correction of the first moment.
    rate: f32,
    /// The root of the correction of the second moment.
    root: f32,
    epsilon: f32,
    /// Added to the gradient, times the weight.
    coupled: f32,
    /// The factor of the weight.
    kept: f32,
    /// 1 less the decay of the EMA.
    average_rest: f32,
}

/// New weights, moments and EMA, or those before where the step is not finite.
#[cube(launch_unchecked)]
fn adam_of_chunk<L: Float>(
    value: &[f32],
    gradient: &[f32],
    mean: &[f32],
    square: &[f32],
    average: &[f32],
    decision: &[f32],
    new_value: &mut [f32],
    new_mean: &mut [f32],
    new_square: &mut [f32],
    new_average: &mut [f32],
    lower: &mut [L],
    length: usize,
    numbers: Numbers,
    #[comptime] with_average: bool,
    #[comptime] with_lower: bool,
    #[define(L)] _lower_dtype: ElemType,
) {
    let index = CUBE_POS * UNITS + UNIT_POS as usize;
    if index < length {
        let finite = decision[2] > 0.5f32;
        let before = value[index];
        let mean_before = mean[index];
        let square_before = square[index];
        let mut g = gradient[index] * decision[1];
        g += before * numbers.coupled;
        let mean_after = mean_before * numbers.beta_1 + g * numbers.rest_1;
        let square_after = square_before * numbers.beta_2 + g * g * numbers.rest_2;
        let denominator = square_after.sqrt() / numbers.root + numbers.epsilon;
        let after = select(finite, before * numbers.kept - mean_after / denominator * numbers.rate, before);
        new_value[index] = after;
        if comptime!(with_lower) {
            lower[index] = L::cast_from(after);
        }
        new_mean[index] = select(finite, mean_after, mean_before);
        new_square[index] = select(finite, square_after, square_before);
        if comptime!(with_average) {
            let average_before = average[index];
            let change = (after - average_before) * numbers.average_rest;
            // a decay of 0 is a copy, without rounding
            let average_after = select(numbers.average_rest == 1.0f32, after, average_before + change);
            new_average[index] = select(finite, average_after, average_before);
        }
    }
}

/// The tensor that burn keeps for one on a GPU, without a graph.
fn primitive(tensor: Tensor<1>) -> CubeTensor {
    match tensor.into_dispatch().kind {
        DispatchTensorKind::Cube(tensor) => tensor.float(),
        #[allow(unreachable_patterns, reason = "there may be other backends in the build")]
        _ => unreachable!("the caller asked `is_on_gpu`"),
    }
}

/// The inverse of [`primitive`].
fn tensor(primitive: CubeTensor) -> Tensor<1> {
    let kind = DispatchTensorKind::Cube(BackendTensor::Float(primitive));
    Tensor::from_dispatch(DispatchTensor { kind, autodiff: Default::default() })
}

/// The tensors as a chunk: the one that they are parts of, or a copy.
fn as_chunk(chunk: &Chunk, tensors: Vec<CubeTensor>) -> CubeTensor {
    let first = &tensors[0];
    let id = |tensor: &CubeTensor| tensor.handle.clone().binding().memory.id();
    let start = |tensor: &CubeTensor| tensor.handle.offset_start.unwrap_or(0) as usize / size_of::<f32>();
    let is_part = |(tensor, offset): (&CubeTensor, &usize)| {
        tensor.dtype == DType::F32 && id(tensor) == id(first) && start(tensor) == start(first) + offset
    };
    let behind = first.handle.offset_end.unwrap_or(0) as usize / size_of::<f32>();
    let reaches = first.meta.num_elements() + behind >= chunk.length;
    if tensors.len() > 1 && reaches && tensors.iter().zip(&chunk.starts).all(is_part) {
        let mut handle = first.handle.clone();
        handle.offset_end = Some(((first.meta.num_elements() + behind - chunk.length) * size_of::<f32>()) as u64);
        let shape = burn::tensor::Shape::from([chunk.length]);
        return CubeTensor::new_contiguous(first.client.clone(), first.device.clone(), shape, handle, DType::F32);
    }
    pack(chunk, tensors, None)
}

/// Copies tensors into a chunk, and writes the sums of squares of their blocks from a certain one.
fn pack(chunk: &Chunk, tensors: Vec<CubeTensor>, squares: Option<(&CubeTensor, usize)>) -> CubeTensor {
    let tensors: Vec<CubeTensor> = tensors.into_iter().map(contiguous).collect();
    let first = &tensors[0];
    let client = &first.client;
    let packed = empty(first, [chunk.length], DType::F32);
    let unused = empty(first, [1], DType::F32);
    let (squares, mut square) = squares.unwrap_or((&unused, usize::MAX));
    let with_squares = square != usize::MAX;
    let most = MOST_TENSORS.min(client.properties().hardware.max_bindings as usize - 2);
    let mut at = 0;
    for group in tensors.chunks(most) {
        let (mut first_blocks, mut all_blocks) = (Vec::new(), 0);
        for tensor in group {
            first_blocks.push(all_blocks);
            all_blocks += blocks(tensor.meta.num_elements());
        }
        let starts = &chunk.starts[at..at + group.len()];
        let lengths: Vec<usize> = group.iter().map(|tensor| tensor.meta.num_elements()).collect();
        // a group of fewer has the same kernel: the first tensor stands for those that are missing, without a block
        let missing = |index: usize| if index < group.len() { index } else { 0 };
        let full = || (0..most).map(missing);
        let blocks_of =
            |index: usize| if index < group.len() { first_blocks[index] } else { usize::MAX as u32 as usize };
        unsafe {
            pack_tensors::launch_unchecked(
                client,
                cubes(all_blocks),
                CubeDim::new_1d(UNITS as u32),
                full().map(|index| argument(&group[index])).collect(),
                (0..most).map(blocks_of).collect(),
                full().map(|index| starts[index]).collect(),
                full().map(|index| lengths[index]).collect(),
                argument(&packed),
                argument(squares),
                if with_squares { square } else { 0 },
                all_blocks,
                with_squares,
                element(first.dtype),
            );
        }
        at += group.len();
        square = square.wrapping_add(all_blocks);
    }
    packed
}

fn blocks(length: usize) -> usize {
    length.div_ceil(BLOCK)
}

/// The gradients of a step in chunks, with the sums of their squares.
pub(crate) struct Gradients {
    chunks: Vec<CubeTensor>,
    squares: CubeTensor,
    blocks: usize,
}

impl Gradients {
    /// Copies gradients, one for each parameter, into chunks.
    pub fn pack(gradients: Vec<Tensor<1>>) -> Self {
        let lengths: Vec<usize> = gradients.iter().map(|gradient| gradient.dims()[0]).collect();
        let dtypes: Vec<DType> = gradients.iter().map(Tensor::dtype).collect();
        // one launch copies tensors of one number format
        let is_mixed = dtypes.iter().any(|dtype| *dtype != dtypes[0]);
        let in_one_format = |gradient: CubeTensor| {
            if is_mixed && gradient.dtype != DType::F32 { cast(gradient, DType::F32) } else { gradient }
        };
        let mut gradients = gradients.into_iter().map(primitive).map(in_one_format);
        let all_blocks = lengths.iter().map(|length| blocks(*length)).sum();
        let mut first = gradients.next();
        let like = first.clone().expect("a network has parameters");
        let squares = empty(&like, [all_blocks], DType::F32);
        let mut square = 0;
        let mut packed = Vec::new();
        for chunk in chunks(&lengths) {
            let tensors = first.take().into_iter().chain(&mut gradients).take(chunk.parameters.len()).collect();
            packed.push(pack(&chunk, tensors, Some((&squares, square))));
            square += lengths[chunk.parameters].iter().map(|length| blocks(*length)).sum::<usize>();
        }
        Self { chunks: packed, squares, blocks: all_blocks }
    }

    /// `[norm, factor, is finite]`: see [`DeviceGradients::decide`](crate::adam::DeviceGradients::decide).
    pub fn decide(&self, loss: Tensor<1>, unscale: f64, largest: f64) -> Tensor<1> {
        let (loss, decision) = (contiguous(primitive(loss)), empty(&self.squares, [3], DType::F32));
        unsafe {
            decide::launch_unchecked(
                &self.squares.client,
                cubes(1),
                CubeDim::new_1d(UNITS as u32),
                argument(&self.squares),
                argument(&loss),
                argument(&decision),
                self.blocks,
                unscale as f32,
                largest as f32,
            );
        }
        tensor(decision)
    }
}

/// One step of all parameters; see [`crate::adam::adam`]. Their gradients are those of `gradients`, in the same order.
pub(crate) fn step(
    step: &AdamStep,
    parameters: Vec<AdamParameter>,
    gradients: Gradients,
    decision: Tensor<1>,
    lower: Option<DType>,
) -> (Vec<AdamParameter>, Vec<Tensor<1>>) {
    let decision = primitive(decision);
    let lengths: Vec<usize> = parameters.iter().map(|parameter| parameter.value.dims()[0]).collect();
    let mut parameters = parameters.into_iter();
    let (mut results, mut lowered) = (Vec::with_capacity(lengths.len()), Vec::new());
    for (chunk, gradient) in chunks(&lengths).into_iter().zip(gradients.chunks) {
        let before: Vec<AdamParameter> = parameters.by_ref().take(chunk.parameters.len()).collect();
        let with_average = before.iter().all(|parameter| parameter.average.is_some());
        let list = |each: &dyn Fn(&AdamParameter) -> Option<&Tensor<1>>| {
            let tensors: Option<Vec<_>> = before.iter().map(|parameter| each(parameter).cloned()).collect();
            tensors.map(|tensors| as_chunk(&chunk, tensors.into_iter().map(primitive).collect()))
        };
        let value = list(&|parameter| Some(&parameter.value)).expect("every parameter has a value");
        let mean = list(&|parameter| Some(&parameter.mean)).expect("every parameter has a mean");
        let square = list(&|parameter| Some(&parameter.square)).expect("every parameter has a square");
        let average = list(&|parameter| parameter.average.as_ref());
        drop(before);
        let new = || empty(&value, [chunk.length], DType::F32);
        let (new_value, new_mean, new_square) = (new(), new(), new());
        let new_average = if with_average { new() } else { empty(&value, [1], DType::F32) };
        let new_lower = empty(&value, [lower.map_or(1, |_| chunk.length)], lower.unwrap_or(DType::F32));
        unsafe {
            adam_of_chunk::launch_unchecked(
                &value.client,
                cubes(chunk.length.div_ceil(UNITS)),
                CubeDim::new_1d(UNITS as u32),
                argument(&value),
                argument(&gradient),
                argument(&mean),
                argument(&square),
                argument(average.as_ref().unwrap_or(&value)),
                argument(&decision),
                argument(&new_value),
                argument(&new_mean),
                argument(&new_square),
                argument(&new_average),
                argument(&new_lower),
                chunk.length,
                numbers(step),
                with_average,
                lower.is_some(),
                element(new_lower.dtype),
            );
        }
        for (start, length) in chunk.starts.iter().zip(&lengths[chunk.parameters.clone()]) {
            let of = |chunk: &CubeTensor| tensor(part(chunk, *start, [*length]));
            lowered.extend(lower.map(|_| of(&new_lower)));
            results.push(AdamParameter {
                value: of(&new_value),
                gradient: of(&gradient),
                mean: of(&new_mean),
                square: of(&new_square),
                average: with_average.then(|| of(&new_average)),
            });
        }
    }
    (results, lowered)
}

fn numbers(step: &AdamStep) -> NumbersLaunch {
    let AdamStep { number, learning_rate, betas, epsilon, weight_decay, average_decay, .. } = *step;
    let [correction_1, correction_2] = betas.map(|beta| 1.0 - beta.powf(number as f64));
    let (coupled, kept) = match weight_decay {
        WeightDecay::Coupled(decay) => (decay, 1.0),
        WeightDecay::Decoupled(decay) => (0.0, 1.0 - learning_rate * decay),
    };
    NumbersLaunch::new(
        betas[0] as f32,
        betas[1] as f32,
        (1.0 - betas[0]) as f32,
        (1.0 - betas[1]) as f32,
        (learning_rate / correction_1) as f32,
        correction_2.sqrt() as f32,
        epsilon as f32,
        coupled as f32,
        kept as f32,
        (1.0 - average_decay) as f32,
    )
}
