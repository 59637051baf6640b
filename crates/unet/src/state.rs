//! The parameters by their names in the state dict of the network's library: reading, replacing, initializing.

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Tensor, TensorData},
};

use crate::{
    model::Unet,
    unet2d::{FOURIER_DEVIATION, TimeEmbeddingKind, Unet2d},
};

/// A parameter that does not fit the network.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// No value was given for a parameter.
    #[error("the parameter `{name}` {expected:?} is missing")]
    Missing {
        /// The parameter.
        name: String,
        /// Its shape in the network.
        expected: Vec<usize>,
    },
    /// The shape of a value is not that of its parameter.
    #[error("the parameter `{name}` has the shape {found:?}, but this network needs {expected:?}")]
    Shape {
        /// The parameter.
        name: String,
        /// The shape that was given.
        found: Vec<usize>,
        /// Its shape in the network.
        expected: Vec<usize>,
    },
}

/// The distribution that a parameter is drawn from.
pub(crate) enum Initial {
    /// One value.
    Constant(f32),
    /// Normal with mean 0 and this deviation.
    Normal(f32),
    /// PyTorch's default for convolutions and linear layers: uniform in ±1/sqrt(fan_in).
    Uniform,
}

/// A network whose parameters have names.
pub(crate) trait Named: Module {
    /// The name of the parameter at a path of fields.
    fn name_of(path: &[String]) -> String;

    /// The distribution of each parameter, by its name.
    fn initials(&self) -> Box<dyn Fn(&str) -> Initial>;

    fn visit_named(&self, each: impl FnMut(&str, &dyn Fn() -> TensorData)) {
        struct Visitor<F> {
            path: Vec<String>,
            name_of: fn(&[String]) -> String,
            each: F,
        }
        impl<F: FnMut(&str, &dyn Fn() -> TensorData)> ModuleVisitor for Visitor<F> {
            fn enter_module(&mut self, name: &str, _container: &str) {
                self.path.push(name.to_owned());
            }
            fn exit_module(&mut self, _name: &str, _container: &str) {
                self.path.pop();
            }
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                (self.each)(&(self.name_of)(&self.path), &|| param.val().into_data());
            }
        }
        self.visit(&mut Visitor { path: Vec::new(), name_of: Self::name_of, each });
    }

    /// Maps every parameter to new data of the same shape, up to the first error.
    fn replace<E>(self, each: impl FnMut(&str, &[usize]) -> Result<TensorData, E>) -> Result<Self, E> {
        struct Mapper<F, E> {
            path: Vec<String>,
            name_of: fn(&[String]) -> String,
            each: F,
            error: Option<E>,
        }
        impl<E, F: FnMut(&str, &[usize]) -> Result<TensorData, E>> ModuleMapper for Mapper<F, E> {
            fn enter_module(&mut self, name: &str, _container: &str) {
                self.path.push(name.to_owned());
            }
            fn exit_module(&mut self, _name: &str, _container: &str) {
                self.path.pop();
            }
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                if self.error.is_some() {
                    return param;
                }
                match (self.each)(&(self.name_of)(&self.path), &param.lazy_shape()) {
                    Ok(data) => {
                        // not `Param::map`, which draws the value that is replaced
                        let tensor = Tensor::from_data(data, &param.lazy_device());
                        let id = param.id;
                        param.transform_for_load(tensor, id)
                    }
                    Err(error) => {
                        self.error = Some(error);
                        param
                    }
                }
            }
        }
        let mut mapper = Mapper { path: Vec::new(), name_of: Self::name_of, each, error: None };
        let network = self.map(&mut mapper);
        match mapper.error {
            Some(error) => Err(error),
            None => Ok(network),
        }
    }

    fn load(self, mut find: impl FnMut(&str) -> Option<TensorData>) -> Result<Self, StateError> {
        self.replace(|name, expected| {
            let data =
                find(name).ok_or_else(|| StateError::Missing { name: name.to_owned(), expected: expected.to_vec() })?;
            if data.shape()[..] != *expected {
                return Err(StateError::Shape {
                    name: name.to_owned(),
                    found: data.shape().to_vec(),
                    expected: expected.to_vec(),
                });
            }
            Ok(data)
        })
    }

    fn draw(self, mut normal: impl FnMut(u64, &mut [f32]), mut uniform: impl FnMut(u64, &mut [f32])) -> Self {
        let initial = self.initials();
        let mut index = 0;
        let mut fan_in = 1.0f64;
        let result = self.replace(|name, shape| {
            let mut values = vec![0f32; shape.iter().product()];
            match initial(name) {
                Initial::Constant(value) => values.fill(value),
                Initial::Normal(deviation) => {
                    normal(index, &mut values);
                    if deviation != 1.0 {
                        values.iter_mut().for_each(|value| *value *= deviation);
                    }
                }
                Initial::Uniform => {
                    // a bias follows its weight and has the same bound
                    if shape.len() > 1 {
                        fan_in = shape[1..].iter().product::<usize>() as f64;
                    }
                    let bound = 1.0 / fan_in.sqrt();
                    uniform(index, &mut values);
                    values.iter_mut().for_each(|value| *value = ((2.0 * f64::from(*value) - 1.0) * bound) as f32);
                }
            }
            index += 1;
            Ok::<_, core::convert::Infallible>(TensorData::new(values, shape.to_vec()))
        });
        match result {
            Ok(network) => network,
            Err(never) => match never {},
        }
    }
}

