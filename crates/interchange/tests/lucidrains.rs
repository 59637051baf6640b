//! Files of denoising-diffusion-pytorch 2.3.4, which `golden/lucidrains/make.py` wrote, and files that go there.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use burn::tensor::{DType, Device, Tensor, TensorData};
use checkpoint::{Header, ImageFormat, Model, SamplerKind};
use flate2::read::GzDecoder;
use interchange::{
    InterchangeError,
    lucidrains::{ImportOptions, Imported, export, import},
    torch_file::{TorchFile, Value, write},
};
use noise::Noise;
use pipeline::NetworkDenoiser;
use safetensors::{Dtype, SafeTensors};
use sampler::{DdimOptions, ddim};
use schedule::{BetaSchedule, LossWeight, Objective, Spacing};
use tempfile::TempDir;
use train::{SavedState, TrainError};
use unet::{AttentionKind, Condition, UnetConfig};

/// Named tensors.
type Tensors = Vec<(String, TensorData)>;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lucidrains").join(name)
}

/// The tensors of a golden safetensors file whose names begin with `prefix`, without it.
fn tensors(name: &str, prefix: &str) -> Tensors {
    let bytes = std::fs::read(golden(name)).expect("a golden file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let of = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        assert_eq!(view.dtype(), Dtype::F32, "{name}");
        let data = TensorData::from_bytes_vec(view.data().to_vec(), view.shape().to_vec(), DType::F32);
        Some((name.strip_prefix(prefix)?.to_owned(), data))
    };
    file.iter().filter_map(of).collect()
}

/// Writes named tensors as one state dict.
fn state_dict(folder: &TempDir, tensors: &[(String, TensorData)]) -> PathBuf {
    let path = folder.path().join("state.pt");
    let pairs = tensors.iter().map(|(name, data)| (name.clone(), Value::Tensor(data.clone())));
    write(&path, &Value::dict(pairs)).expect("written");
    path
}

fn options() -> ImportOptions {
    ImportOptions { image_size: Some((8, 8)), ..ImportOptions::default() }
}

fn read(path: &Path, options: &ImportOptions) -> Result<Imported, InterchangeError> {
    import(path, options, &Device::flex())
}

/// Unpacks the checkpoint of lucidrains' trainer.
fn trainer(folder: &TempDir) -> PathBuf {
    let mut bytes = Vec::new();
    let packed = std::fs::File::open(golden("trainer.pt.gz")).expect("a golden file");
    GzDecoder::new(packed).read_to_end(&mut bytes).expect("gzip");
    let path = folder.path().join("model-1.pt");
    std::fs::write(&path, bytes).expect("written");
    path
}

fn largest_difference(ours: Tensor<4>, theirs: &TensorData) -> f32 {
    let theirs = Tensor::<4>::from_data(theirs.clone(), &ours.device());
    (ours - theirs).abs().max().into_scalar()
}

/// Checks the output of the network to 1e-4 and, where there are some, the images of 20 steps of DDIM to 1e-3.
fn check_outputs(name: &str, model: &Model, expected: &[(String, TensorData)]) {
    let device = Device::flex();
    let find = |name: &str| expected.iter().find(|(other, _)| other == name).map(|(_, data)| data);
    let tensor = |name: &str| Tensor::<4>::from_data(find(name).expect(name).clone(), &device);
    let t = Tensor::<1>::from_data(find("t").expect("t").clone(), &device);
    let condition =
        Condition { self_condition: find("condition").map(|_| tensor("condition")), ..Condition::default() };
    let difference = largest_difference(model.unet.forward(tensor("x"), t, condition), find("output").expect("output"));
    assert!(difference < 1e-4, "{name}, output: {difference}");
    let Some(images) = find("ddim") else { return };
    let schedule = model.header.schedule.build().expect("a schedule");
    let levels = schedule.levels(Spacing::Lucidrains, 20).expect("20 steps");
    let denoiser = NetworkDenoiser::new(model, None);
    let options = DdimOptions::default();
    let drawn = ddim(&denoiser, tensor("noise"), &levels, options, &Noise::new(0), &mut |_| ()).expect("images");
    let difference = largest_difference(drawn, images);
    assert!(difference < 1e-3, "{name}, 20 steps of DDIM: {difference}");
}

