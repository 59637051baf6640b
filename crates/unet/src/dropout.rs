//! Dropout in training.

use burn::tensor::Tensor;

/// The dropout layers of one forward pass, counted.
pub struct DropoutMasks<'a> {
    /// See [`Condition::dropout`](crate::Condition::dropout).
    pub masks: Option<&'a dyn Fn(usize, [usize; 4]) -> Tensor<4>>,
    /// The index of the next layer.
    pub layer: usize,
}

impl DropoutMasks<'_> {
    /// Multiplies by the mask of the next layer.
    pub fn apply(&mut self, x: Tensor<4>) -> Tensor<4> {
        let layer = self.layer;
        self.layer += 1;
        let Some(masks) = self.masks else { return x };
        let mask = masks(layer, x.dims());
        x * mask
    }
}
