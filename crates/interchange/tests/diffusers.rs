//! Folders of diffusers: the networks of `unet/tests/golden/unet2d`, whose files have diffusers' own configurations.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Int, Tensor, TensorData};
use checkpoint::Model;
use interchange::{
    Account, InterchangeError,
    diffusers::{ImportOptions, export, import, is_folder},
};
use safetensors::{Dtype, SafeTensors, View, tensor::TensorView};
use schedule::Objective;
use tempfile::TempDir;
use unet::{Condition, UnetConfig};

const GOLDEN: [&str; 7] = ["attention", "ddpm", "resnets", "fourier", "learned", "scale_shift", "one_level"];

struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../unet/tests/golden/unet2d");
        Self { bytes: fs::read(path.join(format!("{name}.safetensors"))).expect("a golden file") }
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).expect("safetensors")
    }

    /// The configuration as diffusers writes it.
    fn config(&self) -> String {
        let (_, metadata) = SafeTensors::read_metadata(&self.bytes).expect("metadata");
        metadata.metadata().as_ref().expect("metadata")["config"].clone()
    }

    fn get(&self, name: &str) -> Option<TensorData> {
        let file = self.file();
        let view = file.tensor(name).ok()?;
        Some(match view.dtype() {
            Dtype::F32 => TensorData::new(floats(&view), view.shape().to_vec()),
            Dtype::I64 => {
                let values = view.data().as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes));
                TensorData::new(values.collect::<Vec<_>>(), view.shape().to_vec())
            }
            other => panic!("{other:?}"),
        })
    }

    fn weights(&self) -> Vec<(String, Array)> {
        let file = self.file();
        let named = file.iter().filter_map(|(name, view)| Some((name.strip_prefix("weights.")?.to_owned(), view)));
        let array =
            |view: TensorView| Array { dtype: Dtype::F32, shape: view.shape().to_vec(), bytes: view.data().to_vec() };
        let mut weights: Vec<_> = named.map(|(name, view)| (name, array(view))).collect();
        // in the same order each time
        weights.sort_by(|(one, _), (other, _)| one.cmp(other));
        weights
    }
}

fn floats(view: &TensorView) -> Vec<f32> {
    view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[derive(Clone)]
struct Array {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Array {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

const SCHEDULER: &str = r#"{"_class_name": "DDPMScheduler", "_diffusers_version": "0.39.0"}"#;
const INDEX: &str = r#"{"_class_name": "DDPMPipeline", "_diffusers_version": "0.39.0",
    "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}"#;
const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";

/// A pipeline in a temporary folder.
struct Pipeline {
    folder: TempDir,
}

impl Pipeline {
    fn new(golden: &Golden) -> Self {
        let pipeline = Self { folder: tempfile::tempdir().expect("a folder") };
        pipeline.write("model_index.json", INDEX.as_bytes());
        pipeline.write("unet/config.json", golden.config().as_bytes());
        pipeline.write("scheduler/scheduler_config.json", SCHEDULER.as_bytes());
        pipeline.write_weights(WEIGHTS, golden.weights());
        pipeline
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("written");
    }

    fn write_weights(&self, name: &str, weights: Vec<(String, Array)>) {
        self.write(name, &safetensors::serialize(weights, None).expect("safetensors"));
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).expect("removed");
    }

    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).expect("a text");
        assert!(text.contains(from), "{from}: {text}");
        self.write(name, text.replace(from, to).as_bytes());
    }

    fn import(&self) -> Result<(Model, Account), InterchangeError> {
        // the golden networks do not say a size
        let options = ImportOptions { image_size: Some((8, 8)) };
        import(self.folder.path(), &options, &Device::flex())
    }

    fn error(&self) -> String {
        let error = self.import().expect_err("refused").to_string();
        assert!(error.contains(&self.folder.path().display().to_string()), "{error} does not name the folder");
        error
    }
}

