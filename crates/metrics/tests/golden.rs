//! Equal to pytorch-fid and scikit-learn on the same features (`golden/make.py`).

use burn::tensor::Device;
use metrics::{
    INCEPTION_FEATURES, Inception, KernelOptions, MetricsError, frechet_distance, kernel_distance, manifold,
    nearest_distance,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

const GOLDEN: &[u8] = include_bytes!("golden/judges.safetensors");
const NAMES: &str = include_str!("golden/inception_names.txt");

fn bytes(name: &str) -> Vec<u8> {
    SafeTensors::deserialize(GOLDEN).expect("a file").tensor(name).expect(name).data().to_vec()
}

fn floats(name: &str) -> Vec<f32> {
    bytes(name).as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn doubles(name: &str) -> Vec<f64> {
    bytes(name).as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
}

fn close(ours: f64, theirs: f64, relative: f64) {
    assert!((ours / theirs - 1.0).abs() < relative, "{ours} is not {theirs}");
}

#[test]
fn the_frechet_distance_is_pytorch_fid_s() {
    let expected = doubles("frechet");
    close(frechet_distance(&floats("a"), &floats("b"), 12).expect("a distance"), expected[0], 1e-9);
    // fewer rows than features: SciPy's root of a singular matrix is good to a few digits only
    close(frechet_distance(&floats("wide_a"), &floats("wide_b"), 90).expect("a distance"), expected[1], 1e-3);
}

#[test]
fn the_kernel_distance_is_scikit_learn_s() {
    let expected = doubles("kernel_distance");
    for (a, b, dim, expected) in [("a", "b", 12, expected[0]), ("wide_a", "wide_b", 90, expected[1])] {
        let (a, b) = (floats(a), floats(b));
        // subsets of all rows of the smaller set: the mean over them is close to that over all rows; of equal sets it is equal
        let rows = (a.len() / dim).min(b.len() / dim);
        let options = KernelOptions { subsets: 400, subset_size: rows, seed: 1 };
        let ours = kernel_distance(&a, &b, dim, options).expect("a distance");
        let error = 4.0 * ours.deviation / 20.0;
        assert!((ours.mean - expected).abs() < error, "{ours:?} is not {expected}");
    }
}

#[test]
fn precision_and_recall_are_scikit_learn_s_neighbors() {
    let expected = doubles("manifold");
    let ours = manifold(&floats("a"), &floats("b"), 12, 3).expect("shares");
    for (ours, theirs) in [ours.precision, ours.recall, ours.density, ours.coverage].into_iter().zip(expected) {
        close(ours, theirs, 1e-9);
    }
}

#[test]
fn nearest_distances_are_scikit_learn_s() {
    let ours = nearest_distance(&floats("a"), &floats("b"), 12).expect("distances");
    for (ours, theirs) in ours.into_iter().zip(doubles("nearest")) {
        close(ours, theirs, 1e-6);
    }
}

/// The weights that `golden/make.py` gave pytorch-fid's network, as a file.
fn weights() -> Vec<u8> {
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = NAMES
        .lines()
        .enumerate()
        .map(|(index, line)| {
            let mut words = line.split(' ');
            let name = words.next().expect("a name").to_owned();
            let shape: Vec<usize> = words.map(|word| word.parse().expect("a number")).collect();
            let fan_in: usize = shape[1..].iter().product();
            let value = |k: usize| {
                let k = k as f64;
                let value = (0.7 * k + 1.3 * index as f64 + 0.0003 * k * k).sin();
                match name.rsplit('.').next() {
                    Some("weight") if shape.len() == 4 => value * (4.0 / fan_in as f64).sqrt(),
                    Some("weight" | "running_var") => 1.0 + 0.3 * value,
                    _ => 0.1 * value,
                }
            };
            let bytes = (0..shape.iter().product()).flat_map(|k| (value(k) as f32).to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor"))
    });
    safetensors::serialize(views, None).expect("a file")
}

#[test]
fn inception_s_features_are_pytorch_fid_s() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("inception.safetensors");
    std::fs::write(&path, weights()).expect("written");
    let inception = Inception::load(&path, &Device::flex()).expect("the network");
    let pixels: Vec<f32> = bytes("images").into_iter().map(|byte| f32::from(byte) / 127.5 - 1.0).collect();
    let features = inception.features(&pixels, [3, 32, 40]).expect("features");
    let expected = floats("features");
    assert_eq!((features.len(), expected.len()), (2 * INCEPTION_FEATURES, 2 * INCEPTION_FEATURES));
    let deviation = (expected.iter().map(|value| value * value).sum::<f32>() / expected.len() as f32).sqrt();
    for (ours, theirs) in features.iter().zip(&expected) {
        assert!((ours - theirs).abs() < 1e-3 * deviation, "{ours} is not {theirs}");
    }
    // gray images are three equal channels
    let gray: Vec<f32> = pixels[..32 * 40].to_vec();
    let gray_features = inception.features(&gray, [1, 32, 40]).expect("features");
    let color: Vec<f32> = [&gray[..]; 3].concat();
    assert_eq!(gray_features, inception.features(&color, [3, 32, 40]).expect("features"));
    assert!(matches!(inception.features(&pixels, [2, 32, 40]), Err(MetricsError::Channels { channels: 2 })));

    let refused = |bytes: &[u8], says: &str| {
        let broken = folder.path().join("broken.safetensors");
        std::fs::write(&broken, bytes).expect("written");
        let error = Inception::load(&broken, &Device::flex()).expect_err("refused").to_string();
        assert!(error.contains("broken.safetensors") && error.contains(says), "{error}");
    };
    refused(b"nothing", "no safetensors file");
    let nothing: [(&str, TensorView); 0] = [];
    refused(&safetensors::serialize(nothing, None).expect("a file"), "Conv2d_1a_3x3.conv.weight");
}