#[test]
fn both_copies_of_a_trainer_s_weights_come_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = trainer(&folder);
    let average = read(&path, &options()).expect("read");
    check_outputs("average", &average.model, &tensors("trainer.safetensors", "average/"));
    let header = &average.model.header;
    let unet = UnetConfig {
        dim: 4,
        dim_mults: vec![1],
        channels: 1,
        attention_heads: 2,
        attention_head_dim: 3,
        ..UnetConfig::default()
    };
    assert_eq!(header.unet, unet.into());
    assert_eq!(
        (header.objective, header.schedule.timesteps, header.schedule.family.name()),
        (Objective::V, 40, "sigmoid")
    );
    assert_eq!((header.sampling.sampler, header.sampling.steps), (SamplerKind::Ddpm, 40));
    let account = average.account.to_string();
    for part in [
        "averaged weights (EMA): `ema.ema_model.model.*`",
        "min_snr",
        "the state of the optimizer",
        "the number of steps, 130",
    ] {
        assert!(account.contains(part), "{part}: {account}");
    }

    let raw = read(&path, &ImportOptions { raw: true, sampling_timesteps: Some(4), ..options() }).expect("read");
    check_outputs("raw", &raw.model, &tensors("trainer.safetensors", "raw/"));
    assert_eq!((raw.model.header.sampling.sampler, raw.model.header.sampling.steps), (SamplerKind::Ddim, 4));
    assert_ne!(raw.model.unet.state_dict(), average.model.unet.state_dict());
}

#[test]
fn the_state_of_the_training_comes_in_and_begins_a_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let imported = read(&trainer(&folder), &ImportOptions { training: true, ..options() }).expect("read");
    let training = imported.training.expect("asked for");
    let state = &training.state;
    assert_eq!((state.step, state.optimizer_steps, state.ema_step), (130, 130, 130));
    assert_eq!(
        (training.learning_rate, training.betas, training.epsilon, training.weight_decay),
        (3e-4, [0.9, 0.99], 1e-8, 0.0)
    );
    assert_eq!(training.loss_weight, LossWeight::MinSnr { gamma: 5.0 });
    // each moment is that of the parameter of its name
    for (prefix, moments) in [("first/", &state.first_moment), ("second/", &state.second_moment)] {
        let expected = tensors("trainer.safetensors", prefix);
        assert_eq!(expected.len(), moments.len());
        for (name, data) in moments {
            let sum: f64 = data.iter::<f64>().map(f64::abs).sum();
            let (_, expected) = expected.iter().find(|(other, _)| other == name).expect("a parameter");
            let expected = expected.iter::<f64>().next().expect("a number");
            assert!((sum - expected).abs() <= 1e-5 * expected, "{prefix}{name}: {sum} is not {expected}");
        }
    }

    let directory = folder.path().join("run");
    let files = training.begin_run(&imported.model, "mnist-5k", &directory).expect("a run");
    let (written, _) = SavedState::read(&files.checkpoint_at(130), &imported.model.unet.state_dict()).expect("a state");
    assert_eq!((written.weights, written.second_moment), (state.weights.clone(), state.second_moment.clone()));
    let error = training.begin_run(&imported.model, "mnist-5k", &directory).expect_err("a second time");
    assert!(matches!(error, TrainError::RunDirectory { .. }), "{error}");

    let config = train::Run::config_of(&directory).expect("a configuration");
    assert_eq!((config.training.steps, config.training.learning_rate, config.data.held_out), (100_000, 3e-4, 0));
    let mut config = config;
    (config.data.limit, config.training.batch_size) = (Some(40), 4);
    let images = data::open("mnist-5k", &config.load_options()).expect("images").images;
    let mut trainer = train::Trainer::new(config, images, &Device::flex()).expect("a trainer");
    trainer.load_state(&files.checkpoint_at(130)).expect("the same configuration");
    assert_eq!(trainer.model().unet.state_dict(), imported.model.unet.state_dict());
    let report = trainer.step().expect("a step");
    assert!(report.step == 131 && report.loss.is_finite() && report.learning_rate == 3e-4, "{report:?}");
}

