//! A graph that is being built: nodes in the order of evaluation, and the tensors that they use.

use std::collections::{BTreeMap, HashMap, HashSet};

use burn::tensor::TensorData;

use super::proto::{
    AttributeProto, DimensionProto, GraphProto, NodeProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto,
    ValueInfoProto, attribute_type, data_type,
};
use crate::InterchangeError;

/// A value of a graph, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value(pub String);

impl Value {
    pub(super) fn new(name: &str) -> Self {
        Self(name.to_owned())
    }
}

/// A size of an input or output.
#[derive(Clone, Copy)]
pub(super) enum Size {
    /// The number of images, known at run time.
    Batch,
    Fixed(usize),
}

/// The nodes and initializers of a graph, and the parameters of the network from which initializers are made.
pub(super) struct Graph {
    parameters: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    initializer_names: HashSet<String>,
    /// Number of values that were given a name.
    counts: HashMap<String, usize>,
}

impl Graph {
    /// An empty graph over these parameters.
    pub(super) fn new(state: Vec<(String, TensorData)>) -> Self {
        let parameter = |(name, data): (String, TensorData)| (name, (data.shape().to_vec(), data.iter().collect()));
        Self {
            parameters: state.into_iter().map(parameter).collect(),
            nodes: Vec::new(),
            initializers: Vec::new(),
            initializer_names: HashSet::new(),
            counts: HashMap::new(),
        }
    }

    /// Whether the network has a parameter of this name.
    pub(super) fn has_parameter(&self, name: &str) -> bool {
        self.parameters.contains_key(name)
    }

    /// The shape of a parameter.
    pub(super) fn parameter_shape(&self, name: &str) -> Result<Vec<usize>, InterchangeError> {
        Ok(self.find(name)?.0.clone())
    }

    fn find(&self, name: &str) -> Result<&(Vec<usize>, Vec<f32>), InterchangeError> {
        self.parameters.get(name).ok_or_else(|| InterchangeError::NoTwin {
            reason: format!("the network has no parameter `{name}`, which its configuration requires; ONNX needs it"),
        })
    }

    /// A parameter under its own name.
    pub(super) fn parameter(&mut self, name: &str) -> Result<Value, InterchangeError> {
        let shape = self.parameter_shape(name)?;
        self.parameter_in(name, "", &shape, |values| values)
    }

    /// A parameter in another shape or with other values, under its name and a suffix.
    pub(super) fn parameter_in(
        &mut self,
        name: &str,
        suffix: &str,
        shape: &[usize],
        change: impl FnOnce(Vec<f32>) -> Vec<f32>,
    ) -> Result<Value, InterchangeError> {
        let values = change(self.find(name)?.1.clone());
        Ok(self.floats(&format!("{name}{suffix}"), shape, &values))
    }

    /// The two halves of the values of a parameter, for a key and a value.
    pub(super) fn halves(&self, name: &str) -> Result<[Vec<f32>; 2], InterchangeError> {
        let (_, values) = self.find(name)?;
        let (first, second) = values.split_at(values.len() / 2);
        Ok([first.to_vec(), second.to_vec()])
    }

    /// A constant tensor.
    pub(super) fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Value {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(name, data_type::FLOAT, shape, bytes)
    }

    /// A constant number.
    pub(super) fn float(&mut self, value: f32) -> Value {
        self.floats(&format!("constant.{value:?}"), &[], &[value])
    }

    /// A constant vector of whole numbers: shapes, axes.
    pub(super) fn integers(&mut self, values: &[i64]) -> Value {
        let numbers: Vec<String> = values.iter().map(i64::to_string).collect();
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(&format!("integers.{}", numbers.join("_")), data_type::INT64, &[values.len()], bytes)
    }

    /// A constant whole number without dimensions.
    pub(super) fn integer(&mut self, value: i64) -> Value {
        self.initializer(&format!("integer.{value}"), data_type::INT64, &[], value.to_le_bytes().to_vec())
    }

    /// The constant true.
    pub(super) fn truth(&mut self) -> Value {
        self.initializer("constant.true", data_type::BOOL, &[], vec![1])
    }

    /// Adds an initializer unless there is one of this name, which then is the same.
    fn initializer(&mut self, name: &str, data_type: i32, shape: &[usize], raw_data: Vec<u8>) -> Value {
        if self.initializer_names.insert(name.to_owned()) {
            self.initializers.push(TensorProto {
                dims: shape.iter().map(|size| *size as i64).collect(),
                data_type: Some(data_type),
                name: Some(name.to_owned()),
                raw_data: Some(raw_data),
            });
        }
        Value::new(name)
    }

