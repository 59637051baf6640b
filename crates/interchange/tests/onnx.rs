//! The structure of ONNX files; their values are checked by `peers/onnx_files.py` in onnxruntime.

#[allow(dead_code, reason = "the writer needs more of it")]
#[path = "../src/onnx/proto.rs"]
mod proto;

use std::collections::HashSet;

use burn::tensor::Device;
use checkpoint::{GuidanceKind, Header, ImageFormat, Model};
use interchange::{
    Account, InterchangeError,
    onnx::{Options, export},
};
use prost::Message;
use proto::{GraphProto, ModelProto, ValueInfoProto, data_type};
use schedule::Objective;
use unet::{
    ActivationKind, AttentionKind, ClassEmbedding, DownBlock, NetworkConfig, TimeEmbeddingKind, Unet2dConfig,
    UnetConfig, UpBlock,
};

fn small() -> UnetConfig {
    UnetConfig { dim: 8, dim_mults: vec![1, 2], channels: 1, ..UnetConfig::default() }
}

fn model(config: impl Into<NetworkConfig>) -> Model {
    let config = config.into();
    let image = ImageFormat::new(config.channels(), 8, 8);
    let unet = config.init(&Device::flex()).expect("a possible configuration");
    Model { unet, header: Header::new(config, image) }
}

/// Networks with every option.
fn configurations() -> Vec<NetworkConfig> {
    use AttentionKind::{Full, Linear, Off};
    let unets = vec![
        small(),
        UnetConfig { dim_mults: vec![1], init_dim: Some(12), out_dim: Some(5), channels: 3, ..small() },
        UnetConfig { learned_sinusoidal_cond: true, attention: vec![Full, Off], ..small() },
        UnetConfig { random_fourier_features: true, attention: vec![Off, Linear], attention_heads: 2, ..small() },
        everything(),
    ];
    let small = Unet2dConfig {
        block_out_channels: vec![4, 8],
        down_block_types: vec![DownBlock::Plain, DownBlock::Attention],
        up_block_types: vec![UpBlock::Attention, UpBlock::Plain],
        layers_per_block: 1,
        norm_num_groups: 2,
        ..Unet2dConfig::default()
    };
    let resnets = Unet2dConfig {
        down_block_types: vec![DownBlock::Resnet, DownBlock::Plain],
        up_block_types: vec![UpBlock::Resnet, UpBlock::Plain],
        act_fn: ActivationKind::Mish,
        learned_variance: true,
        classes: 3,
        class_embed_type: ClassEmbedding::Timestep,
        ..small.clone()
    };
    let learned = Unet2dConfig {
        time_embedding_type: TimeEmbeddingKind::Learned,
        num_train_timesteps: Some(1000),
        ..small.clone()
    };
    let unets2d = [small, resnets, learned].into_iter().map(NetworkConfig::from);
    unets.into_iter().map(NetworkConfig::from).chain(unets2d).collect()
}

/// lucidrains' network with all inputs.
fn everything() -> UnetConfig {
    UnetConfig { classes: 10, self_condition: true, patch_size: 2, learned_variance: true, ..small() }
}

fn encode(model: &Model, options: Options) -> Result<(Vec<u8>, Account), InterchangeError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.onnx");
    let account = export(model, options, &path)?;
    Ok((std::fs::read(path).expect("the file that was written"), account))
}

fn decode(bytes: &[u8]) -> ModelProto {
    ModelProto::decode(bytes).expect("protobuf")
}

fn graph(model: &Model, chain: Option<usize>) -> GraphProto {
    let (bytes, _) = encode(model, Options { chain }).expect("a possible model");
    decode(&bytes).graph.expect("a graph")
}

