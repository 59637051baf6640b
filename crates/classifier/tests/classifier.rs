//! The classifier: accuracy on digits, its gradient, and its file.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use classifier::{NoisedClassifier, TrainingOptions};
use data::ImageSet;
use noise::{Noise, Purpose, forward::q_sample};
use sampler::Classifier;
use schedule::{NoiseLevel, ScheduleConfig};

fn digits() -> ImageSet {
    data::open("mnist-5k", &data::LoadOptions::default()).expect("the digits of the repository").images
}

fn trained(images: &ImageSet, steps: usize) -> NoisedClassifier {
    let options = TrainingOptions { steps, ..TrainingOptions::default() };
    NoisedClassifier::train(images, &ScheduleConfig::default(), options, &Device::flex(), &mut |_, _| ())
        .expect("a classifier")
}

fn tensor(images: &ImageSet) -> Tensor<4> {
    let pixels = images.batch((0..images.len()).map(|index| (index, false)));
    Tensor::from_data(TensorData::new(pixels, [images.len(), 1, 28, 28]), &Device::flex())
}

#[test]
fn accuracy_falls_with_noise_and_the_gradient_raises_the_probability_of_the_class() {
    let digits = digits();
    let classifier = trained(&digits.subset(0..4000), 250);
    let held_out = digits.subset(4000..4400);
    let (x_0, schedule) = (tensor(&held_out), ScheduleConfig::default().build().expect("a schedule"));
    let noise_indices: Vec<u64> = (0..400).collect();
    let epsilon =
        Noise::new(3).stream(Purpose::Evaluation).normal_images(&noise_indices, 0, [1, 28, 28], &Device::flex());
    let accuracy = |level: NoiseLevel| {
        let x_t = q_sample(x_0.clone(), epsilon.clone(), &[level; 400]);
        let called = classifier.log_probabilities(x_t, &[level; 400]).argmax(1).into_data();
        let right = called.iter::<i64>().zip(held_out.labels().expect("labels")).filter(|(a, b)| *a == i64::from(**b));
        right.count() as f64 / 400.0
    };
    let (clean, half, noise) =
        (accuracy(schedule.level(0)), accuracy(schedule.level(500)), accuracy(schedule.level(999)));
    assert!(clean > 0.85 && half > 0.6 && half < clean, "{clean}, {half}");
    assert!(noise < 0.3, "pure noise has no class: {noise}");

    // a step along the gradient raises the log-probability of the class by the squared norm of the gradient
    let level = schedule.level(300);
    let x_t = q_sample(x_0.clone(), epsilon.clone(), &[level; 400]).narrow(0, 0, 20);
    let labels = Tensor::<1, Int>::from_data(TensorData::new(vec![7i64; 20], [20]), &Device::flex());
    let gradient = classifier.towards(labels.clone()).log_probability_gradient(x_t.clone(), level);
    let sevens = |x: Tensor<4>| -> f64 {
        classifier.log_probabilities(x, &[level; 20]).narrow(1, 7, 1).sum().into_scalar::<f32>().into()
    };
    let step = 1e-3;
    let rise =
        (sevens(x_t.clone() + gradient.clone() * step) - sevens(x_t.clone() - gradient.clone() * step)) / (2.0 * step);
    let expected: f64 = gradient.clone().square().sum().into_scalar::<f32>().into();
    assert!((rise / expected - 1.0).abs() < 0.05, "{rise} is not {expected}");
    // a state in f64 stays in f64
    let x_t = Tensor::<4>::from_data(x_t.into_data(), (&Device::flex(), DType::F64));
    assert_eq!(classifier.towards(labels).log_probability_gradient(x_t, level).dtype(), DType::F64);
}

#[test]
fn a_file_restores_the_classifier_and_a_damaged_one_is_refused() {
    let digits = digits();
    let few = digits.subset(0..100);
    let classifier = trained(&few, 3);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("classifier.safetensors");
    classifier.save(&path).expect("a file");
    let read = NoisedClassifier::load(&path, &Device::flex()).expect("the same");
    assert_eq!((read.classes(), read.image(), read.schedule()), (10, classifier.image(), classifier.schedule()));
    let level = NoiseLevel { timestep: 3.0, alpha_bar: 0.7 };
    let output = |classifier: &NoisedClassifier| classifier.log_probabilities(tensor(&few), &[level; 100]).into_data();
    output(&read).assert_eq(&output(&classifier), true);

    let bytes = std::fs::read(&path).expect("bytes");
    let refused = |bytes: &[u8]| {
        let damaged = folder.path().join("damaged.safetensors");
        std::fs::write(&damaged, bytes).expect("written");
        let error = NoisedClassifier::load(&damaged, &Device::flex()).expect_err("refused").to_string();
        assert!(error.contains("damaged.safetensors"), "{error}");
    };
    refused(&bytes[..bytes.len() / 2]);
    refused(&[7; 100]);
    // a header with more classes than the weights have, in a file of the same length
    let text = String::from_utf8_lossy(&bytes[8..400]).into_owned();
    let at = 8 + text.find("classes\\\":10").expect("the header is first") + "classes\\\":".len();
    let mut more = bytes.clone();
    more[at..at + 2].copy_from_slice(b"99");
    refused(&more);
}

#[test]
fn impossible_images_and_options_are_refused() {
    let options = TrainingOptions::default();
    let train = |images: &ImageSet, options| {
        NoisedClassifier::train(images, &ScheduleConfig::default(), options, &Device::flex(), &mut |_, _| ())
            .expect_err("refused")
            .to_string()
    };
    let digits = digits();
    let unlabeled = ImageSet::new("unlabeled", vec![0; 2 * 64], [2, 8, 8, 1], None, None).expect("images");
    assert!(train(&unlabeled, options).contains("`unlabeled` has no labels"));
    let tiny = ImageSet::new("tiny", vec![0; 2 * 6], [2, 2, 3, 1], Some(vec![0, 1]), None).expect("images");
    assert!(train(&tiny, options).contains("2x3"));
    assert!(train(&digits, TrainingOptions { steps: 0, ..options }).contains("steps = 0"));
    assert!(train(&digits, TrainingOptions { batch_size: 0, ..options }).contains("batch_size = 0"));
    assert!(train(&digits, TrainingOptions { learning_rate: f64::NAN, ..options }).contains("learning_rate = NaN"));
}
