//! A number at which a backward pass begins with a given gradient.

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        flex::FlexTensor,
        tensor::FloatTensor,
    },
    tensor::{Tensor, TensorData},
};

/// See [`backward_from`](crate::backward_from), for native tensors.
pub(crate) fn backward_from<const D: usize>(x: Tensor<D>, gradient: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as SeedBackend>::seeded(x.into_dispatch(), gradient.into_dispatch()))
}

/// The method that burn routes to the backend of the tensors.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait SeedBackend: Backend {
    /// Zero, whose gradient at `x` is `gradient`.
    fn seeded(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl SeedBackend for Flex {
    fn seeded(_: FlexTensor, _: FlexTensor) -> FlexTensor {
        FlexTensor::from_data(TensorData::new(vec![0f32], [1]))
    }
}

impl<C: CheckpointStrategy> SeedBackend for Autodiff<Flex, C> {
    fn seeded(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        let gradient = gradient.into_primitive();
        let prepared = Seed.prepare::<C>([x.node()]).compute_bound().stateful();
        let zero = <Flex as SeedBackend>::seeded(gradient.clone(), gradient.clone());
        match prepared {
            OpsKind::Tracked(prepared) => prepared.finish(gradient, zero),
            OpsKind::UnTracked(prepared) => prepared.finish(zero),
        }
    }
}

/// Hands the gradient to the one parent.
#[derive(Debug)]
struct Seed;

impl Backward<Flex, 1> for Seed {
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        // one, as the root of the pass
        grads.consume::<Flex>(&ops.node);
        let [parent] = ops.parents;
        if let Some(parent) = parent {
            grads.register::<Flex>(parent.id, ops.state);
        }
    }
}