/// Checks that each input of a node is known before it, that no value has two sources, and that the outputs are known; returns
/// all names that nodes and outputs use.
fn check_order(graph: &GraphProto, outside: &HashSet<String>) -> HashSet<String> {
    let mut known = outside.clone();
    let mut used = HashSet::new();
    let names = |values: &[ValueInfoProto]| values.iter().map(|value| value.name().to_owned()).collect::<Vec<_>>();
    let initializers = graph.initializer.iter().map(|tensor| tensor.name().to_owned());
    for name in names(&graph.input).into_iter().chain(initializers) {
        assert!(known.insert(name.clone()), "{name} has two sources");
    }
    for node in &graph.node {
        for input in node.input.iter().filter(|input| !input.is_empty()) {
            assert!(known.contains(input), "{} reads {input} before it is there", node.name());
            used.insert(input.clone());
        }
        for body in node.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
            used.extend(check_order(body, &known));
        }
        for output in &node.output {
            assert!(known.insert(output.clone()), "{output} has two sources");
        }
    }
    for output in names(&graph.output) {
        assert!(known.contains(&output), "the output {output} is not computed");
        used.insert(output);
    }
    used
}

#[test]
fn every_value_has_one_source_before_its_uses_and_every_initializer_is_used() {
    for config in configurations() {
        for chain in [None, Some(3)] {
            let mut model = model(config.clone());
            model.header.sampling.guidance = 2.0;
            let graph = graph(&model, chain);
            let used = check_order(&graph, &HashSet::new());
            for tensor in &graph.initializer {
                assert!(used.contains(tensor.name()), "{} is not used: {config:?}", tensor.name());
                let size = if tensor.data_type() == data_type::FLOAT { 4 } else { 8 };
                let elements: i64 = tensor.dims.iter().product();
                if tensor.data_type() != data_type::BOOL {
                    assert_eq!(tensor.raw_data().len() as i64, size * elements, "{}", tensor.name());
                }
            }
            for parameter in model.unet.parameter_names() {
                let is_there = graph.initializer.iter().any(|tensor| tensor.name().starts_with(&parameter));
                assert!(is_there, "{parameter} is not in the file: {config:?}");
            }
        }
    }
}

/// Name, element type and sizes (0 for the batch) of inputs or outputs.
fn described(values: &[ValueInfoProto]) -> Vec<(String, i32, Vec<i64>)> {
    let describe = |value: &ValueInfoProto| {
        let tensor = value.r#type.clone().expect("a type").tensor_type.expect("a tensor");
        let dimensions = tensor.shape.clone().expect("a shape").dim;
        let sizes = dimensions.iter().map(|dimension| {
            assert_eq!(dimension.dim_value.is_none(), dimension.dim_param.as_deref() == Some("N"));
            dimension.dim_value()
        });
        (value.name().to_owned(), tensor.elem_type(), sizes.collect())
    };
    values.iter().map(describe).collect()
}

#[test]
fn inputs_and_outputs_are_those_of_the_network() {
    let of = |name: &str, kind, sizes: &[i64]| (name.to_owned(), kind, sizes.to_vec());
    let (float, long) = (data_type::FLOAT, data_type::INT64);
    let plain = graph(&model(small()), None);
    assert_eq!(described(&plain.input), [of("x_t", float, &[0, 1, 8, 8]), of("t", float, &[0])]);
    assert_eq!(described(&plain.output), [of("prediction", float, &[0, 1, 8, 8])]);

    let config = UnetConfig { classes: 10, self_condition: true, learned_variance: true, ..small() };
    let mut full = model(config);
    let network = graph(&full, None);
    let expected = [
        of("x_t", float, &[0, 1, 8, 8]),
        of("t", float, &[0]),
        of("labels", long, &[0]),
        of("self_condition", float, &[0, 1, 8, 8]),
    ];
    assert_eq!(described(&network.input), expected);
    assert_eq!(described(&network.output), [of("prediction", float, &[0, 2, 8, 8])]);

    // images of 6x5 were padded to 8x8
    (full.header.image.content_height, full.header.image.content_width) = (6, 5);
    let chain = graph(&full, Some(4));
    assert_eq!(described(&chain.input), [of("noise", float, &[0, 1, 8, 8]), of("labels", long, &[0])]);
    assert_eq!(described(&chain.output), [of("images", float, &[0, 1, 6, 5])]);
    assert!(chain.node.iter().any(|node| node.op_type() == "Loop"));
}

