//! Model files: round trip, equal bytes, and everything that can be wrong with one.

use std::{fs, path::Path};

use burn::tensor::{DType, Device, Int, Tensor};
use checkpoint::{
    CheckpointError, GenerateError, Guide, Header, ImageFormat, Model, NetworkDenoiser, Request, SamplingConfig,
    generate, generate_guided,
};
use noise::Noise;
use sampler::Denoiser;
use unet::UnetConfig;

fn model() -> Model {
    let config = UnetConfig { dim: 8, dim_mults: vec![1], channels: 1, classes: 3, ..UnetConfig::default() };
    let unet = config.init(&Device::flex()).expect("a possible network");
    let mut header = Header::new(config, ImageFormat { content_height: 6, ..ImageFormat::new(1, 8, 8) });
    (header.sampling.steps, header.sampling.guidance) = (3, 2.0);
    Model { unet, header }
}

fn error_of(path: &Path) -> String {
    let error = Model::load(path, &Device::flex()).expect_err("a broken file").to_string();
    assert!(error.contains(&path.display().to_string()), "{error} does not name the file");
    error
}

#[test]
fn a_model_comes_back_and_its_bytes_are_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let model = model();
    model.save(&one).expect("written");
    let read = Model::load(&one, &Device::flex()).expect("read");
    assert_eq!(read.header, model.header);
    assert_eq!(read.unet.state_dict(), model.unet.state_dict());
    read.save(&two).expect("written");
    assert!(fs::read(&one).expect("a file") == fs::read(&two).expect("a file"));
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2, "no temporary file is left");
}

#[test]
fn broken_files_are_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    assert!(error_of(&path).contains("cannot read"));
    model().save(&path).expect("written");
    let whole = fs::read(&path).expect("a file");
    for length in [0, 1, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).expect("written");
        assert!(error_of(&path).contains("not a whole safetensors file"), "cut to {length} bytes");
    }
    let mut claims = whole.clone();
    claims[..8].copy_from_slice(&(1u64 << 62).to_le_bytes());
    fs::write(&path, &claims).expect("written");
    assert!(error_of(&path).contains("not a whole safetensors file"));
    let random: Vec<u8> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(&path, random).expect("written");
    error_of(&path);
}

/// Writes the file with one text in its header replaced; the header keeps its length if both texts have one.
fn edited(path: &Path, from: &str, to: &str) {
    model().save(path).expect("written");
    let bytes = fs::read(path).expect("a file");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header = String::from_utf8(bytes[8..8 + length].to_vec()).expect("a text");
    assert!(header.contains(from), "{header}");
    let header = header.replace(from, to);
    let mut edited = (header.len() as u64).to_le_bytes().to_vec();
    edited.extend(header.as_bytes());
    edited.extend(&bytes[8 + length..]);
    fs::write(path, edited).expect("written");
}

