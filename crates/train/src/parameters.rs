//! Parameters, gradients and moments as lists of flat tensors in the order of the network.

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Tensor, TensorData},
};
use unet::Unet;

/// The gradient of each parameter, flat, in the order of [`Unet::parameter_names`]; None for one that does not train.
pub type Gradients = Vec<Option<Tensor<1>>>;

/// The values of all parameters, flat and without gradient tracking.
pub(crate) fn flat_parameters(unet: &Unet) -> Vec<Tensor<1>> {
    struct Visitor(Vec<Tensor<1>>);
    impl ModuleVisitor for Visitor {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = param.val().inner();
            let length = value.shape().num_elements();
            self.0.push(value.reshape([length]));
        }
    }
    let mut visitor = Visitor(Vec::new());
    unet.visit(&mut visitor);
    visitor.0
}

/// The gradients of all parameters.
pub(crate) fn flat_gradients(unet: &Unet, gradients: &burn::tensor::Gradients) -> Gradients {
    struct Visitor<'a> {
        gradients: &'a burn::tensor::Gradients,
        found: Gradients,
    }
    impl ModuleVisitor for Visitor<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push(param.val().grad(self.gradients).map(|gradient| {
                let length = gradient.shape().num_elements();
                gradient.reshape([length])
            }));
        }
    }
    let mut visitor = Visitor { gradients, found: Vec::new() };
    unet.visit(&mut visitor);
    visitor.found
}

/// Replaces each parameter by `each(index, flat value)`, which must keep the length; keeps whether it trains.
pub(crate) fn map_flat(unet: Unet, each: impl FnMut(usize, Tensor<1>) -> Tensor<1>) -> Unet {
    struct Mapper<F> {
        index: usize,
        each: F,
    }
    impl<F: FnMut(usize, Tensor<1>) -> Tensor<1>> ModuleMapper for Mapper<F> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let index = self.index;
            self.index += 1;
            param.map(|value| {
                let (shape, trains, graph) =
                    (value.shape(), value.is_require_grad(), value.gradient_checkpointing_strategy());
                let value = value.inner();
                let length = shape.num_elements();
                let value = (self.each)(index, value.reshape([length])).reshape(shape);
                match graph {
                    None => value,
                    Some(strategy) => Tensor::from_inner(value)
                        .with_gradient_checkpointing_strategy(strategy)
                        .set_require_grad(trains),
                }
            })
        }
    }
    unet.map(&mut Mapper { index: 0, each })
}

/// The sum of two lists of gradients.
pub(crate) fn add(sum: Option<Gradients>, more: Gradients) -> Gradients {
    match sum {
        None => more,
        Some(sum) => sum
            .into_iter()
            .zip(more)
            .map(|pair| match pair {
                (Some(a), Some(b)) => Some(a + b),
                (a, b) => a.or(b),
            })
            .collect(),
    }
}

/// Scales all gradients so that the norm of the whole is at most `largest` (Pascanu et al. 2012, arXiv:1211.5063; as
/// PyTorch's `clip_grad_norm_`), and returns the norm before. 0 clips nothing.
pub fn clip_by_global_norm(gradients: &mut Gradients, largest: f64) -> f64 {
    let squares = gradients.iter().flatten().map(|gradient| (gradient.clone() * gradient.clone()).sum());
    let norm = match squares.reduce(|sum, square| sum + square) {
        Some(sum) => f64::from(sum.into_scalar::<f32>()).sqrt(),
        None => return 0.0,
    };
    let factor = largest / (norm + 1e-6);
    if largest > 0.0 && factor < 1.0 {
        for gradient in gradients.iter_mut() {
            *gradient = gradient.take().map(|gradient| gradient * factor);
        }
    }
    norm
}

/// Names with flat tensors, for a file.
pub(crate) fn named(prefix: &str, names: &[String], tensors: &[Tensor<1>]) -> Vec<(String, TensorData)> {
    names.iter().zip(tensors).map(|(name, tensor)| (format!("{prefix}.{name}"), tensor.to_data())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn clipping_looks_at_the_whole_gradient() {
        let device = Device::flex();
        let make =
            || vec![Some(Tensor::<1>::from_floats([3.0], &device)), None, Some(Tensor::from_floats([4.0], &device))];
        let mut gradients = make();
        assert_eq!(clip_by_global_norm(&mut gradients, 1.0), 5.0);
        let values: Vec<f32> = gradients.iter().flatten().map(|g| g.clone().into_scalar()).collect();
        assert!((values[0] - 0.6).abs() < 1e-6 && (values[1] - 0.8).abs() < 1e-6, "{values:?}");
        for largest in [0.0, 10.0] {
            let mut gradients = make();
            assert_eq!(clip_by_global_norm(&mut gradients, largest), 5.0);
            assert_eq!(gradients[2].clone().expect("a gradient").into_scalar::<f32>(), 4.0);
        }
    }
}
