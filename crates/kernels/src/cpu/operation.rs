//! Native operations as burn operations: one backend method for all of them, and one backward step.
//!
//! An [`Operation`] works on slices and knows neither burn nor its autodiff graph. [`apply`] runs it on tensors of the
//! `flex` backend; under autodiff its inputs are saved (or, with gradient checkpointing, recomputed) for
//! [`Operation::backward`].

use core::fmt::Debug;
use std::sync::Arc;

use burn::{
    backend::{
        Autodiff, Backend, BackendTensor, Dispatch, DispatchTensor, DispatchTensorKind, Flex,
        autodiff::checkpoint::strategy::CheckpointStrategy, backend_extension, flex::FlexTensor, tensor::FloatTensor,
    },
    tensor::{DType, Tensor, TensorData},
};

use crate::{
    cpu::pool,
    graph::{Differentiable, record_first},
    is_in_main_memory, profile,
};

/// The values of a contiguous tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    /// The shape.
    pub shape: &'a [usize],
    /// The elements, row-major.
    pub values: &'a [f32],
}

/// An operation on contiguous f32 tensors.
pub(crate) trait Operation: Debug + Send + Sync + 'static {
    /// The shape of the result, by default that of the first input.
    fn output_shape(&self, inputs: &[&[usize]]) -> Vec<usize> {
        inputs[0].to_vec()
    }

    /// Writes every element of the result; `output` may hold any values before. Returns the values to save for
    /// [`backward`](Self::backward): those besides the inputs that cost more to recompute than to keep.
    fn forward(&self, inputs: &[View], output: &mut [f32]) -> Vec<f32>;

    /// Writes the gradients of the inputs: `gradients` has for each a slice, which may hold any values before, or None
    /// where it is not wanted. `saved` is the return value of [`forward`](Self::forward).
    fn backward(&self, inputs: &[View], saved: &[f32], output_gradient: &[f32], gradients: &mut [Option<&mut [f32]>]);

    /// Whether gradient checkpointing recomputes the result rather than save it.
    fn is_cheap(&self) -> bool {
        true
    }
}

/// Whether the native operations can work on this tensor: f32 on the `flex` backend.
pub(crate) fn is_native<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && is_in_main_memory(&x.device())
}

/// A slice for the gradient of each input, for an operation that computes all in one pass: `unwanted` holds those that
/// are None in `gradients`.
pub(crate) fn all<'a, const N: usize>(
    inputs: &[View],
    gradients: &'a mut [Option<&mut [f32]>],
    unwanted: &'a mut [Vec<f32>; N],
) -> [&'a mut [f32]; N] {
    let mut slots =
        gradients.iter_mut().zip(inputs).zip(unwanted).map(|((gradient, input), unwanted)| match gradient {
            Some(gradient) => &mut **gradient,
            None => {
                unwanted.resize(input.values.len(), 0.0);
                unwanted.as_mut_slice()
            }
        });
    core::array::from_fn(|_| slots.next().unwrap_or_default())
}

/// Runs an operation on one to four tensors that are all native ([`is_native`]).
pub(crate) fn apply<const D: usize>(operation: impl Operation, inputs: Vec<DispatchTensor>) -> Tensor<D> {
    // burn routes a fixed number of tensors: the first one stands for those that are missing
    let [first, second, third, fourth] = core::array::from_fn(|index| inputs.get(index).unwrap_or(&inputs[0]).clone());
    let (operation, count) = (Arc::new(operation), inputs.len());
    Tensor::from_dispatch(<Dispatch as NativeBackend>::native(operation, count, first, second, third, fourth))
}