#[test]
fn every_kind_of_network_comes_in() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["learned_variance", "self_condition", "fourier", "other_betas"] {
        let file = format!("{name}.safetensors");
        let path = state_dict(&folder, &tensors(&file, "state/"));
        let Imported { model, account, .. } = read(&path, &options()).unwrap_or_else(|error| panic!("{name}: {error}"));
        check_outputs(name, &model, &tensors(&file, "out/"));
        let Header { unet, objective, schedule, .. } = &model.header;
        let unet = unet.as_unet().expect("lucidrains' network");
        match name {
            "learned_variance" => {
                assert!(unet.learned_variance && unet.channels == 3 && schedule.family.name() == "linear");
                assert_eq!((*objective, schedule.timesteps), (Objective::Epsilon, 60));
            }
            "self_condition" => {
                assert!(unet.self_condition && unet.channels == 1 && schedule.family.name() == "cosine");
                assert_eq!(*objective, Objective::X0);
            }
            "fourier" => {
                assert!(unet.learned_sinusoidal_cond && unet.learned_sinusoidal_dim == 6, "{unet:?}");
                assert!(account.to_string().contains("no buffers of GaussianDiffusion"), "{account}");
            }
            _ => {
                assert_eq!((unet.init_dim, unet.dim_mults.as_slice()), (Some(6), &[2, 1][..]));
                assert_eq!(unet.attention, [AttentionKind::Full, AttentionKind::Linear]);
                assert!(
                    matches!(&schedule.family, BetaSchedule::Custom { betas } if betas.len() == 40),
                    "{schedule:?}"
                );
            }
        }
    }
}

#[test]
fn every_schedule_and_objective_is_recognized() {
    let folder = tempfile::tempdir().expect("a folder");
    let network: Vec<_> = tensors("self_condition.safetensors", "state/model.")
        .into_iter()
        .map(|(name, data)| (format!("model.{name}"), data))
        .collect();
    for schedule in ["linear", "cosine", "sigmoid"] {
        for objective in ["pred_noise", "pred_x0", "pred_v"] {
            let buffers = tensors("buffers.safetensors", &format!("{schedule}/{objective}/"));
            let path = state_dict(&folder, &[network.clone(), buffers].concat());
            let header = read(&path, &options()).expect("read").model.header;
            assert_eq!((header.schedule.family.name(), header.schedule.timesteps), (schedule, 30));
            assert_eq!(header.objective, objective.parse().expect("an objective"), "{schedule}");
            let other = ImportOptions { objective: Some(Objective::V), ..options() };
            assert_eq!(read(&path, &other).expect("read").model.header.objective, Objective::V);
        }
    }
}

#[test]
fn other_names_around_the_network_are_no_obstacle() {
    let folder = tempfile::tempdir().expect("a folder");
    let network = tensors("fourier.safetensors", "state/");
    // in safetensors, compiled, of several processes, in another dictionary, and as an EMA of the network alone
    for prefix in ["", "_orig_mod.", "module.", "state_dict.", "ema_model."] {
        let renamed: Vec<_> = network.iter().map(|(name, data)| (format!("{prefix}{name}"), data.clone())).collect();
        let path = state_dict(&folder, &renamed);
        check_outputs(prefix, &read(&path, &options()).expect(prefix).model, &tensors("fourier.safetensors", "out/"));
    }
    // of two networks one is taken, and the account says so
    let second = network.iter().map(|(name, data)| (format!("second.{name}"), data.clone())).collect();
    let path = state_dict(&folder, &[network.clone(), second].concat());
    let account = read(&path, &options()).expect("two").account.to_string();
    assert!(account.contains("not used  `second.*`, another network"), "{account}");
    let path = folder.path().join("network.safetensors");
    let views = network.iter().map(|(name, data)| {
        let view = safetensors::tensor::TensorView::new(Dtype::F32, data.shape().to_vec(), data.as_bytes());
        (name.clone(), view.expect("a view"))
    });
    std::fs::write(&path, safetensors::serialize(views, None).expect("safetensors")).expect("written");
    let options = ImportOptions {
        objective: Some(Objective::Epsilon),
        beta_schedule: Some(BetaSchedule::Cosine { s: 0.008 }),
        timesteps: Some(50),
        random_fourier_features: true,
        ..options()
    };
    let header = read(&path, &options).expect("read").model.header;
    assert!(header.unet.as_unet().expect("lucidrains' network").random_fourier_features);
    assert_eq!(
        (header.objective, header.schedule.family.name(), header.schedule.timesteps),
        (Objective::Epsilon, "cosine", 50)
    );
}

