//! Operations of ours in burn's autodiff graph, on any backend: their backward step, and gradient checkpointing.

use core::fmt::Debug;
use std::sync::Arc;

use burn::backend::{
    Autodiff, Backend,
    autodiff::{
        NodeId,
        checkpoint::{
            base::Checkpointer, retro_forward::RetroForward, state::BackwardStates, strategy::CheckpointStrategy,
        },
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};

/// An operation on the tensors of a backend.
pub(crate) trait Differentiable<B: Backend>: Debug + Send + Sync + 'static {
    /// The result, and the values to save for [`backward`](Self::backward): those besides the inputs that cost more to
    /// recompute than to keep.
    fn forward(&self, inputs: Vec<FloatTensor<B>>) -> (FloatTensor<B>, Vec<FloatTensor<B>>);

    /// The gradient of each input that is `wanted`; `saved` is what [`forward`](Self::forward) returned.
    fn backward(
        &self,
        inputs: Vec<FloatTensor<B>>,
        saved: Vec<FloatTensor<B>>,
        output_gradient: FloatTensor<B>,
        wanted: &[bool],
    ) -> Vec<Option<FloatTensor<B>>>;

    /// Whether gradient checkpointing recomputes the result rather than save it.
    fn is_cheap(&self) -> bool {
        true
    }
}

/// An operation that can be shared between the graph and its backward step.
pub(crate) type Shared<B> = Arc<dyn Differentiable<B>>;

/// The operation on the first `count` of four tensors, recorded in the graph.
///
/// burn routes a fixed number of tensors to a backend: any of them stands for those that are missing.
pub(crate) fn record_first<B: Backend, C: CheckpointStrategy>(
    operation: Shared<B>,
    count: usize,
    [first, second, third, fourth]: [FloatTensor<Autodiff<B, C>>; 4],
) -> FloatTensor<Autodiff<B, C>> {
    match count {
        1 => record::<B, C, _>(operation, [first]),
        2 => record::<B, C, _>(operation, [first, second]),
        3 => record::<B, C, _>(operation, [first, second, third]),
        4 => record::<B, C, _>(operation, [first, second, third, fourth]),
        count => unreachable!("no operation has {count} inputs"),
    }
}

/// Runs an operation, and records its backward step in the graph if an input is tracked.
fn record<B: Backend, C: CheckpointStrategy, const N: usize>(
    operation: Shared<B>,
    inputs: [FloatTensor<Autodiff<B, C>>; N],
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = inputs.each_ref().map(|input| input.node());
    let ids = nodes.iter().map(|node| node.id()).collect();
    let prepared = Step(operation.clone()).prepare::<C>(nodes);
    let prepared = if operation.is_cheap() {
        let again = Recompute { operation: operation.clone(), inputs: ids };
        prepared.memory_bound().retro_forward(again).parents(&inputs)
    } else {
        prepared.compute_bound()
    };
    let run = |inputs: [FloatTensor<Autodiff<B, C>>; N]| {
        operation.forward(inputs.into_iter().map(|input| input.into_primitive()).collect())
    };
    match prepared.stateful() {
        OpsKind::Tracked(mut prepared) => {
            let nodes = inputs.iter().map(|input| prepared.checkpoint(input)).collect();
            let (output, saved) = run(inputs);
            prepared.finish(State { inputs: nodes, saved }, output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(run(inputs).0),
    }
}

/// The state of a backward step: the nodes of the inputs, and the saved values.
#[derive(Clone, Debug)]
struct State<T> {
    inputs: Vec<NodeId>,
    saved: Vec<T>,
}

/// The backward step of any operation with `N` inputs.
#[derive(Debug)]
struct Step<B: Backend>(Shared<B>);

impl<B: Backend, const N: usize> Backward<B, N> for Step<B> {
    type State = State<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let output_gradient = grads.consume::<B>(&ops.node);
        let State { inputs, saved } = ops.state;
        let inputs = inputs.into_iter().map(|node| checkpointer.retrieve_node_output(node)).collect();
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let gradients = self.0.backward(inputs, saved, output_gradient, &wanted);
        for (parent, gradient) in ops.parents.iter().zip(gradients) {
            if let (Some(node), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

/// Recomputes a result, for gradient checkpointing.
#[derive(Debug)]
struct Recompute<B: Backend> {
    operation: Shared<B>,
    inputs: Vec<NodeId>,
}

impl<B: Backend> RetroForward for Recompute<B> {
    fn forward(&self, states: &mut BackwardStates, out_node: NodeId) {
        let inputs = self.inputs.iter().map(|node| states.get_state(node)).collect();
        states.save(out_node, self.operation.forward(inputs).0);
    }
}