/// Largest difference of the output from diffusers', over its largest value.
fn error_of(model: &Model, golden: &Golden) -> f64 {
    let device = Device::flex();
    let labels = golden.get("labels").map(|data| Tensor::<1, Int>::from_data(data, &device));
    let x = Tensor::from_data(golden.get("x").expect("x"), &device);
    let t = Tensor::from_data(golden.get("t").expect("t").convert::<f32>(), &device);
    let ours = model.unet.forward(x, t, Condition { labels, ..Condition::default() }).into_data();
    let theirs = golden.get("y").expect("y");
    assert_eq!(ours.shape(), theirs.shape());
    let largest = theirs.iter::<f64>().fold(0f64, |largest, value| largest.max(value.abs()));
    ours.iter::<f64>().zip(theirs.iter::<f64>()).fold(0f64, |error, (a, b)| error.max((a - b).abs())) / largest
}

#[test]
fn folders_of_all_settings_give_the_output_of_diffusers() {
    for name in GOLDEN {
        let golden = Golden::open(name);
        let pipeline = Pipeline::new(&golden);
        assert!(is_folder(pipeline.folder.path()));
        let (model, account) = pipeline.import().unwrap_or_else(|error| panic!("{name}: {error}"));
        let error = error_of(&model, &golden);
        assert!(error < 1e-5, "{name}: {error:e}");
        // it is a model like any other
        let path = pipeline.path("model.safetensors");
        model.save(&path).expect("saved");
        let read = Model::load(&path, &Device::flex()).expect("read");
        assert_eq!((&read.header, read.header.format_version), (&model.header, 2), "{account}");
        assert_eq!(read.unet.state_dict(), model.unet.state_dict());
    }
}