    /// Adds an operation with one output; `place` is the part of the network that it belongs to, for its name.
    pub(super) fn node(
        &mut self,
        place: &str,
        operation: &str,
        inputs: &[&Value],
        attributes: Vec<AttributeProto>,
    ) -> Value {
        let name = self.unused_name(&format!("{place}.{operation}"));
        self.push(name.clone(), operation, inputs, attributes, vec![name.clone()]);
        Value(name)
    }

    /// Adds an operation with several outputs.
    pub(super) fn node_with_outputs<const COUNT: usize>(
        &mut self,
        place: &str,
        operation: &str,
        inputs: &[&Value],
        attributes: Vec<AttributeProto>,
    ) -> [Value; COUNT] {
        let name = self.unused_name(&format!("{place}.{operation}"));
        let outputs: [Value; COUNT] = std::array::from_fn(|index| Value(format!("{name}.{index}")));
        self.push(name, operation, inputs, attributes, outputs.iter().map(|output| output.0.clone()).collect());
        outputs
    }

    /// Adds an operation whose outputs have these names.
    pub(super) fn node_named(
        &mut self,
        operation: &str,
        inputs: &[&Value],
        attributes: Vec<AttributeProto>,
        outputs: &[&str],
    ) {
        let outputs: Vec<String> = outputs.iter().map(|output| (*output).to_owned()).collect();
        self.push(outputs.join("_and_"), operation, inputs, attributes, outputs);
    }

    fn push(
        &mut self,
        name: String,
        operation: &str,
        inputs: &[&Value],
        attribute: Vec<AttributeProto>,
        output: Vec<String>,
    ) {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|input| input.0.clone()).collect(),
            output,
            name: Some(name),
            op_type: Some(operation.to_owned()),
            attribute,
        });
    }

    fn unused_name(&mut self, wanted: &str) -> String {
        let count = self.counts.entry(wanted.to_owned()).or_default();
        *count += 1;
        if *count == 1 { wanted.to_owned() } else { format!("{wanted}_{count}") }
    }

    /// The nodes so far as the body of a loop, which shares the initializers of this graph; the graph goes on without them.
    pub(super) fn take_body(&mut self, input: Vec<ValueInfoProto>, output: Vec<ValueInfoProto>) -> GraphProto {
        let node = self.take_nodes();
        GraphProto { node, name: Some("step".to_owned()), initializer: Vec::new(), input, output }
    }

    /// Sets the nodes so far aside.
    pub(super) fn take_nodes(&mut self) -> Vec<NodeProto> {
        std::mem::take(&mut self.nodes)
    }

    /// Goes on behind these nodes.
    pub(super) fn put_nodes(&mut self, nodes: Vec<NodeProto>) {
        self.nodes = nodes;
    }

    /// The whole graph.
    pub(super) fn finish(self, name: &str, input: Vec<ValueInfoProto>, output: Vec<ValueInfoProto>) -> GraphProto {
        GraphProto { node: self.nodes, name: Some(name.to_owned()), initializer: self.initializers, input, output }
    }
}

/// An attribute that is a whole number.
pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, attribute_type::INT) }
}

/// An attribute that is a number.
pub(super) fn real(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, attribute_type::FLOAT) }
}

/// An attribute that is a list of whole numbers.
pub(super) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, attribute_type::INTS) }
}

/// An attribute that is a word.
pub(super) fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.as_bytes().to_vec()), ..attribute(name, attribute_type::STRING) }
}

/// An attribute that is a graph.
pub(super) fn body(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(graph), ..attribute(name, attribute_type::GRAPH) }
}

fn attribute(name: &str, r#type: i32) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(r#type), ..AttributeProto::default() }
}

/// The name and type of an input or output in f32.
pub(super) fn f32_info(name: &str, shape: &[Size]) -> ValueInfoProto {
    info(name, data_type::FLOAT, shape)
}

/// The name and type of an input or output in i64.
pub(super) fn i64_info(name: &str, shape: &[Size]) -> ValueInfoProto {
    info(name, data_type::INT64, shape)
}

/// The name and type of a single truth value.
pub(super) fn bool_info(name: &str) -> ValueInfoProto {
    info(name, data_type::BOOL, &[])
}

fn info(name: &str, elem_type: i32, shape: &[Size]) -> ValueInfoProto {
    let dimension = |size: &Size| match size {
        Size::Batch => DimensionProto { dim_value: None, dim_param: Some("N".to_owned()) },
        Size::Fixed(size) => DimensionProto { dim_value: Some(*size as i64), dim_param: None },
    };
    let shape = TensorShapeProto { dim: shape.iter().map(dimension).collect() };
    let tensor_type = TensorTypeProto { elem_type: Some(elem_type), shape: Some(shape) };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}