#[test]
fn headers_that_do_not_fit_are_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    for (from, to, said) in [
        (r#"\"dim\":8"#, r#"\"dim\":10"#, "do not fit the network"),
        (r#"\"dim\":8"#, r#"\"dim\":7"#, "unet.dim = 7"),
        (r#"\"dim\":8"#, r#"\"dim\":4611686018427387904"#, "unet.dim"),
        (r#"\"format_version\":1"#, r#"\"format_version\":99"#, "format version 99"),
        (r#"\"height\":8"#, r#"\"height\":5"#, "not possible"),
        (r#""diffuse""#, r#""another""#, "lacks the entry `diffuse`"),
        (r#"\"objective\""#, r#"\"objektive\""#, "objektive"),
        ("final_conv.bias", "final_conv.bios", "`final_conv.bias`"),
    ] {
        edited(&path, from, to);
        let error = error_of(&path);
        assert!(error.contains(said), "{from} -> {to}: {error}");
    }
}

#[test]
fn a_model_that_is_not_finite_is_never_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    model().save(&path).expect("written");
    let before = fs::read(&path).expect("a file");
    let mut broken = model();
    broken.unet = broken.unet.initialize(|_, out| out.fill(f32::NAN), |_, out| out.fill(0.5));
    assert!(matches!(broken.save(&path), Err(CheckpointError::NotFinite { .. })));
    assert!(fs::read(&path).expect("a file") == before);
}

#[test]
fn images_are_cropped_and_the_same_alone_or_in_a_batch() {
    let mut model = model();
    model.header.sampling.batch_size = 2;
    let noise = Noise::new(3);
    let all = generate(&model, &Request::even(5, 3), &noise, &mut |_| ()).expect("drawn");
    assert_eq!(all.dims(), [5, 1, 6, 8]);
    let request = Request { samples: vec![4], labels: Some(vec![2]) };
    let one = generate(&model, &request, &noise, &mut |_| ()).expect("drawn");
    let difference: f32 = (one - all.narrow(0, 4, 1)).abs().max().into_scalar();
    assert!(difference < 1e-5, "{difference}");
}

#[test]
fn requests_that_do_not_fit_are_said() {
    let mut model = model();
    let noise = Noise::new(3);
    let request = Request { samples: vec![0], labels: Some(vec![3]) };
    let error = generate(&model, &request, &noise, &mut |_| ()).expect_err("no class 3");
    assert!(matches!(error, GenerateError::Class { class: 3, classes: 3 }));
    model.header.sampling.steps = 1001;
    assert!(matches!(
        generate(&model, &Request::count(1), &noise, &mut |_| ()).expect_err("too many steps"),
        GenerateError::Schedule(_)
    ));
    assert_eq!(Request::even(10, 5).labels.expect("labels"), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
}

/// Has nothing to say.
struct Silent;

impl sampler::Classifier for Silent {
    fn log_probability_gradient(&self, x_t: Tensor<4>, _level: sampler::NoiseLevel) -> Tensor<4> {
        x_t.zeros_like()
    }
}

#[test]
fn guides_lead_or_are_refused() {
    let (model, noise) = (model(), Noise::new(3));
    let draw = |guide: Guide<'_>, request: &Request| generate_guided(&model, guide, request, &noise, &mut |_| ());
    let same = |a: Result<Tensor<4>, GenerateError>, b: Result<Tensor<4>, GenerateError>| {
        a.expect("images").into_data() == b.expect("images").into_data()
    };
    let asked = Request { labels: Some(vec![1, 1]), ..Request::count(2) };
    // a classifier that says nothing leaves the network without the class
    let silent: &dyn Fn(Tensor<1, Int>) -> Box<dyn sampler::Classifier> = &|_| Box::new(Silent);
    assert!(same(draw(Guide::Classifier(silent), &asked), draw(Guide::Itself, &Request::count(2))));
    assert!(!same(draw(Guide::Itself, &asked), draw(Guide::Itself, &Request::count(2))));
    // a model that is its own weaker version leads nowhere else
    let unguided = Model {
        header: Header {
            sampling: SamplingConfig { guidance: 1.0, ..model.header.sampling.clone() },
            ..model.header.clone()
        },
        ..model.clone()
    };
    let own = generate(&unguided, &asked, &noise, &mut |_| ()).expect("images");
    let led = draw(Guide::Weaker(&model), &asked).expect("images");
    led.into_data().assert_approx_eq(&own.into_data(), burn::tensor::Tolerance::<f32>::absolute(1e-5));

    let refused = |guide: Guide<'_>, request: &Request| draw(guide, request).expect_err("refused").to_string();
    assert!(refused(Guide::Classifier(silent), &Request::count(2)).contains("told the class"));
    let mut other = model.clone();
    other.header.schedule.timesteps = 500;
    assert!(refused(Guide::Weaker(&other), &asked).contains("another schedule"));
}

/// The network computes in f32, whatever the sampler keeps.
#[test]
fn a_state_in_f64_stays_in_f64() {
    let model = model();
    let denoiser = NetworkDenoiser::new(&model, None);
    let x_t = Noise::new(1).stream(noise::Purpose::InitialNoise).normal_images(&[0], 0, [1, 8, 8], &Device::flex());
    let level = model.header.schedule.build().expect("a schedule").level(400);
    let wide = Tensor::<4>::from_data(x_t.to_data(), (&Device::flex(), DType::F64));
    let (found, expected) = (denoiser.denoise(wide, level, None), denoiser.denoise(x_t, level, None));
    assert_eq!((found.x_0.dtype(), found.epsilon.dtype()), (DType::F64, DType::F64));
    for (found, expected) in found.x_0.into_data().iter::<f64>().zip(expected.x_0.into_data().iter::<f64>()) {
        assert!((found - expected).abs() < 1e-5, "{found}, not {expected}");
    }
}