#[test]
fn what_is_wrong_with_a_state_dict_is_said_with_its_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = tensors("other_betas.safetensors", "state/");
    let error = |change: &dyn Fn(&mut Tensors)| {
        let mut changed = whole.clone();
        change(&mut changed);
        read(&state_dict(&folder, &changed), &options())
            .map(|imported| imported.account)
            .expect_err("refused")
            .to_string()
    };
    let place =
        |list: &[(String, TensorData)], name: &str| list.iter().position(|(other, _)| other == name).expect(name);
    let zeros = |shape: &[usize]| TensorData::zeros::<f32, _>(shape.to_vec());
    let replaced = |name: &'static str, shape: &'static [usize]| {
        error(&move |list: &mut Tensors| {
            let at = place(list, name);
            list[at].1 = zeros(shape);
        })
    };
    let added = |name: &'static str| error(&move |list: &mut Tensors| list.push((name.to_owned(), zeros(&[1]))));
    let message = error(&|list| drop(list.remove(place(list, "model.mid_block1.block2.proj.bias"))));
    assert!(message.contains("state.pt: `model.mid_block1.block2.proj.bias`: it is missing"), "{message}");
    let message = error(&|list| drop(list.remove(place(list, "betas"))));
    assert!(message.contains("`betas`: it is missing"), "{message}");
    let message = replaced("model.downs.0.0.block1.proj.weight", &[6, 5, 3, 3]);
    assert!(message.contains("[6, 5, 3, 3]") && message.contains("another network"), "{message}");
    let message = replaced("model.init_conv.weight", &[6, 3, 7]);
    assert!(message.contains("Unet1D"), "{message}");
    let message = replaced("model.final_conv.weight", &[5, 6, 1, 1]);
    assert!(message.contains("--channels"), "{message}");
    let message = replaced("model.ups.0.2.mem_kv", &[2, 3, 2, 4]);
    assert!(message.contains("ups.0.2.mem_kv") && message.contains("attn_heads"), "{message}");
    let message = replaced("alphas_cumprod", &[40]);
    assert!(message.contains("does not follow from `betas`"), "{message}");
    let message = replaced("loss_weight", &[40]);
    assert!(message.contains("--objective"), "{message}");
    let message = replaced("betas", &[40]);
    assert!(message.contains("`betas`"), "{message}");
    assert!(added("model.downs.0.0.block1.norm.weight").contains("earlier version"));
    assert!(added("model.null_classes_emb").contains("classifier_free_guidance"));
    let message = added("model.mid_block1.block3.proj.bias");
    assert!(
        message.contains("`model.mid_block1.block3.proj.bias`: this network does not have it, nor 0 others"),
        "{message}"
    );
    let message = error(&|list| {
        let at = place(list, "model.final_conv.bias");
        list[at].1 = TensorData::new(vec![f32::NAN; 3], [3]);
    });
    assert!(message.contains("not finite"), "{message}");
    let message = error(&|list| list.retain(|(name, _)| !name.contains("init_conv")));
    assert!(message.contains("`init_conv.weight`: no name of the"), "{message}");
}

#[test]
fn options_that_do_not_go_with_the_file_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = state_dict(&folder, &tensors("other_betas.safetensors", "state/"));
    let error = |options: ImportOptions| {
        read(&path, &options).map(|imported| imported.account).expect_err("refused").to_string()
    };
    assert!(error(ImportOptions { image_size: Some((9, 8)), ..options() }).contains("divisible by 2"));
    assert!(error(ImportOptions { sampling_timesteps: Some(41), ..options() }).contains("41 steps"));
    assert!(error(ImportOptions { channels: Some(7), ..options() }).contains("neither 7"));
    assert!(error(ImportOptions { training: true, ..options() }).contains("no state of the optimizer"));
    let model = read(&path, &options()).expect("read").model;
    let own = folder.path().join("own.safetensors");
    model.save(&own).expect("written");
    assert!(read(&own, &options()).expect_err("refused").to_string().contains("a model of this program already"));
    // without a size, the account says which one was taken
    let imported = read(&path, &ImportOptions::default()).expect("read");
    assert_eq!((imported.model.header.image.height, imported.model.header.image.width), (32, 32));
    assert!(imported.account.to_string().contains("32x32"), "{}", imported.account);
}