impl Named for Unet {
    fn name_of(path: &[String]) -> String {
        state_dict_name(path)
    }

    fn initials(&self) -> Box<dyn Fn(&str) -> Initial> {
        Box::new(|name| {
            if name.ends_with(".g") {
                Initial::Constant(1.0)
            } else if name.ends_with("mem_kv") || name.starts_with("label_embedding") || name.ends_with("weights") {
                Initial::Normal(1.0)
            } else {
                Initial::Uniform
            }
        })
    }
}

impl Named for Unet2d {
    fn name_of(path: &[String]) -> String {
        // names of enum variants are capitalized; the output of an attention is a list of one layer
        let is_field = |part: &&String| !part.starts_with(char::is_uppercase);
        let parts = path.iter().filter(is_field).map(|part| if part == "to_out" { "to_out.0" } else { part });
        parts.collect::<Vec<_>>().join(".")
    }

    fn initials(&self) -> Box<dyn Fn(&str) -> Initial> {
        let is_fourier = self.config().time_embedding_type == TimeEmbeddingKind::Fourier;
        Box::new(move |name| match name {
            "class_embedding.weight" => Initial::Normal(1.0),
            "time_proj.weight" => Initial::Normal(if is_fourier { FOURIER_DEVIATION as f32 } else { 1.0 }),
            _ if name.contains("norm") => Initial::Constant(if name.ends_with("weight") { 1.0 } else { 0.0 }),
            _ => Initial::Uniform,
        })
    }
}

/// The methods of both networks.
macro_rules! impl_state {
    ($network:ty) => {
        impl $network {
            /// The names of all parameters, in the order of the network.
            pub fn parameter_names(&self) -> Vec<String> {
                let mut names = Vec::new();
                self.visit_named(|name, _| names.push(name.to_owned()));
                names
            }

            /// All parameters with their names, in the order of the network and in the network's number format.
            pub fn state_dict(&self) -> Vec<(String, TensorData)> {
                let mut state = Vec::new();
                self.visit_named(|name, data| state.push((name.to_owned(), data())));
                state
            }

            /// Replaces every parameter by the value that `find` returns for its name.
            ///
            /// # Errors
            /// [`StateError`] for the first parameter that is missing or has another shape.
            pub fn load_state_dict(self, find: impl FnMut(&str) -> Option<TensorData>) -> Result<Self, StateError> {
                self.load(find)
            }

            /// Draws all parameters from PyTorch's default distributions: uniform in ±1/sqrt(fan_in) for convolutions and
            /// linear layers, normal for memories, labels and frequencies; gains are 1 and the biases of norms 0.
            ///
            /// `normal(i, out)` and `uniform(i, out)` fill `out` with random numbers for parameter i, standard normal and
            /// uniform in (0, 1). The parameters depend on these alone, not on the backend.
            pub fn initialize(self, normal: impl FnMut(u64, &mut [f32]), uniform: impl FnMut(u64, &mut [f32])) -> Self {
                self.draw(normal, uniform)
            }
        }
    };
}

impl_state!(Unet);
impl_state!(Unet2d);

/// The name in lucidrains' state dict of the parameter at `path` in [`Unet`], whose fields say what lucidrains' lists
/// number.
pub fn state_dict_name(path: &[String]) -> String {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let name = match path.as_slice() {
        ["time_mlp", "fourier"] => vec!["time_mlp", "0", "weights"],
        ["time_mlp", "linear_1", rest] => vec!["time_mlp", "1", rest],
        ["time_mlp", "linear_2", rest] => vec!["time_mlp", "3", rest],
        [side @ ("downs" | "ups"), level, rest @ ..] => {
            let (numbered, rest): (&[&str], &[&str]) = match rest {
                ["resnet_1", rest @ ..] => (&["0"], rest),
                ["resnet_2", rest @ ..] => (&["1"], rest),
                ["attention", "Linear", "to_out", rest @ ..] => (&["2", "to_out", "0"], rest),
                ["attention", "Linear", "out_norm", rest @ ..] => (&["2", "to_out", "1"], rest),
                ["attention", _kind, rest @ ..] => (&["2"], rest),
                ["resample", "Same", rest @ ..] => (&["3"], rest),
                ["resample", _down_or_up, rest @ ..] => (&["3", "1"], rest),
                rest => (&[], rest),
            };
            [&[*side, *level], numbered, rest].concat()
        }
        _ => path,
    };
    // item 0 of lucidrains' `mlp` is its SiLU
    name.join(".").replace(".mlp.", ".mlp.1.")
}
