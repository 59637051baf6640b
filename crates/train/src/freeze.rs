//! Parts of the network, and those that are not trained (`training.freeze`).
//!
//! A frozen parameter is one without gradient tracking, as random Fourier features are: it has no gradient, so that neither the
//! optimizer nor its weight decay changes it, and the norm of the gradient and the sums of ranks do not contain it.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::Tensor,
};
use serde::{Deserialize, Serialize};
use unet::Network;

use crate::{error::TrainError, parameters::flat_parameters, trainer::Trainer};

/// A part of the network, in the order of its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The first convolution.
    Stem,
    /// The embedding of t.
    Time,
    /// The embedding of the class labels.
    Labels,
    /// The levels down.
    Down,
    /// The innermost blocks.
    Mid,
    /// The levels up.
    Up,
    /// The last block and the last convolution.
    Head,
}

impl Part {
    /// The part that a parameter belongs to, by its name in a model file.
    pub fn of(parameter: &str) -> Self {
        match parameter.split('.').next().unwrap_or_default() {
            "init_conv" | "conv_in" => Self::Stem,
            "time_mlp" | "time_embedding" | "time_proj" => Self::Time,
            "label_embedding" | "class_embedding" => Self::Labels,
            "downs" | "down_blocks" => Self::Down,
            "ups" | "up_blocks" => Self::Up,
            middle if middle.starts_with("mid_") => Self::Mid,
            _ => Self::Head,
        }
    }

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stem => "stem",
            Self::Time => "time",
            Self::Labels => "labels",
            Self::Down => "down",
            Self::Mid => "mid",
            Self::Up => "up",
            Self::Head => "head",
        }
    }
}

/// Ends the gradient tracking of all parameters of these parts.
///
/// # Errors
/// [`TrainError::NotTogether`] if the network lacks one of them, or nothing is left to train.
pub(crate) fn freeze(unet: Network, parts: &[Part]) -> Result<Network, TrainError> {
    struct Mapper {
        /// Whether each parameter is frozen.
        frozen: Vec<bool>,
        index: usize,
        trained: usize,
    }
    impl ModuleMapper for Mapper {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let is_frozen = self.frozen[self.index];
            self.index += 1;
            let param = if is_frozen { param.set_require_grad(false) } else { param };
            self.trained += usize::from(param.is_require_grad());
            param
        }
    }
    if parts.is_empty() {
        return Ok(unet);
    }
    let of_parameters: Vec<Part> = unet.parameter_names().iter().map(|name| Part::of(name)).collect();
    let names: Vec<&str> = parts.iter().map(|part| part.name()).collect();
    let refuse = |advice| Err(TrainError::NotTogether { what: format!("training.freeze = {names:?}"), advice });
    if parts.iter().any(|part| !of_parameters.contains(part)) {
        return refuse("this network has no labels; leave `labels` out, or set training.class_labels = true");
    }
    let frozen = of_parameters.iter().map(|part| parts.contains(part)).collect();
    let mut mapper = Mapper { frozen, index: 0, trained: 0 };
    let unet = unet.map(&mut mapper);
    if mapper.trained == 0 {
        return refuse("nothing is left to train; leave a part out");
    }
    Ok(unet)
}

impl Trainer {
    /// The number of parameters of the frozen parts.
    pub fn frozen_parameters(&self) -> usize {
        let is_frozen = |name: &str| self.config.training.freeze.contains(&Part::of(name));
        let parameters = self.unet().parameter_names().into_iter().zip(flat_parameters(self.unet()));
        parameters.filter(|(name, _)| is_frozen(name)).map(|(_, values)| values.dims()[0]).sum()
    }
}
