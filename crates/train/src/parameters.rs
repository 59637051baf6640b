//! Parameters, gradients and moments as lists of flat tensors in the order of the network.

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::Tensor,
};
use kernels::adam::global_norm;
use unet::Network;

/// The gradient of each parameter, flat, in the order of [`Network::parameter_names`]; None for one that is not trained.
pub type Gradients = Vec<Option<Tensor<1>>>;

/// The values of all parameters, flat, without gradient tracking.
pub(crate) fn flat_parameters(unet: &Network) -> Vec<Tensor<1>> {
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
pub(crate) fn flat_gradients(unet: &Network, gradients: &burn::tensor::Gradients) -> Gradients {
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

/// Replaces each parameter by `each(index, flat value)`, which must keep the length. Gradient tracking stays.
pub(crate) fn map_flat(unet: Network, each: impl FnMut(usize, Tensor<1>) -> Tensor<1>) -> Network {
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

/// The norm of all gradients together, and the factor that makes it at most `largest` (Pascanu et al. 2012,
/// arXiv:1211.5063; as PyTorch's `clip_grad_norm_`). With `largest` = 0 the factor is 1.
pub fn clip_by_global_norm(gradients: &Gradients, largest: f64) -> (f64, f64) {
    let norm = global_norm(gradients.iter().flatten());
    let factor = largest / (norm + 1e-6);
    (norm, if largest > 0.0 && factor < 1.0 { factor } else { 1.0 })
}

/// Flat tensors with their names in a file.
pub(crate) fn named(prefix: &str, names: &[String], tensors: &[Tensor<1>]) -> Vec<(String, Tensor<1>)> {
    names.iter().zip(tensors).map(|(name, tensor)| (format!("{prefix}.{name}"), tensor.clone())).collect()
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
        let (norm, factor) = clip_by_global_norm(&make(), 1.0);
        assert!((norm - 5.0).abs() < 1e-6 && (factor - 0.2).abs() < 1e-6, "{norm}, {factor}");
        for largest in [0.0, 10.0] {
            assert_eq!(clip_by_global_norm(&make(), largest), (5.0, 1.0));
        }
        assert_eq!(clip_by_global_norm(&Vec::new(), 1.0), (0.0, 1.0));
    }
}
