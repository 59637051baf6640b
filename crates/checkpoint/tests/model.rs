//! Model files: round trip, equal bytes, and files that are refused.

use std::{fs, path::Path};

use burn::tensor::Device;
use checkpoint::{CheckpointError, Header, ImageFormat, Model};
use unet::UnetConfig;

fn model() -> Model {
    let config = UnetConfig { dim: 8, dim_mults: vec![1], channels: 1, classes: 3, ..UnetConfig::default() };
    let unet = config.init(&Device::flex()).expect("a possible network");
    let mut header = Header::new(config, ImageFormat { content_height: 6, ..ImageFormat::new(1, 8, 8) });
    (header.sampling.steps, header.sampling.guidance) = (3, 2.0);
    Model { unet: unet.into(), header }
}

fn error_of(path: &Path) -> String {
    let error = Model::load(path, &Device::flex()).expect_err("a broken file").to_string();
    assert!(error.contains(&path.display().to_string()), "{error} does not name the file");
    error
}

#[test]
fn a_model_survives_a_round_trip_and_has_the_same_bytes() {
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
fn broken_files_are_refused() {
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

/// Writes a model with a text of its header replaced.
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
fn headers_that_do_not_fit_are_refused() {
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