#[test]
fn a_checkpoint_goes_out_as_it_came_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = trainer(&folder);
    let Imported { model, training, .. } = read(&path, &ImportOptions { training: true, ..options() }).expect("read");
    let training = training.expect("asked for");
    let files = training.begin_run(&model, "mnist-5k", &folder.path().join("run")).expect("a run");
    let config = train::Run::config_of(&files.directory).expect("a configuration");
    let out = folder.path().join("out.pt");
    let account = export(&model, Some((&training.state, &config)), &out).expect("written").to_string();
    assert!(account.contains("min_snr_loss_weight = True") && account.contains("dim_mults = (1,)"), "{account}");

    let (theirs, ours) = (TorchFile::open(&path).expect("theirs"), TorchFile::open(&out).expect("ours"));
    let names = |file: &TorchFile| {
        let mut names: Vec<String> = file.names().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names(&ours), names(&theirs));
    for name in names(&ours) {
        let (ours, theirs) = (ours.tensor(&name).expect("read"), theirs.tensor(&name).expect("read"));
        let (ours, theirs) = (ours.expect("there"), theirs.expect("there"));
        assert_eq!(ours.shape(), theirs.shape(), "{name}");
        for (ours, theirs) in ours.iter::<f32>().zip(theirs.iter::<f32>()) {
            // buffers are computed again: up to the rounding of logarithms and roots
            assert!((ours - theirs).abs() <= 3e-7 * theirs.abs(), "{name}: {ours} is not {theirs}");
        }
    }
    for key in [&["step"][..], &["opt", "param_groups", "0", "lr"], &["opt", "param_groups", "0", "betas", "1"]] {
        assert_eq!(ours.number(key), theirs.number(key), "{key:?}");
    }
    assert_eq!(std::fs::read(&out).expect("read"), {
        export(&model, Some((&training.state, &config)), &out).expect("written");
        std::fs::read(&out).expect("read")
    });
}

#[test]
fn what_lucidrains_does_not_have_is_refused_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out.pt");
    let plain = UnetConfig { dim: 4, dim_mults: vec![1, 2], channels: 1, ..UnetConfig::default() };
    let refuse = |config: UnetConfig, change: &dyn Fn(&mut Header)| {
        let mut header = Header::new(config.clone(), ImageFormat::new(1, 8, 8));
        change(&mut header);
        let model = Model { unet: config.init(&Device::flex()).expect("a network").into(), header };
        let error = export(&model, None, &out).expect_err("refused");
        assert!(matches!(error, InterchangeError::NoTwin { .. }) && !out.exists(), "{error}");
        error.to_string()
    };
    let network = |config: UnetConfig| refuse(config, &|_| ());
    assert!(network(UnetConfig { patch_size: 2, ..plain.clone() }).contains("unet.patch_size = 2"));
    assert!(network(UnetConfig { classes: 3, ..plain.clone() }).contains("labels of 3 classes"));
    let off = vec![AttentionKind::Off, AttentionKind::Full];
    assert!(network(UnetConfig { attention: off, ..plain.clone() }).contains("without attention"));
    assert!(network(UnetConfig { learned_sinusoidal_cond: true, ..plain.clone() }).contains("Fourier"));
    assert!(network(UnetConfig { learned_variance: true, ..plain.clone() }).contains("learned variance"));
    assert!(network(UnetConfig { out_dim: Some(3), ..plain.clone() }).contains("3 output channels"));
    assert!(refuse(plain.clone(), &|header| header.objective = Objective::Flow).contains("objective flow"));
    assert!(refuse(plain.clone(), &|header| header.schedule.zero_terminal_snr = true).contains("pure noise"));
    assert!(refuse(plain, &|header| header.image.content_width = 7).contains("padded from 8x7"));
}
