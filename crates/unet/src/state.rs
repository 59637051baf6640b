//! The parameters by their names in lucidrains' state dict: reading, replacing, initializing.

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Tensor, TensorData},
};

use crate::model::Unet;

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

impl Unet {
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

    fn visit_named(&self, each: impl FnMut(&str, &dyn Fn() -> TensorData)) {
        struct Visitor<F> {
            path: Vec<String>,
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
                (self.each)(&state_dict_name(&self.path), &|| param.val().into_data());
            }
        }
        self.visit(&mut Visitor { path: Vec::new(), each });
    }

    /// Replaces every parameter by the value that `find` returns for its name.
    ///
    /// # Errors
    /// [`StateError`] for the first parameter that is missing or has another shape.
    pub fn load_state_dict(self, mut find: impl FnMut(&str) -> Option<TensorData>) -> Result<Self, StateError> {
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

    /// Draws all parameters from PyTorch's default distributions: uniform in ±1/sqrt(fan_in) for convolutions and linear
    /// layers, standard normal for memories, labels and Fourier frequencies; gains are 1.
    ///
    /// `normal(i, out)` and `uniform(i, out)` fill `out` with random numbers for parameter i, standard normal and uniform
    /// in (0, 1). The parameters depend on these alone, not on the backend.
    pub fn initialize(self, mut normal: impl FnMut(u64, &mut [f32]), mut uniform: impl FnMut(u64, &mut [f32])) -> Self {
        let mut index = 0;
        let mut fan_in = 1.0f64;
        let result = self.replace(|name, shape| {
            let mut values = vec![0f32; shape.iter().product()];
            if name.ends_with(".g") {
                values.fill(1.0);
            } else if name.ends_with("mem_kv") || name.starts_with("label_embedding") || name.ends_with("weights") {
                normal(index, &mut values);
            } else {
                // a bias follows its weight and has the same bound
                if shape.len() > 1 {
                    fan_in = shape[1..].iter().product::<usize>() as f64;
                }
                let bound = 1.0 / fan_in.sqrt();
                uniform(index, &mut values);
                values.iter_mut().for_each(|value| *value = ((2.0 * f64::from(*value) - 1.0) * bound) as f32);
            }
            index += 1;
            Ok::<_, core::convert::Infallible>(TensorData::new(values, shape.to_vec()))
        });
        match result {
            Ok(unet) => unet,
            Err(never) => match never {},
        }
    }

    /// Maps every parameter to new data of the same shape, up to the first error.
    fn replace<E>(self, each: impl FnMut(&str, &[usize]) -> Result<TensorData, E>) -> Result<Self, E> {
        struct Mapper<F, E> {
            path: Vec<String>,
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
                match (self.each)(&state_dict_name(&self.path), &param.lazy_shape()) {
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
        let mut mapper = Mapper { path: Vec::new(), each, error: None };
        let unet = self.map(&mut mapper);
        match mapper.error {
            Some(error) => Err(error),
            None => Ok(unet),
        }
    }
}

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
