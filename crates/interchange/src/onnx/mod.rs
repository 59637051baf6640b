//! Networks, of either architecture, as ONNX: opset 18, which onnxruntime, onnxruntime-web and tract read.
//!
//! [`export`] writes the network with a dynamic batch `N`:
//!
//! | input | type | of networks |
//! | --- | --- | --- |
//! | `x_t` | f32 `[N, channels, height, width]` | all; the input of the network, for `edm` and `flow` x_t times a factor |
//! | `t` | f32 `[N]` | all; the time input of the network, for the other objectives the timestep |
//! | `labels` | i64 `[N]` | with classes; the number of classes is the null class |
//! | `self_condition` | f32, like `x_t` | with self-conditioning; zeros for none |
//!
//! The output `prediction`, f32 `[N, out_dim, height, width]`, is the raw output of the network. With
//! [`Options::chain`] the file is the whole DDIM chain as a `Loop`: `noise` (and `labels`) in, `images` out, f32
//! `[N, channels, content_height, content_width]` in about [-1, 1]. The metadata of either has objective, alpha_bars, classes,
//! image format and sampling options, all but the name of the schedule as JSON.
//!
//! ```
//! use burn::tensor::Device;
//! use checkpoint::{Header, ImageFormat, Model};
//! use interchange::onnx;
//! use unet::UnetConfig;
//!
//! let config = UnetConfig { dim: 8, dim_mults: vec![1, 2], channels: 1, ..UnetConfig::default() };
//! let header = Header::new(config.clone(), ImageFormat::new(1, 8, 8));
//! let model = Model { unet: config.init(&Device::flex())?.into(), header };
//! let folder = tempfile::tempdir()?;
//! onnx::export(&model, onnx::Options::default(), &folder.path().join("network.onnx"))?;
//! onnx::export(&model, onnx::Options { chain: Some(20) }, &folder.path().join("chain.onnx"))?;
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod chain;
mod graph;
mod layers;
mod network;
mod proto;
mod unet2d;

use std::path::Path;

use checkpoint::{Model, SamplerKind};
use prost::Message;
use serde_json::json;

use self::{
    chain::Chain,
    graph::{Graph, Size, Value, f32_info, i64_info},
    layers::Image,
    network::{Inputs, network},
    proto::{GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto},
};
use crate::{Account, InterchangeError};

/// Version of the operators.
const OPSET: i64 = 18;
/// Version of the format of files, that of ONNX 1.13, which brought the opset.
const IR_VERSION: i64 = 8;
/// Readers of protobuf refuse larger files.
const LARGEST: usize = i32::MAX as usize;

/// The content of an ONNX file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Number of steps of the DDIM chain, 1 to the timesteps of the schedule; None for the network alone.
    pub chain: Option<usize>,
}

/// Writes a model as an ONNX file, whose bytes depend on the model and the options alone.
///
/// # Errors
/// [`InterchangeError::NoTwin`] for what cannot be expressed, or a file of 2 GiB and more; [`InterchangeError::Write`].
pub fn export(model: &Model, options: Options, path: &Path) -> Result<Account, InterchangeError> {
    let (bytes, account) = encode(model, options)?;
    files::write_atomically(path, &bytes)?;
    Ok(account)
}

/// The bytes of the file, and the account of what is in it.
pub(crate) fn encode(model: &Model, options: Options) -> Result<(Vec<u8>, Account), InterchangeError> {
    let header = &model.header;
    let mut graph = Graph::new(model.unet.state_dict());
    let graph = match options.chain {
        None => network_graph(&mut graph, model).map(|ends| graph.finish("network", ends.0, ends.1))?,
        Some(steps) => {
            Chain::new(header, steps)?.add_to(&mut graph)?;
            let (inputs, outputs) = chain_ends(model);
            graph.finish("chain", inputs, outputs)
        }
    };
    let file = file(graph, model, options)?;
    check_size(file.encoded_len())?;
    Ok((file.encode_to_vec(), account(model, options)))
}

/// Inputs and outputs of a graph.
type Ends = (Vec<proto::ValueInfoProto>, Vec<proto::ValueInfoProto>);

fn network_graph(graph: &mut Graph, model: &Model) -> Result<Ends, InterchangeError> {
    let (config, image) = (&model.header.unet, &model.header.image);
    let (channels, height, width) = (image.channels, image.height, image.width);
    let shape = |channels| [Size::Batch, Size::Fixed(channels), Size::Fixed(height), Size::Fixed(width)];
    let mut inputs = vec![f32_info("x_t", &shape(channels)), f32_info("t", &[Size::Batch])];
    if config.classes() > 0 {
        inputs.push(i64_info("labels", &[Size::Batch]));
    }
    if config.self_condition() {
        inputs.push(f32_info("self_condition", &shape(channels)));
    }
    let output = network(
        graph,
        config,
        &Inputs {
            x_t: Image { value: Value::new("x_t"), channels, height, width },
            t: Value::new("t"),
            labels: (config.classes() > 0).then(|| Value::new("labels")),
            self_condition: config.self_condition().then(|| Value::new("self_condition")),
        },
    )?;
    graph.node_named("Identity", &[&output.value], vec![], &["prediction"]);
    Ok((inputs, vec![f32_info("prediction", &shape(output.channels))]))
}