/// The method that burn routes to the backend of the tensors.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait NativeBackend: Backend {
    /// The operation on the first `count` of the tensors.
    fn native(
        operation: Arc<dyn Operation>,
        count: usize,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        third: FloatTensor<Self>,
        fourth: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl NativeBackend for Flex {
    fn native(
        operation: Arc<dyn Operation>,
        count: usize,
        first: FlexTensor,
        second: FlexTensor,
        third: FlexTensor,
        fourth: FlexTensor,
    ) -> FlexTensor {
        run(&*operation, &contiguous([first, second, third, fourth].into_iter().take(count))).0
    }
}

impl<C: CheckpointStrategy> NativeBackend for Autodiff<Flex, C> {
    fn native(
        operation: Arc<dyn Operation>,
        count: usize,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        third: FloatTensor<Self>,
        fourth: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        record_first::<Flex, C>(Arc::new(OnSlices(operation)), count, [first, second, third, fourth])
    }
}

/// An operation on slices as one on tensors.
#[derive(Debug)]
struct OnSlices(Arc<dyn Operation>);

impl Differentiable<Flex> for OnSlices {
    fn forward(&self, inputs: Vec<FlexTensor>) -> (FlexTensor, Vec<FlexTensor>) {
        let (output, saved) = run(&*self.0, &contiguous(inputs));
        let length = saved.len();
        (output, vec![tensor(saved, &[length])])
    }

    fn backward(
        &self,
        inputs: Vec<FlexTensor>,
        saved: Vec<FlexTensor>,
        output_gradient: FlexTensor,
        wanted: &[bool],
    ) -> Vec<Option<FlexTensor>> {
        let (inputs, gradient) = (contiguous(inputs), output_gradient.to_contiguous());
        let mut results: Vec<Option<Vec<f32>>> = inputs
            .iter()
            .zip(wanted)
            .map(|(input, wanted)| wanted.then(|| pool::take(input.layout().num_elements())))
            .collect();
        let mut slices: Vec<Option<&mut [f32]>> = results.iter_mut().map(Option::as_deref_mut).collect();
        let (operation, views) = (&self.0, views(&inputs));
        let name = || format!("{operation:?} backward {:?}", views.iter().map(|view| view.shape).collect::<Vec<_>>());
        profile::time(name, || operation.backward(&views, values(&saved[0]), values(&gradient), &mut slices));
        let shapes = inputs.iter().map(|input| input.layout().shape());
        results.into_iter().zip(shapes).map(|(result, shape)| result.map(|result| tensor(result, shape))).collect()
    }

    fn is_cheap(&self) -> bool {
        self.0.is_cheap()
    }
}

/// The backend's contiguous tensor of a native tensor without a graph.
pub(crate) fn flex<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    match tensor.into_dispatch().kind {
        DispatchTensorKind::Flex(tensor) => tensor.float().to_contiguous(),
        #[allow(unreachable_patterns, reason = "there may be other backends in the build")]
        _ => unreachable!("the caller asked `is_native`"),
    }
}

/// The inverse of [`flex`].
pub(crate) fn unflex<const D: usize>(tensor: FlexTensor) -> Tensor<D> {
    let kind = DispatchTensorKind::Flex(BackendTensor::Float(tensor));
    Tensor::from_dispatch(DispatchTensor { kind, autodiff: Default::default() })
}

/// The mutable values of a contiguous tensor, copied first if another tensor shares them.
pub(crate) fn values_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    let (start, end) = tensor.layout().contiguous_offsets().expect("a contiguous tensor");
    &mut tensor.storage_mut()[start..end]
}

/// The result of an operation, and the values to save.
fn run(operation: &dyn Operation, inputs: &[FlexTensor]) -> (FlexTensor, Vec<f32>) {
    let views = views(inputs);
    let shape = operation.output_shape(&views.iter().map(|view| view.shape).collect::<Vec<_>>());
    let mut output = pool::take(shape.iter().product());
    let name = || format!("{operation:?} forward {:?}", views.iter().map(|view| view.shape).collect::<Vec<_>>());
    let saved = profile::time(name, || operation.forward(&views, &mut output));
    (tensor(output, &shape), saved)
}

fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::from_bytes(pool::bytes(values), shape.to_vec(), DType::F32))
}

fn contiguous(inputs: impl IntoIterator<Item = FlexTensor>) -> Vec<FlexTensor> {
    inputs.into_iter().map(|input| input.to_contiguous()).collect()
}

fn views(inputs: &[FlexTensor]) -> Vec<View<'_>> {
    inputs.iter().map(|input| View { shape: input.layout().shape(), values: values(input) }).collect()
}