#[test]
fn the_file_says_its_versions_and_what_sampling_needs() {
    let mut model = model(UnetConfig { classes: 2, ..small() });
    model.header.classes = vec!["cat".to_owned(), "dog".to_owned()];
    model.header.schedule.timesteps = 7;
    let (bytes, account) = encode(&model, Options::default()).expect("a possible model");
    let file = decode(&bytes);
    assert_eq!((file.ir_version(), file.opset_import.len(), file.opset_import[0].version()), (8, 1, 18));
    let value = |key: &str| {
        let entry = file.metadata_props.iter().find(|entry| entry.key() == key);
        entry.unwrap_or_else(|| panic!("no {key}")).value().to_owned()
    };
    assert_eq!(
        (value("graph"), value("objective"), value("schedule")),
        ("network".into(), "v".into(), "cosine".into())
    );
    let alpha_bars: Vec<f64> = serde_json::from_str(&value("alpha_bars")).expect("JSON");
    assert_eq!(alpha_bars, model.header.schedule.build().expect("a schedule").alpha_bars());
    assert_eq!(value("classes"), r#"["cat","dog"]"#);
    let image: ImageFormat = serde_json::from_str(&value("image")).expect("JSON");
    assert_eq!(image, model.header.image);
    let sampling: serde_json::Value = serde_json::from_str(&value("sampling")).expect("JSON");
    assert_eq!((&sampling["steps"], &sampling["spacing"]), (&50.into(), &"lucidrains".into()));
    assert!(account.to_string().contains("objective v, schedule cosine"), "{account}");
}

#[test]
fn the_bytes_are_a_function_of_the_model() {
    let model = model(everything());
    for chain in [None, Some(5)] {
        let [first, second] = [0, 1].map(|_| encode(&model, Options { chain }).expect("a possible model").0);
        assert!(first == second);
    }
    let mut other = model.clone();
    other.header.objective = Objective::Epsilon;
    let bytes = |model: &Model| encode(model, Options { chain: Some(5) }).expect("a possible model").0;
    assert!(bytes(&model) != bytes(&other));
}

#[test]
fn a_chain_that_cannot_be_expressed_is_refused_with_the_key() {
    let refused = |config: UnetConfig, steps: usize, change: fn(&mut Header)| {
        let mut model = model(config);
        change(&mut model.header);
        encode(&model, Options { chain: Some(steps) }).expect_err("not possible").to_string()
    };
    let classes = || UnetConfig { classes: 2, ..small() };
    for (message, key) in [
        (refused(small(), 0, |_| ()), "0"),
        (refused(small(), 1001, |_| ()), "1001"),
        (refused(UnetConfig { out_dim: Some(2), channels: 3, ..small() }, 5, |_| ()), "returns 2 channels"),
        (
            refused(classes(), 5, |header| {
                header.sampling.guidance = 2.0;
                header.sampling.guidance_kind = GuidanceKind::CfgPlusPlus;
            }),
            "sampling.guidance_kind",
        ),
        (
            refused(classes(), 5, |header| {
                header.sampling.guidance = 2.0;
                header.sampling.guidance_rescale = 0.7;
            }),
            "sampling.guidance_rescale is 0.7",
        ),
        (
            refused(small(), 5, |header| {
                header.objective = Objective::Epsilon;
                header.schedule.zero_terminal_snr = true;
            }),
            "alpha_bar is 0",
        ),
    ] {
        assert!(message.contains(key), "{message}");
    }
}

#[test]
fn a_folder_that_is_missing_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("missing").join("model.onnx");
    let message = export(&model(small()), Options::default(), &path).unwrap_err().to_string();
    assert!(message.contains("missing") && message.contains("create the folder"), "{message}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
}