fn chain_ends(model: &Model) -> Ends {
    let image = &model.header.image;
    let shape = |height, width| [Size::Batch, Size::Fixed(image.channels), Size::Fixed(height), Size::Fixed(width)];
    let mut inputs = vec![f32_info("noise", &shape(image.height, image.width))];
    if model.header.unet.classes() > 0 {
        inputs.push(i64_info("labels", &[Size::Batch]));
    }
    (inputs, vec![f32_info("images", &shape(image.content_height, image.content_width))])
}

fn file(graph: GraphProto, model: &Model, options: Options) -> Result<ModelProto, InterchangeError> {
    let entry = |(key, value): (&str, String)| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
    Ok(ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("diffuse".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
        metadata_props: metadata(model, options)?.into_iter().map(entry).collect(),
    })
}

/// The metadata: everything that sampling needs besides the network, as JSON except for the names.
fn metadata(model: &Model, options: Options) -> Result<Vec<(&'static str, String)>, InterchangeError> {
    let header = &model.header;
    let built = header.schedule.build().map_err(|error| InterchangeError::NoTwin { reason: error.to_string() })?;
    let sampling = &header.sampling;
    let steps = options.chain.unwrap_or(sampling.steps);
    let classes: Vec<String> = if header.classes.is_empty() {
        (0..header.unet.classes()).map(|class| class.to_string()).collect()
    } else {
        header.classes.clone()
    };
    let graph = if options.chain.is_some() { "chain" } else { "network" };
    Ok(vec![
        ("diffuse_version", "1".to_owned()),
        ("graph", graph.to_owned()),
        ("objective", header.objective.to_string()),
        ("schedule", header.schedule.family.to_string()),
        ("alpha_bars", json!(built.alpha_bars()).to_string()),
        ("classes", json!(classes).to_string()),
        ("image", json!(header.image).to_string()),
        (
            "sampling",
            json!({
                "clip": sampling.clip,
                "guidance": sampling.guidance,
                "spacing": sampling.spacing,
                "steps": steps,
            })
            .to_string(),
        ),
    ])
}

fn check_size(bytes: usize) -> Result<(), InterchangeError> {
    if bytes <= LARGEST {
        return Ok(());
    }
    Err(InterchangeError::NoTwin {
        reason: format!(
            "the file would have {bytes} bytes, and ONNX files end at {LARGEST}, the limit of protobuf: the network is too large \
             for one; use the safetensors file, or train a network with fewer channels"
        ),
    })
}

fn account(model: &Model, options: Options) -> Account {
    let header = &model.header;
    let mut account = Account::default();
    let parameters = header.unet.parameters();
    account.used.push(format!("{parameters} weights in f32, batch N, opset {OPSET}"));
    let (objective, schedule) = (header.objective, &header.schedule.family);
    account.used.push(format!("objective {objective}, schedule {schedule}, classes and image format, as metadata"));
    if header.unet.dropout() > 0.0 {
        account.not_used.push("dropout, which acts in training only".to_owned());
    }
    let Some(steps) = options.chain else {
        account
            .not_used
            .push("the sampler: the file has one evaluation of the network; --chain N writes the chain".to_owned());
        return account;
    };
    let sampling = &header.sampling;
    let guidance = if header.unet.classes() > 0 && sampling.guidance != 1.0 {
        format!(", guidance {}", sampling.guidance)
    } else {
        String::new()
    };
    account.used.push(format!("{steps} steps of ddim, spacing {}, eta 0{guidance}", sampling.spacing));
    if sampling.sampler != SamplerKind::Ddim || sampling.eta != 0.0 {
        let (sampler, eta) = (sampling.sampler, sampling.eta);
        account.not_used.push(format!("the sampler {sampler} with eta {eta}: a chain in ONNX is ddim with eta 0"));
    }
    account
}

#[cfg(test)]
mod tests {
    use super::check_size;

    #[test]
    fn a_file_beyond_the_limit_of_protobuf_is_refused() {
        assert!(check_size(i32::MAX as usize).is_ok());
        let message = check_size(1 << 31).unwrap_err().to_string();
        assert!(message.contains("2147483648 bytes") && message.contains("safetensors"), "{message}");
    }
}