/// The values of a contiguous tensor.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("a contiguous f32 tensor")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{
        activation::Activation,
        attention::Attention,
        concatenate::Concatenate,
        convolution::{Conv2d, Linear},
        group_norm::{GroupNorm, Groups},
        linear_attention::LinearAttention,
        rms_norm::RmsNorm,
        softmax::Softmax,
    };

    /// Result and gradients, in memory filled with `before`.
    fn evaluate(operation: &dyn Operation, shapes: &[&[usize]], before: f32) -> Vec<Vec<f32>> {
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        let values = |length: usize, seed: usize| -> Vec<f32> {
            (0..length).map(|index| ((index * 37 + seed * 101) % 83) as f32 / 41.0 - 1.0).collect()
        };
        let inputs: Vec<Vec<f32>> = shapes.iter().enumerate().map(|(seed, shape)| values(count(shape), seed)).collect();
        let views: Vec<View> = shapes.iter().zip(&inputs).map(|(shape, values)| View { shape, values }).collect();
        let mut output = vec![before; count(&operation.output_shape(shapes))];
        let saved = operation.forward(&views, &mut output);
        let mut gradients: Vec<Vec<f32>> = inputs.iter().map(|input| vec![before; input.len()]).collect();
        let mut slots: Vec<Option<&mut [f32]>> = gradients.iter_mut().map(|slot| Some(slot.as_mut_slice())).collect();
        operation.backward(&views, &saved, &values(output.len(), 9), &mut slots);
        core::iter::once(output).chain(gradients).collect()
    }

    #[test]
    fn every_element_is_written() {
        let same = |kernel| Conv2d(crate::Convolution::same(kernel));
        let groups = Groups { count: 3, epsilon: 1e-5 };
        let cases: [(&dyn Operation, &[&[usize]]); 18] = [
            (&Activation::Silu, &[&[100]]),
            (&Activation::Gelu, &[&[100]]),
            (&Softmax, &[&[7, 33]]),
            (&RmsNorm { silu: false }, &[&[2, 3, 5, 18], &[18]]),
            (&RmsNorm { silu: true }, &[&[2, 3, 5, 18], &[18], &[2, 36]]),
            (&GroupNorm { groups, silu: false }, &[&[2, 3, 5, 18], &[18], &[18]]),
            (&GroupNorm { groups, silu: true }, &[&[2, 3, 5, 18], &[18], &[18], &[2, 36]]),
            (&Attention, &[&[2, 21, 3 * 40], &[2, 2, 3, 20]]),
            (&LinearAttention, &[&[2, 21, 3 * 40], &[2, 2, 20, 3]]),
            (&Concatenate, &[&[2, 3, 5, 18], &[2, 3, 5, 7]]),
            (&Linear, &[&[5, 19], &[21, 19], &[21]]),
            (&same(1), &[&[2, 5, 6, 19], &[21, 19, 1, 1], &[21]]),
            // Winograd over many tiles, over few, and of an image smaller than a tile
            (&same(3), &[&[2, 19, 18, 35], &[37, 35, 3, 3], &[37]]),
            (&same(3), &[&[1, 4, 4, 130], &[140, 130, 3, 3], &[140]]),
            (&same(3), &[&[3, 2, 3, 5], &[6, 5, 3, 3], &[6]]),
            (&same(7), &[&[2, 9, 8, 3], &[20, 3, 7, 7], &[20]]),
            (&Conv2d(crate::Convolution::upsampled(3)), &[&[2, 5, 6, 19], &[21, 19, 3, 3], &[21]]),
            (&Conv2d(crate::Convolution::patches(2)), &[&[2, 6, 8, 19], &[21, 19, 2, 2], &[21]]),
        ];
        for (operation, shapes) in cases {
            let clean = evaluate(operation, shapes, 0.0);
            assert!(clean.iter().flatten().all(|value| value.is_finite()), "{operation:?} {shapes:?}");
            assert_eq!(evaluate(operation, shapes, f32::NAN), clean, "{operation:?} {shapes:?}");
        }
    }
}