#[test]
fn weights_of_early_versions_in_half_precision_and_in_shards_are_read() {
    let golden = Golden::open("attention");
    let pipeline = Pipeline::new(&golden);
    let early = |name: &str| {
        let names = [(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")];
        names.iter().fold(name.to_owned(), |name, (now, early)| name.replace(now, early))
    };
    let renamed: Vec<_> = golden.weights().into_iter().map(|(name, array)| (early(&name), array)).collect();
    pipeline.write_weights(WEIGHTS, renamed.clone());
    let (model, account) = pipeline.import().expect("early names");
    assert!(error_of(&model, &golden) < 1e-5);
    assert!(account.used.iter().any(|line| line.contains("early versions")), "{account}");

    // two shards, of which only one has early names
    let (one, two) = (renamed[..40].to_vec(), golden.weights()[40..].to_vec());
    pipeline.remove(WEIGHTS);
    let map = |shard: &[(String, Array)], file: &str| {
        shard.iter().map(|(name, _)| (name.clone(), file.to_owned())).collect::<BTreeMap<_, _>>()
    };
    let mut places = map(&one, "a.safetensors");
    places.extend(map(&two, "b.safetensors"));
    pipeline.write_weights("unet/a.safetensors", one);
    pipeline.write_weights("unet/b.safetensors", two);
    let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": places});
    let name = "unet/diffusion_pytorch_model.safetensors.index.json";
    pipeline.write(name, index.to_string().as_bytes());
    let (model, _) = pipeline.import().expect("shards");
    assert!(error_of(&model, &golden) < 1e-5);
    pipeline.remove("unet/b.safetensors");
    assert!(pipeline.error().contains("b.safetensors"));
    pipeline.edit(name, "b.safetensors", "../b.safetensors");
    assert!(pipeline.error().contains("../b.safetensors"));

    // bf16 is the upper half of f32
    let halved = golden.weights().into_iter().map(|(name, array)| {
        let bytes = array.bytes.as_chunks::<4>().0.iter().flat_map(|bytes| [bytes[2], bytes[3]]).collect();
        (name, Array { dtype: Dtype::BF16, bytes, ..array })
    });
    pipeline.remove(name);
    pipeline.write_weights("unet/diffusion_pytorch_model.bf16.safetensors", halved.collect());
    let (model, _) = pipeline.import().expect("bf16");
    let error = error_of(&model, &golden);
    assert!((1e-4..0.1).contains(&error), "{error}");
}

#[test]
fn a_network_alone_and_files_in_one_folder_are_read() {
    let golden = Golden::open("attention");
    let pipeline = Pipeline::new(&golden);
    let options = ImportOptions { image_size: Some((8, 8)) };
    let (model, account) = import(&pipeline.path("unet"), &options, &Device::flex()).expect("the network alone");
    assert!(error_of(&model, &golden) < 1e-5);
    assert!(account.assumed.iter().any(|line| line.contains("no scheduler_config.json")), "{account}");
    // as google/ddpm-cifar10-32 has them
    for (from, to) in [
        ("unet/config.json", "config.json"),
        (WEIGHTS, "diffusion_pytorch_model.safetensors"),
        ("scheduler/scheduler_config.json", "scheduler_config.json"),
    ] {
        fs::rename(pipeline.path(from), pipeline.path(to)).expect("moved");
    }
    let (model, account) = pipeline.import().expect("one folder");
    assert!(error_of(&model, &golden) < 1e-5);
    assert!(account.assumed.is_empty(), "{account}");
    assert_eq!(model.header.sampling.steps, 1000, "as DDPMPipeline");
}

#[test]
fn the_size_is_that_of_the_configuration_or_is_asked_for() {
    let golden = Golden::open("attention");
    let pipeline = Pipeline::new(&golden);
    let none = ImportOptions::default();
    let error = import(pipeline.folder.path(), &none, &Device::flex()).expect_err("no size").to_string();
    assert!(error.contains("sample_size") && error.contains("--image-size"), "{error}");
    pipeline.edit("unet/config.json", "\"sample_size\": null", "\"sample_size\": [6, 4]");
    let (model, _) = import(pipeline.folder.path(), &none, &Device::flex()).expect("a size");
    assert_eq!((model.header.image.height, model.header.image.width), (6, 4));
    pipeline.edit("unet/config.json", "[6, 4]", "[5, 4]");
    let error = import(pipeline.folder.path(), &none, &Device::flex()).expect_err("odd").to_string();
    assert!(error.contains("divisible by 2"), "{error}");
}

#[test]
fn broken_folders_are_refused() {
    let golden = Golden::open("attention");
    let whole = || Pipeline::new(&golden);
    let missing = import("no/such/folder".as_ref(), &ImportOptions::default(), &Device::flex());
    assert!(missing.expect_err("missing").to_string().contains("not a folder"));

    let pipeline = whole();
    pipeline.remove("unet/config.json");
    assert!(pipeline.error().contains("unet/config.json"));
    let pipeline = whole();
    pipeline.remove(WEIGHTS);
    assert!(pipeline.error().contains("no weights"));
    for length in [0, 5, 100, 20_000] {
        let pipeline = whole();
        let bytes = fs::read(pipeline.path(WEIGHTS)).expect("a file");
        pipeline.write(WEIGHTS, &bytes[..length]);
        assert!(pipeline.error().contains("not a whole safetensors file"), "{length}");
    }
    let pipeline = whole();
    let mut claims = fs::read(pipeline.path(WEIGHTS)).expect("a file");
    claims[..8].copy_from_slice(&(1u64 << 62).to_le_bytes());
    pipeline.write(WEIGHTS, &claims);
    assert!(pipeline.error().contains("not a whole safetensors file"));
    for (name, text) in [
        ("unet/config.json", "{"),
        ("unet/config.json", "[]"),
        ("model_index.json", "\u{0}"),
        ("scheduler/scheduler_config.json", "3"),
    ] {
        let pipeline = whole();
        pipeline.write(name, text.as_bytes());
        assert!(pipeline.error().contains(name), "{name}: {text}");
    }
    let pipeline = whole();
    pipeline.edit("model_index.json", "UNet2DModel", "UNet2DConditionModel");
    assert!(pipeline.error().contains("UNet2DConditionModel"));
    let pipeline = whole();
    pipeline.edit("model_index.json", "\"unet\"", "\"vqvae\": [\"diffusers\", \"VQModel\"], \"unet\"");
    assert!(pipeline.error().contains("vqvae"));
    // the claim is found before anything is allocated
    let pipeline = whole();
    pipeline.edit("unet/config.json", "    4,\n    6\n", "    60000,\n    60000\n");
    assert!(pipeline.error().contains("do not fit"), "{}", pipeline.error());
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let golden = Golden::open("attention");
    let pipeline = Pipeline::new(&golden);
    let change = |each: &dyn Fn(String, Array) -> Option<(String, Array)>| {
        let weights = golden.weights().into_iter().filter_map(|(name, array)| each(name, array));
        pipeline.write_weights(WEIGHTS, weights.collect());
    };
    change(&|name, array| (name != "conv_out.bias").then_some((name, array)));
    assert!(pipeline.error().contains("`conv_out.bias`"));
    change(&|name, array| {
        let shape = if name == "conv_out.bias" { vec![1, 3] } else { array.shape.clone() };
        Some((name, Array { shape, ..array }))
    });
    assert!(pipeline.error().contains("`conv_out.bias` has the shape [1, 3]"), "{}", pipeline.error());
    change(&|name, mut array| {
        if name == "conv_out.bias" {
            array.bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
        Some((name, array))
    });
    assert!(pipeline.error().contains("`conv_out.bias`: it is not finite"), "{}", pipeline.error());
    change(&|name, array| Some((name.replace("conv_out.bias", "conv_out.bios"), array)));
    assert!(pipeline.error().contains("`conv_out.bias`"));
    let mut more = golden.weights();
    more.push(("extra.weight".to_owned(), more[0].1.clone()));
    pipeline.write_weights(WEIGHTS, more);
    let (_, account) = pipeline.import().expect("a model");
    assert!(account.not_used.iter().any(|line| line.contains("`extra.weight`")), "{account}");
}

#[test]
fn what_is_exported_is_read_back() {
    let schedulers = [
        SCHEDULER,
        r#"{"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2", "variance_type": "fixed_large", "prediction_type": "sample"}"#,
        r#"{"_class_name": "DDPMScheduler", "beta_schedule": "scaled_linear", "prediction_type": "v_prediction", "rescale_betas_zero_snr": true}"#,
        r#"{"_class_name": "DDPMScheduler", "beta_schedule": "sigmoid", "clip_sample": false, "timestep_spacing": "trailing"}"#,
    ];
    for (number, name) in GOLDEN.into_iter().enumerate() {
        let pipeline = Pipeline::new(&Golden::open(name));
        pipeline.write("scheduler/scheduler_config.json", schedulers[number % schedulers.len()].as_bytes());
        let (model, _) = pipeline.import().expect("a model");
        let folder = pipeline.path("exported/here");
        let account = export(&model, &folder).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (again, _) = import(&folder, &ImportOptions::default(), &Device::flex())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(again.header, model.header, "{name}: {account}");
        assert_eq!(again.unet.state_dict(), model.unet.state_dict());
        let error = export(&model, &folder).expect_err("not empty").to_string();
        assert!(error.contains("not empty"), "{error}");
        let left = fs::read_dir(pipeline.path("exported")).expect("a folder").count();
        assert_eq!(left, 1, "no temporary folder is left");
    }
}

#[test]
fn a_network_without_a_twin_leaves_with_its_code() {
    let config = UnetConfig { dim: 8, dim_mults: vec![1, 2], channels: 1, classes: 3, ..UnetConfig::default() };
    let unet = config.init(&Device::flex()).expect("a network").into();
    let image = checkpoint::ImageFormat { content_height: 12, ..checkpoint::ImageFormat::new(1, 16, 16) };
    let mut model = Model { unet, header: checkpoint::Header::new(config, image) };
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("pipeline");
    export(&model, &folder).expect("written");
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("a file");
    assert!(
        read("unet/modeling.py").contains("class DiffuseUnet") && read("pipeline.py").contains("class DiffusePipeline")
    );
    let index: serde_json::Value = serde_json::from_str(&read("model_index.json")).expect("JSON");
    assert_eq!(index["unet"], serde_json::json!(["modeling", "DiffuseUnet"]));
    assert_eq!(index["crop"], serde_json::json!([12, 16]));
    let config: serde_json::Value = serde_json::from_str(&read("unet/config.json")).expect("JSON");
    assert_eq!(config["attention"], serde_json::json!(["linear", "full"]));
    // what comes back from there is refused by the name of its class
    let error = import(&folder, &ImportOptions::default(), &Device::flex()).expect_err("no UNet2DModel").to_string();
    assert!(error.contains("DiffuseUnet"), "{error}");
    model.header.objective = Objective::Flow;
    let error = export(&model, &place.path().join("flow")).expect_err("no twin").to_string();
    assert!(error.contains("flow") && !place.path().join("flow").exists(), "{error}");
}
