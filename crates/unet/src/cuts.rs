//! A graph that is cut into sections, whose gradients are known one section after another.

use std::cell::{Cell, RefCell};

use burn::tensor::{GradientCheckpointingStrategy, Gradients, Tensor};

use crate::ops;

/// Cuts the graph of one forward pass where one level of the network hands on to the next, so that the backward pass can go section
/// by section: burn hands out no gradient before the end of a backward pass. Several machines can sum the gradients of the last
/// levels while those of the first are still computed (Li et al. 2020, arXiv:2006.15704).
///
/// The gradients are those of the graph in one piece, but for the order in which f32 numbers are added.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use unet::{Condition, Cuts, UnetConfig};
///
/// let device = Device::flex().autodiff();
/// let unet = UnetConfig { dim: 8, dim_mults: vec![1, 2], channels: 1, ..UnetConfig::default() }.init(&device)?;
/// let (x_t, t) = (Tensor::<4>::ones([1, 1, 8, 8], &device), Tensor::<1>::zeros([1], &device));
/// let cuts = Cuts::default();
/// let output = unet.forward(x_t, t, Condition { cuts: Some(&cuts), ..Condition::default() });
/// let mut sections = 0;
/// cuts.backward(output.mean(), |_gradients| sections += 1);
/// // the stem, two levels down, the middle, two levels up, the end
/// assert_eq!(sections, 7);
/// # Ok::<(), unet::UnetError>(())
/// ```
#[derive(Default)]
pub struct Cuts {
    edges: RefCell<Vec<Box<dyn Edge>>>,
    /// The number of the section that is computed, from 0.
    section: Cell<usize>,
}

/// A tensor that leaves a section.
trait Edge {
    /// The section that it leaves.
    fn section(&self) -> usize;

    /// Adds what a later section says of its gradient.
    fn add(&mut self, gradients: &Gradients);

    /// A number whose gradient at the tensor is the one that was added up; None if nothing depends on it.
    fn root(&mut self) -> Option<Tensor<1>>;
}

struct Cut<const D: usize> {
    section: usize,
    /// Where the section ends.
    end: Tensor<D>,
    /// The same numbers, from which later sections start.
    start: Tensor<D>,
    strategy: GradientCheckpointingStrategy,
    gradient: Option<Tensor<D>>,
}

impl<const D: usize> Edge for Cut<D> {
    fn section(&self) -> usize {
        self.section
    }

    fn add(&mut self, gradients: &Gradients) {
        let more = self.start.grad(gradients);
        self.gradient = match (self.gradient.take(), more) {
            (Some(sum), Some(more)) => Some(sum + more),
            (sum, more) => sum.or(more),
        };
    }

    fn root(&mut self) -> Option<Tensor<1>> {
        let gradient = self.gradient.take()?;
        let gradient = Tensor::from_inner(gradient).with_gradient_checkpointing_strategy(self.strategy);
        Some(ops::backward_from(self.end.clone(), gradient))
    }
}

impl Cuts {
    /// The tensor as a section hands it on.
    pub(crate) fn cut<const D: usize>(cuts: Option<&Self>, end: Tensor<D>) -> Tensor<D> {
        let (Some(cuts), Some(strategy)) = (cuts, end.gradient_checkpointing_strategy()) else { return end };
        let start = Tensor::from_inner(end.clone().inner())
            .with_gradient_checkpointing_strategy(strategy)
            .set_require_grad(true);
        let cut = Cut { section: cuts.section.get(), end, start: start.clone(), strategy, gradient: None };
        cuts.edges.borrow_mut().push(Box::new(cut));
        start
    }

    /// What follows is the next section.
    pub(crate) fn next(cuts: Option<&Self>) {
        if let Some(cuts) = cuts {
            cuts.section.set(cuts.section.get() + 1);
        }
    }

    /// The backward pass of a loss, `[1]`, that was computed from the network's output: `each` is called with the gradients of each
    /// section, from the last to the first, as soon as they are known. Each parameter's gradient is in one of them.
    pub fn backward(self, loss: Tensor<1>, mut each: impl FnMut(&Gradients)) {
        let mut edges = self.edges.into_inner();
        let mut root = Some(loss);
        for section in (0..=self.section.get()).rev() {
            if section < self.section.get() {
                let of_this = edges.iter_mut().filter(|edge| edge.section() == section);
                root = of_this.filter_map(|edge| edge.root()).reduce(|sum, root| sum + root);
            }
            let Some(root) = root.take() else { continue };
            let gradients = root.backward();
            edges.retain(|edge| edge.section() < section);
            edges.iter_mut().for_each(|edge| edge.add(&gradients));
            each(&gradients);
        }
    }
}
